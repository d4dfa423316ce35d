"""Every assignment of the package with the real nbgrader: built, graded, and what students get."""

import ast
import json
import os
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from support_classroom import marks, put, solutions, submitted

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.course import _CONFIG, _preview, _solution, build
from dit_nb.teach.classroom.grading import grade
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.work import Class

ROOT = Path(__file__).resolve().parents[3]
FACTS = assignments()
AUTO = [name for name in FACTS if FACTS[name]["exercises"]]


def by_assignment(names):
    """One worker for each assignment: building takes seconds."""
    group = pytest.mark.xdist_group
    return [pytest.param(name, marks=[pytest.mark.slow, group(f"classroom-{name}")]) for name in names]


in_each_course = pytest.mark.parametrize("course", by_assignment(AUTO), indirect=True, scope="module")


@pytest.fixture(scope="module")
def course(request, tmp_path_factory):
    """An assignment, built: (name, course, release)."""
    folder = tmp_path_factory.mktemp(request.param) / "course"
    return request.param, folder, nbformat.read(build(request.param, folder), as_version=4)


def wrong(exercise):
    """The first registered wrong answer."""
    return f'from answers import WRONG\n\n{exercise} = WRONG["{exercise}"][0][0]'


@in_each_course
def test_each_student_loses_what_they_got_wrong(course, tmp_path, monkeypatch):
    name, folder, release = course
    right, exercises = solutions(name), FACTS[name]["exercises"]
    lost = {"reference": [], "odd": exercises[::2], "even": exercises[1::2]}
    for student, those in lost.items():
        put(tmp_path / f"{student}.ipynb", submitted(release, right | {e: wrong(e) for e in those}))
    path = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    grades = grade(name, folder, Class(tmp_path, jobs=2, limits=Limits(seconds=60)))
    for g in grades:
        auto = {e: points for e, points in g.exercises.items() if e in exercises}
        full = {e: earned for e, (earned, most) in auto.items() if earned == most}
        assert [*full] == [e for e in auto if e not in lost[g.student]], g
        halves = {e: auto[e][0] for e in lost[g.student] if auto[e][0]}
        assert all(2 * earned == auto[e][1] for e, earned in halves.items()) and len(halves) <= 1, g
        assert g.max_points == FACTS[name]["points"] and [*auto] == exercises


def squeezed(code):
    return re.sub(r"\s+", "", code)


def body_lines(source, name):
    """The lines of a solution that would give it away."""
    (function,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == name]
    lines = source.split("\n")[function.body[0].end_lineno : function.end_lineno]
    return [line for line in map(squeezed, lines) if len(line) > 12]


@in_each_course
def test_the_release_gives_nothing_away(course):
    name, folder, release = course
    shown = squeezed(json.dumps([c["source"] for c in release["cells"]]).replace('\\"', '"'))
    for exercise, source in solutions(name).items():
        if exercise in FACTS[name]["exercises"]:
            assert [line for line in body_lines(source, exercise) if line in shown] == [], exercise
    raw = json.dumps(release)
    graded = "".join(c["source"] for c in release["cells"] if marks(c).get("grade"))
    assert "SOLUTION" not in raw and "HIDDEN" not in raw and "seed=" not in graded
    assert all(not c["outputs"] for c in release["cells"] if c["cell_type"] == "code")
    assert str(ROOT) not in raw and str(folder) not in raw


@in_each_course
def test_the_release_is_a_plain_notebook(course):
    name, _, release = course
    nbformat.validate(release)
    words = "\n".join(c["source"] for c in release["cells"] if c["cell_type"] == "markdown")
    assert f"**Points**: {FACTS[name]['points']}" in words and "How to work" in words
    assert "data:image/png;base64," in words and ".ipynb)" not in words
    code = [c["source"] for c in release["cells"] if c["cell_type"] == "code"]
    assert code[0].startswith("# dit_nb ") and release["metadata"]["dit_nb"]["version"] in code[0]
    imports = {n.split(".")[0] for n in re.findall(r"^(?:from|import) (\w+)", "\n".join(code), re.MULTILINE)}
    assert imports <= {
        "dit_nb",
        "torch",
        "einops",
        "math",
        "copy",
        "functools",
        "matplotlib",
        "numpy",
        "dataclasses",
    }


@in_each_course
def test_goal_before_the_work(course):
    _, _, release = course
    sources = [c["source"] for c in release["cells"]]
    goal = next(i for i, s in enumerate(sources) if "data:image/png" in s)
    assert goal < next(i for i, s in enumerate(sources) if "### Exercise 1" in s)


def test_build_names_wrong_arguments(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="course is .*Not a directory"):
        build(AUTO[0], tmp_path / "file" / "course")


def test_the_settings_of_a_course_name_an_existing_function():
    """An error there would not be seen: cells would have no time limit of their own."""
    module, name = re.search(r"import_module\('([\w.]+)'\)\.(\w+)\(", _CONFIG).groups()
    assert callable(getattr(import_module(module), name))


def test_a_changed_source_is_not_overwritten(tmp_path):
    source = put(tmp_path / "source" / AUTO[0] / f"{AUTO[0]}.ipynb", "{}")
    with pytest.raises(ValueError, match="already exists.*assignment release"):
        build(AUTO[0], tmp_path)
    assert source.read_text() == "{}"


@pytest.mark.slow
@pytest.mark.xdist_group(f"classroom-{AUTO[-1]}")
def test_preview_is_what_students_get(tmp_path):
    _preview(AUTO[-1], tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "Exercise 1" in page and "raise</span> <span" in page and "BEGIN SOLUTION" not in page
    with pytest.raises(ValueError, match="already exists"):
        _preview(AUTO[-1], tmp_path / "x.html")


def test_a_solution_has_what_a_student_lacks(tmp_path):
    _solution(AUTO[0], tmp_path / "s.ipynb")
    nb = nbformat.read(tmp_path / "s.ipynb", as_version=4)
    nbformat.validate(nb)
    text = "\n".join(c["source"] for c in nb["cells"])
    first = FACTS[AUTO[0]]["exercises"][0]
    assert all(line in squeezed(text) for line in body_lines(solutions(AUTO[0])[first], first))
    assert f"check_{first}({first}" in text and f"check_{first}({first}, seed=" not in text
