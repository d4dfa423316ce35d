"""Autoencoders for tests: one with an exact inverse, and a small untrained one of diffusers."""

from types import SimpleNamespace

import torch
from torch import nn

from dit_nb.data import ImageSet

DOWNSAMPLING, CHANNELS = 2, 5  # of the linear autoencoder


class LinearVAE(nn.Module):
    """An autoencoder that can be inverted by hand: each 2x2 patch of 3 channels, 12 numbers, times a matrix.

    Of the 12 results, the first 5 are kept; decoding is exact for images whose other 7 are zero.
    """

    def __init__(self, scaling_factor=0.25, shift_factor=None):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(12, 12, generator=rng))[0])
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
            in_channels=3,
            latent_channels=CHANNELS,
            block_out_channels=(8, 8),
        )

    def encode(self, images):
        patches = nn.functional.pixel_unshuffle(images, DOWNSAMPLING)
        mean = torch.einsum("nkhw,kc->nchw", patches, self.matrix[:, :CHANNELS])
        std = 0.1 + mean.abs() / 10  # differs from place to place, and for the mirror image
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))

    def decode(self, latents):
        patches = torch.einsum("nchw,kc->nkhw", latents, self.matrix[:, :CHANNELS])
        return SimpleNamespace(sample=nn.functional.pixel_shuffle(patches, DOWNSAMPLING))


def linear_images(n=7, height=8, width=12, seed=0):
    """Images that the linear autoencoder keeps without loss: H != W, and no symmetry."""
    rng = torch.Generator().manual_seed(seed)
    patches = torch.randn(n, CHANNELS, height // DOWNSAMPLING, width // DOWNSAMPLING, generator=rng) / 10
    return LinearVAE().decode(patches).sample.detach()


def linear_image_set(n=7, classes=("china", "flower"), **options):
    return ImageSet(linear_images(n, **options), torch.arange(n) % len(classes), classes)


def tiny_vae(seed=0, **changes):
    """A real AutoencoderKL, small and untrained."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {"block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4, "sample_size": 16}
    return AutoencoderKL(**{**levels, **shape, **changes})
