"""Batches of any map-style data set: their order, as a function of the seed and the step, and how they are read."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import default_collate

from dit_nb.errors import UserError
from dit_nb.utils import seeded_generator

__all__ = ["BatchReader", "Batches"]


class BatchReader:
    """Read whole batches of a map-style data set: `BatchReader(data)(indices)` is images (B, C, H, W), labels (B,).

    A data set that has a method `get_batch(indices)` reads a batch by itself; of others the samples are collated.

    Args:
        data: data set with a length, and data[i] -> image (C, H, W), label
    """

    def __init__(self, data):
        self.data = data

    def __call__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Read the samples with these indices."""
        if hasattr(self.data, "get_batch"):
            return self.data.get_batch(indices)
        batch = default_collate([self.data[i] for i in indices])
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise UserError(
                f"data[i] is a {type(self.data[indices[0]]).__name__}, but must be image and label."
            )
        return tuple(batch)

    __getitems__ = __call__  # what a DataLoader with a batch sampler calls

    def __len__(self) -> int:
        return len(self.data)


def _rank_slice(batch_size: int, rank: int, world_size: int) -> slice:
    "Part of each batch that one process takes."
    return slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)


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
        self.rank_slice = _rank_slice(batch_size, rank, world_size)

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
