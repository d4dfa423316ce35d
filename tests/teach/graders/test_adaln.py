"""Graders of adaLN: modulations compose, and PyTorch's layers give the six fields."""

import torch
import torch.nn.functional as F

from support import relative


def test_modulations_compose(check_identity):
    def holds(fn, x, shift, scale):
        zero, shift2, scale2 = torch.zeros_like(shift), shift.flip(0) + 1, scale.flip(-1)
        twice = fn(fn(x, shift, scale), shift2, scale2)
        once = fn(x, shift * (1 + scale2) + shift2, scale + scale2 + scale * scale2)
        each = [fn(*(part[i : i + 1] for part in (x, shift, scale))) for i in range(len(x))]
        return (
            relative(fn(x, zero, zero), x) < 1e-9
            and relative(fn(0 * x, shift, scale), shift.expand_as(x)) < 1e-9
            and relative(twice, once) < 1e-9
            and relative(fn(x, shift, scale), torch.cat(each)) < 1e-9
        )

    check_identity("modulate", holds)


def test_fields_are_blocks_of_a_linear_layer_after_silu(check_identity):
    """For each block of rows alone: the other five fields are zero."""

    def holds(fn, c, weight, bias):
        width = c.shape[1]
        for i in range(6):
            rows = torch.arange(6 * width) // width == i
            fields = fn(c, weight * rows[:, None], bias * rows)
            expected = F.linear(F.silu(c), weight[rows], bias[rows])[:, None]
            if relative(fields[i], expected) > 1e-9 or any(f.any() for j, f in enumerate(fields) if j != i):
                return False
        return len(fields) == 6

    check_identity("adaln_fields", holds)
