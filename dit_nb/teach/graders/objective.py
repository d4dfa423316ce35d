"""Graders of lesson 15: x0 from eps, and the hybrid loss with its gradients."""

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
from dit_nb.teach.graders.schedule import _noise_scale, _q_sample_cases, _signal_scale

__all__ = ["check_eps_to_x0", "check_hybrid_loss"]


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
        "It is one step early: entry t of the table belongs to timestep t, counted from 0.": (
            _eps_to_x0_by(_eps_to_x0, lambda bar, t: _per_image(bar, t - 1)),
            "the index into the table.",
        ),
    },
    "lesson 15, 'Predict the noise'.",
    tolerance=1e-8,
)


def check_eps_to_x0(fn: Callable, **grade_options) -> Report:
    """Check fn(x_t (N, C, H, W), t (N,), eps (N, C, H, W), alphas_cumprod (T,)) -> x0."""
    return grade(_EPS_TO_X0, fn, **grade_options)


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
        "The loss is right, but nothing trains the variance values: is the detach on the wrong half?": _hybrid_loss(
            detach_values=Tensor.detach
        ),
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
    },
    "lesson 15, 'The hybrid loss'.",
    result_names=("loss", "gradient in eps", "gradient in the variance values"),
    probe=_loss_and_gradients,
    reference=_hybrid_loss(),
)


def check_hybrid_loss(fn: Callable, **grade_options) -> Report:
    """Check fn(output (N, 2C, H, W), noise (N, C, H, W), vb_terms: (eps, values) -> (N,)) -> (N,)."""
    return grade(_HYBRID_LOSS, fn, **grade_options)
