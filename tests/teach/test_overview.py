"""The picture of the whole DiT: every lesson lights its own part."""

import re
from pathlib import Path

import pytest

from dit_nb.errors import UserError
from dit_nb.teach.overview import _PARTS, _WHOLE, plot_overview

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(int(path.name[:2]) for path in ROOT.glob("nbs/[1-5]_*/[0-9]*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_lights_its_part(lesson):
    fig = plot_overview(lesson)
    wanted = sum(lesson in part.lessons for part in (*_PARTS, _WHOLE))
    widths = [patch.get_linewidth() for patch in fig.axes[0].patches]
    assert wanted == sum(width > 2 for width in widths) > 0
    assert "Lit: " in fig.alt_text


def test_large_picture_names_every_lesson():
    texts = " ".join(text.get_text() for text in plot_overview().axes[0].texts)
    assert set(LESSONS) - {0} <= set(map(int, re.findall(r"\b\d\d\b", texts)))


def test_lesson_that_does_not_exist():
    with pytest.raises(UserError, match="lesson is 25"):
        plot_overview(25)


def test_the_picture_says_what_the_network_predicts():
    for lesson in LESSONS:
        fig = plot_overview(lesson)
        texts = " ".join(text.get_text().replace("\n", " ") for text in fig.axes[0].texts)
        if lesson < 30 or lesson == 31:  # modern blocks are measured on the noise
            assert "predicted noise;" in fig.alt_text and "velocity" not in texts
        else:
            assert "velocity;" in fig.alt_text and "velocity" in texts
    assert "predicted noise, image or velocity;" in plot_overview(32).alt_text
