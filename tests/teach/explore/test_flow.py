"""The explorer of lesson 30, against the library's sampler and the formulas of densities."""

import numpy as np
import pytest
import torch

from dit_nb.since.flow import RectifiedFlow, flow_sample, flow_time
from dit_nb.teach.explore.flow import _SHIFTS, _STARTS, _density, _two_modes, explore_flow
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_flow()


def shown_error(axes):
    return float(axes[1].get_title().split()[-1])


def trajectories(axes):
    """Times and values of the sampler's trajectories, (steps + 1, starts)."""
    lines = axes[1].lines[len(_STARTS) :]
    return lines[0].get_xdata(), np.stack([line.get_ydata() for line in lines], 1)


@pytest.mark.parametrize("step", ["euler", "heun"])
@pytest.mark.parametrize("alpha", [value for _, value in _SHIFTS])
def test_trajectories_are_those_of_the_library(explorer, at, step, alpha):
    times, found = trajectories(at(explorer, step=step, alpha=alpha, steps=4))
    x_T, seen = torch.tensor(_STARTS, dtype=torch.float64)[:, None], []
    flow = RectifiedFlow(shift=alpha).respaced(4)
    end = flow_sample(flow, _two_modes, x_T.shape, step=step, x_T=x_T, callback=seen.append, progress=False)
    np.testing.assert_allclose(times, flow.times, atol=1e-12)
    np.testing.assert_allclose(found, torch.stack([*(one.x_t for one in seen), end])[:, :, 0], atol=1e-12)


@pytest.mark.parametrize("alpha", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("density", ["uniform", "logit-normal", "diffusion"])
def test_densities_integrate_to_1_and_have_the_mean_of_the_samples(density, alpha):
    logits = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    values = _density(density, alpha, logits)
    assert torch.trapezoid(values, logits).item() == pytest.approx(1, abs=0.01)
    if density == "diffusion":
        from dit_nb.objective import Diffusion

        samples = flow_time(Diffusion().alphas_cumprod).logit()
    else:
        flow = RectifiedFlow(density.replace("-", "_"), alpha)
        samples = flow.sample_times(100_000, torch.Generator().manual_seed(0)).double().logit()
    assert torch.trapezoid(values * logits, logits).item() == pytest.approx(float(samples.mean()), abs=0.05)


def test_experiments(explorer, at):
    plain = shown_error(at(explorer))
    shifted, much = shown_error(at(explorer, alpha=3.0)), shown_error(at(explorer, alpha=6.0))
    assert plain < shifted < much
    axes = at(explorer, alpha=3.0, is_double=True)
    assert shown_error(axes) > 2 * shifted and axes[1].lines[-1].get_color() == COLORS["wrong"]
    times, _ = trajectories(axes)
    np.testing.assert_allclose(times, RectifiedFlow(shift=9.0).respaced(8).times, atol=1e-12)
    assert shown_error(at(explorer, step="heun", steps=32)) < shown_error(at(explorer, steps=32)) / 2


def test_own_shift(at):
    times, _ = trajectories(at(explore_flow(lambda t, factor: t), alpha=6.0, steps=4))
    np.testing.assert_allclose(times, [1, 0.75, 0.5, 0.25, 0])
