"""Graders: try a function in every case, and name the mistake that it makes, but not the answer."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from importlib import import_module
from typing import Any

from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs, _Mistake
from dit_nb.teach.graders.framework.isolation import _isolated
from dit_nb.teach.graders.framework.outcome import _STAGES, _as_tuple, _near, _observe, _Outcome, _relation
from dit_nb.teach.graders.framework.report import Report

__all__ = ["grade", "all_exercises", "reference_solution", "use_or_fallback"]

_MODULES = (
    "data noise patchify positions conditioning attention in_context cross_attention layer_norm block "
    "adaln adaln_zero model cost schedule posterior objective likelihood sampling few_steps guidance "
    "training latents evaluation evidence anatomy"
).split()
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


def _trusted_results(exercise: Exercise, fn: Callable, case: Case) -> tuple:
    """Call a function that needs no time limit."""
    return _as_tuple(_isolated(lambda: exercise.run(fn, deepcopy(case.args))))


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


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _common_note(outcomes: list[_Outcome]) -> str:
    """Return the note of the cases that failed, if exactly the cases with this note have wrong numbers or shapes."""
    notes = {o.case.note for o in outcomes if o.stage}
    note = notes.pop() if len(notes) == 1 else ""
    marked = [o.stage for o in outcomes if o.case.note == note]
    return note if note and set(marked) <= {"value", "shape"} and len(marked) < len(outcomes) else ""


def _explain(exercise: Exercise, outcomes: list[_Outcome], seed: int) -> tuple[str, str]:
    """Return why the function is not right, and where to look."""
    failed = sorted((o for o in outcomes if o.stage), key=lambda o: _STAGES.index(o.stage))
    first, hint = failed[0], exercise.hint
    if first.stage == "blank" and first is outcomes[0]:
        return "not started yet", "replace the line that raises NotImplementedError with your own."
    if first.stage in ("time", "input"):
        return first.message, hint
    if first.stage == "blank":
        return f"it is not finished: {first.message} (case: {first.case.label})", hint
    for mistake, wrong in _known_mistakes(exercise, seed):
        if _matches(wrong, outcomes, exercise.tolerance):
            return mistake.message, mistake.hint or hint
    note = _common_note(outcomes)
    if note:
        return note, hint
    if first.stage != "value":
        return f"{first.message} (case: {first.case.label})", hint
    pairs = zip(first.got, first.expected)
    relation = _relation(*next(p for p in pairs if not _near(*p, exercise.tolerance)), exercise.tolerance)
    return f"{first.message}{f'; {relation}' if relation else ''} (case: {first.case.label})", hint


def _signature_error(exercise: Exercise, fn) -> str:
    """Return why `fn` cannot be called as the exercise asks; empty if it can."""
    if not callable(fn):
        given = "nothing" if fn is None else " ".join(repr(fn).split())[:60]
        return f"there is no function to check: the check was given {given}"
    if inspect.iscoroutinefunction(fn):
        return "it is defined with async def; use a plain def"
    wanted = list(inspect.signature(exercise.oracle).parameters)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return ""
    try:
        signature.bind(*wanted)
    except TypeError:
        return f"it takes {signature}, but must take ({', '.join(wanted)})"
    return ""


def grade(
    exercise: Exercise, fn: Callable | None, points: float = 1, seed: int = 0, seconds: float = 10.0
) -> Report:
    """Try a function in every case of an exercise.

    Args:
        exercise: what the function should do
        fn: the student's function
        points: points of a right function
        seed: seed of the random inputs
        seconds: time limit of one call
    """
    error = _signature_error(exercise, fn)
    if error:
        hint = "the line that begins with def; a check takes the function itself, without parentheses."
        return Report(exercise.name, False, 0, points, _sentence(error), hint)
    outcomes = []
    for case, expected in _expected_results(exercise, seed):
        outcomes.append(_observe(exercise, fn, case, expected, seconds))
        if outcomes[-1].stage == "time" or outcomes[0].stage == "blank":
            break
    table = tuple(outcome.row() for outcome in outcomes)
    if not any(outcome.stage for outcome in outcomes):
        return Report(
            exercise.name, True, points, points, f"Right in all {len(outcomes)} cases.", table=table
        )
    reason, hint = _explain(exercise, outcomes, seed)
    table = table if outcomes[0].stage != "blank" else ()
    return Report(exercise.name, False, 0, points, _sentence(reason), hint, table)


def _grader_contents() -> list[tuple[str, Any]]:
    """Return the names and values of all grader modules."""
    modules = [import_module(f"dit_nb.teach.graders.{name}") for name in _MODULES]
    return [item for module in modules for item in vars(module).items()]


def _all_checks() -> dict[str, Callable]:
    """Return the check of every exercise of the course, by the exercise's name."""
    found = [(name, value) for name, value in _grader_contents() if name.startswith("check_")]
    return {name.removeprefix("check_"): check for name, check in found}


def all_exercises() -> dict[str, Exercise]:
    """Return every exercise of the course, by its name."""
    found = [value for _, value in _grader_contents() if isinstance(value, Exercise)]
    return {exercise.name: exercise for exercise in found}


def reference_solution(name: str) -> Callable:
    """Return a right answer to an exercise of the course."""
    exercise = all_exercises()[name]
    return exercise.reference or exercise.oracle


def use_or_fallback(fn: Callable | None, check: Callable, **options) -> Callable:
    """Return the student's function if it passes its check, else ours, and print which one it is.

    Args:
        fn: the student's function
        check: its check, such as `check_patchify`
        **options: seed and seconds, as for `grade`
    """
    name = check.__name__.removeprefix("check_")
    report = check(fn, **options)
    if fn is not None and report:
        print(f"The next cells use your {name}.")
        return fn
    print(f"The next cells use our {name}. Result of the check of yours: {report.reason}")
    return reference_solution(name)
