"""One coefficient for each image, and losses that multiply."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.schedule import respaced_betas
from dit_nb.teach.graders.framework.batches import (
    NOT_SPREAD,
    RESHAPE,
    SHAPES,
    bars,
    one_by_one,
    per_image,
    times,
)
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def noised_by_hand(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    "One image at a time."
    bar = alphas_cumprod.tolist()
    return one_by_one(lambda s, x, e: math.sqrt(bar[s]) * x + math.sqrt(1 - bar[s]) * e, t, x0, noise)


def noising_cases(draw: Draw) -> list[Case]:
    "Unlucky shapes; among the timesteps always 0."
    shapes = [*SHAPES, (draw.pick(5, 6), 2, draw.pick(3, 4), 3)]
    args = [(draw.normal(*s), times(draw, s[0], 1000), draw.normal(*s), bars()) for s in shapes]
    return [Case("x of {}x{}x{}x{}".format(*s), a) for s, a in zip(shapes, args)]


def noising(signal: Callable, noise: Callable, pick: Callable = per_image) -> Callable:
    "q_sample with other coefficients: a mistake."
    return lambda x0, t, eps, bar: signal(pick(bar, t)) * x0 + noise(pick(bar, t)) * eps


def root(bar: Tensor) -> Tensor:
    "The signal's amplitude."
    return bar.sqrt()


def root_rest(bar: Tensor) -> Tensor:
    "The noise's amplitude."
    return (1 - bar).sqrt()


Q_SAMPLE = Exercise(
    "q_sample",
    noised_by_hand,
    noising_cases,
    (
        Mistake(
            "Both coefficients lack their square roots: they are variances, not amplitudes, "
            "and the variance of x_t does not stay 1.",
            "lesson 14, 'The jump'.",
            noising(lambda b: b, lambda b: 1 - b),
        ),
        Mistake(
            "The noise's coefficient lacks its square root.",
            "lesson 14, 'The jump'.",
            noising(root, lambda b: 1 - b),
        ),
        Mistake(
            "The signal's coefficient lacks its square root.",
            "lesson 14, 'The jump'.",
            noising(lambda b: b, root_rest),
        ),
        Mistake(
            "Signal and noise have each other's coefficients: the picture gets clearer as t grows.",
            "what is left of the picture at t = 999.",
            noising(root_rest, root),
        ),
        Mistake(NOT_SPREAD, RESHAPE, noising(root, root_rest, lambda bar, t: bar[t])),
        Mistake(
            "All images are noised for the timestep of the first.",
            RESHAPE,
            noising(root, root_rest, lambda bar, t: bar[t[0]]),
        ),
        Mistake(
            "It is one step early: entry t of the table belongs to timestep t, counted from 0.",
            "the index into the table.",
            noising(root, root_rest, lambda bar, t: per_image(bar, t - 1)),
        ),
        Mistake(
            "All images get the noise of the first.",
            "what is multiplied with the noise's coefficient.",
            lambda x0, t, e, bar: noising(root, root_rest)(x0, t, e[:1], bar),
        ),
    ),
    "lesson 14, 'The jump'.",
)


def check_q_sample(
    fn: Callable,  # (x0 (N, C, H, W), t (N,), noise (N, C, H, W), alphas_cumprod (T,)) -> x_t (N, C, H, W)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`q_sample(x0, t, noise, alphas_cumprod)`: noise images in one jump; entry t of the table is timestep t, from 0."
    return grade(Q_SAMPLE, fn, **options)


def betas_by_walking(alphas_cumprod: Tensor, kept: list[int]) -> Tensor:
    "Walk over all steps, and count what is lost between two kept ones."
    bar, betas, product = alphas_cumprod.tolist(), [], 1.0
    for t in range(len(bar)):
        product *= bar[t] / bar[t - 1] if t else bar[0]
        if t in kept:
            betas.append(1 - product)
            product = 1.0
    return torch.tensor(betas, dtype=torch.float64)


def kept_cases(draw: Draw) -> list[Case]:
    "Equal and unequal gaps, from the first step and from a later one, and all steps."
    some = sorted(set(draw.whole(5, 95, 8).tolist()))
    lists = [list(range(0, 1000, 111)), [0, 20, 41, 61], some, list(range(12))]
    tables = [bars(), bars(), bars(100), bars(12)]
    return [
        Case(f"{len(kept)} of {len(bar)} steps, {i + 1}", (bar, kept))
        for i, (bar, kept) in enumerate(zip(tables, lists))
    ]


def spaced(f: Callable) -> Callable:
    "Betas by another formula of (kept shares, those before): a mistake."
    return lambda bar, kept: f(bar[kept], torch.cat([bar.new_ones(1), bar[kept][:-1]]))


def old_betas(bar: Tensor, kept: list[int]) -> Tensor:
    "The betas of the full process."
    return (1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))[kept]


def summed_betas(bar: Tensor, kept: list[int]) -> Tensor:
    "Old betas, added up from one kept step to the next."
    total = (1 - bar / torch.cat([bar.new_ones(1), bar[:-1]])).cumsum(0)[kept]
    return torch.cat([total[:1], total.diff()])


RESPACED_BETAS = Exercise(
    "respaced_betas",
    betas_by_walking,
    kept_cases,
    (
        Mistake(
            "These are the old betas of the kept steps; a longer step loses more, so it needs a larger beta.",
            "lesson 14, 'New steps need new betas'.",
            old_betas,
        ),
        Mistake(
            "The first beta is missing: before the first kept step the share of signal is 1.",
            "how many betas there must be.",
            lambda bar, kept: 1 - bar[kept][1:] / bar[kept][:-1],
        ),
        Mistake(
            "The first beta is 0: before the first kept step the share of signal is 1, not that of the step itself.",
            "the first entry.",
            lambda bar, kept: 1 - bar[kept] / torch.cat([bar[kept][:1], bar[kept][:-1]]),
        ),
        Mistake(
            "The first beta looks back at the last step: an index of -1 wraps around.",
            "the first entry.",
            lambda bar, kept: 1 - bar[kept] / bar[kept].roll(1),
        ),
        Mistake(
            "These are the shares that are kept in each step; betas are what is lost.",
            "what a beta is.",
            spaced(lambda bar, before: bar / before),
        ),
        Mistake(
            "The ratio is upside down, so that the betas come out negative.",
            "which of two neighbours is the smaller.",
            spaced(lambda bar, before: 1 - before / bar),
        ),
        Mistake(
            "The betas are counted from the clean image; each must be counted from the kept step before it.",
            "lesson 14, 'New steps need new betas'.",
            spaced(lambda bar, before: 1 - bar),
        ),
        Mistake(
            "The old betas are added up over each gap; losses multiply, they do not add.",
            "lesson 14, 'New steps need new betas'.",
            summed_betas,
        ),
        Mistake(
            "These are differences; a loss is measured by the ratio of two neighbours.",
            "lesson 14, 'New steps need new betas'.",
            spaced(lambda bar, before: before - bar),
        ),
    ),
    "lesson 14, 'New steps need new betas'.",
    tolerance=1e-10,
    reference=respaced_betas,
)


def check_respaced_betas(
    fn: Callable,  # (alphas_cumprod (T,), kept, a rising list of S timesteps) -> (S,) float64
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`respaced_betas(alphas_cumprod, kept)`: betas of the process that visits the kept timesteps only."
    return grade(RESPACED_BETAS, fn, **options)
