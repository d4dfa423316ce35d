"""dit-nb check: what it prints, and its exit status. The checks themselves run in tests/teach/classroom."""

import json
from pathlib import Path

import pytest

from dit_nb.cli import main
from dit_nb.teach.classroom.checking import Checked, _Line


@pytest.fixture
def calls(monkeypatch):
    """Notebooks, assignments, limits and files that were asked for; the result has 3 of 5 points."""
    asked = []
    lines = (_Line("patchify", False, 3, 3, "Right."), _Line("positions", False, 0, 2, "Wrong."))
    checked = Checked("a1", lines, ("reasons",), ("1 cell repaired",), (), 0.1)

    def check_notebook(path, name, limits, files):
        asked.append((path, name, limits.seconds, limits.sandbox, files))
        return checked

    monkeypatch.setattr("dit_nb.commands.check.check_notebook", check_notebook)
    return asked


def test_lines_and_points_are_printed(calls, capsys):
    assert main(["check", "mine.ipynb", "--assignment", "a1", "--seconds", "5"]) == 1
    assert calls == [(Path("mine.ipynb"), "a1", 5.0, False, ())]
    assert capsys.readouterr().out.splitlines() == [
        "✓ patchify (3 of 3 points): Right.",
        "✗ positions (0 of 2 points): Wrong.",
        "- reasons: graded by a person",
        "note: 1 cell repaired",
        "3 of 5 points of the open checks",
    ]


def test_json_has_the_same_numbers(calls, capsys):
    assert main(["check", "mine.ipynb", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["assignment"], found["score"], found["max_score"]) == ("a1", 3, 5)
    assert found["tests"][1] == {"name": "positions", "score": 0, "max_score": 2, "output": "Wrong."}
    assert (found["graded_by_a_person"], found["notes"]) == (["reasons"], ["1 cell repaired"])


def test_all_right_is_status_0(monkeypatch, capsys):
    right = Checked("a1", (_Line("patchify", False, 3, 3, "Right."),), (), (), (), 0.1)
    monkeypatch.setattr("dit_nb.commands.check.check_notebook", lambda *args, **options: right)
    assert main(["check", "mine.ipynb"]) == 0
    assert capsys.readouterr().out.endswith("3 of 3 points of the open checks\n")


def test_wrong_calls(tmp_path, error_of):
    assert "seconds is 0, but must be more than 0" in error_of("check", "mine.ipynb", "--seconds", "0")
    assert f"notebook is {tmp_path / 'x.ipynb'}" in error_of("check", tmp_path / "x.ipynb")
