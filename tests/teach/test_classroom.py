"""The classroom with the real nbgrader: whole classes of made-up students, and what they can do to a notebook."""

import ast
import copy
import csv
import json
import os
import re
from pathlib import Path

import nbformat
import pytest

from dit_nb.cli import main
from dit_nb.teach.classroom.assignments import assignments, collect, dumps, read_assignment
from dit_nb.teach.classroom.grading import build, grade, grade_table, preview
from dit_nb.teach.classroom.nbgrader_source import mark_solution, source_notebook
from dit_nb.teach.classroom.submissions import find_handins, mend, read_handin
from dit_nb.teach.graders.framework.core import all_exercises

ROOT = Path(__file__).resolve().parents[2]
FACTS = assignments()
AUTO = [name for name in FACTS if FACTS[name]["exercises"]]
CELL_SECONDS = 20  # that a cell may take when these classes are graded


def by_assignment(names):
    """One worker for each assignment: nbgrader's database and kernels are not shared."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"classroom-{name}")) for name in names]


in_each_room = pytest.mark.parametrize("room", by_assignment(AUTO), indirect=True, scope="module")


# ---- students


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


def solutions(name, variant=None):
    """What solves each exercise, from the source."""
    cells = source_notebook(name, variant)["cells"]
    found = {marks(c)["grade_id"].rsplit("-", 1)[0]: c["source"] for c in cells if marks(c).get("solution")}
    return {key: re.sub(r".*(BEGIN|END) SOLUTION.*\n?", "", source).rstrip() for key, source in found.items()}


def handed_in(release, answers):
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
    """Nothing is solved; every check is edited, deleted, or told to be skipped."""
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
    nb = handed_in(release, answers)
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
        "reference": (handed_in(release, {k: v + warns for k, v in right.items()}), []),
        "blank": (release, exercises),
        "odd": (handed_in(release, right | {e: wrong(e) for e in exercises[::2]}), exercises[::2]),
        "even": (handed_in(release, right | {e: wrong(e) for e in exercises[1::2]}), exercises[1::2]),
        "broken": (handed_in(release, right | broken), [*broken]),
    }
    if name == AUTO[0]:
        students["cheat"] = (cheat(release), exercises)
        students["old timer"] = (old_timer(release, right), [])
        leaves = handed_in(release, right)
        leaves["cells"].append(nbformat.v4.new_code_cell("import os\nos._exit(1)"))
        students["leaves"] = (leaves, None)
    return students


@pytest.fixture(scope="module")
def room(request, tmp_path_factory):
    """An assignment, built, handed out, handed in and graded once: (name, course, release, class, grades)."""
    name, course = request.param, tmp_path_factory.mktemp(request.param) / "course"
    release = nbformat.read(build(name, course, seconds=CELL_SECONDS), as_version=4)
    students = a_class(name, release)
    for student, (nb, _) in students.items():
        file = course / "submitted" / student / name / ("homework (1)" if student == "old timer" else name)
        file.parent.mkdir(parents=True)
        file.with_suffix(".ipynb").write_text(json.dumps(nb))
    if name == AUTO[0]:
        bad_handins(course / "submitted", name, release)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{ROOT / 'tests'}{os.pathsep}{ROOT}{os.pathsep}{before}"
    try:
        grades = grade(name, course)
    finally:
        os.environ["PYTHONPATH"] = before
    print(grade_table(grades))
    return name, course, release, students, {g.student: g for g in grades}


BAD = {
    "cut off": "it breaks off in the middle",
    "empty file": "the file is empty",
    "no json": "it is not a notebook",
    "other json": "it is not a notebook, but other JSON",
    "odd cells": "its cells cannot be read",
    "pdf": "no notebook, but homework.pdf",
    "nothing": "the folder is empty",
    "two": "several notebooks, and none is called",
    "another": "none of its cells is of this assignment",
    "other assignment": "it is assignment a9",
    "other variant": "it is variant 4",
}


def bad_handins(folder, name, release):
    """Hand-ins that cannot be graded."""
    whole = json.dumps(release)

    def put(student, content, file=f"{name}.ipynb"):
        (folder / student / name).mkdir(parents=True, exist_ok=True)
        (folder / student / name / file).write_text(content)

    put("cut off", whole[: len(whole) // 2])
    put("empty file", "")
    put("no json", "Dear teacher, my dog ate it.")
    put("other json", '{"points": 33}')
    put("odd cells", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3, {"source": 4}]}')
    put("pdf", "%PDF", "homework.pdf")
    put("two", whole, "first.ipynb")
    put("two", whole, "last.ipynb")
    put("another", json.dumps(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])))
    put("other assignment", whole.replace(f'"assignment": "{name}"', '"assignment": "a9"'))
    put("other variant", whole.replace('"variant": null', '"variant": 4'))
    (folder / "nothing" / name).mkdir(parents=True)
    (folder / "early bird" / "a2").mkdir(parents=True)  # has handed in another assignment only
    (folder / ".DS_Store").touch()


# ---- points


@in_each_room
def test_each_student_loses_what_they_got_wrong(room):
    name, _, _, students, grades = room
    for student, (_, lost) in students.items():
        if lost is None:
            continue
        got = grades[student]
        assert set(got.exercises) == set(FACTS[name]["exercises"])
        expected = {e: (0 if e in lost else most, most) for e, (_, most) in got.exercises.items()}
        assert got.exercises == expected, student
        assert got.most == FACTS[name]["points"]


@in_each_room
def test_who_ends_python_is_named(room):
    name, _, _, students, grades = room
    if "leaves" in students:
        assert not grades["leaves"].exercises and "could not be run to the end" in grades["leaves"].says


@in_each_room
def test_bad_handins_get_a_line_each_and_the_others_are_graded(room):
    name, _, _, students, grades = room
    expected = {*students, *BAD} if name == AUTO[0] else {*students}
    assert set(grades) == expected
    for student in expected - {*students}:
        assert grades[student].says.startswith("not graded: ") and "\n" not in grades[student].says
        assert BAD[student] in grades[student].says
        assert not grades[student].exercises


@in_each_room
def test_what_was_put_right_is_told(room):
    _, _, _, students, grades = room
    assert grades["reference"].says == grades["blank"].says == ""
    if "cheat" in students:
        assert "changed, put back: " in grades["cheat"].says and "missing, put back: " in grades["cheat"].says
        assert "called homework (1).ipynb" in grades["old timer"].says
        assert "saved with the kernel 'julia-1.9', graded with python3" in grades["old timer"].says
        assert "saved in format 3 of notebooks, read as 4" in grades["old timer"].says
        assert "marks of its cells are lost" in grades["old timer"].says


@in_each_room
def test_the_students_own_files_are_untouched(room):
    name, course, _, students, _ = room
    for student, (nb, _) in students.items():
        (path,) = (course / "submitted" / student / name).glob("*.ipynb")
        assert json.loads(path.read_text()) == json.loads(json.dumps(nb))


@in_each_room
def test_tables(room):
    name, course, _, _, grades = room
    rows = list(csv.DictReader((course / f"grades-{name}.csv").open(newline="")))
    assert [row["student"] for row in rows] == list(grades)
    by_student = {row["student"]: row for row in rows}
    assert float(by_student["reference"]["points"]) == FACTS[name]["points"]
    assert float(by_student["blank"]["points"]) == 0
    theirs = {row["student_id"]: row for row in csv.DictReader((course / "grades.csv").open(newline=""))}
    assert float(theirs["reference"]["score"]) == FACTS[name]["points"] == float(theirs["blank"]["max_score"])


@in_each_room
def test_feedback(room):
    name, course, _, students, grades = room
    for student in students:
        page = course / "feedback" / student / name / f"{name}.html"
        assert page.exists() == bool(grades[student].exercises)
    page = (course / "feedback" / "odd" / name / f"{name}.html").read_text()
    assert f"{grades['odd'].points:g} / {grades['odd'].most:g}" in re.sub(r"\.0\b", "", page)
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


@in_each_room
def test_the_release_gives_nothing_away(room):
    name, course, release, _, _ = room
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


@in_each_room
def test_the_release_is_a_plain_notebook(room):
    name, _, release, _, _ = room
    nbformat.validate(release)
    words = "\n".join(c["source"] for c in release["cells"] if c["cell_type"] == "markdown")
    assert f"**Points**: {FACTS[name]['points']}" in words and "How to work" in words
    assert "data:image/png;base64," in words and ".ipynb)" not in words
    code = [c["source"] for c in release["cells"] if c["cell_type"] == "code"]
    assert code[0].startswith("# %pip install") and "dit_nb" in code[0]
    imports = {n.split(".")[0] for n in re.findall(r"^(?:from|import) (\w+)", "\n".join(code), re.MULTILINE)}
    assert imports <= {"dit_nb", "torch", "einops", "math", "copy", "functools", "matplotlib", "numpy"}


@in_each_room
def test_goal_before_the_work(room):
    _, _, release, _, _ = room
    sources = [c["source"] for c in release["cells"]]
    goal = next(i for i, s in enumerate(sources) if "data:image/png" in s)
    assert goal < next(i for i, s in enumerate(sources) if "### Exercise 1" in s)


# ---- a report, graded by hand


@pytest.mark.xdist_group("classroom-report")
def test_a_report_waits_for_the_teacher(tmp_path):
    """Nothing runs: what a student saw stays, blank answers get 0, and marks given by hand count."""
    from nbgrader.api import Gradebook

    name = next(name for name in FACTS if name not in AUTO)
    release = nbformat.read(build(name, tmp_path), as_version=4)
    done = handed_in(release, solutions(name))
    own = nbformat.v4.new_code_cell("1 / 0", outputs=[nbformat.v4.new_output("stream", text="seen by me")])
    done["cells"].append(own)
    (tmp_path / "in").mkdir()
    for student, nb in {"ann": done, "blank": release}.items():
        (tmp_path / "in" / f"{student}.ipynb").write_text(json.dumps(nb))
    grades = {g.student: g for g in grade(name, tmp_path, tmp_path / "in")}
    tasks = (*solutions(name),)
    assert grades["ann"].by_hand == tasks and "to be graded by hand: " in grades["ann"].says
    assert grades["blank"].by_hand == () and grades["blank"].points == 0
    assert grades["ann"].most == FACTS[name]["points"] == grades["blank"].most
    assert "seen by me" in (tmp_path / "feedback" / "ann" / name / f"{name}.html").read_text()
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        for cell in book.find_submission(name, "ann").notebooks[0].grades:
            cell.manual_score = 3
        book.db.commit()
    grades = {g.student: g for g in grade(name, tmp_path, tmp_path / "in")}
    assert grades["ann"].points == 3 * len(tasks) and grades["ann"].says == ""
    raw = json.dumps(release)
    assert "model answer" not in raw and "rubric" in raw and "data:image/png" in raw


# ---- variants

VARIANT = 7


@pytest.mark.parametrize("name", by_assignment(AUTO[:1]))
def test_a_variant_refuses_copies(name, tmp_path):
    release = nbformat.read(build(name, tmp_path, VARIANT, CELL_SECONDS), as_version=4)
    assert f"Variant {VARIANT}." in json.dumps(release)
    exercises = FACTS[name]["exercises"]
    copies = {
        e: f'from dit_nb.teach.classroom.assignments import usual\n\n{e} = usual("{e}")' for e in exercises
    }
    students = {"variant": solutions(name, VARIANT), "copies": copies}
    for student, answers in students.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{student}.ipynb").write_text(json.dumps(handed_in(release, answers)))
    grades = {g.student: g for g in grade(name, tmp_path, tmp_path / "in")}
    assert grades["variant"].points == FACTS[name]["points"], grade_table([*grades.values()])
    assert grades["copies"].points == 0, grade_table([*grades.values()])


@pytest.mark.parametrize("name", AUTO)
def test_checks_of_a_variant(name):
    """Every check cell of a variant's source takes its solution, and refuses the library's function."""
    cells = source_notebook(name, VARIANT)["cells"]
    first = next(i for i, c in enumerate(cells) if marks(c).get("solution"))
    setup = [c["source"] for c in cells[:first] if c["cell_type"] == "code" and "import" in c["source"]]
    for right in (True, False):
        space = {"display": lambda report: None}
        for source in setup:
            exec(source, space)
        for cell in cells[first:]:
            exercise, _, role = marks(cell).get("grade_id", "").rpartition("-")
            if role == "solution":
                exec(cell["source"] if right else f"{exercise} = usual('{exercise}')", space)
            elif role in ("check", "hidden"):
                exec(re.sub(r"\nreport\.(require\(\)\.)?points\n?.*$", "", cell["source"]), space)
                assert bool(space["report"]) == right, (exercise, role, str(space["report"]))


@pytest.mark.parametrize("name", AUTO)
def test_variant_solutions_can_be_marked(name):
    for exercise in FACTS[name]["exercises"]:
        for variant in all_exercises()[exercise].variants:
            assert "### BEGIN SOLUTION" in mark_solution(variant.solution, exercise)


# ---- without nbgrader


def test_every_exercise_is_in_one_assignment():
    named = [exercise for facts in FACTS.values() for exercise in facts["exercises"]]
    assert sorted(named) == sorted(all_exercises())


@pytest.mark.parametrize("name", FACTS)
def test_the_source_has_marks_for_all_points(name):
    cells = source_notebook(name)["cells"]
    ids = [marks(c)["grade_id"] for c in cells if marks(c)]
    assert len(ids) == len(set(ids))
    assert sum(marks(c).get("points", 0) for c in cells) == FACTS[name]["points"]


@pytest.mark.parametrize("name", FACTS)
def test_hints_in_three_steps(name):
    words = [c["source"] for c in source_notebook(name)["cells"] if c["cell_type"] == "markdown"]
    for hint in ("Hint 1: the idea", "Hint 2: the tool", "Hint 3: the shape"):
        folded = sum(f"<details><summary>{hint}</summary>" in text for text in words)
        assert folded == (len(FACTS[name]["exercises"]) or 1), hint


def test_what_cannot_be_built_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no folder can be made there: Not a directory"):
        build(AUTO[0], tmp_path / "file" / "course")
    with pytest.raises(ValueError, match="seconds is -1, but must be more than 0"):
        build(AUTO[0], tmp_path / "course", seconds=-1)


def test_an_unknown_exercise_is_refused(tmp_path):
    frame = tmp_path / "a9_x.ipynb"
    cell = nbformat.v4.new_markdown_cell("<!-- exercise: flying -->")
    frame.write_text(json.dumps(nbformat.v4.new_notebook(cells=[cell])))
    with pytest.raises(ValueError, match="asks for the exercise flying, but no lesson has it"):
        collect(frame, [])


def a_handin(nb, path):
    path.write_text(json.dumps(nb))
    return read_handin(path)


@pytest.mark.parametrize("minor", range(6))
def test_every_minor_format_is_read(minor, tmp_path):
    nb = source_notebook(AUTO[0])
    if minor < 5:
        for cell in nb["cells"]:
            del cell["id"]
    handin = a_handin({**nb, "nbformat_minor": minor}, tmp_path / "x.ipynb")
    assert [c["source"] for c in handin["cells"]] == [c["source"] for c in nb["cells"]]


@pytest.mark.parametrize("odd", ["x", [1], None, 3], ids=str)
def test_odd_metadata_stops_nobody(odd, tmp_path):
    """A stranger's file may hold anything, and the rest of the class is waiting."""
    nb = source_notebook(AUTO[0])
    handin = {**nb, "metadata": {"dit_nb": odd, "kernelspec": odd}, "cells": copy.deepcopy(nb["cells"])}
    place = next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == "patchify-check")
    handin["cells"][place]["metadata"] = {"nbgrader": {"grade_id": odd}}
    mended, said = mend(a_handin(handin, tmp_path / "x.ipynb"), nb)
    assert [c["source"] for c in mended["cells"]] == [c["source"] for c in nb["cells"]] and said == []


def test_a_mended_notebook_keeps_pictures_and_drops_the_rest(tmp_path):
    nb = source_notebook(AUTO[0])
    own = nbformat.v4.new_markdown_cell(
        "![see](attachment:a.png)", attachments={"a.png": {"image/png": "AAAA"}}, metadata={"tags": ["x"]}
    )
    mended, said = mend(a_handin({**nb, "cells": [own, *nb["cells"]]}, tmp_path / "x.ipynb"), nb)
    assert mended["cells"][0]["attachments"] and mended["cells"][0]["metadata"] == {} and said == []
    assert mended["metadata"] == nb["metadata"]
    nbformat.validate(nbformat.from_dict(mended))


def test_a_function_counts_wherever_it_stands(tmp_path):
    """In a new cell of the student's own, with our cell deleted: it still comes before its check."""
    nb = source_notebook(AUTO[0])
    own = nbformat.v4.new_code_cell("def patchify(images, patch_size):\n    return 1")
    theirs = [own if marks(c).get("grade_id") == "patchify-solution" else c for c in nb["cells"]]
    mended, said = mend(a_handin({**nb, "cells": theirs}, tmp_path / "x.ipynb"), nb)
    sources = [c["source"] for c in mended["cells"]]
    check = next(i for i, c in enumerate(mended["cells"]) if marks(c).get("grade_id") == "patchify-check")
    assert own["source"] in sources[:check] and said == ["missing, left empty: patchify-solution"]
    empty = next(c for c in mended["cells"] if marks(c).get("grade_id") == "patchify-solution")
    assert empty["source"] == "# this cell was missing"


def test_of_two_copies_the_last_worked_one_counts(tmp_path):
    nb = source_notebook(AUTO[0])
    place = next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == "patchify-solution")
    copies = [{**nb["cells"][place], "source": text} for text in ("half = 2", "def patchify(): ...")]
    theirs = [*nb["cells"][:place], *copies, *nb["cells"][place:]]  # and the untouched one after them
    mended, said = mend(a_handin({**nb, "cells": theirs}, tmp_path / "x.ipynb"), nb)
    assert [c["source"] for c in mended["cells"][place : place + 2]] == ["half = 2", "def patchify(): ..."]
    assert [marks(c).get("grade_id") for c in mended["cells"][place : place + 2]] == [
        None,
        "patchify-solution",
    ]
    assert said == ["there twice: patchify-solution"] and len(mended["cells"]) == len(nb["cells"]) + 1


@in_each_room
def test_edited_and_deleted_checks_come_back(room, tmp_path):
    """What nbgrader runs for a cheat is what it runs for a blank notebook, and a cell of the cheat's own."""
    _, _, release, _, _ = room
    honest, _ = mend(a_handin(release, tmp_path / "x.ipynb"), release)
    mended, said = mend(a_handin(cheat(release), tmp_path / "y.ipynb"), release)
    assert [part.split(":")[0] for part in said] == ["missing, put back", "changed, put back"]
    assert [(c["source"], marks(c)) for c in mended["cells"][1:]] == [
        (c["source"], marks(c)) for c in honest["cells"]
    ]
    assert not any("tags" in c["metadata"] for c in mended["cells"] if marks(c).get("grade"))


def test_layouts_of_folders(tmp_path):
    for path in ("flat.ipynb", "own/x.ipynb", "full/a1/a1.ipynb", "full/a2/a2.ipynb", "late/a2/a2.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "notes.txt").touch()
    found = {student: getattr(path, "name", path) for student, path in find_handins(tmp_path, "a1")}
    assert found == {
        "flat": "flat.ipynb",
        "full": "a1.ipynb",
        "notes": "notes.txt is not a notebook",
        "own": "x.ipynb",
    }


def test_what_a_teacher_changed_stays(tmp_path):
    source = tmp_path / "source" / AUTO[0] / f"{AUTO[0]}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text("{}")
    with pytest.raises(ValueError, match="already there"):
        build(AUTO[0], tmp_path)
    assert source.read_text() == "{}"


@pytest.mark.parametrize(
    "words, says",
    [
        (["preview", "a77"], "assignment is 'a77', but must be one of a1"),
        (["grade", "a1", "--course", "nowhere"], "build the assignment first"),
    ],
)
def test_the_command_line_complains_in_one_sentence(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["assignment", *words]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_list(capsys):
    assert main(["assignment", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and facts["title"] in out for name, facts in FACTS.items())


@pytest.mark.xdist_group(f"classroom-{AUTO[-1]}")
def test_preview_is_what_students_get(tmp_path):
    preview(AUTO[-1], tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "Exercise 1" in page and "raise</span> <span" in page and "BEGIN SOLUTION" not in page
    with pytest.raises(ValueError, match="already there"):
        preview(AUTO[-1], tmp_path / "x.html")


@pytest.mark.parametrize("path", sorted((ROOT / "nbs" / "assignments").glob("*.ipynb")), ids=lambda p: p.stem)
def test_frames_are_executed_small_and_told_in_words(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [o for c in cells for o in c["outputs"]]
    assert path.stat().st_size < 300_000 and not any(o["output_type"] == "error" for o in outputs)
    shown = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown) >= 2 and all(len(o["metadata"]["image/png"]["alt"]) > 15 for o in shown)


def test_the_course_is_json_in_one_style():
    for name in FACTS:
        assert (ROOT / "dit_nb" / "teach" / "classroom" / "course" / f"{name}.ipynb").read_text() == dumps(
            read_assignment(name)
        )
