"""Grader of the paired interval: coverage, and what pairing must not depend on."""

import torch

from dit_nb.lab.sweep import mean_interval
from support import relative


def numbers(value):
    return torch.as_tensor([float(v) for v in value], dtype=torch.float64)


def test_interval_is_that_of_the_differences(check_identity):
    def holds(fn, first, second, level):
        found = numbers(fn(first, second, level))
        common = torch.linspace(-50, 50, len(first), dtype=first.dtype)
        shifted = numbers(fn(first + common, second + common, level))  # pairing cancels what is shared
        moved = numbers(fn(first, second - 7, level))
        return (
            relative(found, shifted) < 1e-6
            and relative(found - 7, moved) < 1e-6
            and relative(found, numbers(mean_interval(second - first, level))) < 1e-6
        )

    check_identity("paired_interval", holds)
