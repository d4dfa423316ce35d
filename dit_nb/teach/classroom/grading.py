"""Build, hand out, collect, grade: a thin layer over nbgrader, for a teacher with one package and a folder."""

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

from dit_nb.teach.classroom.assignments import dumps
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.submissions import by_hand, find_handins, mend, read_handin
from dit_nb.utils import whole_file

CONFIG = '''"""Settings of nbgrader for this course; yours to change. All of them: nbgrader generate_config."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "dit"

# With JupyterHub, a folder that the whole class can reach:
# c.Exchange.root = "/srv/nbgrader/exchange"

c.ClearSolutions.code_stub = {{
    "python": "# Your code goes here, in place of the next line.\\nraise NotImplementedError"
}}

# Grading: a cell may take {seconds:g} seconds. nbgrader's own limit steps in where that one cannot.
limit = "__import__('importlib').import_module('dit_nb.teach.classroom.submissions').limit_cells({seconds:g})"
c.Execute.extra_arguments = ["--HistoryManager.hist_file=:memory:", f"--IPKernelApp.exec_lines={{limit}}"]
c.Execute.timeout = {timeout:d}
c.Execute.raise_on_iopub_timeout = False  # a flood of output does not end the grading
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"[\\s\\S]"  # else a mere warning in a check would cost its points
c.OverwriteCells.add_missing_cells = True
'''


# Several commands of nbgrader in one go: starting it takes longer than most of what it does.
COMMANDS = """
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


def nbgrader(
    course: Path,  # its folder
    *commands: list[str],  # the words of each
) -> bool:  # whether all went well
    "Run commands of nbgrader in the course; what they say goes to nbgrader.log there."
    if find_spec("nbgrader") is None:
        raise ValueError("nbgrader is not installed: pip install 'dit_nb[school]'.")
    python = [sys.executable, "-W", "ignore", "-c", COMMANDS, json.dumps(commands)]
    # nbgrader calls alembic by its name: it lies beside this python, also where that is not on the PATH.
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    }
    with (course / "nbgrader.log").open("a", encoding="utf-8") as log:
        return subprocess.run(python, cwd=course, stdout=log, stderr=log, env=env).returncode == 0


def build(
    name: str,  # a1
    course: str | Path,  # folder; is made
    variant: int | None = None,  # another convention for the graded functions
    seconds: float = 60,  # that a cell may take when it is graded
) -> Path:  # the notebook to hand out
    "An assignment in an nbgrader course: source, and release made by nbgrader."
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds:g}, but must be more than 0.")
    text, course = dumps(source_notebook(name, variant)), Path(course)
    source, release = (course / part / name / f"{name}.ipynb" for part in ("source", "release"))
    if source.exists() and source.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{source} is already there, and is not what would be built: move it, or build elsewhere."
        )
    new = not source.exists()
    try:
        source.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"course is {course}, but no folder can be made there: {error.strerror}.") from None
    config = course / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG.format(seconds=seconds, timeout=round(seconds + 30)), encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    if not nbgrader(course, ["generate_assignment", name, "--force"]) or not release.exists():
        if new:
            shutil.rmtree(source.parent)
        raise ValueError(f"nbgrader could not make {release}: {course / 'nbgrader.log'} says why.")
    return release


def preview(
    name: str,  # a1
    out: Path,  # an .ipynb or .html file
    variant: int | None = None,
) -> None:
    "What a student gets, as a notebook or as a page."
    if out.exists():
        raise ValueError(f"out is {out}, which is already there: choose another name.")
    with tempfile.TemporaryDirectory() as folder:
        content = build(name, folder, variant).read_text(encoding="utf-8")
    if out.suffix == ".html":
        import nbformat
        from nbconvert import HTMLExporter

        content, _ = HTMLExporter().from_notebook_node(nbformat.reads(content, as_version=4))
    out.write_text(content, encoding="utf-8")


class Grade(NamedTuple):
    "One student's result."

    student: str
    exercises: dict[str, tuple[float, float]]  # exercise -> points, of how many; empty: not graded
    by_hand: tuple[str, ...]  # exercises that wait for the teacher
    says: str  # what the teacher should know

    @property
    def points(self) -> float:
        "All points together."
        return sum(points for points, _ in self.exercises.values())

    @property
    def most(self) -> float:
        "What could be had."
        return sum(most for _, most in self.exercises.values())


def grade(
    name: str,  # a1
    course: str | Path,  # in which it was built
    handins: str | Path | None = None,  # folder of hand-ins; the course's submitted/ by default
) -> list[Grade]:
    "Grade a class: mend, run, feedback, export, and a table in grades-a1.csv."
    import nbformat

    course = Path(course)
    release = course / "release" / name / f"{name}.ipynb"
    if not release.exists():
        raise ValueError(f"course is {course}, but there is no {release}: build the assignment first.")
    given_out = nbformat.read(release, as_version=4)
    shutil.rmtree(course / "mended", ignore_errors=True)
    says = {}
    for student, path in find_handins(Path(handins or course / "submitted"), name):
        says[student] = stage(path, given_out, course / "mended" / student / name)
    if not says:
        raise ValueError(f"handins is {handins or course / 'submitted'}, but nothing in it is a hand-in.")
    ready = [student for student in says if (course / "mended" / student).exists()]
    if ready:
        run_nbgrader(course, name, run=not by_hand(given_out))
    ids = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in given_out["cells"]]
    grades = [
        read_grade(course, name, student, says[student], ids)
        if student in ready
        else Grade(student, {}, (), says[student])
        for student in says
    ]
    write_csv(course / f"grades-{name}.csv", name, grades)
    return grades


def stage(
    path: Path | str,  # a hand-in, or what is wrong with it
    given_out: dict,  # the release
    folder: Path,  # where nbgrader finds what it grades
) -> str:  # what the teacher should know
    "Read and mend a hand-in."
    if isinstance(path, str):
        return f"not graded: {path}"
    try:
        nb, remarks = mend(read_handin(path), given_out)
    except ValueError as error:
        return f"not graded: {error}"
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.ipynb").write_text(dumps(nb), encoding="utf-8")
    if (path.parent / "timestamp.txt").exists():  # of nbgrader's collect: when it was handed in
        shutil.copy(path.parent / "timestamp.txt", folder)
    named = [] if path.stem in (folder.name, folder.parent.name) else [f"called {path.name}"]
    return "; ".join([*named, *remarks])


# Tables need room, long sentences a second line, folded hints their triangle, wide pictures an end.
STYLE = """<style>
td, th { padding: 0 0.7em }
pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere }
summary { display: list-item; cursor: pointer }
img { max-width: 100% }
.anchor-link { display: none }
</style>
</head>"""


def readable_page(page: str) -> str:
    "nbgrader's feedback, with names in its table of points, and our style."
    named = re.sub(r'<a href="#(\w+)-(\w+)">[\w -]+</a> \(Score', r'<a href="#\1-\2">\1, \2</a> (Score', page)
    return named.replace("</head>", STYLE, 1)


def run_nbgrader(course: Path, name: str, run: bool) -> None:
    "Autograde what is in mended/, write the feedback, export the grades."
    as_it_is = ["--Execute.enabled=False", "--ClearOutput.enabled=False"]
    options = ["--CourseDirectory.submitted_directory=mended", *([] if run else as_it_is)]
    nbgrader(
        course,
        ["autograde", name, "--force", *options],
        ["generate_feedback", name, "--force"],
        ["export", "--to=grades.csv"],
    )
    for page in course.glob(f"feedback/*/{name}/{name}.html"):
        page.write_text(readable_page(page.read_text(encoding="utf-8")), encoding="utf-8")


def read_grade(course: Path, name: str, student: str, says: str, ids: list[str]) -> Grade:
    "What the gradebook has for a student; ids are the graded cells in their order."
    from nbgrader.api import Gradebook

    done = course / "autograded" / student / name / f"{name}.ipynb"
    if not done.exists():
        ended = "not graded: it could not be run to the end (did it end Python, or run out of memory?), see nbgrader.log"
        return Grade(student, {}, (), "; ".join(part for part in (ended, says) if part))
    exercises, waiting = {}, []
    with Gradebook(f"sqlite:///{(course / 'gradebook.db').resolve()}") as book:
        (notebook,) = book.find_submission(name, student).notebooks
        for cell in sorted(notebook.grades, key=lambda grade: ids.index(grade.name)):
            exercise = cell.name.rsplit("-", 1)[0]
            points, most = exercises.get(exercise, (0.0, 0.0))
            exercises[exercise] = (points + (cell.score or 0.0), most + cell.max_score)
            waiting += [exercise] if cell.needs_manual_grade and cell.manual_score is None else []
    waits = [f"to be graded by hand: {', '.join(waiting)}"] if waiting else []
    return Grade(student, exercises, tuple(waiting), "; ".join(part for part in (says, *waits) if part))


def write_csv(path: Path, name: str, grades: list[Grade]) -> None:
    "A row for each student, a column for each exercise; whole or not at all."
    exercises = columns(grades)
    with whole_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["assignment", "student", "points", "of", *exercises, "remarks"])
        for g in grades:
            each = [f"{g.exercises[e][0]:g}" if e in g.exercises else "" for e in exercises]
            total = [f"{g.points:g}", f"{g.most:g}"] if g.exercises else ["", ""]
            table.writerow([name, g.student, *total, *each, g.says])


def columns(grades: list[Grade]) -> list[str]:
    "The exercises, in the order of the assignment."
    return list(dict.fromkeys(exercise for grade in grades for exercise in grade.exercises))


def grade_table(grades: list[Grade]) -> str:
    "Students and their points, as a person reads them; what there is to say stands below."
    exercises = columns(grades)
    rows = [["student", "points", *exercises]]
    for g in grades:
        each = [f"{g.exercises[e][0]:g}/{g.exercises[e][1]:g}" if g.exercises else "-" for e in exercises]
        rows.append([g.student, f"{g.points:g}/{g.most:g}" if g.exercises else "-", *each])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(
        [*lines, *[""] * any(g.says for g in grades), *(f"{g.student}: {g.says}" for g in grades if g.says)]
    )
