"""Graders of training: gradient descent written without an optimizer, the average and its shares."""

import math

import torch
from torch.func import functional_call, grad

from dit_nb.teach.graders.training import (
    _OVERFIT,
    _TinyModel,
    _watch_average,
    _watch_overfit,
    _watch_steps,
)
from support import relative


def test_a_step_is_gradient_descent_with_a_limit(check_identity):
    """By torch.func, without an optimizer, a scheduler or .grad; for the cases of SGD."""

    def holds(fn, start, gain, kind, diffusion, x0, y, t, noise):
        if kind != "SGD":
            return True
        weights, losses, kinds = _watch_steps(fn, start, gain, kind, diffusion, x0, y, t, noise)
        model = _TinyModel(start, gain)
        numbers = {name: p.detach() for name, p in model.named_parameters()}

        def loss(numbers, k):
            call = lambda x, t, y: functional_call(model, numbers, (x, t, y))  # noqa: E731
            return diffusion.training_losses(call, x0[k], t[k], y[k], noise[k])["loss"].sum() / len(x0[k])

        for k in range(len(x0)):
            if abs(losses[k] - loss(numbers, k)) > 1e-6:
                return False
            gradient = grad(loss)(numbers, k)
            length = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
            rate = 0.25 / (1 + k) / max(1, length)
            numbers = {name: p - rate * gradient[name] for name, p in numbers.items()}
            if relative(weights[k], torch.cat([p.flatten() for p in numbers.values()])) > 1e-5:
                return False
        return not kinds.any()

    check_identity("training_step", holds)


def test_the_average_is_a_weighted_sum_of_all_weights(check_identity):
    def holds(fn, start, weights, decay, first):
        averages, models, decays, graphs = _watch_average(fn, start, weights, decay, first)
        kept = torch.tensor([min(decay, (1 + k) / (10 + k)) for k in range(first, first + len(weights))])
        shares = [(1 - kept[j]) * kept[j + 1 :].prod() for j in range(len(kept))]
        last = kept.prod() * start + sum(s * w for s, w in zip(shares, weights))
        return (
            relative(averages[-1], last.double()) < 1e-5
            and torch.equal(models, weights)
            and torch.allclose(decays.float(), kept.float())
            and not graphs.any()
        )

    check_identity("update_ema", holds)


def test_overfitting_in_two_parts_is_overfitting():
    """One generator for both parts; all timesteps and all noise differ."""
    x0, y, found = torch.zeros(64, 1, 2, 2), torch.zeros(64, dtype=torch.long), []

    def step(x0, y, t, noise):
        found.append((t, noise))
        return len(found)

    generator = torch.Generator().manual_seed(3)
    losses = [*_OVERFIT.oracle(step, x0, y, 20, generator), *_OVERFIT.oracle(step, x0, y, 30, generator)]
    assert losses == list(range(1, 51))
    _, t, noise = _watch_overfit(_OVERFIT.reference, 1.0, x0, y, 50, 3)
    assert torch.equal(t, torch.stack([pair[0] for pair in found]))
    assert torch.equal(noise, torch.stack([pair[1] for pair in found]))
    assert t.min() < 5 and t.max() > 994 and len(noise.unique()) > 0.99 * noise.numel()
    assert abs(t.double().mean() - 499.5) < 5 * 289 / 3200**0.5 and abs(noise.std() - 1) < 0.05


def test_shares_of_two_parts_of_a_run(check_identity):
    """More updates scale all older shares by one factor; the shares weight any numbers as the average does."""

    def holds(fn, decays):
        rows = lambda d: torch.tensor([float(v) for v in fn(d)], dtype=d.dtype)  # noqa: E731
        more = torch.linspace(0.3, 0.8, 3, dtype=decays.dtype)
        shares, later, both = rows(decays), rows(more), rows(torch.cat([decays, more]))
        weights = torch.arange(2.0, len(decays) + 3, dtype=decays.dtype) ** 2
        average = weights[0]
        for decay, weight in zip(decays, weights[1:]):
            average = average.lerp(weight, 1 - decay)
        return (
            relative(both, torch.cat([shares * later[0], later[1:]])) < 1e-6
            and abs(both.sum() - 1) < 1e-6
            and abs((shares * weights).sum() / average - 1) < 1e-6
        )

    check_identity("ema_shares", holds)
