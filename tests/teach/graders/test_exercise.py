"""Exercises and their random inputs."""

import pytest
import torch

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs


def sort_exercise(**fields):
    cases = [Case("three", (torch.tensor([3.0, 1.0, 2.0]),)), Case("two", (torch.tensor([5.0, 4.0]),))]
    mistakes = {"It is descending.": (lambda x: x.sort(descending=True)[0], "the order.")}
    mistakes["It is unchanged."] = lambda x: x.clone()
    return Exercise("sort", lambda x: x.sort()[0], lambda rng: cases, mistakes, hint="sorting.", **fields)


def test_a_mistake_has_its_own_hint_or_that_of_the_exercise():
    exercise = sort_exercise()
    descending, unchanged = exercise.known_mistakes()
    assert (descending.message, descending.hint) == ("It is descending.", "the order.")
    assert (unchanged.message, unchanged.hint) == ("It is unchanged.", "")
    for mistake, hint in ((descending, "the order."), (unchanged, "sorting.")):
        report = grade(exercise, mistake.function)
        assert (report.reason, report.hint) == (mistake.message, hint)


def test_a_probe_measures_what_is_compared():
    """A probe of the sum does not see the order."""
    probed = sort_exercise(probe=lambda fn, x: fn(x).sum())
    assert probed.run(torch.clone, (torch.tensor([3.0, 1.0]),)) == 4
    assert grade(probed, torch.clone) and not grade(sort_exercise(), torch.clone)
    assert not grade(probed, lambda x: x + 1)


def test_inputs_may_be_changed_only_where_the_exercise_says_so():
    def in_place(x):
        return x.copy_(x.sort()[0])

    assert grade(sort_exercise(in_place=True), in_place)
    assert "changes its input x" in grade(sort_exercise(), in_place).reason


def test_the_tolerance_is_relative_to_the_largest_number():
    """The largest expected number of the first case is 3: a difference of 0.25 is within 0.1 * 3."""
    exercise = sort_exercise(tolerance=0.1)
    assert grade(exercise, lambda x: x.sort()[0] + 0.25)
    assert not grade(exercise, lambda x: x.sort()[0] + 0.35)


def test_random_numbers_depend_on_the_whole_seed_and_on_nothing_else():
    def numbers(*seed):
        rng = RandomInputs(*seed)
        return [rng.normal(3), rng.uniform(0, 1, 3), rng.integers(0, 1000, 3)]

    state = torch.get_rng_state()
    first = numbers("patchify", 0)
    torch.rand(5)
    assert all(map(torch.equal, first, numbers("patchify", 0)))
    for other in (("patchify", 1), ("unpatchify", 0), ("patchify", 0, "again")):
        assert not any(map(torch.equal, first, numbers(*other)))
    torch.set_rng_state(state)
    numbers("patchify", 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("low, high", [(-3, 2), (5, 9)])
def test_random_numbers_fill_their_range(low, high):
    rng = RandomInputs(low, high)
    uniform, integers = rng.uniform(low, high, 4000), rng.integers(low, high, 4000)
    assert uniform.dtype == torch.float64 and low <= uniform.min() and uniform.max() < high
    assert (uniform.mean() - (low + high) / 2).abs() < 0.2  # 8 standard errors or more
    assert set(integers.tolist()) == set(range(low, high))
    assert {rng.choice("a", "b", "c") for _ in range(100)} == {"a", "b", "c"}


def test_normal_numbers_have_mean_0_and_variance_1():
    x = RandomInputs("normal").normal(100, 100)
    assert x.dtype == torch.float64 and x.mean().abs() < 0.06 and (x.var() - 1).abs() < 0.1  # 6, 7 errors
