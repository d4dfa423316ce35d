"""The explorer of lesson 16, against recorded standard deviations."""

import math

import numpy as np
import pytest

from dit_nb.sampling import ddpm_step
from dit_nb.teach.explore.sampling import _BUGS, explore_sampler
from dit_nb.visual import COLORS

sampler = explore_sampler()


def at(explorer, **values):
    """The axes with some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and explorer.figure.alt_text
    return figure.axes


def spread_of(axes):
    """The standard deviation in the title, and that of the drawn histogram."""
    counts, edges, _ = axes[1].patches[-1].get_data()
    middle = (edges[1:] + edges[:-1]) / 2
    mean = (counts * middle).sum() / counts.sum()
    drawn = math.sqrt((counts * (middle - mean) ** 2).sum() / counts.sum())
    return float(axes[1].get_title().split()[1].rstrip(",")), drawn


@pytest.mark.parametrize(
    "steps, small, large", [(1000, 0.297, 0.302), (250, 0.287, 0.304), (50, 0.251, 0.322), (10, 0.163, 0.441)]
)
def test_recorded_standard_deviations(steps, small, large):
    for name, wanted in (("fixed_small", small), ("fixed_large", large), ("learned", 0.29983)):
        exact, drawn = spread_of(at(sampler, steps=steps, variance=name))
        assert exact == pytest.approx(wanted, abs=2e-3) and drawn == pytest.approx(wanted, rel=0.04)


def test_paths_of_1000_steps():
    axes = at(sampler, steps=1000, variance="learned")
    x, y = axes[0].lines[0].get_data()
    paths = y.reshape(30, -1)[:, :-1]
    assert x[0] == 999 and paths.shape == (30, 51) and np.isfinite(paths).all()
    assert abs(paths[:, 0].std() - 1) < 0.35 and abs(paths[:, -1].mean() - 0.5) < 0.2


@pytest.mark.parametrize("bug, broad", zip(_BUGS[1:4], (0.0034, 1.0035, 0.0540)))
def test_bugs_have_fingerprints(bug, broad):
    axes = at(sampler, steps=50, bug=bug)
    assert spread_of(axes)[0] == pytest.approx(broad, rel=0.02) and bug in axes[0].get_title()
    assert axes[0].lines[0].get_color() == COLORS["wrong"]
    assert spread_of(at(sampler, steps=50, bug=bug, s=0.0))[0] < 1e-4  # invisible for a point mass


def test_noise_at_the_end_shows_only_for_a_point():
    stds = {}
    for s in (0.0, 0.3):
        for bug in ("none", _BUGS[4]):
            stds[s, bug] = spread_of(at(sampler, steps=1000, variance="fixed_large", s=s, bug=bug))[0]
    assert stds[0.0, "none"] == 0 and stds[0.0, _BUGS[4]] == pytest.approx(0.01, abs=1e-4)
    assert abs(stds[0.3, _BUGS[4]] - stds[0.3, "none"]) < 5e-4


def test_experiments():
    narrow, wide, right = (
        spread_of(at(sampler, variance=v))[0] for v in ("fixed_small", "fixed_large", "learned")
    )
    assert narrow < 0.2 and wide > 0.4 and right == pytest.approx(0.3, abs=1e-3)
    axes = at(sampler, sampler="DDIM")
    paths = axes[0].lines[0].get_ydata().reshape(30, -1)[:, :-1]
    assert (np.diff(paths[paths[:, 0].argsort()], axis=0) >= 0).all()  # no crossing
    assert spread_of(axes)[0] < 0.2
    assert spread_of(at(sampler, sampler="DDIM", steps=250))[0] == pytest.approx(0.294, abs=3e-3)


def test_own_step():
    def half(diffusion, prediction, x_t, t, noise):
        return ddpm_step(diffusion, prediction, x_t, t, noise / 2)

    def bent(diffusion, prediction, x_t, t, noise):
        return ddpm_step(diffusion, prediction, x_t, t, noise).clamp(-0.1, 0.1)

    mine = explore_sampler({"half": half, "bent": bent})
    assert spread_of(at(mine))[0] < spread_of(at(sampler))[0]
    mine.set(sampler="bent")
    assert "not affine" in mine.error.value and "half" in mine.figure.axes[0].get_title()
