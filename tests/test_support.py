"""The checker of error messages itself, and the table of the hardening suite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import support_results
from dit_nb.errors import UserError
from support import raises_input_error


class _Other(UserError):
    """A kind of its own."""


@pytest.mark.parametrize(
    "error", [UserError("x is 5. It is bad. Very bad."), UserError("x is 5"), _Other("x is 5.")]
)
def test_long_unfinished_and_other_messages_do_not_pass(error):
    with pytest.raises(AssertionError), raises_input_error("x"):
        raise error


def test_other_errors_and_none_do_not_pass():
    for error in (RuntimeError("x is 5."), ValueError("x is 5.")):
        with pytest.raises(type(error)), raises_input_error("x"):
            raise error
    with pytest.raises(pytest.fail.Exception), raises_input_error("x"):
        pass


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Rows of a table of its own, as lists of cells."""
    path = tmp_path / "RESULTS.md"
    monkeypatch.setattr(support_results, "RESULTS", path)

    def rows() -> list[list[str]]:
        lines = path.read_text().splitlines()[6:]
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]

    return rows


def test_a_part_of_a_test_does_not_replace_the_whole(table):
    support_results.write_row("files", 36, 0, 60.0, "all kinds")
    before = table()
    support_results.write_row("files", 2, 1, 6.0, part="2 of 36")
    assert table() == before and before[0][:5] == ["files", "36", "0", "1.0", "all kinds"]
    support_results.write_row("files", 40, 0, 60.0)
    assert table()[0][1] == "40"


def test_a_part_of_a_test_is_marked_until_the_whole_was_run(table):
    support_results.write_row("calls", 2, 0, 6.0, "random", part="2 of 36")
    assert table()[0][1:5] == ["2", "0", "0.1", "partial: 2 of 36; random"]
    support_results.write_row("calls", 3, 0, 6.0, part="3 of 36")
    assert table()[0][4] == "partial: 3 of 36"
    support_results.write_row("calls", 1, 0, 6.0, part="1 of 36")
    assert table()[0][4] == "partial: 3 of 36", "nor does a smaller part replace a larger one"
    support_results.write_row("others", 1, 0, 6.0)
    support_results.write_row("calls", 36, 0, 60.0)
    assert [row[:2] for row in table()] == [["calls", "36"], ["others", "1"]] and table()[0][4] == ""


SUITE = """
import pytest
pytestmark = pytest.mark.hard
@pytest.mark.parametrize("k", range(3))
def test_numbers(k, cases):
    "Three numbers"
    cases.add(k + 1)
def test_one():
    "One thing"
"""


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], {"Three numbers": ("6", ""), "One thing": ("1", "")}),
        (["-k", "1"], {"Three numbers": ("2", "partial: 1 of 3")}),
        (["test_it.py::test_numbers[2]"], {"Three numbers": ("3", "partial: 1 of 3")}),
    ],
    ids=["whole", "by -k", "by name"],
)
def test_the_suite_knows_which_part_of_it_was_run(tmp_path, words, wanted):
    """In a process of its own, on a copy of its conftest."""
    tests = Path(__file__).parent
    shutil.copy(tests / "hard" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "hard").mkdir()
    shutil.copy(tests / "support_results.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = hard: of this suite\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = (tmp_path / "hard" / "RESULTS.md").read_text().splitlines()[6:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert {row[0]: (row[1], row[4]) for row in cells} == wanted
