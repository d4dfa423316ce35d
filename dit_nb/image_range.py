"""Checks of the values of images: floating point numbers, finite, and in [-1, 1] rather than bytes or [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dit_nb.errors import UserError

__all__ = []

_LARGEST = 10.0  # latents and interpolated images leave [-1, 1]; bytes, 0 to 255, go beyond this
_LARGEST_PIXEL = 1.5  # of images to train on: interpolation leaves [-1, 1] by less


def _check_range(x: Tensor, name: str = "images") -> None:
    "Raise a UserError unless `x` is images (N, C, H, W), whose values may be in [-1, 1]."
    check = _RangeCheck(name)
    check.add(x)
    check.finish()


def _check_float_images(x, name: str) -> None:
    "Raise a UserError unless `x` is a floating point tensor (N, C, H, W)."
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4:
        kind = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        cure = ": scale them to [-1, 1], x / 127.5 - 1" if getattr(x, "dtype", None) == torch.uint8 else ""
        raise UserError(
            f"{name} is {kind}, but must be a floating point tensor (N, C, H, W) in [-1, 1]{cure}."
        )


def _check_values(
    x: Tensor, name: str, numbers: Sequence[int], largest: float = _LARGEST
) -> tuple[float, float]:
    """Return the lowest and the highest value of a batch; raise a UserError if one is not finite, or too large.

    Args:
        x: (N, ...)
        name: argument that holds the images
        numbers: N numbers of the images, for the message
        largest: largest absolute value that is accepted
    """
    if not x.numel():
        return math.inf, -math.inf
    low, high = (bound.item() for bound in x.aminmax())  # NaN if there is one
    if not -math.inf < low <= high < math.inf:
        bad = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise UserError(f"{name} holds NaN or infinity, first in image {numbers[bad]}.")
    if max(-low, high) > largest:
        worst = x.flatten(1).abs().amax(1).argmax()
        low, high = (bound.item() for bound in x[worst].aminmax())
        raise UserError(_wrong_range(name, low, high, f" in image {numbers[worst]}" if len(x) > 1 else ""))
    return low, high


def _is_unit_range(low: float, high: float) -> bool:
    "Whether many images with these lowest and highest values are most likely in [0, 1]."
    return 0 <= low < high and high > 0.5


def _wrong_range(name: str, low: float, high: float, where: str = "") -> str:
    "A sentence on values that are outside [-1, 1], or in [0, 1]."
    cure = ": pass x / 127.5 - 1" if high > _LARGEST else ": pass 2 * x - 1" if high <= _LARGEST_PIXEL else ""
    cure = cure if low >= 0 else ""
    return f"{name} has values from {low:g} to {high:g}{where}, but must be in [-1, 1]{cure}."


def _check_no_bytes(x, name: str) -> None:
    "Raise a UserError for images to be shown that are bytes. A sample that has diverged has negative values, too."
    if isinstance(x, Tensor) and x.numel():
        low, high = (float(bound) for bound in x.detach().aminmax())
        if x.dtype == torch.uint8 or (low >= 0 and high > _LARGEST):
            raise UserError(
                f"{name} has values from {low:g} to {high:g} of {x.dtype}, but must be in [-1, 1]: pass x / 127.5 - 1."
            )


class _RangeCheck:
    "The check of `_check_range` for images that come in batches: call `add` with each, and `finish` after the last."

    def __init__(self, name: str):
        self.name, self.done, self.low, self.high = name, 0, math.inf, -math.inf

    def add(self, x: Tensor) -> None:
        """Check a batch (N, C, H, W)."""
        _check_float_images(x, self.name)
        low, high = _check_values(x, self.name, range(self.done, self.done + len(x)))
        self.low, self.high, self.done = min(self.low, low), max(self.high, high), self.done + len(x)

    def finish(self) -> None:
        """Raise a UserError if all images together seem to be in [0, 1]."""
        if _is_unit_range(self.low, self.high):
            raise UserError(_wrong_range(self.name, self.low, self.high))
