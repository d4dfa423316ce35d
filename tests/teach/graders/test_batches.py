"""Batches of images for the graders of the diffusion process."""

import pytest
import torch

from dit_nb.schedule import linear_betas
from dit_nb.teach.graders.framework.batches import (
    _SHAPES,
    _linear_alphas_cumprod,
    _one_by_one,
    _per_image,
    _timesteps,
)
from dit_nb.teach.graders.framework.exercise import RandomInputs

TABLE = torch.linspace(0.9, 0.1, 50, dtype=torch.float64)


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_each_image_gets_its_own_coefficient(shape):
    rng = RandomInputs(shape)
    x, t = rng.normal(*shape), _timesteps(rng, shape[0], 50)
    expected = torch.einsum("n,nchw->nchw", TABLE[t], x)
    assert torch.equal(_per_image(TABLE, t) * x, expected)
    assert torch.equal(_one_by_one(lambda step, image: TABLE[step] * image, t, x), expected)


def test_some_shapes_hide_coefficients_without_axes():
    """Where N = W, the coefficients of the batch are applied to the columns, and no error is raised."""
    silent = [shape for shape in _SHAPES if shape[0] == shape[3]]
    assert len(silent) == 2
    for shape in silent:
        x, t = torch.ones(shape).double(), torch.arange(shape[0])
        assert (TABLE[t] * x).shape == shape and not torch.equal(TABLE[t] * x, _per_image(TABLE, t) * x)


def test_alphas_cumprod_is_that_of_the_linear_schedule():
    torch.testing.assert_close(_linear_alphas_cumprod(), (1 - linear_betas()).log().cumsum(0).exp())


def test_timesteps_differ_and_zero_is_at_any_place():
    places = set()
    for seed in range(60):
        t = _timesteps(RandomInputs(seed), 4, 12).tolist()
        assert len(set(t)) == 4 and 0 <= min(t) <= max(t) < 12
        places.add(t.index(0))
    assert places == {0, 1, 2, 3}
