"""Normalise, stretch, move: three short lines with many ways to be wrong."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from dit_nb.blocks.adaln import modulate
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def modulated_by_hand(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    "One number at a time."
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[n, i, j] = x[n, i, j] + scale[n, 0, j] * x[n, i, j] + shift[n, 0, j]
    return out


def modulate_cases(draw: Draw) -> list[Case]:
    "As many tokens as images, more, and fewer."
    sizes = [(3, 3, 4), (2, 5, 3), (4, 2, 2), (draw.pick(2, 3), draw.pick(6, 7), 4)]
    return [
        Case(f"{n} x {t} tokens, D = {d}", (draw.normal(n, t, d), draw.normal(n, 1, d), draw.normal(n, 1, d)))
        for n, t, d in sizes
    ]


NO_ONE = "A scale of 0 wipes the tokens out; it must leave them as they are."


MODULATE = Exercise(
    "modulate",
    modulated_by_hand,
    modulate_cases,
    (
        Mistake(NO_ONE, "lesson 10, 'Why 1 + scale'.", lambda x, shift, scale: x * scale + shift),
        Mistake(
            "Shift and scale are exchanged.",
            "the order of the arguments.",
            lambda x, shift, scale: x + x * shift + scale,
        ),
        Mistake(
            "The shift is stretched too: it must be added last.",
            "the order of the two steps.",
            lambda x, shift, scale: (x + shift) * (1 + scale),
        ),
        Mistake(
            "The axis of the tokens is gone from shift and scale: where there are as many tokens as images, "
            "each token gets another image's numbers.",
            "lesson 10, 'The trap that runs silently'.",
            lambda x, shift, scale: torch.addcmul(x + shift[:, 0], x, scale[:, 0]),
        ),
        Mistake(
            "All images get the first image's condition.",
            "the axis of the batch.",
            lambda x, shift, scale: torch.addcmul(x + shift[:1], x, scale[:1]),
        ),
        Mistake(
            "The tokens themselves are lost: only their modulated copy should be returned once, not added to them.",
            "what you return.",
            lambda x, shift, scale: torch.addcmul(2 * x + shift, x, scale),
        ),
        Mistake(
            "The shift is missing.", "the second step.", lambda x, shift, scale: torch.addcmul(x, x, scale)
        ),
    ),
    "lesson 10, 'Modulate'.",
    reference=modulate,
)


def check_modulate(
    fn: Callable,  # (x (N, T, D), shift (N, 1, D), scale (N, 1, D)) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`modulate(x, shift, scale)`: stretch, then move, each channel; a scale of 0 changes nothing."
    return grade(MODULATE, fn, **options)


def fields_by_hand(c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    "One image at a time, one number at a time."
    width = c.shape[1]
    images = []
    for one in c.tolist():
        hidden = [value / (1 + math.exp(-value)) for value in one]
        pairs = zip(weight.tolist(), bias.tolist())
        images.append([sum((a * b for a, b in zip(line, hidden)), start) for line, start in pairs])
    table = c.new_tensor(images)
    return tuple(table[:, None, i * width : (i + 1) * width] for i in range(6))


def field_cases(draw: Draw) -> list[Case]:
    "Widths that are as large as the batch, and others."
    sizes = [(3, 3), (2, 5), (6, 4), (draw.pick(4, 5), 2)]
    return [
        Case(f"N = {n}, D = {d}", (draw.normal(n, d), draw.normal(6 * d, d), draw.normal(6 * d)))
        for n, d in sizes
    ]


def fields(
    active: Callable = nn.functional.silu,
    order: tuple = (0, 1, 2, 3, 4, 5),
    shape: str = "n (f d) -> f n 1 d",
) -> Callable:
    "Six fields with another activation or order: a mistake."

    def turned(c, weight, bias):
        parts = rearrange(active(c) @ weight.T + bias, shape, f=6)
        return tuple(parts[i] for i in order)

    return turned


ADALN_FIELDS = Exercise(
    "adaln_fields",
    fields_by_hand,
    field_cases,
    (
        Mistake(
            "The condition goes into the linear layer as it is; a SiLU stands before it.",
            "lesson 10, 'From t and y to shift and scale'.",
            fields(lambda c: c),
        ),
        Mistake(
            "The SiLU stands behind the linear layer; it stands before it.",
            "lesson 10, 'From t and y to shift and scale'.",
            lambda c, w, b: tuple(nn.functional.silu(f) for f in fields(lambda c: c)(c, w, b)),
        ),
        Mistake(
            "The condition goes through a ReLU; a SiLU was asked for.",
            "the activation.",
            fields(torch.relu),
        ),
        Mistake(
            "Scale comes before shift; in the checkpoints of DiT the order is shift, scale, gate.",
            "lesson 11, 'The order that checkpoints have'.",
            fields(order=(1, 0, 2, 4, 3, 5)),
        ),
        Mistake(
            "The gates come first; in the checkpoints of DiT the order is shift, scale, gate.",
            "lesson 11, 'The order that checkpoints have'.",
            fields(order=(2, 0, 1, 5, 3, 4)),
        ),
        Mistake(
            "The two branches alternate; all three of attention come first, then the three of the MLP.",
            "lesson 11, 'The order that checkpoints have'.",
            fields(order=(0, 2, 4, 1, 3, 5)),
        ),
        Mistake(
            "The MLP's three come before those of attention.",
            "lesson 11, 'The order that checkpoints have'.",
            fields(order=(3, 4, 5, 0, 1, 2)),
        ),
        Mistake(
            "Each field takes every sixth number; it must take a run of neighbours.",
            "how the linear layer's result is cut.",
            fields(shape="n (d f) -> f n 1 d"),
        ),
        Mistake(
            "The fields have no axis for the tokens: with as many tokens as images they would broadcast wrongly, "
            "without a word.",
            "lesson 10, 'The trap that runs silently'.",
            fields(shape="n (f d) -> f n d"),
        ),
    ),
    "lesson 10, 'From t and y to shift and scale'.",
    parts=(
        "shift of attention",
        "scale of attention",
        "gate of attention",
        "shift of the MLP",
        "scale of the MLP",
        "gate of the MLP",
    ),
    reference=fields(),
)


def check_adaln_fields(
    fn: Callable,  # (c (N, D), weight (6D, D), bias (6D,)) -> six tensors (N, 1, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`adaln_fields(c, weight, bias)`: SiLU, a linear layer, then shift, scale, gate of attention and of the MLP."
    return grade(ADALN_FIELDS, fn, **options)
