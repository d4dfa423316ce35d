"""The explorer of prediction targets, against closed forms."""

import numpy as np
import pytest
import torch

from dit_nb.teach.explore.targets import _TIMES, _errors, explore_targets
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_targets()


def at(explorer, **values):
    """The errors against time by target, and those against the width, with some settings."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and figure.alt_text
    return [{line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines} for ax in figure.axes]


def test_errors_are_those_of_the_closed_form(explorer):
    """Data with variance 1 on a plane: its velocity has the error 1 / power there; what is left out has 1 each."""
    t, dimensions, width = _TIMES.numpy(), 32, 8
    errors, _ = at(explorer, dimensions=dimensions, width=width)
    plane = 1 / ((1 - t) ** 2 + t**2)
    # With 200 samples a mean of 200 x 30 squares has a standard error of about 2 %; that of 400 about 7 %.
    np.testing.assert_allclose(errors["image"], 2 * plane / dimensions, rtol=0.3)
    missing = dimensions - width
    np.testing.assert_allclose(errors["noise"] * (1 - t) ** 2, missing / dimensions, rtol=0.15)
    assert (errors["velocity"] > missing / dimensions * 0.9).all()


def test_experiments(explorer):
    errors, _ = at(explorer, width=128)
    for name in ("noise", "velocity"):
        np.testing.assert_allclose(errors[name], errors["image"], rtol=1e-6)
    narrow, _ = at(explorer, width=2)
    np.testing.assert_allclose(narrow["image"], errors["image"], rtol=1e-6)
    assert narrow["noise"].mean() > 10 * narrow["velocity"].mean() > 100 * narrow["image"].mean()
    wrong, _ = at(explorer, width=128, is_swapped=True)
    assert explorer.figure.axes[0].lines[0].get_color() == COLORS["wrong"]
    np.testing.assert_allclose(wrong["velocity"], errors["velocity"])
    assert (
        wrong["noise"].mean() > 5 * errors["noise"].mean()
        and wrong["image"].mean() > 5 * errors["image"].mean()
    )


def test_own_conversion():
    zero = _errors(lambda prediction, x_t, t, predicts: torch.zeros_like(x_t), 8, 4, False)
    assert torch.equal(zero["noise"], zero["image"]) and zero["image"].min() > 0.8
    assert explore_targets(lambda prediction, x_t, t, predicts: prediction).error.value == ""
