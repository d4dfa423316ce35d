"""The explorer of lesson 35, against integrals of the velocity."""

import numpy as np
import pytest
import torch

from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.teach.explore.meanflow import _COUNTS, _STARTS, _average_velocity, _velocity, explore_meanflow
from dit_nb.visual import COLORS

STARTS = torch.tensor(_STARTS, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def explorer():
    return explore_meanflow()


def shown_path(axes):
    """The jumps that are drawn, (steps + 1, starts)."""
    return np.stack([line.get_ydata() for line in axes[0].lines[len(_STARTS) :]], 1)


def shown_errors(axes):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes[1].lines}


def test_the_exact_trajectories_solve_the_differential_equation(explorer, at):
    """Heun's method in 400 steps, with the library's sampler; the velocity is the posterior mean's."""
    flow = RectifiedFlow().respaced("400")

    def model(x, t, y):
        return _velocity(x, t / 1000)

    ends = flow_sample(flow, model, STARTS.shape, x_T=STARTS, step="heun", progress=False).flatten()
    drawn = [line.get_ydata()[-1] for line in at(explorer)[0].lines[: len(_STARTS)]]
    np.testing.assert_allclose(drawn, ends, atol=2e-3)


def test_the_velocity_is_that_of_a_large_sample():
    rng = np.random.default_rng(0)
    modes, t = np.where(rng.random(400_000) < 1 / 3, -0.8, 0.8), 0.7
    x0 = modes + 0.12 * rng.standard_normal(400_000)
    noise = rng.standard_normal(400_000)
    near = np.abs((1 - t) * x0 + t * noise - 0.3) < 0.02
    ours = _velocity(torch.full((1, 1, 1, 1), 0.3).double(), torch.tensor([t]).double())
    assert float(ours) == pytest.approx((noise - x0)[near].mean(), abs=0.04)  # of about 9000 samples


def test_steps_by_the_velocity_are_the_librarys(explorer, at):
    flow = RectifiedFlow().respaced("4")

    def model(x, t, y):
        return _velocity(x, t / 1000)

    want = flow_sample(flow, model, STARTS.shape, x_T=STARTS, progress=False).flatten()
    axes = at(explorer, kind="velocity at t", steps=4)
    np.testing.assert_allclose(shown_path(axes)[-1], want, atol=1e-9)


def test_experiments(explorer, at):
    errors = shown_errors(at(explorer))
    assert errors["average velocity"].max() <= 1e-6 and errors["velocity at t"][-1] > 0.01
    one = shown_path(at(explorer, kind="velocity at t", steps=1))[-1]
    assert one == pytest.approx(
        np.full(len(_STARTS), (2 / 3 - 1 / 3) * 0.8), abs=1e-9
    )  # the mean of the data
    axes = at(explorer, kind="average velocity", steps=2, is_wrong=True)
    wrong = shown_errors(axes)["average velocity"]
    assert wrong[0] <= 1e-6 and wrong[1:].min() > 0.01
    assert axes[0].lines[-1].get_color() == COLORS["wrong"]


def test_the_average_at_equal_times_is_the_velocity():
    t = torch.full((len(STARTS),), 0.6).double()
    near = _average_velocity(STARTS, t, t - 1e-5)
    assert float((near - _average_velocity(STARTS, t, t)).abs().max()) < 1e-3


def test_own_jumps(at):
    axes = at(explore_meanflow(lambda average, x_T, times: x_T), steps=_COUNTS[2])
    assert np.ptp(shown_path(axes), axis=0).max() == 0
