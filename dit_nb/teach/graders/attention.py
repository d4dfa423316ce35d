"""Graders of lesson 06: scaled dot-product attention, and multi-head attention."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_attention", "check_multi_head"]


def _attention_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for n, h, i in [(n, h, i) for n in range(len(q)) for h in range(q.shape[1]) for i in range(q.shape[2])]:
        dots = [sum((a * b for a, b in zip(q[n, h, i].tolist(), key)), 0.0) for key in k[n, h].tolist()]
        powers = [math.exp(dot / math.sqrt(q.shape[3])) for dot in dots]
        for power, value in zip(powers, v[n, h]):
            out[n, h, i] += power / sum(powers) * value
    return out


def _qkv_cases(rng: RandomInputs) -> list[Case]:
    """As many keys as queries, more keys, and fewer."""
    sizes = [(3, 3, 3, 3, 3), (2, 2, 3, 5, 4), (1, 3, 4, 2, 2), (2, rng.choice(2, 4), 4, 4, rng.choice(5, 6))]
    label = "h = {1}, {2} queries, {3} keys, d = {4}"
    return [
        Case(label.format(*s), (rng.normal(n, h, t, d), rng.normal(n, h, m, d), rng.normal(n, h, m, d)))
        for s in sizes
        for n, h, t, m, d in [s]
    ]


def _attention(
    scale: Callable = lambda q, k: q.shape[-1] ** -0.5,
    weights: Callable = lambda scores: scores.softmax(-1),
) -> Callable:
    """Attention with another scale or other weights."""
    return lambda q, k, v: weights(q @ k.mT * scale(q, k)) @ v


def _causal_weights(scores: Tensor) -> Tensor:
    """Softmax with a causal mask."""
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -math.inf).softmax(-1)


_OVER_QUERIES = "The softmax runs over the queries; for each query, the weights of all keys must sum to 1."
_NO_SCALE = "The scores are not scaled: in wide heads the softmax would attend to one key only."

_ATTENTION = Exercise(
    "attention",
    _attention_loops,
    _qkv_cases,
    {
        _NO_SCALE: (_attention(lambda q, k: 1), "lesson 06, 'Why divide by √d?'."),
        "The scores are divided by the width of a head; they should be divided by its square root.": (
            _attention(lambda q, k: 1 / q.shape[-1]),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scores are multiplied by the square root of the width; they should be divided by it.": (
            _attention(lambda q, k: q.shape[-1] ** 0.5),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scale uses the whole model's width; each head has its own, smaller width.": (
            _attention(lambda q, k: (q.shape[1] * q.shape[-1]) ** -0.5),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scale comes from the number of tokens; it must come from the width of a head.": (
            _attention(lambda q, k: k.shape[-2] ** -0.5),
            "which axis of q gives the scale.",
        ),
        _OVER_QUERIES: (
            _attention(weights=lambda s: s.softmax(-2)),
            "lesson 06, 'Three stages': which rows sum to 1?",
        ),
        "The softmax runs over the heads; each head weights its own keys.": _attention(
            weights=lambda s: s.softmax(1)
        ),
        "A token attends only to those before it, as in a language model; patches attend to all.": (
            _attention(weights=_causal_weights),
            "lesson 06, 'Attention does not know the order'.",
        ),
        "There is no softmax: the weights do not sum to 1.": _attention(weights=lambda s: s),
        "These are the weights; return the weighted mean of the values instead.": lambda q, k, v: (
            q @ k.mT * q.shape[-1] ** -0.5
        ).softmax(-1),
    },
    "lesson 06, 'The recipe, in loops'.",
    tolerance=1e-8,
    reference=_attention(),
)


def check_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(q (N, h, T, d), k (N, h, S, d), v (N, h, S, d)) -> (N, h, T, d)."""
    return grade(_ATTENTION, fn, **grade_options)


def _multi_head_loops(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    d = q.shape[2] // num_heads
    parts = [slice(i * d, (i + 1) * d) for i in range(num_heads)]
    outs = [_attention_loops(*(x[:, None, :, part] for x in (q, k, v)))[:, 0] for part in parts]
    return torch.cat(outs, -1)


def _multi_head_cases(rng: RandomInputs) -> list[Case]:
    """As many heads as tokens, more, and fewer; self- and cross-attention."""
    sizes = [(2, 3, 3, 6, 3), (1, 4, 4, 8, 2), (2, 2, 5, 6, 2), (rng.choice(2, 3), 4, 2, 8, rng.choice(2, 4))]
    label = "{1} queries, {2} keys, D = {3}, {4} heads"
    return [
        Case(label.format(*s), (rng.normal(n, t, w), rng.normal(n, m, w), rng.normal(n, m, w), heads))
        for s in sizes
        for n, t, m, w, heads in [s]
    ]


def _split_heads(x: Tensor, h: int) -> Tensor:
    return rearrange(x, "n t (h d) -> n h t d", h=h)


def _merge_heads(x: Tensor) -> Tensor:
    return rearrange(x, "n h t d -> n t (h d)")


def _reshape_to_heads(x: Tensor, h: int) -> Tensor:
    return x.reshape(len(x), h, x.shape[1], -1)


def _reshape_from_heads(x: Tensor) -> Tensor:
    return x.reshape(len(x), x.shape[2], -1)


def _multi_head(
    split: Callable = _split_heads, merge: Callable = _merge_heads, attention: Callable | None = None
) -> Callable:
    """Multi-head attention with other ways to split and merge."""
    attend = _attention() if attention is None else attention
    return lambda q, k, v, h: merge(attend(*(split(x, h) for x in (q, k, v))))


_MULTI_HEAD = Exercise(
    "multi_head",
    _multi_head_loops,
    _multi_head_cases,
    {
        "The heads are merged by a reshape alone: move the axis of the heads to the channels first.": (
            _multi_head(merge=_reshape_from_heads),
            "lesson 06, 'Many heads': the way back.",
        ),
        "The heads are split by a reshape alone: a head must get some channels of each token.": (
            _multi_head(_reshape_to_heads),
            "lesson 06, 'Many heads': the way in.",
        ),
        "Splitting and merging are reshapes that move nothing, so the tokens are mixed up.": _multi_head(
            _reshape_to_heads, _reshape_from_heads
        ),
        "Each head takes every h-th channel; it must take neighboring channels.": (
            _multi_head(
                lambda x, h: rearrange(x, "n t (d h) -> n h t d", h=h),
                lambda x: rearrange(x, "n h t d -> n t (d h)"),
            ),
            "lesson 06, 'Trap: the order of the rows'.",
        ),
        "The heads are split into neighboring channels, but merged with channels alternating.": _multi_head(
            merge=lambda x: rearrange(x, "n h t d -> n t (d h)")
        ),
        "The scale is that of the whole width D; a head is only D/h wide.": (
            _multi_head(attention=_attention(lambda q, k: (q.shape[1] * q.shape[-1]) ** -0.5)),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "There is only one head: num_heads is given, but not used.": lambda q, k, v, h: _multi_head()(
            q, k, v, 1
        ),
        _OVER_QUERIES: _multi_head(attention=_attention(weights=lambda s: s.softmax(-2))),
        _NO_SCALE: (_multi_head(attention=_attention(lambda q, k: 1)), "lesson 06, 'Why divide by √d?'."),
    },
    "lesson 06, 'Many heads'.",
    tolerance=1e-8,
    reference=_multi_head(),
)


def check_multi_head(fn: Callable, **grade_options) -> Report:
    """Check fn(q (N, T, D), k (N, S, D), v (N, S, D), num_heads) -> (N, T, D), without projections."""
    return grade(_MULTI_HEAD, fn, **grade_options)
