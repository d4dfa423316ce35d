"""The exercises of all lessons: right answers pass in any style, and each wrong one gets its own message."""

import functools
import inspect
import json
import re
from pathlib import Path

import pytest
import torch

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.core import (
    _all_checks,
    all_exercises,
    reference_solution,
    use_or_fallback,
)
from dit_nb.teach.graders.framework.exercise import RandomInputs
from dit_nb.teach.graders.framework.expected import _expected_results, _known_mistakes
from dit_nb.teach.graders.framework.outcome import _near
from support import student_function

CHECKS, EXERCISES = _all_checks(), all_exercises()
NAMES = sorted(CHECKS)
GOOD = [pytest.param(name, fn, id=fn.__name__) for name in NAMES for fn in RIGHT[name]]
BAD = [pytest.param(name, fn, words, id=fn.__name__) for name in NAMES for fn, words in WRONG[name]]
SEEDS = range(2)
NBS = Path(__file__).resolve().parents[3] / "nbs"


@functools.cache
def report_on(name, fn, seed=0):
    """The report of a check: several tests read the same ones."""
    return CHECKS[name](fn, seed=seed)


def squeezed(code):
    return re.sub(r"\s+", "", code)


@functools.cache
def answer_lines(name):
    """The lines of all right answers and of the oracle, without spaces."""
    sources = [inspect.getsource(fn) for fn in (*RIGHT[name], EXERCISES[name].oracle)]
    lines = [line.strip() for source in sources for line in source.splitlines()[1:]]
    bodies = [
        squeezed(line.removeprefix("return ")) for line in lines if not line.startswith(("@", "def ", '"'))
    ]
    return [body for body in bodies if len(body) > 10]


def test_every_exercise_has_answers():
    assert set(CHECKS) == set(EXERCISES) == set(RIGHT) == set(WRONG)
    assert all(len(RIGHT[name]) >= 2 and len(WRONG[name]) >= 4 for name in NAMES)


@pytest.mark.parametrize("name, fn", GOOD)
def test_right_answers_pass(name, fn):
    for seed in SEEDS:
        report = CHECKS[name](fn, seed=seed, points=3)
        assert report and report.points == 3, str(report)


@pytest.mark.parametrize("name, fn, words", BAD)
def test_wrong_answers_get_their_own_message(name, fn, words):
    for seed in SEEDS:
        report = report_on(name, fn, seed)
        assert not report and report.points in (0, 0.5)
        assert words in report.reason, f"seed {seed}: {report}"
    check_nothing_is_given_away(name, report_on(name, fn))


def check_nothing_is_given_away(name, report):
    """No message holds a line of an answer."""
    if "stopped with" in report.reason:
        return  # it quotes the student's own line
    shown = squeezed(report._repr_markdown_() + str(report))
    assert [line for line in answer_lines(name) if line in shown] == []
    assert "->" not in shown and "torch.cat" not in shown and "rearrange" not in shown


def differ(exercise, ours, theirs):
    """Whether two functions differ by more than the tolerance with which a known mistake must match."""

    def same(a, b):
        if a is None or b is None:
            return a is b
        return all(_near(x, y, 3 * max(exercise.tolerance, 1e-6)) for x, y in zip(a, b))

    return not all(map(same, ours, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_known_mistakes_are_mistakes_and_all_different(name):
    exercise = EXERCISES[name]
    for seed in SEEDS:
        right = [expected for _, expected in _expected_results(exercise, seed)]
        found = [right, *(wrong for _, wrong in _known_mistakes(exercise, seed))]
        for i, ours in enumerate(found):
            assert any(r is not None for r in ours)
            for j in range(i):
                assert differ(exercise, ours, found[j]), (seed, exercise.known_mistakes()[i - 1].message, j)


@pytest.mark.parametrize("name", NAMES)
def test_every_known_mistake_is_in_the_registry(name):
    messages = {report_on(name, fn).reason for fn, _ in WRONG[name]}
    assert [m.message for m in EXERCISES[name].known_mistakes() if m.message not in messages] == []


@pytest.mark.parametrize("name", NAMES)
def test_hints_name_headings_of_lessons(name):
    exercise = EXERCISES[name]
    for hint in {exercise.hint, *(mistake.hint for mistake in exercise.known_mistakes())}:
        for number, heading in re.findall(r"lesson (\d\d), '((?:[^']|'(?=\w))+)'", hint):
            (lesson,) = NBS.glob(f"[0-9]*/{number}_*.ipynb")
            cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
            text = "".join(
                "".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "markdown"
            )
            assert re.search(rf"^#+ .*{re.escape(heading)}", text, re.MULTILINE), hint


@pytest.mark.parametrize("name", NAMES)
def test_cases_depend_on_the_seed_alone(name):
    first, again, other = (EXERCISES[name].cases(RandomInputs(name, seed)) for seed in (0, 0, 1))
    assert len(first) >= 3 and len({case.label for case in first}) == len(first)
    assert repr([case.args for case in first]) == repr([case.args for case in again])
    assert repr([case.args for case in first]) != repr([case.args for case in other]) or name in (
        "sincos_2d",
        "zero_init",
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_function_is_not_started_yet(name):
    stub = student_function(EXERCISES[name].oracle, '    raise NotImplementedError("Exercise 1")')
    report = CHECKS[name](stub)
    assert report.reason == "Not started yet." and not report.table


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_return_is_named(name):
    report = CHECKS[name](student_function(EXERCISES[name].oracle, "    pass"))
    assert not report and ("return missing" in report.reason or EXERCISES[name].in_place), str(report)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_named(name):
    report = CHECKS[name](lambda: None)
    assert "It takes (), but must take (" in report.reason
    assert "no function" in CHECKS[name](None).reason and "no function" in CHECKS[name](3).reason


@pytest.mark.parametrize("name", NAMES)
def test_the_fallback_is_used_for_wrong_functions_only(name, capsys):
    theirs = RIGHT[name][0]
    assert use_or_fallback(theirs, CHECKS[name]) is theirs
    assert capsys.readouterr().out == f"The next cells use your {name}.\n"
    for yours in (None, WRONG[name][0][0]):
        ours = use_or_fallback(yours, CHECKS[name])
        assert CHECKS[name](ours) and f"use our {name}" in capsys.readouterr().out
        assert ours is reference_solution(name)


@pytest.mark.parametrize("setting", ["inference", "no_grad", "float64", "meta"])
def test_the_settings_of_a_notebook_do_not_matter(setting):
    contexts = {"inference": torch.inference_mode, "no_grad": torch.no_grad}
    dtype = torch.float64 if setting == "float64" else torch.float32
    device = "meta" if setting == "meta" else None
    with contexts.get(setting, torch.enable_grad)():
        try:
            torch.set_default_dtype(dtype)
            torch.set_default_device(device)
            seed = 77 + len(setting)  # a new seed, so that the inputs are not cached
            assert [name for name in NAMES if not CHECKS[name](RIGHT[name][0], seed=seed)] == []
            assert torch.get_default_dtype() == dtype
            assert torch.get_default_device().type == (device or "cpu")
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
