"""The explorer of lesson 17, against the library's samplers."""

import numpy as np
import pytest
import torch

from dit_nb.few_steps import dpm_solver_sample, respaced_by_log_snr
from dit_nb.objective import Diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.teach.explore.few_steps import _COUNTS, _STARTS, _two_modes, explore_few_steps
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_few_steps()


def at(explorer, **values):
    """The axes with some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and explorer.figure.alt_text
    return figure.axes


def shown_errors(axes):
    """The error of each combination, by its label."""
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes[1].lines}


def test_trajectories_are_those_of_the_library(explorer):
    x_T = torch.tensor(_STARTS, dtype=torch.float64).view(-1, 1, 1, 1)
    for solver, sample in (("DDIM", ddim_sample), ("DPM++", dpm_solver_sample)):
        axes, seen = at(explorer, solver=solver, steps=8), []
        sample(
            respaced_by_log_snr(Diffusion(), 8),
            _two_modes,
            x_T.shape,
            x_T=x_T,
            callback=seen.append,
            progress=False,
        )
        ours = np.stack([step.x_t.flatten().numpy() for step in seen], 1)
        drawn = np.stack([line.get_ydata() for line in axes[0].lines[len(_STARTS) :]])
        np.testing.assert_allclose(drawn, ours, atol=1e-9)


def test_experiments(explorer):
    errors = shown_errors(at(explorer))
    doubled = {name: values[-2] / values[-1] for name, values in errors.items()}  # 24 and 48 steps
    assert 1.8 < doubled["DDIM, log SNR"] < 2.6 and 3.5 < doubled["DPM++, log SNR"] < 5
    i = _COUNTS.index(8)
    assert errors["DPM++, t"][i] > errors["DDIM, t"][i] > errors["DPM++, log SNR"][i]
    axes = at(explorer, solver="DPM++", steps=48, is_backwards=True)
    backwards = shown_errors(axes)
    assert backwards["DPM++, log SNR"][-1] > errors["DDIM, log SNR"][-1]
    assert axes[0].lines[-1].get_color() == COLORS["wrong"]
    ends = np.array([line.get_ydata()[-1] for line in axes[0].lines[len(_STARTS) :]])
    assert (np.abs(np.abs(ends) - 0.8) < 0.3).all()  # near the modes all the same


def test_own_step():
    def still(diffusion, prediction, x_t, t, noise, last_x0=None):
        return x_t

    axes = at(explore_few_steps(still), steps=5)
    assert np.ptp(axes[0].lines[-1].get_ydata()) == 0
