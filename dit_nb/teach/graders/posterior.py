"""How far a step back goes, and how sure it is."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import learned_log_variance
from dit_nb.teach.graders.framework.batches import SHAPES, per_image, times
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def posterior_by_bayes(x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    "Precisions add; means are weighed by them."
    bar = [1.0, *torch.cumprod(1 - betas, 0).tolist()]  # bar[t] is the share before step t

    def both(step, clean, noisy):
        beta, before = betas[step].item(), 1 - bar[step]
        if step == 0:
            return clean, None
        from_now, from_clean = (1 - beta) / beta, 1 / before
        mean = (noisy / math.sqrt(1 - beta) * from_now + math.sqrt(bar[step]) * clean * from_clean) / (
            from_now + from_clean
        )
        return mean, -math.log(from_now + from_clean)

    found = [both(*each) for each in zip(t.tolist(), x0, x_t)]
    stand_in = both(1, x0[0], x_t[0])[1]  # the log variance at t = 0 would be that of 0
    logs = [stand_in if log is None else log for _, log in found]
    return torch.stack([mean for mean, _ in found]), x_t.new_tensor(logs).reshape(-1, 1, 1, 1)


def posterior_cases(draw: Draw) -> list[Case]:
    "The usual process, and a short one with large steps; among the timesteps always 0."
    usual, short = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), draw.uniform(0.05, 0.4, 12)
    cases = []
    for shape, betas in zip([*SHAPES, (5, 2, 3, 5)], (usual, short, usual, short)):
        args = (draw.normal(*shape), draw.normal(*shape), times(draw, shape[0], len(betas)), betas)
        cases.append(Case("x of {}x{}x{}x{}, ".format(*shape) + f"T = {len(betas)}", args))
    return cases


def posterior(
    previous: Callable = lambda bar: torch.cat([bar.new_ones(1), bar[:-1]]),
    swap: bool = False,
    signal: Callable = lambda bar, before: before,
    variance: Callable = lambda small, beta: torch.cat([small[1:2], small[1:]]),
    log: Callable = torch.log,
) -> Callable:
    "q_posterior with knobs for everything that can go wrong."

    def turned(x0, x_t, t, betas):
        bar = torch.cumprod(1 - betas, 0)
        before = previous(bar)
        clean = betas * signal(bar, before).sqrt() / (1 - bar)
        noisy = (1 - before) * (1 - betas).sqrt() / (1 - bar)
        clean, noisy = (noisy, clean) if swap else (clean, noisy)
        small = variance(betas * (1 - before) / (1 - bar), betas)
        return per_image(clean, t) * x0 + per_image(noisy, t) * x_t, per_image(log(small), t)

    return turned


Q_POSTERIOR = Exercise(
    "q_posterior",
    posterior_by_bayes,
    posterior_cases,
    (
        Mistake(
            "The clean image and x_t have each other's weights in the mean.",
            "lesson 14, 'One step back': which of the two counts for more when t is large?",
            posterior(swap=True),
        ),
        Mistake(
            "Before the first step nothing is noise yet: the share of signal there is 1, not 0.",
            "the entry in front of the table.",
            posterior(lambda bar: torch.cat([bar.new_zeros(1), bar[:-1]])),
        ),
        Mistake(
            "At t = 0 the entry before wraps around to the last of the table, which is nearly pure noise.",
            "what index -1 means.",
            posterior(lambda bar: bar.roll(1)),
        ),
        Mistake(
            "The variance is that of a step forward; a step back, with x_0 known, varies less.",
            "lesson 14, 'How wide is a step back?'.",
            posterior(variance=lambda small, beta: beta),
        ),
        Mistake(
            "At t = 0 the log variance is that of 0: minus infinity. The entry of t = 1 stands in for it.",
            "lesson 14, 'All the tables at once'.",
            posterior(variance=lambda small, beta: small),
        ),
        Mistake(
            "The second result is the variance; its logarithm was asked for.",
            "what you return.",
            posterior(log=lambda v: v),
        ),
        Mistake(
            "The second result is half the log variance: that of the standard deviation.",
            "what you return.",
            posterior(log=lambda v: v.log() / 2),
        ),
        Mistake(
            "The weight of x_0 takes the signal's share after the step, where that before the step belongs.",
            "lesson 14, 'One step back': which share is the earlier one?",
            posterior(signal=lambda bar, before: bar),
        ),
    ),
    "lesson 14, 'One step back'.",
    parts=("mean", "log variance"),
    tolerance=1e-8,
)


def check_q_posterior(
    fn: Callable,  # (x0, x_t (N, C, H, W), t (N,), betas (T,)) -> mean (N, C, H, W), log variance (N, 1, 1, 1)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`q_posterior(x0, x_t, t, betas)`: mean and log variance of x_{t-1}; at t = 0 the log variance is that of t = 1."
    return grade(Q_POSTERIOR, fn, **options)


def log_variance_by_hand(values: Tensor, min_log: Tensor, max_log: Tensor) -> Tensor:
    "One number at a time: the point at the given share of the way."
    lows, highs = min_log.expand_as(values), max_log.expand_as(values)
    triples = zip(values.flatten().tolist(), lows.flatten().tolist(), highs.flatten().tolist())
    found = [low + (high - low) * (0.5 + 0.5 * v) for v, low, high in triples]
    return values.new_tensor(found).reshape(values.shape)


def variance_cases(draw: Draw) -> list[Case]:
    "Values a little beyond -1 and 1."
    shapes = [*SHAPES, (draw.pick(5, 6), 2, 3, 3)]
    cases = []
    for shape in shapes:
        low = draw.uniform(-10, -4, shape[0], 1, 1, 1)
        args = (draw.uniform(-1.4, 1.4, *shape), low, low + draw.uniform(0.3, 4, shape[0], 1, 1, 1))
        cases.append(Case("values of {}x{}x{}x{}".format(*shape), args))
    return cases


def mix(share: Callable, swap: bool = False) -> Callable:
    "The learned variance with another share: a mistake."
    return lambda v, low, high: torch.lerp(high if swap else low, low if swap else high, share(v))


LEARNED_LOG_VARIANCE = Exercise(
    "learned_log_variance",
    log_variance_by_hand,
    variance_cases,
    (
        Mistake(
            "The value is taken for the share itself; it runs from -1 to 1, and 0 means half way.",
            "lesson 15, 'How sure? The learned variance'.",
            mix(lambda v: v),
        ),
        Mistake(
            "The two ends are exchanged: a value of 1 must give the larger variance.",
            "which end belongs to 1.",
            mix(lambda v: (v + 1) / 2, swap=True),
        ),
        Mistake(
            "The variances are mixed; their logarithms should be.",
            "lesson 15, 'How sure? The learned variance': on a log scale.",
            lambda v, low, high: torch.lerp(low.exp(), high.exp(), (v + 1) / 2).log(),
        ),
        Mistake(
            "The values are held between -1 and 1; nothing forces them to be, and the gradient would die there.",
            "what happens to a value of 1.2.",
            mix(lambda v: (v.clamp(-1, 1) + 1) / 2),
        ),
        Mistake(
            "The values go through a sigmoid; they are used as they are.",
            "what happens to a value of 1.",
            mix(torch.sigmoid),
        ),
        Mistake(
            "The values go through a tanh; they are used as they are.",
            "what happens to a value of 1.",
            mix(lambda v: (v.tanh() + 1) / 2),
        ),
        Mistake(
            "The result is the variance; its logarithm was asked for.",
            "what you return.",
            lambda v, low, high: torch.lerp(low, high, (v + 1) / 2).exp(),
        ),
    ),
    "lesson 15, 'How sure? The learned variance'.",
    reference=learned_log_variance,
)


def check_learned_log_variance(
    fn: Callable,  # (values (N, C, H, W), min_log (N, 1, 1, 1), max_log (N, 1, 1, 1)) -> (N, C, H, W)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`learned_log_variance(values, min_log, max_log)`: between min_log (value -1) and max_log (value 1)."
    return grade(LEARNED_LOG_VARIANCE, fn, **options)
