"""Reports: as text, as Markdown, and as a row of a gradebook."""

import json

import pytest

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.report import _NotPassed
from dit_nb.teach.graders.patchify import check_patchify


def test_a_report_has_text_table_and_row():
    good = check_patchify(RIGHT["patchify"][0], points=2)
    bad = check_patchify(WRONG["patchify"][0][0], points=2)
    assert good and not bad and good.require() is good
    with pytest.raises(_NotPassed, match="never moved"):
        bad.require()
    for report in (good, bad):
        row = json.loads(json.dumps(report.row(), allow_nan=False))
        assert row["name"] == "patchify" and row["max_points"] == 2 and row["points"] == 2 * report.passed
    text = bad._repr_markdown_()
    assert text.startswith("**✗ patchify** · 0 of 2 points") and "Where to look" in text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("|")}) == 1
    assert "✓" in good._repr_markdown_() and "|" not in good._repr_markdown_()


def test_markup_in_a_students_error_is_escaped():
    def crash(images, patch_size):
        raise ValueError("<b>|*no*|</b> $x$ `y`")

    text = check_patchify(crash)._repr_markdown_().split("|")[0]
    assert "<b>" not in text and "`" not in text and "*no*" not in text
