"""The explorer of lesson 04, against sums of cosines."""

import numpy as np
import pytest
import torch

from dit_nb.teach.explore.positions import _GRIDS, explore_positions
from support_explorers import axes, is_wrong, pixels


@pytest.fixture(scope="module")
def shared():
    return explore_positions()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def waves(delta, half, max_period):
    """The mean cosine of all frequencies at a distance."""
    return np.mean([np.cos(delta * max_period ** (-i / half)) for i in range(half)], axis=0)


@pytest.mark.parametrize(
    "grid, token, dim, max_period",
    [
        ("12 x 16", 86, 64, 10000.0),
        ("12 x 16", 191, 8, 10.0),
        ("14 x 14", 0, 256, 1.0),
        ("14 x 14", 100, 16, 100.0),
    ],
)
def test_similarity_is_the_sum_of_cosines(explorer, grid, token, dim, max_period):
    explorer.set(grid=grid, token=token, dim=dim, max_period=max_period)
    rows, columns = _GRIDS[grid]
    row, column = divmod(token, columns)
    across = waves(np.arange(columns) - column, dim // 4, max_period)[None].repeat(rows, 0)
    down = waves(np.arange(rows) - row, dim // 4, max_period)[:, None].repeat(columns, 1)
    for ax, expected in zip(axes(explorer), (across, down, (across + down) / 2)):
        assert np.allclose(pixels(ax), expected, atol=1e-5)
        assert [float(z[0]) for z in ax.lines[0].get_data()] == [column, row]
        assert ax.images[0].get_clim() == (0.5, 1)


def test_sixteen_tokens_make_a_row(explorer):
    before = pixels(axes(explorer)[2])
    explorer.controls["token"].value = 102
    assert np.allclose(pixels(axes(explorer)[2])[1:], before[:-1], atol=1e-6)


def test_equal_frequencies_repeat(explorer):
    assert (pixels(axes(explorer)[0])[5, [0, 12]] < 0.85).all()
    explorer.set(max_period=1.0)
    assert (pixels(axes(explorer)[0])[5, [0, 12]] > 0.95).all()  # six columns to either side
    assert pixels(axes(explorer)[0])[5, 9] < 0


def test_swapped_grid(explorer):
    right = pixels(axes(explorer)[2])
    explorer.set(wrong=True)
    wrong = pixels(axes(explorer)[2])
    assert wrong[5, 6] == 1 and is_wrong(axes(explorer)[2].title)
    assert right[6, 6] == right[4, 6] > 0.95 and wrong[6, 6] < 0.85 and wrong[4, 6] < 0.85  # above and below
    row, column = divmod(86, 12)  # token 86 in the table of a 16 x 12 grid
    rows, columns = np.divmod(np.arange(192), 12)
    expected = waves(columns - column, 16, 1e4) / 2 + waves(rows - row, 16, 1e4) / 2
    assert np.allclose(wrong.ravel(), expected, atol=1e-5)
    explorer.set(grid="14 x 14")
    hidden = pixels(axes(explorer)[2])
    assert not is_wrong(axes(explorer)[2].title)
    assert np.array_equal(hidden, pixels(axes(explorer.set(wrong=False))[2]))


def test_own_positions():
    def flat(grid, dim):
        t = torch.arange(grid[0] * grid[1], dtype=torch.float64)[:, None]
        angles = t * 1e4 ** (-torch.arange(dim // 2) / (dim // 2))
        return torch.cat([angles.sin(), angles.cos()], 1)

    explorer = explore_positions(flat)
    halves = [pixels(ax) for ax in axes(explorer)[:3]]
    assert np.allclose(halves[2], (halves[0] + halves[1]) / 2, atol=1e-6)
    assert halves[2][5, 6] == 1 and halves[2][5, 7] > halves[2][6, 6]  # the row below is far away
    explorer.set(max_period=10.0)
    assert "max_period" in explorer.error.value  # it has no such argument
    with pytest.raises(ValueError, match=r"positions have shape \(12, 16, 64\), but must be \(192, 64\)"):
        explore_positions(lambda grid, dim: torch.zeros(*grid, dim))
