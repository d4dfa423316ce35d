"""Answers to the second exercise of lesson 12: the configuration of a DiT, read from the shapes of its weights."""

import math
import re
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from . import right, wrong


@right("read_shapes")
def read_shapes_set(weights):
    width, channels, p, _ = weights["x_embedder.proj.weight"].shape
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    tokens = weights["pos_embed"].size(1)
    return depth, width, p, channels, tokens, weights["y_embedder.embedding_table.weight"].size(0) - 1


@right("read_shapes")
def read_shapes_largest_number(weights):
    largest = -1
    for name in weights:
        if name.startswith("blocks"):
            largest = max(largest, int(name.split(".")[1]))
    _, tokens, width = weights["pos_embed"].shape
    outputs = weights["final_layer.linear.bias"].numel()
    p = weights["x_embedder.proj.weight"].shape[-1]
    classes = len(weights["y_embedder.embedding_table.weight"]) - 1
    return [largest + 1, width, p, outputs // (2 * p**2), tokens, classes]


@right("read_shapes")
def read_shapes_while(weights):
    depth = 0
    while f"blocks.{depth}.mlp.fc1.weight" in weights:
        depth += 1
    width = weights["blocks.0.attn.qkv.weight"].shape[0] // 3
    c, p = weights["x_embedder.proj.weight"].shape[1:3]
    return (
        depth,
        width,
        p,
        c,
        weights["pos_embed"].numel() // width,
        weights["y_embedder.embedding_table.weight"].numel() // width - 1,
    )


@right("read_shapes")
def read_shapes_count_one_name(weights):
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    depth = sum(name.endswith(".attn.qkv.weight") for name in shapes)
    width = shapes["blocks.0.adaLN_modulation.1.bias"][0] // 6
    kernel = shapes["x_embedder.proj.weight"]
    rows = shapes["y_embedder.embedding_table.weight"][0]
    return torch.tensor([depth, width, kernel[3], kernel[1], shapes["pos_embed"][1], rows - 1])


class _Shapes(NamedTuple):
    depth: int
    width: int
    patch_size: int
    channels: int
    tokens: int
    classes: int


@right("read_shapes")
def read_shapes_named_tuple(weights):
    numbers = [int(m.group(1)) for m in (re.match(r"blocks\.(\d+)", name) for name in weights) if m]
    outputs, width = weights["final_layer.linear.weight"].shape
    channels = weights["x_embedder.proj.weight"].shape[1]
    return _Shapes(
        depth=1 + max(numbers),
        width=width,
        patch_size=math.isqrt(outputs // (2 * channels)),
        channels=channels,
        tokens=len(weights["pos_embed"][0]),
        classes=len(weights["y_embedder.embedding_table.weight"][:-1]),
    )


@right("read_shapes")
def read_shapes_numpy(weights):
    per_block = sum(name.startswith("blocks.0.") for name in weights)
    depth = sum("blocks." in name for name in weights) // per_block
    kernel = np.array(weights["x_embedder.proj.weight"].shape)
    patch = np.sqrt(kernel[2] * kernel[3]).round().astype(int)
    rest = np.array([weights["pos_embed"].shape[1], len(weights["y_embedder.embedding_table.weight"]) - 1])
    return np.array([depth, kernel[0], patch, kernel[1], *rest])


def _but(weights, **other):
    """The right answer, with other numbers."""
    names = "depth", "width", "patch", "channels", "tokens", "classes"
    return tuple((dict(zip(names, read_shapes_set(weights))) | other).values())


# ---- depth


@wrong("read_shapes", "the largest number of a block; the blocks are numbered from 0")
def read_shapes_no_plus_one(weights):
    depth = max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    width, channels, p, _ = weights["x_embedder.proj.weight"].shape
    return (
        depth,
        width,
        p,
        channels,
        weights["pos_embed"].shape[1],
        len(weights["y_embedder.embedding_table.weight"]) - 1,
    )


@wrong("read_shapes", "such as the modulation of the final layer")
def read_shapes_counts_modulations(weights):
    depth = 0
    for name in weights:
        if "adaLN_modulation" in name and name.endswith("weight"):
            depth += 1
    return _but(weights, depth=depth)


@wrong("read_shapes", "as many blocks as different numbers")
def read_shapes_count_plus_one(weights):
    return _but(weights, depth=len({k.split(".")[1] for k in weights if k.startswith("blocks.")}) + 1)


@wrong("read_shapes", "all tensors of the blocks are counted")
def read_shapes_counts_keys(weights):
    return _but(weights, depth=len([name for name in weights if "blocks" in name]))


@wrong("read_shapes", "all layers of the blocks are counted")
def read_shapes_counts_matrices(weights):
    return _but(
        weights, depth=len([name for name in weights if "blocks" in name and name.endswith(".weight")])
    )


@wrong("read_shapes", "counted by four of its names")
def read_shapes_counts_attention(weights):
    return _but(weights, depth=sum(".attn." in name for name in weights))


@wrong("read_shapes", "counted by two of its names")
def read_shapes_counts_qkv(weights):
    return _but(weights, depth=sum("qkv" in name for name in weights))


@wrong("read_shapes", "the number of all tensors")
def read_shapes_length(weights):
    return _but(weights, depth=len(weights))


@wrong("read_shapes", "right for few blocks and wrong for many")
def read_shapes_sorted_as_text(weights):
    last = sorted(name.split(".")[1] for name in weights if name.startswith("blocks."))[-1]
    return _but(weights, depth=int(last) + 1)


@wrong("read_shapes", "right for few blocks and wrong for many")
def read_shapes_one_digit(weights):
    return _but(weights, depth=len({name[7] for name in weights if name.startswith("blocks.")}))


@wrong("read_shapes", "right for few blocks and wrong for many")
def read_shapes_depth_of_xl_at_most(weights):
    return _but(weights, depth=sum(f"blocks.{i}.attn.qkv.weight" in weights for i in range(28)))


@wrong("read_shapes", "compared as text, in which 9 comes after 11; and they are counted from 0")
def read_shapes_text_without_one(weights):
    return _but(weights, depth=int(max(k.split(".")[1] for k in weights if k.startswith("blocks."))))


@wrong("read_shapes", "right if the names stand in the usual order")
def read_shapes_last_name(weights):
    names = [name for name in weights if name.startswith("blocks.")]
    return _but(weights, depth=int(names[-1].split(".")[1]) + 1)


@wrong("read_shapes", "right if the names stand in the usual order")
def read_shapes_fifth_from_the_end(weights):
    return _but(weights, depth=int(list(weights)[-5].split(".")[1]) + 1)


@wrong("read_shapes", "right if the names stand in the usual order")
def read_shapes_by_place(weights):
    convolution, table = ([*weights.values()][i] for i in (1, 7))
    (width, channels, patch, _), (rows, _) = convolution.shape, table.shape
    return _but(weights, width=width, channels=channels, patch=patch, classes=rows - 1)


@wrong("read_shapes", "right if the names stand in the usual order")
def read_shapes_groupby(weights):
    numbers = [name.split(".")[1] for name in weights if name.startswith("blocks.")]
    return _but(weights, depth=len(list(groupby(numbers))))


@wrong("read_shapes", "number in the name of another part taken for that of a block")
def read_shapes_any_number(weights):
    numbers = [int(n) for name in weights for n in re.findall(r"\.(\d+)\.", name)]
    return _but(weights, depth=max(numbers) + 1)


@wrong("read_shapes", "that of DiT-XL")
def read_shapes_depth_of_xl(weights):
    return _but(weights, depth=28)


# ---- width


@wrong("read_shapes", "the layer qkv returns queries, keys and values")
def read_shapes_width_of_qkv(weights):
    return _but(weights, width=weights["blocks.0.attn.qkv.weight"].shape[0])


@wrong("read_shapes", "hidden layer of the MLP; D is")
def read_shapes_width_of_mlp(weights):
    return _but(weights, width=weights["blocks.0.mlp.fc2.weight"].shape[1])


@wrong("read_shapes", "right if the MLP is four times as wide")
def read_shapes_quarter_of_mlp(weights):
    return _but(weights, width=weights["blocks.0.mlp.fc1.bias"].shape[0] // 4)


@wrong("read_shapes", "returns six vectors")
def read_shapes_width_of_modulation(weights):
    return _but(weights, width=len(weights["blocks.0.adaLN_modulation.1.weight"]))


@wrong("read_shapes", "returns two vectors")
def read_shapes_width_of_last_modulation(weights):
    return _but(weights, width=len(weights["final_layer.adaLN_modulation.1.bias"]))


@wrong("read_shapes", "number of waves")
def read_shapes_width_of_waves(weights):
    return _but(weights, width=weights["t_embedder.mlp.0.weight"].shape[-1])


@wrong("read_shapes", "The width is the number of channels")
def read_shapes_width_second_axis(weights):
    return _but(weights, width=weights["x_embedder.proj.weight"].shape[1])


@wrong("read_shapes", "number of values in a patch of the image")
def read_shapes_width_of_patch(weights):
    _, c, p, q = weights["x_embedder.proj.weight"].shape
    return _but(weights, width=c * p * q)


@wrong("read_shapes", "number of outputs of the final layer; D")
def read_shapes_width_of_final_rows(weights):
    return _but(weights, width=weights["final_layer.linear.weight"].shape[0])


@wrong("read_shapes", "number of rows of the label table; D")
def read_shapes_width_of_table_rows(weights):
    return _but(weights, width=len(weights["y_embedder.embedding_table.weight"]))


@wrong("read_shapes", "The width is the number of tokens")
def read_shapes_width_of_positions(weights):
    return _but(weights, width=weights["pos_embed"].shape[1])


# ---- patch size


@wrong("read_shapes", "The patch size is squared")
def read_shapes_patch_squared(weights):
    rows, channels = len(weights["final_layer.linear.bias"]), weights["x_embedder.proj.weight"].shape[1]
    return _but(weights, patch=rows // (2 * channels))


@wrong("read_shapes", "The patch size is the number of channels")
def read_shapes_patch_second_axis(weights):
    return _but(weights, patch=weights["x_embedder.proj.weight"].shape[1])


@wrong("read_shapes", "The patch size is the width of a token")
def read_shapes_patch_first_axis(weights):
    return _but(weights, patch=weights["x_embedder.proj.weight"].shape[0])


def _root_without_half(weights):
    return math.sqrt(len(weights["final_layer.linear.bias"]) / weights["x_embedder.proj.weight"].shape[1])


@wrong("read_shapes", "The patch size is no whole number")
def read_shapes_patch_root(weights):
    return _but(weights, patch=_root_without_half(weights))


@wrong("read_shapes", "The patch size is rounded down")
def read_shapes_patch_root_down(weights):
    return _but(weights, patch=int(_root_without_half(weights)))


@wrong("read_shapes", "The patch size is rounded from")
def read_shapes_patch_root_rounded(weights):
    return _but(weights, patch=round(_root_without_half(weights)))


# ---- channels


@wrong("read_shapes", "The channels are twice as many")
def read_shapes_channels_doubled(weights):
    p = weights["x_embedder.proj.weight"].shape[-1]
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0] // p**2)


@wrong("read_shapes", "The channels are twice as many")
def read_shapes_channels_doubled_by_division(weights):
    p = weights["x_embedder.proj.weight"].shape[-1]
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0] / p**2)


@wrong("read_shapes", "The channels are all values of a patch")
def read_shapes_channels_of_patch(weights):
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0] // 2)


@wrong("read_shapes", "The channels are all outputs")
def read_shapes_channels_of_final_rows(weights):
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0])


@wrong("read_shapes", "p rows and p columns")
def read_shapes_channels_divided_once(weights):
    p = weights["x_embedder.proj.weight"].shape[-1]
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0] // (2 * p))


@wrong("read_shapes", "The channels are halved")
def read_shapes_channels_halved(weights):
    return _but(weights, channels=weights["x_embedder.proj.weight"].shape[1] // 2)


@wrong("read_shapes", "The number of channels is the patch size")
def read_shapes_channels_third_axis(weights):
    return _but(weights, channels=weights["x_embedder.proj.weight"].shape[2])


@wrong("read_shapes", "The number of channels is the width")
def read_shapes_channels_first_axis(weights):
    return _but(weights, channels=weights["x_embedder.proj.weight"].shape[0])


# ---- tokens


@wrong("read_shapes", "The number of tokens is the width")
def read_shapes_tokens_last_axis(weights):
    return _but(weights, tokens=weights["pos_embed"].shape[-1])


@wrong("read_shapes", "The number of tokens is 1")
def read_shapes_tokens_len(weights):
    return _but(weights, tokens=len(weights["pos_embed"]))


@wrong("read_shapes", "is its own root, rounded")
def read_shapes_tokens_rows(weights):
    return _but(weights, tokens=int(weights["pos_embed"].shape[1] ** 0.5))


@wrong("read_shapes", "A root is taken of the number of tokens")
def read_shapes_tokens_root(weights):
    return _but(weights, tokens=weights["pos_embed"].shape[1] ** 0.5)


@wrong("read_shapes", "rounded to a square")
def read_shapes_tokens_square(weights):
    rows = round(weights["pos_embed"].shape[1] ** 0.5)
    return _but(weights, tokens=rows * rows)


@wrong("read_shapes", "there is no class token")
def read_shapes_tokens_without_class_token(weights):
    return _but(weights, tokens=weights["pos_embed"].shape[1] - 1)


@wrong("read_shapes", "The pixels are counted")
def read_shapes_tokens_pixels(weights):
    p = weights["x_embedder.proj.weight"].shape[-1]
    return _but(weights, tokens=weights["pos_embed"].shape[1] * p * p)


@wrong("read_shapes", "All numbers of the positions")
def read_shapes_tokens_numel(weights):
    return _but(weights, tokens=weights["pos_embed"].numel())


# ---- classes


@wrong("read_shapes", "The null class is counted")
def read_shapes_null_class(weights):
    return _but(weights, classes=weights["y_embedder.embedding_table.weight"].shape[0])


@wrong("read_shapes", "One class is missing")
def read_shapes_largest_label(weights):
    null_class = weights["y_embedder.embedding_table.weight"].shape[0] - 1
    return _but(weights, classes=null_class - 1)


@wrong("read_shapes", "one class more than rows")
def read_shapes_adds_null_class(weights):
    return _but(weights, classes=len(weights["y_embedder.embedding_table.weight"]) + 1)


@wrong("read_shapes", "The number of classes is the width: ")
def read_shapes_classes_last_axis(weights):
    return _but(weights, classes=weights["y_embedder.embedding_table.weight"].shape[-1])


@wrong("read_shapes", "The number of classes is the width minus 1")
def read_shapes_classes_last_axis_minus_one(weights):
    return _but(weights, classes=weights["y_embedder.embedding_table.weight"].shape[1] - 1)


@wrong("read_shapes", "as for ImageNet")
def read_shapes_classes_of_imagenet(weights):
    return _but(weights, classes=1000)


# ---- what is returned


@wrong("read_shapes", "Depth and width are exchanged")
def read_shapes_width_first(weights):
    depth, width, *rest = read_shapes_set(weights)
    return width, depth, *rest


@wrong("read_shapes", "Patch size and channels are exchanged")
def read_shapes_channels_before_patch(weights):
    depth, width, p, c, tokens, classes = read_shapes_set(weights)
    return depth, width, c, p, tokens, classes


@wrong("read_shapes", "Width and tokens are exchanged")
def read_shapes_positions_transposed(weights):
    _, width, tokens = weights["pos_embed"].shape
    return _but(weights, width=width, tokens=tokens)


@wrong("read_shapes", "Tokens and classes are exchanged")
def read_shapes_classes_before_tokens(weights):
    *first, tokens, classes = read_shapes_set(weights)
    return *first, classes, tokens


@wrong("read_shapes", "reverse order")
def read_shapes_reversed(weights):
    return read_shapes_set(weights)[::-1]


@wrong("read_shapes", "in the order of a DiTConfig")
def read_shapes_order_of_config(weights):
    depth, width, p, c, tokens, classes = read_shapes_set(weights)
    return p, c, width, depth, tokens, classes


@wrong("read_shapes", "changes the dict of weights")
def read_shapes_pops(weights):
    width, channels, p, _ = weights.pop("x_embedder.proj.weight").shape
    tokens = weights.pop("pos_embed").shape[1]
    classes = len(weights.pop("y_embedder.embedding_table.weight")) - 1
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    return depth, width, p, channels, tokens, classes


@wrong(
    "read_shapes", "must return six whole numbers: depth, width, patch size, channels, tokens, classes, but"
)
def read_shapes_dict(weights):
    return dict(zip("depth width patch_size channels tokens classes".split(), read_shapes_set(weights)))


@wrong("read_shapes", "returns a tuple of 6 things (int, str)")
def read_shapes_text(weights):
    depth = max((k.split(".")[1] for k in weights if k.startswith("blocks.")), key=int)
    return _but(weights, depth=depth)


@wrong("read_shapes", "returns a tuple of 6 things (Size, int)")
def read_shapes_size(weights):
    return _but(weights, patch=weights["x_embedder.proj.weight"].shape[2:])


@wrong("read_shapes", "returns a tuple of 5 things (int)")
def read_shapes_five(weights):
    return read_shapes_set(weights)[:5]


@wrong("read_shapes", "The number of channels is torch.float32, but must be torch.int64")
def read_shapes_float_channels(weights):
    p = weights["x_embedder.proj.weight"].shape[-1]
    return _but(weights, channels=weights["final_layer.linear.weight"].shape[0] / (2 * p * p))


@wrong("read_shapes", "The width has the right shape, but wrong numbers")
def read_shapes_two_mistakes(weights):
    width = weights["blocks.0.attn.qkv.weight"].shape[0]
    return _but(weights, width=width, classes=len(weights["y_embedder.embedding_table.weight"]))
