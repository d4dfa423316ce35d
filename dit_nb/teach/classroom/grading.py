"""Courses graded with nbgrader: build assignments, grade submissions, preview what students get."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _dumps
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.submissions import (
    _find_submissions,
    _graded_by_hand,
    _marks,
    repair,
)
from dit_nb.utils import _atomic_write

__all__ = ["Grade", "build", "grade", "preview"]

_CONFIG = '''"""Settings of nbgrader for this course; change them here. `nbgrader generate_config` lists all."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "dit"

# With JupyterHub, a folder that the whole class can reach:
# c.Exchange.root = "/srv/nbgrader/exchange"

c.ClearSolutions.code_stub = {{
    "python": "# Replace the next line with your code.\\nraise NotImplementedError"
}}

# Grading: a cell may take {seconds:g} seconds. If it cannot be stopped, nbgrader's own time limit stops it.
limit = "__import__('importlib').import_module('dit_nb.teach.classroom.submissions')._limit_cells({seconds:g})"
c.Execute.extra_arguments = ["--HistoryManager.hist_file=:memory:", f"--IPKernelApp.exec_lines={{limit}}"]
c.Execute.timeout = {timeout:d}
c.Execute.raise_on_iopub_timeout = False  # too much output does not end the grading
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"[\\s\\S]"  # a warning in a check costs no points
c.OverwriteCells.add_missing_cells = True
'''

# Several commands of nbgrader in one process: starting it takes longer than most of its commands.
_COMMANDS = """
import json, sys
from nbgrader.apps import NbGraderApp

status = 0
for words in json.loads(sys.argv[1]):
    print(">>> nbgrader", *words, flush=True)
    NbGraderApp.clear_instance()
    try:
        NbGraderApp.launch_instance(words)
    except SystemExit as end:
        status = status or end.code
sys.exit(status)
"""

# Style of feedback pages: space in tables, wrapped lines, triangles at folded hints, figures that fit.
_STYLE = """<style>
td, th { padding: 0 0.7em }
pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere }
summary { display: list-item; cursor: pointer }
img { max-width: 100% }
.anchor-link { display: none }
</style>
</head>"""


def _nbgrader(course: Path, *commands: list[str]) -> bool:
    """Run commands of nbgrader in the folder of a course; return whether all succeeded."""
    if find_spec("nbgrader") is None:
        raise ImportError("nbgrader is missing: pip install 'dit_nb[school]'.", name="nbgrader")
    python = [sys.executable, "-W", "ignore", "-c", _COMMANDS, json.dumps(commands)]
    # nbgrader starts alembic by its name, which may not be on the PATH; it is beside this python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with (course / "nbgrader.log").open("a", encoding="utf-8") as log:
        run = subprocess.run(python, cwd=course, stdout=log, stderr=log, env=os.environ | {"PATH": path})
    return run.returncode == 0


def build(name: str, course: str | Path, seconds: float = 60) -> Path:
    """Put an assignment into an nbgrader course; return the notebook for the students.

    Args:
        name: the assignment, such as a1
        course: folder of the course; created if it does not exist
        seconds: time limit of a cell in grading

    Raises:
        UserError: if the course has another source of that name, or nbgrader fails
    """
    if not seconds > 0:
        raise UserError(f"seconds is {seconds:g}, but must be more than 0.")
    text, course = _dumps(source_notebook(name)), Path(course)
    source, release = (course / part / name / f"{name}.ipynb" for part in ("source", "release"))
    if source.exists() and source.read_text(encoding="utf-8") != text:
        raise UserError(f"{source} already exists and is different: move it, or choose another folder.")
    new = not source.exists()
    try:
        source.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"course is {course}, but no folder can be created there: {error.strerror}."
        ) from None
    config = course / "nbgrader_config.py"
    if not config.exists():
        config.write_text(_CONFIG.format(seconds=seconds, timeout=round(seconds + 30)), encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    if not _nbgrader(course, ["generate_assignment", name, "--force"]) or not release.exists():
        if new:
            shutil.rmtree(source.parent)
        raise UserError(f"nbgrader could not write {release}: see {course / 'nbgrader.log'}.")
    return release


def preview(name: str, out: Path) -> None:
    """Write what a student gets.

    Args:
        name: the assignment, such as a1
        out: file to write, .ipynb or .html

    Raises:
        UserError: if the file exists, or as `build`
    """
    if out.exists():
        raise UserError(f"out is {out}, which already exists: choose another name.")
    with tempfile.TemporaryDirectory() as folder:
        content = build(name, folder).read_text(encoding="utf-8")
    if out.suffix == ".html":
        import nbformat
        from nbconvert import HTMLExporter

        content, _ = HTMLExporter().from_notebook_node(nbformat.reads(content, as_version=4))
    out.write_text(content, encoding="utf-8")


class Grade(NamedTuple):
    """Result of one student."""

    student: str  # name of the student
    exercises: dict[str, tuple[float, float]]  # exercise -> points and maximum points; empty: not graded
    by_hand: tuple[str, ...]  # exercises that the teacher has yet to grade
    remarks: str  # what the teacher should know

    @property
    def points(self) -> float:
        """Points of all exercises."""
        return sum(points for points, _ in self.exercises.values())

    @property
    def max_points(self) -> float:
        """Maximum points of all exercises."""
        return sum(most for _, most in self.exercises.values())


def grade(name: str, course: str | Path, submissions: str | Path | None = None) -> list[Grade]:
    """Grade a class: repair and run the notebooks, write feedback pages, and a table grades-NAME.csv.

    Args:
        name: the assignment, such as a1
        course: folder of the course, from `build`
        submissions: folder of the students' notebooks; default: submitted in the course

    Raises:
        UserError: if the assignment was not built there, or there are no submissions
    """
    import nbformat

    course = Path(course)
    submissions = Path(submissions or course / "submitted")
    path = course / "release" / name / f"{name}.ipynb"
    if not path.exists():
        raise UserError(f"course is {course}, but there is no {path}: build the assignment first.")
    release = nbformat.read(path, as_version=4)
    shutil.rmtree(course / "repaired", ignore_errors=True)
    remarks = {
        student: _stage(found, release, course / "repaired" / student / name)
        for student, found in _find_submissions(submissions, name)
    }
    if not remarks:
        raise UserError(f"submissions is {submissions}, but it has no submissions.")
    ready = [student for student in remarks if (course / "repaired" / student).exists()]
    if ready:
        _run_nbgrader(course, name, run=not _graded_by_hand(release))
    ids = [_marks(cell).get("grade_id") for cell in release["cells"]]
    grades = [
        _read_grade(course, name, student, text, ids) if student in ready else Grade(student, {}, (), text)
        for student, text in remarks.items()
    ]
    _write_csv(course / f"grades-{name}.csv", name, grades)
    return grades


def _stage(path: Path | str, release: dict, folder: Path) -> str:
    """Read and repair a submission (a path, or what is wrong with it); return remarks for the teacher."""
    if isinstance(path, str):
        return f"not graded: {path}"
    try:
        nb, remarks = repair(path, release)
    except ValueError as error:
        return f"not graded: {error}"
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.ipynb").write_text(_dumps(nb), encoding="utf-8")
    if (path.parent / "timestamp.txt").exists():  # written by nbgrader collect
        shutil.copy(path.parent / "timestamp.txt", folder)
    named = [] if path.stem in (folder.name, folder.parent.name) else [f"file name: {path.name}"]
    return "; ".join([*named, *remarks])


def _readable_page(page: str) -> str:
    """Improve a feedback page of nbgrader: exercise names in its table of points, and our style."""
    named = re.sub(r'<a href="#(\w+)-(\w+)">[\w -]+</a> \(Score', r'<a href="#\1-\2">\1, \2</a> (Score', page)
    return named.replace("</head>", _STYLE, 1)


def _run_nbgrader(course: Path, name: str, run: bool) -> None:
    """Grade what is in repaired/, write the feedback, export the grades."""
    unchanged = ["--Execute.enabled=False", "--ClearOutput.enabled=False"]
    options = ["--CourseDirectory.submitted_directory=repaired", *([] if run else unchanged)]
    _nbgrader(
        course,
        ["autograde", name, "--force", *options],
        ["generate_feedback", name, "--force"],
        ["export", "--to=grades.csv"],
    )
    for page in course.glob(f"feedback/*/{name}/{name}.html"):
        page.write_text(_readable_page(page.read_text(encoding="utf-8")), encoding="utf-8")


def _read_grade(course: Path, name: str, student: str, remarks: str, ids: list[str]) -> Grade:
    """Read a student's points from the gradebook; ids are the graded cells in their order."""
    from nbgrader.api import Gradebook

    if not (course / "autograded" / student / name / f"{name}.ipynb").exists():
        ended = "not graded: it did not run to the end (did it exit Python?), see nbgrader.log"
        return Grade(student, {}, (), "; ".join(part for part in (ended, remarks) if part))
    exercises, waiting = {}, []
    with Gradebook(f"sqlite:///{(course / 'gradebook.db').resolve()}") as book:
        (notebook,) = book.find_submission(name, student).notebooks
        for cell in sorted(notebook.grades, key=lambda grade: ids.index(grade.name)):
            exercise = cell.name.rsplit("-", 1)[0]
            points, most = exercises.get(exercise, (0.0, 0.0))
            exercises[exercise] = (points + (cell.score or 0.0), most + cell.max_score)
            waiting += [exercise] if cell.needs_manual_grade and cell.manual_score is None else []
    waits = f"to be graded by hand: {', '.join(waiting)}" if waiting else ""
    return Grade(student, exercises, tuple(waiting), "; ".join(part for part in (remarks, waits) if part))


def _write_csv(path: Path, name: str, grades: list[Grade]) -> None:
    """Write a row for each student and a column for each exercise."""
    exercises = _columns(grades)
    with _atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["assignment", "student", "points", "of", *exercises, "remarks"])
        for g in grades:
            each = [f"{g.exercises[e][0]:g}" if e in g.exercises else "" for e in exercises]
            total = [f"{g.points:g}", f"{g.max_points:g}"] if g.exercises else ["", ""]
            table.writerow([name, g.student, *total, *each, g.remarks])


def _columns(grades: list[Grade]) -> list[str]:
    return list(dict.fromkeys(exercise for grade in grades for exercise in grade.exercises))


def _grade_table(grades: list[Grade]) -> str:
    """Return a table of the students' points as text, with remarks below."""
    exercises = _columns(grades)
    rows = [["student", "points", *exercises]]
    for g in grades:
        each = [f"{g.exercises[e][0]:g}/{g.exercises[e][1]:g}" if g.exercises else "-" for e in exercises]
        rows.append([g.student, f"{g.points:g}/{g.max_points:g}" if g.exercises else "-", *each])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
    remarks = [f"{g.student}: {g.remarks}" for g in grades if g.remarks]
    return "\n".join([*lines, *[""] * bool(remarks), *remarks])
