"""Graders of lesson 03: patchify, unpatchify, the patch embedding as a matrix, and an unknown order undone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from dit_nb.patchify import patchify, unpatchify
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_patchify", "check_unpatchify", "check_conv_to_linear", "check_undo_cut"]


def _patchify_loops(images: Tensor, patch_size: int) -> Tensor:
    n, c, height, width = images.shape
    p, columns = patch_size, width // patch_size
    tokens = images.new_zeros(n, (height // p) * columns, p * p * c)
    for row in range(height):
        for column in range(width):
            token = (row // p) * columns + column // p
            start = ((row % p) * p + column % p) * c
            tokens[:, token, start : start + c] = images[:, :, row, column]
    return tokens


def _image_cases(rng: RandomInputs) -> list[Case]:
    """Square, tall and wide images, sizes that can be confused, and each p and C with another of the other."""
    shapes = [(2, 3, 8, 8, 2), (2, 3, 4, 8, 2), (1, 2, 12, 4, 4), (4, 4, 6, 9, 3)]
    shapes += [(3, 3, 6, 6, 3), (3, 1, 6, 6, 2), (1, 4, 6, 6, 3)]
    p = rng.choice(2, 3)
    shapes.append((rng.choice(2, 3), rng.choice(4, 5), 3 * p, rng.choice(2, 4) * p, p))
    label = "N = {}, images of {}x{}x{}, p = {}"
    return [Case(label.format(*s), (rng.normal(*s[:4]), s[4]), _NOT_SQUARE * (s[2] != s[3])) for s in shapes]


_NOT_SQUARE = (
    "It is right for square images, but not if height and width differ: are they exchanged somewhere?"
)


_SPLIT = "how an axis of H pixels is split: which of the two parts changes slowly?"


def _patchify_by(pattern: str) -> Callable:
    return lambda images, p: rearrange(images, pattern, p=p, q=p)


_PATCHIFY = Exercise(
    "patchify",
    _patchify_loops,
    _image_cases,
    {
        "A token holds neighbors in memory, not a square of the image: the numbers are never moved.": (
            lambda x, p: x.reshape(len(x), -1, p * p * x.shape[1]),
            "lesson 03, 'Trap: reshape without permute'.",
        ),
        "Within a patch, all pixels of one channel come first; the channel must change fastest.": (
            _patchify_by("n c (h p) (w q) -> n (h w) (c p q)"),
            "lesson 03, 'The definition, in loops': the innermost loop.",
        ),
        "Within a patch, the pixels are read column by column, not row by row.": (
            _patchify_by("n c (h p) (w q) -> n (h w) (q p c)"),
            "the order of the two axes inside a patch.",
        ),
        "The patches are laid out column by column; the first row of patches must come first.": (
            _patchify_by("n c (h p) (w q) -> n (w h) (p q c)"),
            "the order of the two axes of the grid.",
        ),
        "The pixels of a token lie H/p rows and W/p columns apart; they must be neighbors: every p-th pixel begins a new patch.": (
            _patchify_by("n c (p h) (q w) -> n (h w) (p q c)"),
            _SPLIT,
        ),
        "The pixels of a token lie H/p rows apart; they must be neighbors. The columns are right.": (
            _patchify_by("n c (p h) (w q) -> n (h w) (p q c)"),
            _SPLIT,
        ),
        "The pixels of a token lie W/p columns apart; they must be neighbors. The rows are right.": (
            _patchify_by("n c (h p) (q w) -> n (h w) (p q c)"),
            _SPLIT,
        ),
        "A token has one pixel of each patch; it must have all pixels of one patch.": (
            _patchify_by("n c (h p) (w q) -> n (p q) (h w c)"),
            "which of the four axes count patches, and which count pixels inside a patch.",
        ),
        "The patches are cut, but the channels are never moved: a token holds patches of one channel, one after another.": (
            lambda x, p: rearrange(x, "n c (h p) (w q) -> n (c h w p q)", p=p, q=p).reshape(
                len(x), -1, p * p * x.shape[1]
            ),
            "lesson 03, 'Trap: reshape without permute'.",
        ),
        "There are patch_size rows and columns of patches; a patch has patch_size rows and columns of pixels.": (
            lambda x, p: rearrange(x, "n c (h p) (w q) -> n (h w) (p q c)", h=p, w=p),
            _SPLIT,
        ),
        "The grid is taken as a square; an image need not be one.": (
            lambda x, p: patchify(x.reshape(len(x), x.shape[1], x.shape[2], x.shape[2]), p),
            "how many patches fit into a row, and how many into a column.",
        ),
        "The pieces of each channel are separate tokens; a token holds all channels of its patch.": lambda x, p: (
            rearrange(x, "n c (h p) (w q) -> n (c h w) (p q)", p=p, q=p)
        ),
        "The grid of patches is still there; the tokens of an image are one sequence.": lambda x, p: (
            rearrange(x, "n c (h p) (w q) -> n h w (p q c)", p=p, q=p)
        ),
        "A patch is still a square of pixels; a token is one row of numbers.": lambda x, p: rearrange(
            x, "n c (h p) (w q) -> n (h w) p q c", p=p, q=p
        ),
        "Within a patch, the channel stands between row and column; it must change fastest.": (
            _patchify_by("n c (h p) (w q) -> n (h w) (p c q)"),
            "lesson 03, 'The definition, in loops': the innermost loop.",
        ),
        "The channels are fastest, but a token is a strip of a row, not a square: the rows are never cut.": (
            lambda x, p: x.movedim(1, 3).reshape(len(x), -1, p * p * x.shape[1]),
            "lesson 03, 'Trap: reshape without permute'.",
        ),
        "Within a patch, all pixels of one channel come first, and column by column: two mistakes at once.": _patchify_by(
            "n c (h p) (w q) -> n (h w) (c q p)"
        ),
        "Rows and columns are exchanged everywhere: in the grid and inside each patch.": _patchify_by(
            "n c (h p) (w q) -> n (w h) (q p c)"
        ),
        "The patches are laid out column by column, and in each all pixels of one channel come first: two mistakes at once.": _patchify_by(
            "n c (h p) (w q) -> n (w h) (c p q)"
        ),
        "The tokens are columns; they must be rows, (N, T, p*p*C).": _patchify_by(
            "n c (h p) (w q) -> n (p q c) (h w)"
        ),
        "A token is a whole row of patches; the columns must be cut too.": _patchify_by(
            "n c (h p) (w q) -> n h (p w q c)"
        ),
        "The tokens of all images stand in one sequence; each image has its own.": _patchify_by(
            "n c (h p) (w q) -> (n h w) (p q c)"
        ),
        "The image is turned upside down before it is cut.": lambda x, p: patchify(x.flip(2), p),
        "The image is mirrored before it is cut.": lambda x, p: patchify(x.flip(3), p),
    },
    "lesson 03, 'The definition, in loops'.",
    same_dtype=True,
    precisions=(torch.float32, torch.float16),
    half_points=(_NOT_SQUARE,),
    reference=patchify,
)


def check_patchify(fn: Callable, **grade_options) -> Report:
    """Check fn(images (N, C, H, W), patch_size) -> (N, T, p*p*C): in a patch, channel fastest."""
    return grade(_PATCHIFY, fn, **grade_options)


def _unpatchify_loops(tokens: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    (rows, columns), p = grid, patch_size
    c = tokens.shape[2] // (p * p)
    images = tokens.new_zeros(len(tokens), c, rows * p, columns * p)
    for row in range(rows * p):
        for column in range(columns * p):
            token = (row // p) * columns + column // p
            start = ((row % p) * p + column % p) * c
            images[:, :, row, column] = tokens[:, token, start : start + c]
    return images


def _token_cases(rng: RandomInputs) -> list[Case]:
    """Square, tall and wide grids, sizes that can be confused, and each p and C with another of the other."""
    shapes = [(2, 3, 4, 4, 2), (2, 3, 2, 4, 2), (1, 2, 3, 1, 4), (6, 4, 2, 3, 3)]
    shapes += [(2, 3, 2, 2, 3), (3, 1, 3, 3, 2), (1, 4, 2, 2, 3)]
    shapes.append((rng.choice(2, 3), rng.choice(4, 5), rng.choice(2, 3), 4, rng.choice(2, 3)))
    label = "N = {}, grid of {}x{}, C = {}, p = {}"
    return [
        Case(
            label.format(n, rows, columns, c, p),
            (rng.normal(n, rows * columns, p * p * c), (rows, columns), p),
            (_NOT_SQUARE * (rows != columns), _OTHER_CHANNELS * (c != 3)),
        )
        for n, c, rows, columns, p in shapes
    ]


_OTHER_CHANNELS = (
    "It is right for C = 3 and wrong for all other numbers of channels: how many there are follows from the width "
    "of a token and patch_size."
)


_TOGETHER = "how an axis of H pixels is put together: which of the two parts changes slowly?"


def _unpatchify_by(pattern: str, swap: bool = False) -> Callable:
    return lambda tokens, grid, p: rearrange(tokens, pattern, h=grid[swap], w=grid[1 - swap], p=p, q=p)


def _square_grid(tokens: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    side = int(tokens.shape[1] ** 0.5)
    return unpatchify(tokens, (side, side), patch_size)


def _rooted(count: int) -> tuple[int, int]:
    rows = int(count**0.5)
    return rows, count // rows


_UNPATCHIFY = Exercise(
    "unpatchify",
    _unpatchify_loops,
    _token_cases,
    {
        "The numbers are never moved: each token becomes a stripe, not a square.": (
            lambda x, grid, p: x.reshape(len(x), -1, grid[0] * p, grid[1] * p),
            "lesson 03, 'Trap: reshape without permute'.",
        ),
        "It returns the channels last, (N, H, W, C); images here are (N, C, H, W).": _unpatchify_by(
            "n (h w) (p q c) -> n (h p) (w q) c"
        ),
        "It takes all pixels of one channel from a token before the next; the channel changes fastest.": _unpatchify_by(
            "n (h w) (c p q) -> n c (h p) (w q)"
        ),
        "Each patch is mirrored at its diagonal: its rows and columns are exchanged.": (
            _unpatchify_by("n (h w) (q p c) -> n c (h p) (w q)"),
            "the order of the two axes inside a patch.",
        ),
        "The patches are placed column by column; the first tokens are the first row.": (
            _unpatchify_by("n (w h) (p q c) -> n c (h p) (w q)"),
            "the order of the two axes of the grid.",
        ),
        "The grid's rows and columns are exchanged: a wide image becomes a tall one.": (
            _unpatchify_by("n (h w) (p q c) -> n c (h p) (w q)", swap=True),
            "which number of the grid counts rows.",
        ),
        "The grid is taken as a square; its rows and columns are given, and need not be equal.": (
            _square_grid,
            "lesson 03, 'And back': Paper vs code.",
        ),
        "The number of rows is taken as the root of the number of tokens; the grid is given.": (
            lambda x, grid, p: unpatchify(x, _rooted(x.shape[1]), p),
            "lesson 03, 'And back': Paper vs code.",
        ),
        "The pixels of a token end up far from each other: each patch is spread over the whole image.": (
            _unpatchify_by("n (h w) (p q c) -> n c (p h) (q w)"),
            _TOGETHER,
        ),
        "The rows of each patch are spread over the whole height; they must be neighbors.": (
            _unpatchify_by("n (h w) (p q c) -> n c (p h) (w q)"),
            _TOGETHER,
        ),
        "The columns of each patch are spread over the whole width; they must be neighbors.": (
            _unpatchify_by("n (h w) (p q c) -> n c (h p) (q w)"),
            _TOGETHER,
        ),
        "The channels come to the front, but rows, columns and pixels keep their order: each token becomes a strip.": (
            lambda x, grid, p: rearrange(x, "n t (k c) -> n c (t k)", k=p * p).unflatten(
                2, (grid[0] * p, grid[1] * p)
            ),
            "the third hint of the exercise: which axis stands beside which.",
        ),
        "It takes the channel from between row and column of a patch; the channel changes fastest.": (
            _unpatchify_by("n (h w) (p c q) -> n c (h p) (w q)")
        ),
    },
    "lesson 03, 'And back'.",
    same_dtype=True,
    precisions=(torch.float32, torch.float16),
    half_points=(_NOT_SQUARE,),
    reference=unpatchify,
)


def check_unpatchify(fn: Callable, **grade_options) -> Report:
    """Check fn(tokens (N, T, p*p*C), grid (rows, columns), patch_size) -> images (N, C, H, W)."""
    return grade(_UNPATCHIFY, fn, **grade_options)


def _conv_to_linear_loops(weight: Tensor) -> Tensor:
    width, c, p, q = weight.shape
    matrix = weight.new_zeros(width, p * q * c)
    for row in range(p):
        for column in range(q):
            for channel in range(c):
                matrix[:, (row * q + column) * c + channel] = weight[:, channel, row, column]
    return matrix


def _weight_cases(rng: RandomInputs) -> list[Case]:
    """One weight has as many outputs as numbers in a patch."""
    shapes = [(5, 3, 2, 2), (12, 3, 2, 2), (4, 2, 4, 4), (4, 3, 3, 3), (rng.choice(6, 7), 4, 2, 2)]
    return [Case("D = {}, C = {}, p = {}".format(*s[:3]), (rng.normal(*s),)) for s in shapes]


_CONV_TO_LINEAR = Exercise(
    "conv_to_linear",
    _conv_to_linear_loops,
    _weight_cases,
    {
        "The columns have the convolution's order, channel slowest; in a token the channel is fastest.": lambda w: (
            w.flatten(1)
        ),
        "Rows and columns of the patch are exchanged.": (
            lambda w: rearrange(w, "d c p q -> d (q p c)"),
            "the order of the two axes inside a patch.",
        ),
        "The matrix is transposed: it must have a row for each output, like the weight of nn.Linear.": (
            lambda w: rearrange(w, "d c p q -> (p q c) d"),
            "the shape of the weight of nn.Linear.",
        ),
        "The axis of the outputs is moved to the end, and then cut into rows: the numbers of several outputs mix.": lambda w: (
            rearrange(w, "d c p q -> (p q c d)").reshape(len(w), -1)
        ),
        "The channel stands between row and column; it must change fastest.": lambda w: w.transpose(
            1, 2
        ).flatten(1),
        "The kernel is turned around, as in a true convolution; PyTorch's does not turn it.": lambda w: (
            rearrange(w.flip(2, 3), "d c p q -> d (p q c)")
        ),
        "Outputs and channels are exchanged: there is a row for each output.": lambda w: rearrange(
            w, "d c p q -> c (p q d)"
        ),
        "The axis of the outputs is moved to the end, channels before pixels, and then cut into rows: several outputs mix.": lambda w: (
            rearrange(w, "d c p q -> (c p q d)").reshape(len(w), -1)
        ),
        "All four axes are reversed, and then cut into rows: several outputs mix.": lambda w: rearrange(
            w, "d c p q -> (q p c d)"
        ).reshape(len(w), -1),
    },
    "lesson 03, 'From patches to tokens of width D'.",
    same_dtype=True,
    precisions=(torch.float32, torch.float16),
    reference=lambda weight: weight.permute(0, 2, 3, 1).flatten(1),
)


def check_conv_to_linear(fn: Callable, **grade_options) -> Report:
    """Check fn(weight (D, C, p, p)) -> (D, p*p*C): the convolution as a matrix for tokens of patchify."""
    return grade(_CONV_TO_LINEAR, fn, **grade_options)


class _Cut(NamedTuple):
    """A cut that gives each number of an image a place in the tokens, in an order of its own."""

    channel: Tensor  # (T, F): where each entry of each token comes from
    row: Tensor  # (T, F)
    column: Tensor  # (T, F)

    def __call__(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, T, F)
        return images[:, self.channel, self.row, self.column]


def _make_cut(places: Tensor, shape: tuple[int, int, int]) -> _Cut:
    """A cut from the place of each entry in the flattened image, (T, F)."""
    _, height, width = shape
    return _Cut(places // (height * width), places // width % height, places % width)


def _undo_cut_by_places(cut: Callable, tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    images, channels, height, width = tokens.new_zeros(len(tokens), *shape), *shape
    for place in range(channels * height * width):
        c, i, j = place // (height * width), place // width % height, place % width
        mark = tokens.new_zeros(1, *shape)
        mark[0, c, i, j] = 1
        ((token, entry),) = cut(mark)[0].nonzero().tolist()
        images[:, c, i, j] = tokens[:, token, entry]
    return images


_ONLY_OURS = (
    "It is right for the order of our `patchify` and for no other; which one this `cut` has is unknown."
)
_CHANNEL_FASTEST = (
    "It is right if the channels of a pixel are neighbors in a token, and wrong otherwise: this `cut` may put each "
    "number anywhere."
)
_SEVERAL = "It is right for one image and wrong for several: `cut` moves the numbers of each of them in the same way."


def _cut_cases(rng: RandomInputs) -> list[Case]:
    """The order of patchify, three others that the lesson names, and random ones; square and other images."""
    square, wide, tall = (3, 4, 4), (3, 4, 6), (2, 6, 4)
    kinds = [(_OURS, square, 1), ("(w h) (p q c)", tall, 3), ("(h w) (c p q)", wide, 3), (_OURS, tall, 2)]
    kinds += [("reshape", tall, 3), ("random", square, 3), ("random", tall, 1), ("random", wide, 2)]
    cases = []
    for order, shape, n in kinds:
        size, count = math.prod(shape), shape[1] * shape[2] // 4
        places = torch.arange(size).view(shape)
        if "(" in order:
            places = rearrange(places, f"c (h p) (w q) -> {order}", p=2, q=2)
        elif order == "random":
            places = rng.normal(size).argsort()
        cut = _make_cut(places.reshape(count, -1), shape)
        label = f"{_ORDER_NAMES[order]}, N = {n}, image of {'x'.join(map(str, shape))}"
        notes = _ONLY_OURS * (order != _OURS), _CHANNEL_FASTEST * (not order.endswith("(p q c)"))
        notes += _NOT_SQUARE * (shape != square), _SEVERAL * (n > 1)
        cases.append(Case(label, (cut, rng.normal(n, count, size // count), shape), notes))
    return cases


def _large_cases(rng: RandomInputs) -> list[Case]:
    """More numbers than a byte counts; half precision; more numbers than half precision counts."""
    kinds = [((4, 8, 20), torch.float64, _REPEATS), ((2, 6, 4), torch.float16, _HALF_PRECISION)]
    kinds.append(((2, 30, 35), torch.float16, (_HALF_PRECISION, _REPEATS, _REPEATS_IN_HALF)))
    cases = []
    for shape, dtype, notes in kinds:
        size = math.prod(shape)
        cut = _make_cut(rng.normal(size).argsort().reshape(shape[1], -1), shape)
        tokens = rng.normal(2, shape[1], size // shape[1]).to(dtype)
        label = f"a random order, image of {'x'.join(map(str, shape))}, {str(dtype).removeprefix('torch.')}"
        cases.append(Case(label, (cut, tokens, shape), notes))
    return cases


_REPEATS = (
    "It is right for small images and wrong for large ones: are all numbers of the counting image still different? Bytes "
    "start again after 255, and bfloat16 rounds whole numbers above 256."
)
_HALF_PRECISION = (
    "It is right for tokens in float64 and wrong for those in float16: has the result their dtype?"
)
_REPEATS_IN_HALF = (
    "It is wrong only for large images with tokens in float16, which rounds whole numbers above 2048: the counting "
    "image needs another dtype."
)

_OURS = "(h w) (p q c)"
_ORDER_NAMES = {
    _OURS: "the order of patchify",
    "(w h) (p q c)": "patches column by column",
    "(h w) (c p q)": "channel slowest",
    "reshape": "reshape alone",
    "random": "a random order",
}


def _places(cut: Callable, shape: tuple[int, int, int]) -> Tensor:
    """Place in the flattened image of each entry of the flattened tokens."""
    return cut(torch.arange(math.prod(shape)).view(1, *shape)).flatten()


def _undo_cut(cut: Callable, tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    images = tokens.new_zeros(len(tokens), math.prod(shape))
    images[:, _places(cut, shape)] = tokens.flatten(1)
    return images.view(-1, *shape)


def _unpatchify_guess(pattern: str) -> Callable:
    """Put together with patches of 2 pixels in a fixed order."""
    return lambda cut, tokens, s: rearrange(tokens, pattern, h=s[1] // 2, w=s[2] // 2, p=2, q=2)


def _undo_by_first_match(cut: Callable, tokens: Tensor, probe: Tensor) -> Tensor:
    """Look up every number of the probe image where it first occurs in the cut one."""
    equal = probe.flatten()[:, None] == cut(probe).flatten()
    return tokens.flatten(1)[:, equal.int().argmax(1)].view(-1, *probe.shape[1:])


def _counted_pixels(cut: Callable, shape: tuple[int, int, int]) -> Tensor:
    """Number of the pixel of each entry of the flattened tokens; the same in all channels."""
    return _places(cut, shape) % (shape[1] * shape[2])


def _undo_cut_in_first_channel(cut: Callable, tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    images = tokens.new_zeros(len(tokens), math.prod(shape))
    images[:, _counted_pixels(cut, shape)] = tokens.flatten(1)
    return images.view(-1, *shape)


def _undo_cut_from_one(cut: Callable, tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    images = _undo_cut(cut, tokens, shape).flatten(1).roll(1, 1)
    images[:, 0] = 0
    return images.view(-1, *shape)


_COUNTING = "lesson 03, 'The definition, in loops': the image whose pixels are numbers."

_UNDO_CUT = Exercise(
    "undo_cut",
    _undo_cut_by_places,
    _cut_cases,
    {
        "The order of the cut is applied a second time; the way back is its inverse.": (
            lambda cut, x, s: x.flatten(1)[:, _places(cut, s)].view(-1, *s),
            "what the entry k of the cut counting image says: from where, or to where?",
        ),
        "The numbers stay in the order in which the tokens have them: only the shape has changed.": (
            lambda cut, x, s: x.reshape(-1, *s)
        ),
        "The tokens are put together in the order of our `patchify`; which order this `cut` has is unknown.": (
            _unpatchify_guess("n (h w) (p q c) -> n c (h p) (w q)")
        ),
        "The tokens are put together with the channel slowest; which order this `cut` has is unknown.": (
            _unpatchify_guess("n (h w) (c p q) -> n c (h p) (w q)")
        ),
        "All images of the result are the first one; each has tokens of its own.": lambda cut, x, s: (
            _undo_cut(cut, x[:1].expand_as(x), s)
        ),
        "The images of the batch are added up.": lambda cut, x, s: _undo_cut(cut, x.sum(0, keepdim=True), s),
        "There is one image in the result; it must have one for each sequence of tokens.": lambda cut, x, s: (
            _undo_cut(cut, x[:1], s)
        ),
        "The images are still flat: each must have the shape (C, H, W).": lambda cut, x, s: _undo_cut(
            cut, x, s
        ).flatten(1),
        "Height and width are exchanged in the counting image: `shape` is channels, height, width.": lambda cut, x, s: (
            _undo_cut(cut, x, (s[0], s[2], s[1])).mT
        ),
        "Height and width of the result are exchanged: `shape` is channels, height, width.": lambda cut, x, s: (
            _undo_cut(cut, x, s).reshape(-1, s[0], s[2], s[1])
        ),
        "The numbers are back in their order, but taken as if the channels came last; `shape` has them first.": (
            lambda cut, x, s: _undo_cut(cut, x, s).reshape(-1, s[1], s[2], s[0]).permute(0, 3, 1, 2)
        ),
        "All numbers are 1: this is the gradient of the sum of the tokens, in which their values do not occur.": (
            lambda cut, x, s: x.new_ones(len(x), *s),
            "lesson 03, 'Trap: reshape without permute': what the gradient of one token shows.",
        ),
        "All numbers are divided by their count: this is the gradient of a mean, not of a sum.": lambda cut, x, s: (
            _undo_cut(cut, x, s) / x.numel()
        ),
        "Only the order of the tokens is undone; the numbers within each token are still in the order of the cut.": (
            lambda cut, x, s: x[:, cut(torch.arange(math.prod(s)).view(1, *s))[0, :, 0].argsort()].reshape(
                -1, *s
            )
        ),
        "The counting image has equal numbers in all channels, so the channels are mixed up.": lambda cut, x, s: (
            x.flatten(1)[:, _counted_pixels(cut, s).argsort()].view(-1, *s)
        ),
        "The counting image has equal numbers in all channels, so all is written into the first channel.": (
            _undo_cut_in_first_channel
        ),
        "The counting image starts at 1, so that every number lands one place too far, and the last one is lost.": (
            _undo_cut_from_one
        ),
        "The counting image starts at 1, so that every number lands one place too far, and the last one comes first.": (
            lambda cut, x, s: _undo_cut(cut, x, s).flatten(1).roll(1, 1).view(-1, *s)
        ),
        "The probe image is rounded and has equal numbers in several places; each place needs a number of its own.": (
            lambda cut, x, s: _undo_by_first_match(cut, x, torch.rand(1, *s).mul(100).round())
        ),
        "The probe image has random bytes, some of them equal; each place needs a number of its own.": (
            lambda cut, x, s: _undo_by_first_match(cut, x, torch.randint(0, 256, (1, *s)))
        ),
        "These are the places of the numbers of one image; the numbers themselves must be looked up there.": (
            lambda cut, x, s: _places(cut, s).argsort().view(1, *s).to(x)
        ),
        "These are the places of the numbers in the tokens; the numbers themselves must be looked up there.": (
            lambda cut, x, s: _places(cut, s).argsort().view(1, *s).expand(len(x), *s).to(x)
        ),
    },
    _COUNTING,
    same_dtype=True,
    edge_cases=_large_cases,
    precisions=(torch.float32,),
    reference=_undo_cut,
)


def check_undo_cut(fn: Callable, **grade_options) -> Report:
    """Check fn(cut, tokens (N, T, F), shape (C, H, W)) -> images (N, C, H, W) that `cut` turns into the tokens."""
    return grade(_UNDO_CUT, fn, **grade_options)
