"""Graders of lesson 16: one step of the DDPM sampler and of the DDIM sampler."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import Diffusion, Prediction
from dit_nb.sampling import ddim_step, ddpm_step
from dit_nb.teach.graders.framework.batches import (
    _BROADCAST_HINT,
    _BROADCAST_OVER_COLUMNS,
    _SHAPES,
    _one_by_one,
    _per_image,
)
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_ddpm_step", "check_ddim_step"]


def _ddpm_loops(
    diffusion: Diffusion, prediction: Prediction, x_t: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    def one(step, mean, log_variance, e):
        return mean if step == 0 else mean + log_variance.exp() ** 0.5 * e

    return _one_by_one(one, t, prediction.mean, prediction.log_variance, noise)


def _step_cases(rng: RandomInputs, *more) -> list[Case]:
    """Ten steps; the first, another, every or no image is at t = 0; predicted x0 is clipped."""
    diffusion, cases = Diffusion().respaced("10"), []
    firsts = [[0, 3, 9, 5], [4, 0, 1], [2, 7], [0, 0, 6, 8, 2], [0, 0]]
    for i, (shape, t) in enumerate(zip([*_SHAPES, (5, 2, 3, 5), (2, 1, 3, 4)], map(torch.tensor, firsts))):
        x_t, noise = rng.normal(*shape), rng.normal(*shape)
        prediction = diffusion.predict(rng.normal(shape[0], 2 * shape[1], *shape[2:]), x_t, t, clip_x0=True)
        label = f"t = {', '.join(map(str, t.tolist()))}" + "".join(f", eta = {m[i]:g}" for m in more)
        cases.append(Case(label, (diffusion, prediction, x_t, t, noise, *(m[i] for m in more))))
    return cases


def _not_last(t: Tensor) -> Tensor:
    """(N, 1, 1, 1): 1 if noise is added, else 0."""
    return (t > 0).double().reshape(-1, 1, 1, 1)


def _ddpm(std: Callable = lambda v: (v / 2).exp(), mask: Callable = _not_last) -> Callable:
    """The step with another standard deviation, or noise at other timesteps."""
    return lambda d, p, x, t, e: p.mean + mask(t) * std(p.log_variance) * e


_DDPM_STEP = Exercise(
    "ddpm_step",
    _ddpm_loops,
    _step_cases,
    {
        "The last step adds noise, and no later step removes it.": (
            _ddpm(mask=lambda t: 1.0),
            "lesson 16, 'Four common bugs'.",
        ),
        "The variance is used instead of its square root: the noise is much too weak.": (
            _ddpm(torch.exp),
            "lesson 16, 'Four common bugs'.",
        ),
        "The logarithm of the variance is used instead of the standard deviation.": (
            _ddpm(lambda v: v),
            "what is multiplied with the noise.",
        ),
        "No noise is ever added.": _ddpm(mask=lambda t: 0.0),
        "The first image decides for the whole batch whether there is noise.": (
            _ddpm(mask=lambda t: float(t[0] > 0)),
            "what is compared with t.",
        ),
        "One image at t = 0 removes the noise of the whole batch.": (
            _ddpm(mask=lambda t: float((t > 0).all())),
            "what is compared with t.",
        ),
        "Images at t = 0 get noise unless the whole batch is at t = 0.": (
            _ddpm(mask=lambda t: float((t > 0).any())),
            "what is compared with t.",
        ),
        _BROADCAST_OVER_COLUMNS: (_ddpm(mask=lambda t: (t > 0).double()), _BROADCAST_HINT),
        "The noise is added to x_t; it must be added to the mean of the prediction.": lambda d, p, x, t, e: (
            x + _not_last(t) * (p.log_variance / 2).exp() * e
        ),
        "The noise is added to the predicted clean image; it must be added to the mean of the step.": lambda d, p, x, t, e: (
            p.x0 + _not_last(t) * (p.log_variance / 2).exp() * e
        ),
        "The noise has the variance of a step forward; use the variance of the prediction.": (
            lambda d, p, x, t, e: p.mean + _not_last(t) * _per_image(d.betas, t).sqrt() * e,
            "what the prediction says about the variance.",
        ),
    },
    "lesson 16, 'The right way'.",
    reference=ddpm_step,
)


def check_ddpm_step(fn: Callable, **grade_options) -> Report:
    """Check fn(diffusion, prediction, x_t (N, C, H, W), t (N,), noise (N, C, H, W)) -> x_{t-1}."""
    return grade(_DDPM_STEP, fn, **grade_options)


def _ddim_loops(
    diffusion: Diffusion, prediction: Prediction, x_t: Tensor, t: Tensor, noise: Tensor, eta: float
) -> Tensor:
    """Compute the noise from x_t and x0."""
    bar = [1.0, *torch.cumprod(1 - diffusion.betas, 0).tolist()]

    def one(step, x0, x, e):
        after, before = bar[step + 1], bar[step]
        old = (x - math.sqrt(after) * x0) / math.sqrt(1 - after)
        fresh = eta**2 * (1 - before) / (1 - after) * (1 - after / before)
        scale = math.sqrt(max(1 - before - fresh, 0))
        return math.sqrt(before) * x0 + scale * old + math.sqrt(fresh) * e

    return _one_by_one(one, t, prediction.x0, x_t, noise)


def _ddim_cases(rng: RandomInputs) -> list[Case]:
    return _step_cases(rng, [0.0, 0.5, 1.0, rng.choice(0.3, 0.7), 1.0])


def _ddim(
    previous: Callable = lambda bar: torch.cat([bar.new_ones(1), bar[:-1]]),
    old_noise: Callable = lambda d, p, x, t: d.x0_to_eps(x, t, p.x0),
    std: Callable = lambda eta, variance: eta * variance.sqrt(),
    old_scale: Callable = lambda before, sigma: (1 - before - sigma**2).clamp(min=0).sqrt(),
) -> Callable:
    """The step with parameters for known mistakes."""

    def ddim(d, p, x, t, noise, eta):
        after, before = _per_image(d.alphas_cumprod, t), _per_image(previous(d.alphas_cumprod), t)
        sigma = std(eta, ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0))
        return before.sqrt() * p.x0 + old_scale(before, sigma) * old_noise(d, p, x, t) + sigma * noise

    return ddim


_DDIM_STEP = Exercise(
    "ddim_step",
    _ddim_loops,
    _ddim_cases,
    {
        "It uses the predicted noise, but the clean image was clipped: compute the noise from x_t and "
        "x0.": _ddim(old_noise=lambda d, p, x, t: p.eps),
        "With fresh noise there must be less of the old noise: together they are too much.": _ddim(
            old_scale=lambda before, sigma: (1 - before).sqrt()
        ),
        "The setting eta is given, but not used: no noise is ever added.": _ddim(
            std=lambda eta, variance: 0 * variance
        ),
        "The setting eta is given, but not used: the step is always as noisy as DDPM.": _ddim(
            std=lambda eta, variance: variance.sqrt()
        ),
        "The variance of the fresh noise is used instead of its square root.": (
            _ddim(std=lambda eta, variance: eta * variance),
            "what is multiplied with the noise.",
        ),
        "The setting eta is under the square root; it scales the standard deviation, not the variance.": _ddim(
            std=lambda eta, variance: (eta * variance).sqrt()
        ),
        "The step returns to the noise level from which it started; it must go to the previous level.": (
            _ddim(previous=lambda bar: bar),
            "which alphas_cumprod belongs to the target.",
        ),
        "At t = 0 the previous level wraps around to the last one: the finished image turns into noise.": (
            _ddim(previous=lambda bar: bar.roll(1)),
            "what index -1 means.",
        ),
    },
    "lesson 16, 'DDIM: the same noise, less of it'.",
    tolerance=1e-8,
    reference=ddim_step,
)


def check_ddim_step(fn: Callable, **grade_options) -> Report:
    """Check fn(diffusion, prediction, x_t (N, C, H, W), t (N,), noise (N, C, H, W), eta) -> x_{t-1}."""
    return grade(_DDIM_STEP, fn, **grade_options)
