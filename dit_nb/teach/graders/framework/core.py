"""Graders: try a function in every case, and name the mistake that it makes, but not the answer."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from dit_nb.teach.graders.framework.diagnosis import _explain, _points
from dit_nb.teach.graders.framework.exercise import Exercise
from dit_nb.teach.graders.framework.expected import (
    _expected_at_edges,
    _expected_in_precisions,
    _expected_results,
)
from dit_nb.teach.graders.framework.history import _why_no_function
from dit_nb.teach.graders.framework.originals import _contents, _original_functions
from dit_nb.teach.graders.framework.outcome import _argument_names, _observe, _Outcome
from dit_nb.teach.graders.framework.report import Report

__all__ = ["grade", "all_exercises", "reference_solution", "use_or_fallback"]

_MODULES = (
    "tour data noise patchify positions conditioning attention in_context cross_attention layer_norm block "
    "adaln adaln_zero model model_shapes cost schedule posterior objective likelihood sampling few_steps guidance "
    "training latents evaluation evidence anatomy minidit flow modern_blocks targets mmdit guidance_today meanflow"
).split()
_PRECISION_HINT = (
    "the exercise says which precision the result has: are tensors made or converted in another?"
)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _signature_error(exercise: Exercise, fn) -> str:
    """Return why `fn` cannot be called as the exercise asks; empty if it can."""
    if not callable(fn):
        given = "nothing" if fn is None else " ".join(repr(fn).split())[:60]
        reason = _why_no_function(exercise.name)
        return reason or f"there is no function to check: the check was given {given}"
    if inspect.iscoroutinefunction(fn):
        return "it is defined with async def; use a plain def"
    wanted = _argument_names(exercise)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return ""
    try:
        signature.bind(*wanted)
    except TypeError:
        return f"it takes {signature}, but must take ({', '.join(wanted)})"
    return ""


@_original_functions()
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
    outcomes = _observe_all(exercise, fn, _expected_results(exercise, seed), seconds)
    if not any(outcome.stage for outcome in outcomes):
        outcomes += _observe_all(exercise, fn, _expected_at_edges(exercise, seed), seconds)
    if not any(outcome.stage for outcome in outcomes):
        return _grade_precision(exercise, fn, outcomes, points, seed, seconds)
    reason, hint = _explain(exercise, outcomes, seed)
    table = tuple(outcome.row() for outcome in outcomes) if outcomes[0].stage != "blank" else ()
    earned = _points(exercise, outcomes, points)
    return Report(exercise.name, False, earned, points, _sentence(reason), hint, table)


def _observe_all(exercise: Exercise, fn: Callable, cases: tuple, seconds: float) -> list[_Outcome]:
    """Try the function in some cases; stop if it takes too long, or is not written yet."""
    outcomes, before = [], _contents()
    for case, expected in cases:
        outcomes.append(_observe(exercise, fn, case, expected, seconds, before))
        if outcomes[-1].stage == "time" or outcomes[0].stage == "blank":
            break
    return outcomes


def _grade_precision(
    exercise: Exercise, fn: Callable, outcomes: list[_Outcome], points: float, seed: int, seconds: float
) -> Report:
    """Report on a function that is right in float64: is it in other precisions, too?"""
    for case, expected in _expected_in_precisions(exercise, seed):
        rounding = 30 * torch.finfo(expected[0].dtype).eps
        strict = replace(exercise, tolerance=rounding, same_dtype=True)
        outcomes += _observe_all(strict, fn, ((case, expected),), seconds)
    table = tuple(outcome.row() for outcome in outcomes)
    wrong = next((outcome for outcome in outcomes if outcome.stage), None)
    if wrong:
        reason = (
            f"it is right in float64 and not in all precisions: {wrong.message} (case: {wrong.case.label})"
        )
        return Report(exercise.name, False, 0, points, _sentence(reason), _PRECISION_HINT, table)
    return Report(exercise.name, True, points, points, f"Right in all {len(outcomes)} cases.", table=table)


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
