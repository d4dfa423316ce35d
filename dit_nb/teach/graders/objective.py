"""A loss is judged by its gradients as well as by its value."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.batches import NOT_SPREAD, RESHAPE, SHAPES, one_by_one, per_image
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.schedule import noising_cases, root, root_rest


def clean_by_hand(x_t: Tensor, t: Tensor, eps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    "One image at a time."
    bar = alphas_cumprod.tolist()
    return one_by_one(lambda s, x, e: (x - math.sqrt(1 - bar[s]) * e) / math.sqrt(bar[s]), t, x_t, eps)


def solving(f: Callable, pick: Callable = per_image) -> Callable:
    "eps_to_x0 by another formula of (x_t, eps, share of signal): a mistake."
    return lambda x_t, t, eps, bar: f(x_t, eps, pick(bar, t))


def unnoise(x, e, b):
    "The right formula, to be given wrong entries."
    return (x - root_rest(b) * e) / root(b)


EPS_TO_X0 = Exercise(
    "eps_to_x0",
    clean_by_hand,
    noising_cases,
    (
        Mistake(
            "The noise is taken away, but what is left is still faded: the picture's own coefficient is not undone.",
            "lesson 15, 'Guess the noise': solve for x_0.",
            solving(lambda x, e, b: x - root_rest(b) * e),
        ),
        Mistake(
            "Only the noise is divided, not the whole difference.",
            "the brackets.",
            solving(lambda x, e, b: x - root_rest(b) * e / root(b)),
        ),
        Mistake(
            "Only x_t is divided, not the whole difference.",
            "the brackets.",
            solving(lambda x, e, b: x / root(b) - root_rest(b) * e),
        ),
        Mistake(
            "The noise is added, where it should be taken away.",
            "the sign.",
            solving(lambda x, e, b: (x + root_rest(b) * e) / root(b)),
        ),
        Mistake(
            "The coefficients lack their square roots.",
            "lesson 14, 'The jump'.",
            solving(lambda x, e, b: (x - (1 - b) * e) / b),
        ),
        Mistake(
            "The two coefficients are exchanged.",
            "lesson 14, 'The jump'.",
            solving(lambda x, e, b: (x - root(b) * e) / root_rest(b)),
        ),
        Mistake(NOT_SPREAD, RESHAPE, solving(unnoise, lambda bar, t: bar[t])),
        Mistake(
            "It is one step early: entry t of the table belongs to timestep t, counted from 0.",
            "the index into the table.",
            solving(unnoise, lambda bar, t: per_image(bar, t - 1)),
        ),
    ),
    "lesson 15, 'Guess the noise'.",
    tolerance=1e-8,
)


def check_eps_to_x0(
    fn: Callable,  # (x_t (N, C, H, W), t (N,), eps (N, C, H, W), alphas_cumprod (T,)) -> x0 (N, C, H, W)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`eps_to_x0(x_t, t, eps, alphas_cumprod)`: the clean image, if eps is the noise in x_t."
    return grade(EPS_TO_X0, fn, **options)


class Bound:
    "Something that behaves like the variational bound: it pulls at both its arguments."

    def __init__(self, target: Tensor):  # (N, C, H, W)
        self.target = target

    def __call__(self, eps: Tensor, values: Tensor) -> Tensor:  # (N,)
        return ((eps - self.target) ** 2 * torch.exp(-values) + values).flatten(1).mean(1) + 0.3


def loss_and_gradients(fn: Callable, output: Tensor, noise: Tensor, target: Tensor):
    "The loss of each image, and how it pulls at the two halves of the output."
    output.requires_grad_()
    loss = fn(output, noise, Bound(target))
    if not isinstance(loss, Tensor):
        return loss
    pull = torch.zeros_like(output)
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss.sum(), output, allow_unused=True)
        pull = pull if found is None else found
    return loss.detach(), *pull.chunk(2, dim=1)


class ByHand(torch.autograd.Function):
    "The loss with both gradients worked out on paper."

    @staticmethod
    def forward(ctx, output, noise, target):
        "The loss of each image."
        eps, values = output.chunk(2, dim=1)
        ctx.save_for_backward(eps - noise, values, eps - target)
        return ((eps - noise) ** 2).flatten(1).mean(1) + Bound(target)(eps, values)

    @staticmethod
    def backward(ctx, g):
        "Derivatives of the squared error in one half, of the bound in the other."
        error, values, gap = ctx.saved_tensors
        scale = g.reshape(-1, 1, 1, 1) / error[0].numel()
        return torch.cat([2 * error * scale, (1 - gap**2 * torch.exp(-values)) * scale], 1), None, None


def hybrid_by_hand(output: Tensor, noise: Tensor, vb_terms: Bound) -> Tensor:
    "The loss whose gradients stand on paper."
    return ByHand.apply(output, noise, vb_terms.target)


def loss_cases(draw: Draw) -> list[Case]:
    "Outputs with twice as many channels as the noise."
    shapes = [*SHAPES, (draw.pick(3, 5), draw.pick(1, 3), 4, 2)]
    args = [(draw.normal(s[0], 2 * s[1], *s[2:]), draw.normal(*s), draw.normal(*s)) for s in shapes]
    return [Case("noise of {}x{}x{}x{}".format(*s), a) for s, a in zip(shapes, args)]


def hybrid(
    swap: bool = False,
    cut: Callable = Tensor.detach,
    square: Callable = lambda gap: (gap**2).flatten(1).mean(1),
    add: Callable = lambda mse, vb: mse + vb,
    cut_values: Callable = lambda v: v,
) -> Callable:
    "The loss with knobs for everything that can go wrong."

    def turned(output, noise, vb_terms):
        eps, values = output.chunk(2, dim=1)
        eps, values = (values, eps) if swap else (eps, values)
        return add(square(eps - noise), vb_terms(cut(eps), cut_values(values)))

    return turned


HYBRID_LOSS = Exercise(
    "hybrid_loss",
    hybrid_by_hand,
    loss_cases,
    (
        Mistake(
            "The loss is right, but the bound pulls at eps: its gradient must reach the variance values only.",
            "lesson 15, 'The hybrid loss, and the cut'.",
            hybrid(cut=lambda e: e),
        ),
        Mistake(
            "The loss is right, but nothing trains the variance values: the cut goes through the wrong half, or both.",
            "lesson 15, 'The hybrid loss, and the cut'.",
            hybrid(cut_values=Tensor.detach),
        ),
        Mistake(
            "The cut goes through the variance values; it must go through eps.",
            "lesson 15, 'The hybrid loss, and the cut'.",
            hybrid(cut=lambda e: e, cut_values=Tensor.detach),
        ),
        Mistake(
            "The halves of the output are exchanged: eps comes first, then the variance values.",
            "the order of the output's channels.",
            hybrid(swap=True),
        ),
        Mistake(
            "The squared error is summed over an image; its mean was asked for.",
            "lesson 15, 'Guess the noise'.",
            hybrid(square=lambda gap: (gap**2).flatten(1).sum(1)),
        ),
        Mistake(
            "The squared error is averaged over the batch as well; each image has its own loss.",
            "the axes of the mean.",
            hybrid(square=lambda gap: (gap**2).mean()),
        ),
        Mistake(
            "All is averaged to one number; each image has its own loss.",
            "what you return.",
            hybrid(add=lambda mse, vb: (mse + vb).mean()),
        ),
        Mistake(
            "The bound is missing.", "the second part of the loss.", hybrid(add=lambda mse, vb: mse + 0 * vb)
        ),
        Mistake(
            "The bound is weighted by 0.001. With one timestep drawn out of 1000, that weight is in the drawing already.",
            "lesson 15, the callout on the weight of the bound.",
            hybrid(add=lambda mse, vb: mse + 0.001 * vb),
        ),
        Mistake(
            "The loss is right, but cut off from the output altogether: nothing is trained. Is there a detach too many, "
            "an item, or a new tensor?",
            "lesson 15, 'The hybrid loss, and the cut'.",
            lambda output, *rest: hybrid()(output.detach(), *rest),
        ),
        Mistake(
            "The squared error is cut off too: nothing trains eps.",
            "what is detached.",
            lambda output, *rest: hybrid()(
                torch.cat([output.chunk(2, 1)[0].detach(), output.chunk(2, 1)[1]], 1), *rest
            ),
        ),
    ),
    "lesson 15, 'The hybrid loss, and the cut'.",
    parts=("loss", "gradient in eps", "gradient in the variance values"),
    probe=loss_and_gradients,
    reference=hybrid(),
)


def check_hybrid_loss(
    fn: Callable,  # (output (N, 2C, H, W), noise (N, C, H, W), vb_terms(eps, values) -> (N,)) -> loss (N,)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`hybrid_loss(output, noise, vb_terms)`: squared error of eps plus the bound, each training its own half."
    return grade(HYBRID_LOSS, fn, **options)
