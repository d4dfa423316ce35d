"""Notebooks run cell by cell: what was earned stays, also if a cell ends Python."""

import ast
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dit_nb.teach.classroom.kernels import _MODULE, Limits, _Dead, _error, _kernel, _output
from dit_nb.teach.classroom.notebooks import _exercise, _is_check, _is_solution, _marks, _sanitized_output
from dit_nb.teach.classroom.remarks import _without_pip
from dit_nb.teach.graders.framework.report import Report

__all__ = []

_SNAPSHOT = "dit_nb.teach.classroom.snapshot"  # that knows, in the kernel, what the graders were


@dataclass
class _Run:
    """What a run of a notebook found; the outputs are in the notebook's cells."""

    reports: dict[str, dict] = field(default_factory=dict)  # grade_id -> row of the check's report
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def share(self, grade_id: str) -> float:
        """Return which part of the points of a check is earned, from 0 to 1."""
        row = self.reports.get(grade_id, {})
        return min(max(row["points"] / row["max_points"], 0.0), 1.0) if row.get("max_points") else 0.0


async def _run_notebook(nb: dict, folder: Path, limits: Limits) -> _Run:
    """Run a notebook of an assignment, and write the outputs into its cells.

    A cell that ends Python is left out: Python starts again, the cells before it are repeated without their
    checks, and what was earned before stays.

    Args:
        nb: notebook with the checks, repaired
        folder: folder to run in, with the files that the notebook needs
        limits: limits of each cell, and whether it runs in a sandbox
    """
    run, start = _Run(), time.monotonic()
    left_out: dict[int, str] = {}  # index of a cell -> code that runs instead
    done, end = 0, _end(nb)
    while done < end:
        try:
            async with _kernel(folder, limits) as kernel:
                done = await _run_cells(nb, kernel, run, done, end, left_out)
        except _Killed as killed:
            done = max(done, _leave_out(nb, killed, run, left_out))
    run.seconds = time.monotonic() - start
    return run


class _Killed(_Dead):
    """A cell has ended the kernel."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index, self.reason = index, reason


def _end(nb: dict) -> int:
    """Return the number of cells up to the last graded one: nothing depends on those after it."""
    return max((i + 1 for i, cell in enumerate(nb["cells"]) if _marks(cell).get("grade")), default=0)


async def _run_cells(nb, kernel, run: _Run, done: int, end: int, left_out: dict[int, str]) -> int:
    for i, cell in enumerate(nb["cells"][:end]):
        if cell["cell_type"] != "code" or "skip-execution" in cell["metadata"].get("tags", []):
            continue
        source = left_out.get(i, cell["source"])
        if i < done and i not in left_out and _is_check(cell):
            continue
        if not source.strip():
            continue
        try:
            outputs = [_sanitized_output(output) for output in await kernel.run(_without_pip(source))]
            if i >= done and i not in left_out:
                cell["outputs"], cell["execution_count"] = outputs, i + 1
                if _is_check(cell):
                    await _read_result(cell, kernel, run)
        except _Dead as dead:
            raise _Killed(i, str(dead)) from None
    run.remarks += await _replaced(kernel)
    return end


async def _read_result(cell: dict, kernel, run: _Run) -> None:
    """Take the report of a check from the kernel, and write the outputs that nbgrader reads."""
    marks = _marks(cell)
    row = _as_row(await kernel.value(f"__import__({_MODULE!r}, fromlist=['x'])._take_result()"))
    if row.get("name") == _exercise(cell):
        run.reports[marks["grade_id"]] = row
    _write_outputs(cell, run.reports.get(marks["grade_id"]), run.share(marks["grade_id"]))


_ROW = {
    "name": str,
    "passed": bool,
    "points": int | float,
    "max_points": int | float,
    "reason": str,
    "hint": str,
}


def _as_row(text: str) -> dict:
    """Read a report; empty if it is none, since the code of a student may have written it."""
    try:
        row = json.loads(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError):
        return {}
    whole = isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in _ROW.items())
    return row if whole else {}


def _write_outputs(cell: dict, row: dict | None, share: float) -> None:
    """Keep the report, and say in nbgrader's terms what it earns: an error, a number, or nothing for all."""
    kept = [o for o in cell["outputs"] if o["output_type"] in ("stream", "display_data")]
    kept = [o for o in kept if o.get("name") != "stderr"]
    errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
    if row and not any("text/markdown" in o.get("data", {}) for o in kept):
        report = Report(**{k: row[k] for k in ("name", "passed", "points", "max_points", "reason", "hint")})
        kept.append(_output("display_data", {"text/markdown": report._repr_markdown_()}))
    if share <= 0:
        kept += errors[:1] or [_error("The check did not run to its end.")]
    elif share < 1:
        points = _marks(cell)["points"] * share
        kept.append({**_output("execute_result", {"text/plain": f"{points:g}"}), "execution_count": None})
    cell["outputs"] = kept


async def _replaced(kernel) -> list[str]:
    found = await kernel.value(f"', '.join(__import__({_SNAPSHOT!r}, fromlist=['x'])._replaced_names())")
    names = re.sub(r"^'|'$", "", found)
    return [f"parts of the graders were replaced: {names[:300]}"] if names else []


def _leave_out(nb: dict, killed: _Killed, run: _Run, left_out: dict[int, str]) -> int:
    """Leave out the cell that ended the kernel; return from where on outputs count."""
    cell, i = nb["cells"][killed.index], killed.index
    exercise = _exercise(cell) if _is_check(cell) else ""
    who = f"a call of {exercise}" if exercise else _name(nb, i)
    run.remarks.append(f"{who} {killed.reason}")
    if not exercise:
        left_out[i] = ""
        cell["outputs"] = [_error(f"This cell {killed.reason}. It was left out.")]
        return i + 1
    for j, other in enumerate(nb["cells"]):  # later cells use our function instead
        if j >= i and _is_check(other) and _exercise(other) == exercise:
            left_out[j] = f"{exercise} = None"
            other["outputs"] = [_error(f"{exercise} {killed.reason}.")]
    return i + 1


def _name(nb: dict, i: int) -> str:
    """Say which cell it is, for a remark."""
    marks = _marks(nb["cells"][i])
    if _is_solution(nb["cells"][i]):
        return f"the code of {marks['grade_id'].rsplit('-', 1)[0]}"
    return f"the cell {marks['grade_id']}" if marks else f"an own cell ({i + 1})"


def _free_folders(root: Path) -> Iterator[Path]:
    """Yield new folders for kernels; their names are short, since names of sockets are limited."""
    k = 0
    while True:
        k += 1
        folder = root / str(k)
        folder.mkdir()
        yield folder
