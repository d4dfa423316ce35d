"""Graders of lesson 16: one step of the DDPM sampler and of the DDIM sampler, and known pixels during sampling."""

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
from dit_nb.teach.graders.schedule import _BROADCAST_OVER_CHANNELS

__all__ = ["check_ddpm_step", "check_ddim_step", "check_keep_known"]

_OWN_NOISE = "New random numbers are drawn; use the argument noise, so that a run can be repeated."
_OWN_FLOAT32 = (
    "New random numbers are drawn, in float32; use the argument noise, so that a run can be repeated."
)


def _ddpm_loops(
    diffusion: Diffusion, prediction: Prediction, x_t: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    def one(step, mean, log_variance, e):
        return mean if step == 0 else mean + log_variance.exp() ** 0.5 * e

    return _one_by_one(one, t, prediction.mean, prediction.log_variance, noise)


def _step_cases(rng: RandomInputs, *more) -> list[Case]:
    """Ten steps; the first, another, every or no image is at t = 0; predicted x0 is clipped, once not."""
    diffusion, cases = Diffusion().respaced("10"), []
    firsts = [[0, 3, 9, 5], [4, 0, 1], [2, 7], [0, 0, 6, 8, 2], [0, 0]]
    for i, (shape, t) in enumerate(zip([*_SHAPES, (5, 2, 3, 5), (2, 1, 3, 4)], map(torch.tensor, firsts))):
        x_t, noise = rng.normal(*shape), rng.normal(*shape)
        output = rng.normal(shape[0], 2 * shape[1], *shape[2:])
        prediction = diffusion.predict(output, x_t, t, clip_x0=i != 3)
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
        _BROADCAST_OVER_CHANNELS: (_ddpm(mask=lambda t: (t > 0).double()[:, None, None]), _BROADCAST_HINT),
        "The noise is added to x_t; it must be added to the mean of the prediction.": lambda d, p, x, t, e: (
            x + _not_last(t) * (p.log_variance / 2).exp() * e
        ),
        "The noise is added to the predicted clean image; it must be added to the mean of the step.": lambda d, p, x, t, e: (
            p.x0 + _not_last(t) * (p.log_variance / 2).exp() * e
        ),
        "Noise is added where t > 1, as the papers count; here the last step is t = 0.": (
            _ddpm(mask=lambda t: (t > 1).double().reshape(-1, 1, 1, 1)),
            "lesson 16, 'The right way'.",
        ),
        "Noise is added at the last step alone; it must be added at all others.": (
            _ddpm(mask=lambda t: 1 - _not_last(t)),
            "what is compared with t.",
        ),
        "At t = 0 the result is 0: the factor that removes the noise removes the mean too.": (
            lambda d, p, x, t, e: _not_last(t) * (p.mean + (p.log_variance / 2).exp() * e),
            "what is multiplied with the factor.",
        ),
        _OWN_NOISE: lambda d, p, x, t, e: _ddpm()(d, p, x, t, torch.randn_like(e)),
        _OWN_FLOAT32: lambda d, p, x, t, e: _ddpm()(d, p, x, t, torch.randn(e.shape)),
        "The noise is subtracted from the mean; add it.": _ddpm(std=lambda v: -(v / 2).exp()),
        "The square root of the logarithm is taken; the logarithm must be undone first.": (
            _ddpm(std=torch.sqrt),
            "in which order a logarithm and a root are undone.",
        ),
        "The half is outside of exp: the variance is halved, where its root is needed.": (
            _ddpm(std=lambda v: v.exp() / 2),
            "what is multiplied with 0.5.",
        ),
        "The sign of the logarithm is wrong: this is one over the standard deviation.": _ddpm(
            std=lambda v: (-v / 2).exp()
        ),
        "The logarithm is doubled instead of halved.": (
            _ddpm(std=lambda v: (2 * v).exp()),
            "lesson 16, 'Four common bugs'.",
        ),
        "The noise has the posterior variance of the schedule; use the variance of the prediction.": (
            lambda d, p, x, t, e: p.mean + _not_last(t) * _per_image(d.posterior_variance, t).sqrt() * e,
            "what the prediction says about the variance.",
        ),
        "The noise is added with variance 1; scale it with the standard deviation.": _ddpm(
            std=torch.ones_like
        ),
        "The mean is computed from eps, but the clean image was clipped: use the mean of the prediction.": (
            lambda d, p, x, t, e: (
                (x - _per_image(d.betas, t) / (1 - _per_image(d.alphas_cumprod, t)).sqrt() * p.eps)
                / (1 - _per_image(d.betas, t)).sqrt()
                + _not_last(t) * (p.log_variance / 2).exp() * e
            )
        ),
        "The noise has the variance of a step forward; use the variance of the prediction.": (
            lambda d, p, x, t, e: p.mean + _not_last(t) * _per_image(d.betas, t).sqrt() * e,
            "what the prediction says about the variance.",
        ),
        "At t = 0 the image comes back as it was; the last step goes to the mean of the prediction.": (
            lambda d, p, x, t, e: torch.where(_not_last(t) > 0, p.mean + (p.log_variance / 2).exp() * e, x),
            "what is left of a step if no noise is added.",
        ),
        "The result is clipped to [-1, 1]; only a clean image is in this range.": lambda *a: _ddpm()(
            *a
        ).clamp(-1, 1),
        "The mean is clipped to [-1, 1]; only a clean image is in this range.": lambda d, p, x, t, e: (
            p.mean.clamp(-1, 1) + _not_last(t) * (p.log_variance / 2).exp() * e
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
    variance: Callable = lambda after, before: (1 - before) / (1 - after) * (1 - after / before),
    fresh: Callable = lambda noise: noise,
    signal: Callable = lambda before: before.sqrt(),
    lowest: float | None = 0,
) -> Callable:
    """The step with parameters for known mistakes; with `lowest` None a negative variance gives nan."""

    def ddim(d, p, x, t, noise, eta):
        after, before = _per_image(d.alphas_cumprod, t), _per_image(previous(d.alphas_cumprod), t)
        limited = variance(after, before)
        sigma = std(eta, limited if lowest is None else limited.clamp(min=lowest))
        old = old_scale(before, sigma) * old_noise(d, p, x, t)
        return signal(before) * p.x0 + old + sigma * fresh(noise)

    return ddim


def _eps_divided(
    d: Diffusion,
    p: Prediction,
    x: Tensor,
    t: Tensor,
    root: Callable = torch.sqrt,
    table: Callable | None = None,
) -> Tensor:
    """The noise in x_t, but divided by its variance or by nothing, or with another level."""
    bar = _per_image(d.alphas_cumprod if table is None else table(d), t)
    return (x - bar.sqrt() * p.x0) / root(1 - bar)


def _ddim_mixed(d, p, x, t, noise, eta, signal: str = "before", old: str = "before") -> Tensor:
    """The step with the level of t in one of its two parts."""
    level = {"after": _per_image(d.alphas_cumprod, t), "before": _per_image(d.alphas_cumprod_prev, t)}
    before, after = level["before"], level["after"]
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).sqrt()
    kept = (1 - level[old] - sigma**2).clamp(min=0).sqrt() * d.x0_to_eps(x, t, p.x0)
    return level[signal].sqrt() * p.x0 + kept + sigma * noise


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
        "At t = 0 the previous level wraps around to the last one, which gives the root of a negative number.": (
            _ddim(previous=lambda bar: bar.roll(1), lowest=None),
            "what index -1 means.",
        ),
        "At t = 0 the previous level is the first one instead of 1, so the last step goes nowhere.": (
            _ddim(previous=lambda bar: torch.cat([bar[:1], bar[:-1]])),
            "how much signal the clean image has.",
        ),
        "At t = 0 the previous level is 0 instead of 1: the clean image has signal only.": (
            _ddim(previous=lambda bar: torch.cat([0 * bar[:1] + 1e-300, bar[:-1]])),
            "how much signal the clean image has.",
        ),
        "The step goes to the next noisier level; it must go to the previous one.": (
            _ddim(previous=lambda bar: torch.cat([bar[1:], bar[-1:]])),
            "which alphas_cumprod belongs to the target.",
        ),
        _OWN_NOISE: _ddim(fresh=torch.randn_like),
        _OWN_FLOAT32: _ddim(fresh=lambda noise: torch.randn(noise.shape)),
        "The fresh noise is added with scale eta alone; the schedule's part of sigma is missing.": _ddim(
            std=lambda eta, variance: eta + 0 * variance
        ),
        "The setting eta is squared; it scales the standard deviation.": _ddim(
            std=lambda eta, variance: eta**2 * variance.sqrt()
        ),
        "The fresh noise is not added, though less of the old noise is kept.": _ddim(fresh=torch.zeros_like),
        "Sigma is subtracted without its square: variances add up, not standard deviations.": _ddim(
            old_scale=lambda before, sigma: (1 - before - sigma).clamp(min=0).sqrt()
        ),
        "The old noise is scaled by a variance; its root is missing.": _ddim(
            old_scale=lambda before, sigma: (1 - before - sigma**2).clamp(min=0)
        ),
        "The clean image is scaled by alphas_cumprod; its root is missing.": _ddim(
            signal=lambda before: before
        ),
        "The clean image is added in full; it must be scaled to the level of the previous step.": _ddim(
            signal=torch.ones_like
        ),
        "The first factor of sigma is missing: this is the variance of a step forward.": (
            _ddim(variance=lambda after, before: 1 - after / before),
            "both factors of sigma.",
        ),
        "The second factor of sigma is missing.": (
            _ddim(variance=lambda after, before: (1 - before) / (1 - after)),
            "both factors of sigma.",
        ),
        "The first factor of sigma is upside down, and infinite at t = 0.": (
            _ddim(variance=lambda after, before: (1 - after) / (1 - before) * (1 - after / before)),
            "which of the two levels is divided by which.",
        ),
        "The second factor of sigma is upside down: the root of a negative number.": (
            _ddim(
                variance=lambda after, before: (1 - before) / (1 - after) * (1 - before / after), lowest=None
            ),
            "which of the two levels is divided by which.",
        ),
        "The second factor of sigma is upside down; made positive, it is still another number.": (
            _ddim(variance=lambda after, before: (1 - before) / (1 - after) * (1 - before / after).abs()),
            "which of the two levels is divided by which.",
        ),
        "The noisy image x_t is scaled to the level of the step before; the clean image must be.": (
            lambda d, p, x, t, e, eta: (
                _ddim(signal=torch.zeros_like)(d, p, x, t, e, eta)
                + _per_image(d.alphas_cumprod_prev, t).sqrt() * x
            )
        ),
        "In the noise, the clean image has the root of the step before; x_t holds it with the root of t.": _ddim(
            old_noise=lambda d, p, x, t: (
                (x - _per_image(d.alphas_cumprod_prev, t).sqrt() * p.x0)
                / (1 - _per_image(d.alphas_cumprod, t)).sqrt()
            )
        ),
        "The noise in x_t is computed with the level of the step before; x_t has the level of t.": _ddim(
            old_noise=lambda d, p, x, t: _eps_divided(d, p, x, t, table=lambda d: d.alphas_cumprod_prev)
        ),
        "The old noise is scaled to the level of t; it must be scaled to that of the step before.": (
            lambda d, p, x, t, e, eta: _ddim_mixed(d, p, x, t, e, eta, old="after")
        ),
        "The clean image is scaled to the level of t; it must be scaled to that of the step before.": (
            lambda d, p, x, t, e, eta: _ddim_mixed(d, p, x, t, e, eta, signal="after")
        ),
        "This is a DDPM step with less noise: DDIM does not use the mean of the prediction.": lambda d, p, x, t, e, eta: (
            p.mean + eta * _not_last(t) * (p.log_variance / 2).exp() * e
        ),
        "Sigma is the standard deviation of the prediction; DDIM's follows from the schedule alone.": (
            lambda d, p, x, t, e, eta: _ddim(std=lambda eta, variance: eta * (p.log_variance / 2).exp())(
                d, p, x, t, e, eta
            )
        ),
        "The noise in x_t is what is left of x_t without the clean image, which must be scaled first.": _ddim(
            old_noise=lambda d, p, x, t: (x - p.x0) / (1 - _per_image(d.alphas_cumprod, t)).sqrt()
        ),
        "In the noise, the clean image is scaled by alphas_cumprod; its root is missing.": _ddim(
            old_noise=lambda d, p, x, t: (
                (x - _per_image(d.alphas_cumprod, t) * p.x0) / (1 - _per_image(d.alphas_cumprod, t)).sqrt()
            )
        ),
        "Instead of the noise in x_t, x_t itself is used: the clean image is in it a second time.": _ddim(
            old_noise=lambda d, p, x, t: x
        ),
        "The noise in x_t is divided by its variance; divide by the root.": _ddim(
            old_noise=lambda d, p, x, t: _eps_divided(d, p, x, t, lambda v: v)
        ),
        "The noise in x_t is not divided by its standard deviation.": _ddim(
            old_noise=lambda d, p, x, t: _eps_divided(d, p, x, t, torch.ones_like)
        ),
        "The clean image is clipped in the step; whether it is clipped is decided before, in the prediction.": (
            lambda d, p, x, t, e, eta: _ddim()(d, p._replace(x0=p.x0.clamp(-1, 1)), x, t, e, eta)
        ),
        "The clean image is clipped where it is scaled, but not in the noise; the prediction has decided about clipping.": (
            lambda d, p, x, t, e, eta: _ddim(old_noise=lambda *_: d.x0_to_eps(x, t, p.x0))(
                d, p._replace(x0=p.x0.clamp(-1, 1)), x, t, e, eta
            )
        ),
        "The result is clipped to [-1, 1]; only a clean image is in this range.": lambda *a: _ddim()(
            *a
        ).clamp(-1, 1),
        "The first factor of sigma has no root.": (
            _ddim(variance=lambda after, before: ((1 - before) / (1 - after)) ** 2 * (1 - after / before)),
            "both factors of sigma.",
        ),
        "The second factor of sigma has no root.": (
            _ddim(variance=lambda after, before: (1 - before) / (1 - after) * (1 - after / before) ** 2),
            "both factors of sigma.",
        ),
        "Sigma is subtracted after the root; variances are subtracted, not standard deviations.": _ddim(
            old_scale=lambda before, sigma: (1 - before).sqrt() - sigma
        ),
        "Sigma squared is added to the old noise; with fresh noise there must be less of it.": _ddim(
            old_scale=lambda before, sigma: (1 - before + sigma**2).sqrt()
        ),
        "The old noise is multiplied by 1 - sigma; variances are subtracted.": _ddim(
            old_scale=lambda before, sigma: (1 - before).sqrt() * (1 - sigma)
        ),
        "The old noise is scaled as if the earlier level were pure noise.": _ddim(
            old_scale=lambda before, sigma: (1 - sigma**2).clamp(min=0).sqrt()
        ),
        "The old noise is scaled by 1 minus a root; it is the root of a difference.": _ddim(
            old_scale=lambda before, sigma: 1 - before.sqrt()
        ),
        "The table of earlier levels is read one entry early: it is shifted already.": _ddim(
            previous=lambda bar: torch.cat([bar.new_ones(1), bar[:-1]]).roll(1)
        ),
        "The table of earlier levels is read one entry early, from t = 1 on: it is shifted already.": _ddim(
            previous=lambda bar: torch.cat([bar.new_ones(2), bar[:-2]])
        ),
        "The fresh noise is subtracted; add it.": _ddim(fresh=torch.neg),
    },
    "lesson 16, 'DDIM: the same noise, less of it'.",
    tolerance=1e-8,
    reference=ddim_step,
)


def check_ddim_step(fn: Callable, **grade_options) -> Report:
    """Check fn(diffusion, prediction, x_t (N, C, H, W), t (N,), noise (N, C, H, W), eta) -> x_{t-1}."""
    return grade(_DDIM_STEP, fn, **grade_options)


def _keep_known_loops(
    diffusion: Diffusion, x_prev: Tensor, t: Tensor, known: Tensor, mask: Tensor, noise: Tensor
) -> Tensor:
    """Image by image, from the betas."""
    bar = [1.0, *torch.cumprod(1 - diffusion.betas, 0).tolist()]

    def one(step, x, image, here, e):
        level = bar[step]
        return torch.where(here > 0.5, math.sqrt(level) * image + math.sqrt(1 - level) * e, x)

    return _one_by_one(one, t, x_prev, known, mask.expand_as(known), noise)


def _known_cases(rng: RandomInputs) -> list[Case]:
    diffusion, cases = Diffusion().respaced("10"), []
    firsts = [[0, 3, 9, 5], [4, 0, 1], [2, 7], [0, 0, 6, 8, 2]]
    for shape, t in zip([*_SHAPES, (5, 2, 3, 5)], map(torch.tensor, firsts)):
        mask = (rng.uniform(0, 1, shape[0], 1, *shape[2:]) < 0.5).double()
        mask[:, :, 0, 0], mask[:, :, -1, -1] = 1, 0
        args = (diffusion, rng.normal(*shape), t, rng.normal(*shape), mask, rng.normal(*shape))
        cases.append(Case(f"t = {', '.join(map(str, t.tolist()))}", args))
    return cases


def _keep(
    table: Callable = lambda d: d.alphas_cumprod_prev,
    noised: Callable = lambda bar, known, e: bar.sqrt() * known + (1 - bar).sqrt() * e,
    merge: Callable = lambda mask, known, x: mask * known + (1 - mask) * x,
) -> Callable:
    """Known pixels at the level of the step, with parameters for known mistakes."""

    def keep(d, x, t, known, mask, noise):
        return merge(mask, noised(_per_image(table(d), t), known, noise), x)

    return keep


def _at_t_minus_1(d, x, t, known, mask, noise):
    return mask * d.q_sample(known, t - 1, noise) + (1 - mask) * x


def _q_sample_over_channels(bar: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    bar = bar[:, None, None]
    return bar.sqrt() * x + (1 - bar).sqrt() * noise


_KEEP_KNOWN = Exercise(
    "keep_known",
    _keep_known_loops,
    _known_cases,
    {
        "The known pixels have the noise of the step that was left; x_prev is one level further.": (
            _keep(lambda d: d.alphas_cumprod),
            "which level x_prev has.",
        ),
        "The known pixels have no noise: the other pixels do not fit to them, and the model was not trained on that.": _keep(
            noised=lambda bar, known, e: known
        ),
        "The known pixels are scaled, but have no noise.": _keep(
            noised=lambda bar, known, e: bar.sqrt() * known
        ),
        "The known pixels have noise, but are not scaled.": _keep(
            noised=lambda bar, known, e: known + (1 - bar).sqrt() * e
        ),
        "At t = 0 the level wraps around to the last one: the known pixels end as noise.": (
            _keep(lambda d: d.alphas_cumprod.roll(1)),
            "what index -1 means.",
        ),
        "At t = 0 there is no step t - 1 to noise the image to; the clean image has the level 1.": (
            _at_t_minus_1,
            "alphas_cumprod_prev.",
        ),
        "The known pixels have the noise of the first level at t = 0; there they must be clean.": (
            _keep(lambda d: torch.cat([d.alphas_cumprod[:1], d.alphas_cumprod[:-1]])),
            "how much signal the clean image has.",
        ),
        "The known pixels are clean at t = 0, but elsewhere have the noise of the step that was left.": (
            _keep(lambda d: torch.cat([torch.ones_like(d.alphas_cumprod[:1]), d.alphas_cumprod[1:]])),
            "which level x_prev has.",
        ),
        "The known pixels have the noise of one step forward; they need all the noise up to the level of x_prev.": (
            _keep(lambda d: 1 - d.betas),
            "alphas_cumprod_prev.",
        ),
        "The noise is subtracted from the known pixels; add it.": _keep(
            noised=lambda bar, known, e: bar.sqrt() * known - (1 - bar).sqrt() * e
        ),
        "The known pixels have the noise of the next noisier level; x_prev has less.": (
            _keep(lambda d: torch.cat([d.alphas_cumprod[1:], d.alphas_cumprod[-1:]])),
            "which level x_prev has.",
        ),
        "The noise is added to all pixels; x_prev has its noise already.": lambda d, x, t, known, mask, e: (
            mask * _per_image(d.alphas_cumprod_prev, t).sqrt() * known
            + (1 - mask) * x
            + (1 - _per_image(d.alphas_cumprod_prev, t)).sqrt() * e
        ),
        "The mask is inverted: the known pixels are sampled, and the unknown ones replaced.": _keep(
            merge=lambda mask, known, x: (1 - mask) * known + mask * x
        ),
        "The whole image is replaced; only the known pixels should be.": _keep(
            merge=lambda mask, known, x: known
        ),
        "Nothing is replaced: the known pixels are those of the sample.": _keep(
            merge=lambda mask, known, x: x
        ),
        "The unknown pixels are lost: they must be those of x_prev.": _keep(
            merge=lambda mask, known, x: mask * known
        ),
        "The known pixels are added to the sample; they must replace it.": _keep(
            merge=lambda mask, known, x: x + mask * known
        ),
        "The square roots are missing.": _keep(noised=lambda bar, known, e: bar * known + (1 - bar) * e),
        "The noise is scaled by its variance; the root is missing.": _keep(
            noised=lambda bar, known, e: bar.sqrt() * known + (1 - bar) * e
        ),
        "The shares of signal and noise are exchanged.": _keep(
            noised=lambda bar, known, e: (1 - bar).sqrt() * known + bar.sqrt() * e
        ),
        "Signal and noise add up to 1; it is their squares that do.": _keep(
            noised=lambda bar, known, e: bar.sqrt() * known + (1 - bar.sqrt()) * e
        ),
        _OWN_NOISE: _keep(
            noised=lambda bar, known, e: bar.sqrt() * known + (1 - bar).sqrt() * torch.randn_like(e)
        ),
        _OWN_FLOAT32: _keep(
            noised=lambda bar, known, e: bar.sqrt() * known + (1 - bar).sqrt() * torch.randn(e.shape)
        ),
        _BROADCAST_OVER_COLUMNS: (
            lambda d, x, t, known, mask, e: (
                mask * (d.alphas_cumprod_prev[t].sqrt() * known + (1 - d.alphas_cumprod_prev[t]).sqrt() * e)
                + (1 - mask) * x
            ),
            _BROADCAST_HINT,
        ),
        _BROADCAST_OVER_CHANNELS: (
            lambda d, x, t, known, mask, e: (
                mask * _q_sample_over_channels(d.alphas_cumprod_prev[t], known, e) + (1 - mask) * x
            ),
            _BROADCAST_HINT,
        ),
        "The known pixels have the noise of two steps before; x_prev is one step before t.": (
            _keep(lambda d: torch.cat([d.alphas_cumprod_prev[:1], d.alphas_cumprod_prev[:-1]])),
            "to which step each entry of the two tables belongs.",
        ),
        "The known pixels have the noise of two steps before, and at t = 0 the level wraps around to a noisy one.": (
            _keep(lambda d: d.alphas_cumprod_prev.roll(1)),
            "to which step each entry of the two tables belongs.",
        ),
    },
    "lesson 16, 'Known pixels'.",
)


def check_keep_known(fn: Callable, **grade_options) -> Report:
    """Check fn(diffusion, x_prev (N, C, H, W), t (N,), known, mask (N, 1, H, W), noise) -> (N, C, H, W)."""
    return grade(_KEEP_KNOWN, fn, **grade_options)
