"""Graders of lesson 10: modulation, and the six modulation fields from the condition."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from dit_nb.blocks.adaln import modulate
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_modulate", "check_adaln_fields"]


def _modulate_loops(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[n, i, j] = x[n, i, j] + scale[n, 0, j] * x[n, i, j] + shift[n, 0, j]
    return out


def _modulate_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as images, more, and fewer."""
    sizes = [(3, 3, 4), (2, 5, 3), (4, 2, 2), (rng.choice(2, 3), rng.choice(6, 7), 4)]
    return [
        Case(f"{n} x {t} tokens, D = {d}", (rng.normal(n, t, d), rng.normal(n, 1, d), rng.normal(n, 1, d)))
        for n, t, d in sizes
    ]


_SCALE_WITHOUT_ONE = "A scale of 0 sets the tokens to zero; it must leave them as they are."

_MODULATE = Exercise(
    "modulate",
    _modulate_loops,
    _modulate_cases,
    {
        _SCALE_WITHOUT_ONE: (lambda x, shift, scale: x * scale + shift, "lesson 10, 'Why 1 + scale'."),
        "Shift and scale are exchanged.": lambda x, shift, scale: x + x * shift + scale,
        "The shift is scaled too: it must be added last.": lambda x, shift, scale: (x + shift) * (1 + scale),
        "Shift and scale lack the axis of the tokens: if T = N, a token gets another image's numbers.": (
            lambda x, shift, scale: torch.addcmul(x + shift[:, 0], x, scale[:, 0]),
            "lesson 10, 'The trap that raises no error'.",
        ),
        "All images get the first image's condition.": lambda x, shift, scale: torch.addcmul(
            x + shift[:1], x, scale[:1]
        ),
        "The tokens are added to their modulated copy; return the modulated copy alone.": lambda x, shift, scale: (
            torch.addcmul(2 * x + shift, x, scale)
        ),
        "The shift is missing.": lambda x, shift, scale: torch.addcmul(x, x, scale),
    },
    "lesson 10, 'Modulate'.",
    reference=modulate,
)


def check_modulate(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), shift (N, 1, D), scale (N, 1, D)) -> (N, T, D)."""
    return grade(_MODULATE, fn, **grade_options)


def _fields_loops(c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    width = c.shape[1]
    images = []
    for one in c.tolist():
        hidden = [value / (1 + math.exp(-value)) for value in one]
        pairs = zip(weight.tolist(), bias.tolist())
        images.append([sum((a * b for a, b in zip(line, hidden)), start) for line, start in pairs])
    table = c.new_tensor(images)
    return tuple(table[:, None, i * width : (i + 1) * width] for i in range(6))


def _field_cases(rng: RandomInputs) -> list[Case]:
    sizes = [(3, 3), (2, 5), (6, 4), (rng.choice(4, 5), 2)]
    return [
        Case(f"N = {n}, D = {d}", (rng.normal(n, d), rng.normal(6 * d, d), rng.normal(6 * d)))
        for n, d in sizes
    ]


def _fields(
    activation: Callable = nn.functional.silu,
    order: tuple = (0, 1, 2, 3, 4, 5),
    shape: str = "n (f d) -> f n 1 d",
) -> Callable:
    """Six fields with another activation or order."""

    def fields(c, weight, bias):
        parts = rearrange(activation(c) @ weight.T + bias, shape, f=6)
        return tuple(parts[i] for i in order)

    return fields


_ADALN_FIELDS = Exercise(
    "adaln_fields",
    _fields_loops,
    _field_cases,
    {
        "The condition goes into the linear layer as it is; a SiLU comes before it.": _fields(lambda c: c),
        "The SiLU comes after the linear layer; it must come before it.": lambda c, w, b: tuple(
            nn.functional.silu(f) for f in _fields(lambda c: c)(c, w, b)
        ),
        "The condition goes through a ReLU; it must go through a SiLU.": _fields(torch.relu),
        "Scale comes before shift; in the checkpoints of DiT the order is shift, scale, gate.": (
            _fields(order=(1, 0, 2, 4, 3, 5)),
            "lesson 11, 'The order that checkpoints have'.",
        ),
        "The gates come first; in the checkpoints of DiT the order is shift, scale, gate.": (
            _fields(order=(2, 0, 1, 5, 3, 4)),
            "lesson 11, 'The order that checkpoints have'.",
        ),
        "The two branches alternate; attention's three must come first, then the MLP's three.": (
            _fields(order=(0, 2, 4, 1, 3, 5)),
            "lesson 11, 'The order that checkpoints have'.",
        ),
        "The MLP's three come before those of attention.": (
            _fields(order=(3, 4, 5, 0, 1, 2)),
            "lesson 11, 'The order that checkpoints have'.",
        ),
        "Each field takes every sixth number; it must take neighboring numbers.": (
            _fields(shape="n (d f) -> f n 1 d"),
            "how the result of the linear layer is split.",
        ),
        "The fields have no axis for the tokens: if T = N, they broadcast wrongly, without an error.": (
            _fields(shape="n (f d) -> f n d"),
            "lesson 10, 'The trap that raises no error'.",
        ),
    },
    "lesson 10, 'From t and y to shift and scale'.",
    result_names=tuple(f"{f} of {b}" for b in ("attention", "the MLP") for f in ("shift", "scale", "gate")),
    reference=_fields(),
)


def check_adaln_fields(fn: Callable, **grade_options) -> Report:
    """Check fn(c (N, D), weight (6D, D), bias (6D,)) -> six tensors (N, 1, D)."""
    return grade(_ADALN_FIELDS, fn, **grade_options)
