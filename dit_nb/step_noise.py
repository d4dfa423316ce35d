"""One readable loop: draw luck, predict, step, average."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.utils import seeded


class Batches:
    "Which images each update sees: all of them in a new order each epoch, cut into batches without gaps."

    def __init__(
        self,
        n: int,  # images in the data set
        batch_size: int,  # images per update, over all processes
        seed: int,
        first_step: int = 0,  # where to go on
        rank: int = 0,  # this process
        world: int = 1,  # processes that share each batch
    ):
        self.n, self.batch_size, self.seed, self.first_step = n, batch_size, seed, first_step
        self.part = slice(rank * batch_size // world, (rank + 1) * batch_size // world)

    def order(self, epoch: int) -> Tensor:
        "The order of one epoch."
        return torch.randperm(self.n, generator=seeded(self.seed, 0, epoch))

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first_step * self.batch_size
        epoch, position = divmod(start, self.n)
        rest = self.order(epoch)[position:]
        while True:
            while len(rest) < self.batch_size:
                epoch += 1
                rest = torch.cat([rest, self.order(epoch)])
            yield rest[: self.batch_size][self.part].tolist()
            rest = rest[self.batch_size :]


class Draws(NamedTuple):
    "All the luck of one update, for the whole batch."

    t: Tensor  # (N,) timesteps
    noise: Tensor  # (N, C, H, W)
    drop: Tensor  # (N,) bool, labels to hide
    flip: Tensor  # (N,) bool, images to mirror
    posterior: Tensor | None = None  # (N, C, H, W) for latents, which are drawn anew each time (lesson 20)

    def part(
        self,
        which: slice,  # of the batch
        device: torch.device | None = None,  # where it is needed
    ) -> "Draws":
        "The luck of some of the images."
        return Draws(*(None if a is None else a[which].to(device) for a in self))


def draw(
    seed: int,
    step: int,  # updates done
    shape: tuple[int, ...],  # (N, C, H, W) of the batch over all processes
    num_timesteps: int,  # T
    dropout_prob: float,  # share of labels to hide
    posterior: bool = False,  # whether the data are latents
) -> Draws:
    "A function of seed and step alone: the same on every device and for any number of processes."
    rng, n = seeded(seed, 1, step), shape[0]
    return Draws(
        t=torch.randint(num_timesteps, (n,), generator=rng),
        noise=torch.randn(shape, generator=rng),
        drop=torch.rand(n, generator=rng) < dropout_prob,
        flip=torch.rand(n, generator=rng) < 0.5,
        posterior=torch.randn(shape, generator=rng) if posterior else None,  # last: the others do not change
    )
