"""The explorer of lesson 15, against the KL divergence of Gaussians in numpy."""

import math

import numpy as np
import pytest

from dit_nb.objective import learned_log_variance
from dit_nb.teach.explore.objective import _digit_model_errors, explore_variance
from dit_nb.visual import COLORS

variance = explore_variance()


def kl_bits(mean, spread):
    """KL from N(0, 1) to N(mean, spread^2), in bits."""
    return (math.log(spread) + (1 + mean**2) / 2 / spread**2 - 0.5) / math.log(2)


@pytest.fixture
def step(abar):
    """Function of t and steps: true standard deviation, gap of the logs, factor from eps to mean; t must be kept."""

    def by_numpy(t, steps):
        bar = abar()
        kept = {1000: list(range(1000)), 10: [111 * i for i in range(10)]}[steps]
        now, before = bar[t], bar[kept[kept.index(t) - 1]]
        beta = 1 - now / before
        small = beta * (1 - before) / (1 - now)
        return small**0.5, math.log(beta / small), beta / ((1 - now) ** 0.5 * (1 - beta) ** 0.5)

    return by_numpy


@pytest.mark.parametrize("t, steps", [(1, 1000), (20, 1000), (500, 1000), (555, 10)])
@pytest.mark.parametrize("v, error", [(-1.0, 0.5), (0.0, -1.0), (1.5, 0.0)])
def test_kl_is_drawn(t, steps, v, error, at, step):
    sd, gap, factor = step(t, steps)
    axes = at(variance, t=t, steps=steps, v=v, error=error)
    mean, spread = factor * error / sd, math.exp((v + 1) / 4 * gap)
    bits = float(axes[0].get_title().split("KL ")[1].removesuffix(" bits"))
    assert bits == pytest.approx(kl_bits(mean, spread), rel=6e-3, abs=1e-12)
    x, y = axes[0].lines[1].get_data()
    assert np.allclose(y, np.exp(-(((x - mean) / spread) ** 2) / 2) / spread / (2 * np.pi) ** 0.5, atol=1e-6)
    row, column = round((v + 1.5) / 3 * 60), round((error + 1.2) / 2.4 * 80)
    shade = float(axes[1].images[0].get_array()[row, column])
    near = kl_bits(factor * (column / 80 * 2.4 - 1.2) / sd, math.exp((row / 60 * 3 - 0.5) / 4 * gap))
    assert shade == pytest.approx(max(math.log10(max(near, 1e-30)), -9), abs=1e-4)


def descent(axes):
    """Minus the gradient of the bound, as the title has it: for eps, and for v."""
    eps, v = axes[1].get_title().split(": ")[1].split(", ")
    return float(eps.split()[1]), float(v.split()[1])


def test_best_v_and_descent(at, step):
    sd, _, factor = step(1, 1000)
    axes = at(variance)
    error, v = axes[1].lines[0].get_data()
    best = 2 * np.log(1 + (factor * error / sd) ** 2) / step(1, 1000)[1] - 1
    assert np.nanmax(np.abs(v - best)) < 0.06 and np.isfinite(v).sum() > 60
    tip = axes[1].texts[-1].xy  # the head of the arrow
    assert tip[0] == pytest.approx(0.6) and tip[1] > -0.7 and descent(axes)[0] == 0 < descent(axes)[1]


def test_without_detach_the_noise_is_trained(at, step):
    found = {no_detach: descent(at(variance, no_detach=no_detach)) for no_detach in (False, True)}
    assert found[False][0] == 0 and found[True][0] < -0.5 and found[True][1] == found[False][1]
    sd, gap, factor = step(1, 1000)
    slope = (factor / sd) ** 2 * 0.6 / math.exp(0.1 * gap) / math.log(2)
    assert found[True][0] == pytest.approx(-slope, rel=0.02)
    axes = at(variance, no_detach=True)
    assert axes[1].texts[-1].xy[0] < 0.2 and axes[1].title.get_color() == COLORS["wrong"]


def test_experiments(at, step):
    first = abs(descent(at(variance))[1])
    assert abs(descent(at(variance, v=-0.1))[1]) < 0.2 * first  # at the minimum
    error, v = _digit_model_errors()[1]
    sd, gap, factor = step(1, 1000)
    assert abs(2 * math.log(1 + (factor * error / sd) ** 2) / gap - 1 - v) < 0.2  # and so is the digit model
    axes = at(variance, t=20, steps=50)
    star = [float(a[0]) for a in axes[1].lines[-1].get_data()]
    e, best = axes[1].lines[0].get_data()
    assert star[1] < best[np.abs(e - star[0]).argmin()] - 0.5  # far below the minimum for 50 steps
    ratio = descent(at(variance, no_detach=True))[0] / descent(at(variance, no_detach=True, t=100))[0]
    assert 30 < ratio < 60


def test_own_log_variance(at):
    swapped = explore_variance(lambda values, low, high: learned_log_variance(values, high, low))
    ours, theirs = (at(e, v=-1.0, error=0.0)[0].get_title() for e in (variance, swapped))
    assert float(ours.split()[4]) < 1e-6 < 0.01 < float(theirs.split()[4])
