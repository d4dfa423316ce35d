"""The explorer of rotary positions, against sums of cosines."""

import math

import numpy as np
import pytest
import torch

from dit_nb.teach.explore.modern_blocks import _GRID, explore_modern_blocks
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_modern_blocks()


def at(explorer, **values):
    """The scores with some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and figure.alt_text
    return np.asarray(figure.axes[0].images[0].get_array())


@pytest.mark.parametrize("width,theta", [(8, 10.0), (16, 100.0), (64, 10000.0)])
def test_scores_are_means_of_cosines(explorer, width, theta):
    """Equal tokens: the score of an offset is the mean cosine of its angles over both axes."""
    scores = at(explorer, row=2, column=7, width=width, theta=theta)
    omega = [theta ** (-4 * k / width) for k in range(width // 4)]
    for row in range(_GRID[0]):
        for column in range(_GRID[1]):
            cosines = [math.cos(w * (row - 2)) + math.cos(w * (column - 7)) for w in omega]
            assert scores[row, column] == pytest.approx(sum(cosines) / (2 * len(omega)), abs=1e-5)


def test_experiments(explorer):
    here, there = at(explorer, row=1, column=2), at(explorer, row=4, column=6)
    np.testing.assert_allclose(here[:4, :7], there[3:7, 4:11], atol=1e-5)  # the same pattern, moved
    far = {theta: at(explorer, row=0, column=0, theta=theta)[7, 11] for theta in (10.0, 10000.0)}
    assert far[10.0] < 0.2 < far[10000.0]
    wrong = at(explorer, is_swapped=True)
    assert explorer.figure.axes[1].lines[0].get_color() == COLORS["wrong"]
    moved = at(explorer, row=4, column=6, is_swapped=True)
    assert np.abs(wrong[3:5, 4:6] - moved[4:6, 6:8]).max() > 0.1  # another pattern
    right = at(explorer)
    assert right[3, 10] > max(right[3, 9], right[3, 11])  # six places away the scores rise again
    low = at(explorer, theta=10.0)
    assert abs(low[7, 11]) < 0.1 and min(low[3]) > 0.4 and min(low[:, 4]) > 0.4
    neighbors = [(2, 4), (4, 4), (3, 3), (3, 5)]
    further = max(wrong[row, column] for row in (1, 2, 5) for column in (0, 1, 7, 8, 9))
    assert sum(wrong[place] < further for place in neighbors) == 3
    assert min(right[place] for place in neighbors) > max(0.3, min(wrong[place] for place in neighbors))


def test_own_rotation():
    still = explore_modern_blocks(lambda x, cos, sin: x)
    assert np.ptp(at(still)) == 0
    halves = explore_modern_blocks(lambda x, cos, sin: torch.zeros_like(x))
    assert at(halves).max() == 0
