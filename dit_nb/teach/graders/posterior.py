"""Graders of lessons 14 and 15: posterior of the forward process, and the learned variance."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import learned_log_variance
from dit_nb.teach.graders.framework.batches import _SHAPES, _per_image, _timesteps
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_q_posterior", "check_learned_log_variance"]


def _q_posterior_bayes(x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply two Gaussians: precisions add, and they weight the means."""
    bar = [1.0, *torch.cumprod(1 - betas, 0).tolist()]  # bar[t] is alphas_cumprod before step t

    def both(step, clean, noisy):
        beta, before = betas[step].item(), 1 - bar[step]
        if step == 0:
            return clean, None
        from_now, from_clean = (1 - beta) / beta, 1 / before
        total = from_now + from_clean
        mean = noisy / math.sqrt(1 - beta) * from_now + math.sqrt(bar[step]) * clean * from_clean
        return mean / total, -math.log(total)

    found = [both(*each) for each in zip(t.tolist(), x0, x_t)]
    first_log = both(1, x0[0], x_t[0])[1]  # the log variance at t = 0 would be that of 0
    logs = [first_log if log is None else log for _, log in found]
    return torch.stack([mean for mean, _ in found]), x_t.new_tensor(logs).reshape(-1, 1, 1, 1)


def _posterior_cases(rng: RandomInputs) -> list[Case]:
    """The usual process, and a short one with large steps; t = 0 is always included."""
    usual, short = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), rng.uniform(0.05, 0.4, 12)
    cases = []
    for shape, betas in zip([*_SHAPES, (5, 2, 3, 5)], (usual, short, usual, short)):
        args = (rng.normal(*shape), rng.normal(*shape), _timesteps(rng, shape[0], len(betas)), betas)
        cases.append(Case("x of {}x{}x{}x{}, ".format(*shape) + f"T = {len(betas)}", args))
    return cases


def _q_posterior(
    previous: Callable = lambda bar: torch.cat([bar.new_ones(1), bar[:-1]]),
    swap: bool = False,
    signal: Callable = lambda bar, before: before,
    variance: Callable = lambda small, beta: torch.cat([small[1:2], small[1:]]),
    log: Callable = torch.log,
) -> Callable:
    """q_posterior with parameters for known mistakes."""

    def q_posterior(x0, x_t, t, betas):
        bar = torch.cumprod(1 - betas, 0)
        before = previous(bar)
        clean = betas * signal(bar, before).sqrt() / (1 - bar)
        noisy = (1 - before) * (1 - betas).sqrt() / (1 - bar)
        clean, noisy = (noisy, clean) if swap else (clean, noisy)
        small = variance(betas * (1 - before) / (1 - bar), betas)
        return _per_image(clean, t) * x0 + _per_image(noisy, t) * x_t, _per_image(log(small), t)

    return q_posterior


_Q_POSTERIOR = Exercise(
    "q_posterior",
    _q_posterior_bayes,
    _posterior_cases,
    {
        "The clean image and x_t have each other's weights in the mean.": (
            _q_posterior(swap=True),
            "lesson 14, 'One step back': which of the two counts for more when t is large?",
        ),
        "Before the first step there is no noise: alphas_cumprod is 1 there, not 0.": (
            _q_posterior(lambda bar: torch.cat([bar.new_zeros(1), bar[:-1]])),
            "the entry before the first of the table.",
        ),
        "At t = 0 the previous entry wraps around to the last of the table, which is nearly pure noise.": (
            _q_posterior(lambda bar: bar.roll(1)),
            "what index -1 means.",
        ),
        "The variance is that of a step forward; with x_0 known, a step back has a smaller one.": (
            _q_posterior(variance=lambda small, beta: beta),
            "lesson 14, 'The variance of a step back'.",
        ),
        "At t = 0 the log variance is log(0), minus infinity. Use the entry of t = 1 instead.": (
            _q_posterior(variance=lambda small, beta: small),
            "lesson 14, 'All the tables at once'.",
        ),
        "The second result is the variance; return its logarithm.": _q_posterior(log=lambda v: v),
        "The second result is half the log variance: the logarithm of the standard deviation.": _q_posterior(
            log=lambda v: v.log() / 2
        ),
        "The weight of x_0 uses alphas_cumprod after the step; it needs that before the step.": (
            _q_posterior(signal=lambda bar, before: bar),
            "lesson 14, 'One step back': which entry is the earlier one?",
        ),
    },
    "lesson 14, 'One step back'.",
    result_names=("mean", "log variance"),
    tolerance=1e-8,
)


def check_q_posterior(fn: Callable, **grade_options) -> Report:
    """Check fn(x0, x_t: (N, C, H, W), t (N,), betas (T,)) -> mean, log variance (N, 1, 1, 1)."""
    return grade(_Q_POSTERIOR, fn, **grade_options)


def _log_variance_loops(values: Tensor, min_log: Tensor, max_log: Tensor) -> Tensor:
    lows, highs = min_log.expand_as(values), max_log.expand_as(values)
    triples = zip(values.flatten().tolist(), lows.flatten().tolist(), highs.flatten().tolist())
    found = [low + (high - low) * (0.5 + 0.5 * v) for v, low, high in triples]
    return values.new_tensor(found).reshape(values.shape)


def _variance_cases(rng: RandomInputs) -> list[Case]:
    """Values from -1.4 to 1.4."""
    shapes = [*_SHAPES, (rng.choice(5, 6), 2, 3, 3)]
    cases = []
    for shape in shapes:
        low = rng.uniform(-10, -4, shape[0], 1, 1, 1)
        args = (rng.uniform(-1.4, 1.4, *shape), low, low + rng.uniform(0.3, 4, shape[0], 1, 1, 1))
        cases.append(Case("values of {}x{}x{}x{}".format(*shape), args))
    return cases


def _interpolate(fraction: Callable, swap: bool = False) -> Callable:
    return lambda v, low, high: torch.lerp(high if swap else low, low if swap else high, fraction(v))


_LEARNED_LOG_VARIANCE = Exercise(
    "learned_log_variance",
    _log_variance_loops,
    _variance_cases,
    {
        "The value is used as the fraction itself; it runs from -1 to 1, and 0 means half way.": _interpolate(
            lambda v: v
        ),
        "The two ends are exchanged: a value of 1 must give the larger variance.": _interpolate(
            lambda v: (v + 1) / 2, swap=True
        ),
        "The variances are interpolated; their logarithms should be.": (
            lambda v, low, high: torch.lerp(low.exp(), high.exp(), (v + 1) / 2).log(),
            "lesson 15, 'The learned variance': on a log scale.",
        ),
        "The values are clamped to [-1, 1]; beyond it the gradient would be zero.": (
            _interpolate(lambda v: (v.clamp(-1, 1) + 1) / 2),
            "what happens to a value of 1.2.",
        ),
        "The values go through a sigmoid; they are used as they are.": _interpolate(torch.sigmoid),
        "The values go through a tanh; they are used as they are.": _interpolate(
            lambda v: (v.tanh() + 1) / 2
        ),
        "The result is the variance; return its logarithm.": lambda v, low, high: torch.lerp(
            low, high, (v + 1) / 2
        ).exp(),
    },
    "lesson 15, 'The learned variance'.",
    reference=learned_log_variance,
)


def check_learned_log_variance(fn: Callable, **grade_options) -> Report:
    """Check fn(values (N, C, H, W), min_log, max_log: (N, 1, 1, 1)) -> (N, C, H, W)."""
    return grade(_LEARNED_LOG_VARIANCE, fn, **grade_options)
