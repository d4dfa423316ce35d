"""Source notebooks: every point has a marked cell, and every check takes the solution."""

import json
import re

import pytest

from dit_nb.errors import UserError
from dit_nb.teach.classroom import kernel
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, _without_hidden, source_notebook

FACTS = assignments()
AUTO = [name for name in FACTS if FACTS[name]["exercises"]]


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


@pytest.mark.parametrize("name", FACTS)
def test_the_source_has_marks_for_all_points(name):
    cells = source_notebook(name)["cells"]
    ids = [marks(c)["grade_id"] for c in cells if marks(c)]
    assert len(ids) == len(set(ids))
    assert sum(marks(c).get("points", 0) for c in cells) == FACTS[name]["points"]


@pytest.mark.parametrize("name", FACTS)
def test_each_exercise_has_three_hints(name):
    words = [c["source"] for c in source_notebook(name)["cells"] if c["cell_type"] == "markdown"]
    for hint in ("Hint 1: the idea", "Hint 2: the tool", "Hint 3: the shape"):
        folded = sum(f"<details><summary>{hint}</summary>" in text for text in words)
        assert folded == (len(FACTS[name]["exercises"]) or 1), hint


@pytest.mark.parametrize("name", AUTO)
def test_every_check_takes_the_solution_and_refuses_none(name):
    """The check cells of the source run without nbgrader."""
    cells = source_notebook(name)["cells"]
    first = next(i for i, c in enumerate(cells) if marks(c).get("solution"))
    setup = [c["source"] for c in cells[:first] if c["cell_type"] == "code" and "import" in c["source"]]
    for right in (True, False):
        space = {}
        for source in setup:
            exec(source, space)
        for cell in cells[first:]:
            exercise, _, role = marks(cell).get("grade_id", "").rpartition("-")
            if role == "solution":
                exec(cell["source"] if right else f"{exercise} = None", space)
            elif role in ("check", "hidden"):
                exec(cell["source"], space)
                report = json.loads(kernel._take_result())
                assert report["passed"] == right and report["name"] == exercise, (exercise, role, report)


def test_the_install_cell_is_pinned_and_not_locked():
    url = "https://example.org/dit_nb-0.1.0-py3-none-any.whl"
    cells = source_notebook("a1", install=url)["cells"]
    (cell,) = [c for c in cells if "%pip" in c["source"]]
    assert f'%pip install -q "dit_nb @ {url}"' in cell["source"] and not marks(cell)
    assert not [c for c in source_notebook("a1")["cells"] if "pip install" in c["source"]], (
        "no name without a place"
    )
    commit = "git+https://example.org/x.git@0123abc"
    assert commit in "".join(c["source"] for c in source_notebook("a1", install=commit)["cells"])


@pytest.mark.parametrize(
    "url",
    ["dit_nb", "dit_nb==0.1.0", "git+https://example.org/x.git", "https://example.org/main.html", 'x" y'],
)
def test_what_is_not_pinned_is_refused(url):
    with pytest.raises(UserError, match="install is .* URL of one version"):
        source_notebook("a1", install=url)


def test_the_button_opens_the_notebook_in_colab():
    place = "github.com/me/course/blob/main/a1.ipynb"
    first = source_notebook("a1", colab=f"https://{place}")["cells"][0]["source"]
    assert f"](https://colab.research.google.com/{place.replace('.com', '')})" in first
    with pytest.raises(UserError, match="colab is .* address of a notebook on GitHub"):
        source_notebook("a1", colab="https://example.org/a1.ipynb")


@pytest.mark.parametrize("name", FACTS)
def test_solutions_and_releases_have_no_marks_of_nbgrader(name):
    solved, release = _without_hidden(source_notebook(name)), _release_notebook(source_notebook(name))
    for nb in (solved, release):
        text = "".join(c["source"] for c in nb["cells"])
        assert "SOLUTION" not in text and "HIDDEN" not in text
        assert not re.search(r"check_\w+\(\w+, seed=", text)
    assert not [c for c in solved["cells"] if c["metadata"]]
    texts = [c["source"] for c in release["cells"] if marks(c).get("solution")]
    assert all("NotImplementedError" in text or "YOUR ANSWER HERE" in text for text in texts)
