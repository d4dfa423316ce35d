"""Submissions repaired: the cells of the release, with the student's work in its places."""

import ast
from collections import defaultdict
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.notebooks import (
    _exercise,
    _grade_id,
    _graded_by_hand,
    _is_check,
    _is_report,
    _is_solution,
    _marks,
    _part,
    _read_submission,
    _sanitized,
)

__all__ = ["repair"]

_BELOW = "The answer stands in the cells below."


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
    copies, before, after = _sort_cells(theirs, places, ours)
    moved = _move_up(ours, copies, before, after)
    cells = list(after[-1])
    for i, cell in enumerate(ours):
        cells += before[i]
        cells += _with_work(cell, copies[i]) if _is_solution(cell) else [_with_outputs(cell, copies[i])]
        cells += after[i]
    remarks = [*_format_remarks(submission, release), *_remarks(ours, copies, theirs), *moved]
    return {**release, "cells": _with_ids(_point_below(cells, ours))}, remarks


def _match_cells(theirs: list[dict], ours: list[dict]) -> list[int | None]:
    """Return for each of the student's cells the index of the cell of the release that it is."""
    by_id = {_grade_id(cell): i for i, cell in enumerate(ours) if _grade_id(cell)}
    by_text = {(cell["cell_type"], cell["source"].strip()): i for i, cell in reversed([*enumerate(ours)])}
    return [by_id.get(cell["id"], by_text.get((cell["kind"], cell["source"].strip()))) for cell in theirs]


def _sort_cells(theirs: list[dict], places: list[int | None], ours: list[dict]) -> tuple[dict, dict, dict]:
    """Return the copies of each of our cells, and the student's own cells before and after each.

    A copy of a solution cell below its check is an own cell there, as it was in the student's own run.
    """
    copies, before, after, last = defaultdict(list), defaultdict(list), defaultdict(list), -1
    above = _above_checks(theirs, places, ours)
    for k, (cell, i) in enumerate(zip(theirs, places)):
        if i is None or k not in above.get(i, {k}):
            last = last if i is None else max(last, _last_check(ours, _exercise(ours[i]), last))
            after[last].append(_own_cell(cell))
        else:
            copies[i].append(cell)
            last = i
    for i in [
        i for i in after if i >= 0 and _is_check(ours[i])
    ]:  # a hidden check follows the open one at once
        last = _last_check(ours, _exercise(ours[i]), i)
        if last > i:
            after[last] = after.pop(i) + after[last]
    return copies, before, after


def _last_check(ours: list[dict], exercise: str, default: int) -> int:
    """Return the index of the last check of an exercise."""
    return max((i for i, c in enumerate(ours) if _is_check(c) and _exercise(c) == exercise), default=default)


def _above_checks(theirs: list[dict], places: list[int | None], ours: list[dict]) -> dict[int, set[int]]:
    """Return which copies of each solution cell stand above its check, if the student has written there."""
    open_checks = {_exercise(c): i for i, c in reversed([*enumerate(ours)]) if _is_check(c)}
    first = {e: places.index(i) for e, i in open_checks.items() if i in places}
    found = {}
    for i, cell in enumerate(ours):
        if _is_solution(cell) and not _is_report(cell):
            copies, exercise = [k for k, place in enumerate(places) if place == i], _exercise(cell)
            end = first.get(exercise, _second(theirs, copies, exercise))
            if any(_differs(theirs[k], cell) for k in copies if k < end):
                found[i] = {k for k in copies if k < end}
    return found


def _second(theirs: list[dict], copies: list[int], exercise: str) -> int:
    """Return the place of a function's second definition; without a check, the first one counts."""
    defining = [k for k in copies if _defines(_own_cell(theirs[k]), exercise)]
    return defining[1] if len(defining) > 1 else len(theirs)


def _move_up(ours: list[dict], copies: dict, before: dict, after: dict) -> list[str]:
    """Move a function that is defined below its check above it, if nothing is written in its place."""
    moved = []
    for i, cell in enumerate(ours):
        exercise = _exercise(cell)
        if not _is_solution(cell) or _is_report(cell) or any(_differs(c, cell) for c in copies[i]):
            continue
        check = next((j for j, c in enumerate(ours) if _is_check(c) and _exercise(c) == exercise), None)
        if check is None or any(_defines(own, exercise) for j in range(-1, check) for own in after[j]):
            continue
        for j in range(check, len(ours)):
            for own in [own for own in after[j] if _defines(own, exercise)]:
                after[j].remove(own)
                before[check].append(own)
                moved.append(exercise)
    return [f"defined below its check, moved up: {', '.join(dict.fromkeys(moved))}"] if moved else []


def _defines(cell: dict, name: str) -> bool:
    """Whether a cell defines a function, or gives a value to its name."""
    if cell["cell_type"] != "code":
        return False
    try:
        body = ast.parse(cell["source"]).body
    except (SyntaxError, ValueError):
        return False
    targets = [t for node in body if isinstance(node, ast.Assign) for t in node.targets]
    return any(getattr(node, "name", getattr(node, "id", None)) == name for node in [*body, *targets])


def _own_cell(cell: dict) -> dict:
    """Turn a student's cell into a notebook cell with its source and outputs, and nothing else."""
    new = {"cell_type": cell["kind"], "metadata": {}, "source": cell["source"]}
    new |= {"outputs": [], "execution_count": None} if cell["kind"] == "code" else {}
    return _sanitized(new | cell["shown"])


def _with_outputs(ours: dict, copies: list[dict]) -> dict:
    shown = copies[-1]["shown"] if copies else {}
    return {**ours, **(_sanitized({**ours, **shown}) if ours["cell_type"] == "code" and shown else {})}


def _with_work(ours: dict, copies: list[dict]) -> list[dict]:
    """Return a solution cell with the student's work, after earlier copies of it."""
    worked = [cell for cell in copies if _differs(cell, ours)] or copies[:1]
    if _is_report(ours) and not any(cell["source"].strip() for cell in worked):
        return [ours]  # no answer, for which nobody needs to wait
    if not worked:
        empty = "" if ours["cell_type"] == "markdown" else "# this cell was missing"
        return [{**ours, "source": empty}]
    *before, final = worked
    work = {**ours, **final["shown"], "source": final["source"]}
    return [*map(_own_cell, before), _sanitized(work) if _differs(final, ours) else work]


def _point_below(cells: list[dict], ours: list[dict]) -> list[dict]:
    """Say in an untouched cell for a report that the answer stands below, if own cells follow it."""
    original = {_grade_id(cell): cell["source"] for cell in ours if _is_report(cell)}
    found = list(cells)
    for i, cell in enumerate(cells):
        untouched = _is_report(cell) and cell["source"].strip() in ("", original[_grade_id(cell)].strip())
        follows = cells[i + 1] if i + 1 < len(cells) else {"metadata": {"nbgrader": {}}, "source": ""}
        own = not _marks(follows) and follows["source"].strip() and "id" not in follows
        if untouched and own:
            note = f"**{_BELOW}**" if cell["cell_type"] == "markdown" else f"# {_BELOW}"
            found[i] = {**cell, "source": f"{cell['source']}\n\n{note}".strip()}
    return found


def _with_ids(cells: list[dict]) -> list[dict]:
    return [{**cell, "id": f"cell-{i:04d}"} for i, cell in enumerate(cells)]


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
    return [f"{words}: {_short(names)}" for words, names in named.items() if names]


def _short(names: list) -> str:
    return ", ".join(names) if len(names) < 7 else f"{', '.join(names[:3])} and {len(names) - 3} more cells"


def _differs(theirs: dict, ours: dict) -> bool:
    return theirs["source"].strip() != ours["source"].strip()
