"""Which of a student's files is graded, and which of the others it may use."""

import os
import sys
import unicodedata
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.intake import _JUNK, _NOTEBOOK, _Received, _student_of
from dit_nb.teach.classroom.notebooks import _grade_id, _is_solution, _part, _read_submission

__all__ = []

_DOCUMENTS = (".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".zip", ".7z", ".rar", ".tar", ".gz")
_MAX_FILES, _MAX_BYTES = 2000, 10**7  # of each file, and 10 times that of all: the folder may hold anything
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
    unused = [p.name for p in others if not _is_usable(p.relative_to(one.root))]
    remarks += [f"also submitted, not used: {', '.join(unused)[:150]}"] if unused else []
    named = best.name == f"{name}.ipynb" or one.attempts or _student_of(best.name, name) == one.key
    remarks += [] if named else [f"file name: {best.name}"]
    return best, remarks, [path for path in others if path.name not in unused]


_SYSTEM_FILES = ("timestamp.txt", "submission_secret.txt", "submission_time.txt")


def _is_usable(path: Path) -> bool:
    """Whether a notebook may use a file, named by its path in the submission: no document, and it hides no package."""
    hides = path.stem in _HIDES and path.suffix in (".py", "") or any(p in _HIDES for p in path.parts[:-1])
    return not hides and path.suffix.lower() not in _DOCUMENTS


def _files_beside(notebook: Path) -> tuple[Path, ...]:
    """Return what a notebook may use of its folder and two levels below: not too many files, and small ones."""
    found, folders, left = [], [notebook.parent], 10 * _MAX_BYTES
    for _ in range(3):
        entries = [entry for folder in folders for entry in _entries(folder)][:_MAX_FILES]
        for path in [path for path in entries if path.is_file() and not _NOTEBOOK.search(path.name)]:
            usable, size = _is_usable(path.relative_to(notebook.parent)), path.stat().st_size
            if usable and size <= min(_MAX_BYTES, left):
                found, left = [*found, path], left - size
        folders = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    return tuple(found)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not _JUNK.match(p.name) and os.access(p, os.R_OK))
    except OSError:  # one that may not be read
        return []


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
