"""Helpers for the graders of lessons 14 to 16: batches of images, timesteps, and their coefficients."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.exercise import RandomInputs

__all__ = []

# (N, C, H, W): N = W and all sizes equal, where wrong broadcasting raises no error, and N < W, where it does
_SHAPES = [(4, 3, 5, 4), (3, 1, 2, 6), (2, 2, 2, 2)]
_BROADCAST_OVER_COLUMNS = (
    "The coefficients of the batch are applied to the columns of each image: if N equals the width, "
    "that raises no error."
)
_BROADCAST_HINT = "lesson 14, 'One coefficient for each image'."


def _one_by_one(f: Callable, t: Tensor, *images: Tensor) -> Tensor:
    """Return f(t, image, ...) for each image of a batch."""
    return torch.stack([f(step, *each) for step, *each in zip(t.tolist(), *images)])


def _per_image(table: Tensor, t: Tensor) -> Tensor:
    """Return table[t] as (N, 1, 1, 1)."""
    return table[t].reshape(-1, 1, 1, 1)


def _linear_alphas_cumprod(num_timesteps: int = 1000) -> Tensor:
    """Return alphas_cumprod for linear betas from 0.0001 to 0.02."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64), 0)


def _timesteps(rng: RandomInputs, n: int, limit: int) -> Tensor:
    """Return n different timesteps below limit, among them 0."""
    t = torch.randperm(limit - 1, generator=rng.generator)[:n] + 1
    t[int(rng.integers(0, n))] = 0
    return t
