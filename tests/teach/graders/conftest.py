"""Fixtures of the graders' tests."""

from copy import deepcopy

import pytest

from dit_nb.teach.graders.framework.core import all_exercises, reference_solution
from dit_nb.teach.graders.framework.exercise import RandomInputs


def _satisfies(fn, holds, cases):
    """Whether an identity holds for a function in every case; an error counts as no."""
    try:
        return all(holds(fn, *deepcopy(case.args)) for case in cases)
    except Exception:
        return False


@pytest.fixture
def check_identity():
    """Check an identity holds(fn, *inputs) that uses no oracle: ours satisfy it, and no known mistake does."""

    def check(name, holds):
        exercise = all_exercises()[name]
        cases = [case for seed in range(2) for case in exercise.cases(RandomInputs(name, seed))]
        assert all(holds(exercise.oracle, *deepcopy(case.args)) for case in cases)
        assert all(holds(reference_solution(name), *deepcopy(case.args)) for case in cases)
        passed = [m.message for m in exercise.known_mistakes() if _satisfies(m.function, holds, cases)]
        assert passed == []

    return check
