"""The explorer of latents: its figure against the codec and the schedule."""

import numpy as np
import pytest
import torch

from dit_nb.data import sample_photo
from dit_nb.latents import LatentCodec
from dit_nb.schedule import linear_betas
from dit_nb.teach.explore.latents import _ablate_channel, _PatchVAE, explore_latents

PHOTO = sample_photo("china.jpg")
BAR = torch.cumprod(1 - linear_betas(1000), dim=0)


@pytest.fixture(scope="module")
def codec():
    return LatentCodec(_PatchVAE(PHOTO))


@pytest.fixture
def explorer():
    return shared.reset()


shared = explore_latents()


def image_of(explorer):
    """The decoded image or the difference, as drawn."""
    return np.asarray(explorer.figure.axes[0].images[0].get_array())


def dot(explorer):
    """Position of the dot: timestep, and signal-to-noise ratio."""
    (t,), (height,) = explorer.figure.axes[2].lines[-1].get_data()
    return t, 10**height


def test_linear_autoencoder_is_optimal(codec):
    z = codec.encode(PHOTO, sample=False)
    assert z.shape == (1, 4, 24, 32)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(4), atol=1e-2), "each channel has the std of the noise"
    patches = PHOTO.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48).numpy()
    values = np.linalg.eigvalsh(np.cov(patches, rowvar=False, ddof=0))
    lost = (codec.decode(z) - PHOTO).square().mean().item()
    # Decoded images are clamped to [-1, 1], which can only reduce the error.
    assert 0.95 * values[:-4].sum() / 48 < lost <= 1.001 * values[:-4].sum() / 48


def test_without_noise_the_decoded_photograph_is_drawn(explorer, codec):
    explorer.set(t=0)
    near = codec.decode(codec.encode(PHOTO, sample=False))[0].permute(1, 2, 0).numpy()
    assert np.abs(image_of(explorer) - (near + 1) / 2).mean() < 0.01
    explorer.set(residual=True)
    missing = (PHOTO[0].permute(1, 2, 0).numpy() - near).mean(-1)
    assert np.abs(image_of(explorer) - missing).mean() < 0.01


def test_dot_is_the_ratio_at_t(explorer):
    for t in (0, 300, 999):
        explorer.set(t=t)
        at, ratio = dot(explorer)
        assert at == t and abs(ratio / float(BAR[t] / (1 - BAR[t])) - 1) < 0.02


def test_experiment_1_the_photograph_emerges(explorer, codec):
    noisy, (_, right) = image_of(explorer), dot(explorer)
    explorer.set(unscaled=True)
    clear, (_, wrong) = image_of(explorer), dot(explorer)
    near = (codec.decode(codec.encode(PHOTO, sample=False))[0].permute(1, 2, 0).numpy() + 1) / 2
    unlike = [1 - np.corrcoef(seen.ravel(), near.ravel())[0, 1] for seen in (clear, noisy)]
    assert unlike[0] < 0.1 * unlike[1]
    assert abs(wrong / right * 0.18215**2 - 1) < 1e-4, "the square of 1 / scale"
    assert explorer.figure.axes[2].title.get_color() == "#D55E00"


def test_experiment_2_each_channel_carries_something(explorer):
    explorer.set(t=0)
    full, light = image_of(explorer), []
    for channel in (1, 2, 3, 4):
        explorer.set(ablated=channel)
        assert np.abs(image_of(explorer) - full).mean() > 0.005
        sheet = np.asarray(explorer.figure.axes[1].images[0].get_array())
        row, column = divmod(channel - 1, 2)
        flat = sheet[25 * row : 25 * row + 24, 33 * column : 33 * column + 32]  # with gaps of one
        assert np.ptp(flat) < 1e-6 and np.nanmax(sheet) - np.nanmin(sheet) > 1
        light.append(np.corrcoef(image_of(explorer).mean(-1).ravel(), full.mean(-1).ravel())[0, 1])
    coarse = image_of(explorer.set(ablated=1)).mean(-1).reshape(24, 4, 32, 4).mean((1, 3))
    before = full.mean(-1).reshape(24, 4, 32, 4).mean((1, 3))
    assert coarse.std() < 0.2 * before.std(), "without the first, hardly any light and dark"
    assert light[0] < min(light[1:])


def test_experiment_3_the_residual_is_smaller_than_a_patch(explorer):
    explorer.set(t=0, residual=True)
    lost = image_of(explorer)
    inside = lost.reshape(24, 4, 32, 4).mean((1, 3))
    assert inside.std() < 0.3 * lost.std(), "the means of the patches are kept"


def test_another_codec_and_image():
    image = sample_photo("flower.jpg", (40, 64))
    explorer = explore_latents(LatentCodec(_PatchVAE(image, channels=2), scale=1.0), image)
    assert len(explorer.controls["ablated"].options) == 3
    explorer.set(t=0, unscaled=True)
    assert image_of(explorer).shape == (40, 64, 3)


def test_ablation_keeps_the_other_channels():
    x = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    y = _ablate_channel(x, 2)
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]]) and torch.all(y[:, 1] == x[:, 1].mean())
    assert torch.equal(_ablate_channel(x, 0), x)
