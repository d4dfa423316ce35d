"""Submissions: whatever a student's file holds, it is read and repaired, or one line says why not."""

import copy
import json

import nbformat
import pytest

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.submissions import _find_submissions, _read_submission, repair

NAME = next(name for name, facts in assignments().items() if facts["exercises"])


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


def a_submission(nb, path):
    path.write_text(json.dumps(nb))
    return path


@pytest.mark.parametrize("minor", range(6))
def test_every_minor_format_is_read(minor, tmp_path):
    nb = source_notebook(NAME)
    if minor < 5:
        for cell in nb["cells"]:
            del cell["id"]
    submission = _read_submission(a_submission({**nb, "nbformat_minor": minor}, tmp_path / "x.ipynb"))
    assert [c["source"] for c in submission["cells"]] == [c["source"] for c in nb["cells"]]


@pytest.mark.parametrize("odd", ["x", [1], None, 3], ids=str)
def test_odd_metadata_is_ignored(odd, tmp_path):
    nb = source_notebook(NAME)
    submission = {**nb, "metadata": {"dit_nb": odd, "kernelspec": odd}, "cells": copy.deepcopy(nb["cells"])}
    place = next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == "patchify-check")
    submission["cells"][place]["metadata"] = {"nbgrader": {"grade_id": odd}}
    repaired, remarks = repair(a_submission(submission, tmp_path / "x.ipynb"), nb)
    assert [c["source"] for c in repaired["cells"]] == [c["source"] for c in nb["cells"]] and remarks == []


def test_a_repaired_notebook_keeps_attachments_and_drops_the_rest(tmp_path):
    nb = source_notebook(NAME)
    own = nbformat.v4.new_markdown_cell(
        "![see](attachment:a.png)", attachments={"a.png": {"image/png": "AAAA"}}, metadata={"tags": ["x"]}
    )
    submission = a_submission({**nb, "cells": [own, *nb["cells"]]}, tmp_path / "x.ipynb")
    repaired, remarks = repair(submission, nb)
    assert repaired["cells"][0]["attachments"] and repaired["cells"][0]["metadata"] == {} and remarks == []
    assert repaired["metadata"] == nb["metadata"]
    nbformat.validate(nbformat.from_dict(repaired))


def test_a_function_counts_wherever_it_stands(tmp_path):
    """In a new cell of the student's own, with our cell deleted: it still comes before its check."""
    nb = source_notebook(NAME)
    own = nbformat.v4.new_code_cell("def patchify(images, patch_size):\n    return 1")
    theirs = [own if marks(c).get("grade_id") == "patchify-solution" else c for c in nb["cells"]]
    repaired, remarks = repair(a_submission({**nb, "cells": theirs}, tmp_path / "x.ipynb"), nb)
    sources = [c["source"] for c in repaired["cells"]]
    check = next(i for i, c in enumerate(repaired["cells"]) if marks(c).get("grade_id") == "patchify-check")
    assert own["source"] in sources[:check] and remarks == ["missing, left empty: patchify-solution"]
    empty = next(c for c in repaired["cells"] if marks(c).get("grade_id") == "patchify-solution")
    assert empty["source"] == "# this cell was missing"


def test_of_two_copies_the_last_changed_one_counts(tmp_path):
    nb = source_notebook(NAME)
    place = next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == "patchify-solution")
    copies = [{**nb["cells"][place], "source": text} for text in ("half = 2", "def patchify(): ...")]
    theirs = [*nb["cells"][:place], *copies, *nb["cells"][place:]]  # and the unchanged one after them
    repaired, remarks = repair(a_submission({**nb, "cells": theirs}, tmp_path / "x.ipynb"), nb)
    cells = repaired["cells"][place : place + 2]
    assert [c["source"] for c in cells] == ["half = 2", "def patchify(): ..."]
    assert [marks(c).get("grade_id") for c in cells] == [None, "patchify-solution"]
    assert remarks == ["duplicated: patchify-solution"] and len(repaired["cells"]) == len(nb["cells"]) + 1


def test_layouts_of_folders(tmp_path):
    for path in ("flat.ipynb", "own/x.ipynb", "full/a1/a1.ipynb", "full/a2/a2.ipynb", "late/a2/a2.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "notes.txt").touch()
    found = {student: getattr(path, "name", path) for student, path in _find_submissions(tmp_path, "a1")}
    assert found == {
        "flat": "flat.ipynb",
        "full": "a1.ipynb",
        "notes": "notes.txt is not a notebook",
        "own": "x.ipynb",
    }


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="submissions.*nowhere"):
        list(_find_submissions(tmp_path / "nowhere", "a1"))
