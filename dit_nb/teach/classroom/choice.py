"""Which of a student's files is graded, and which of the others it may use."""

import sys
import unicodedata
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.intake import _NOTEBOOK, _Received, _student_of
from dit_nb.teach.classroom.notebooks import _grade_id, _is_solution, _part, _read_submission

__all__ = []

_DOCUMENTS = (".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".zip", ".7z", ".rar", ".tar", ".gz")
# A file of this name beside a notebook would hide a package that the checks need.
_HIDES = {
    *sys.stdlib_module_names,
    *"dit_nb torch numpy einops IPython ipykernel matplotlib sitecustomize".split(),
}


def _choose(one: _Received, name: str, release: dict) -> tuple[Path | None, list[str], list[Path]]:
    """Return a student's notebook, remarks, and the files that it may use; no notebook: why, as only remark.

    Of several notebooks, those that are changed come first, then the newest attempt, then the right name, then
    the newest file.
    """
    candidates = [path for path in one.files if _NOTEBOOK.search(path.name)]
    others = [path for path in one.files if path not in candidates and path.name not in _SYSTEM_FILES]
    if not candidates:
        names = ", ".join(path.name for path in others)[:80]
        return None, [f"no notebook, but {names}" if names else "the folder is empty"], []
    rank = {path: _rank(one, path, name, release) for path in candidates}
    best = max(candidates, key=lambda path: rank[path])
    remarks = []
    if len(candidates) > 1:
        rest = [f"{p.relative_to(one.root)}{_newer(p, best)}" for p in candidates if p != best]
        remarks = [
            f"{len(candidates)} notebooks: {best.relative_to(one.root)} graded, not {', '.join(rest)}"[:300]
        ]
    hidden = [p for p in others if p.stem in _HIDES and p.suffix in (".py", "") or p.parts[-2] in _HIDES]
    unused = [p.name for p in others if p.suffix.lower() in _DOCUMENTS or p in hidden]
    remarks += [f"also submitted, not used: {', '.join(unused)[:150]}"] if unused else []
    named = best.name == f"{name}.ipynb" or one.attempts or _student_of(best.name, name) == one.key
    remarks += [] if named else [f"file name: {best.name}"]
    return best, remarks, [path for path in others if path.name not in unused]


_SYSTEM_FILES = ("timestamp.txt", "submission_secret.txt", "submission_time.txt")


def _newer(path: Path, best: Path) -> str:
    return " (newer)" if path.stat().st_mtime > best.stat().st_mtime + 1 else ""


def _rank(one: _Received, path: Path, name: str, release: dict) -> tuple:
    """Return how much speaks for a notebook."""
    exact = unicodedata.normalize("NFC", path.name) == f"{name}.ipynb"
    rest = (one.attempts.get(path, ()), exact, path.stat().st_mtime, path.name)
    try:
        nb = _read_submission(path)
    except UserError:
        return (0, *rest)
    origin = _part(nb["metadata"], "dit_nb").get("assignment")
    if origin not in (None, _part(release["metadata"], "dit_nb").get("assignment")):
        return (0, *rest)
    given = {_grade_id(cell): cell["source"].strip() for cell in release["cells"] if _is_solution(cell)}
    written = [cell for cell in nb["cells"] if "raise NotImplementedError" not in cell["source"]]
    changed = any(cell["source"].strip() != given.get(cell["id"], cell["source"].strip()) for cell in written)
    known = any(cell["id"] in given for cell in nb["cells"])
    return (2 if changed or not known else 1, *rest)
