"""The same numbers in the same shape, in other places: how a check tells orders apart."""

from collections.abc import Callable

from einops import rearrange
from torch import Tensor

from dit_nb.patchify import patchify, unpatchify
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def patchify_loops(images: Tensor, patch_size: int) -> Tensor:
    "One number at a time."
    n, c, height, width = images.shape
    p, columns = patch_size, width // patch_size
    tokens = images.new_zeros(n, (height // p) * columns, p * p * c)
    for row in range(height):
        for column in range(width):
            token = (row // p) * columns + column // p
            place = ((row % p) * p + column % p) * c
            tokens[:, token, place : place + c] = images[:, :, row, column]
    return tokens


def image_cases(draw: Draw) -> list[Case]:
    "Square, tall, wide and unlucky images."
    shapes = [(2, 3, 8, 8, 2), (2, 3, 4, 8, 2), (1, 2, 12, 4, 4), (4, 4, 6, 9, 3)]
    p = draw.pick(2, 3)
    shapes.append((draw.pick(2, 3), draw.pick(4, 5), 3 * p, draw.pick(2, 4) * p, p))
    label = "N = {}, images of {}x{}x{}, p = {}"
    return [Case(label.format(*s), (draw.normal(*s[:4]), s[4]), NOT_SQUARE * (s[2] != s[3])) for s in shapes]


NOT_SQUARE = (
    "It is right for square images and wrong for all others: height and width are taken for one another."
)


def by(pattern: str) -> Callable:
    "Patchify by another pattern: a mistake."
    return lambda images, p: rearrange(images, pattern, p=p, q=p)


PATCHIFY = Exercise(
    "patchify",
    patchify_loops,
    image_cases,
    (
        Mistake(
            "A token holds a run of neighbouring numbers in memory, not a square of the picture: "
            "the numbers are only counted off anew, never moved.",
            "lesson 03, 'Trap: reshape without permute'.",
            lambda x, p: x.reshape(len(x), -1, p * p * x.shape[1]),
        ),
        Mistake(
            "Within a patch, all pixels of one channel come first, then all of the next; "
            "the channel must change fastest.",
            "lesson 03, 'The definition, in loops': the innermost loop.",
            by("n c (h p) (w q) -> n (h w) (c p q)"),
        ),
        Mistake(
            "Within a patch, the pixels are read column by column, not row by row.",
            "the order of the two axes inside a patch.",
            by("n c (h p) (w q) -> n (h w) (q p c)"),
        ),
        Mistake(
            "The patches are laid out column by column; the first row of patches must come first.",
            "the order of the two axes of the grid.",
            by("n c (h p) (w q) -> n (w h) (p q c)"),
        ),
        Mistake(
            "A token holds every p-th pixel of the whole picture, not a block of neighbours: "
            "where an axis is split in two, place in the grid and place in the patch have changed roles.",
            "how an axis of H pixels is split: which part is the slow one?",
            by("n c (p h) (q w) -> n (h w) (p q c)"),
        ),
    ),
    "lesson 03, 'The definition, in loops'.",
    same_dtype=True,
    reference=patchify,
)


def check_patchify(
    fn: Callable,  # (images (N, C, H, W), patch_size) -> tokens (N, T, p*p*C)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`patchify(images, patch_size)`: rows of patches first; within a patch rows, columns, and the channel fastest."
    return grade(PATCHIFY, fn, **options)


def unpatchify_loops(tokens: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    "One number at a time."
    (rows, columns), p = grid, patch_size
    c = tokens.shape[2] // (p * p)
    images = tokens.new_zeros(len(tokens), c, rows * p, columns * p)
    for row in range(rows * p):
        for column in range(columns * p):
            token = (row // p) * columns + column // p
            place = ((row % p) * p + column % p) * c
            images[:, :, row, column] = tokens[:, token, place : place + c]
    return images


def token_cases(draw: Draw) -> list[Case]:
    "Tokens of square, tall, wide and unlucky images."
    shapes = [(2, 3, 4, 4, 2), (2, 3, 2, 4, 2), (1, 2, 3, 1, 4), (6, 4, 2, 3, 3)]
    shapes.append((draw.pick(2, 3), draw.pick(4, 5), draw.pick(2, 3), 4, draw.pick(2, 3)))
    label = "N = {}, grid of {}x{}, C = {}, p = {}"
    return [
        Case(
            label.format(n, rows, columns, c, p),
            (draw.normal(n, rows * columns, p * p * c), (rows, columns), p),
            NOT_SQUARE * (rows != columns),
        )
        for n, c, rows, columns, p in shapes
    ]


def back_by(pattern: str, swap: bool = False) -> Callable:
    "Unpatchify by another pattern: a mistake."
    return lambda tokens, grid, p: rearrange(tokens, pattern, h=grid[swap], w=grid[1 - swap], p=p, q=p)


UNPATCHIFY = Exercise(
    "unpatchify",
    unpatchify_loops,
    token_cases,
    (
        Mistake(
            "The numbers are only counted off anew, never moved: each token ends up as a stripe, not as a square.",
            "lesson 03, 'Trap: reshape without permute'.",
            lambda x, grid, p: x.reshape(len(x), -1, grid[0] * p, grid[1] * p),
        ),
        Mistake(
            "It returns the channels last, (N, H, W, C); images here are (N, C, H, W).",
            "the order of the axes that you return.",
            back_by("n (h w) (p q c) -> n (h p) (w q) c"),
        ),
        Mistake(
            "It takes all pixels of one channel from a token before the next channel; "
            "in a token the channel changes fastest.",
            "lesson 03, 'And back'.",
            back_by("n (h w) (c p q) -> n c (h p) (w q)"),
        ),
        Mistake(
            "Each patch comes out mirrored at its diagonal: its rows and columns are exchanged.",
            "the order of the two axes inside a patch.",
            back_by("n (h w) (q p c) -> n c (h p) (w q)"),
        ),
        Mistake(
            "The patches are laid down column by column; the first tokens are the first row.",
            "the order of the two axes of the grid.",
            back_by("n (w h) (p q c) -> n c (h p) (w q)"),
        ),
        Mistake(
            "The grid's rows and columns are exchanged: a wide picture comes out tall.",
            "which number of the grid counts rows.",
            back_by("n (h w) (p q c) -> n c (h p) (w q)", swap=True),
        ),
    ),
    "lesson 03, 'And back'.",
    same_dtype=True,
    reference=unpatchify,
)


def check_unpatchify(
    fn: Callable,  # (tokens (N, T, p*p*C), grid (rows, columns), patch_size) -> images (N, C, H, W)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`unpatchify(tokens, grid, patch_size)`: undoes `patchify`, for any grid."
    return grade(UNPATCHIFY, fn, **options)


def conv_columns(weight: Tensor) -> Tensor:
    "One number at a time."
    width, c, p, q = weight.shape
    matrix = weight.new_zeros(width, p * q * c)
    for row in range(p):
        for column in range(q):
            for channel in range(c):
                matrix[:, (row * q + column) * c + channel] = weight[:, channel, row, column]
    return matrix


def weight_cases(draw: Draw) -> list[Case]:
    "Weights, one of which has as many numbers in a patch as outputs."
    shapes = [(5, 3, 2, 2), (12, 3, 2, 2), (4, 2, 4, 4), (draw.pick(6, 7), 4, 3, 3)]
    return [Case("D = {}, C = {}, p = {}".format(*s[:3]), (draw.normal(*s),)) for s in shapes]


CONV_TO_LINEAR = Exercise(
    "conv_to_linear",
    conv_columns,
    weight_cases,
    (
        Mistake(
            "The columns are in the convolution's own order, channel slowest; in a token the channel is fastest.",
            "lesson 03, 'From patches to tokens of width D'.",
            lambda w: w.flatten(1),
        ),
        Mistake(
            "Rows and columns of the patch are exchanged.",
            "the order of the two axes inside a patch.",
            lambda w: rearrange(w, "d c p q -> d (q p c)"),
        ),
        Mistake(
            "The matrix is transposed: it must have a row for each output, as the weight of a linear layer has.",
            "the shape of the weight of nn.Linear.",
            lambda w: rearrange(w, "d c p q -> (p q c) d"),
        ),
        Mistake(
            "The numbers are counted off anew, and those of several outputs mix.",
            "which axis must stay the first.",
            lambda w: rearrange(w, "d c p q -> (p q c d)").reshape(len(w), -1),
        ),
    ),
    "lesson 03, 'From patches to tokens of width D'.",
    same_dtype=True,
    reference=lambda weight: weight.permute(0, 2, 3, 1).flatten(1),
)


def check_conv_to_linear(
    fn: Callable,  # (weight (D, C, p, p)) -> matrix (D, p*p*C)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`conv_to_linear(weight)`: the matrix that does to tokens of `patchify` what the convolution does to the image."
    return grade(CONV_TO_LINEAR, fn, **options)
