"""Graders of adaLN: modulations compose, and PyTorch's layers give the fields and what absorbs them."""

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
    """For each block of rows alone: the other fields are zero."""

    def holds(fn, c, weight, bias):
        width, count = c.shape[1], len(weight) // c.shape[1]
        for i in range(count):
            rows = torch.arange(count * width) // width == i
            fields = fn(c, weight * rows[:, None], bias * rows)
            expected = F.linear(F.silu(c), weight[rows], bias[rows])[:, None]
            if relative(fields[i], expected) > 1e-9 or any(f.any() for j, f in enumerate(fields) if j != i):
                return False
        return len(fields) == count

    check_identity("adaln_fields", holds)


def test_absorbed_layers_do_what_modulation_and_layer_do(check_identity):
    def holds(fn, weight, bias, shift, scale):
        generator = torch.Generator().manual_seed(0)
        h = torch.randn(len(shift), 7, weight.shape[1], generator=generator, dtype=weight.dtype)
        weights, biases = fn(weight, bias, shift, scale)
        got = torch.stack([F.linear(tokens, w, b) for tokens, w, b in zip(h, weights, biases)])
        return relative(got, F.linear(h * (1 + scale) + shift, weight, bias)) < 1e-9 and biases.ndim == 2

    check_identity("absorb", holds)
