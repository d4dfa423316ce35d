"""Graders of the objective: the inverse of the forward process, and gradients by finite differences."""

import torch

from dit_nb.teach.graders.framework.core import all_exercises
from dit_nb.teach.graders.objective import _Bound, check_from_velocity, check_hybrid_loss
from support import relative

Q_SAMPLE = all_exercises()["q_sample"].oracle
RUN = all_exercises()["hybrid_loss"].run


def test_the_clean_image_is_recovered(check_identity):
    def holds(fn, x0, t, eps, alphas_cumprod):
        x_t = Q_SAMPLE(x0, t, eps, alphas_cumprod)
        return relative(fn(x_t, t, eps, alphas_cumprod), x0) < 1e-9

    check_identity("eps_to_x0", holds)


def test_image_and_score_are_those_of_a_point_and_its_noise(check_identity):
    """The velocity is the derivative along the quarter circle; the score is autograd's, of a Gaussian."""

    def holds(fn, x0, t, eps, alphas_cumprod):
        angles = torch.acos(alphas_cumprod[t].sqrt()).view(-1, 1, 1, 1)
        x_t, v = torch.func.jvp(lambda a: a.cos() * x0 + a.sin() * eps, (angles,), (torch.ones_like(angles),))
        clean, score = fn(x_t, t, v, alphas_cumprod)
        x = x_t.clone().requires_grad_()
        log_density = torch.distributions.Normal(angles.cos() * x0, angles.sin()).log_prob(x)
        (expected,) = torch.autograd.grad(log_density.sum(), x)
        return relative(clean, x0) < 1e-8 and relative(score, expected) < 1e-8

    check_identity("from_velocity", holds)


def test_the_error_trains_eps_and_the_bound_trains_the_values(check_identity):
    """Gradients are those of two losses; central differences are exact for the squared error."""

    def holds(fn, output, noise, target):
        loss, *gradients = RUN(fn, (output.clone(), noise, target))
        (eps, values), bound = output.chunk(2, 1), _Bound(target)

        def error(e):
            return (e - noise).square().mean((1, 2, 3))

        slopes = [slope(error, eps), slope(lambda v: bound(eps, v), values)]
        found = [(gradient * direction(gradient)).sum((1, 2, 3)) for gradient in gradients]
        return (
            relative(loss, error(eps) + bound(eps, values)) < 1e-9
            and relative(found[0], slopes[0]) < 1e-6
            and relative(found[1], slopes[1]) < 1e-6
        )

    check_identity("hybrid_loss", holds)


def test_a_right_loss_that_trains_the_wrong_part_is_half():
    def loss(output, noise, vb_terms, stop=lambda eps: eps.detach(), scale=1.0):
        eps, values = output.chunk(2, 1)
        return ((eps - noise) ** 2).flatten(1).mean(1) + scale * vb_terms(stop(eps), values)

    def without_stop(*args):
        return loss(*args, stop=lambda eps: eps)

    def other_scale(*args):
        return loss(*args, scale=2.0)

    earned = [check_hybrid_loss(fn, points=4).points for fn in (loss, without_stop, other_scale)]
    assert earned == [4, 2, 0]


def test_a_right_image_or_a_right_score_is_half():
    def both(x_t, t, v, alphas_cumprod, wrong=()):
        signal, scale = (c.sqrt()[t].view(-1, 1, 1, 1) for c in (alphas_cumprod, 1 - alphas_cumprod))
        image, score = signal * x_t - scale * v, -(scale * x_t + signal * v) / scale
        return image + ("image" in wrong), score + ("score" in wrong)

    wrongs = ((), ("image",), ("score",), ("image", "score"))
    earned = [check_from_velocity(lambda *a, w=w: both(*a, wrong=w), points=4).points for w in wrongs]
    assert earned == [4, 2, 2, 0]


def direction(x):
    return torch.randn(x.shape, generator=torch.manual_seed(0), dtype=x.dtype)


def slope(f, x, step=1e-4):
    """Change of f(x) of each image along a random direction."""
    return (f(x + step * direction(x)) - f(x - step * direction(x))) / (2 * step)
