"""A class with the real nbgrader: points, marks by hand, resubmissions, and what students can do to a notebook."""

import csv
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import nbformat
import pytest
from support_classroom import RIGHT, ZERO, code, markdown, put, submitted

from dit_nb.cli import main
from dit_nb.errors import UserError
from dit_nb.teach.classroom import assignments
from dit_nb.teach.classroom.course import build, release_source
from dit_nb.teach.classroom.gradebook import _gradebook
from dit_nb.teach.classroom.grading import _progress_line, grade
from dit_nb.teach.classroom.intake import _Received
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.memory import _locked
from dit_nb.teach.classroom.publish import _publish_again, _read_grades
from dit_nb.teach.classroom.table import NO_PAGE
from dit_nb.teach.classroom.work import Class, _Work

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("classroom")]
NAME, LIMITS = "a1", Limits(seconds=30)
GREEDY = "import time\n\nwhile True:\n    try:\n        time.sleep(0.1)\n    except:\n        pass"
REASON = {"reasons": "Because of <script>document.title = 'x'</script> the order."}
ALL = RIGHT | REASON


@pytest.fixture(scope="module")
def release(small_course_file, tmp_path_factory):
    """The small assignment, built in a course with an odd name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignments, "_COURSE", small_course_file.parent)
        course = tmp_path_factory.mktemp("class") / "course 2026 ü"
        yield course, nbformat.read(build(NAME, course), as_version=4)


def students(release):
    """Student -> notebook, and the points of patchify, conv_to_linear."""
    ends = "import os\nos._exit(1)"
    warns = "\n\nimport sys, warnings\nwarnings.warn('old')\nprint('careful', file=sys.stderr)\nexit()"
    old = code("def patchify(images, patch_size):\n    return images", "patchify-solution")
    own = "\n\ndef display(images, title):\n    return title\n\n\nreport = print(display)"
    return {
        "reference": (
            submitted(release, {k: v + warns for k, v in ALL.items() if k in RIGHT} | REASON),
            (5, 4),
        ),
        "blank": (release, (0, 0)),
        "zero": (submitted(release, ALL | {"patchify": ZERO}), (0, 4)),
        "greedy": (submitted(release, ALL | {"patchify": GREEDY}), (0, 4)),
        "own [display] + {x}": (submitted(release, ALL | {"patchify": RIGHT["patchify"] + own}), (5, 4)),
        "old below": (submitted(release, ALL, {"patchify-check": [old]}), (5, 4)),
        "ends": (submitted(release, ALL | {"conv_to_linear": ends}), (5, 0)),
        "ends last": (submitted(release, ALL, {"conv_to_linear-hidden": [code(ends)]}), (5, 4)),
        "helps": (submitted(release, ALL | {"patchify": "from helpers import patchify"}), (5, 4)),
    }


def run(course, folder, **options):
    lines = []
    return {
        g.student: g
        for g in grade(NAME, course, Class(folder, limits=LIMITS, jobs=2, **options), lines.append)
    }, lines


@pytest.fixture(scope="module")
def graded(release, tmp_path_factory):
    """A class graded once: (course, release, grades, lines of progress)."""
    course, nb = release
    folder = tmp_path_factory.mktemp("in")
    for student, (theirs, _) in students(nb).items():
        put(folder / student / f"{NAME}.ipynb", theirs)
    put(folder / "helps" / "helpers.py", RIGHT["patchify"])
    put(folder / "cut off.ipynb", json.dumps(nb)[:900])
    put(folder / "anna.pdf", "%PDF")
    grades, lines = run(course, folder)
    return course, nb, grades, lines


def auto(g):
    return tuple(g.exercises[e][0] for e in ("patchify", "conv_to_linear"))


def test_each_student_loses_what_they_got_wrong(graded):
    course, nb, grades, lines = graded
    assert {s: auto(g) for s, g in grades.items() if g.exercises} == {
        s: p for s, (_, p) in students(nb).items()
    }
    assert {s: g.state for s, g in grades.items()} == {s: "waiting" for s in students(nb)} | {
        "blank": "graded",
        "anna": "not graded",
        "cut off": "not graded",
    }
    assert grades["anna"].remarks == "not graded: no notebook, but anna.pdf"
    assert "it ends in the middle" in grades["cut off"].remarks
    assert (
        grades["ends"].remarks.startswith("a call of")
        or "the code of conv_to_linear ended" in grades["ends"].remarks
    )
    assert len(lines) == len(grades) and lines[-1].startswith(f"{len(grades)}/{len(grades)} ")


def test_remarks_are_few(graded):
    _, _, grades, _ = graded
    waits = "to be graded by hand: reasons"
    assert grades["reference"].remarks == waits and grades["blank"].remarks == ""
    assert grades["helps"].remarks == waits
    assert grades["old below"].remarks == waits


def check_one_truth(course):
    """Table, gradebook and feedback pages say the same; return the table's rows."""
    with (course / f"grades-{NAME}.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    with _gradebook(course) as book:
        recorded = {s.student.id: s for s in book.assignment_submissions(NAME)}
        assert {s for s, row in rows.items() if row["state"] in ("graded", "waiting")} == {*recorded}
        for student, submission in recorded.items():
            row, page = rows[student], (course / "feedback" / student / NAME / f"{NAME}.html").read_text()
            (shown,) = re.findall(rf"<h4>{NAME} \(Score: ([\d.]+) / ([\d.]+)\)", page)
            assert float(shown[1]) == float(row["max"]) == submission.max_score
            assert (row["state"] == "waiting") == submission.needs_manual_grade
            raw = sum(n.score for n in submission.notebooks)
            penalty = submission.late_submission_penalty or 0
            assert float(shown[0]) == pytest.approx(raw - penalty) or float(shown[0]) == pytest.approx(raw)
            if row["state"] == "graded":
                assert float(row["raw"]) == pytest.approx(raw)
                assert float(row["score"]) == pytest.approx(raw - penalty)
            else:
                assert row["score"] == row["reasons"] == ""
    return rows


def test_table_gradebook_and_pages_agree(graded):
    course, nb, _, _ = graded
    rows = check_one_truth(course)
    assert float(rows["blank"]["score"]) == 0 and float(rows["blank"]["max"]) == 13
    assert not [p for p in (course / "feedback").iterdir() if p.name in ("anna", "cut off")]


def test_feedback_starts_with_a_line_for_each_exercise(graded):
    course, _, _, _ = graded
    page = (course / "feedback" / "zero" / NAME / f"{NAME}.html").read_text()
    head = page[: page.index('<div class="container">')]
    assert "zero: 4 points so far; reasons must be graded by a person" in head
    assert re.search(r">patchify</a></td><td>0 of 5</td><td>[A-Z][^<]{20,}<", head)
    assert ">4 of 4</td><td>Right in all" in head and "Waits for a person" in head
    assert "<script>document.title" not in page and "&lt;script&gt;document.title" in page
    assert "most recent call last" not in page


def test_the_class_page_tells_what_was_solved(graded):
    course, _, _, _ = graded
    page = (course / f"class-{NAME}.html").read_text(encoding="utf-8")
    assert "11 students: 1 graded, 8 waiting, 2 not graded" in page
    assert re.search(r"<td>patchify</td><td>6 of 9</td>", page) and "1 × " in page
    assert "To be graded by hand" in page and "Time of a run" in page


def mark_by_hand(course, student, score=3.0, comment="Good."):
    """As formgrader does."""
    with _gradebook(course) as book:
        grade = book.find_grade("reasons-report", NAME, NAME, student)
        grade.manual_score, grade.needs_manual_grade = score, False
        book.find_comment("reasons-report", NAME, NAME, student).manual_comment = comment
        book.db.commit()


@contextmanager
def due(course, when, method) -> Iterator[None]:
    """Give the assignment a due date, and the course a late policy."""
    config = course / "nbgrader_config.py"
    text = config.read_text()
    with _gradebook(course) as book:
        book.find_assignment(NAME).duedate = datetime(2026, 1, 1) if when else None
        book.db.commit()
    config.write_text(f"{text}\nc.LateSubmissionPlugin.penalty_method = {method!r}\n")
    yield
    config.write_text(text)
    with _gradebook(course) as book:
        book.find_assignment(NAME).duedate = None
        book.db.commit()


def test_the_life_of_a_grade(graded, tmp_path):
    """Marks by hand stay with their text, resubmissions take the place of the earlier ones, lateness is told."""
    course, nb, _, _ = graded
    work, changed = submitted(nb, ALL), submitted(nb, ALL | {"reasons": "Other reasons."})
    below = submitted(nb, RIGHT, {"reasons-report": [markdown("My reasons.")]})

    put(tmp_path / "1" / "zoe.ipynb", work)
    put(tmp_path / "1" / "ben.ipynb", below)
    grades, lines = run(course, tmp_path / "1")
    assert len(lines) == 2 and len(grades) == 13, "those graded earlier stay in the table"
    assert grades["ben"].by_hand == ("reasons",), "an answer below the template is not blank"
    mark_by_hand(course, "zoe")
    _publish_again(NAME, course)
    assert float(check_one_truth(course)["zoe"]["score"]) == 12
    assert "Good." in (course / "feedback" / "zoe" / NAME / f"{NAME}.html").read_text()

    grades, lines = run(course, tmp_path / "1", students=("zoe",))
    assert len(lines) == 1 and grades["zoe"].points == 12 and grades["zoe"].state == "graded"

    mark_by_hand(course, "zoe", None, None)  # a mark that was taken back does not come again
    with _gradebook(course) as book:
        book.find_grade("reasons-report", NAME, NAME, "zoe").needs_manual_grade = True
        book.db.commit()
    grades, _ = run(course, tmp_path / "1", students=("zoe",))
    assert grades["zoe"].by_hand == ("reasons",) and "was 3/4" not in grades["zoe"].remarks
    mark_by_hand(course, "zoe")

    put(tmp_path / "1" / "zoe.ipynb", changed)
    grades, _ = run(course, tmp_path / "1", students=("zoe",))
    assert grades["zoe"].by_hand == ("reasons",) and check_one_truth(course)["zoe"]["score"] == ""
    assert "reasons-report was 3/4 by hand, the text has changed: grade again" in grades["zoe"].remarks

    put(tmp_path / "1" / "zoe" / "a1.ipynb", nb)  # beside the work: the work counts
    put(tmp_path / "1" / "zoe" / "timestamp.txt", "2026-01-02 03:00:00.000000 UTC\n")
    (tmp_path / "1" / "zoe.ipynb").rename(tmp_path / "1" / "zoe" / "final.ipynb")
    with due(course, True, "zero"):
        grades, _ = run(course, tmp_path / "1", students=("zoe",))
        mark_by_hand(course, "zoe", 4.0)
        row = {g.student: g for g in _publish_again(NAME, course)}["zoe"]
        assert (row.raw, row.penalty, row.points, row.late) == (13, 13, 0, 27 * 3600)
        assert check_one_truth(course)["zoe"]["late"] == "1 d 3 h"
        put(course / "late.csv", "student,days,hours\nzoe,1,2\nyan,9,\n")
        row = {g.student: g for g in _publish_again(NAME, course)}["zoe"]
        assert (row.penalty, row.late) == (13, 3600), "later than the extended due date, too"
        put(course / "late.csv", "student,days,hours\nzoe,1,4\nyan,9,\n")
        grades, lines = run(course, tmp_path / "1", students=("zoe",))
        assert lines[0] == "late.csv names yan, of whom nothing is graded now"
        assert (grades["zoe"].late, grades["zoe"].penalty) == (0, 0) and check_one_truth(course)
        (course / "late.csv").unlink()  # what was given stays
        grades, _ = run(course, tmp_path / "1", students=("zoe",))
        assert grades["zoe"].late == 0
    put(tmp_path / "1" / "zoe" / "final.ipynb", "{")
    put(tmp_path / "1" / "zoe" / "a1.ipynb", "{")
    grades, _ = run(course, tmp_path / "1", students=("zoe",))
    assert grades["zoe"].state == "not graded" and not (course / "feedback" / "zoe" / NAME).exists()
    assert check_one_truth(course)["zoe"]["score"] == ""


def test_a_killed_grader_is_repeated_with_the_same_table(graded, tmp_path):
    course, nb, _, _ = graded
    for student in ("k1", "k2"):
        put(tmp_path / "in" / f"{student}.ipynb", submitted(nb, ALL | {"patchify": ZERO}))
    first, _ = run(course, tmp_path / "in")
    put(tmp_path / "in" / "k2.ipynb", submitted(nb, ALL))

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(NAME, course, Class(tmp_path / "in", limits=LIMITS), stop)
    assert {g.student: g.exercises for g in _read_grades(NAME, course)} == {
        s: g.exercises for s, g in first.items()
    }
    again, _ = run(course, tmp_path / "in")
    assert auto(again["k1"]) == (0, 4) and auto(again["k2"]) == (5, 4)
    check_one_truth(course)


def test_marks_by_hand_survive_an_interruption(graded, tmp_path, monkeypatch):
    """Stopped after nbgrader has recorded a submission, and before its marks came back."""
    from dit_nb.teach.classroom import grading

    course, nb, _, _ = graded
    put(tmp_path / "in" / "mia.ipynb", submitted(nb, ALL))
    run(course, tmp_path / "in")
    mark_by_hand(course, "mia")
    assert {g.student: g for g in _publish_again(NAME, course)}["mia"].points == 12
    restore = grading._restore_marks

    def stop(*args):
        monkeypatch.setattr(grading, "_restore_marks", restore)
        raise KeyboardInterrupt

    monkeypatch.setattr(grading, "_restore_marks", stop)
    with pytest.raises(KeyboardInterrupt):
        run(course, tmp_path / "in")
    put(tmp_path / "in" / "mia.ipynb", submitted(nb, ALL | {"patchify": ZERO}))
    grades, _ = run(course, tmp_path / "in")
    assert grades["mia"].points == 7 and grades["mia"].state == "graded"
    assert "was 12" in grades["mia"].remarks, "the points before the interruption"
    assert "Good." in (course / "feedback" / "mia" / NAME / f"{NAME}.html").read_text()
    mark_by_hand(course, "mia", None, None)  # afterwards, what is taken back stays so
    grades, _ = run(course, tmp_path / "in")
    assert grades["mia"].exercises["reasons"][0] == 0


def test_fewer_points_than_before_are_told(graded, tmp_path):
    """A resubmission, and what two calls later is no news."""
    course, nb, _, _ = graded
    remarks = []
    for answers in (RIGHT, RIGHT | {"patchify": ZERO}, RIGHT | {"patchify": ZERO}, RIGHT):
        put(tmp_path / "in" / "ida.ipynb", submitted(nb, answers))
        grades, _ = run(course, tmp_path / "in")
        remarks.append(grades["ida"].remarks)
    assert remarks == ["", "was 9", "", ""]


def test_cheats_are_told_wherever_they_stand(graded, tmp_path):
    """In a cell, in a file beside the notebook, and by what was replaced while it ran."""
    course, nb, _, _ = graded
    near = "import dit_nb.teach.graders.framework.outcome as o\no._near = max"
    cells = {"patchify-check": [code(near)]}
    put(tmp_path / "in" / "joe" / "a1.ipynb", submitted(nb, RIGHT, cells))
    put(
        tmp_path / "in" / "kim" / "a1.ipynb",
        submitted(nb, RIGHT | {"patchify": "from helpers import patchify"}),
    )
    put(tmp_path / "in" / "kim" / "helpers.py", "from dit_nb.patchify import patchify")
    grades, _ = run(course, tmp_path / "in")
    assert "takes from dit_nb what was not given" in grades["joe"].remarks
    assert "parts of the graders were replaced: graders.framework.outcome._near" in grades["joe"].remarks
    assert "dit_nb.patchify.patchify (helpers.py)" in grades["kim"].remarks


def test_outputs_of_a_run_are_shown_without_scripts(graded, tmp_path):
    course, nb, _, _ = graded
    shows = "from IPython.display import HTML, display\ndisplay(HTML('<script>run(1)</script>'))"
    body = RIGHT["patchify"].replace(
        "    return", f"    {shows.replace(chr(10), chr(10) + '    ')}\n    return"
    )
    put(
        tmp_path / "in" / "lee.ipynb",
        submitted(nb, ALL | {"patchify": body}, {"patchify-solution": [code(shows)]}),
    )
    grades, _ = run(course, tmp_path / "in")
    assert auto(grades["lee"]) == (5, 4)
    for part in ("autograded", "feedback"):
        (page,) = (course / part / "lee" / NAME).glob(f"{NAME}.*")
        assert "<script>run(1)" not in page.read_text().replace("display(HTML('<script>run(1)", "")
    assert "Right in all" in (course / "feedback" / "lee" / NAME / f"{NAME}.html").read_text()


def test_a_second_grader_is_refused(graded, tmp_path):
    course, nb, _, _ = graded
    with _locked(course), pytest.raises(UserError, match="another dit-nb grades"):
        run(course, tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("c.Exchange.root = /srv/exchange", "error in line 2.*SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("c.CourseDirectory.course_id = 3", "wrong setting"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_broken_configuration_is_told_before_grading(line, message, graded, tmp_path):
    course, nb, _, _ = graded
    put(tmp_path / "in" / "new.ipynb", nb)
    config = course / "nbgrader_config.py"
    text = config.read_text()
    config.write_text(f"c = get_config()\n{line}\n")
    try:
        with pytest.raises(UserError, match=message):
            run(course, tmp_path / "in")
    finally:
        config.write_text(text)
    assert "new" not in {g.student for g in _read_grades(NAME, course)}


def test_foreign_settings_and_edited_points_change_nothing(graded, tmp_path, monkeypatch):
    """Settings of the machine, settings of the course that decide about points, and points of the source."""
    course, nb, _, _ = graded
    put(tmp_path / "jupyter" / "nbgrader_config.py", "c.CourseDirectory.root = '/other'\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    config, source = course / "nbgrader_config.py", course / "source" / NAME / f"{NAME}.ipynb"
    before, text = config.read_text(), source.read_text()
    off = ["c.CourseDirectory.submitted_directory = 'x'", "c.Autograde.autograde_preprocessors = []"]
    config.write_text("\n".join([before, *off, "c.SaveAutoGrades.enabled = False"]))
    edited = json.loads(text)
    for cell in edited["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "patchify-check":
            cell["metadata"]["nbgrader"]["points"] = 10
    source.write_text(json.dumps(edited))
    try:
        release_source(NAME, course)
        put(tmp_path / "in" / "edit.ipynb", submitted(nb, ALL))
        put(tmp_path / "in" / "zero.ipynb", submitted(nb, ALL | {"patchify": ZERO}))
        grades, _ = run(course, tmp_path / "in")
        assert grades["edit"].exercises["patchify"] == (12, 12) and grades["zero"].exercises["patchify"] == (
            0,
            12,
        )
    finally:
        config.write_text(before)
        source.write_text(text)
        release_source(NAME, course)
    assert not (tmp_path / "other").exists()


def test_moodle_there_and_back(graded, tmp_path):
    course, nb, _, _ = graded
    folder = "Ann Ö'Neil_123_assignsubmission_file_"
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(f"{folder}/a1.ipynb", json.dumps(submitted(nb, ALL | {"reasons": ""})))
    roster = put(tmp_path / "roster.csv", "id,name,email\ns1,Ann Ö'Neil,ann@x.org\ns2,Bo,bo@x.org\n")
    grades, lines = run(course, tmp_path / "m.zip", kind="moodle", roster=roster)
    assert lines[0].startswith("1/1 s1: 9/9")
    assert grades["s1"].name == "Ann Ö'Neil" and grades["s1"].received == folder
    assert grades["s2"].state == "missing" and "reference" in grades
    mark_by_hand(course, "s1", 1)
    _publish_again(NAME, course, "moodle", roster)
    (row,) = csv.DictReader((course / f"grades-{NAME}-moodle.csv").open(encoding="utf-8"))
    changed = datetime.fromisoformat(
        row.pop("Last modified (grade)")
    )  # without this column Moodle refuses the file
    assert abs((datetime.now(timezone.utc) - changed).total_seconds()) < 3600
    assert row == {
        "Identifier": "Participant 123",
        "Full name": "Ann Ö'Neil",
        "Email address": "ann@x.org",
        "Grade": "10",
        "Maximum grade": "13",
    }
    with zipfile.ZipFile(course / f"feedback-{NAME}.zip") as archive:
        assert f"{folder}/{NAME}-feedback.html" in archive.namelist()


def test_canvas_there_and_back(graded, tmp_path):
    course, nb, _, _ = graded
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("lifu_LATE_7_901_a1-1.ipynb", json.dumps(submitted(nb, RIGHT)))
        archive.writestr("lifu_7_900_a1.ipynb", json.dumps(nb))
    head = "Student,ID,SIS User ID,SIS Login ID,Section,a1 (555)\n    Points Possible,,,,,13\n"
    roster = put(tmp_path / "roster.csv", f'{head}"Li, Fu",7,u7,fli,S1,\n')
    grades, _ = run(course, tmp_path / "c.zip", kind="canvas", roster=roster)
    assert auto(grades["fli"]) == (5, 4) and "late, as the platform says" in grades["fli"].remarks
    _publish_again(NAME, course, "canvas", roster)
    rows = list(csv.reader((course / f"grades-{NAME}-canvas.csv").open(encoding="utf-8")))
    assert rows[0][-1] == "a1 (555)" and rows[1][0].strip() == "Points Possible" and rows[1][-1] == "13"
    assert ["Li, Fu", "7", "", "fli", "S1", "9"] in rows


def test_feedback_is_released_in_the_exchange(graded, tmp_path):
    """JupyterHub: what `nbgrader collect` leaves is enough for `nbgrader release_feedback`."""
    course, nb, _, _ = graded
    own = course / "submitted" / "hub" / NAME
    put(own / f"{NAME}.ipynb", submitted(nb, ALL))
    put(own / "timestamp.txt", "2026-01-02 03:00:00.000000 UTC\n")
    put(own / "submission_secret.txt", "secret")
    run(course, None, students=("hub",))
    words = [
        "release_feedback",
        NAME,
        f"--Exchange.root={tmp_path}",
        "--student=hub",
        f"--CourseDirectory.root={course}",
    ]
    (tmp_path / "dit").mkdir()
    start = "import sys; from nbgrader.apps import NbGraderApp; NbGraderApp.launch_instance(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", start, *words], cwd=course, capture_output=True, text=True)
    assert list((tmp_path / "dit" / "feedback").glob("*.html")), done.stderr[-500:]


def test_no_submissions_and_no_course(graded, tmp_path):
    course, _, _, _ = graded
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="has no submissions"):
        run(course, tmp_path / "in")
    with pytest.raises(UserError, match="build the assignment first"):
        grade(NAME, tmp_path, Class(tmp_path / "in"))


def test_the_exit_status_tells_how_many_were_graded(graded, tmp_path, capsys):
    """Of the command line: 3 if some, 4 if none could be graded; nbgrader's failures are told, too."""
    course, nb, _, _ = graded
    put(tmp_path / "in" / "yes.ipynb", nb)
    put(tmp_path / "in" / "no.ipynb", "{")
    words = ["assignment", "grade", NAME, "--course", str(course), "--submissions", str(tmp_path / "in")]
    assert main([*words, "--student", "no"]) == 4 and "\n0 of 1 graded now" in capsys.readouterr().out
    assert main(words) == 3 and "\n1 of 2 graded now" in capsys.readouterr().out


def test_a_page_that_nbgrader_cannot_write_is_told(graded, tmp_path, capsys):
    course, nb, _, _ = graded
    put(tmp_path / "in" / "pat.ipynb", nb)
    words = ["assignment", "grade", NAME, "--course", str(course), "--submissions", str(tmp_path / "in")]
    config = course / "nbgrader_config.py"
    text = config.read_text()
    config.write_text(f"{text}\nc.HTMLExporter.template_file = 'nowhere'\n")
    try:
        assert main(words) == 3
        assert "no feedback page of pat" in capsys.readouterr().out
        rows = csv.DictReader((course / f"grades-{NAME}.csv").open(newline="", encoding="utf-8-sig"))
        (row,) = [row for row in rows if row["student"] == "pat"]
        assert NO_PAGE in row["remarks"] and row["state"] == "graded"
    finally:
        config.write_text(text)
    assert main(words) == 0 and NO_PAGE not in (course / f"grades-{NAME}.csv").read_text()
    assert (course / "feedback" / "pat" / NAME / f"{NAME}.html").exists()


@pytest.mark.parametrize(
    "done, total, seconds, says",
    [
        (1, 4, 10.0, " (30 s left)"),
        (2, 3, 100.0, " (50 s left)"),
        (1, 200, 6.0, " (20 min left)"),
        (1, 1, 6.0, ""),
    ],
)
def test_progress_tells_the_time_left(done, total, seconds, says):
    """What the rest takes at the pace so far."""
    work = _Work("ann", _Received("ann"), reason="empty")
    assert _progress_line(work, done, total, seconds) == f"{done}/{total} ann: not graded: empty{says}"
