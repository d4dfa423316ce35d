"""The graders: right answers pass in any style, each wrong one hears its own sentence, and nothing escapes."""

import functools
import inspect
import json
import re
import sys
import time

import pytest
import torch

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.core import (
    all_checks,
    all_exercises,
    grade,
    suspects,
    trials,
    use_or_fallback,
)
from dit_nb.teach.graders.framework.exercise import Draw
from dit_nb.teach.graders.framework.limits import OutOfTime, by_alarm, by_worker
from dit_nb.teach.graders.framework.outcome import near

CHECKS, EXERCISES = all_checks(), all_exercises()
NAMES = sorted(CHECKS)
GOOD = [pytest.param(name, fn, id=fn.__name__) for name in NAMES for fn in RIGHT[name]]
BAD = [pytest.param(name, fn, words, id=fn.__name__) for name in NAMES for fn, words in WRONG[name]]
SEEDS = range(2)


@functools.cache
def report_on(name, fn, seed=0):
    """What a check says: several tests look at the same reports."""
    return CHECKS[name](fn, seed=seed)


def squeezed(code):
    return re.sub(r"\s+", "", code)


def answer_lines(name):
    """What would give an answer away: the lines of all right answers and of the oracle, squeezed."""
    sources = [inspect.getsource(fn) for fn in (*RIGHT[name], EXERCISES[name].oracle)]
    sources += [variant.solution for variant in EXERCISES[name].variants]
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
        report = report_on(name, fn, seed)
        assert not report and report.points == 0
        assert words in report.reason, f"seed {seed}: {report}"


@pytest.mark.parametrize("name, fn, words", BAD)
def test_no_message_gives_the_answer_away(name, fn, words):
    report = report_on(name, fn)
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
    heard = {report_on(name, fn).reason for fn, _ in WRONG[name]}
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
    "stubborn": "    import time\n    while True:\n        try:\n            time.sleep(0.01)\n        except: pass",
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


def swallow():
    try:
        time.sleep(0.01)
    except:  # noqa: E722
        pass


def test_nested_loops_that_swallow_everything_end():
    def loop():
        while True:
            try:
                swallow()
            except:  # noqa: E722
                pass

    tracer, ended = sys.gettrace(), []
    with pytest.raises(OutOfTime):
        by_alarm(loop, 0.1)
    assert sys.gettrace() is tracer

    class Door:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            ended.append(True)

    def polite():
        with Door():
            while True:
                pass

    with pytest.raises(OutOfTime):
        by_alarm(polite, 0.1)
    assert ended == [True]


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


GOOD_PATCHIFY = RIGHT["patchify"][0]


class Callable:
    def __call__(self, images, patch_size):
        return GOOD_PATCHIFY(images, patch_size)


class Module(torch.nn.Module):
    def forward(self, images, patch_size):
        return GOOD_PATCHIFY(images, patch_size)


class Class:
    def method(self, images, patch_size):
        return GOOD_PATCHIFY(images, patch_size)


@pytest.mark.parametrize(
    "fn",
    [
        Callable(),
        Module(),
        Class().method,
        functools.partial(GOOD_PATCHIFY),
        functools.lru_cache(GOOD_PATCHIFY),
        lambda a, b: GOOD_PATCHIFY(a, b),
        lambda *both: GOOD_PATCHIFY(*both),
        lambda images, patch_size, extra=3: GOOD_PATCHIFY(images, patch_size),
        lambda images, patch_size: GOOD_PATCHIFY(images, patch_size).requires_grad_(),
        lambda images, patch_size: torch.nn.Parameter(GOOD_PATCHIFY(images, patch_size)),
        lambda images, patch_size: print("looking at", images.shape) or GOOD_PATCHIFY(images, patch_size),
    ],
)
def test_a_right_answer_may_be_anything_that_can_be_called(fn):
    assert CHECKS["patchify"](fn)


def broken(images, patch_size):
    return images[9, 9, 9, 9, 9]


class Broken(torch.nn.Module):
    def forward(self, images, patch_size):
        return images[9, 9, 9, 9, 9]


@pytest.mark.parametrize("fn", [broken, Broken(), functools.partial(broken), functools.lru_cache(broken)])
def test_the_line_of_an_exception_is_found(fn):
    reason = CHECKS["patchify"](fn).reason
    assert "stopped with IndexError" in reason and "return images[9, 9, 9, 9, 9]" in reason


def returns(value):
    return lambda images, patch_size: value(GOOD_PATCHIFY(images, patch_size))


class Liar(torch.Tensor):
    """A tensor that answers every question as it likes."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return torch.zeros(())


async def asynchronous(images, patch_size):
    return GOOD_PATCHIFY(images, patch_size)


def later(images, patch_size):
    yield GOOD_PATCHIFY(images, patch_size)


def itself(images, patch_size):
    return itself(images, patch_size)


class Rude(BaseException):
    def __str__(self):
        raise ValueError


def rude(images, patch_size):
    raise Rude


SAYS = {
    "its input": (lambda images, patch_size: images, "has shape (2, 3, 8, 8)"),
    "NumPy": (returns(lambda x: x.numpy()), "a NumPy array"),
    "lists": (returns(lambda x: x.tolist()), "a list of 2 things (list)"),
    "a comma": (returns(lambda x: (x,)), "a comma too many"),
    "a float": (returns(lambda x: 1.0), "returns a float"),
    "half": (returns(lambda x: x.half()), "is torch.float16, but must be torch.float64"),
    "nothing": (returns(lambda x: None), "is a return missing?"),
    "nan": (returns(lambda x: x * float("nan")), "nan or infinite"),
    "a liar": (returns(lambda x: torch.zeros_like(x).as_subclass(Liar)), "other numbers"),
    "nested": (returns(lambda x: torch.nested.nested_tensor([x[0]])), "cannot be compared"),
    "quantized": (
        returns(lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)),
        "must return",
    ),
    "async": (asynchronous, "async def"),
    "yield": (later, "does yield stand"),
    "recursion": (itself, "stopped with RecursionError"),
    "exit": (lambda images, patch_size: sys.exit(0), "stopped with SystemExit"),
    "rude": (rude, "stopped with Rude"),
    "a GPU": (lambda images, patch_size: GOOD_PATCHIFY(images.to("cuda:77"), patch_size), "stopped with"),
    "a class": (dict, "stopped with TypeError"),
    "keywords": (lambda *, images, patch_size: images, "but must take (images, patch_size)"),
    "its result": (torch.zeros(3, 3), "no function"),
    "its name": ("patchify", "no function"),
}


@pytest.mark.parametrize("fn, words", SAYS.values(), ids=SAYS)
@pytest.mark.filterwarnings("ignore")
def test_odd_answers_hear_what_is_odd(fn, words):
    report = CHECKS["patchify"](fn)
    assert not report and words in report.reason, str(report)
    assert "\n" not in str(report) and json.dumps(report.row(), allow_nan=False)
    assert CHECKS["patchify"](GOOD_PATCHIFY)


def test_an_answer_that_remembers():
    seen = {}

    def remembers(images, patch_size):
        return seen.setdefault(images.shape, GOOD_PATCHIFY(images, patch_size))

    assert "from an earlier call" in CHECKS["patchify"](remembers).reason


def test_half_an_answer_is_not_a_blank():
    def half(images, patch_size):
        if images.shape[2] != images.shape[3]:
            raise NotImplementedError("oblong pictures")
        return GOOD_PATCHIFY(images, patch_size)

    reason = CHECKS["patchify"](half).reason
    assert "not finished" in reason and "oblong pictures" in reason


def test_float32_is_named():
    def single(q, k, v):
        return RIGHT["attention"][0](q, k, v).float()

    assert "work in the type of the input, not in torch.float32" in CHECKS["attention"](single).reason


def test_lists_must_stay_as_they_are():
    def pops(x, c, blocks):
        result = RIGHT["in_context"][0](x, c, list(blocks))
        blocks.pop()
        return result

    def inserts(alphas_cumprod, kept):
        result = RIGHT["respaced_betas"][0](alphas_cumprod, list(kept))
        kept.insert(0, -1)
        return result

    assert "changes its input blocks" in CHECKS["in_context"](pops).reason
    assert "changes its input kept" in CHECKS["respaced_betas"](inserts).reason


def test_functions_of_pytorch_are_put_back():
    def cheats(images, patch_size):
        torch.Tensor.__eq__ = lambda a, b: torch.ones(()).bool()
        torch.Tensor.max = lambda *a: torch.zeros(())
        torch.where = lambda *a: a[1]
        return torch.zeros_like(GOOD_PATCHIFY(images, patch_size))

    assert "for everybody" in CHECKS["patchify"](cheats).reason
    assert torch.where(torch.tensor(True), 1, 2) == 1 and torch.tensor([1, 5]).max() == 5
    assert CHECKS["patchify"](GOOD_PATCHIFY) and not CHECKS["patchify"](WRONG["patchify"][0][0])


def test_a_person_may_interrupt():
    def interrupted(images, patch_size):
        torch.set_default_dtype(torch.float64)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CHECKS["patchify"](interrupted)
    assert torch.get_default_dtype() == torch.float32
    time.sleep(0.05)  # no alarm is left behind


def test_a_long_call_into_c_is_noticed_afterwards():
    def long(images, patch_size):
        return sum(range(10**7)) and GOOD_PATCHIFY(images, patch_size)

    assert "did not come back" in CHECKS["patchify"](long, seconds=0.01).reason


@pytest.mark.parametrize("setting", ["inference", "no_grad", "float64", "meta"])
def test_the_settings_of_a_notebook_do_not_matter(setting):
    contexts = {"inference": torch.inference_mode, "no_grad": torch.no_grad}
    dtype = torch.float64 if setting == "float64" else torch.float32
    device = "meta" if setting == "meta" else None
    with contexts.get(setting, torch.enable_grad)():
        try:
            torch.set_default_dtype(dtype)
            torch.set_default_device(device)
            seed = 77 + len(setting)  # inputs that are drawn now
            assert [name for name in NAMES if not CHECKS[name](RIGHT[name][0], seed=seed)] == []
            assert torch.get_default_dtype() == dtype
            assert torch.get_default_device().type == (device or "cpu")
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)


def test_a_meddler_leaves_no_trace():
    def meddles(images, patch_size):
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        return GOOD_PATCHIFY(images, patch_size)

    assert CHECKS["patchify"](meddles)
    assert torch.get_default_device().type == "cpu" and torch.is_grad_enabled()


@pytest.mark.parametrize("name", NAMES)
def test_who_is_stuck_goes_on_with_ours(name, capsys):
    theirs = RIGHT[name][0]
    assert use_or_fallback(theirs, CHECKS[name]) is theirs
    assert capsys.readouterr().out == f"The next cells use your {name}.\n"
    for yours in (None, WRONG[name][0][0]):
        ours = use_or_fallback(yours, CHECKS[name])
        assert CHECKS[name](ours) and f"use our {name}" in capsys.readouterr().out
    ours = use_or_fallback(theirs, CHECKS[name], variant=5)
    assert CHECKS[name](ours, variant=5) and "usual convention" in capsys.readouterr().out
    assert use_or_fallback(ours, CHECKS[name], variant=5) is ours


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
