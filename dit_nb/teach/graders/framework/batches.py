"""What the checks of lessons 14 to 16 share: batches of images in unlucky shapes, and one coefficient for each."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.exercise import Draw


def one_by_one(f: Callable, t: Tensor, *images: Tensor) -> Tensor:
    "f(t, image, ...) for each image of a batch."
    return torch.stack([f(step, *each) for step, *each in zip(t.tolist(), *images)])


def per_image(table: Tensor, t: Tensor) -> Tensor:
    "(N, 1, 1, 1) entries of a table."
    return table[t].reshape(-1, 1, 1, 1)


def bars(num_timesteps: int = 1000) -> Tensor:
    "The signal's share for linear betas from 0.0001 to 0.02."
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64), 0)


SHAPES = [(4, 3, 5, 4), (3, 1, 2, 6), (2, 2, 2, 2)]  # as many images as columns; more columns; all alike


NOT_SPREAD = (
    "The coefficients of the batch land on the columns of each image: where both are equally many, "
    "that runs without a word."
)


RESHAPE = "lesson 14, 'One coefficient for each image'."


def times(draw: Draw, n: int, limit: int) -> Tensor:
    "Timesteps, all different, among them 0."
    t = torch.randperm(limit - 1, generator=draw.generator)[:n] + 1
    t[int(draw.whole(0, n))] = 0
    return t
