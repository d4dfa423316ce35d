"""Batches of any map-style data set: their order, as a function of the seed and the step, and how they are read."""

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset, default_collate

from dit_nb.errors import UserError, _shown
from dit_nb.image_range import _LARGEST, _LARGEST_PIXEL, _check_values, _is_unit_range, _wrong_range
from dit_nb.utils import seeded_generator

__all__ = ["BatchReader", "Batches", "ImageData"]


class ImageData(Protocol):
    """What a data set for training must have: a length, and data[i]. `Subset`, `ConcatDataset`, ... will do.

    It may also have `class_names`; `get_batch(indices)`, which reads images and labels of a batch at once; and, if
    its images are moments of latents, `sample_latents` and `vae` (see `dit_nb.latent_cache.LatentImages`).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, Any]:
        "Return an image (C, H, W) in [-1, 1], and its label or other condition."
        ...


def _find_attribute(data, name: str) -> Any:
    "An attribute of a data set, or of the one inside a `Subset` or `ConcatDataset`; None if there is none."
    if hasattr(data, name):
        return getattr(data, name)
    inside = [data.dataset] if hasattr(data, "dataset") else list(getattr(data, "datasets", ()))
    return _find_attribute(inside[0], name) if inside else None


def _as_index(i, n: int) -> int:
    """The index of one of `n` images, from 0 up, given as an integer of any type, also counted from the end.

    Raises:
        IndexError: if there is no such image; this ends a loop `for image, label in data`
        UserError: if it is no integer
    """
    try:
        number = operator.index(i)
    except TypeError:
        raise UserError(
            f"index is {_shown(i)}, but must be an integer: use torch.utils.data.Subset for several images."
        ) from None
    if not -n <= number < n:
        raise IndexError(f"index is {number}, but data has {n} images.")
    return number % n


class _Indices(list):
    "Indices of a batch, with the key of each image's random numbers: a run that is resumed gets the same ones."

    def __init__(self, indices: Sequence[int], keys: Sequence[tuple[int, ...]]):
        super().__init__(indices)
        self.keys = list(keys)


def _uniform(indices: Sequence[int], n: int) -> Tensor:
    "Random numbers for the images of a batch, (B, n) in [0, 1): by their keys, or from the global random state."
    if not isinstance(indices, _Indices):
        return torch.rand(len(indices), n)
    return torch.stack([torch.rand(n, generator=seeded_generator(*key)) for key in indices.keys])


class BatchReader:
    """Read whole batches of a map-style data set: `BatchReader(data)(indices)` is images (B, C, H, W), labels (B,).

    A data set that has a method `get_batch(indices)` reads a batch by itself; of others the samples are collated.

    Args:
        data: the data set
        num_classes: number of classes, K, if the labels must be in [0, K)
        largest: largest absolute value of the images, if they must be finite and not beyond it
    """

    def __init__(self, data: ImageData, num_classes: int | None = None, largest: float | None = None):
        self.data, self.num_classes, self.largest = data, num_classes, largest

    def __call__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Read the samples with these indices: images (B, C, H, W) and labels (B,).

        Raises:
            UserError: if an image or a label is out of range, or data[i] is no image and label
        """
        images, labels = self._read(indices)
        if self.num_classes is not None:
            _check_labels(labels, self.num_classes)
        if self.largest is not None:
            _check_batch(images, indices, self.largest)
        return images, labels

    def _read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        data, indices = _inside_subset(self.data, indices)
        if hasattr(data, "get_batch"):
            return data.get_batch(indices)
        batch = _collate([data[i] for i in indices])
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise UserError(f"data[i] is a {type(data[indices[0]]).__name__}, but must be image and label.")
        return tuple(batch)

    __getitems__ = __call__  # what a DataLoader with a batch sampler calls

    def __len__(self) -> int:
        return len(self.data)


def _inside_subset(data, indices: Sequence[int]) -> tuple[Any, Sequence[int]]:
    "The data set inside a `Subset`, and the indices there."
    while type(data) is Subset:
        if getattr(data.dataset, "streamed", False):
            raise UserError(
                "data is a Subset of a stream, but must have random access: choose another split."
            )
        inside = [int(data.indices[i]) for i in indices]
        indices = _Indices(inside, indices.keys) if isinstance(indices, _Indices) else inside
        data = data.dataset
    return data, indices


def _collate(samples: list) -> Any:
    "PyTorch's `default_collate`, or a UserError that names what cannot be stacked."
    try:
        return default_collate(samples)
    except (TypeError, RuntimeError):
        images = [sample[0] if isinstance(sample, list | tuple) else sample for sample in samples]
        odd = next((image for image in images if not isinstance(image, Tensor)), None)
        wanted = "an image of one shape (C, H, W), a tensor in [-1, 1]"
        if odd is not None:
            raise UserError(
                f"data[i] has a {type(odd).__name__}, but must have {wanted}, and a label."
            ) from None
        shapes = " and ".join(map(str, sorted({tuple(image.shape) for image in images})[:2]))
        raise UserError(f"data has images of {shapes}, but each must be {wanted}, with a label.") from None


def _largest_value(data, channels: int) -> float:
    "Largest absolute value of images to train on: of pixels, of latents, or of a data set of moments, which has none."
    if _find_attribute(data, "sample_latents") is not None:
        return math.inf
    return _LARGEST_PIXEL if channels in (1, 3) else _LARGEST


def _check_batch(images, indices: Sequence[int], largest: float) -> None:
    "Raise a UserError for images that would spoil training. On a GPU, whose values would have to be waited for: none."
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise UserError(f"data has images of {kind}, but must have floating point numbers in [-1, 1].")
    if images.device.type == "cpu":
        _check_values(images, "data", indices, largest)


def _check_first_images(data, shape: tuple[int, ...], looked_at: int = 16) -> None:
    """Raise a UserError if the first images have another shape (C, H, W), or values that cannot be in [-1, 1].

    If all of them are in [0, 1], others are read, too. Files are scaled by this package: they may be bright.
    """
    if _find_attribute(data, "sample_latents") is not None:
        return
    read = BatchReader(data, largest=_largest_value(data, shape[0]))
    images = read(list(range(min(len(data), looked_at))))[0]
    if tuple(images.shape[1:]) != tuple(shape):
        raise UserError(
            f"data has images of shape {tuple(images.shape[1:])}, but must have the model's {shape}."
        )
    limits = [float(bound) for bound in images.aminmax()]
    if _is_unit_range(*limits) and _find_attribute(data, "place") is None:
        spots = torch.linspace(0, len(data) - 1, 4 * looked_at).long().unique().tolist()
        limits = [float(bound) for bound in torch.cat([images, read(spots)[0]]).aminmax()]
        if _is_unit_range(*limits):
            raise UserError(_wrong_range("data", *limits))


def _check_labels(labels, num_classes: int) -> None:
    "Raise a UserError for a label that is none; `num_classes` itself would train the null class."
    wanted = f"[0, {num_classes - 1}] for num_classes {num_classes}"
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim != 1:
        kind = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else repr(labels)[:40]
        raise UserError(f"data has labels {kind}, but must have one integer in {wanted} for each image.")
    if len(labels) and not (0 <= labels.min() and labels.max() < num_classes):
        label = int(labels.max() if labels.min() >= 0 else labels.min())
        raise UserError(f"data has label {label}, but must have labels in {wanted}.")


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
        rest, step = self.order(epoch)[position:], self.first_step
        while True:
            while len(rest) < self.batch_size:
                epoch += 1
                rest = torch.cat([rest, self.order(epoch)])
            places = range(self.batch_size)[self.rank_slice]
            keys = [(self.seed, 4, step, place) for place in places]
            yield _Indices(rest[: self.batch_size][self.rank_slice].tolist(), keys)
            rest, step = rest[self.batch_size :], step + 1
