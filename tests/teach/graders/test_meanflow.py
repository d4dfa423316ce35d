"""Graders of lesson 35: data with a known flow, and functions whose derivative is known."""

import torch

from support import relative


def col(t):
    return t.view(-1, 1, 1, 1)


def gaussian_average(x, t, r):
    """Exact average velocity of data N(0.4, 0.3^2), for r < t."""
    std = [((1 - s) ** 2 * 0.3**2 + s**2).sqrt() for s in (col(t), col(r))]
    return (x - (1 - col(r)) * 0.4 - std[1] / std[0] * (x - (1 - col(t)) * 0.4)) / col(t - r)


def test_the_exact_average_velocity_is_its_own_target(check_identity):
    def holds(fn, average, x_t, t, r, velocity):
        r = torch.where(r < t, r, r / 2)  # the formula of the average needs an interval
        s = col(t)
        centered = (x_t - (1 - s) * 0.4) / ((1 - s) ** 2 * 0.3**2 + s**2)
        exact_velocity = s * centered - (0.4 + (1 - s) * 0.3**2 * centered)
        return (
            relative(fn(gaussian_average, x_t, t, r, exact_velocity), gaussian_average(x_t, t, r)) < 1e-6
        ) and relative(fn(average, x_t, t, t, velocity), velocity) < 1e-9

    check_identity("average_target", holds)


def test_exact_jumps_keep_the_number_of_standard_deviations(check_identity):
    def holds(fn, average, x_T, times):
        first, last = times[0], times[-1]
        std = [((1 - s) ** 2 * 0.3**2 + s**2).sqrt() for s in (first, last)]
        want = (1 - last) * 0.4 + std[1] / std[0] * (x_T - (1 - first) * 0.4)
        coarse = fn(lambda x, t, r: 1 + col(t) * 0 + col(r), x_T, times)  # tells the times of the calls
        steps = times[:-1] - times[1:]
        told = x_T - (steps * (1 + times[1:])).sum()
        return relative(fn(gaussian_average, x_T, times), want) < 1e-9 and relative(coarse, told) < 1e-9

    check_identity("few_jumps", holds)
