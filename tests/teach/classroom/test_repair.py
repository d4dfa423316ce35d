"""Submissions repaired: whatever a student's file holds, work and checks get their places."""

import copy
import json
import re

import nbformat
import pytest
from support_classroom import RIGHT, code, markdown, marks, place, put, submitted

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.notebooks import (
    _read_submission,
    _sanitized,
    _sanitized_markdown,
    _sanitized_output,
)
from dit_nb.teach.classroom.repair import repair

NAME = next(name for name, facts in assignments().items() if facts["exercises"])


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
    where = place(nb, "patchify-check")
    submission["cells"][where]["metadata"] = {"nbgrader": {"grade_id": odd}}
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
    where = place(nb, "patchify-solution")
    copies = [{**nb["cells"][where], "source": text} for text in ("half = 2", "def patchify(): ...")]
    theirs = [*nb["cells"][:where], *copies, *nb["cells"][where:]]  # and the unchanged one after them
    repaired, remarks = repair(a_submission({**nb, "cells": theirs}, tmp_path / "x.ipynb"), nb)
    cells = repaired["cells"][where : where + 2]
    assert [c["source"] for c in cells] == ["half = 2", "def patchify(): ..."]
    assert [marks(c).get("grade_id") for c in cells] == [None, "patchify-solution"]
    assert remarks == ["duplicated: patchify-solution"] and len(repaired["cells"]) == len(nb["cells"]) + 1


def repaired(nb, release, tmp_path):
    return repair(put(tmp_path / "x.ipynb", nb), release)


def order(nb, *texts):
    """Which cells hold the texts, in the order of the texts."""
    return [next(i for i, c in enumerate(nb["cells"]) if text in c["source"]) for text in texts]


@pytest.mark.parametrize("both_marked", [True, False])
def test_a_split_cell_stays_together(both_marked, tmp_path):
    """Jupyter's "split cell" gives the mark to one half or to both: both run above the check, in their order."""
    release = source_notebook(NAME)
    first, second = "from einops import rearrange as move", RIGHT["patchify"].replace("rearrange(", "move(")
    nb = submitted(release, {"patchify": second})
    where = place(nb, "patchify-solution")
    nb["cells"].insert(where, code(first, "patchify-solution" if both_marked else None))
    fixed, remarks = repaired(nb, release, tmp_path)
    assert order(fixed, first)[0] < place(fixed, "patchify-solution") < place(fixed, "patchify-check")
    assert fixed["cells"][place(fixed, "patchify-solution")]["source"] == second
    assert remarks == (["duplicated: patchify-solution"] if both_marked else [])


def test_a_cell_split_after_the_function_keeps_it(tmp_path):
    """The mark stays with the first half, the second is an own cell below it."""
    release = source_notebook(NAME)
    nb = submitted(release, {"patchify": "one = 1"}, {"patchify-solution": [code(RIGHT["patchify"])]})
    fixed, remarks = repaired(nb, release, tmp_path)
    where = place(fixed, "patchify-solution")
    assert fixed["cells"][where]["source"] == "one = 1" and remarks == []
    assert where < order(fixed, RIGHT["patchify"])[0] < place(fixed, "patchify-check")


def test_a_split_check_is_whole_again(tmp_path):
    release = source_notebook(NAME)
    nb = submitted(release, RIGHT)
    where = place(nb, "patchify-check")
    whole = nb["cells"][where]["source"]
    head, _, tail = whole.rpartition("\n")
    nb["cells"][where]["source"] = head
    nb["cells"].insert(where + 1, {**code(tail), "metadata": nb["cells"][where]["metadata"]})
    fixed, remarks = repaired(nb, release, tmp_path)
    assert [c["source"] for c in fixed["cells"] if marks(c).get("grade_id") == "patchify-check"] == [whole]
    assert remarks == ["changed, restored: patchify-check", "duplicated: patchify-check"]


OLD = "# my first attempt\ndef patchify(images, patch_size):\n    return images"


@pytest.mark.parametrize("with_check", [True, False])
def test_a_copy_below_the_check_does_not_replace_the_work(with_check, tmp_path):
    release = source_notebook(NAME)
    nb = submitted(release, RIGHT, {"patchify-check": [code(OLD, "patchify-solution")]})
    if not with_check:
        nb["cells"] = [c for c in nb["cells"] if not marks(c).get("grade_id", "").startswith("patchify-c")]
    fixed, _ = repaired(nb, release, tmp_path)
    assert fixed["cells"][place(fixed, "patchify-solution")]["source"] == RIGHT["patchify"]
    assert order(fixed, OLD)[0] > place(fixed, "patchify-hidden")


def test_own_cells_do_not_come_between_two_checks(tmp_path):
    release = source_notebook(NAME)
    nb = submitted(release, RIGHT, {"patchify-check": [code("patchify = None  # played")]})
    fixed, remarks = repaired(nb, release, tmp_path)
    assert place(fixed, "patchify-hidden") == place(fixed, "patchify-check") + 1 and remarks == []
    assert order(fixed, "# played")[0] == place(fixed, "patchify-hidden") + 1


def test_a_function_below_its_check_is_moved_up(tmp_path):
    release = source_notebook(NAME)
    nb = submitted(release, {}, {"patchify-hidden": [code(RIGHT["patchify"]), code("patchify(1, 2)")]})
    fixed, remarks = repaired(nb, release, tmp_path)
    assert remarks == ["defined below its check, moved up: patchify"]
    assert (
        order(fixed, RIGHT["patchify"])[0]
        < place(fixed, "patchify-check")
        < order(fixed, "patchify(1, 2)")[0]
    )


def test_an_answer_below_the_template_is_not_a_blank_one(tmp_path):
    release = source_notebook("a5")
    nb = submitted(release, {}, {"findings-report": [markdown("My findings.")]})
    fixed, _ = repaired(nb, release, tmp_path)
    assert "cells below" in fixed["cells"][place(fixed, "findings-report")]["source"]
    assert "cells below" not in fixed["cells"][place(fixed, "limits-report")]["source"]


@pytest.mark.parametrize("emptied", [True, False])
def test_nobody_waits_for_a_report_without_text(emptied, tmp_path):
    """A cell that was deleted or emptied counts as the untouched template, which nbgrader gives 0."""
    release = source_notebook("a5")
    nb = submitted(release, {"findings": " \n"} if emptied else {})
    if not emptied:
        del nb["cells"][place(nb, "findings-report")]
    fixed, _ = repaired(nb, release, tmp_path)
    where = place(release, "findings-report")
    assert fixed["cells"][place(fixed, "findings-report")]["source"] == release["cells"][where]["source"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("![x](a.png) and a < b", "![x](a.png) and a < b"),
        ("[x](javascript:alert(1))", "[x](#"),
        ("[x]( <JaVa\tscript:alert(1)>)", "[x]( &lt;JaVa"),
        ("[x](java&#115;cript:alert(1))", "[x](#"),
        ("[x]: data:text/html,hi", "[x]: #"),
        ("[x](https://example.org/a:b)", "[x](https://example.org/a:b)"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("[b]\n\n> [b]: javascript:alert(1)", "[b]"),
        ("[b]\n\n- [b]: java&Tab;script&colon;alert(1)", "[b]"),
        ("[b\\]d]\n\n[b\\]d]: javascript:alert(1)", "[b"),
        ("[b\nc]\n\n[b\nc]: JAVASCRIPT\\:alert(1)", "[b"),
        ("[b]\n\n> [b]:\n> &#118;bscript:x", "[b]"),
        ("[b]\n\n> [b]: data:text/html,script", "[b]"),
        ("the data: {'data': 1}, data:\nmore", "the data: {'data': 1}, data:\nmore"),
    ],
)
def test_reports_run_nothing(text, shown):
    from bs4 import BeautifulSoup
    from nbconvert.filters import markdown2html

    safe = _sanitized_markdown(text)
    assert safe.startswith(shown)
    page = BeautifulSoup(markdown2html(safe), "html.parser")
    assert not page.find("script") and not [t for t in page.find_all(True) if "onerror" in t.attrs]
    targets = [re.sub(r"[\x00-\x20]", "", t.get("href") or "").lower() for t in page.find_all("a")]
    assert not [target for target in targets if target.startswith(("javascript:", "vbscript:", "data:"))]


def test_a_picture_that_is_not_there_ends_nothing():
    cell = {
        "cell_type": "markdown",
        "source": "![a](attachment:a.png) ![b](attachment:b.png)",
        "attachments": {"a.png": {}},
    }
    assert _sanitized(cell)["source"] == "![a](attachment:a.png) ![b](#lost)"


def test_outputs_lose_what_runs():
    data = {
        "text/html": "<script>",
        "image/svg+xml": "<svg>",
        "image/png": "A",
        "text/markdown": "<b>",
        "text/plain": "t",
    }
    safe = _sanitized_output({"output_type": "display_data", "data": data})["data"]
    assert safe == {"image/png": "A", "text/markdown": "&lt;b>", "text/plain": "t"}
    odd = {"image/png": {}, "text/plain": [1], "image/pngx": "A", "application/vnd.bokehjs_exec.v0+json": {}}
    assert _sanitized_output({"data": odd})["data"] == {"text/plain": ""}


def test_a_picture_keeps_its_size_and_nothing_else():
    metadata = {
        "image/png": {"width": 30, "height": "1 onerror=run()", "alt": "x"},
        "filenames": {"image/png": "y"},
    }
    safe = _sanitized_output({"data": {"image/png": "A"}, "metadata": metadata})
    assert safe["metadata"] == {"image/png": {"width": 30}}
