"""Grader of the largest relative difference: a bound that one number reaches, and infinity where nothing compares."""

import math

import torch

from dit_nb.teach.graders.framework.core import reference_solution
from dit_nb.teach.graders.minidit import _with_nan


def number(result):
    return result.item() if isinstance(result, torch.Tensor) else result


def finite(x):
    return bool(torch.isfinite(x).all())


def is_tight_bound(found, ours, theirs):
    """Whether no difference exceeds the fraction `found` of the largest number, and one reaches it."""
    bound = found * max(theirs.max().item(), -theirs.min().item())
    gaps = torch.maximum(ours - theirs, theirs - ours)
    return bool((gaps <= bound * (1 + 1e-6)).all() and (gaps >= bound * (1 - 1e-6)).any())


def test_it_is_a_bound_that_is_reached(check_identity):
    def holds(fn, ours, theirs):
        ours, theirs = _with_nan(ours), _with_nan(theirs)
        found = number(fn(ours, theirs))
        if ours.shape != theirs.shape or not (finite(ours) and finite(theirs)):
            return found == math.inf
        ours, theirs = ours.double(), theirs.double()
        if not theirs.any():
            return found == (math.inf if ours.any() else 0)
        return is_tight_bound(found, ours, theirs)

    check_identity("relative_difference", holds)


def test_a_difference_that_was_put_in_is_found():
    fn = reference_solution("relative_difference")
    theirs = torch.linspace(-3, 2, 12).view(3, 4)
    ours = theirs.clone()
    ours[1, 2] -= 0.75
    assert abs(number(fn(ours, theirs)) - 0.25) < 1e-6
    assert abs(number(fn(-1e5 * ours, -1e5 * theirs)) - 0.25) < 1e-6
