"""Arguments of rectified flow that do not fit are named."""

import math

import pytest
import torch

from dit_nb import Diffusion
from dit_nb.since.flow import RectifiedFlow, flow_sample
from support import raises_input_error, tiny_model

FULL = Diffusion()


def same(x, t, y=None):
    """A model that returns its input."""
    return x


def test_input_errors():
    flow, x = RectifiedFlow(), torch.zeros(2, 1, 2, 2)
    t = torch.tensor([0.2, 0.4])
    for density in ("mode", (0.0, 0.0), (1.0,), (0.0, float("nan")), None):
        with raises_input_error("density is"):
            RectifiedFlow(density)
    for shift in (0, -1.0, "3", math.inf):
        with raises_input_error("shift is"):
            RectifiedFlow(shift=shift)
    for times in ([1.0], [0.5, 0.7, 0.0], [1.0, 0.5], [2.0, 0.0], [math.nan, 0.0]):
        with raises_input_error("times is"):
            RectifiedFlow(times=torch.tensor(times))
    for spec in ("ddim50", "0", 0, "10,20", 2.5):
        with raises_input_error("steps is"):
            flow.respaced(spec)
    for bad in (torch.tensor([5, 6]), torch.tensor([0.2]), torch.tensor([0.2, 400.0]), 0.5):
        with raises_input_error("t (is|holds)"):
            flow.training_losses(same, x, bad)
    with raises_input_error(r"noise has shape \(1, 1, 2, 2\)"):
        flow.training_losses(same, x, t, noise=x[:1])
    with raises_input_error(r"model returned shape \(2, 1, 1, 2\)"):
        flow.training_losses(lambda x, t, y: x[:, :, :1], x, t)


@pytest.mark.parametrize(
    "words, changes",
    [
        ("flow is", {"flow": FULL}),
        ("model is", {"model": 3}),
        ("step is", {"step": "dpm"}),
        ("step is", {"step": 2}),
        ("shape is", {"shape": (2,)}),
        ("shape is", {"shape": (2, -1, 2, 2)}),
        ("x_T is", {"x_T": torch.zeros(1, 1, 2, 2)}),
        ("y is", {"y": torch.arange(3)}),
        ("clip_x0 is", {"clip_x0": 1}),
        ("callback is", {"callback": 1}),
        ("progress is", {"progress": 1}),
    ],
)
def test_input_errors_of_the_sampler(words, changes):
    arguments = {"flow": RectifiedFlow().respaced(2), "model": same, "shape": (2, 1, 2, 2), "progress": False}
    with raises_input_error(words):
        flow_sample(**{**arguments, **changes})


def test_training_mode_is_an_error():
    with raises_input_error(r"train\(\) mode"):
        flow_sample(RectifiedFlow(), tiny_model().train(), (1, 3, 4, 6), torch.tensor([0]))
