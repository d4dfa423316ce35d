"""Graders of few steps: distances on the axis of log SNR, and the order of a step on an integral known in closed form."""

import numpy as np
import torch

from support import relative


def test_the_timesteps_are_the_nearest_to_even_distances(check_identity):
    def holds(fn, alphas_cumprod, steps):
        kept, values = fn(alphas_cumprod, steps).numpy(), np.log(1 / (1 / alphas_cumprod.numpy() - 1))
        wanted = np.linspace(values[0], values[-1], steps)
        gap = np.abs(values[kept] - wanted)
        others = np.abs(values[:, None] - wanted).min(0)
        return (
            kept.dtype.kind == "i"
            and kept.tolist() == sorted(set(kept.tolist()))
            and (kept[0], kept[-1], len(kept)) == (0, len(alphas_cumprod) - 1, steps)
            and bool((gap <= others + 1e-9).all())
        )

    check_identity("even_log_snr", holds)


def one_step_error(fn, h):
    """Error of a step of length h in lambda, after one of length h / 3, if x0 is cos(lambda): an integral of e^u cos u."""
    start = 0.4
    a_bar = [torch.sigmoid(torch.tensor(2 * value).double()) for value in (start - h / 3, start, start + h)]
    last_x0, x0 = (torch.full((1, 1, 1, 1), np.cos(value)).double() for value in (start - h / 3, start))
    x = torch.full((1, 1, 1, 1), 0.7).double()
    got = fn(x, x0, last_x0, *a_bar)

    def antiderivative(u):
        return np.exp(u) * (np.cos(u) + np.sin(u)) / 2

    noise, noise_after = ((1 - bar).sqrt().item() for bar in a_bar[1:])
    exact = noise_after * (0.7 / noise + antiderivative(start + h) - antiderivative(start))
    return abs(got.item() - exact)


def test_a_step_of_second_order_has_an_error_of_third_order(check_identity):
    def holds(fn, x, x0, last_x0, before, now, after):
        if not 7 < one_step_error(fn, 0.02) / one_step_error(fn, 0.01) < 9:
            return False
        levels = [np.log(bar.item() / (1 - bar.item())) / 2 for bar in (before, now, after)]
        images = [torch.full_like(x0, value) for value in (*levels, sum(levels[1:]) / 2)]  # linear in lambda
        middle = images.pop()
        noiseless = fn(now.sqrt() * middle, images[1], images[0], before, now, after)
        return relative(noiseless, after.sqrt() * middle) < 1e-9

    check_identity("second_order_step", holds)
