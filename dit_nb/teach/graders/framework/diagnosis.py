"""Diagnosis: why a function is not right, found by what fails together."""

from collections.abc import Callable

from torch import Tensor

from dit_nb.teach.graders.framework.exercise import Exercise
from dit_nb.teach.graders.framework.expected import _known_mistakes
from dit_nb.teach.graders.framework.outcome import (
    _FIRST_ONLY,
    _ROUNDED,
    _STAGES,
    _argument_names,
    _near,
    _numbers,
    _Outcome,
    _relation,
)

__all__ = []


def _matches(wrong: tuple, outcomes: list[_Outcome], tolerance: float) -> bool:
    """Whether the function returned in every case what the mistake returns."""
    tolerance, seen = max(tolerance, 1e-6), False
    for parts, outcome in zip(wrong, outcomes):
        if (parts is None) != (outcome.got is None) or (parts and len(parts) != len(outcome.got)):
            return False
        if parts and not all(_near(g, w, tolerance) for g, w in zip(outcome.got, parts)):
            return False
        seen = seen or parts is not None
    return seen


def _common_note(outcomes: list[_Outcome]) -> str:
    """Return the note that all cases have which failed, and no others; empty if there is none."""
    failed, passed = ([o for o in outcomes if bool(o.stage) == wrong] for wrong in (True, False))
    if not passed or not {o.stage for o in failed} <= {"value", "shape", "dtype", "error"}:
        return ""
    taken = {note for o in passed for note in o.case.notes}
    shared = [n for n in failed[0].case.notes if n not in taken and all(n in o.case.notes for o in failed)]
    return shared[0] if shared else ""


def _features(outcome: _Outcome, names: tuple[str, ...]) -> dict[str, object]:
    """Return the numbers among the arguments of a case, and the sizes of all axes but the first, by a name for each."""
    found = {}
    for name, value in zip(names, outcome.case.args):
        if isinstance(value, Tensor):
            found |= {f"axis {k} of {name}": size for k, size in enumerate(value.shape) if k}
        elif all(isinstance(v, int | float | str) for v in (value if isinstance(value, tuple) else [value])):
            found[name] = value
    return found


def _may_be_chance(passed: list[_Outcome]) -> bool:
    """Whether a single case is right, and its results are only -1, 0 and 1: signs and flags often agree by chance."""
    parts = [_numbers(part).abs() for outcome in passed for part in outcome.expected]
    return len(passed) == 1 and all(bool(((part == 0) | (part == 1)).all()) for part in parts)


def _only_value(exercise: Exercise, outcomes: list[_Outcome]) -> str:
    """Say for which value of an argument alone the function is right; empty unless there is exactly one such."""
    if _may_be_chance([o for o in outcomes if not o.stage]):
        return ""
    names = _argument_names(exercise)
    passed, failed = ([_features(o, names) for o in outcomes if bool(o.stage) == w] for w in (False, True))
    found = {}
    for name, value in passed[0].items() if passed else ():
        alike = all(type(f.get(name)) is type(value) and f[name] == value for f in passed)
        if alike and all(f.get(name, value) != value for f in failed):
            found[name] = f"{value:g}" if isinstance(value, float) else str(value)
    numbers = [name for name in found if not name.startswith("axis")]
    if len(numbers) == 1:
        (name,) = numbers
        others = (
            f"{name} = {found[name] != 'True'}" if found[name] in ("True", "False") else "all other values"
        )
        return f"it is right for {name} = {found[name]} and wrong for {others}: what is different there?"
    if len(found) != 1:
        return ""
    ((name, size),) = found.items()
    return f"it is right if {name} has size {size} and wrong for all other sizes: what is different there?"


def _common_relation(failed: list[_Outcome], tolerance: float) -> str:
    """Return how the wrong numbers of the first case are related to the right ones.

    That only the first of a batch is right is said if it holds in all cases: one may be right by chance.
    """
    found = []
    for outcome in failed:
        pairs = zip(outcome.got, outcome.expected)
        wrong = next((pair for pair in pairs if not _near(*pair, tolerance)), None)
        found += [_relation(*wrong, tolerance)] if wrong else []
    return "" if found[0] == _FIRST_ONLY and set(found) != {_FIRST_ONLY} else found[0]


def _only_rounded(failed: list[_Outcome], tolerance: float) -> bool:
    """Whether all that is wrong is right except for rounding."""
    return all(o.stage == "value" and _common_relation([o], tolerance).startswith(_ROUNDED) for o in failed)


def _explain(exercise: Exercise, outcomes: list[_Outcome], seed: int) -> tuple[str, str]:
    """Return why the function is not right, and where to look."""
    failed = sorted((o for o in outcomes if o.stage), key=lambda o: _STAGES.index(o.stage))
    first, hint = failed[0], exercise.hint
    if first.stage == "blank" and first is outcomes[0]:
        return "not started yet", (
            "replace the line that raises NotImplementedError with your own. If you have written the function "
            "in another cell, that cell must stand above the check."
        )
    if first.stage in ("time", "input"):
        return first.message, hint
    if first.stage == "blank":
        return f"it is not finished: {first.message} (case: {first.case.label})", hint
    for mistake, wrong in _known_mistakes(exercise, seed):
        if _matches(wrong, outcomes, exercise.tolerance):
            return mistake.message, mistake.hint or hint
    note = _common_note(outcomes)
    if not note and not _only_rounded(failed, exercise.tolerance):
        note = _only_value(exercise, outcomes)
    if note:
        stopped = f" There {first.message} (case: {first.case.label})" if first.stage == "error" else ""
        return note + stopped, hint
    if first.stage != "value":
        return f"{first.message} (case: {first.case.label})", hint
    relation = _common_relation(failed, exercise.tolerance)
    return f"{first.message}{f'; {relation}' if relation else ''} (case: {first.case.label})", hint


def _points(exercise: Exercise, outcomes: list[_Outcome], points: float) -> float:
    """Return the points of a function that is not right: half, if a part of it that counts is right."""
    part = any(_is_part_right(take, exercise, outcomes) for take in exercise.half_results)
    return points / 2 if part or _common_note(outcomes) in exercise.half_points else 0


def _is_part_right(take: Callable, exercise: Exercise, outcomes: list[_Outcome]) -> bool:
    """Whether a part of the results, such as the first of two, is right in all cases."""
    try:
        pairs = [(take(outcome.got), take(outcome.expected)) for outcome in outcomes]
    except (TypeError, IndexError, RuntimeError):  # there are no results, or they have another shape
        return False
    return all(_near(got, expected, exercise.tolerance) for got, expected in pairs)
