"""Real handwritten digits, your own photographs, and the range that everything after this relies on."""

import torch
from torch import Tensor

from dit_nb.data import ImageSet


class IdealDenoiser:
    "The model that no training can beat on its own images: it knows them all by heart. Call it like a DiT."

    def __init__(
        self,
        data: ImageSet,  # what it knows
        alphas_cumprod: Tensor,  # (T,) of the full diffusion process
    ):
        self.data, self.alphas_cumprod = data, alphas_cumprod
        self.null_class = len(data.class_names)

    def expect_x0(
        self,
        x: Tensor,  # (N, C, H, W) noisy images
        t: Tensor,  # (N,) timesteps
        y: Tensor | None = None,  # (N,) labels; None or the null class: any image will do
    ) -> Tensor:  # (N, C, H, W)
        "The mean of the known images, each weighted by how likely it is to have become x."
        known, flat = self.data.images.flatten(1).double(), x.flatten(1).double()  # (M, CHW), (N, CHW)
        bar = self.alphas_cumprod[t].double()[:, None]  # (N, 1)
        # The square, multiplied out; |x|^2 is the same for all known images, so it may go.
        distances = bar * (known**2).sum(1) - 2 * bar.sqrt() * (flat @ known.T)  # (N, M)
        logits = -distances / (2 * (1 - bar))  # (N, M)
        if y is not None:
            wrong = (self.data.labels[None] != y[:, None]) & (y[:, None] != self.null_class)
            logits = logits.masked_fill(wrong, -torch.inf)
        return (logits.softmax(dim=1) @ known).view_as(x).to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:  # (N, 2C, H, W)
        "The noise that follows from the expected image; variance values halfway (0)."
        bar = self.alphas_cumprod[t].to(x.dtype).view(-1, 1, 1, 1)
        eps = (x - bar.sqrt() * self.expect_x0(x, t, y)) / (1 - bar).sqrt()
        return torch.cat([eps, torch.zeros_like(eps)], dim=1)
