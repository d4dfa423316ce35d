"""`dit-nb check`: the open checks of an assignment, on one notebook."""

import json
from pathlib import Path

from dit_nb.commands.options import Check
from dit_nb.errors import UserError
from dit_nb.teach.classroom.checking import Checked, check_notebook
from dit_nb.teach.classroom.choice import _files_beside
from dit_nb.teach.classroom.kernels import Limits

__all__ = []


def run(options: Check) -> int:
    "Run dit-nb check; return 0 if all is right, or 1."
    if not options.seconds > 0:
        raise UserError(f"seconds is {options.seconds:g}, but must be more than 0.")
    limits = Limits(options.seconds, options.sandbox)
    notebook = Path(options.notebook)
    files = _files_beside(notebook) if notebook.is_file() else ()
    checked = check_notebook(notebook, options.assignment, limits=limits, files=files)
    print(json.dumps(_as_json(checked), indent=1) if options.json else _as_text(checked))
    return 0 if checked.points >= checked.max_points else 1


def _as_text(checked: Checked) -> str:
    lines = [
        f"{'✓' if line.points >= line.max_points else '✗'} {line.exercise} "
        f"({line.points:g} of {line.max_points:g} points): {line.sentence}"
        for line in checked.lines
    ]
    lines += [f"- {exercise}: graded by a person" for exercise in checked.by_hand]
    lines += [f"note: {note}" for note in checked.notes]
    return "\n".join([*lines, f"{checked.points:g} of {checked.max_points:g} points of the open checks"])


def _as_json(checked: Checked) -> dict:
    tests = [
        {"name": line.exercise, "score": line.points, "max_score": line.max_points, "output": line.sentence}
        for line in checked.lines
    ]
    return {
        "assignment": checked.assignment,
        "score": checked.points,
        "max_score": checked.max_points,
        "tests": tests,
        "graded_by_a_person": list(checked.by_hand),
        "notes": list(checked.notes),
    }
