"""The explorer of lesson 10, against numpy."""

import numpy as np
import pytest

from dit_nb.blocks.adaln import modulate
from dit_nb.data import sample_photo
from dit_nb.teach.explore.adaln import explore_modulate
from support_explorers import pixels, turn


@pytest.fixture(scope="module")
def shared():
    return explore_modulate()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def by_hand(shift, scale, everychannels, wrong):
    """The photograph, patch by patch, with numpy."""
    photo = sample_photo(size=(96, 128))[0].double().numpy()
    i, j = np.mgrid[:8, :8]
    stamp = np.ones((8, 8)) if everychannels else ((i == j) | (i + j == 7)) * 1.0
    stencil = np.ones((8, 8)) if everychannels else (j < 4) * 1.0
    out = np.empty_like(photo)
    for r in range(0, 96, 8):
        for c in range(0, 128, 8):
            v = photo[:, r : r + 8, c : c + 8]
            v = (v - v.mean()) / np.sqrt(v.var() + 1e-6)
            out[:, r : r + 8, c : c + 8] = v * (scale * stencil + (not wrong)) + shift * stamp
    return np.clip(out / 2.5, -1, 1).transpose(1, 2, 0) / 2 + 0.5


def test_photograph_is_drawn(explorer):
    for shift, scale, channels, wrong in ((1.0, -1.0, 1, False), (-0.5, 2.0, 0, False), (0.5, 0.5, 1, True)):
        fig = turn(explorer, shift=shift, scale=scale, channels=channels, wrong=wrong)
        expected = by_hand(shift, scale, channels == 0, wrong)
        np.testing.assert_allclose(pixels(fig.axes[0]), expected, atol=1e-4)


def labels(fig):
    """Name, mean and standard deviation in the legend of the histograms."""
    texts = [text.get_text() for text in fig.axes[1].get_legend().get_texts()]
    return [tuple(float(part.split()[-1]) for part in text.split(": ")[1].split(",")) for text in texts]


def test_experiments(explorer):
    for shift in (-1.0, 1.0):
        gone = pixels(turn(explorer, scale=-1.0, shift=shift).axes[0])
        assert np.ptp(gone) == 0 and np.isclose(gone[0, 0, 0], 0.5 + shift / 2.5 / 2)
    for patch in (8, 69, 163):
        normed, modulated = labels(explorer.set(shift=0.0, scale=0.0, patch=patch).figure)
        assert normed == modulated == (0.0, 1.0)
    assert np.ptp(pixels(explorer.figure.axes[0])) > 0.5
    fig = turn(explorer, wrong=True)
    assert (pixels(fig.axes[0]) == 0.5).all() and labels(fig)[1] == (0.0, 0.0)
    before, after = (patch.get_data().values for patch in fig.axes[1].patches)
    assert (after > 0).sum() == 1 and after.sum() == before.sum() == 192  # all values in one bin, none cut
    assert fig.axes[1].get_ylim()[1] > 192


def test_first_figure_shows_the_photograph_as_it_is(explorer):
    assert explorer.values() == dict(shift=0.0, scale=0.0, channels=0, patch=8, wrong=False)
    np.testing.assert_allclose(pixels(explorer.figure.axes[0]), by_hand(0, 0, True, False), atol=1e-4)


def test_own_modulate():
    def swapped(x, shift, scale):
        return x * (1 + shift) + scale

    mine, ours = (turn(explore_modulate(f), scale=-1.0, shift=1.0) for f in (swapped, modulate))
    assert abs(pixels(mine.axes[0]) - pixels(ours.axes[0])).max() > 0.3
