"""Parts of a data set: its labels, held-out images, class-balanced sampling, and a fingerprint of its content."""

import hashlib

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from dit_nb.batches import ImageData
from dit_nb.errors import UserError
from dit_nb.utils import seeded_generator

__all__ = ["balance_classes", "hold_out"]

_MOST_HASHED = 200_000_000  # bytes of images that a fingerprint reads: about 0.3 s


def _data_labels(data: ImageData) -> Tensor | None:
    """Return the labels of a data set without reading its images, (N,) long; None if it does not know them.

    Args:
        data: a data set with `labels`, or a `Subset` or `ConcatDataset` of such
    """
    if isinstance(data, Subset):
        labels = _data_labels(data.dataset)
        return None if labels is None else labels[torch.as_tensor(list(data.indices))]
    if isinstance(data, ConcatDataset):
        parts = [_data_labels(part) for part in data.datasets]
        return None if any(part is None for part in parts) else torch.cat(parts)
    labels = getattr(data, "labels", None)
    return labels if isinstance(labels, Tensor) else None


def hold_out(data: ImageData, fraction: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Split a data set at random into images to train on and held-out images, the same for the same seed.

    Of each class, the same fraction is held out, at least one image, but not the last one.

    Args:
        data: the data set
        fraction: part of the images to hold out, between 0 and 1
        seed: seed of the choice

    Raises:
        UserError: if the fraction is not between 0 and 1, or nothing could be held out
    """
    _check_random_access(data)
    if not 0 < fraction < 1:
        raise UserError(f"fraction is {fraction}, but must be between 0 and 1.")
    held = torch.zeros(len(data), dtype=torch.bool)
    for members in _members_by_class(data):
        order = members[torch.randperm(len(members), generator=seeded_generator(seed, len(members)))]
        held[order[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    if not held.any():
        raise UserError(
            f"data has {len(data)} images, but must have more to hold out a fraction of {fraction}."
        )
    return Subset(data, (~held).nonzero()[:, 0].tolist()), Subset(data, held.nonzero()[:, 0].tolist())


def balance_classes(data: ImageData) -> Subset:
    """Repeat the images of smaller classes, so that an epoch has as many images of each class as of the largest.

    Args:
        data: a data set whose labels are known

    Raises:
        UserError: if it has no classes
    """
    _check_random_access(data)
    if _data_labels(data) is None:
        raise UserError("data has no classes, but must have some to be balanced.")
    groups = _members_by_class(data)
    largest = max(map(len, groups))
    return Subset(
        data, [int(i) for group in groups for i in group.repeat(-(-largest // len(group)))[:largest]]
    )


def _check_random_access(data: ImageData) -> None:
    if getattr(data, "streamed", False):
        raise UserError("data is a stream, which has no random access: use another split, or unpack it.")


def _members_by_class(data: ImageData) -> list[Tensor]:
    "Indices of the images of each class that has some; all in one group if there are no classes."
    labels = _data_labels(data)
    if labels is None:
        return [torch.arange(len(data))]
    order = labels.argsort(stable=True)
    return [part for part in order.split(torch.bincount(labels).tolist()) if len(part)]


def _data_fingerprint(data: ImageData) -> str | None:
    """Return a hash that tells other images from the same ones, or None for data sets that offer none.

    Args:
        data: a data set with a `fingerprint`, an `ImageSet`, or a `Subset` or `ConcatDataset` of such
    """
    own = getattr(data, "fingerprint", None)
    if own is not None:
        return own
    if isinstance(data, Subset):
        return _hash_texts(_data_fingerprint(data.dataset), [int(i) for i in data.indices])
    if isinstance(data, ConcatDataset):
        return _hash_texts(*map(_data_fingerprint, data.datasets))
    images, labels = getattr(data, "images", None), getattr(data, "labels", None)
    if not (isinstance(images, Tensor) and isinstance(labels, Tensor)) or not len(images):
        return None
    content = hashlib.blake2b(digest_size=8)  # three times as fast as SHA-256
    for part in _some_images(images).split(1000):
        content.update(part.cpu().float().numpy().tobytes())
    content.update(labels.cpu().numpy().tobytes() + str(tuple(images.shape)).encode())
    return content.hexdigest()


def _some_images(images: Tensor) -> Tensor:
    "All images of a set of up to 200 MB; of a larger one as many, spread evenly over it."
    most = max(64, _MOST_HASHED // max(1, images[0].numel() * 4))
    if len(images) <= most:
        return images
    return images[torch.linspace(0, len(images) - 1, most, dtype=torch.float64).long()]


def _hash_texts(*parts) -> str | None:
    "Hash of several parts; None if one of them is unknown."
    return None if None in parts else hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
