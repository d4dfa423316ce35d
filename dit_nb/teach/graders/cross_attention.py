"""Who asks, and who answers?"""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.attention import NO_SCALE, OVER_QUERIES, attending, attention_loops
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def asking_by_hand(x: Tensor, context: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    "Each patch asks each of the two."
    q, k, v = (torch.einsum("ntd,de->nte", a, w) for a, w in ((x, w_q), (context, w_k), (context, w_v)))
    return attention_loops(q[:, None], k[:, None], v[:, None])[:, 0]


def context_cases(draw: Draw) -> list[Case]:
    "As many tokens as context, as many as images, more."
    sizes = [(2, 2, 3), (3, 3, 4), (2, 5, 2), (draw.pick(2, 3), draw.pick(4, 6), 5)]
    return [
        Case(
            f"{n} x {t} tokens, D = {d}",
            (draw.normal(n, t, d), draw.normal(n, 2, d), *(draw.normal(d, d) / d**0.5 for _ in range(3))),
        )
        for n, t, d in sizes
    ]


def asking(
    q: Callable = lambda x, c: x,
    k: Callable = lambda x, c: c,
    v: Callable = lambda x, c: c,
    attention: Callable | None = None,
) -> Callable:
    "Cross-attention in which somebody else asks or answers: a mistake."
    within = attending() if attention is None else attention
    return lambda x, c, w_q, w_k, w_v: within(q(x, c) @ w_q, k(x, c) @ w_k, v(x, c) @ w_v)


def image(x, c):
    "The image."
    return x


def told(x, c):
    "The condition."
    return c


def as_one(x, c):
    "The condition in one token."
    return c.sum(1, keepdim=True)


CROSS_ATTENTION = Exercise(
    "cross_attention",
    asking_by_hand,
    context_cases,
    (
        Mistake(
            "Keys and values come from the image: that is self-attention once more, and the condition is not used.",
            "lesson 09, 'Who asks whom'.",
            asking(k=image, v=image),
        ),
        Mistake(
            "The condition asks and the image answers; it should be the other way round.",
            "lesson 09, 'Who asks whom'.",
            asking(q=told, k=image, v=image),
        ),
        Mistake(
            "The queries come from the condition; each patch must ask.",
            "lesson 09, 'Who asks whom'.",
            asking(q=told),
        ),
        Mistake(
            "Timestep and label are added up to one token: with a single key all weights are 1, "
            "and every patch hears the same.",
            "lesson 09, 'A context of one'.",
            asking(k=as_one, v=as_one),
        ),
        Mistake(
            "The matrices of keys and values are exchanged.",
            "which matrix goes where.",
            lambda x, c, w_q, w_k, w_v: asking()(x, c, w_q, w_v, w_k),
        ),
        Mistake(
            OVER_QUERIES,
            "the axis of the softmax.",
            asking(attention=attending(weigh=lambda s: s.softmax(-2))),
        ),
        Mistake(NO_SCALE, "lesson 06, 'Why divide by √d?'.", asking(attention=attending(lambda q, k: 1))),
        Mistake(
            "The image is added to the result; that is the block's business, not the attention's.",
            "what you return.",
            lambda x, *rest: x + asking()(x, *rest),
        ),
    ),
    "lesson 09, 'The block'.",
    tolerance=1e-8,
    reference=asking(),
)


def check_cross_attention(
    fn: Callable,  # (x (N, T, D), context (N, 2, D), w_q, w_k, w_v, each (D, D)) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`cross_attention(x, context, w_q, w_k, w_v)`: one head; tokens are multiplied with a matrix from the right."
    return grade(CROSS_ATTENTION, fn, **options)
