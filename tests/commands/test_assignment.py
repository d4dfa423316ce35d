"""dit-nb assignment: the list, and errors on one line."""

import pytest

from dit_nb.cli import main
from dit_nb.teach.classroom.assignments import assignments


@pytest.mark.parametrize(
    "words, message",
    [
        (["preview", "a77"], "assignment is 'a77', but must be one of a1"),
        (["solution", "a77"], "assignment is 'a77', but must be one of a1"),
        (["gradescope", "a77"], "assignment is 'a77', but must be one of a1"),
        (["grade", "a1", "--course", "nowhere"], "build the assignment first"),
        (["grade", "a1", "--course", "nowhere", "--seconds", "0"], "seconds is 0, but must be more than 0"),
        (["grade", "a1", "--course", "nowhere", "--jobs", "0"], "jobs is 0, but must be more than 0"),
        (["release", "a1", "--course", "nowhere"], "build the assignment first"),
        (["publish", "a1", "--course", "nowhere"], "grade the assignment first"),
        (["gradescope", "a1", "--course", "nowhere"], "build the assignment first"),
        (["build", "a1", "--out", "c", "--install", "dit_nb"], "install is 'dit_nb', but must be a URL"),
    ],
)
def test_errors_are_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["assignment", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_list_shows_all_titles(capsys):
    assert main(["assignment", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and facts["title"] in out for name, facts in assignments().items())
