"""Expected results: the cases of an exercise, with what the oracle and the known mistakes return."""

from collections.abc import Callable
from functools import lru_cache

import torch

from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs, _Mistake
from dit_nb.teach.graders.framework.isolation import _copied, _isolated
from dit_nb.teach.graders.framework.outcome import _as_tuple

__all__ = []

_STALE = (
    "It is right on the first call, but wrong for other numbers of the same shape: "
    "does it keep something from an earlier call?"
)


@lru_cache(256)
def _expected_results(exercise: Exercise, seed: int) -> tuple[tuple[Case, tuple], ...]:
    """Return the cases with the oracle's results; the last has the first one's shapes and new numbers."""
    cases = _isolated(lambda: exercise.cases(RandomInputs(exercise.name, seed)))
    first = _isolated(lambda: exercise.cases(RandomInputs(exercise.name, seed, "again")))[0]
    cases.append(first._replace(label=f"{first.label}, new numbers", note=_STALE))
    return tuple((case, _trusted_results(exercise, exercise.oracle, case)) for case in cases)


@lru_cache(256)
def _expected_at_edges(exercise: Exercise, seed: int) -> tuple[tuple[Case, tuple], ...]:
    """Return the cases that are tried if all others are right, with the oracle's results."""
    rng = RandomInputs(exercise.name, seed, "edge")
    make = exercise.edge_cases or (lambda _: [])
    cases = _isolated(lambda: make(rng))
    return tuple((case, _trusted_results(exercise, exercise.oracle, case)) for case in cases)


@lru_cache(256)
def _expected_in_precisions(exercise: Exercise, seed: int) -> tuple[tuple[Case, tuple], ...]:
    """Return the first case in other precisions; its results are computed in float64, and rounded."""
    found = []
    for dtype in exercise.precisions:
        case = _expected_results(exercise, seed)[0][0]
        name = str(dtype).removeprefix("torch.")
        args = _converted(case.args, dtype)
        exact = case._replace(args=_converted(args, torch.float64))
        expected = _converted(_trusted_results(exercise, exercise.oracle, exact), dtype)
        found.append((Case(f"{case.label}, in {name}", args), expected))
    return tuple(found)


def _converted(values: tuple, dtype: torch.dtype) -> tuple:
    """Convert the floating point tensors of a tuple, and of named tuples in it."""

    def convert(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(dtype)
        return type(value)(*map(convert, value)) if hasattr(value, "_fields") else value

    return tuple(map(convert, values))


def _trusted_results(exercise: Exercise, fn: Callable, case: Case) -> tuple:
    """Call a function that needs no time limit."""
    args = _copied(case.args)
    return _as_tuple(_isolated(lambda: exercise.run(fn, args)))


@lru_cache(256)
def _known_mistakes(exercise: Exercise, seed: int) -> tuple[tuple[_Mistake, tuple], ...]:
    """Return every known mistake with its results in each case; None if it raises an error."""

    def attempt(mistake, case):
        try:
            return _trusted_results(exercise, mistake.function, case)
        except Exception:
            return None

    cases = [case for case, _ in _expected_results(exercise, seed)]
    return tuple(
        (mistake, tuple(attempt(mistake, case) for case in cases)) for mistake in exercise.known_mistakes()
    )
