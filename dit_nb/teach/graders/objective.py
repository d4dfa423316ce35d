"""Graders of lesson 15: x0 from eps, image and score from the velocity, and the hybrid loss with its gradients."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

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
from dit_nb.teach.graders.schedule import (
    _BROADCAST_OVER_CHANNELS,
    _noise_scale,
    _q_sample_cases,
    _signal_scale,
)

__all__ = ["check_eps_to_x0", "check_from_velocity", "check_hybrid_loss"]


def _eps_to_x0_loops(x_t: Tensor, t: Tensor, eps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    bar = alphas_cumprod.tolist()
    return _one_by_one(lambda s, x, e: (x - math.sqrt(1 - bar[s]) * e) / math.sqrt(bar[s]), t, x_t, eps)


def _eps_to_x0_by(f: Callable, pick: Callable = _per_image) -> Callable:
    """eps_to_x0 by another formula of (x_t, eps, alphas_cumprod)."""
    return lambda x_t, t, eps, bar: f(x_t, eps, pick(bar, t))


def _eps_to_x0(x, e, b):
    return (x - _noise_scale(b) * e) / _signal_scale(b)


_EPS_TO_X0 = Exercise(
    "eps_to_x0",
    _eps_to_x0_loops,
    _q_sample_cases,
    {
        "The noise is subtracted, but the image is still faded: its own coefficient is not undone.": (
            _eps_to_x0_by(lambda x, e, b: x - _noise_scale(b) * e),
            "lesson 15, 'Predict the noise': solve for x_0.",
        ),
        "Only the noise is divided, not the whole difference.": _eps_to_x0_by(
            lambda x, e, b: x - _noise_scale(b) * e / _signal_scale(b)
        ),
        "Only x_t is divided, not the whole difference.": _eps_to_x0_by(
            lambda x, e, b: x / _signal_scale(b) - _noise_scale(b) * e
        ),
        "The noise is added; it should be subtracted.": _eps_to_x0_by(
            lambda x, e, b: (x + _noise_scale(b) * e) / _signal_scale(b)
        ),
        "The coefficients lack their square roots.": (
            _eps_to_x0_by(lambda x, e, b: (x - (1 - b) * e) / b),
            "lesson 14, 'The jump'.",
        ),
        "The two coefficients are exchanged.": (
            _eps_to_x0_by(lambda x, e, b: (x - _signal_scale(b) * e) / _noise_scale(b)),
            "lesson 14, 'The jump'.",
        ),
        _BROADCAST_OVER_COLUMNS: (_eps_to_x0_by(_eps_to_x0, lambda bar, t: bar[t]), _BROADCAST_HINT),
        _BROADCAST_OVER_CHANNELS: (
            _eps_to_x0_by(_eps_to_x0, lambda bar, t: bar[t][:, None, None]),
            _BROADCAST_HINT,
        ),
        "It is one step early: entry t of the table belongs to timestep t, counted from 0.": (
            _eps_to_x0_by(_eps_to_x0, lambda bar, t: _per_image(bar, t - 1)),
            "the index into the table.",
        ),
        "All images use the timestep of the first.": (
            _eps_to_x0_by(_eps_to_x0, lambda bar, t: bar[t[0]]),
            _BROADCAST_HINT,
        ),
        "The difference is divided by alphas_cumprod; it must be divided by its square root.": (
            _eps_to_x0_by(lambda x, e, b: (x - _noise_scale(b) * e) / b),
            "lesson 14, 'The jump'.",
        ),
        "The noise's coefficient lacks its square root.": _eps_to_x0_by(
            lambda x, e, b: (x - (1 - b) * e) / _signal_scale(b)
        ),
        "The noise's coefficient is 1 minus a root, or a root minus 1; it is the root of the whole difference.": _eps_to_x0_by(
            lambda x, e, b: (x - (1 - b.sqrt()) * e) / _signal_scale(b)
        ),
        "In the form with 1 / alphas_cumprod the noise's coefficient lacks its square root.": _eps_to_x0_by(
            lambda x, e, b: x / _signal_scale(b) - (1 / b - 1) * e
        ),
        "The noise's part is right, but x_t is divided by alphas_cumprod; it must be divided by its square root.": (
            _eps_to_x0_by(lambda x, e, b: x / b - (1 / b - 1).sqrt() * e),
            "lesson 14, 'The jump'.",
        ),
        "The noise has no coefficient: x_t holds only a part of it.": _eps_to_x0_by(
            lambda x, e, b: (x - e) / _signal_scale(b)
        ),
        "The difference is multiplied by the image's coefficient; it must be divided by it.": _eps_to_x0_by(
            lambda x, e, b: (x - _noise_scale(b) * e) * _signal_scale(b)
        ),
        "The result is clipped to [-1, 1]; nothing in the formula does that.": (
            _eps_to_x0_by(lambda x, e, b: _eps_to_x0(x, e, b).clamp(-1, 1)),
            "the task asks for the image that solves the equation; samplers clip it afterwards.",
        ),
        "Neither coefficient is used: x_t is not the sum of image and noise.": _eps_to_x0_by(
            lambda x, e, b: x - e
        ),
        "The image's coefficient multiplies x_t; the whole difference must be divided by it.": _eps_to_x0_by(
            lambda x, e, b: _signal_scale(b) * x - _noise_scale(b) * e
        ),
        "The sign of the whole is wrong: it is noise minus x_t.": _eps_to_x0_by(
            lambda x, e, b: -_eps_to_x0(x, e, b)
        ),
    },
    "lesson 15, 'Predict the noise'.",
    tolerance=1e-8,
)


def check_eps_to_x0(fn: Callable, **grade_options) -> Report:
    """Check fn(x_t (N, C, H, W), t (N,), eps (N, C, H, W), alphas_cumprod (T,)) -> x0."""
    return grade(_EPS_TO_X0, fn, **grade_options)


def _from_velocity_oracle(x_t: Tensor, t: Tensor, v: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Solve two linear equations for image and noise of each pixel; the score is minus noise over its scale."""
    clean, scores = [], []
    for step, x, velocity in zip(t.tolist(), x_t, v):
        signal, noise = math.sqrt(alphas_cumprod[step]), math.sqrt(1 - alphas_cumprod[step])
        matrix = torch.tensor([[signal, noise], [-noise, signal]], dtype=torch.float64)
        both = torch.linalg.solve(matrix, torch.stack([x.flatten(), velocity.flatten()]))
        clean.append(both[0].view_as(x))
        scores.append(-both[1].view_as(x) / noise)
    return torch.stack(clean), torch.stack(scores)


def _velocity(
    clean: Callable = lambda x, v, s, n: s * x - n * v,
    eps: Callable = lambda x, v, s, n: n * x + s * v,
    score: Callable = lambda eps, n: -eps / n,
    roots: tuple[Callable, Callable] = (_signal_scale, _noise_scale),
    pick: Callable = _per_image,
) -> Callable:
    """from_velocity with parameters for known mistakes."""

    def from_velocity(x_t, t, v, alphas_cumprod):
        bar = pick(alphas_cumprod, t)
        signal, noise = (root(bar) for root in roots)
        return clean(x_t, v, signal, noise), score(eps(x_t, v, signal, noise), noise)

    return from_velocity


_SCORE_HINT = "lesson 15, 'Three names for one answer': noise is minus sigma times the score."
_VELOCITY_HINT = "lesson 15, 'Three names for one answer': x_t and v are two equations with two unknowns."

_FROM_VELOCITY = Exercise(
    "from_velocity",
    _from_velocity_oracle,
    _q_sample_cases,
    {
        "The velocity is added in the image; a sign is wrong.": (
            _velocity(clean=lambda x, v, s, n: s * x + n * v),
            _VELOCITY_HINT,
        ),
        "In the image x_t and the velocity have each other's coefficients.": (
            _velocity(clean=lambda x, v, s, n: n * x - s * v),
            _VELOCITY_HINT,
        ),
        "The velocity is used as if it were the noise: v is a mix of noise and image.": (
            _velocity(clean=lambda x, v, s, n: (x - n * v) / s, eps=lambda x, v, s, n: v),
            _VELOCITY_HINT,
        ),
        "The velocity is used as if it were the noise in the image; the score is right.": (
            _velocity(clean=lambda x, v, s, n: (x - n * v) / s),
            _VELOCITY_HINT,
        ),
        "The velocity is used as if it were the noise in the score; the image is right.": (
            _velocity(eps=lambda x, v, s, n: v),
            _VELOCITY_HINT,
        ),
        "The velocity is subtracted in the score's noise; a sign is wrong.": (
            _velocity(eps=lambda x, v, s, n: n * x - s * v),
            _VELOCITY_HINT,
        ),
        "In the score's noise x_t and the velocity have each other's coefficients.": (
            _velocity(eps=lambda x, v, s, n: s * x + n * v),
            _VELOCITY_HINT,
        ),
        "The image is right, but it is subtracted from x_t without its coefficient: x_t holds only a part of it.": (
            _velocity(eps=lambda x, v, s, n: (x - (s * x - n * v)) / n),
            _SCORE_HINT,
        ),
        "The velocity has the wrong sign in the image, and so in the score.": (
            _velocity(clean=lambda x, v, s, n: s * x + n * v, eps=lambda x, v, s, n: n * x - s * v),
            _VELOCITY_HINT,
        ),
        "The rotation goes the wrong way, in the image and in the score's noise: both sines have the wrong sign.": (
            _velocity(clean=lambda x, v, s, n: s * x + n * v, eps=lambda x, v, s, n: s * v - n * x),
            _VELOCITY_HINT,
        ),
        "In the score's noise x_t is subtracted; a sign is wrong.": (
            _velocity(eps=lambda x, v, s, n: s * v - n * x),
            _VELOCITY_HINT,
        ),
        "The velocity is followed as on flow matching's straight line: it has the noise's coefficient, but x_t none.": (
            _velocity(clean=lambda x, v, s, n: x - n * v, eps=lambda x, v, s, n: (x - s * (x - n * v)) / n),
            _VELOCITY_HINT,
        ),
        "The image is x_t minus the velocity, without coefficients.": (
            _velocity(clean=lambda x, v, s, n: x - v),
            _VELOCITY_HINT,
        ),
        "The image is clipped to [-1, 1]; nothing in the equations does that.": lambda *a: (
            lambda clean, score: (clean.clamp(-1, 1), score)
        )(*_velocity()(*a)),
        "The score is that of pure noise: the clean image is not subtracted from x_t.": (
            _velocity(eps=lambda x, v, s, n: x, score=lambda x, n: -x / n**2),
            _SCORE_HINT,
        ),
        "The score uses the image where it needs the noise.": (
            _velocity(eps=lambda x, v, s, n: s * x - n * v),
            _SCORE_HINT,
        ),
        "The score is divided by the signal's coefficient; it must be the noise's.": (
            _velocity(score=lambda eps, n: -eps / (1 - n**2).sqrt()),
            _SCORE_HINT,
        ),
        "The second result is the noise; the score is asked for.": (
            _velocity(score=lambda eps, n: eps),
            _SCORE_HINT,
        ),
        "The second result is minus the noise; for the score it must be divided by the noise's scale.": (
            _velocity(score=lambda eps, n: -eps),
            _SCORE_HINT,
        ),
        "The score has the wrong sign: it points away from the noise.": (
            _velocity(score=lambda eps, n: eps / n),
            _SCORE_HINT,
        ),
        "For the score the noise is divided by its variance; it must be divided by its standard deviation.": (
            _velocity(score=lambda eps, n: -eps / n**2),
            _SCORE_HINT,
        ),
        "The score is multiplied by the scale of the noise; it must be divided by it.": (
            _velocity(score=lambda eps, n: -eps * n),
            _SCORE_HINT,
        ),
        "The coefficients lack their square roots.": (
            _velocity(roots=(lambda b: b, lambda b: 1 - b)),
            "lesson 14, 'The jump'.",
        ),
        "The two coefficients are exchanged everywhere: the signal's is the root of alphas_cumprod.": (
            _velocity(roots=(_noise_scale, _signal_scale)),
            "lesson 14, 'The jump'.",
        ),
        "The noise's coefficient is 1 minus a root; it is the root of 1 minus alphas_cumprod.": (
            _velocity(roots=(_signal_scale, lambda b: 1 - b.sqrt())),
            "lesson 14, 'The jump'.",
        ),
        "Image and score are returned in the wrong order.": lambda *args: _velocity()(*args)[::-1],
        "The second result is the noise's part of x_t, not the score.": (
            _velocity(score=lambda eps, n: eps * n),
            _SCORE_HINT,
        ),
        _BROADCAST_OVER_COLUMNS: (_velocity(pick=lambda bar, t: bar[t]), _BROADCAST_HINT),
        _BROADCAST_OVER_CHANNELS: (_velocity(pick=lambda bar, t: bar[t][:, None, None]), _BROADCAST_HINT),
        "It is one step early: entry t of the table belongs to timestep t, counted from 0.": (
            _velocity(pick=lambda bar, t: _per_image(bar, t - 1)),
            "the index into the table.",
        ),
        "In the image and in the score's noise x_t and the velocity have each other's coefficients.": (
            _velocity(clean=lambda x, v, s, n: n * x - s * v, eps=lambda x, v, s, n: s * x + n * v),
            _VELOCITY_HINT,
        ),
        "The image has the wrong sign.": (_velocity(clean=lambda x, v, s, n: n * v - s * x), _VELOCITY_HINT),
        "The image is divided by the signal's coefficient; the two squares sum to 1, so nothing is left to divide by.": (
            _velocity(clean=lambda x, v, s, n: (s * x - n * v) / s),
            _VELOCITY_HINT,
        ),
        "In the image x_t lacks its coefficient.": (
            _velocity(clean=lambda x, v, s, n: x - n * v),
            _VELOCITY_HINT,
        ),
        "In the image the velocity lacks its coefficient.": (
            _velocity(clean=lambda x, v, s, n: s * x - v),
            _VELOCITY_HINT,
        ),
        "The score's noise is x_t plus the velocity, without coefficients.": (
            _velocity(eps=lambda x, v, s, n: x + v),
            _VELOCITY_HINT,
        ),
        "In the score's noise the velocity lacks its coefficient.": (
            _velocity(eps=lambda x, v, s, n: n * x + v),
            _VELOCITY_HINT,
        ),
        "In the score's noise x_t lacks its coefficient.": (
            _velocity(eps=lambda x, v, s, n: x + s * v),
            _VELOCITY_HINT,
        ),
    },
    _VELOCITY_HINT,
    result_names=("image", "score"),
    half_results=(lambda results: results[0], lambda results: results[1]),
    tolerance=1e-8,
    reference=_velocity(),
)


def check_from_velocity(fn: Callable, **grade_options) -> Report:
    """Check fn(x_t (N, C, H, W), t (N,), v (N, C, H, W), alphas_cumprod (T,)) -> x0, score (N, C, H, W)."""
    return grade(_FROM_VELOCITY, fn, **grade_options)


class _Bound:
    """A stand-in for the variational bound, with gradients in both arguments."""

    def __init__(self, target: Tensor):  # (N, C, H, W)
        self.target = target

    def __call__(self, eps: Tensor, values: Tensor) -> Tensor:  # (N,)
        return ((eps - self.target) ** 2 * torch.exp(-values) + values).flatten(1).mean(1) + 0.3


def _loss_and_gradients(fn: Callable, output: Tensor, noise: Tensor, target: Tensor):
    """Return the loss of each image, and its gradients in the two halves of the output."""
    output.requires_grad_()
    loss = fn(output, noise, _Bound(target))
    if not isinstance(loss, Tensor):
        return loss
    gradient = torch.zeros_like(output)
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss.sum(), output, allow_unused=True)
        gradient = gradient if found is None else found
    return loss.detach(), *gradient.chunk(2, dim=1)


class _ExactLoss(torch.autograd.Function):
    """The loss with both gradients derived by hand."""

    @staticmethod
    def forward(ctx, output, noise, target):
        eps, values = output.chunk(2, dim=1)
        ctx.save_for_backward(eps - noise, values, eps - target)
        return ((eps - noise) ** 2).flatten(1).mean(1) + _Bound(target)(eps, values)

    @staticmethod
    def backward(ctx, g):
        error, values, gap = ctx.saved_tensors
        scale = g.reshape(-1, 1, 1, 1) / error[0].numel()
        return torch.cat([2 * error * scale, (1 - gap**2 * torch.exp(-values)) * scale], 1), None, None


def _hybrid_loss_exact(output: Tensor, noise: Tensor, vb_terms: _Bound) -> Tensor:
    return _ExactLoss.apply(output, noise, vb_terms.target)


def _loss_cases(rng: RandomInputs) -> list[Case]:
    shapes = [*_SHAPES, (rng.choice(3, 5), rng.choice(1, 3), 4, 2)]
    args = [(rng.normal(s[0], 2 * s[1], *s[2:]), rng.normal(*s), rng.normal(*s)) for s in shapes]
    return [Case("noise of {}x{}x{}x{}".format(*s), a) for s, a in zip(shapes, args)]


def _hybrid_loss(
    swap: bool = False,
    detach: Callable = Tensor.detach,
    square: Callable = lambda gap: (gap**2).flatten(1).mean(1),
    add: Callable = lambda mse, vb: mse + vb,
    detach_values: Callable = lambda v: v,
) -> Callable:
    """The loss with parameters for known mistakes."""

    def loss(output, noise, vb_terms):
        eps, values = output.chunk(2, dim=1)
        eps, values = (values, eps) if swap else (eps, values)
        return add(square(eps - noise), vb_terms(detach(eps), detach_values(values)))

    return loss


_HYBRID_LOSS = Exercise(
    "hybrid_loss",
    _hybrid_loss_exact,
    _loss_cases,
    {
        "The loss is right, but the bound trains eps; it must train the variance values only.": _hybrid_loss(
            detach=lambda e: e
        ),
        "The loss is right, but nothing trains the variance values: are both halves detached, or is the bound computed "
        "without gradients?": _hybrid_loss(detach_values=Tensor.detach),
        "The detach is on the variance values; it must be on eps.": _hybrid_loss(
            detach=lambda e: e, detach_values=Tensor.detach
        ),
        "The halves of the output are exchanged: eps comes first, then the variance values.": _hybrid_loss(
            swap=True
        ),
        "The squared error is summed over an image; it should be averaged.": (
            _hybrid_loss(square=lambda gap: (gap**2).flatten(1).sum(1)),
            "lesson 15, 'Predict the noise'.",
        ),
        "The squared error is averaged over the batch as well; each image has its own loss.": _hybrid_loss(
            square=lambda gap: (gap**2).mean()
        ),
        "The loss is averaged to one number; each image has its own loss.": _hybrid_loss(
            add=lambda mse, vb: (mse + vb).mean()
        ),
        "The bound is missing.": _hybrid_loss(add=lambda mse, vb: mse + 0 * vb),
        "The bound is weighted by 0.001; sampling one timestep of 1000 already has that weight.": (
            _hybrid_loss(add=lambda mse, vb: mse + 0.001 * vb),
            "lesson 15, the callout on the weight of the bound.",
        ),
        "The loss is right, but nothing is trained: is there a detach, an item, or a new tensor?": lambda output, *rest: (
            _hybrid_loss()(output.detach(), *rest)
        ),
        "The squared error is detached too: nothing trains eps.": lambda output, *rest: _hybrid_loss()(
            torch.cat([output.chunk(2, 1)[0].detach(), output.chunk(2, 1)[1]], 1), *rest
        ),
        "The bound is multiplied by 1000; its weight is 1.": _hybrid_loss(
            add=lambda mse, vb: mse + 1000 * vb
        ),
        "The squared error compares the variance values with the noise, too.": lambda output, noise, vb_terms: (
            ((output - torch.cat([noise, noise], 1)) ** 2).flatten(1).mean(1)
            + vb_terms(output.chunk(2, 1)[0].detach(), output.chunk(2, 1)[1])
        ),
        "The channels are split alternately; eps is the first half, the variance values the second.": lambda output, noise, vb_terms: (
            _hybrid_loss()(torch.cat([output[:, ::2], output[:, 1::2]], 1), noise, vb_terms)
        ),
        "The error is not squared.": _hybrid_loss(square=lambda gap: gap.abs().flatten(1).mean(1)),
        "The squared error is halved; its weight is 1.": _hybrid_loss(
            square=lambda gap: (gap**2).flatten(1).mean(1) / 2
        ),
        "A root is taken of the squared error.": _hybrid_loss(
            square=lambda gap: (gap**2).flatten(1).mean(1).sqrt()
        ),
        "The bound is subtracted; both are costs.": _hybrid_loss(add=lambda mse, vb: mse - vb),
        "The bound is averaged over the batch; each image has its own.": _hybrid_loss(
            add=lambda mse, vb: mse + vb.mean()
        ),
        "The squared error is missing.": _hybrid_loss(add=lambda mse, vb: vb + 0 * mse),
        "The bound's arguments are exchanged: eps first, then the variance values.": lambda output, noise, vb_terms: (
            _hybrid_loss()(output, noise, lambda eps, values: vb_terms(values, eps))
        ),
        "The squared error and the bound are averaged; they are added.": _hybrid_loss(
            add=lambda mse, vb: (mse + vb) / 2
        ),
        "The bound is computed with the noise that was added; it needs the noise that was predicted.": lambda output, noise, vb_terms: (
            _hybrid_loss()(output, noise, lambda eps, values: vb_terms(noise, values))
        ),
        "The bound is computed with the error of the noise; it needs the predicted noise itself.": lambda output, noise, vb_terms: (
            _hybrid_loss()(output, noise, lambda eps, values: vb_terms(eps - noise, values))
        ),
        "The added noise is not subtracted: this squares the prediction, not its error.": lambda output, noise, vb_terms: (
            _hybrid_loss()(output, 0 * noise, vb_terms)
        ),
    },
    "lesson 15, 'The hybrid loss'.",
    result_names=("loss", "gradient in eps", "gradient in the variance values"),
    half_results=(lambda results: results[0],),  # what is trained is the other half
    probe=_loss_and_gradients,
    reference=_hybrid_loss(),
)


def check_hybrid_loss(fn: Callable, **grade_options) -> Report:
    """Check fn(output (N, 2C, H, W), noise (N, C, H, W), vb_terms: (eps, values) -> (N,)) -> (N,)."""
    return grade(_HYBRID_LOSS, fn, **grade_options)
