"""The ideal denoiser against a loop over its images."""

import math

import pytest
import torch

from dit_nb import Diffusion
from dit_nb.data import ImageSet
from dit_nb.oracle import IdealDenoiser
from gaussian_chain import normal
from support import relative

BAR = Diffusion().alphas_cumprod
DATA = ImageSet(normal(5, 1, 2, 3).float().clamp(-1, 1), torch.tensor([0, 0, 1, 1, 2]), ("a", "b", "c"))


def posterior_mean_loop(x, t, y):
    bar, total, mean = BAR[t].item(), 0.0, torch.zeros(1, 2, 3, dtype=torch.float64)
    for image, label in zip(DATA.images.double(), DATA.labels.tolist()):
        if y in (None, 3, label):
            weight = math.exp(-((x - math.sqrt(bar) * image) ** 2).sum().item() / (2 * (1 - bar)))
            total, mean = total + weight, mean + weight * image
    return mean / total


@pytest.mark.parametrize("labels", [None, [0, 1, 2], [3, 3, 0]])
def test_posterior_mean_is_the_loop(labels):
    x, t = normal(3, 1, 2, 3, seed=1), torch.tensor([50, 400, 999])
    y = None if labels is None else torch.tensor(labels)
    got = IdealDenoiser(DATA, BAR).expected_x0(x, t, y)
    want = [posterior_mean_loop(x[i], t[i], None if labels is None else labels[i]) for i in range(3)]
    assert relative(got, torch.stack(want)) < 1e-9


def test_output_is_the_eps_of_the_posterior_mean():
    model, diffusion = IdealDenoiser(DATA, BAR), Diffusion()
    x, t = normal(3, 1, 2, 3, seed=1), torch.tensor([50, 400, 999])
    prediction = diffusion.p_mean_variance(model, x, t)
    assert relative(prediction.x0, model.expected_x0(x, t)) < 1e-9
    assert not model(x, t)[:, 1:].any() and model.null_class == 3


def test_one_image_is_always_recovered():
    single = ImageSet(DATA.images[:1], DATA.labels[:1], ("a",))
    got = IdealDenoiser(single, BAR).expected_x0(normal(4, 1, 2, 3), torch.tensor([0, 10, 500, 999]))
    assert relative(got, single.images.expand(4, -1, -1, -1)) < 1e-6
