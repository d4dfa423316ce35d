"""The explorer of lesson 02, against the densities of a normal distribution."""

import numpy as np
import pytest
import torch

from dit_nb import Diffusion
from dit_nb.data import digits
from dit_nb.teach.explore.oracle import explore_ideal_denoiser
from dit_nb.utils import randn
from support_explorers import axes, is_wrong, pixels


@pytest.fixture(scope="module")
def shared():
    return explore_ideal_denoiser()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


TRAIN, BAR = digits().train, Diffusion().alphas_cumprod


def mixed(digit, t, seed):
    """The digit with noise, from the formula."""
    clean = TRAIN.images[TRAIN.labels == digit][0]
    noise = randn((1, 1, 8, 8), torch.Generator().manual_seed(seed))[0]
    return float(BAR[t].sqrt()) * clean + float((1 - BAR[t]).sqrt()) * noise


def weights(noisy, t):
    """Posterior of each image, from the log density of a normal distribution."""
    law = torch.distributions.Normal(BAR[t].sqrt() * TRAIN.images.double(), (1 - BAR[t]).sqrt())
    return law.log_prob(noisy.double()).sum((1, 2, 3)).softmax(0)


def bars(explorer):
    return np.array([bar.get_height() for bar in axes(explorer)[3].patches]) / 100


@pytest.mark.parametrize("digit, t, seed", [(3, 300, 0), (0, 999, 4), (8, 50, 20)])
def test_images_and_posterior(explorer, digit, t, seed):
    explorer.set(digit=digit, t=t, seed=seed)
    noisy = mixed(digit, t, seed)
    of_images = weights(noisy, t)
    expected = torch.einsum("m,mchw->chw", of_images, TRAIN.images.double())
    for ax, image in zip(axes(explorer)[1:3], (noisy, expected)):
        assert np.allclose(pixels(ax), (image[0].clamp(-1, 1) + 1) / 2, atol=1e-4)
    of_classes = [float(of_images[TRAIN.labels == k].sum()) for k in range(10)]
    assert np.allclose(bars(explorer), of_classes, atol=1e-4) and abs(bars(explorer).sum() - 1) < 1e-6


def test_the_prediction_turns_from_the_mean_of_all_to_the_digit(explorer):
    mean = (TRAIN.images.mean(0)[0] + 1) / 2
    assert np.abs(pixels(axes(explorer.set(t=999))[2]) - mean.numpy()).max() < 0.03
    assert np.abs(pixels(axes(explorer.set(t=50))[2]) - pixels(axes(explorer)[0])).max() < 1e-3


def test_another_noise_hides_the_digit(explorer):
    assert round(bars(explorer)[3], 2) == 0.86
    assert round(bars(explorer.set(seed=10))[3], 2) == 0.08
    of_images = torch.stack([weights(mixed(3, 300, k), 300) for k in range(21)])
    found = torch.stack([of_images[:, TRAIN.labels == k].sum(1) for k in range(10)], 1).numpy()
    assert round(found[:, 3].mean(), 2) == 0.56 and (found.argmax(1) == 3).sum() == 15


def test_without_roots_less_of_the_image_is_left(explorer):
    assert round(bars(explorer.set(t=400))[3], 2) == 0.45 and not is_wrong(axes(explorer)[1].title)
    assert round(bars(explorer.set(wrong=True))[3], 2) == 0.24 and is_wrong(axes(explorer)[1].title)
    assert "RMS 0.90" in axes(explorer)[1].get_title()
