"""One notebook checked: for a student, for continuous integration, and for Gradescope."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.execute import _run_notebook
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook
from dit_nb.teach.classroom.notebooks import (
    _exercise,
    _grade_id,
    _is_check,
    _is_report,
    _marks,
    _part,
    _read_submission,
)
from dit_nb.teach.classroom.remarks import _code_remarks
from dit_nb.teach.classroom.repair import repair
from dit_nb.teach.classroom.sandbox import _check_sandbox

__all__ = ["Checked", "check_notebook"]


@dataclass(frozen=True)
class _Line:
    """Result of one graded cell."""

    exercise: str
    hidden: bool  # whether students do not have this check
    points: float
    max_points: float
    sentence: str  # what is wrong and where to look, or that all is right


@dataclass(frozen=True)
class Checked:
    """Result of a notebook."""

    assignment: str
    lines: tuple[_Line, ...]
    by_hand: tuple[str, ...]  # what a person grades
    notes: tuple[str, ...]  # what was repaired, and what ended Python
    remarks: tuple[str, ...]  # calls that were not given
    seconds: float

    @property
    def points(self) -> float:
        """Points of all checks."""
        return sum(line.points for line in self.lines)

    @property
    def max_points(self) -> float:
        """Maximum points of all checks."""
        return sum(line.max_points for line in self.lines)


def check_notebook(
    path: Path,
    name: str | None = None,
    source: dict | None = None,
    limits: Limits | None = None,
    files: tuple = (),
) -> Checked:
    """Run the checks of an assignment on a student's notebook.

    Args:
        path: the notebook
        name: the assignment, such as a1; None: the one that the notebook says it is
        source: nbgrader's source of the assignment, for the hidden checks, too; None: the open checks alone
        limits: limits of each cell
        files: files beside the notebook, that it may use

    Returns:
        the result of each exercise, the points, and remarks

    Raises:
        UserError: if the file is not a notebook of an assignment
    """
    if not path.is_file():
        raise FileNotFoundError(f"notebook is {path}, but there is no such file.")
    try:
        name = name or _name_of(path)
        release = _release_notebook(source or source_notebook(name))
        nb, notes = repair(path, release)
    except UserError as error:
        raise UserError(f"notebook is {path}, but {error}.".replace("..", ".")) from None
    limits = limits or Limits()
    if limits.sandbox:
        _check_sandbox()
    remarks = _code_remarks(nb, release, files)
    sources = {_grade_id(cell): cell for cell in (source or {"cells": []})["cells"] if _grade_id(cell)}
    cells = [_with_check(cell, sources) for cell in nb["cells"]]
    nb = {**nb, "cells": [cell for cell in cells if cell["source"].strip() or not _is_check(cell)]}
    with tempfile.TemporaryDirectory(prefix="dit") as folder:
        _copy(files, path.parent, Path(folder))
        run = asyncio.run(_run_notebook(nb, Path(folder), limits))
    lines = tuple(_line(cell, run) for cell in nb["cells"] if _is_check(cell))
    by_hand = tuple(_exercise(cell) for cell in nb["cells"] if _is_report(cell))
    return Checked(name, lines, by_hand, (*notes, *run.remarks), tuple(remarks), run.seconds)


def _copy(files: tuple, root: Path, folder: Path) -> None:
    for path in files:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _name_of(path: Path) -> str:
    name = _part(_read_submission(path)["metadata"], "dit_nb").get("assignment")
    stem = path.name.split(".")[0].split("_")[0].split(" ")[0]
    if name or stem in assignments():
        return str(name or stem)
    raise UserError("it does not say of which assignment it is: use --assignment")


def _with_check(cell: dict, sources: dict[str, dict]) -> dict:
    """Return a cell with the check of the source; a hidden check without a source is empty."""
    if not _is_check(cell):
        return cell
    own = sources.get(_grade_id(cell) or "")
    if own is not None:
        return {**cell, "source": own["source"]}
    return {**cell, "source": ""} if (_grade_id(cell) or "").endswith("-hidden") else cell


def _line(cell: dict, run) -> _Line:
    grade_id, points = _grade_id(cell) or "", float(_marks(cell)["points"])
    row = run.reports.get(grade_id, {})
    errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
    reason = row.get("reason") or (errors[0]["evalue"] if errors else "The check did not run.")
    hint = f" Where to look: {row['hint']}" if row.get("hint") else ""
    share = run.share(grade_id)
    return _Line(_exercise(cell), grade_id.endswith("-hidden"), points * share, points, f"{reason}{hint}")
