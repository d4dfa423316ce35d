"""The explorer of lesson 05, against sums of cosines."""

import math

import numpy as np
import pytest
import torch

from dit_nb.teach.explore.conditioning import explore_timestep
from support_explorers import axes, is_wrong


@pytest.fixture(scope="module")
def shared():
    return explore_timestep()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def waves(delta, half, max_period):
    """The mean cosine of all frequencies at a distance."""
    return np.mean([np.cos(delta * max_period ** (-i / half)) for i in range(half)], axis=0)


def curve(explorer):
    return np.asarray(axes(explorer)[1].lines[0].get_ydata(), dtype=float)


def phases(explorer, which):
    """Cosine and sine of the 8 phases: of the other timestep (1) or of t (2)."""
    x, y = (np.asarray(z, dtype=float).reshape(8, 3) for z in axes(explorer)[0].lines[which].get_data())
    return x[:, 1] - x[:, 0], y[:, 1]


@pytest.mark.parametrize(
    "t, other, dim, max_period", [(300, 320, 256, 1e4), (0, 999, 16, 10.0), (999, 5, 64, 1e5)]
)
def test_phases_and_similarity(explorer, t, other, dim, max_period):
    explorer.set(t=t, other=other, dim=dim, max_period=max_period)
    half = dim // 2
    assert np.allclose(curve(explorer), waves(np.arange(1000) - t, half, max_period), atol=1e-3)
    for which, step in ((1, other), (2, t)):
        angles = [step * max_period ** (-round(i * (half - 1) / 7) / half) for i in range(8)]
        assert np.allclose(phases(explorer, which), [np.cos(angles), np.sin(angles)], atol=1e-3)
    dots = {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in axes(explorer)[1].lines[1:3]}
    assert dots == {t: pytest.approx(1, abs=1e-5), other: pytest.approx(curve(explorer)[other])}
    assert f"{curve(explorer)[other]:.2f}" in axes(explorer)[0].get_title()


def test_one_step_turns_only_the_fast_phases(explorer):
    explorer.controls["other"].value = 301
    turned = [
        abs(a - b) for a, b in zip(*(np.unwrap(np.arctan2(*phases(explorer, w)[::-1])) for w in (1, 2)))
    ]
    assert turned[0] % (2 * math.pi) > 0.9 and turned[-1] % (2 * math.pi) < 0.001
    assert "similarity 0.97" in axes(explorer)[0].get_title()


def test_few_frequencies_make_distant_timesteps_similar(explorer):
    far = np.abs(np.arange(1000) - 300) > 100
    assert curve(explorer)[far].max() < 0.5
    explorer.set(dim=16)
    assert round(curve(explorer)[far].max(), 2) == 0.72
    assert axes(explorer)[1].get_ylim() == (-0.8, 1.15)  # and the full curve is inside
    for max_period in (10.0, 100.0, 1000.0, 1e4, 1e5):
        assert curve(explorer.set(max_period=max_period)).min() > -0.8


def test_timesteps_from_0_to_1_all_look_the_same(explorer):
    right = curve(explorer)
    explorer.set(wrong=True)
    assert curve(explorer).min() > 0.97 > right.min() + 0.5
    x, y = axes(explorer)[0].lines[0].get_data()  # all phases
    angles = np.arctan2(
        np.asarray(y, float), np.asarray(x, float) - np.round(np.asarray(x, float) / 2.7 - 0.3) * 2.7
    )
    assert np.abs(angles).max() < 1.01  # radians: less than a sixth of a turn
    assert is_wrong(axes(explorer)[0].title)


def test_own_timestep_embedding():
    def sines_first(t, dim, max_period):
        angles = t[:, None].double() * max_period ** (-torch.arange(dim // 2) / (dim // 2))
        return torch.cat([angles.sin(), angles.cos()], 1)

    right, mirrored = explore_timestep(), explore_timestep(sines_first)
    assert np.allclose(phases(mirrored, 2), phases(right, 2)[::-1], atol=1e-3)
    assert np.allclose(curve(mirrored), curve(right), atol=1e-3)
    with pytest.raises(ValueError, match=r"\(1000, 128\) for 1000 timesteps, but must return \(1000, 256\)"):
        explore_timestep(lambda t, dim, max_period: sines_first(t, dim // 2, max_period))
