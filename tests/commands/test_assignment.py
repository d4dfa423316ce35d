"""dit-nb assignment: the list, and errors on one line."""

import re

import pytest

from dit_nb.cli import main
from dit_nb.commands import assignment
from dit_nb.commands.assignment import _words
from dit_nb.commands.options import Grade as Options
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.table import NO_PAGE, Grade


@pytest.mark.parametrize(
    "words, message",
    [
        (["preview", "a77"], "assignment is 'a77', but must be one of a1"),
        (["solution", "a77"], "assignment is 'a77', but must be one of a1"),
        (["gradescope", "a77"], "assignment is 'a77', but must be one of a1"),
        (["grade", "a1", "--course", "nowhere"], "course is .*nowhere, but there is no "),
        (["grade", "a1", "--course", "nowhere", "--seconds", "0"], "seconds is 0, but must be more than 0"),
        (["grade", "a1", "--course", "nowhere", "--jobs", "0"], "jobs is 0, but must be more than 0"),
        (["release", "a1", "--course", "nowhere"], "course is .*nowhere, but there is no "),
        (["publish", "a1", "--course", "nowhere"], "course is .*nowhere, but has no grades-a1.csv"),
        (["gradescope", "a1", "--course", "nowhere"], "course is .*nowhere, but there is no "),
        (["build", "a1", "--out", "c", "--install", "dit_nb"], "install is 'dit_nb', but must be a URL"),
    ],
)
def test_errors_are_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["assignment", *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_list_shows_all_titles(capsys):
    assert main(["assignment", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and facts["title"] in out for name, facts in assignments().items())


def line(student, state="graded", now=True, remarks=""):
    return Grade(student, state, {"patchify": (1.0, 5.0)}, now=now, remarks=remarks)


LOST = line("lost", "not graded")
NO_FEEDBACK = line("ben", remarks=f"late; {NO_PAGE}")
STATUS = [
    ([line("ann"), line("ben", "waiting")], 0),
    ([line("ann"), line("cy", "not graded", now=False), line("dan", "missing", now=False)], 0),
    ([line("ann"), LOST], 3),
    ([line("ann"), NO_FEEDBACK], 3),
    ([NO_FEEDBACK], 3),
    ([LOST, line("ann", now=False)], 4),
    ([LOST, line("gone", "not graded")], 4),
]


@pytest.mark.parametrize("grades, status", STATUS)
def test_the_exit_status_tells_how_many_were_graded(grades, status, monkeypatch, capsys):
    monkeypatch.setattr(assignment, "grade", lambda *_: grades)
    assert main(["assignment", "grade", "a1", "--course", "c"]) == status
    out = capsys.readouterr().out
    now = [g for g in grades if g.now]
    good = sum(g.state in ("graded", "waiting") for g in now)
    assert f"\n{good} of {len(now)} graded now" in out
    assert ("no feedback page of ben: see nbgrader.log" in out) == (NO_FEEDBACK in grades)


@pytest.mark.parametrize("grades, status", [([line("ann")], 0), ([line("ann"), NO_FEEDBACK], 3)])
def test_publish_tells_who_has_no_page(grades, status, monkeypatch, capsys):
    monkeypatch.setattr(assignment, "_publish_again", lambda *_: grades)
    assert main(["assignment", "publish", "a1", "--course", "c"]) == status
    assert ("no feedback page of ben" in capsys.readouterr().out) == bool(status)


OPTIONS = [
    Options("a1", "c", sandbox=True),
    Options("a2", "my course", "in.zip", "moodle", "list.csv", ("ann", "ben"), 3, 7.5, False, 2.0),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_command_that_runs_in_the_sandbox_is_the_same(options, monkeypatch):
    seen = []
    monkeypatch.setattr(assignment, "_grade", lambda options: seen.append(options) or 0)
    assert main(_words(options)) == 0 and seen == [options]


def test_a_gradebook_on_a_server_is_told(monkeypatch, tmp_path, capsys):
    """The sandbox of the command has no network, so the command runs outside."""
    (tmp_path / "release" / "a1").mkdir(parents=True)
    monkeypatch.setattr(assignment, "_check_sandbox", lambda: None)
    monkeypatch.setattr(assignment, "_database", lambda course: "postgresql://host/grades")
    monkeypatch.setattr(assignment, "grade", lambda *_: [line("ann")])
    assert main(["assignment", "grade", "a1", "--course", str(tmp_path), "--sandbox"]) == 0
    assert "outside of the sandbox" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 3, 4])
def test_the_sandbox_gives_its_status_back(status, monkeypatch, tmp_path):
    (tmp_path / "release" / "a1").mkdir(parents=True)
    calls = []
    monkeypatch.setattr(assignment, "_check_sandbox", lambda: None)
    monkeypatch.setattr(assignment, "_database", lambda course: f"sqlite:///{course}/gradebook.db")
    monkeypatch.setattr(assignment, "_run_in_sandbox", lambda *words: calls.append(words) or status)
    words = ["assignment", "grade", "a1", "--course", str(tmp_path), "--submissions", "mail", "--sandbox"]
    assert main(words) == status
    ((_, read, write, keep),) = calls
    assert [str(path) for path in read] == ["mail"] and set(write) == {tmp_path}
    assert tmp_path / "source" in keep and tmp_path / "nbgrader_config.py" in keep
