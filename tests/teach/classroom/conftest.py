"""A small assignment of two exercises, which runs in a few seconds."""

import json
from pathlib import Path

import nbformat
import pytest

from dit_nb.teach.classroom import assignments

ROOT = Path(__file__).resolve().parents[3]
FRAME = [
    nbformat.v4.new_markdown_cell("# Two exercises\n\n**Minutes**: 10"),
    nbformat.v4.new_code_cell("# %pip install -q dit_nb  # if it is not installed"),
    nbformat.v4.new_code_cell("#| reference\npatchify = conv_to_linear = None"),
    nbformat.v4.new_markdown_cell("<!-- exercise: patchify -->"),
    nbformat.v4.new_markdown_cell("<!-- exercise: conv_to_linear -->"),
    nbformat.v4.new_markdown_cell(
        "<!-- report: reasons, 4 points -->\nWhy is it so?\n\n<!-- BEGIN SOLUTION -->\nSo.\n<!-- END SOLUTION -->"
    ),
    nbformat.v4.new_code_cell("print('The end')"),
]


@pytest.fixture(scope="session")
def small_course_file(tmp_path_factory):
    """File of the package's course with the small assignment, called a1."""
    frame = tmp_path_factory.mktemp("frames") / "a1_two.ipynb"
    frame.write_text(json.dumps(nbformat.v4.new_notebook(cells=FRAME)))
    (lesson,) = (ROOT / "nbs").glob("*/03_patchify.ipynb")
    nb = assignments.collect(frame, [lesson])
    path = tmp_path_factory.mktemp("course") / "a1.ipynb"
    path.write_text(assignments._dumps(nb), encoding="utf-8")
    return path


@pytest.fixture
def small(small_course_file, monkeypatch):
    """Let the package have the small assignment alone."""
    monkeypatch.setattr(assignments, "_COURSE", small_course_file.parent)
    return "a1"
