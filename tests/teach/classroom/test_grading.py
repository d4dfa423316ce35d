"""Courses with the real nbgrader: complete classes of invented students, and what they can do to a notebook."""

import ast
import copy
import csv
import json
import os
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.grading import _CONFIG, _grade_table, build, grade, preview
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.submissions import repair

ROOT = Path(__file__).resolve().parents[3]
FACTS = assignments()
AUTO = [name for name in FACTS if FACTS[name]["exercises"]]
CELL_SECONDS = 20  # time limit of a cell in grading


def by_assignment(names):
    """One worker for each assignment: nbgrader's database and kernels are not shared."""
    group = pytest.mark.xdist_group
    return [pytest.param(name, marks=[pytest.mark.slow, group(f"classroom-{name}")]) for name in names]


in_each_class = pytest.mark.parametrize("graded_class", by_assignment(AUTO), indirect=True, scope="module")


# ---- students


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


def solutions(name):
    """What solves each exercise, from the source."""
    cells = source_notebook(name)["cells"]
    found = {marks(c)["grade_id"].rsplit("-", 1)[0]: c["source"] for c in cells if marks(c).get("solution")}
    return {key: re.sub(r".*(BEGIN|END) SOLUTION.*\n?", "", source).rstrip() for key, source in found.items()}


def submitted(release, answers):
    """A student's notebook: the release, with answers in the cells for solutions."""
    nb = copy.deepcopy(release)
    for cell in nb["cells"]:
        exercise, _, role = marks(cell).get("grade_id", "").rpartition("-")
        if role in ("solution", "report") and exercise in answers:
            cell["source"] = answers[exercise]
    return nb


def wrong(exercise):
    """The first registered wrong answer."""
    return f'from answers import WRONG\n\n{exercise} = WRONG["{exercise}"][0][0]'


GREEDY = "import time\n\nwhile True:\n    try:\n        time.sleep(0.1)\n    except:\n        pass"


def cheat(release):
    """Nothing is solved; every check is edited, deleted, or marked to be skipped."""
    nb = copy.deepcopy(release)
    for i, cell in enumerate([c for c in nb["cells"] if marks(c).get("grade")]):
        if i % 3 == 0:
            cell["source"] = f"{marks(cell)['points']:g}"
        elif i % 3 == 1:
            cell["metadata"]["tags"] = ["skip-execution"]
        else:
            nb["cells"].remove(cell)
    tricks = "def display(*_):\n    pass\n\n\nget_ipython().ast_node_interactivity = 'none'"
    nb["cells"].insert(0, nbformat.v4.new_code_cell(tricks))
    return nb


def old_timer(release, answers):
    """Solved in a notebook of nbformat 3, with another kernel, no marks, and megabytes of output."""
    nb = submitted(release, answers)
    for cell in nb["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [nbformat.v4.new_output("stream", text="x" * 1_000_000)]
    nb["metadata"] = {"kernelspec": {"name": "julia-1.9", "display_name": "Julia"}}
    return nbformat.convert(nb, 3)


def a_class(name, release):
    """Student -> notebook, and student -> exercises that lose their points."""
    right, exercises = solutions(name), FACTS[name]["exercises"]
    first, second, third = exercises[:3]
    broken = {first: f"def {first}(:", second: GREEDY}
    if name == AUTO[0]:
        broken[third] = (
            right[third].split('"')[0]
            + '"Never."\n    import time\n\n    while True:\n        time.sleep(0.1)'
        )
    warns = "\n\nimport sys, warnings\nwarnings.warn('old')\nprint('careful', file=sys.stderr)\nexit()"
    students = {
        "reference": (submitted(release, {k: v + warns for k, v in right.items()}), []),
        "blank": (release, exercises),
        "odd": (submitted(release, right | {e: wrong(e) for e in exercises[::2]}), exercises[::2]),
        "even": (submitted(release, right | {e: wrong(e) for e in exercises[1::2]}), exercises[1::2]),
        "broken": (submitted(release, right | broken), [*broken]),
    }
    if name == AUTO[0]:
        students["cheat"] = (cheat(release), exercises)
        students["old timer"] = (old_timer(release, right), [])
        leaves = submitted(release, right)
        leaves["cells"].append(nbformat.v4.new_code_cell("import os\nos._exit(1)"))
        students["leaves"] = (leaves, None)
    return students


@pytest.fixture(scope="module")
def graded_class(request, tmp_path_factory):
    """An assignment, built, submitted and graded once: (name, course, release, students, grades)."""
    name, course = request.param, tmp_path_factory.mktemp(request.param) / "course"
    release = nbformat.read(build(name, course, seconds=CELL_SECONDS), as_version=4)
    students = a_class(name, release)
    for student, (nb, _) in students.items():
        file = course / "submitted" / student / name / ("homework (1)" if student == "old timer" else name)
        file.parent.mkdir(parents=True)
        file.with_suffix(".ipynb").write_text(json.dumps(nb))
    if name == AUTO[0]:
        bad_submissions(course / "submitted", name, release)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{ROOT / 'tests'}{os.pathsep}{ROOT}{os.pathsep}{before}"
    try:
        grades = grade(name, course)
    finally:
        os.environ["PYTHONPATH"] = before
    print(_grade_table(grades))
    return name, course, release, students, {g.student: g for g in grades}


BAD = {
    "cut off": "it ends in the middle",
    "empty file": "the file is empty",
    "no json": "it is not a notebook",
    "other json": "it is not a notebook, but other JSON",
    "odd cells": "its cells cannot be read",
    "pdf": "no notebook, but homework.pdf",
    "nothing": "the folder is empty",
    "two": "several notebooks, and none is called",
    "another": "none of its cells is of this assignment",
    "other assignment": "it is assignment a9",
}


def bad_submissions(folder, name, release):
    """Write submissions that cannot be graded."""
    text = json.dumps(release)

    def put(student, content, file=f"{name}.ipynb"):
        (folder / student / name).mkdir(parents=True, exist_ok=True)
        (folder / student / name / file).write_text(content)

    put("cut off", text[: len(text) // 2])
    put("empty file", "")
    put("no json", "Dear teacher, my dog ate it.")
    put("other json", '{"points": 33}')
    put("odd cells", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3, {"source": 4}]}')
    put("pdf", "%PDF", "homework.pdf")
    put("two", text, "first.ipynb")
    put("two", text, "last.ipynb")
    put("another", json.dumps(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])))
    put("other assignment", text.replace(f'"assignment": "{name}"', '"assignment": "a9"'))
    (folder / "nothing" / name).mkdir(parents=True)
    (folder / "early bird" / "a2").mkdir(parents=True)  # has handed in another assignment only
    (folder / ".DS_Store").touch()


# ---- points


@in_each_class
def test_each_student_loses_what_they_got_wrong(graded_class):
    name, _, _, students, grades = graded_class
    for student, (_, lost) in students.items():
        if lost is None:
            continue
        got = grades[student]
        assert set(got.exercises) == set(FACTS[name]["exercises"])
        expected = {e: (0 if e in lost else most, most) for e, (_, most) in got.exercises.items()}
        assert got.exercises == expected, student
        assert got.max_points == FACTS[name]["points"]


@in_each_class
def test_a_notebook_that_exits_python_is_named(graded_class):
    name, _, _, students, grades = graded_class
    if "leaves" in students:
        assert not grades["leaves"].exercises and "did not run to the end" in grades["leaves"].remarks


@in_each_class
def test_bad_submissions_get_a_line_each_and_the_others_are_graded(graded_class):
    name, _, _, students, grades = graded_class
    expected = {*students, *BAD} if name == AUTO[0] else {*students}
    assert set(grades) == expected
    for student in expected - {*students}:
        assert grades[student].remarks.startswith("not graded: ") and "\n" not in grades[student].remarks
        assert BAD[student] in grades[student].remarks
        assert not grades[student].exercises


@in_each_class
def test_remarks_say_what_was_repaired(graded_class):
    _, _, _, students, grades = graded_class
    assert grades["reference"].remarks == grades["blank"].remarks == ""
    if "cheat" in students:
        assert "changed, restored: " in grades["cheat"].remarks
        assert "missing, restored: " in grades["cheat"].remarks
        assert "file name: homework (1).ipynb" in grades["old timer"].remarks
        assert "saved with the kernel 'julia-1.9', graded with python3" in grades["old timer"].remarks
        assert "saved in notebook format 3, read as 4" in grades["old timer"].remarks
        assert "have lost their marks" in grades["old timer"].remarks


@in_each_class
def test_the_submitted_files_stay_unchanged(graded_class):
    name, course, _, students, _ = graded_class
    for student, (nb, _) in students.items():
        (path,) = (course / "submitted" / student / name).glob("*.ipynb")
        assert json.loads(path.read_text()) == json.loads(json.dumps(nb))


@in_each_class
def test_tables(graded_class):
    name, course, _, _, grades = graded_class
    rows = list(csv.DictReader((course / f"grades-{name}.csv").open(newline="")))
    assert [row["student"] for row in rows] == list(grades)
    by_student = {row["student"]: row for row in rows}
    assert float(by_student["reference"]["points"]) == FACTS[name]["points"]
    assert float(by_student["blank"]["points"]) == 0
    theirs = {row["student_id"]: row for row in csv.DictReader((course / "grades.csv").open(newline=""))}
    assert float(theirs["reference"]["score"]) == FACTS[name]["points"] == float(theirs["blank"]["max_score"])


@in_each_class
def test_feedback(graded_class):
    name, course, _, students, grades = graded_class
    for student in students:
        page = course / "feedback" / student / name / f"{name}.html"
        assert page.exists() == bool(grades[student].exercises)
    page = (course / "feedback" / "odd" / name / f"{name}.html").read_text()
    assert f"{grades['odd'].points:g} / {grades['odd'].max_points:g}" in re.sub(r"\.0\b", "", page)
    assert "Where to look" in page and "Right in all" in page
    assert f">{FACTS[name]['exercises'][0]}, check</a>" in page and "most recent call last" not in page


# ---- what students get


def squeezed(code):
    return re.sub(r"\s+", "", code)


def body_lines(source, name):
    """The lines of a solution that would give it away."""
    (function,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == name]
    lines = source.split("\n")[function.body[0].end_lineno : function.end_lineno]
    return [line for line in map(squeezed, lines) if len(line) > 12]


@in_each_class
def test_the_release_gives_nothing_away(graded_class):
    name, course, release, _, _ = graded_class
    shown = squeezed(json.dumps([c["source"] for c in release["cells"]]).replace('\\"', '"'))
    for exercise, source in solutions(name).items():
        assert [line for line in body_lines(source, exercise) if line in shown] == [], exercise
    raw = json.dumps(release)
    assert (
        "SOLUTION" not in raw
        and "HIDDEN" not in raw
        and "seed=" not in "".join(c["source"] for c in release["cells"] if marks(c).get("grade"))
    )
    assert all(not c["outputs"] for c in release["cells"] if c["cell_type"] == "code")
    assert str(ROOT) not in raw and str(course) not in raw


@in_each_class
def test_the_release_is_a_plain_notebook(graded_class):
    name, _, release, _, _ = graded_class
    nbformat.validate(release)
    words = "\n".join(c["source"] for c in release["cells"] if c["cell_type"] == "markdown")
    assert f"**Points**: {FACTS[name]['points']}" in words and "How to work" in words
    assert "data:image/png;base64," in words and ".ipynb)" not in words
    code = [c["source"] for c in release["cells"] if c["cell_type"] == "code"]
    assert code[0].startswith("# %pip install") and "dit_nb" in code[0]
    imports = {n.split(".")[0] for n in re.findall(r"^(?:from|import) (\w+)", "\n".join(code), re.MULTILINE)}
    assert imports <= {"dit_nb", "torch", "einops", "math", "copy", "functools", "matplotlib", "numpy"}


@in_each_class
def test_goal_before_the_work(graded_class):
    _, _, release, _, _ = graded_class
    sources = [c["source"] for c in release["cells"]]
    goal = next(i for i, s in enumerate(sources) if "data:image/png" in s)
    assert goal < next(i for i, s in enumerate(sources) if "### Exercise 1" in s)


# ---- a report, graded by hand


@pytest.mark.slow
@pytest.mark.xdist_group("classroom-report")
def test_a_report_waits_for_the_teacher(tmp_path):
    """Nothing runs: what a student saw stays, blank answers get 0, and marks given by hand count."""
    from nbgrader.api import Gradebook

    name = next(name for name in FACTS if name not in AUTO)
    release = nbformat.read(build(name, tmp_path), as_version=4)
    done = submitted(release, solutions(name))
    own = nbformat.v4.new_code_cell("1 / 0", outputs=[nbformat.v4.new_output("stream", text="seen by me")])
    done["cells"].append(own)
    (tmp_path / "in").mkdir()
    for student, nb in {"ann": done, "blank": release}.items():
        (tmp_path / "in" / f"{student}.ipynb").write_text(json.dumps(nb))
    grades = {g.student: g for g in grade(name, tmp_path, tmp_path / "in")}
    tasks = (*solutions(name),)
    assert grades["ann"].by_hand == tasks and "to be graded by hand: " in grades["ann"].remarks
    assert grades["blank"].by_hand == () and grades["blank"].points == 0
    assert grades["ann"].max_points == FACTS[name]["points"] == grades["blank"].max_points
    assert "seen by me" in (tmp_path / "feedback" / "ann" / name / f"{name}.html").read_text()
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        for cell in book.find_submission(name, "ann").notebooks[0].grades:
            cell.manual_score = 3
        book.db.commit()
    grades = {g.student: g for g in grade(name, tmp_path, tmp_path / "in")}
    assert grades["ann"].points == 3 * len(tasks) and grades["ann"].remarks == ""
    raw = json.dumps(release)
    assert "model answer" not in raw and "rubric" in raw and "data:image/png" in raw


# ---- build and preview


def test_build_names_wrong_arguments(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="course is .*Not a directory"):
        build(AUTO[0], tmp_path / "file" / "course")
    with pytest.raises(ValueError, match="seconds is -1"):
        build(AUTO[0], tmp_path / "course", seconds=-1)


def test_the_settings_of_a_course_name_an_existing_function():
    """An error there would not be seen: cells would have no time limit of their own."""
    module, name = re.search(r"import_module\('([\w.]+)'\)\.(\w+)\(", _CONFIG).groups()
    assert callable(getattr(import_module(module), name))


def written(nb, folder):
    (folder / "x.ipynb").write_text(json.dumps(nb))
    return folder / "x.ipynb"


@in_each_class
def test_edited_and_deleted_checks_are_restored(graded_class, tmp_path):
    """For a cheat, nbgrader runs what it runs for a blank notebook, and a cell of the cheat's own."""
    _, _, release, _, _ = graded_class
    honest, _ = repair(written(release, tmp_path), release)
    repaired, remarks = repair(written(cheat(release), tmp_path), release)
    assert [part.split(":")[0] for part in remarks] == ["missing, restored", "changed, restored"]
    assert [(c["source"], marks(c)) for c in repaired["cells"][1:]] == [
        (c["source"], marks(c)) for c in honest["cells"]
    ]
    assert not any("tags" in c["metadata"] for c in repaired["cells"] if marks(c).get("grade"))


def test_a_changed_source_is_not_overwritten(tmp_path):
    source = tmp_path / "source" / AUTO[0] / f"{AUTO[0]}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text("{}")
    with pytest.raises(ValueError, match="already exists"):
        build(AUTO[0], tmp_path)
    assert source.read_text() == "{}"


@pytest.mark.slow
@pytest.mark.xdist_group(f"classroom-{AUTO[-1]}")
def test_preview_is_what_students_get(tmp_path):
    preview(AUTO[-1], tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "Exercise 1" in page and "raise</span> <span" in page and "BEGIN SOLUTION" not in page
    with pytest.raises(ValueError, match="already exists"):
        preview(AUTO[-1], tmp_path / "x.html")
