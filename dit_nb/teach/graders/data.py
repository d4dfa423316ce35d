"""Grader of lesson 01: from bytes to the model's range."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_to_model_range"]


def _to_model_range_loops(images: Tensor) -> Tensor:
    n, h, w, c = images.shape
    result = torch.empty(n, c, h, w, dtype=torch.float64)
    for k in range(n):
        for i in range(h):
            for j in range(w):
                for channel, byte in enumerate(images[k, i, j].tolist()):
                    result[k, channel, i, j] = (byte - (255 - byte)) / 255
    return result


def _byte_cases(rng: RandomInputs) -> list[Case]:
    """Colors and grays; dark images without white; square ones, in which exchanged axes raise no error."""
    found = []
    for shape, high in [((2, 3, 4, 3), 256), ((3, 4, 4, 1), 200), ((2, 3, 3, 3), 120)]:
        images = rng.integers(0, high, *shape)
        images[0, 0, 0, 0], images[0, 0, 1, 0] = 0, high - 1
        label = "{} images of {}x{}x{}".format(*shape) + f", bytes below {high}" * (high < 256)
        found.append(Case(label, (images.to(torch.uint8),)))
    return found


def _moved(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).double()


def _values(change: Callable) -> Callable:
    """Other numbers, in the right places."""
    return lambda images: change(_moved(images))


def _in_uint8(change: Callable) -> Callable:
    """Arithmetic on bytes before they become floating-point numbers."""
    return lambda images: change(images.permute(0, 3, 1, 2))


def _extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)


def _own_range(x: Tensor) -> Tensor:
    low, high = _extremes(x)
    return (x - low) / (high - low) * 2 - 1


def _imagenet(x: Tensor) -> Tensor:
    mean, std = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    return (x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


_WRAPS = "It computes with bytes, which start again at 0 after 255: make them floating-point numbers first."
_WRAPS_BELOW = (
    "It subtracts from bytes, which have no negative numbers: make them floating-point numbers first."
)
_FLOAT_HINT = "what uint8 can hold."

_TO_MODEL_RANGE = Exercise(
    "to_model_range",
    _to_model_range_loops,
    _byte_cases,
    {
        "The values run from 0 to 1; they should run from -1 to 1.": _values(lambda x: x / 255),
        "The bytes are divided as if there were 256 of them up to the end: 255 must become exactly 1.": (
            _values(lambda x: x / 128 - 1)
        ),
        "The values run from 0 to 1, and nearly: the bytes are divided by 256.": _values(lambda x: x / 256),
        "The values run from -0.5 to 0.5.": _values(lambda x: x / 255 - 0.5),
        "The values run from 0 to 2: something is to be subtracted.": _values(lambda x: x / 127.5),
        "The bytes are centered, but not scaled.": _values(lambda x: x - 127.5),
        "2 x - 1 belongs to values from 0 to 1; it is applied to bytes.": _values(lambda x: 2 * x - 1),
        "1 is subtracted before the division.": _values(lambda x: (x - 1) / 127.5),
        "Black and white are exchanged.": _values(lambda x: 1 - x / 127.5),
        "The bytes are only moved; their values must change too.": _values(lambda x: x),
        "Each image is scaled to its own darkest and brightest byte; black must be -1 in all images.": (
            _values(_own_range)
        ),
        "All is divided by the largest byte that occurs; white is 255, whether it occurs or not.": (
            _values(lambda x: 2 * x / x.max() - 1)
        ),
        "Each image gets mean 0 and variance 1; the line through (0, -1) and (255, 1) is the same for all.": (
            _values(lambda x: (x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), keepdim=True))
        ),
        "All numbers get mean 0 and variance 1; the line through (0, -1) and (255, 1) is the same for any images.": (
            _values(lambda x: (x - x.mean()) / x.std())
        ),
        "Each channel gets mean 0 and variance 1; the line through (0, -1) and (255, 1) is the same for any images.": (
            _values(lambda x: (x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), keepdim=True))
        ),
        "These are ImageNet's means and deviations, which classifiers use.": _values(_imagenet),
        "A whole-number division leaves only a few values.": (
            _values(lambda x: x // 127.5 - 1),
            "the difference between / and //.",
        ),
        _WRAPS: (_in_uint8(lambda x: (2 * x) / 255 - 1), _FLOAT_HINT),
        _WRAPS_BELOW: (_in_uint8(lambda x: (x - 128) / 127.5), _FLOAT_HINT),
        "The numbers have the right shape and are not in their places: reshape does not move them.": (
            lambda images: images.reshape(_moved(images).shape).double() / 127.5 - 1,
            "permute, instead of reshape or view.",
        ),
        "Height and width are exchanged.": _values(lambda x: x.transpose(2, 3) / 127.5 - 1),
        "1 is subtracted from values of 0 to 1, so they run from -1 to 0.": _values(lambda x: x / 255 - 1),
        "The values run from -2 to 0.": _values(lambda x: x / 127.5 - 2),
        "The middle is right, but the distance from it is divided by 128: white does not reach 1.": _values(
            lambda x: (x - 127.5) / 128
        ),
        "The middle and half of the range are taken as 127; white goes beyond 1.": _values(
            lambda x: (x - 127) / 127
        ),
        "The middle is taken as 128, and half of the range as 127: black goes below -1.": _values(
            lambda x: (x - 128) / 127
        ),
        "The middle is right, but the distance from it is divided by 127: black and white go beyond -1 and 1.": _values(
            lambda x: (x - 127.5) / 127
        ),
        "Half of the range is right, but the middle is taken as 128: black goes below -1, white does not reach 1.": _values(
            lambda x: (x - 128) / 127.5
        ),
        "Half of the range is right, but the middle is taken as 127: black does not reach -1, white goes beyond 1.": _values(
            lambda x: (x - 127) / 127.5
        ),
        "128 is subtracted, and the difference divided by the whole range: the values run from -0.5 to 0.5.": _values(
            lambda x: (x - 128) / 255
        ),
        "The values go through a tanh; the line through (0, -1) and (255, 1) is straight.": _values(
            lambda x: (x / 127.5 - 1).tanh()
        ),
    },
    "lesson 01, 'Why the range matters'.",
    tolerance=1e-6,
)


def check_to_model_range(fn: Callable, **grade_options) -> Report:
    """Check fn(images (N, H, W, C) uint8) -> (N, C, H, W) in [-1, 1]."""
    return grade(_TO_MODEL_RANGE, fn, **grade_options)
