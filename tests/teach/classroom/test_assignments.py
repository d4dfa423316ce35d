"""Assignments: every exercise has its place, and frames and course files are complete."""

import json
from pathlib import Path

import nbformat
import pytest

from dit_nb.teach.classroom.assignments import _dumps, _read_assignment, assignments, collect
from dit_nb.teach.graders.framework.core import all_exercises

ROOT = Path(__file__).resolve().parents[3]
FACTS = assignments()
FRAMES = sorted((ROOT / "nbs" / "assignments").glob("*.ipynb"))


def test_assignments_take_known_exercises_once():
    named = [exercise for facts in FACTS.values() for exercise in facts["exercises"]]
    assert len(named) == len(set(named)) and set(named) <= set(all_exercises())
    assert len(named) == 28, "those of lessons 03 to 18 that the assignments were built of"


def test_an_unknown_exercise_is_refused(tmp_path):
    frame = tmp_path / "a9_x.ipynb"
    cell = nbformat.v4.new_markdown_cell("<!-- exercise: flying -->")
    frame.write_text(json.dumps(nbformat.v4.new_notebook(cells=[cell])))
    with pytest.raises(ValueError, match="a9_x.*flying"):
        collect(frame, [])


@pytest.mark.parametrize("path", FRAMES, ids=lambda p: p.stem)
def test_frames_are_executed_small_and_have_alt_text(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [o for c in cells for o in c["outputs"]]
    assert path.stat().st_size < 300_000 and not any(o["output_type"] == "error" for o in outputs)
    shown = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown) >= 2 and all(len(o["metadata"]["image/png"]["alt"]) > 15 for o in shown)


def test_course_files_have_one_format():
    for name in FACTS:
        path = ROOT / "dit_nb" / "teach" / "classroom" / "course" / f"{name}.ipynb"
        assert path.read_text() == _dumps(_read_assignment(name))


def test_an_unknown_assignment_is_refused():
    with pytest.raises(ValueError, match="a77.*a1"):
        _read_assignment("a77")
