"""A grader that says in one sentence which mistake it sees, and never what the answer is."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from importlib import import_module

from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.limits import apart
from dit_nb.teach.graders.framework.outcome import STAGES, Outcome, as_parts, diagnose, near, observe
from dit_nb.teach.graders.framework.report import Report

REMEMBERS = (
    "It is right when it is called for the first time, and wrong for other numbers of the same shape: "
    "does it keep something from an earlier call?"
)


@lru_cache(256)
def trials(exercise: Exercise, seed: int) -> tuple[tuple[Case, tuple], ...]:
    "Every case, and what the oracle says."
    cases = apart(lambda: exercise.cases(Draw(exercise.name, seed)))
    first = apart(lambda: exercise.cases(Draw(exercise.name, seed, "again")))[0]
    cases.append(first._replace(label=f"{first.label}, again", note=REMEMBERS))
    return tuple((case, as_parts(results(exercise, exercise.oracle, case))) for case in cases)


def results(exercise: Exercise, fn: Callable, case: Case):
    "What a trusted function gives."
    return apart(lambda: exercise.run(fn, deepcopy(case.args)))


@lru_cache(256)
def suspects(exercise: Exercise, seed: int) -> tuple[tuple[Mistake, tuple], ...]:
    "Every named mistake, and what it gives in each case; None where it crashes."

    def attempt(mistake, case):
        try:
            return as_parts(results(exercise, mistake.wrong, case))
        except Exception:
            return None

    cases = [case for case, _ in trials(exercise, seed)]
    return tuple((mistake, tuple(attempt(mistake, case) for case in cases)) for mistake in exercise.mistakes)


def explains(wrongs: tuple, outcomes: list[Outcome], tolerance: float) -> bool:
    "Whether the function did in every case just what the mistake would do."
    tolerance, seen = max(tolerance, 1e-6), False
    for wrong, outcome in zip(wrongs, outcomes):
        if (wrong is None) != (outcome.got is None) or (wrong and len(wrong) != len(outcome.got)):
            return False
        if wrong and not all(near(g, w, tolerance) for g, w in zip(outcome.got, wrong)):
            return False
        seen = seen or wrong is not None
    return seen


def sentence(text: str) -> str:
    "With a capital letter and an end."
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def cause(
    exercise: Exercise, outcomes: list[Outcome], seed: int
) -> tuple[str, str]:  # the sentence, where to look
    "Why the function is not right."
    failed = sorted((o for o in outcomes if o.stage), key=lambda o: STAGES.index(o.stage))
    first = failed[0]
    if first.stage == "blank" and first is outcomes[0]:
        return "not started yet", "replace the line that raises NotImplementedError with your own."
    if first.stage in ("time", "input"):
        return first.says, exercise.look
    if first.stage == "blank":
        return f"it is not finished: {first.says} (case: {first.case.label})", exercise.look
    for mistake, wrongs in suspects(exercise, seed):
        if explains(wrongs, outcomes, exercise.tolerance):
            return mistake.says, mistake.look
    notes = {o.case.note for o in failed}
    if len(notes) == 1 and "" not in notes and len(failed) < len(outcomes):
        return notes.pop(), exercise.look
    if first.stage != "value":
        return f"{first.says} (case: {first.case.label})", exercise.look
    odd = [(g, w) for g, w in zip(first.got, first.want) if not near(g, w, exercise.tolerance)]
    known = diagnose(*odd[0], exercise.tolerance)
    return f"{first.says}{f'; {known}' if known else ''} (case: {first.case.label})", exercise.look


def misfit(exercise: Exercise, fn) -> str:
    "Why fn cannot be called at all, or nothing."
    if not callable(fn):
        given = "nothing" if fn is None else " ".join(repr(fn).split())[:60]
        return f"there is no function to check: the check was given {given}"
    if inspect.iscoroutinefunction(fn):
        return "it is defined by async def; a plain def is enough"
    wanted = list(inspect.signature(exercise.oracle).parameters)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some functions written in C tell nothing about themselves
        return ""
    try:
        signature.bind(*wanted)
    except TypeError:
        return f"it takes {signature}, but must take ({', '.join(wanted)})"
    return ""


def grade(
    exercise: Exercise,
    fn: Callable | None,  # the student's function
    points: float = 1,  # for a right one
    seed: int = 0,  # for the cases
    seconds: float = 10.0,  # that one call may take
    variant: int | None = None,  # seed of a course with its own conventions
) -> Report:
    "Try a function in every case and report."
    exercise = exercise if variant is None else exercise.varied(variant)
    says = misfit(exercise, fn)
    if says:
        look = "the line that begins with def; a check wants the function itself, without brackets."
        return Report(exercise.name, False, 0, points, sentence(says), look)
    outcomes = []
    for case, want in trials(exercise, seed):
        outcomes.append(observe(exercise, fn, case, want, seconds))
        if outcomes[-1].stage == "time" or outcomes[0].stage == "blank":
            break
    table = tuple(outcome.row() for outcome in outcomes)
    if not any(outcome.stage for outcome in outcomes):
        says = f"Right in all {len(outcomes)} cases" + f", with {exercise.asks}" * bool(exercise.asks)
        return Report(exercise.name, True, points, points, sentence(says), table=table)
    says, look = cause(exercise, outcomes, seed)
    table = table if outcomes[0].stage != "blank" else ()
    return Report(exercise.name, False, 0, points, sentence(says), look, table)


ROOMS = (
    *("patchify", "positions", "conditioning", "attention", "in_context", "cross_attention"),
    *(
        "layer_norm",
        "adaln",
        "adaln_zero",
        "schedule",
        "posterior",
        "objective",
        "likelihood",
        "sampling",
        "guidance",
    ),
)


def rooms() -> list:
    "The modules in which the exercises are."
    return [import_module(f"dit_nb.teach.graders.{room}") for room in ROOMS]


def all_checks() -> dict[str, Callable]:  # name of the exercise -> its check
    "Every check of the course."
    found = [(name, value) for room in rooms() for name, value in vars(room).items()]
    return {name.removeprefix("check_"): check for name, check in found if name.startswith("check_")}


def all_exercises() -> dict[str, Exercise]:  # name -> the exercise
    "Every exercise of the course, with its oracle and its mistakes."
    found = [value for room in rooms() for value in vars(room).values() if isinstance(value, Exercise)]
    return {exercise.name: exercise for exercise in found}


def use_or_fallback(
    yours: Callable | None,  # your function
    check: Callable,  # its check: check_patchify
    **options,  # seed, seconds, variant: as for `grade`
) -> Callable:  # yours if it passes, else ours
    "The function that the next cells use; one printed line tells whose it is."
    name = check.__name__.removeprefix("check_")
    report = check(yours, **options)
    if report:
        print(f"The next cells use your {name}.")
        return yours
    exercise, variant = all_exercises()[name], options.get("variant")
    exercise = exercise if variant is None else exercise.varied(variant)
    print(f"The next cells use our {name}. Of yours the check says: {report.reason}")
    return exercise.reference or exercise.oracle
