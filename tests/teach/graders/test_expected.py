"""Expected results: those of the oracle, in new numbers and in other precisions, and what known mistakes return."""

import pytest
import torch

from dit_nb.teach.graders.framework.exercise import Case, Exercise
from dit_nb.teach.graders.framework.expected import (
    _STALE,
    _expected_at_edges,
    _expected_in_precisions,
    _expected_results,
    _known_mistakes,
)


def broken(x):
    raise RuntimeError("a mistake that stops")


@pytest.fixture
def exercise():
    """Squares of numbers."""
    return Exercise(
        "square",
        oracle=lambda x: x * x,
        cases=lambda rng: [Case("a vector", (rng.normal(5),)), Case("a matrix", (rng.normal(2, 3),))],
        mistakes={"It doubles.": lambda x: 2 * x, "It stops.": (broken, "Look.")},
        hint="",
        edge_cases=lambda rng: [Case("zero", (torch.zeros(1),), "zero is special")],
        precisions=(torch.float32,),
    )


def test_the_last_case_has_new_numbers_of_the_first_shape(exercise):
    found = _expected_results(exercise, 0)
    assert [case.label for case, _ in found] == ["a vector", "a matrix", "a vector, new numbers"]
    assert all(torch.equal(expected, case.args[0] ** 2) for case, (expected,) in found)
    (first, _), (last, _) = found[0], found[-1]
    assert last.args[0].shape == first.args[0].shape and last.note == _STALE
    assert not torch.equal(last.args[0], first.args[0])


def test_numbers_depend_on_the_seed_alone(exercise):
    first, other = _expected_results(exercise, 0), _expected_results(exercise, 1)
    assert _expected_results(exercise, 0) is first, "computed once"
    assert not torch.equal(first[0][0].args[0], other[0][0].args[0])


def test_other_precisions_are_rounded_from_float64(exercise):
    ((case, (expected,)),) = _expected_in_precisions(exercise, 0)
    exact = _expected_results(exercise, 0)[0][0].args[0].float().double() ** 2
    assert case.label == "a vector, in float32" and case.args[0].dtype == torch.float32
    assert torch.equal(expected, exact.float())


def test_edges_and_mistakes(exercise):
    ((edge, (expected,)),) = _expected_at_edges(exercise, 0)
    assert edge.note == "zero is special" and torch.equal(expected, torch.zeros(1))
    (doubled, found), (stopped, nothing) = _known_mistakes(exercise, 0)
    cases = [case for case, _ in _expected_results(exercise, 0)]
    assert all(torch.equal(result, 2 * case.args[0]) for case, (result,) in zip(cases, found))
    assert doubled.message == "It doubles." and (stopped.hint, nothing) == ("Look.", (None, None, None))
