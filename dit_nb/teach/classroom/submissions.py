"""Submissions of students: found, read, and repaired, so that nbgrader can grade them."""

import json
import signal
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.graders.framework.limits import _ALARM, _alarm_handler

__all__ = ["repair"]


def _find_submissions(folder: Path, name: str) -> Iterator[tuple[str, Path | str]]:
    """Yield (student, notebook or what is wrong) for a class, in the order of the students' names.

    Args:
        folder: folder of the class, with a notebook or a folder for each student
        name: the assignment, such as a1

    Raises:
        UserError: if there is no such folder
    """
    if not folder.is_dir():
        raise UserError(f"submissions is {folder}, but there is no such folder.")
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            if (path / name).is_dir():
                yield path.name, _find_notebook(path / name, name)
            elif not any((path / other).is_dir() for other in assignments()):
                yield path.name, _find_notebook(path, name)
        elif path.suffix == ".ipynb":
            yield path.stem, path
        else:
            yield path.stem, f"{path.name} is not a notebook"


def _find_notebook(folder: Path, name: str) -> Path | str:
    """Return the notebook in a student's folder, or what is wrong."""
    found = sorted(path for path in folder.glob("*.ipynb") if path.is_file())
    if folder / f"{name}.ipynb" in found:
        return folder / f"{name}.ipynb"
    if len(found) == 1:
        return found[0]
    if found:
        return f"several notebooks, and none is called {name}.ipynb: {', '.join(p.name for p in found)[:80]}"
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"no notebook, but {', '.join(others)[:80]}" if others else "the folder is empty"


def _read_submission(path: Path) -> dict:
    """Read a student's notebook as nbformat 4.5.

    Raises:
        UserError: if the file is not a notebook; the message says what it is
    """
    import nbformat

    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        raw = json.loads(text)
    except UnicodeDecodeError:
        raise UserError("it is not a text file, so not a notebook") from None
    except json.JSONDecodeError as error:
        cut = text.startswith("{") and (error.pos >= len(text) - 1 or "Unterminated" in error.msg)
        says = "it ends in the middle: was it saved completely?" if cut else "it is not a notebook"
        raise UserError(says if text else "the file is empty") from None
    if not isinstance(raw, dict) or "nbformat" not in raw:
        raise UserError("it is not a notebook, but other JSON")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.reads(json.dumps(raw), as_version=4)
            return {**nb, "cells": [_readable(cell) for cell in nb["cells"]], "format": raw["nbformat"]}
    except Exception as error:
        reason = f"its cells cannot be read ({type(error).__name__}, format {raw['nbformat']})"
        raise UserError(reason) from None


def _part(parent: dict, name: str) -> dict:
    """Return a dictionary inside another; empty if there is none: a student's file may hold anything."""
    found = parent.get(name)
    return found if isinstance(found, dict) else {}


def _readable(cell: dict) -> dict:
    """Return the parts of a student's cell that are used; raise an error if it has none."""
    source, kind = cell["source"], cell["cell_type"]
    if not isinstance(source, str) or kind not in ("code", "markdown", "raw"):
        raise TypeError
    name = _part(cell.get("metadata", {}), "nbgrader").get("grade_id")
    shown = {name: cell[name] for name in ("attachments", "outputs", "execution_count") if cell.get(name)}
    return {"kind": kind, "source": source, "id": name if isinstance(name, str) else None, "shown": shown}


def _match_cells(theirs: list[dict], ours: list[dict]) -> list[int | None]:
    """Return for each of the student's cells the index of the cell of the release that it is."""
    by_id = {_grade_id(cell): i for i, cell in enumerate(ours) if _grade_id(cell)}
    by_text = {(cell["cell_type"], cell["source"].strip()): i for i, cell in reversed([*enumerate(ours)])}
    return [by_id.get(cell["id"], by_text.get((cell["kind"], cell["source"].strip()))) for cell in theirs]


def _marks(cell: dict) -> dict:
    """Return nbgrader's marks of a cell of the release."""
    return cell["metadata"].get("nbgrader", {})


def _grade_id(cell: dict) -> str | None:
    return _marks(cell).get("grade_id")


def _is_solution(cell: dict) -> bool:
    return bool(_marks(cell).get("solution"))


def _own_cell(cell: dict) -> dict:
    """Turn a student's cell into a notebook cell with its source and outputs, and nothing else."""
    new = {"cell_type": cell["kind"], "metadata": {}, "source": cell["source"]}
    new |= {"outputs": [], "execution_count": None} if cell["kind"] == "code" else {}
    return new | cell["shown"]


def _graded_by_hand(release: dict) -> bool:
    """Whether a person grades all of it, so that nothing needs to run."""
    marks = [_marks(cell) for cell in release["cells"]]
    return all(m.get("solution") for m in marks if m.get("grade"))


def repair(path: Path, release: dict) -> tuple[dict, list[str]]:
    """Put a student's work into the cells of the release; return the notebook and remarks for the teacher.

    Args:
        path: file of the student's notebook
        release: the notebook that students were given

    Raises:
        UserError: if the file is not a notebook, or not one of this assignment
    """
    submission = _read_submission(path)
    theirs, ours = submission["cells"], release["cells"]
    if not _graded_by_hand(release):  # it will run again, so its outputs are dropped
        theirs = [{**cell, "shown": _attachments(cell)} for cell in theirs]
    _check_origin(submission, release)
    places = _match_cells(theirs, ours)
    if not any(i is not None and _grade_id(ours[i]) for i in places):
        raise UserError("it is a notebook, but none of its cells is of this assignment")
    copies, after = _sort_cells(theirs, places)
    cells = list(after[-1])
    for i, cell in enumerate(ours):
        cells += _with_work(cell, copies[i]) if _is_solution(cell) else [_with_outputs(cell, copies[i])]
        cells += after[i]
    remarks = [*_format_remarks(submission, release), *_remarks(ours, copies, theirs)]
    return {**release, "cells": _with_ids(cells)}, remarks


def _sort_cells(theirs: list[dict], places: list[int | None]) -> tuple[dict, dict]:
    """Return the copies of each of our cells, and the student's own cells after each; -1: before all."""
    copies, after, last = defaultdict(list), defaultdict(list), -1
    for cell, i in zip(theirs, places):
        if i is None:
            after[last].append(_own_cell(cell))
        else:
            copies[i].append(cell)
            last = i
    return copies, after


def _with_ids(cells: list[dict]) -> list[dict]:
    """Return the cells with new ids; those after the last graded one need not run."""
    last = max((i for i, cell in enumerate(cells) if _marks(cell).get("grade")), default=len(cells))
    found = []
    for i, cell in enumerate(cells):
        tags = {"tags": ["skip-execution"]} if _grade_id(cell) and i > last else {}
        found.append({**cell, "id": f"cell-{i:04d}", "metadata": {**cell["metadata"], **tags}})
    return found


def _with_outputs(ours: dict, copies: list[dict]) -> dict:
    return {**ours, **(copies[-1]["shown"] if copies else {})}


def _with_work(ours: dict, copies: list[dict]) -> list[dict]:
    """Return a solution cell with the student's work, after earlier copies of it."""
    worked = [cell for cell in copies if _differs(cell, ours)] or copies[:1]
    if not worked:
        empty = "" if ours["cell_type"] == "markdown" else "# this cell was missing"
        return [{**ours, "source": empty}]
    *before, final = worked
    return [*map(_own_cell, before), {**ours, **final["shown"], "source": final["source"]}]


def _attachments(cell: dict) -> dict:
    return {name: value for name, value in cell["shown"].items() if name == "attachments"}


def _check_origin(submission: dict, release: dict) -> None:
    origin, wanted = (_part(nb["metadata"], "dit_nb").get("assignment") for nb in (submission, release))
    if origin is not None and origin != wanted:
        raise UserError(f"it is assignment {origin}, but assignment {wanted} is graded")


def _format_remarks(submission: dict, release: dict) -> list[str]:
    """Say with which other software it was saved; it is graded all the same."""
    theirs, ours = (_part(nb["metadata"], "kernelspec").get("name") for nb in (submission, release))
    remarks, saved = [], submission.get("format", 4)
    if theirs not in (None, ours):
        remarks.append(f"saved with the kernel {theirs!r:.40}, graded with {ours}")
    if saved != 4:
        remarks.append(f"saved in notebook format {saved}, read as 4")
    return remarks


def _remarks(ours: list[dict], copies: dict[int, list[dict]], theirs: list[dict]) -> list[str]:
    """Say what was repaired."""
    if not any(cell["id"] for cell in theirs):
        return ["its cells have lost their marks: recognized by their text"]
    marked = [(i, cell) for i, cell in enumerate(ours) if _grade_id(cell)]
    locked = [(i, cell) for i, cell in marked if not _is_solution(cell)]
    named = {
        "missing, restored": [_grade_id(cell) for i, cell in locked if not copies[i]],
        "changed, restored": [_grade_id(c) for i, c in locked if any(_differs(own, c) for own in copies[i])],
        "missing, left empty": [_grade_id(c) for i, c in marked if _is_solution(c) and not copies[i]],
        "duplicated": [_grade_id(cell) for i, cell in marked if len(copies[i]) > 1],
    }
    return [f"{words}: {', '.join(names)}" for words, names in named.items() if names]


def _differs(theirs: dict, ours: dict) -> bool:
    return theirs["source"].strip() != ours["source"].strip()


def _limit_cells(seconds: float) -> None:
    """Stop every cell of this kernel that takes longer than some seconds; each nbgrader_config.py calls it."""
    from IPython import get_ipython

    if not _ALARM:  # nbgrader's own time limit must do
        return
    shell = get_ipython()
    shell.ask_exit = lambda: None  # exit() would end the grading, too
    message = f"This cell took more than {seconds:g} seconds: is there an endless loop?"

    def runs_cell(frame):
        return any(f.f_globals is shell.user_global_ns for f, _ in traceback.walk_stack(frame))

    def start(_):
        shell.ast_node_interactivity = "last_expr"  # the points of a check are the value of its last line
        signal.signal(signal.SIGALRM, _alarm_handler(runs_cell, message))
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)

    def stop(_):
        signal.setitimer(signal.ITIMER_REAL, 0)

    shell.events.register("pre_run_cell", start)
    shell.events.register("post_run_cell", stop)
