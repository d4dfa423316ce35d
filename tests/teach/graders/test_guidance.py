"""Graders of guidance: a line through the two predictions, and one direction for each condition."""

import torch

from support import relative


def on_the_line(guide, cond, uncond, scale):
    """Whether guide(scale) is linear, from uncond at 0 to cond at 1."""
    left, middle, right = (guide(scale + step) for step in (-1.0, 0.0, 1.0))
    ends = relative(guide(0.0), uncond) < 1e-9 and relative(guide(1.0), cond) < 1e-9
    return ends and relative((left + right) / 2, middle) < 1e-9


def test_the_scale_runs_along_a_line(check_identity):
    check_identity(
        "cfg_eps",
        lambda fn, cond, uncond, w: on_the_line(lambda scale: fn(cond, uncond, scale), cond, uncond, w),
    )


def test_only_the_first_half_of_the_channels_is_guided(check_identity):
    def holds(fn, cond, uncond, w):
        (eps, values), eps0 = cond.chunk(2, 1), uncond.chunk(2, 1)[0]
        kept = all(relative(fn(cond, uncond, s)[:, eps.shape[1] :], values) < 1e-9 for s in (0.0, 1.0, w))
        return kept and on_the_line(lambda s: fn(cond, uncond, s)[:, : eps.shape[1]], eps, eps0, w)

    check_identity("guided_output", holds)


def test_each_condition_adds_its_own_direction(check_identity):
    """Derivatives by each weight are differences of predictions; one weight of 1 gives that prediction."""

    def holds(fn, uncond, conds, weights):
        one = torch.eye(len(weights)).double()
        base = fn(uncond, conds, weights)
        slopes = [fn(uncond, conds, weights + e) - base for e in one]
        return (
            relative(fn(uncond, conds, 0 * weights), uncond) < 1e-9
            and all(relative(fn(uncond, conds, e), cond) < 1e-9 for e, cond in zip(one, conds))
            and all(relative(slope, cond - uncond) < 1e-9 for slope, cond in zip(slopes, conds))
            and relative(fn(uncond, conds.flip(0), weights.flip(0)), base) < 1e-9
        )

    check_identity("combine_conditions", holds)
