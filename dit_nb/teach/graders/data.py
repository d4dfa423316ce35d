"""Graders of lesson 01: from bytes to the model's range, and images whose range is unknown."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_to_model_range", "check_normalize_range"]


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


_UNIT, _MODEL, _BYTES = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)  # darkest and brightest value


def _normalize_range_by_fit(images: Tensor) -> Tensor:
    """Take the range whose ends are nearest to those of the batch, in units of its width."""
    numbers = images.flatten().tolist()
    darkest, brightest = min(numbers), max(numbers)

    def misfit(ends: tuple[float, float]) -> float:
        return max(abs(darkest - ends[0]), abs(brightest - ends[1])) / (ends[1] - ends[0])

    low, high = min((_UNIT, _MODEL, _BYTES), key=misfit)
    return images.new_tensor([((v - low) - (high - v)) / (high - low) for v in numbers]).view_as(images)


_NOT_EXACT = (
    "It is right if black and white lie exactly at the ends of the range, but resizing may have moved them by up to "
    "2 % of its width."
)


def _unknown_cases(rng: RandomInputs) -> list[Case]:
    """Three ranges; black and white at the ends, beyond them, and short of them.

    The second channel has neither black nor white, nor has the first image in the first six cases.
    """
    ends = [(_MODEL, 0, 1), (_UNIT, 0, 1), (_BYTES, 0, 1), (_MODEL, -0.015, 1.012), (_UNIT, -0.015, 1.012)]
    ends += [(_BYTES, -0.015, 1.012), (_MODEL, 0.015, 0.985), (_UNIT, -0.012, 0.985), (_BYTES, 0.015, 0.985)]
    cases = []
    for (low, high), black, white in ends:
        share = rng.uniform(0.06, 0.94, 3, 3, 4, 5)  # 0 is black, 1 is white
        share[1:] /= 1 + (black > 0)  # dark images
        one_sided = share / 300 if high == 255 else 0.5 + share / 4  # all dark, or all bright
        share[0] = share[0] if black > 0 else one_sided[0]
        share[:, 1] = one_sided[:, 1]
        share[1, 0, 0, 0], share[2, 2, 3, 4] = black, white
        label = f"[{low:g}, {high:g}], black at {black:.1%} and white at {white:.1%}"
        cases.append(Case(label, (low + share * (high - low),), _NOT_EXACT * (black != 0)))
    return cases


def _scaled(images: Tensor, ends: tuple[float, float]) -> Tensor:
    return 2 * (images - ends[0]) / (ends[1] - ends[0]) - 1


def _ends(images: Tensor) -> tuple[float, float]:
    """A right decision."""
    return _BYTES if images.max() > 2 else _MODEL if images.min() < -0.5 else _UNIT


def _decided(ends: Callable) -> Callable:
    """Another decision for the batch."""
    return lambda images: _scaled(images, ends(images))


def _then(change: Callable) -> Callable:
    """Another scale after the right decision: change(images, range)."""
    return lambda images: change(images, _ends(images))


def _each_number(white: float, black: float) -> Callable:
    """A decision for each number, with these two limits."""
    return lambda x: torch.where(x > white, x / 127.5 - 1, torch.where(x < black, x, 2 * x - 1))


def _own_range_of_channels(x: Tensor) -> Tensor:
    return _own_range(x.transpose(0, 1)).transpose(0, 1)


_NORMALIZE_RANGE = Exercise(
    "normalize_range",
    _normalize_range_by_fit,
    _unknown_cases,
    {
        "The range of each image is decided by that image alone; one without black or white does not show it.": (
            lambda x: torch.stack([_scaled(image, _ends(image)) for image in x])
        ),
        "The first image decides for all; it may have neither black nor white.": (
            _decided(lambda x: _ends(x[0]))
        ),
        "The range of each channel is decided by that channel alone; one without black or white does not show it.": (
            lambda x: torch.stack([_scaled(channel, _ends(channel)) for channel in x.unbind(1)], 1)
        ),
        "The range of each channel of each image is decided by it alone; most have neither black nor white.": (
            lambda x: torch.stack([_scaled(y, _ends(y)) for y in x.flatten(0, 1)]).view_as(x)
        ),
        "The range of each number is decided by that number alone: 0.5 occurs in all three ranges.": (
            _each_number(1, 0)
        ),
        "Each number decides for itself, with limits between the ranges; 0.5 occurs in all three of them.": (
            _each_number(2, -0.5)
        ),
        "The mean decides; it depends on what the images show: bright ones in [-1, 1] have a mean above 0.": (
            _decided(lambda x: _BYTES if x.mean() > 1 else _MODEL if x.mean() < 0 else _UNIT)
        ),
        "A number a little above 1 is taken as a sign of bytes, and one a little below 0 as a sign of [-1, 1].": (
            _decided(lambda x: _BYTES if x.max() > 1 else _MODEL if x.min() < 0 else _UNIT)
        ),
        "A number a little above 1 is taken as a sign of bytes; white may lie there in the other ranges, too.": (
            _decided(lambda x: _BYTES if x.max() > 1 else _MODEL if x.min() < -0.5 else _UNIT)
        ),
        "Any number below 0 is taken as a sign of [-1, 1]; black may lie there in the other two ranges, too.": (
            _decided(lambda x: _MODEL if x.min() < 0 else _BYTES if x.max() > 1 else _UNIT)
        ),
        "A number a little below 0 is taken as a sign of [-1, 1]; the black of [0, 1] may lie there, too.": (
            _decided(lambda x: _BYTES if x.max() > 2 else _MODEL if x.min() < 0 else _UNIT)
        ),
        "Bytes whose black lies below 0 are taken as [-1, 1]: 2 % of 255 is more than 1.": (
            _decided(lambda x: _MODEL if x.min() < -0.5 else _BYTES if x.max() > 2 else _UNIT)
        ),
        "The range is recognized only if 255 or -1 occur exactly; resizing may have moved them by 2 % of its width.": (
            _decided(lambda x: _BYTES if x.max() == 255 else _MODEL if x.min() == -1 else _UNIT)
        ),
        "The batch is stretched to its own smallest and largest number; black and white of the range become -1 and 1.": (
            lambda x: _scaled(x, (x.min(), x.max()))
        ),
        "Each image is stretched to its own smallest and largest number; one without white has no 1.": _own_range,
        "Each channel is stretched to its own smallest and largest number; one without white has no 1.": (
            _own_range_of_channels
        ),
        "The numbers get mean 0 and variance 1; the range is what counts, whatever the images show.": lambda x: (
            (x - x.mean()) / x.std()
        ),
        "Images that are in [-1, 1] already are scaled again, and run from -3 to 1.": _decided(
            lambda x: _BYTES if x.max() > 2 else _UNIT
        ),
        "All images are taken as values from 0 to 1; there are three ranges to tell apart.": (
            lambda x: 2 * x - 1
        ),
        "All images are taken as bytes; there are three ranges to tell apart.": lambda x: x / 127.5 - 1,
        "Images in [-1, 1] are taken as bytes, and come out nearly constant; there are three ranges to tell apart.": (
            _decided(lambda x: _BYTES if x.max() - x.min() > 1.5 else _UNIT)
        ),
        "The images are unchanged; only those in [-1, 1] should be.": lambda x: x,
        "Bytes become values from 0 to 1, and the other images are unchanged: only those in [-1, 1] should be.": (
            lambda x: x / 255 if x.max() > 2 else x
        ),
        "Images in [0, 1] are left as they are, half as wide as they should be.": _then(
            lambda x, ends: x if ends == _UNIT else _scaled(x, ends)
        ),
        "Bytes are taken as values from 0 to 1, so white becomes 509; there are three ranges to tell apart.": _decided(
            lambda x: _MODEL if x.min() < -0.5 else _UNIT
        ),
        "Bytes are not recognized, and a number a little below 0 is taken as a sign of [-1, 1]: two mistakes at once.": (
            _decided(lambda x: _MODEL if x.min() < 0 else _UNIT)
        ),
        "Bytes become values from 0 to 1; there is a step more to [-1, 1].": _then(
            lambda x, ends: x / 255 if ends == _BYTES else _scaled(x, ends)
        ),
        "Bytes are divided by 128 instead of half of 255: white does not become 1.": _then(
            lambda x, ends: x / 128 - 1 if ends == _BYTES else _scaled(x, ends)
        ),
        "Images in [0, 1] are doubled and not shifted: they run from 0 to 2.": _then(
            lambda x, ends: 2 * x if ends == _UNIT else _scaled(x, ends)
        ),
        "Images in [0, 1] are moved by a half, but not doubled: they run from -0.5 to 0.5.": _then(
            lambda x, ends: x - 0.5 if ends == _UNIT else _scaled(x, ends)
        ),
        "Black and white are exchanged in images in [0, 1].": _then(
            lambda x, ends: 1 - 2 * x if ends == _UNIT else _scaled(x, ends)
        ),
        "Bytes are rounded to whole numbers; the change is a straight line, which rounds nothing.": _then(
            lambda x, ends: _scaled(x.round() if ends == _BYTES else x, ends)
        ),
        "The result runs from 0 to 1; it should run from -1 to 1.": _then(
            lambda x, ends: (_scaled(x, ends) + 1) / 2
        ),
        "What lies beyond black and white is clipped; the range changes by one straight line for all numbers.": _then(
            lambda x, ends: _scaled(x, ends).clamp(-1, 1)
        ),
    },
    "what the exercise guarantees: where do black and white occur, and between which two numbers can each of them lie?",
    same_dtype=True,
    precisions=(torch.float32,),
    reference=_decided(_ends),
)


def check_normalize_range(fn: Callable, **grade_options) -> Report:
    """Check fn(images (N, C, H, W) in [0, 1], [-1, 1] or [0, 255]) -> the same images in [-1, 1]."""
    return grade(_NORMALIZE_RANGE, fn, **grade_options)
