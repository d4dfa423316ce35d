"""Graders of lesson 14: noising in one jump, and respaced betas."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.schedule import respaced_betas
from dit_nb.teach.graders.framework.batches import (
    _BROADCAST_HINT,
    _BROADCAST_OVER_COLUMNS,
    _SHAPES,
    _linear_alphas_cumprod,
    _one_by_one,
    _per_image,
    _timesteps,
)
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_q_sample", "check_respaced_betas"]


def _q_sample_loops(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    bar = alphas_cumprod.tolist()
    return _one_by_one(lambda s, x, e: math.sqrt(bar[s]) * x + math.sqrt(1 - bar[s]) * e, t, x0, noise)


def _q_sample_cases(rng: RandomInputs) -> list[Case]:
    """Shapes that can be confused; t = 0 is always included."""
    shapes = [*_SHAPES, (rng.choice(5, 6), 2, rng.choice(3, 4), 3)]
    bar = _linear_alphas_cumprod()
    args = [(rng.normal(*s), _timesteps(rng, s[0], 1000), rng.normal(*s), bar) for s in shapes]
    return [Case("x of {}x{}x{}x{}".format(*s), a) for s, a in zip(shapes, args)]


def _q_sample(signal: Callable, noise: Callable, pick: Callable = _per_image) -> Callable:
    """q_sample with other coefficients."""
    return lambda x0, t, eps, bar: signal(pick(bar, t)) * x0 + noise(pick(bar, t)) * eps


def _signal_scale(bar: Tensor) -> Tensor:
    return bar.sqrt()


def _noise_scale(bar: Tensor) -> Tensor:
    return (1 - bar).sqrt()


_Q_SAMPLE = Exercise(
    "q_sample",
    _q_sample_loops,
    _q_sample_cases,
    {
        "Both coefficients lack their square roots: they are variances, not amplitudes.": _q_sample(
            lambda b: b, lambda b: 1 - b
        ),
        "The noise's coefficient lacks its square root.": _q_sample(_signal_scale, lambda b: 1 - b),
        "The signal's coefficient lacks its square root.": _q_sample(lambda b: b, _noise_scale),
        "Signal and noise have each other's coefficients: the image gets clearer as t grows.": (
            _q_sample(_noise_scale, _signal_scale),
            "what is left of the image at t = 999.",
        ),
        _BROADCAST_OVER_COLUMNS: (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: bar[t]),
            _BROADCAST_HINT,
        ),
        "All images use the timestep of the first.": (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: bar[t[0]]),
            _BROADCAST_HINT,
        ),
        "It is one step early: entry t of the table belongs to timestep t, counted from 0.": (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: _per_image(bar, t - 1)),
            "the index into the table.",
        ),
        "All images use the noise of the first.": lambda x0, t, e, bar: _q_sample(
            _signal_scale, _noise_scale
        )(x0, t, e[:1], bar),
    },
    "lesson 14, 'The jump'.",
)


def check_q_sample(fn: Callable, **grade_options) -> Report:
    """Check fn(x0 (N, C, H, W), t (N,), noise (N, C, H, W), alphas_cumprod (T,)) -> x_t."""
    return grade(_Q_SAMPLE, fn, **grade_options)


def _respaced_betas_loops(alphas_cumprod: Tensor, kept: list[int]) -> Tensor:
    """Multiply the alphas of all steps between two kept ones."""
    bar, betas, product = alphas_cumprod.tolist(), [], 1.0
    for t in range(len(bar)):
        product *= bar[t] / bar[t - 1] if t else bar[0]
        if t in kept:
            betas.append(1 - product)
            product = 1.0
    return torch.tensor(betas, dtype=torch.float64)


def _kept_cases(rng: RandomInputs) -> list[Case]:
    """Equal and unequal gaps, from the first step and from a later one, and all steps."""
    some = sorted(set(rng.integers(5, 95, 8).tolist()))
    lists = [list(range(0, 1000, 111)), [0, 20, 41, 61], some, list(range(12))]
    pairs = [(_linear_alphas_cumprod(n), kept) for n, kept in zip((1000, 1000, 100, 12), lists)]
    return [Case(f"{len(p[1])} of {len(p[0])} steps, {i + 1}", p) for i, p in enumerate(pairs)]


def _betas_from(f: Callable) -> Callable:
    """Compute betas as f(alphas_cumprod of the kept steps, alphas_cumprod before them)."""
    return lambda bar, kept: f(bar[kept], torch.cat([bar.new_ones(1), bar[kept][:-1]]))


def _old_betas(bar: Tensor, kept: list[int]) -> Tensor:
    return (1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))[kept]


def _summed_betas(bar: Tensor, kept: list[int]) -> Tensor:
    total = (1 - bar / torch.cat([bar.new_ones(1), bar[:-1]])).cumsum(0)[kept]
    return torch.cat([total[:1], total.diff()])


_RESPACED_BETAS = Exercise(
    "respaced_betas",
    _respaced_betas_loops,
    _kept_cases,
    {
        "These are the old betas of the kept steps; a longer step needs a larger beta.": _old_betas,
        "The first beta is missing: before the first kept step, alphas_cumprod is 1.": lambda bar, kept: (
            1 - bar[kept][1:] / bar[kept][:-1]
        ),
        "The first beta is 0: before the first kept step, alphas_cumprod is 1.": lambda bar, kept: (
            1 - bar[kept] / torch.cat([bar[kept][:1], bar[kept][:-1]])
        ),
        "The first beta uses the last step as the one before: an index of -1 wraps around.": lambda bar, kept: (
            1 - bar[kept] / bar[kept].roll(1)
        ),
        "These are the alphas, the signal that is kept in each step; betas are 1 minus these.": _betas_from(
            lambda bar, before: bar / before
        ),
        "The ratio is upside down, so that the betas become negative.": (
            _betas_from(lambda bar, before: 1 - before / bar),
            "which of two neighbors is smaller.",
        ),
        "The betas are counted from the clean image; each must be counted from the kept step before it.": _betas_from(
            lambda bar, before: 1 - bar
        ),
        "The old betas are added up over each gap; the alphas must be multiplied.": _summed_betas,
        "These are differences; a beta is 1 minus the ratio of two neighbors.": _betas_from(
            lambda bar, before: before - bar
        ),
    },
    "lesson 14, 'New steps need new betas'.",
    tolerance=1e-10,
    reference=respaced_betas,
)


def check_respaced_betas(fn: Callable, **grade_options) -> Report:
    """Check fn(alphas_cumprod (T,), kept: S increasing timesteps) -> betas (S,) float64."""
    return grade(_RESPACED_BETAS, fn, **grade_options)
