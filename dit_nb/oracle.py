"""Ideal denoiser: the exact posterior mean of a finite set of images, to be called like a DiT."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dit_nb.data import ImageSet

__all__ = ["IdealDenoiser"]


class IdealDenoiser:
    """Model with the smallest possible noise error on a data set of images, in closed form.

    Args:
        data: images, their labels and class names
        alphas_cumprod: fraction of signal power at each original timestep, (T,)
    """

    def __init__(self, data: "ImageSet", alphas_cumprod: Tensor):
        self.data, self.alphas_cumprod = data, alphas_cumprod
        self.null_class = len(data.class_names)

    def expected_x0(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Compute the posterior mean E[x_0 | x_t]: images weighted by their probability of having become x.

        Args:
            x: noisy images, (N, C, H, W)
            t: timesteps, (N,)
            y: labels, (N,); None or the null class allows images of all classes
        """
        known, flat = self.data.images.flatten(1).double(), x.flatten(1).double()  # (M, CHW), (N, CHW)
        bar = self.alphas_cumprod[t].double()[:, None]  # (N, 1)
        # |x - sqrt(bar) known|^2, without |x|^2, which is the same for all images and cancels in the softmax.
        distances = bar * (known**2).sum(1) - 2 * bar.sqrt() * (flat @ known.T)  # (N, M)
        logits = -distances / (2 * (1 - bar))  # (N, M)
        if y is not None:
            other_class = (self.data.labels[None] != y[:, None]) & (y[:, None] != self.null_class)
            logits = logits.masked_fill(other_class, -torch.inf)
        return (logits.softmax(dim=1) @ known).view_as(x).to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        "Return the eps that belongs to `expected_x0`, then variance values of 0, together (N, 2C, H, W)."
        bar = self.alphas_cumprod[t].to(x.dtype).view(-1, 1, 1, 1)
        eps = (x - bar.sqrt() * self.expected_x0(x, t, y)) / (1 - bar).sqrt()
        return torch.cat([eps, torch.zeros_like(eps)], dim=1)
