"""Graders of lesson 14: noising in one jump, respaced betas, and the timestep of a signal-to-noise ratio."""

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

__all__ = ["check_q_sample", "check_respaced_betas", "check_timestep_of_snr"]


_BROADCAST_OVER_CHANNELS = (
    "The coefficients of the batch are applied to the channels of each image: if N equals their number, "
    "that raises no error."
)


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


def _own_noise(make: Callable) -> Callable:
    """q_sample with noise that it makes itself."""
    return lambda x0, t, e, bar: _q_sample(_signal_scale, _noise_scale)(x0, t, make(x0), bar)


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
        _BROADCAST_OVER_CHANNELS: (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: bar[t][:, None, None]),
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
        "It is one step early, and t = 0 has the entry of t = 0: entry t of the table belongs to timestep t, counted from 0.": (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: _per_image(bar, (t - 1).clamp(min=0))),
            "the index into the table.",
        ),
        "It is one step early, and t = 0 adds no noise: the first step is timestep 0, and entry t belongs to timestep t.": (
            _q_sample(
                _signal_scale,
                _noise_scale,
                lambda bar, t: _per_image(torch.cat([bar.new_ones(1), bar]), t),
            ),
            "the index into the table.",
        ),
        "All images use the noise of the first.": lambda x0, t, e, bar: _q_sample(
            _signal_scale, _noise_scale
        )(x0, t, e[:1], bar),
        "The noise's coefficient is 1 minus a root; it is the root of 1 minus alphas_cumprod.": (
            _q_sample(_signal_scale, lambda b: 1 - b.sqrt()),
            "whether the squares of the two coefficients sum to 1.",
        ),
        "The noise has no coefficient: x_t holds only a part of it.": _q_sample(
            _signal_scale, torch.ones_like
        ),
        "The image has no coefficient: x_t holds only a part of it.": _q_sample(
            torch.ones_like, _noise_scale
        ),
        "Image and noise have the same coefficient; their squares must sum to 1.": _q_sample(
            _signal_scale, _signal_scale
        ),
        "The result is clipped to [-1, 1]; noisy images leave that range.": lambda *a: _q_sample(
            _signal_scale, _noise_scale
        )(*a).clamp(-1, 1),
        "The noise is subtracted; it is added.": _q_sample(_signal_scale, lambda b: -_noise_scale(b)),
        "The coefficients are those of standard deviation and variance exchanged: alphas_cumprod is squared, not rooted.": (
            _q_sample(lambda b: b**2, lambda b: (1 - b) ** 2)
        ),
        "It is one step late: entry t of the table already belongs to timestep t.": (
            _q_sample(
                _signal_scale, _noise_scale, lambda bar, t: _per_image(bar, (t + 1).clamp(max=len(bar) - 1))
            ),
            "the index into the table.",
        ),
        "The table is multiplied up again: alphas_cumprod is already a product over all timesteps up to t.": (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: _per_image(bar.cumprod(0), t)),
            "what entry t of the table means.",
        ),
        "The table is taken for the betas: it holds the signal that is left, not the noise of a step.": (
            _q_sample(_signal_scale, _noise_scale, lambda bar, t: _per_image((1 - bar).cumprod(0), t)),
            "what entry t of the table means.",
        ),
        "It makes noise of its own; use the noise that is given.": _own_noise(torch.randn_like),
        "It makes noise of its own, in float32; use the noise that is given.": _own_noise(
            lambda x: torch.randn(x.shape)
        ),
        "The coefficients fall on a straight line in t; they come from the table.": lambda x0, t, e, bar: (
            torch.lerp(x0, e, (t / 1000).double().view(-1, 1, 1, 1))
        ),
        "The table is read from its end: the image gets clearer as t grows.": _q_sample(
            _signal_scale, _noise_scale, lambda bar, t: _per_image(bar.flip(0), t)
        ),
        "The roots are taken twice.": _q_sample(lambda b: b**0.25, lambda b: (1 - b) ** 0.25),
        "The signal's coefficient is 1 minus the noise's; it is the squares that must sum to 1.": _q_sample(
            lambda b: 1 - (1 - b).sqrt(), _noise_scale
        ),
        "Image and noise both have the noise's coefficient; the squares of the two must sum to 1.": _q_sample(
            _noise_scale, _noise_scale
        ),
        "Image and noise are added without coefficients.": _q_sample(torch.ones_like, torch.ones_like),
        "The image keeps its full strength, and the noise grows beyond 1: that is another process (variance exploding).": _q_sample(
            torch.ones_like, lambda b: (1 / b - 1).sqrt()
        ),
        "This is the velocity: noise minus image, each with the other's coefficient.": _q_sample(
            lambda b: -_noise_scale(b), _signal_scale
        ),
        "The image is missing: only the noise is left.": _q_sample(torch.zeros_like, _noise_scale),
        "The noise is missing: only the faded image is left.": _q_sample(_signal_scale, torch.zeros_like),
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
    return [
        Case(f"{len(p[1])} of {len(p[0])} steps, {i + 1}", p, _LATER_START * (p[1][0] > 0))
        for i, p in enumerate(pairs)
    ]


_LATER_START = (
    "It is right if the first kept step is 0, and wrong if it is a later one: the first beta holds all steps up to it, "
    "and before them alphas_cumprod is 1."
)


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
        "Before the first kept step alphas_cumprod is 0, and the first beta infinite; it is 1 there.": _betas_from(
            lambda bar, before: 1 - bar / torch.cat([bar.new_zeros(1), before[1:]])
        ),
        "The first beta is 1, which leaves no signal: before the first kept step, alphas_cumprod is 1.": lambda bar, kept: (
            torch.cat([bar.new_ones(1), 1 - bar[kept][1:] / bar[kept][:-1]])
        ),
        "It is a ratio of square roots; a beta is a variance, so it needs the entries themselves.": _betas_from(
            lambda bar, before: 1 - (bar / before).sqrt()
        ),
        "The old betas are multiplied by the length of each gap; the alphas must be multiplied.": lambda bar, kept: (
            _old_betas(bar, kept) * torch.tensor([b - a for a, b in zip([-1, *kept], kept)])
        ),
        "The kept steps are used one step early: entry t of the table belongs to timestep t.": (
            lambda bar, kept: (lambda b: 1 - b / torch.cat([b.new_ones(1), b[:-1]]))(
                bar[[k - 1 for k in kept]]
            )
        ),
        "The first beta is counted from timestep 0 of the table; before any step, alphas_cumprod is 1.": lambda bar, kept: (
            1 - bar[kept] / torch.cat([bar[:1], bar[kept][:-1]])
        ),
        "Each beta uses the kept step after it, not the one before it: the table is shifted the wrong way.": _betas_from(
            lambda bar, before: 1 - bar / torch.cat([bar[1:], bar.new_ones(1)])
        ),
        "The ratio is squared; entries of the table are powers already.": _betas_from(
            lambda bar, before: 1 - (bar / before) ** 2
        ),
        "The difference is divided by the later entry; the signal before the step is the whole of which a beta is a part.": _betas_from(
            lambda bar, before: (before - bar) / bar
        ),
    },
    "lesson 14, 'New steps need new betas'.",
    tolerance=1e-10,
    reference=respaced_betas,
)


def check_respaced_betas(fn: Callable, **grade_options) -> Report:
    """Check fn(alphas_cumprod (T,), kept: S increasing timesteps) -> betas (S,) float64."""
    return grade(_RESPACED_BETAS, fn, **grade_options)


def _timestep_of_snr_loop(betas: Tensor, std: float, snr: Tensor) -> Tensor:
    """Take one step after the other until the ratio has fallen to each number."""
    found = []
    for wanted in snr.tolist():
        signal, noise, t = std**2, 0.0, -1  # variances of the two parts of x_t
        while noise == 0 or signal / noise > wanted:
            t += 1
            alpha = 1 - betas[t].item()
            signal, noise = alpha * signal, alpha * noise + 1 - alpha
        found.append(t)
    return torch.tensor(found)


def _snr_cases(rng: RandomInputs) -> list[Case]:
    """Schedules of 1000 small and of 12 large steps; ratios that are reached, among them one at t = 0."""
    usual = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    cases = []
    for label, std in (("unit variance", 1.0), ("small", 0.6), ("large", 5.5)):
        snr = std**2 * rng.uniform(-8, 6, 6).exp()
        snr[rng.integers(0, 6, 1)] = std**2 * 2e4
        cases.append(Case(f"1000 steps, {label}", (usual, std, snr)))
    short = rng.uniform(0.05, 0.4, 12)
    bar = torch.cumprod(1 - short, 0)
    ratio = 1.4**2 * bar / (1 - bar)
    snr = torch.cat([ratio[:-1] ** 0.6 * ratio[1:] ** 0.4, 1.1 * ratio[:1]])
    snr[0] = (ratio[:2].mean() + ratio[:2].log().mean().exp()) / 2  # nearer to the first on a log scale alone
    snr = snr[torch.randperm(12, generator=rng.generator)]
    return [*cases, Case("12 steps", (short, 1.4, snr))]


def _tie_cases(rng: RandomInputs) -> list[Case]:
    """Ratios that the schedule reaches exactly: signal and noise are equally strong at t = 0."""
    betas = torch.tensor([0.5, 0.25, 0.5, 0.2], dtype=torch.float64)
    return [
        Case("a ratio that is reached exactly", (betas, 1.0, torch.tensor([1.0, 0.5, 1.0]).double()), _TIE)
    ]


_TIE = (
    "It is right unless a ratio is reached exactly: 'at most' includes the number itself, so a ratio that is equal to "
    "`snr` has arrived."
)


def _first_timestep(
    ratio: Callable = lambda bar, std: std**2 * bar / (1 - bar),
    product: Callable = lambda betas: torch.cumprod(1 - betas, 0),
    find: Callable = lambda ratio, snr: (ratio > snr[:, None]).sum(1),
) -> Callable:
    """timestep_of_snr with parameters for known mistakes."""
    return lambda betas, std, snr: find(ratio(product(betas), std), snr)


_TIMESTEP_OF_SNR = Exercise(
    "timestep_of_snr",
    _timestep_of_snr_loop,
    _snr_cases,
    {
        "It is the ratio of amplitudes; snr is a ratio of powers, so of variances.": _first_timestep(
            lambda bar, std: std * (bar / (1 - bar)).sqrt()
        ),
        "The standard deviation is not squared: powers are variances.": _first_timestep(
            lambda bar, std: std * bar / (1 - bar)
        ),
        "The standard deviation is not used, or it cancels: data of another variance cross at another timestep.": (
            _first_timestep(lambda bar, std: bar / (1 - bar)),
            "the variance of the term that holds the image.",
        ),
        "The ratio is divided by the data's variance; it must be multiplied by it.": _first_timestep(
            lambda bar, std: bar / (1 - bar) / std**2
        ),
        "The variance of the data is in the noise too; noise has variance 1.": _first_timestep(
            lambda bar, std: std**2 * bar / (1 - std**2 * bar).clamp(min=1e-12)
        ),
        "It is the ratio of signal to all of x_t; compare with the noise alone.": _first_timestep(
            lambda bar, std: std**2 * bar / (std**2 * bar + 1 - bar)
        ),
        "It compares the signal with snr, and forgets to divide by the noise.": _first_timestep(
            lambda bar, std: std**2 * bar
        ),
        "The table is the logarithm of the ratio, but snr is not a logarithm.": _first_timestep(
            lambda bar, std: (std**2 * bar / (1 - bar)).log()
        ),
        "The table is in decibels, but snr is a plain ratio.": _first_timestep(
            lambda bar, std: 10 * (std**2 * bar / (1 - bar)).log10()
        ),
        "The ratio is upside down: it is that of noise to signal.": _first_timestep(
            lambda bar, std: (1 - bar) / (std**2 * bar), find=lambda ratio, snr: (ratio < snr[:, None]).sum(1)
        ),
        "The betas are multiplied; what is left of the signal is the product of all 1 - beta.": _first_timestep(
            product=lambda betas: torch.cumprod(betas, 0)
        ),
        "The betas are added up; what is left of the signal is the product of all 1 - beta.": _first_timestep(
            product=lambda betas: (1 - torch.cumsum(betas, 0)).clamp(min=0)
        ),
        "It uses the signal and noise of one step alone; x_t has those of all steps so far.": _first_timestep(
            product=lambda betas: 1 - betas
        ),
        "It is counted from 1; in code the first timestep is 0.": _first_timestep(
            find=lambda ratio, snr: (ratio > snr[:, None]).sum(1) + 1
        ),
        "It is one step early: the last timestep above the number, not the first at or below it.": _first_timestep(
            find=lambda ratio, snr: (ratio > snr[:, None]).sum(1) - 1
        ),
        "It is one step early, except at 0: the last timestep above the number, not the first at or below it.": _first_timestep(
            find=lambda ratio, snr: ((ratio > snr[:, None]).sum(1) - 1).clamp(min=0)
        ),
        "It is the timestep whose ratio is nearest; wanted is the first at which it is not above.": _first_timestep(
            find=lambda ratio, snr: (ratio - snr[:, None]).abs().argmin(1)
        ),
        "It is the timestep whose ratio is nearest on a log scale; wanted is the first at which it is not above.": _first_timestep(
            find=lambda ratio, snr: (ratio.log() - snr[:, None].log()).abs().argmin(1)
        ),
        "The comparison is the wrong way round: the ratio falls, so it is above the number at t = 0 already.": _first_timestep(
            find=lambda ratio, snr: (ratio >= snr[:, None]).int().argmax(1)
        ),
        "It is the last timestep at which the ratio is at most snr; wanted is the first.": _first_timestep(
            find=lambda ratio, snr: torch.full_like(snr, ratio.shape[-1] - 1).long()
        ),
        "It counts the timesteps at or below the number; those above it come before the first.": _first_timestep(
            find=lambda ratio, snr: (ratio <= snr[:, None]).sum(1)
        ),
        "A root is taken of the noise alone: the two powers are variances.": _first_timestep(
            lambda bar, std: std**2 * bar / (1 - bar).sqrt()
        ),
        "A root is taken of the signal alone: the two powers are variances.": _first_timestep(
            lambda bar, std: std**2 * bar.sqrt() / (1 - bar)
        ),
    },
    "lesson 14, 'The jump'.",
    edge_cases=_tie_cases,
)


def check_timestep_of_snr(fn: Callable, **grade_options) -> Report:
    """Check fn(betas (T,), std, snr (N,)) -> the first timesteps with at most that ratio, (N,) long."""
    return grade(_TIMESTEP_OF_SNR, fn, **grade_options)
