"""Order of the data and noise of each training step, as functions of the seed and the step."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.utils import seeded_generator

__all__ = ["Batches", "StepNoise", "sample_step_noise"]


class Batches:
    """Infinite batch sampler: the indices of each update, in a new order each epoch, without gaps between epochs.

    Args:
        n: number of images in the data set
        batch_size: images per update, over all processes
        seed: seed of the orders
        first_step: updates that are done already
        rank: index of this process
        world_size: number of processes that share each batch
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world_size: int = 1
    ):
        self.n, self.batch_size, self.seed, self.first_step = n, batch_size, seed, first_step
        self.rank_slice = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)

    def order(self, epoch: int) -> Tensor:
        """Return the order of one epoch: a permutation of all indices, (n,)."""
        return torch.randperm(self.n, generator=seeded_generator(self.seed, 0, epoch))

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first_step * self.batch_size
        epoch, position = divmod(start, self.n)
        rest = self.order(epoch)[position:]
        while True:
            while len(rest) < self.batch_size:
                epoch += 1
                rest = torch.cat([rest, self.order(epoch)])
            yield rest[: self.batch_size][self.rank_slice].tolist()
            rest = rest[self.batch_size :]


class StepNoise(NamedTuple):
    """All random numbers of one training step, for a batch or for a part of it."""

    t: Tensor  # (N,) timesteps, 0 to T - 1
    noise: Tensor  # (N, C, H, W) standard normal noise
    drop: Tensor  # (N,) bool, labels to drop
    flip: Tensor  # (N,) bool, images to mirror
    posterior: Tensor | None = None  # (N, C, H, W) standard normal, to sample latents with (lesson 20)

    def select(self, which: slice | Tensor, device: torch.device | None = None) -> "StepNoise":
        """Return the numbers of some images of the batch.

        Args:
            which: positions of the images in the batch
            device: device of the result; the current one by default
        """
        return StepNoise(*(None if a is None else a[which].to(device) for a in self))


def sample_step_noise(
    seed: int,
    step: int,
    shape: tuple[int, ...],
    num_timesteps: int,
    dropout_prob: float,
    posterior: bool = False,
) -> StepNoise:
    """Sample the random numbers of one step, the same on every device and for any number of processes.

    Args:
        seed: seed of the run
        step: updates done
        shape: (N, C, H, W) of the batch over all processes
        num_timesteps: T of the diffusion
        dropout_prob: probability of dropping a label
        posterior: whether the data are latents, which are sampled again in each step
    """
    rng, n = seeded_generator(seed, 1, step), shape[0]
    return StepNoise(
        t=torch.randint(num_timesteps, (n,), generator=rng),
        noise=torch.randn(shape, generator=rng),
        drop=torch.rand(n, generator=rng) < dropout_prob,
        flip=torch.rand(n, generator=rng) < 0.5,
        posterior=torch.randn(shape, generator=rng) if posterior else None,  # last: the others do not change
    )
