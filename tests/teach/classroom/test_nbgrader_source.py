"""Source notebooks: every point has a marked cell, and every check takes the solution."""

import pytest

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.nbgrader_source import source_notebook

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
        space = {"display": lambda report: None}
        for source in setup:
            exec(source, space)
        for cell in cells[first:]:
            exercise, _, role = marks(cell).get("grade_id", "").rpartition("-")
            if role == "solution":
                exec(cell["source"] if right else f"{exercise} = None", space)
            elif role in ("check", "hidden"):
                exec("\n".join(line for line in cell["source"].split("\n") if ".points" not in line), space)
                assert bool(space["report"]) == right, (exercise, role, str(space["report"]))
