"""The graders: right answers pass in any style, each wrong one hears its own sentence, and nothing escapes."""

import inspect
import json
import re
import time

import pytest
import torch
from answers import RIGHT, WRONG

from dit_nb.checks.core import (
    Draw,
    OutOfTime,
    all_checks,
    all_exercises,
    by_alarm,
    by_worker,
    grade,
    near,
    suspects,
    trials,
)

CHECKS, EXERCISES = all_checks(), all_exercises()
NAMES = sorted(CHECKS)
GOOD = [pytest.param(name, fn, id=fn.__name__) for name in NAMES for fn in RIGHT[name]]
BAD = [pytest.param(name, fn, words, id=fn.__name__) for name in NAMES for fn, words in WRONG[name]]
SEEDS = range(3)


def squeezed(code):
    return re.sub(r"\s+", "", code)


def answer_lines(name):
    """What would give an answer away: the lines of all right answers and of the oracle, squeezed."""
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
def test_wrong_answers_hear_their_own_sentence(name, fn, words):
    for seed in SEEDS:
        report = CHECKS[name](fn, seed=seed)
        assert not report and report.points == 0
        assert words in report.reason, f"seed {seed}: {report}"


@pytest.mark.parametrize("name, fn, words", BAD)
def test_no_message_gives_the_answer_away(name, fn, words):
    report = CHECKS[name](fn)
    if "stopped with" in report.reason:
        return  # it quotes the student's own line
    shown = squeezed(report._repr_markdown_() + str(report))
    assert [line for line in answer_lines(name) if line in shown] == []
    assert "->" not in shown and "torch.cat" not in shown and "rearrange" not in shown


def differ(exercise, ours, theirs):
    """Whether two functions can be told apart, more clearly than a named mistake must fit."""

    def same(a, b):
        if a is None or b is None:
            return a is b
        return all(near(x, y, 3 * max(exercise.tolerance, 1e-6)) for x, y in zip(a, b))

    return not all(map(same, ours, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_named_mistakes_are_mistakes_and_all_different(name):
    exercise = EXERCISES[name]
    for seed in SEEDS:
        right = [want for _, want in trials(exercise, seed)]
        found = [right, *(wrongs for _, wrongs in suspects(exercise, seed))]
        for i, ours in enumerate(found):
            assert any(r is not None for r in ours)
            for j in range(i):
                assert differ(exercise, ours, found[j]), (seed, exercise.mistakes[i - 1].says, j)


@pytest.mark.parametrize("name", NAMES)
def test_every_named_mistake_is_made_by_somebody(name):
    heard = {CHECKS[name](fn).reason for fn, _ in WRONG[name]}
    assert [mistake.says for mistake in EXERCISES[name].mistakes if mistake.says not in heard] == []


@pytest.mark.parametrize("name", NAMES)
def test_cases(name):
    """Three or more, the same for the same seed, others for another."""
    first, again, other = (EXERCISES[name].cases(Draw(name, seed)) for seed in (0, 0, 1))
    assert len(first) >= 3 and len({case.label for case in first}) == len(first)
    assert repr([case.args for case in first]) == repr([case.args for case in again])
    assert repr([case.args for case in first]) != repr([case.args for case in other]) or name in (
        "sincos_2d",
        "zero_init",
    )


def with_arguments_of(oracle, body, **more):
    """A function that takes what the oracle takes, written as a student's notebook has it."""
    names = ", ".join(inspect.signature(oracle).parameters)
    space = dict(more)
    exec(f"def student({names}):\n{body}", space)
    return space["student"]


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_is_not_started_yet(name):
    stub = with_arguments_of(EXERCISES[name].oracle, '    raise NotImplementedError("Exercise 1")')
    report = CHECKS[name](stub)
    assert report.reason == "Not started yet." and not report.table


@pytest.mark.parametrize("name", NAMES)
def test_nothing_returned(name):
    report = CHECKS[name](with_arguments_of(EXERCISES[name].oracle, "    pass"))
    assert not report and ("return missing" in report.reason or name == "zero_init"), str(report)


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name):
    report = CHECKS[name](lambda: None)
    assert "It takes (), but must take (" in report.reason
    assert "no function" in CHECKS[name](None).reason and "no function" in CHECKS[name](3).reason


LOOPS = {
    "plain": "    while True: pass",
    "greedy": "    while True:\n        try:\n            x = 1\n        except: x = 2",
    "polite": "    while True:\n        try:\n            x = 1\n        except Exception: pass",
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_an_infinite_loop_ends(loop):
    exercise = EXERCISES["patchify"]
    start = time.perf_counter()
    report = CHECKS["patchify"](with_arguments_of(exercise.oracle, loop), seconds=0.2)
    assert "did not come back within 0.2 seconds" in report.reason
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("limit", [by_alarm, by_worker])
def test_time_limits(limit):
    assert limit(lambda: 7, 5) == 7
    with pytest.raises(KeyError):
        limit(lambda: {}["x"], 5)
    with pytest.raises(OutOfTime):
        limit(lambda: [time.sleep(0.01) for _ in range(500)], 0.1)


def test_a_check_works_in_another_thread():
    reports = []

    def work():
        stub = with_arguments_of(EXERCISES["patchify"].oracle, LOOPS["plain"])
        reports.append(CHECKS["patchify"](stub, seconds=0.2))
        reports.append(CHECKS["patchify"](RIGHT["patchify"][0]))

    by_worker(work, 20)
    assert "did not come back" in reports[0].reason and reports[1].passed


def test_inputs_must_stay_as_they_are():
    def scribble(images, patch_size):
        images += 1
        return RIGHT["patchify"][0](images - 1, patch_size)

    assert "changes its input images" in CHECKS["patchify"](scribble).reason


def test_an_exception_is_one_sentence():
    def crash(images, patch_size):
        return images.reshape(3, 5, 7)

    report = CHECKS["patchify"](crash)
    assert "stopped with RuntimeError" in report.reason and "return images.reshape(3, 5, 7)" in report.reason
    assert "Traceback" not in str(report) and "\n" not in str(report)


def test_exits_and_missing_kernels_do_not_escape():
    for body in (
        "    raise SystemExit(3)",
        "    raise NotImplementedError('\"x\" not implemented for Half')",
    ):
        report = CHECKS["patchify"](with_arguments_of(EXERCISES["patchify"].oracle, body))
        assert "stopped with" in report.reason


def test_settings_stay_as_they_were():
    def meddler(images, patch_size):
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return RIGHT["patchify"][0](images, patch_size)

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert CHECKS["patchify"](meddler)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_a_report_shows_and_is_a_row():
    good = CHECKS["patchify"](RIGHT["patchify"][0], points=2)
    bad = CHECKS["patchify"](WRONG["patchify"][0][0], points=2)
    assert good and not bad and good.require() is good
    with pytest.raises(AssertionError, match="never moved"):
        bad.require()
    for report in (good, bad):
        row = json.loads(json.dumps(report.row(), allow_nan=False))
        assert row["name"] == "patchify" and row["max_points"] == 2 and row["points"] == 2 * report.passed
    text = bad._repr_markdown_()
    assert text.startswith("**✗ patchify** · 0 of 2 points") and "Where to look" in text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("|")}) == 1
    assert "✓" in good._repr_markdown_() and "|" not in good._repr_markdown_()


def test_markup_of_a_student_shows_as_it_is():
    def crash(images, patch_size):
        raise ValueError("<b>|*no*|</b> $x$ `y`")

    text = CHECKS["patchify"](crash)._repr_markdown_().split("|")[0]
    assert "<b>" not in text and "`" not in text and "*no*" not in text


def test_nan_is_named():
    report = CHECKS["patchify"](lambda images, patch_size: RIGHT["patchify"][0](images, patch_size) / 0)
    assert "nan or infinite" in report.reason
    json.dumps(report.row(), allow_nan=False)


def test_grade_needs_no_globals_of_the_caller():
    body = "    return rearrange(images, 'n c (h p) (w q) -> n (h w) (p q c)', p=patch_size, q=patch_size)"
    report = grade(EXERCISES["patchify"], with_arguments_of(EXERCISES["patchify"].oracle, body))
    assert "NameError" in report.reason


@pytest.mark.parametrize(
    "odd",
    [
        lambda images, patch_size: RIGHT["patchify"][0](images, patch_size).to_sparse(),
        lambda images, patch_size: RIGHT["patchify"][0](images, patch_size).to("meta"),
        lambda images, patch_size: RIGHT["patchify"][0](images, patch_size).to(torch.complex64),
        lambda images, patch_size: RIGHT["patchify"][0](images, patch_size) > 0,
        lambda images, patch_size: [],
        lambda images, patch_size: torch.empty(0),
        lambda images, patch_size: "tokens",
        lambda images, patch_size: images @ patch_size,
    ],
)
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_odd_results_are_reported(odd):
    report = CHECKS["patchify"](odd)
    assert not report and json.dumps(report.row(), allow_nan=False) and report._repr_markdown_()
