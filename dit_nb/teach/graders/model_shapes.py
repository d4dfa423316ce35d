"""Grader of lesson 12: the configuration of a DiT, read from the names and shapes of its weights."""

import math
import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_read_shapes"]

_CONVOLUTION = "x_embedder.proj.weight"  # (D, C, p, p)
_TABLE = "y_embedder.embedding_table.weight"  # (K + 1, D)
_LAST = "final_layer.linear.weight"  # (p*p*2C, D)


class _Weights(dict):
    """A dict of tensors whose copies share the numbers, which nobody reads here."""

    def __deepcopy__(self, memo: dict) -> "_Weights":
        return _Weights({name: tensor.detach() for name, tensor in self.items()})


def _random_weights(
    rng: RandomInputs, depth: int, d: int, p: int, c: int, tokens: int, k: int, mlp_ratio: int = 4
) -> dict[str, Tensor]:
    """Random weights with the official names, in the order of `DiT.state_dict`."""
    layers = {"x_embedder.proj": (d, c, p, p), "t_embedder.mlp.0": (d, 256), "t_embedder.mlp.2": (d, d)}
    block = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (mlp_ratio * d, d)}
    block |= {"mlp.fc2": (d, mlp_ratio * d), "adaLN_modulation.1": (6 * d, d)}
    layers |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    layers |= {"final_layer.linear": (2 * p * p * c, d), "final_layer.adaLN_modulation.1": (2 * d, d)}
    weights = _Weights(pos_embed=rng.normal(1, tokens, d))
    for name, shape in layers.items():
        if name == "blocks.0.attn.qkv":
            weights[_TABLE] = rng.normal(k + 1, d)
        weights |= {f"{name}.weight": rng.normal(*shape), f"{name}.bias": rng.normal(shape[0])}
    return weights


def _shuffled(rng: RandomInputs, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same entries in random order, but the final layer first and the first block last, to deceive positions."""
    names = [list(weights)[i] for i in torch.randperm(len(weights), generator=rng.generator)]
    names.sort(key=lambda name: (name.startswith("blocks.0."), not name.startswith("final"), name[0] != "b"))
    return _Weights({name: weights[name] for name in names})


_RATIO = (
    "It is right if the MLP is four times as wide as a token, and wrong otherwise: "
    "the hidden width of the MLP can be any number."
)
_DIGITS = (
    "It is right for few blocks and wrong for many: the number of a block can have two digits, "
    "and as text 9 comes after 11."
)
_ORDER = (
    "It is right if the names stand in the usual order, and wrong in any other: "
    "no number may depend on which name comes first or last."
)
_ALONE = (
    "It is right for several blocks and wrong for one. Does it need a name that only deeper models have, "
    "or is a number in the name of another part taken for that of a block?"
)


def _weight_cases(rng: RandomInputs) -> list[Case]:
    """One model, then the same with another MLP, depth or order; other sizes, none of them equal."""
    label = "{} blocks, D = {}, p = {}, C = {}, T = {}, {} classes"
    depth, sizes = rng.choice(4, 5), (20, 2, 3, 10, rng.choice(7, 8))
    many, ratio = rng.choice(29, 30, 31), rng.choice(5, 7)
    other = (3, 12, 3, 1, 6, 4)
    last = (rng.choice(6, 7), rng.choice(16, 36), rng.choice(2, 4), 4, rng.choice(18, 20), rng.choice(11, 29))
    usual = label.format(depth, *sizes)
    return [
        Case(usual, (_random_weights(rng, depth, *sizes),)),
        Case(f"{usual}, mlp_ratio = {ratio}", (_random_weights(rng, depth, *sizes, ratio),), _RATIO),
        Case(label.format(many, *sizes), (_random_weights(rng, many, *sizes),), _DIGITS),
        Case(f"{usual}, shuffled", (_shuffled(rng, _random_weights(rng, depth, *sizes)),), _ORDER),
        Case(label.format(1, *sizes).replace("blocks", "block"), (_random_weights(rng, 1, *sizes),), _ALONE),
        Case(label.format(*other), (_random_weights(rng, *other),)),
        Case(label.format(*last), (_random_weights(rng, *last),)),
    ]


def _shapes_by_counting(weights: dict[str, Tensor]) -> tuple[int, ...]:
    """The six numbers from how many numbers each tensor has, and the side of the convolution."""
    count, depth = {name: tensor.numel() for name, tensor in weights.items()}, 0
    while f"blocks.{depth}.attn.proj.bias" in weights:
        depth += 1
    width = count[_LAST] // count[f"{_LAST[:-6]}bias"]
    side = weights[_CONVOLUTION].shape[3]
    channels = count[f"{_LAST[:-6]}bias"] // (2 * side * side)
    return depth, width, side, channels, count["pos_embed"] // width, count[_TABLE] // width - 1


def _six_numbers(value):
    """Six numbers as tensors; anything else as it is."""
    if type(value) is np.ndarray:
        return torch.as_tensor(value)
    numbers = isinstance(value, tuple | list) and len(value) == 6
    if not numbers or not all(isinstance(v, int | float | np.number | Tensor) for v in value):
        return value
    return tuple(torch.as_tensor(v) for v in value)


def _read_and_compare(fn: Callable, weights: dict[str, Tensor]):
    """The function's six numbers; minus one six times if it has changed the dict."""
    before = {name: tensor.shape for name, tensor in weights.items()}
    value = fn(weights)
    same = before == {name: getattr(tensor, "shape", None) for name, tensor in weights.items()}
    return _six_numbers(value if same else (-1,) * 6)


def _axis(name: str, axis: int, factor: int = 1, plus: int = 0) -> Callable:
    """Return the size of an axis of a tensor by its name, times a factor, plus a number."""
    return lambda weights: weights[name].shape[axis] * factor + plus


def _block_numbers(weights: dict[str, Tensor]) -> list[str]:
    return [found[1] for found in (re.match(r"blocks\.(\d+)\.", name) for name in weights) if found]


def _depth(weights: dict[str, Tensor]) -> int:
    return len(set(_block_numbers(weights)))


_RIGHT = {
    "depth": _depth,
    "width": _axis(_CONVOLUTION, 0),
    "patch_size": _axis(_CONVOLUTION, 2),
    "channels": _axis(_CONVOLUTION, 1),
    "tokens": _axis("pos_embed", 1),
    "classes": _axis(_TABLE, 0, plus=-1),
}


def _read(order: str = "depth width patch_size channels tokens classes", **other: Callable) -> Callable:
    """Read the shapes, with another function for some of the numbers, or in another order."""

    def read_shapes(weights):
        numbers = {name: other.get(name, right)(weights) for name, right in _RIGHT.items()}
        return tuple(numbers[name] for name in order.split())

    return read_shapes


def _of_depth(change: Callable) -> Callable:
    return _read(depth=lambda weights: change(_depth(weights)))


def _of_tokens(change: Callable) -> Callable:
    return _read(tokens=lambda weights: change(weights["pos_embed"].shape[1]))


def _without_half(rounded: Callable) -> Callable:
    """The patch size from the final layer, as if it predicted the noise alone."""
    return _read(
        patch_size=lambda weights: rounded((len(weights[_LAST]) / weights[_CONVOLUTION].shape[1]) ** 0.5)
    )


def _taken_out(weights: dict[str, Tensor]) -> tuple[int, ...]:
    numbers = _read()(weights)
    del weights["pos_embed"]
    return numbers


_TWO_OUTPUTS = "the final layer has two outputs for each value of a patch, for noise and variance."

_READ_SHAPES = Exercise(
    "read_shapes",
    _shapes_by_counting,
    _weight_cases,
    {
        "The depth is the largest number of a block; the blocks are numbered from 0, so there is one more.": (
            _of_depth(lambda depth: depth - 1)
        ),
        "The depth is one too large: there are as many blocks as different numbers in their names. Is something "
        "counted that stands in no block, such as the modulation of the final layer?": _of_depth(
            lambda depth: depth + 1
        ),
        "The depth is ten times as large: all tensors of the blocks are counted. A block has several, and counts "
        "once.": _of_depth(lambda depth: 10 * depth),
        "The depth is five times as large: all layers of the blocks are counted. A block has several, and counts "
        "once.": _of_depth(lambda depth: 5 * depth),
        "The depth is four times as large: each block is counted by four of its names, and must count once.": (
            _of_depth(lambda depth: 4 * depth)
        ),
        "The depth is twice as large: each block is counted by two of its names, and must count once.": (
            _of_depth(lambda depth: 2 * depth)
        ),
        "The depth is the number of all tensors; count the blocks.": _read(depth=len),
        "The numbers of the blocks are compared as text, in which 9 comes after 11; and they are counted from 0, so "
        "there is one block more than the largest says.": _of_depth(lambda depth: min(depth, 10) - 1),
        "The depth is that of DiT-XL, 28; read it from the names.": _of_depth(lambda depth: 28),
        "The width is three times as large: the layer qkv returns queries, keys and values.": (
            _read(width=_axis("blocks.0.attn.qkv.weight", 0))
        ),
        "The width is that of the hidden layer of the MLP; D is the width of a token.": (
            _read(width=_axis("blocks.0.mlp.fc1.weight", 0))
        ),
        "The width is six times as large: the modulation of a block returns six vectors of width D.": (
            _read(width=_axis("blocks.0.adaLN_modulation.1.weight", 0))
        ),
        "The width is twice as large: the modulation of the final layer returns two vectors of width D.": (
            _read(width=_axis("final_layer.adaLN_modulation.1.weight", 0))
        ),
        "The width is 256, the number of waves that represent a timestep; D is the width of a token.": (
            _read(width=_axis("t_embedder.mlp.0.weight", 1))
        ),
        "The width is the number of channels of the image; D is the width of a token.": (
            _read(width=_axis(_CONVOLUTION, 1))
        ),
        "The width is the number of values in a patch of the image; D is the width after the patch embedding.": (
            _read(width=lambda weights: weights[_CONVOLUTION][0].numel())
        ),
        "The width is the number of outputs of the final layer; D is the number of its inputs.": (
            _read(width=_axis(_LAST, 0))
        ),
        "The width is the number of rows of the label table; D is the length of a row.": (
            _read(width=_axis(_TABLE, 0))
        ),
        "The width is the number of tokens; D is the length of one position.": _read(
            width=_axis("pos_embed", 1)
        ),
        "The patch size is squared: p is the side of a patch, p·p the number of its pixels.": (
            _read(patch_size=lambda weights: weights[_CONVOLUTION][0, 0].numel())
        ),
        "The patch size is the number of channels: it is read from the wrong axis.": (
            _read(patch_size=_axis(_CONVOLUTION, 1))
        ),
        "The patch size is the width of a token: it is read from the wrong axis.": (
            _read(patch_size=_axis(_CONVOLUTION, 0))
        ),
        f"The patch size is no whole number: {_TWO_OUTPUTS}": _without_half(float),
        f"The patch size is rounded down from a root that is no whole number: {_TWO_OUTPUTS}": _without_half(
            int
        ),
        f"The patch size is rounded from a root that is no whole number: {_TWO_OUTPUTS}": _without_half(
            round
        ),
        "The channels are twice as many: the final layer returns noise and variance for each channel of the image.": (
            _read(channels=_axis(_CONVOLUTION, 1, 2))
        ),
        "The channels are all values of a patch; each of its p·p pixels has C of them.": (
            _read(channels=lambda weights: weights[_CONVOLUTION][0].numel())
        ),
        "The channels are all outputs of the final layer: they are for p·p pixels, and for noise and variance.": (
            _read(channels=_axis(_LAST, 0))
        ),
        "The channels are p times as many: a patch has p rows and p columns of pixels.": (
            _read(channels=lambda weights: weights[_CONVOLUTION][0, :, 0].numel())
        ),
        "The channels are halved, but the patch embedding has no channels for the variance: its input is the image.": (
            _read(channels=lambda weights: weights[_CONVOLUTION].shape[1] // 2)
        ),
        "The number of channels is the patch size: it is read from the wrong axis.": (
            _read(channels=_axis(_CONVOLUTION, 2))
        ),
        "The number of channels is the width of a token: it is read from the wrong axis.": (
            _read(channels=_axis(_CONVOLUTION, 0))
        ),
        "The number of tokens is the width: each position has D numbers, and there are T positions.": (
            _read(tokens=_axis("pos_embed", 2))
        ),
        "The number of tokens is 1: the first axis of the positions is that of the batch.": (
            _read(tokens=_axis("pos_embed", 0))
        ),
        "The number of tokens is its own root, rounded: T counts all patches, and their grid need not be square.": (
            _of_tokens(math.isqrt)
        ),
        "A root is taken of the number of tokens: T counts all patches, and their grid need not be square.": (
            _of_tokens(math.sqrt)
        ),
        "The number of tokens is rounded to a square, but the grid of patches need not be square.": (
            _of_tokens(lambda tokens: math.isqrt(tokens) ** 2)
        ),
        "One token is missing: each position belongs to a patch, and there is no class token.": (
            _of_tokens(lambda tokens: tokens - 1)
        ),
        "The pixels are counted; a token is a patch of p·p pixels.": (
            _read(tokens=lambda weights: weights["pos_embed"].shape[1] * weights[_CONVOLUTION][0, 0].numel())
        ),
        "All numbers of the positions are counted; each token has D of them.": (
            _read(tokens=lambda weights: weights["pos_embed"].numel())
        ),
        "The null class is counted: the last row of the label table belongs to no class.": (
            _read(classes=_axis(_TABLE, 0))
        ),
        "One class is missing: of the rows of the label table only the last, the null class, does not count.": (
            _read(classes=_axis(_TABLE, 0, plus=-2))
        ),
        "There is one class more than rows in the label table; the null class has a row there, so subtract it.": (
            _read(classes=_axis(_TABLE, 0, plus=1))
        ),
        "The number of classes is the width: the label table has a row for each class.": (
            _read(classes=_axis(_TABLE, 1))
        ),
        "The number of classes is the width minus 1: the label table has a row, not a column, for each class.": (
            _read(classes=_axis(_TABLE, 1, plus=-1))
        ),
        "The number of classes is 1000, as for ImageNet; read it from the label table.": (
            _read(classes=lambda weights: 1000)
        ),
        "Depth and width are exchanged.": _read("width depth patch_size channels tokens classes"),
        "Patch size and channels are exchanged.": _read("depth width channels patch_size tokens classes"),
        "Width and tokens are exchanged.": _read("depth tokens patch_size channels width classes"),
        "Tokens and classes are exchanged.": _read("depth width patch_size channels classes tokens"),
        "The six numbers are in reverse order.": _read("classes tokens channels patch_size width depth"),
        "The numbers are in the order of a DiTConfig: patch size, channels, width, depth. The depth must come first.": (
            _read("patch_size channels width depth tokens classes")
        ),
        "It changes the dict of weights, which the caller still needs: only read it.": _taken_out,
    },
    "lesson 12, 'The model is its state_dict': print the names and shapes of a small model.",
    result_names=(
        "depth",
        "width",
        "patch size",
        "number of channels",
        "number of tokens",
        "number of classes",
    ),
    returns="six whole numbers: depth, width, patch size, channels, tokens, classes",
    probe=_read_and_compare,
    reference=_read(),
)


def check_read_shapes(fn: Callable, **grade_options) -> Report:
    """Check fn(weights: dict of names and tensors) -> depth, width, patch size, channels, tokens, classes."""
    return grade(_READ_SHAPES, fn, **grade_options)
