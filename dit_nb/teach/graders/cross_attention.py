"""Grader of lesson 09: cross-attention from patches to the condition."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.attention import _NO_SCALE, _OVER_QUERIES, _attention, _attention_loops
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_cross_attention"]


def _cross_attention_loops(x: Tensor, context: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    q, k, v = (torch.einsum("ntd,de->nte", a, w) for a, w in ((x, w_q), (context, w_k), (context, w_v)))
    return _attention_loops(q[:, None], k[:, None], v[:, None])[:, 0]


def _context_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as context tokens, as many as images, and more."""
    sizes = [(2, 2, 3), (3, 3, 4), (2, 5, 2), (rng.choice(2, 3), rng.choice(4, 6), 5)]
    return [
        Case(
            f"{n} x {t} tokens, D = {d}",
            (rng.normal(n, t, d), rng.normal(n, 2, d), *(rng.normal(d, d) / d**0.5 for _ in range(3))),
        )
        for n, t, d in sizes
    ]


def _cross_attention(
    q: Callable = lambda x, c: x,
    k: Callable = lambda x, c: c,
    v: Callable = lambda x, c: c,
    attention: Callable | None = None,
) -> Callable:
    """Cross-attention with other sources of queries, keys and values."""
    attend = _attention() if attention is None else attention
    return lambda x, c, w_q, w_k, w_v: attend(q(x, c) @ w_q, k(x, c) @ w_k, v(x, c) @ w_v)


def _image(x, c):
    return x


def _condition(x, c):
    return c


def _summed_condition(x, c):
    return c.sum(1, keepdim=True)


_CROSS_ATTENTION = Exercise(
    "cross_attention",
    _cross_attention_loops,
    _context_cases,
    {
        "Keys and values come from the image: that is self-attention, and the condition is not used.": (
            _cross_attention(k=_image, v=_image),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "The condition gives the queries, the image keys and values; it must be the other way round.": (
            _cross_attention(q=_condition, k=_image, v=_image),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "The queries come from the condition; they must come from the patches.": (
            _cross_attention(q=_condition),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "Timestep and label are added up to one token: with a single key all weights are 1.": (
            _cross_attention(k=_summed_condition, v=_summed_condition),
            "lesson 09, 'A context of one'.",
        ),
        "The matrices of keys and values are exchanged.": lambda x, c, w_q, w_k, w_v: _cross_attention()(
            x, c, w_q, w_v, w_k
        ),
        _OVER_QUERIES: _cross_attention(attention=_attention(weights=lambda s: s.softmax(-2))),
        _NO_SCALE: (
            _cross_attention(attention=_attention(lambda q, k: 1)),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The image is added to the result; that is the block's business, not the attention's.": lambda x, *rest: (
            x + _cross_attention()(x, *rest)
        ),
    },
    "lesson 09, 'The block'.",
    tolerance=1e-8,
    reference=_cross_attention(),
)


def check_cross_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), context (N, 2, D), w_q, w_k, w_v: each (D, D)) -> (N, T, D), one head."""
    return grade(_CROSS_ATTENTION, fn, **grade_options)
