"""Graders of lesson 06: scaled dot-product attention, multi-head attention, and two heads in one."""

import math
from collections.abc import Callable
from itertools import product

import torch
from einops import rearrange
from torch import Tensor, nn

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_add_scores", "check_attention", "check_multi_head"]


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


def _reshaped_keys(k: Tensor) -> Tensor:
    """Keys whose transpose is a reshape of the right ones."""
    return k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2]).mT


def _shared_map(weights: Callable) -> Callable:
    """Attention in which all heads have the same weights."""
    return _attention(weights=lambda s: weights(s).expand_as(s))


_RESHAPED_KEYS = "The keys are reshaped where they must be transposed: the numbers of different keys mix."
_SCORES_ADDED = "The heads' scores are added and share one softmax; each head has a softmax of its own."
_SCORES_AVERAGED = "The heads' scores are averaged and share one softmax; each head has a softmax of its own."
_WEIGHTS_AVERAGED = "The weights are averaged over the heads; each head has weights of its own."
_SHARED = {
    _SCORES_ADDED: _shared_map(lambda s: s.sum(1, keepdim=True).softmax(-1)),
    _SCORES_AVERAGED: _shared_map(lambda s: s.mean(1, keepdim=True).softmax(-1)),
    _WEIGHTS_AVERAGED: _shared_map(lambda s: s.softmax(-1).mean(1, keepdim=True)),
}
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
        "The scale comes from the number of queries (axis 2 of q), not from the width of a head (the last axis).": (
            _attention(lambda q, k: q.shape[2] ** -0.5),
            "lesson 06, 'Why divide by √d?': the trap.",
        ),
        "The scale comes from the number of keys (axis 2 of k), not from the width of a head (the last axis).": (
            _attention(lambda q, k: k.shape[2] ** -0.5),
            "lesson 06, 'Why divide by √d?': the trap.",
        ),
        "The scale comes from the number of heads (axis 1 of q), not from the width of a head (the last axis).": (
            _attention(lambda q, k: q.shape[1] ** -0.5),
            "lesson 06, 'Why divide by √d?': the trap.",
        ),
        "The scale comes after the softmax, so the weights no longer sum to 1; it must come before.": (
            lambda q, k, v: (q @ k.mT).softmax(-1) * q.shape[-1] ** -0.5 @ v,
            "lesson 06, 'Three stages': their order.",
        ),
        _OVER_QUERIES: (
            _attention(weights=lambda s: s.softmax(-2)),
            "lesson 06, 'Three stages': which rows sum to 1?",
        ),
        "The softmax runs over the heads; each head weights its own keys.": _attention(
            weights=lambda s: s.softmax(1)
        ),
        "The scores go through a sigmoid, one by one; only a softmax makes the weights of a query sum to 1.": (
            _attention(weights=torch.sigmoid),
            "lesson 06, 'Three stages'.",
        ),
        "The scores are divided by their sum; a softmax takes their exponentials first.": (
            _attention(weights=lambda s: s / s.sum(-1, keepdim=True)),
            "lesson 06, 'The recipe, in loops'.",
        ),
        "The exponentials are not divided by their sum, so the weights do not sum to 1.": (
            _attention(weights=torch.exp),
            "lesson 06, 'The recipe, in loops'.",
        ),
        "The weights are logarithms: log_softmax is for losses, softmax for weights.": (
            _attention(weights=lambda s: s.log_softmax(-1)),
            "lesson 06, 'Three stages'.",
        ),
        "The scores have the wrong sign: the worst key gets most weight.": _attention(
            lambda q, k: -(q.shape[-1] ** -0.5)
        ),
        "This is the mean of the keys; the weights belong to the values.": (
            lambda q, k, v: _attention()(q, k, k),
            "lesson 06, 'The recipe, in loops'.",
        ),
        "Queries are compared with values; they must be compared with keys.": (
            lambda q, k, v: _attention()(q, v, v),
            "lesson 06, 'The recipe, in loops'.",
        ),
        "The queries are added to the result: that is a residual connection, the block's task.": (
            lambda q, k, v: q + _attention()(q, k, v)
        ),
        "Queries and keys are normalized first; their lengths are part of the score.": (
            lambda q, k, v: _attention()(
                nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1), v
            )
        ),
        "The softmax runs over the images of the batch; each image weights its own keys.": _attention(
            weights=lambda s: s.softmax(0)
        ),
        "The softmax runs over queries and keys together; the weights of each single query must sum to 1.": (
            _attention(weights=lambda s: s.flatten(-2).softmax(-1).view_as(s)),
            "lesson 06, 'Three stages': which rows sum to 1?",
        ),
        "A token attends only to those before it, as in a language model; patches attend to all.": (
            _attention(weights=_causal_weights),
            "lesson 06, 'Attention does not know the order'.",
        ),
        "There is no softmax: the weights do not sum to 1.": _attention(weights=lambda s: s),
        "These are the weights; return the weighted mean of the values instead.": lambda q, k, v: (
            q @ k.mT * q.shape[-1] ** -0.5
        ).softmax(-1),
        "There is no softmax: the scores are divided by the number of keys.": _attention(
            weights=lambda s: s / s.shape[-1]
        ),
        "Queries and keys are normalized, and the scores not divided: a score depends on their lengths too.": (
            lambda q, k, v: _attention(lambda q, k: 1)(
                nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1), v
            )
        ),
        "The softmax comes twice: weights are no scores.": _attention(
            weights=lambda s: s.softmax(-1).softmax(-1)
        ),
        "All weight goes to the best key; the others count too.": _attention(
            weights=lambda s: nn.functional.one_hot(s.argmax(-1), s.shape[-1]).to(s.dtype)
        ),
        "Negative scores become 0, and there is no softmax: the weights do not sum to 1.": _attention(
            weights=lambda s: s.relu()
        ),
        "All keys get the same weight: the scores are not used.": _attention(
            weights=lambda s: torch.full_like(s, 1 / s.shape[-1])
        ),
        "The scores lose their sign before the softmax.": _attention(weights=lambda s: s.abs().softmax(-1)),
        "The scores go through a tanh, one by one; only a softmax makes the weights of a query sum to 1.": _attention(
            weights=lambda s: s.tanh()
        ),
        "The weighted mean is divided by the number of keys: the weights sum to 1 already.": _attention(
            weights=lambda s: s.softmax(-1) / s.shape[-1]
        ),
        "The scores go through a sigmoid before they are divided by their sum; a softmax takes exponentials.": _attention(
            weights=lambda s: s.sigmoid() / s.sigmoid().sum(-1, keepdim=True)
        ),
        _RESHAPED_KEYS: lambda q, k, v: _attention()(q, _reshaped_keys(k), v),
        **_SHARED,
    },
    "lesson 06, 'The recipe, in loops'.",
    tolerance=1e-8,
    reference=_attention(),
    precisions=(torch.float32,),
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


def _same_tokens(x: Tensor, q: Tensor) -> Tensor:
    """Refuse other numbers of tokens, which only exchanged axes would mix up."""
    if x.shape[:2] != q.shape[:2]:
        raise ValueError("sizes do not fit")
    return x


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
        "The number of heads is used as the width of a head, which is D/h.": (
            lambda q, k, v, h: _multi_head()(q, k, v, q.shape[-1] // h),
            "lesson 06, 'Many heads'.",
        ),
        "The heads come back with images and heads exchanged: leave the axes in the order in which they were split.": (
            lambda q, k, v, h: (
                rearrange(
                    _merge_heads(_attention()(*(_split_heads(x, h) for x in (q, k, v)))),
                    "n t (h d) -> (n h) t d",
                    h=h,
                )
                .unflatten(0, (h, -1))
                .permute(1, 2, 0, 3)
                .flatten(2)
            )
        ),
        "A token attends only to those before it, as in a language model; patches attend to all.": _multi_head(
            attention=_attention(weights=_causal_weights)
        ),
        "The scores are divided by the width of a head; they should be divided by its square root.": (
            _multi_head(attention=_attention(lambda q, k: 1 / q.shape[-1])),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scale comes from the number of tokens; it must come from the width of a head.": (
            _multi_head(attention=_attention(lambda q, k: q.shape[2] ** -0.5)),
            "lesson 06, 'Why divide by √d?': the trap.",
        ),
        "The scale comes from the number of heads; it must come from the width of a head.": (
            _multi_head(attention=_attention(lambda q, k: q.shape[1] ** -0.5)),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "There is only one head: num_heads is given, but not used.": lambda q, k, v, h: _multi_head()(
            q, k, v, 1
        ),
        _OVER_QUERIES: _multi_head(attention=_attention(weights=lambda s: s.softmax(-2))),
        _NO_SCALE: (_multi_head(attention=_attention(lambda q, k: 1)), "lesson 06, 'Why divide by √d?'."),
        **{message: _multi_head(attention=attend) for message, attend in _SHARED.items()},
        _RESHAPED_KEYS: _multi_head(attention=lambda q, k, v: _attention()(q, _reshaped_keys(k), v)),
        "The heads of one token attend to each other: the axis of the heads must come before that of the tokens.": (
            _multi_head(
                lambda x, h: x.unflatten(2, (h, -1)),
                lambda x: x.flatten(2),
                lambda q, k, v: _attention()(*(_same_tokens(x, q) for x in (q, k, v))),
            ),
            "lesson 06, 'Many heads': the way in.",
        ),
        "The results of the heads are averaged; they must stand side by side.": lambda q, k, v, h: (
            _attention()(*(_split_heads(x, h) for x in (q, k, v))).mean(1)
        ),
        "The last head is lost: the result is too narrow.": _multi_head(
            merge=lambda x: _merge_heads(x[:, :-1])
        ),
        "The first head is lost: the result is too narrow.": _multi_head(
            merge=lambda x: _merge_heads(x[:, 1:])
        ),
        "Only the last head is returned: is the result replaced in the loop?": _multi_head(
            merge=lambda x: x[:, -1]
        ),
        "Only the first head is returned: is there a return inside the loop?": _multi_head(
            merge=lambda x: x[:, 0]
        ),
        "The results of the heads are added up; they must stand side by side.": _multi_head(
            merge=lambda x: x.sum(1)
        ),
        "The heads are stacked on a new first axis; their channels must stand side by side.": _multi_head(
            merge=lambda x: x.transpose(0, 1)
        ),
        "The heads still have an axis of their own; their channels must stand side by side.": _multi_head(
            merge=lambda x: x
        ),
        "The heads stand behind each other on the axis of the tokens; their channels must stand side by side.": _multi_head(
            merge=lambda x: x.flatten(1, 2)
        ),
        "The heads stand behind each other on the axis of the images; their channels must stand side by side.": _multi_head(
            merge=lambda x: x.transpose(0, 1).flatten(0, 1)
        ),
        "The first head stands in every place: each head has channels of its own.": _multi_head(
            merge=lambda x: _merge_heads(x[:, :1].expand_as(x))
        ),
        "The heads are joined in reverse order.": _multi_head(merge=lambda x: _merge_heads(x.flip(1))),
        "The mean of the heads stands in every place; each head keeps its own result.": _multi_head(
            merge=lambda x: _merge_heads(x.mean(1, keepdim=True).expand_as(x))
        ),
        "The last head is zero: does the loop end too early?": _multi_head(
            merge=lambda x: _merge_heads(torch.cat([x[:, :-1], 0 * x[:, -1:]], 1))
        ),
    },
    "lesson 06, 'Many heads'.",
    tolerance=1e-8,
    reference=_multi_head(),
    precisions=(torch.float32,),
)


def check_multi_head(fn: Callable, **grade_options) -> Report:
    """Check fn(q (N, T, D), k (N, S, D), v (N, S, D), num_heads) -> (N, T, D), without projections."""
    return grade(_MULTI_HEAD, fn, **grade_options)


def _score_loops(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor) -> tuple[Tensor, Tensor]:
    """The wanted scores as queries, and one-hot keys."""
    scores = torch.zeros(*q1.shape[:3], k1.shape[2], dtype=q1.dtype)
    for n, h, i, j in product(*map(range, scores.shape)):
        for q, k in ((q1, k1), (q2, k2)):
            pairs = zip(q[n, h, i].tolist(), k[n, h, j].tolist())
            scores[n, h, i, j] += sum(a * b for a, b in pairs) / math.sqrt(q.shape[3])
    width = k1.shape[2]
    return scores * math.sqrt(width), torch.eye(width, dtype=q1.dtype).expand(*q1.shape[:2], width, width)


def _score_cases(rng: RandomInputs) -> list[Case]:
    """As many keys as queries, more keys, and fewer; all sizes equal, and all different."""
    sizes = [(2, 2, 2, 2, 2), (2, 3, 4, 5, 3), (1, 2, 4, 3, 5), (2, rng.choice(3, 4), 5, 5, rng.choice(4, 6))]
    label = "h = {1}, {2} queries, {3} keys, d = {4}"
    return [
        Case(label.format(*s), tuple(rng.normal(n, h, tokens, d) for tokens in (t, m, t, m)))
        for s in sizes
        for n, h, t, m, d in [s]
    ]


def _scaled_scores(fn: Callable, *heads: Tensor) -> Tensor | None:
    """What attention makes of the queries and keys that fn returns; None if it returns nothing."""
    made = fn(*heads)
    if made is None:
        return None
    if not (isinstance(made, tuple | list) and len(made) == 2 and all(isinstance(z, Tensor) for z in made)):
        raise TypeError("the result must be two tensors, the queries and the keys of the new head")
    q, k = made
    if q.ndim != 4 or k.ndim != 4 or q.shape[3] != k.shape[3] or q.shape[:2] != k.shape[:2]:
        sizes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise ValueError(
            f"queries and keys of shapes {sizes} do not fit together as (N, h, T, d) and (N, h, S, d)"
        )
    return q @ k.mT / q.shape[3] ** 0.5


def _concatenated(factor: float = 1.0, dim: int = -1) -> Callable:
    """Two heads side by side along an axis, with a factor on the queries."""
    return lambda q1, k1, q2, k2: (factor * torch.cat([q1, q2], dim), torch.cat([k1, k2], dim))


def _half_alternating(queries: bool, factor: float) -> Callable:
    """The channels of both heads in turn in the queries or in the keys, and side by side in the others."""

    def joined(q1, k1, q2, k2):
        in_turn, beside = (
            (lambda a, b: torch.stack([a, b], -1).flatten(-2)),
            (lambda a, b: torch.cat([a, b], -1)),
        )
        of_q, of_k = (in_turn, beside) if queries else (beside, in_turn)
        return factor * of_q(q1, q2), of_k(k1, k2)

    return joined


_ALTERNATING = {
    "In the {} the channels of both heads alternate, in the {} they stand side by side: "
    "channels that do not belong together are multiplied{}.".format(*names, end): _half_alternating(
        queries, factor
    )
    for queries, names in ((True, ("queries", "keys")), (False, ("keys", "queries")))
    for factor, end in ((2**0.5, ""), (1.0, ", and the scores are too small by √2"))
}

_ADD_SCORES = Exercise(
    "add_scores",
    _score_loops,
    _score_cases,
    {
        "The scores are too small by √2: the new head is twice as wide, and attention divides by the root of that.": (
            _concatenated(),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scores are too large by √2: the factors on queries and on keys multiply, and together they must give √2, not 2.": (
            _concatenated(2.0),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scores are divided by √d twice: attention itself divides once more.": (
            lambda q1, k1, q2, k2: _concatenated((2 / q1.shape[-1]) ** 0.5)(q1, k1, q2, k2),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The heads are added, so each query also meets the other head's keys: their channels must stay apart.": (
            lambda q1, k1, q2, k2: (q1 + q2, k1 + k2)
        ),
        "The heads are averaged, so each query also meets the other head's keys: their channels must stay apart.": (
            lambda q1, k1, q2, k2: ((q1 + q2) / 2, (k1 + k2) / 2)
        ),
        "The heads are multiplied entry by entry; products of entries are not products of weights.": (
            lambda q1, k1, q2, k2: (q1 * q2, k1 * k2)
        ),
        "Queries and keys are in different orders: each query meets the other head's keys.": (
            lambda q1, k1, q2, k2: (2**0.5 * torch.cat([q1, q2], -1), torch.cat([k2, k1], -1))
        ),
        **_ALTERNATING,
        "Queries and keys are in different orders, and the scores are too small by √2.": (
            lambda q1, k1, q2, k2: (torch.cat([q1, q2], -1), torch.cat([k2, k1], -1))
        ),
        "The first head's keys stand in both halves; each query needs the keys of its own head.": (
            lambda q1, k1, q2, k2: (2**0.5 * torch.cat([q1, q2], -1), torch.cat([k1, k1], -1))
        ),
        "The heads stand side by side on the axis of the heads: there are still two of them.": (
            _concatenated(dim=1),
            "lesson 06, 'Many heads'.",
        ),
        "The heads stand behind each other on the axis of the tokens: a query then chooses between them.": (
            _concatenated(dim=2),
            "along which axis queries and keys are joined.",
        ),
        "Only the first head is used.": lambda q1, k1, q2, k2: (q1, k1),
        "Only the second head is used.": lambda q1, k1, q2, k2: (q2, k2),
        "The scores are not scaled at all: √(2d) undoes attention's whole division, and √d must stay.": (
            lambda q1, k1, q2, k2: _concatenated((2 * q1.shape[-1]) ** 0.5)(q1, k1, q2, k2),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The scores are half of what they should be: the factor √2 divides where it must multiply.": (
            _concatenated(2**-0.5),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The factor is on the first head only; both are divided by a root that is too large.": (
            lambda q1, k1, q2, k2: _concatenated()(2**0.5 * q1, k1, q2, k2)
        ),
        "The factor is on the second head only; both are divided by a root that is too large.": (
            lambda q1, k1, q2, k2: _concatenated()(q1, k1, 2**0.5 * q2, k2)
        ),
        "The second head's keys stand in both halves; each query needs the keys of its own head.": lambda q1, k1, q2, k2: (
            2**0.5 * torch.cat([q1, q2], -1),
            torch.cat([k2, k2], -1),
        ),
        "The second head's queries stand in both halves; each head has its own.": lambda q1, k1, q2, k2: (
            2**0.5 * torch.cat([q2, q2], -1),
            torch.cat([k1, k2], -1),
        ),
        "The first head's queries stand in both halves; each head has its own.": lambda q1, k1, q2, k2: (
            2**0.5 * torch.cat([q1, q1], -1),
            torch.cat([k1, k2], -1),
        ),
        "The second head's scores are subtracted; they must be added.": lambda q1, k1, q2, k2: (
            2**0.5 * torch.cat([q1, -q2], -1),
            torch.cat([k1, k2], -1),
        ),
        "The scores are too small by the fourth root of 2: the factor is on one side alone.": lambda q1, k1, q2, k2: (
            2**0.25 * torch.cat([q1, q2], -1),
            torch.cat([k1, k2], -1),
        ),
        "The factor is the root of a head's width; it must make up for the wider head alone.": lambda q1, k1, q2, k2: (
            q1.shape[-1] ** 0.5 * torch.cat([q1, q2], -1),
            torch.cat([k1, k2], -1),
        ),
    },
    "lesson 06, 'What a head can look for'.",
    result_names=("score",),
    tolerance=1e-8,
    probe=_scaled_scores,
    reference=_concatenated(2**0.5),
    precisions=(torch.float32,),
)


def check_add_scores(fn: Callable, **grade_options) -> Report:
    """Check fn(q1, k1, q2, k2) -> queries, keys: their scaled scores are the sums of those of both heads."""
    return grade(_ADD_SCORES, fn, **grade_options)
