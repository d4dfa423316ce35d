"""A last frequency that is a little off, and a null class that is a real one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.conditioning import timestep_embedding
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.positions import INTERLEAVED, RISING, TOO_EARLY, waves


def timestep_by_hand(t: Tensor, dim: int, max_period: float) -> Tensor:
    "One cosine at a time."
    half = dim // 2
    rows = []
    for step in t.tolist():
        angles = [step * math.exp(-math.log(max_period) * i / half) for i in range(half)]
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)


def timestep_cases(draw: Draw) -> list[Case]:
    "Early and late, as many as the width, another period."
    edges = torch.tensor([0, 1, 500, 999])
    cases = [Case("t = 0, 1, 500, 999", (edges, 8, 10000.0)), Case("as many as dim", (edges, 4, 10000.0))]
    cases.append(Case("random t, dim 16", (draw.whole(0, 1000, 5), 16, 10000.0)))
    cases.append(Case("max_period = 100", (draw.whole(1, 1000, 3), 12, 100.0), OTHER_PERIOD))
    return cases


OTHER_PERIOD = "It is right for the usual period only: max_period is given, but not used."


FIRST = (torch.cos, torch.sin)


def steps(power: Callable = lambda i, half: -i / half, scale: float = 1.0, **knobs) -> Callable:
    "A timestep embedding with the knobs of `waves`."
    return lambda t, d, period: waves(t * scale, d, power, period, **{"order": FIRST, **knobs})


TIMESTEP_EMBEDDING = Exercise(
    "timestep_embedding",
    timestep_by_hand,
    timestep_cases,
    (
        Mistake(
            "The sines come first; here the cosines do (the position table has it the other way round).",
            "lesson 05, 'A timestep as waves'.",
            steps(order=FIRST[::-1]),
        ),
        Mistake(TOO_EARLY, "lesson 05, 'Trap: 127 for 128'.", steps(lambda i, h: -i / max(h - 1, 1))),
        Mistake(
            "The timesteps are squeezed into [0, 1]: all embeddings are nearly alike.",
            "lesson 05, 'Trap: t between 0 and 1'.",
            steps(scale=1 / 1000),
        ),
        Mistake(INTERLEAVED, "how the two are put together.", steps(stack=True)),
        Mistake(
            "The frequencies fall half as fast per channel as they should: the step is counted in dim, not in dim/2.",
            "what the exponent is divided by.",
            steps(lambda i, h: -i / (2 * h)),
        ),
        Mistake(RISING, "the sign of the exponent.", steps(lambda i, h: i / h)),
        Mistake(
            "The timesteps are counted from 1; here they are counted from 0, and t = 0 gives cosines of 1.",
            "what happens to t before the waves.",
            lambda t, d, period: steps()(t + 1, d, period),
        ),
    ),
    "lesson 05, 'A timestep as waves'.",
    tolerance=2e-4,  # float32 is fine: at t = 999 it costs about 6e-5
    reference=timestep_embedding,
)


def check_timestep_embedding(
    fn: Callable,  # (t (N,) long, dim, max_period) -> (N, dim)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`timestep_embedding(t, dim, max_period)`: dim/2 cosines, then dim/2 sines; frequencies fall from 1 towards 1/max_period."
    return grade(TIMESTEP_EMBEDDING, fn, **options)


def hide_by_hand(y: Tensor, coins: Tensor, dropout_prob: float, num_classes: int, training: bool) -> Tensor:
    "One label at a time."
    hidden = [training and coin < dropout_prob for coin in coins.tolist()]
    return torch.tensor([num_classes if hide else label for hide, label in zip(hidden, y.tolist())])


def label_cases(draw: Draw) -> list[Case]:
    "In training, with much and little hidden, and in eval mode; the first coin hides, the second does not."
    cases = []
    for n, k, p, training in [(12, 3, 0.3, True), (6, 10, 0.1, True), (9, 5, 0.6, True), (8, 4, 0.3, False)]:
        coins = draw.uniform(0, 1, n)
        coins[:2] = torch.tensor([p / 2, (1 + p) / 2], dtype=coins.dtype)
        where = "in training" if training else "in eval mode"
        y = 1 + draw.whole(0, k - 2, n)  # neither the first class nor the last: those are the mistakes
        cases.append(Case(f"{n} labels, K = {k}, p = {p}, {where}", (y, coins, p, k, training)))
    return cases


def hide(null: Callable = lambda k: k, which: Callable = lambda u, p, on: (u < p) & on) -> Callable:
    "Label dropout with another null class, or another choice: a mistake."
    return lambda y, u, p, k, on: torch.where(which(u, p, on), null(k), y)


NULL = "The null class must be a class of its own, after all the others: "


LABEL_DROPOUT = Exercise(
    "label_dropout",
    hide_by_hand,
    label_cases,
    (
        Mistake(NULL + "0 is a real class.", "lesson 05, 'Labels, and no label'.", hide(lambda k: 0)),
        Mistake(
            NULL + "this one is the last real class.", "how many rows the table has.", hide(lambda k: k - 1)
        ),
        Mistake(NULL + "a table has no row -1.", "how many rows the table has.", hide(lambda k: -1)),
        Mistake(NULL + "1000 is right for ImageNet only.", "what num_classes is for.", hide(lambda k: 1000)),
        Mistake(
            "One coin decides for the whole batch; each image needs its own.",
            "which coins are looked at.",
            hide(which=lambda u, p, on: (u[:1] < p) & on),
        ),
        Mistake(
            "Labels are hidden in eval mode too: a sampler would lose the labels that it was given.",
            "what training says.",
            hide(which=lambda u, p, on: u < p),
        ),
        Mistake(
            "It hides the labels that it should keep, and keeps those it should hide.",
            "the direction of the comparison.",
            hide(which=lambda u, p, on: (u >= p) & on),
        ),
        Mistake(
            "Labels are hidden in eval mode and kept in training: it is the wrong way round.",
            "what training says.",
            hide(which=lambda u, p, on: (u < p) & (not on)),
        ),
        Mistake("No label is ever hidden.", "what the coins are for.", lambda y, u, p, k, on: y.clone()),
    ),
    "lesson 05, 'Labels, and no label'.",
    reference=hide(),
)


def check_label_dropout(
    fn: Callable,  # (y (N,), coins (N,), dropout_prob, num_classes, training) -> labels (N,)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`label_dropout(y, coins, dropout_prob, num_classes, training)`: labels, some of them replaced by the null class."
    return grade(LABEL_DROPOUT, fn, **options)
