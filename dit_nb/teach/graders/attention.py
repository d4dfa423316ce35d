"""A softmax, a reshape and a scale all run along the wrong axis without a word."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def attention_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    "One query and one key at a time."
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for n, h, i in [(n, h, i) for n in range(len(q)) for h in range(q.shape[1]) for i in range(q.shape[2])]:
        dots = [sum((a * b for a, b in zip(q[n, h, i].tolist(), key)), 0.0) for key in k[n, h].tolist()]
        powers = [math.exp(dot / math.sqrt(q.shape[3])) for dot in dots]
        for power, value in zip(powers, v[n, h]):
            out[n, h, i] += power / sum(powers) * value
    return out


def qkv_cases(draw: Draw) -> list[Case]:
    "As many keys as queries, more, and fewer."
    sizes = [(3, 3, 3, 3, 3), (2, 2, 3, 5, 4), (1, 3, 4, 2, 2), (2, draw.pick(2, 4), 4, 4, draw.pick(5, 6))]
    label = "h = {1}, {2} queries, {3} keys, d = {4}"
    return [
        Case(label.format(*s), (draw.normal(n, h, t, d), draw.normal(n, h, m, d), draw.normal(n, h, m, d)))
        for s in sizes
        for n, h, t, m, d in [s]
    ]


def attending(
    scale: Callable = lambda q, k: q.shape[-1] ** -0.5,
    weigh: Callable = lambda scores: scores.softmax(-1),
) -> Callable:
    "Attention with another scale, or other weights: a mistake."
    return lambda q, k, v: weigh(q @ k.mT * scale(q, k)) @ v


def looking_back(scores: Tensor) -> Tensor:
    "The weights of a language model."
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -math.inf).softmax(-1)


OVER_QUERIES = "The softmax runs over the queries; for each query, the weights of all keys must sum to 1."


NO_SCALE = "The scores are not scaled: in wide heads the softmax will look at one key only."


ATTENTION = Exercise(
    "attention",
    attention_loops,
    qkv_cases,
    (
        Mistake(NO_SCALE, "lesson 06, 'Why divide by √d?'.", attending(lambda q, k: 1)),
        Mistake(
            "The scores are divided by the width of a head; by its square root they should be.",
            "lesson 06, 'Why divide by √d?'.",
            attending(lambda q, k: 1 / q.shape[-1]),
        ),
        Mistake(
            "The scores are multiplied by the square root of the width; divided they should be.",
            "lesson 06, 'Why divide by √d?'.",
            attending(lambda q, k: q.shape[-1] ** 0.5),
        ),
        Mistake(
            "The scale is that of the whole model's width; each head has its own, smaller width.",
            "lesson 06, 'Why divide by √d?'.",
            attending(lambda q, k: (q.shape[1] * q.shape[-1]) ** -0.5),
        ),
        Mistake(
            "The scale comes from the number of tokens; it must come from the width of a head.",
            "which axis of q the scale counts.",
            attending(lambda q, k: k.shape[-2] ** -0.5),
        ),
        Mistake(
            OVER_QUERIES,
            "lesson 06, 'Three stages': which lines sum to 1?",
            attending(weigh=lambda s: s.softmax(-2)),
        ),
        Mistake(
            "The softmax runs over the heads; each head weighs its keys alone.",
            "the axis of the softmax.",
            attending(weigh=lambda s: s.softmax(1)),
        ),
        Mistake(
            "A token sees only those before it: that is a language model's mask. Patches look at all others.",
            "lesson 06, 'Attention does not know the order'.",
            attending(weigh=looking_back),
        ),
        Mistake(
            "There is no softmax: the weights do not sum to 1.",
            "the second stage.",
            attending(weigh=lambda s: s),
        ),
        Mistake(
            "These are the weights; the mean of the values that they weigh was asked for.",
            "what you return.",
            lambda q, k, v: (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1),
        ),
    ),
    "lesson 06, 'The recipe, in loops'.",
    tolerance=1e-8,
    reference=attending(),
)


def check_attention(
    fn: Callable,  # (q (N, h, T, d), k (N, h, S, d), v (N, h, S, d)) -> (N, h, T, d)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`attention(q, k, v)`: scaled dot-product attention, every query over all keys."
    return grade(ATTENTION, fn, **options)


def heads_one_by_one(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    "A slice of the channels for each head."
    d = q.shape[2] // num_heads
    parts = [slice(i * d, (i + 1) * d) for i in range(num_heads)]
    outs = [attention_loops(*(x[:, None, :, part] for x in (q, k, v)))[:, 0] for part in parts]
    return torch.cat(outs, -1)


def wide_cases(draw: Draw) -> list[Case]:
    "As many heads as tokens, more, and fewer; self- and cross-attention."
    sizes = [(2, 3, 3, 6, 3), (1, 4, 4, 8, 2), (2, 2, 5, 6, 2), (draw.pick(2, 3), 4, 2, 8, draw.pick(2, 4))]
    label = "{1} queries, {2} keys, D = {3}, {4} heads"
    return [
        Case(label.format(*s), (draw.normal(n, t, w), draw.normal(n, m, w), draw.normal(n, m, w), heads))
        for s in sizes
        for n, t, m, w, heads in [s]
    ]


def cut(x: Tensor, h: int) -> Tensor:
    "Channels to heads."
    return rearrange(x, "n t (h d) -> n h t d", h=h)


def sewn(x: Tensor) -> Tensor:
    "Heads to channels."
    return rearrange(x, "n h t d -> n t (h d)")


def miscut(x: Tensor, h: int) -> Tensor:
    "Heads by a reshape that moves nothing."
    return x.reshape(len(x), h, x.shape[1], -1)


def missewn(x: Tensor) -> Tensor:
    "Channels by a reshape that moves nothing."
    return x.reshape(len(x), x.shape[2], -1)


def headed(before: Callable = cut, after: Callable = sewn, attention: Callable | None = None) -> Callable:
    "Multi-head attention with another way to cut or to sew: a mistake."
    within = attending() if attention is None else attention
    return lambda q, k, v, h: after(within(*(before(x, h) for x in (q, k, v))))


MULTI_HEAD = Exercise(
    "multi_head",
    heads_one_by_one,
    wide_cases,
    (
        Mistake(
            "The heads are sewn together by a reshape alone: numbers of one head land in several tokens. "
            "Heads must stand next to the channels first.",
            "lesson 06, 'Many heads': the way back.",
            headed(after=missewn),
        ),
        Mistake(
            "The heads are cut by a reshape alone: a head gets whole tokens, where it should get some channels of each.",
            "lesson 06, 'Many heads': the way in.",
            headed(miscut),
        ),
        Mistake(
            "Cutting and sewing are reshapes that move nothing: the shapes are right, the tokens are mixed up.",
            "lesson 06, 'Many heads'.",
            headed(miscut, missewn),
        ),
        Mistake(
            "Each head takes every h-th channel; it must take neighbours.",
            "lesson 06, 'The order of the rows: a quiet trap'.",
            headed(
                lambda x, h: rearrange(x, "n t (d h) -> n h t d", h=h),
                lambda x: rearrange(x, "n h t d -> n t (d h)"),
            ),
        ),
        Mistake(
            "The heads are cut from neighbouring channels, but sewn together with channels alternating.",
            "the way back.",
            headed(after=lambda x: rearrange(x, "n h t d -> n t (d h)")),
        ),
        Mistake(
            "The scale is that of the whole width D; a head is only D/h wide.",
            "lesson 06, 'Why divide by √d?'.",
            headed(attention=attending(lambda q, k: (q.shape[1] * q.shape[-1]) ** -0.5)),
        ),
        Mistake(
            "There is only one head: num_heads is given, but not used.",
            "lesson 06, 'Many heads'.",
            lambda q, k, v, h: headed()(q, k, v, 1),
        ),
        Mistake(
            OVER_QUERIES,
            "the axis of the softmax.",
            headed(attention=attending(weigh=lambda s: s.softmax(-2))),
        ),
        Mistake(NO_SCALE, "lesson 06, 'Why divide by √d?'.", headed(attention=attending(lambda q, k: 1))),
    ),
    "lesson 06, 'Many heads'.",
    tolerance=1e-8,
    reference=headed(),
)


def check_multi_head(
    fn: Callable,  # (q (N, T, D), k (N, S, D), v (N, S, D), num_heads) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`multi_head(q, k, v, num_heads)`: head i works on the i-th run of D/h channels; no projections."
    return grade(MULTI_HEAD, fn, **options)
