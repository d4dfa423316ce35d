"""Two samplers, one step each: at t = 0, where images are clipped, where eta is 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import Diffusion, Prediction
from dit_nb.sampling import ddim_step, ddpm_step
from dit_nb.teach.graders.framework.batches import NOT_SPREAD, RESHAPE, SHAPES, one_by_one, per_image
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def ddpm_by_hand(
    diffusion: Diffusion, prediction: Prediction, x_t: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    "One image at a time."

    def one(step, mean, log_variance, e):
        return mean if step == 0 else mean + log_variance.exp() ** 0.5 * e

    return one_by_one(one, t, prediction.mean, prediction.log_variance, noise)


def step_cases(draw: Draw, *more) -> list[Case]:
    "A process of ten steps; the first image is at 0, or another, or none; predictions are held in [-1, 1]."
    diffusion, cases = Diffusion().respaced("10"), []
    firsts = [[0, 3, 9, 5], [4, 0, 1], [2, 7], [0, 0, 6, 8, 2], [0, 0]]
    for i, (shape, t) in enumerate(zip([*SHAPES, (5, 2, 3, 5), (2, 1, 3, 4)], map(torch.tensor, firsts))):
        x_t, noise = draw.normal(*shape), draw.normal(*shape)
        prediction = diffusion.predict(draw.normal(shape[0], 2 * shape[1], *shape[2:]), x_t, t, clip_x0=True)
        label = f"t = {', '.join(map(str, t.tolist()))}" + "".join(f", eta = {m[i]:g}" for m in more)
        cases.append(Case(label, (diffusion, prediction, x_t, t, noise, *(m[i] for m in more))))
    return cases


def awake(t: Tensor) -> Tensor:
    "(N, 1, 1, 1) 1 where there is noise to add."
    return (t > 0).double().reshape(-1, 1, 1, 1)


def ddpm(spread: Callable = lambda v: (v / 2).exp(), mask: Callable = awake) -> Callable:
    "The step with another spread, or noise at other times: a mistake."
    return lambda d, p, x, t, e: p.mean + mask(t) * spread(p.log_variance) * e


DDPM_STEP = Exercise(
    "ddpm_step",
    ddpm_by_hand,
    step_cases,
    (
        Mistake(
            "The last step adds noise, and nobody is left to take it away.",
            "lesson 16, 'Fingerprints of bugs'.",
            ddpm(mask=lambda t: 1.0),
        ),
        Mistake(
            "The variance is used where its square root belongs: the noise is much too weak.",
            "lesson 16, 'Fingerprints of bugs'.",
            ddpm(torch.exp),
        ),
        Mistake(
            "The logarithm of the variance is used where a standard deviation belongs.",
            "what is multiplied with the noise.",
            ddpm(lambda v: v),
        ),
        Mistake("No noise is ever added.", "lesson 16, 'The right way'.", ddpm(mask=lambda t: 0.0)),
        Mistake(
            "The first image decides for the whole batch whether there is noise.",
            "what is asked of t.",
            ddpm(mask=lambda t: float(t[0] > 0)),
        ),
        Mistake(
            "One image at t = 0 silences the whole batch.",
            "what is asked of t.",
            ddpm(mask=lambda t: float((t > 0).all())),
        ),
        Mistake(
            "The noise of the last step goes unless the whole batch is there.",
            "what is asked of t.",
            ddpm(mask=lambda t: float((t > 0).any())),
        ),
        Mistake(NOT_SPREAD, RESHAPE, ddpm(mask=lambda t: (t > 0).double())),
        Mistake(
            "The noise is added to x_t; it must be added to the mean that the prediction gives.",
            "lesson 16, 'The right way'.",
            lambda d, p, x, t, e: x + awake(t) * (p.log_variance / 2).exp() * e,
        ),
        Mistake(
            "The noise is added to the predicted clean image; it must be added to the mean of the step.",
            "lesson 16, 'The right way'.",
            lambda d, p, x, t, e: p.x0 + awake(t) * (p.log_variance / 2).exp() * e,
        ),
        Mistake(
            "The noise has the width of a step forward; the prediction says how wide this step is.",
            "what the prediction knows of the variance.",
            lambda d, p, x, t, e: p.mean + awake(t) * per_image(d.betas, t).sqrt() * e,
        ),
    ),
    "lesson 16, 'The right way'.",
    reference=ddpm_step,
)


def check_ddpm_step(
    fn: Callable,  # (diffusion, prediction, x_t (N, C, H, W), t (N,), noise (N, C, H, W)) -> x_{t-1}
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`ddpm_step(diffusion, prediction, x_t, t, noise)`: x_{t-1} from prediction.mean and prediction.log_variance."
    return grade(DDPM_STEP, fn, **options)


def ddim_by_hand(
    diffusion: Diffusion, prediction: Prediction, x_t: Tensor, t: Tensor, noise: Tensor, eta: float
) -> Tensor:
    "One image at a time, the noise that is in x_t worked out anew."
    bar = [1.0, *torch.cumprod(1 - diffusion.betas, 0).tolist()]

    def one(step, x0, x, e):
        after, before = bar[step + 1], bar[step]
        inside = (x - math.sqrt(after) * x0) / math.sqrt(1 - after)
        fresh = eta**2 * (1 - before) / (1 - after) * (1 - after / before)
        kept = math.sqrt(max(1 - before - fresh, 0))
        return math.sqrt(before) * x0 + kept * inside + math.sqrt(fresh) * e

    return one_by_one(one, t, prediction.x0, x_t, noise)


def ddim_cases(draw: Draw) -> list[Case]:
    "With no, some and full noise."
    return step_cases(draw, [0.0, 0.5, 1.0, draw.pick(0.3, 0.7), 1.0])


def ddim(
    previous: Callable = lambda bar: torch.cat([bar.new_ones(1), bar[:-1]]),
    inside: Callable = lambda d, p, x, t: d.x0_to_eps(x, t, p.x0),
    width: Callable = lambda eta, variance: eta * variance.sqrt(),
    kept: Callable = lambda before, sigma: (1 - before - sigma**2).clamp(min=0).sqrt(),
) -> Callable:
    "The step with knobs for everything that can go wrong."

    def turned(d, p, x, t, noise, eta):
        after, before = per_image(d.alphas_cumprod, t), per_image(previous(d.alphas_cumprod), t)
        sigma = width(eta, ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0))
        return before.sqrt() * p.x0 + kept(before, sigma) * inside(d, p, x, t) + sigma * noise

    return turned


DDIM_STEP = Exercise(
    "ddim_step",
    ddim_by_hand,
    ddim_cases,
    (
        Mistake(
            "It uses the predicted noise where the clean image was clipped: the two do not fit each other any more. "
            "The noise must be worked out from x_t and the predicted clean image.",
            "lesson 16, 'DDIM: the same noise, less of it'.",
            ddim(inside=lambda d, p, x, t: p.eps),
        ),
        Mistake(
            "With fresh noise there must be less of the old: together they are too much.",
            "lesson 16, 'DDIM: the same noise, less of it'.",
            ddim(kept=lambda before, sigma: (1 - before).sqrt()),
        ),
        Mistake(
            "The setting eta is given, but not used: no noise is ever added.",
            "what eta is for.",
            ddim(width=lambda eta, variance: 0 * variance),
        ),
        Mistake(
            "The setting eta is given, but not used: it is as noisy as DDPM always.",
            "what eta is for.",
            ddim(width=lambda eta, variance: variance.sqrt()),
        ),
        Mistake(
            "The variance of the fresh noise is used where its square root belongs.",
            "what is multiplied with the noise.",
            ddim(width=lambda eta, variance: eta * variance),
        ),
        Mistake(
            "The setting eta stands under the square root; it scales the standard deviation, not the variance.",
            "the place of eta.",
            ddim(width=lambda eta, variance: (eta * variance).sqrt()),
        ),
        Mistake(
            "It comes back to the noise level from which it started; a step must go to the level before.",
            "which share of signal is the target's.",
            ddim(previous=lambda bar: bar),
        ),
        Mistake(
            "At t = 0 the level before wraps around to the last of the table: the finished picture turns into noise.",
            "what index -1 means.",
            ddim(previous=lambda bar: bar.roll(1)),
        ),
    ),
    "lesson 16, 'DDIM: the same noise, less of it'.",
    tolerance=1e-8,
    reference=ddim_step,
)


def check_ddim_step(
    fn: Callable,  # (diffusion, prediction, x_t (N, C, H, W), t (N,), noise (N, C, H, W), eta) -> x_{t-1}
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`ddim_step(diffusion, prediction, x_t, t, noise, eta)`: x_{t-1} from prediction.x0, which may have been clipped."
    return grade(DDIM_STEP, fn, **options)
