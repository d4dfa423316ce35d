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
    product: Callable = lambda betas: torch.cumprod(1 - betas, 0),
    clean: Callable = lambda beta, bar, before: beta * before.sqrt() / (1 - bar),
    noisy: Callable = lambda beta, bar, before: (1 - before) * (1 - beta).sqrt() / (1 - bar),
    swap: bool = False,
    small: Callable = lambda beta, bar, before: beta * (1 - before) / (1 - bar),
    first: Callable = lambda small, beta: torch.cat([small[1:2], small[1:]]),
    log: Callable = torch.log,
) -> Callable:
    """q_posterior with parameters for known mistakes."""

    def q_posterior(x0, x_t, t, betas):
        bar = product(betas)
        tables = betas, bar, previous(bar)
        of_x0, of_xt = clean(*tables), noisy(*tables)
        of_x0, of_xt = (of_xt, of_x0) if swap else (of_x0, of_xt)
        variance = log(first(small(*tables), betas))
        return _per_image(of_x0, t) * x0 + _per_image(of_xt, t) * x_t, _per_image(variance, t)

    return q_posterior


def _first_after_picking(first: Callable) -> Callable:
    """q_posterior that replaces the variance at t = 0 only after the table was indexed with t."""

    def q_posterior(x0, x_t, t, betas):
        mean, variance = _q_posterior(first=lambda small, beta: small, log=lambda v: v)(x0, x_t, t, betas)
        return mean, first(variance, (t == 0).view(-1, 1, 1, 1)).log()

    return q_posterior


_AFTER_HINT = "lesson 14, 'One step back': which entry is the earlier one?"
_FIRST_HINT = "lesson 14, 'The variance of a step back': the callout on t = 0."

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
        "The entry before the first of the table is missing: the first entry stands for its own predecessor.": (
            _q_posterior(lambda bar: torch.cat([bar[:1], bar[:-1]])),
            "what alphas_cumprod is before any step.",
        ),
        "The earlier entry is the later one: the table is shifted the wrong way.": (
            _q_posterior(lambda bar: torch.cat([bar[1:], bar[-1:]])),
            _AFTER_HINT,
        ),
        "The variance is that of a step forward; with x_0 known, a step back has a smaller one.": (
            _q_posterior(first=lambda small, beta: beta),
            "lesson 14, 'The variance of a step back'.",
        ),
        "At t = 0 the log variance is log(0), minus infinity. Use the entry of t = 1 instead.": (
            _q_posterior(first=lambda small, beta: small),
            _FIRST_HINT,
        ),
        **{
            f"At t = 0 the variance is clamped to {least:g}, an arbitrary number. Use the entry of t = 1 instead.": (
                _q_posterior(first=lambda small, beta, least=least: small.clamp(min=least)),
                _FIRST_HINT,
            )
            for least in (1e-20, 1e-12, 1e-10, 1e-8)
        },
        "At t = 0 the log variance is that of beta; it must be the posterior's at t = 1.": (
            _q_posterior(first=lambda small, beta: torch.cat([beta[:1], small[1:]])),
            _FIRST_HINT,
        ),
        "At t = 0 the log variance is that of the second image of the batch: entry 1 is taken after the table was indexed "
        "with t.": (
            _first_after_picking(lambda variance, first: torch.where(first, variance[1], variance)),
            "what entry 1 means before and after the table is indexed with t.",
        ),
        "The first image of the batch gets the log variance of the second: entry 1 is taken after the table was indexed "
        "with t.": (
            _first_after_picking(lambda variance, first: torch.cat([variance[1:2], variance[1:]])),
            "what entry 1 means before and after the table is indexed with t.",
        ),
        "At t = 0 the log variance is set to 0, which is a variance of 1. Use the entry of t = 1 instead.": (
            _q_posterior(first=lambda small, beta: torch.cat([beta.new_ones(1), small[1:]])),
            _FIRST_HINT,
        ),
        "The second result is the variance; return its logarithm.": _q_posterior(log=lambda v: v),
        "The second result is half the log variance: the logarithm of the standard deviation.": _q_posterior(
            log=lambda v: v.log() / 2
        ),
        "The weight of x_0 uses alphas_cumprod after the step; it needs that before the step.": (
            _q_posterior(clean=lambda beta, bar, before: beta * bar.sqrt() / (1 - bar)),
            _AFTER_HINT,
        ),
        "The weight of x_t uses alphas_cumprod after the step; it needs that before the step.": (
            _q_posterior(noisy=lambda beta, bar, before: (1 - beta).sqrt()),
            _AFTER_HINT,
        ),
        "The table of alphas_cumprod after the step stands everywhere; the formulas need that before it, too.": (
            _q_posterior(lambda bar: bar, first=lambda small, beta: small),
            _AFTER_HINT,
        ),
        "The table of alphas_cumprod after the step stands in the mean; both weights need that before it.": (
            _q_posterior(
                clean=lambda beta, bar, before: beta * bar.sqrt() / (1 - bar),
                noisy=lambda beta, bar, before: (1 - beta).sqrt(),
            ),
            _AFTER_HINT,
        ),
        "The weight of x_t has the root of alphas_cumprod; it needs that of 1 - beta, the alpha of this step alone.": (
            _q_posterior(noisy=lambda beta, bar, before: (1 - before) * bar.sqrt() / (1 - bar)),
            "the difference between alpha and alpha bar.",
        ),
        "The timesteps are shifted by one: in code they are counted from 0, and entry t belongs to timestep t.": (
            lambda x0, x_t, t, betas: _q_posterior()(x0, x_t, (t - 1).clamp(min=0), betas)
        ),
        "The timesteps are shifted by one, so that t = 0 wraps around: entry t belongs to timestep t.": (
            lambda x0, x_t, t, betas: _q_posterior()(x0, x_t, t - 1, betas)
        ),
        "At t = 0 the mean is that of t = 1, too; only the log variance has no entry of its own there.": (
            lambda x0, x_t, t, betas: _q_posterior()(x0, x_t, t.clamp(min=1), betas)
        ),
        "The second result is the standard deviation; return the logarithm of the variance.": _q_posterior(
            log=lambda v: v.sqrt()
        ),
        "The logarithm has base 10; it must be the natural one.": _q_posterior(log=torch.log10),
        "The logarithm has base 2; it must be the natural one.": _q_posterior(log=torch.log2),
        "The first result is a sample, with noise; return the mean.": lambda *a: (
            lambda mean, log: (mean + (log / 2).exp() * torch.randn_like(mean), log)
        )(*_q_posterior()(*a)),
        "The weight of x_0 lacks its square root.": _q_posterior(
            clean=lambda beta, bar, before: beta * before / (1 - bar)
        ),
        "The weight of x_t lacks its square root.": _q_posterior(
            noisy=lambda beta, bar, before: (1 - before) * (1 - beta) / (1 - bar)
        ),
        "Both weights lack their square roots.": _q_posterior(
            clean=lambda beta, bar, before: beta * before / (1 - bar),
            noisy=lambda beta, bar, before: (1 - before) * (1 - beta) / (1 - bar),
        ),
        "The weights of the mean are not divided by the noise after the step.": _q_posterior(
            clean=lambda beta, bar, before: beta * before.sqrt(),
            noisy=lambda beta, bar, before: (1 - before) * (1 - beta).sqrt(),
        ),
        "The variance is that of x_{t-1} if only x_0 is known; x_t is known as well.": _q_posterior(
            small=lambda beta, bar, before: 1 - before
        ),
        "The second result is the logarithm of the precision, 1 over the variance: it has the wrong sign.": _q_posterior(
            log=lambda v: -v.log()
        ),
        "The betas are multiplied; alphas_cumprod is the product of all 1 - beta.": _q_posterior(
            product=lambda betas: torch.cumprod(betas, 0)
        ),
        "The weight of x_t has the root of beta where that of 1 - beta belongs.": _q_posterior(
            noisy=lambda beta, bar, before: (1 - before) * beta.sqrt() / (1 - bar)
        ),
        "The weight of x_0 has the root of beta; it needs beta itself.": _q_posterior(
            clean=lambda beta, bar, before: (beta * before).sqrt() / (1 - bar)
        ),
        "The log variance is shifted by one entry: at t it is that of t - 1.": _q_posterior(
            first=lambda small, beta: torch.cat([small[1:2], small[1:2], small[1:-1]])
        ),
        "The log variance is shifted by one entry: at t it is that of t + 1.": _q_posterior(
            first=lambda small, beta: torch.cat([small[1:], small[-1:]])
        ),
        "The weights are divided by the root of the noise after the step; divide by the noise itself.": _q_posterior(
            clean=lambda beta, bar, before: beta * before.sqrt() / (1 - bar).sqrt(),
            noisy=lambda beta, bar, before: (1 - before) * (1 - beta).sqrt() / (1 - bar).sqrt(),
        ),
        "The weight of x_t has the root of the noise before the step; it needs that noise itself.": _q_posterior(
            noisy=lambda beta, bar, before: ((1 - before) * (1 - beta)).sqrt() / (1 - bar)
        ),
        "The weight of x_t has the signal before the step where the noise before it belongs.": _q_posterior(
            noisy=lambda beta, bar, before: before * (1 - beta).sqrt() / (1 - bar)
        ),
        "The weight of x_0 lacks beta.": _q_posterior(
            clean=lambda beta, bar, before: before.sqrt() / (1 - bar)
        ),
    },
    "lesson 14, 'One step back'.",
    result_names=("mean", "log variance"),
    half_results=(lambda results: results[0], lambda results: results[1]),
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
        "This is as if the fraction were v + 1/2: v counts in full, and has to be halved, too.": _interpolate(
            lambda v: v + 1 / 2
        ),
        "The fraction is v + 1, which runs from 0 to 2; it must run from 0 to 1.": _interpolate(
            lambda v: v + 1
        ),
        "The fraction is (v - 1)/2, which runs from -1 to 0; it must run from 0 to 1.": _interpolate(
            lambda v: (v - 1) / 2
        ),
        "The variances are interpolated, and the result is a variance; both must stay logarithms.": (
            lambda v, low, high: torch.lerp(low.exp(), high.exp(), (v + 1) / 2)
        ),
        "The fraction is v / 2, which runs from -1/2 to 1/2; it must run from 0 to 1.": _interpolate(
            lambda v: v / 2
        ),
        "The value scales the larger end alone: both ends have a share, and the shares sum to 1.": (
            lambda v, low, high: (v + 1) / 2 * high
        ),
        "The two ends are added with one fraction; the other end has what is left of 1.": (
            lambda v, low, high: (v + 1) / 2 * (low + high)
        ),
        "The values of the batch are stretched, so that the smallest becomes 0 and the largest 1; each must be used as it is.": (
            _interpolate(lambda v: (v - v.min()) / (v.max() - v.min()))
        ),
        "The values of each image are stretched, so that the smallest becomes 0 and the largest 1; each must be used as it is.": (
            _interpolate(
                lambda v: (
                    (v - v.amin((1, 2, 3), keepdim=True))
                    / (v.amax((1, 2, 3), keepdim=True) - v.amin((1, 2, 3), keepdim=True))
                )
            )
        ),
        "The values are divided by the largest of the batch; each must be used as it is.": _interpolate(
            lambda v: (v / v.abs().max() + 1) / 2
        ),
        "The values are made positive; a value of -1 must give the smaller variance.": _interpolate(
            lambda v: v.abs()
        ),
        "The fraction is clamped to [0, 1] before it is shifted: values below 0 are lost.": _interpolate(
            lambda v: (v.clamp(0, 1) + 1) / 2
        ),
        "The result is the logarithm of the standard deviation: half of what is asked for.": (
            lambda v, low, high: torch.lerp(low, high, (v + 1) / 2) / 2
        ),
        "The smaller end is missing: the result is only the way from it.": lambda v, low, high: (
            (v + 1) / 2 * (high - low)
        ),
        "The larger end is added to the smaller one; the distance of the two must be.": lambda v, low, high: (
            low + (v + 1) / 2 * high
        ),
        "It starts at the larger end, and goes on beyond it; a value of -1 must give the smaller one.": lambda v, low, high: (
            high + (v + 1) / 2 * (high - low)
        ),
        **{
            f"The variances are interpolated, and clamped at {least:g}; their logarithms should be interpolated.": (
                lambda v, low, high, least=least: (
                    torch.lerp(low.exp(), high.exp(), (v + 1) / 2).clamp(min=least).log()
                ),
                "lesson 15, 'The learned variance': on a log scale.",
            )
            for least in (1e-20, 1e-12, 1e-10, 1e-8)
        },
    },
    "lesson 15, 'The learned variance'.",
    reference=learned_log_variance,
)


def check_learned_log_variance(fn: Callable, **grade_options) -> Report:
    """Check fn(values (N, C, H, W), min_log, max_log: (N, 1, 1, 1)) -> (N, C, H, W)."""
    return grade(_LEARNED_LOG_VARIANCE, fn, **grade_options)
