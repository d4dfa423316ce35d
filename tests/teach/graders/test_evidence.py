"""Graders of paired differences: coverage, and what pairing must not depend on."""

import torch

from dit_nb.lab.sweep import mean_interval, paired_difference
from dit_nb.teach.graders.evidence import check_paired_interval
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


def test_an_interval_at_the_right_place_is_half():
    """The mean is right, and the interval lies around it, but has another width."""

    def interval(width, middle=0.0):
        def fn(first, second, level):
            mean, low, high = mean_interval(second - first, level)
            half = (high - low) / 2 * width
            return torch.tensor([mean, mean + middle - half, mean + middle + half])

        return fn

    earned = [check_paired_interval(interval(*how), points=4).points for how in ((1,), (1.1,), (1, 0.5))]
    assert earned == [4, 2, 0]


def test_clear_is_the_word_of_the_studies(check_identity):
    def holds(fn, baseline, variants, alpha):
        found = [paired_difference(baseline, scores) for scores in variants]
        words = [d._replace(p=d.p * 0.05 / alpha).word(len(variants)) for d in found]
        signs = [(word == "clear") * (1 if d.mean < 0 else -1) for d, word in zip(found, words)]
        common = torch.linspace(-50, 50, len(baseline), dtype=baseline.dtype)
        shifted = numbers(fn(baseline + common, variants + common, alpha))  # pairing cancels what is shared
        mirrored = numbers(fn(-baseline, -variants, alpha))
        return (
            numbers(fn(baseline, variants, alpha)).tolist()
            == signs
            == shifted.tolist()
            == (-mirrored).tolist()
        )

    check_identity("clear_differences", holds)
