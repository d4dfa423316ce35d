"""The same exercises in other conventions: their solutions pass, and everything that lies around fails."""

import inspect
import re
from dataclasses import replace

import pytest

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.core import all_checks, all_exercises, grade, suspects, trials
from dit_nb.teach.graders.framework.exercise import conventions, written
from dit_nb.teach.graders.framework.outcome import near

CHECKS, EXERCISES = all_checks(), all_exercises()


def seed_of(name, number):
    """A course that gets this variant."""
    return next(seed for seed in range(99) if EXERCISES[name].number(seed) == number)


VARIANTS = [
    pytest.param(name, variant, seed_of(name, number), id=f"{name}-{number + 1}")
    for name in sorted(EXERCISES)
    for number, variant in enumerate(EXERCISES[name].variants)
]
# Somebody's mistake is somebody else's convention.
CONVENTIONS = {
    ("cfg_eps", "cfg_eps_other_convention"): "counted from the labelled",
    ("guided_output", "guided_output_other_convention"): "counted from the labelled",
    ("eps_to_x0", "eps_to_x0_noise_divided"): "not faded",
}


def test_every_exercise_has_two_or_more():
    assert set(conventions()) == set(EXERCISES)
    assert all(len(exercise.variants) >= 2 for exercise in EXERCISES.values())


def test_courses_get_different_variants():
    """And so do the exercises of one course, except for those that must fit each other."""
    numbers = {
        name: tuple(exercise.number(seed) for seed in range(40)) for name, exercise in EXERCISES.items()
    }
    assert all(len(set(found)) == len(EXERCISES[name].variants) for name, found in numbers.items())
    kin = {name: conventions()[name][0] for name in EXERCISES}
    assert len(set(numbers.values())) == len(set(kin.values()))
    assert all((numbers[a] == numbers[b]) == (kin[a] == kin[b]) for a in kin for b in kin)
    assert EXERCISES["patchify"].variant(3) is EXERCISES["patchify"].variant(3)


def test_an_exercise_of_your_own_has_none():
    own = replace(EXERCISES["patchify"], name="own")
    assert own.variants == () and grade(own, RIGHT["patchify"][0])
    with pytest.raises(ValueError, match="own has no variants"):
        grade(own, RIGHT["patchify"][0], variant=1)


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_its_solution_passes(name, variant, seed):
    assert EXERCISES[name].variant(seed) is variant
    ours = written(variant.solution, name)
    for numbers in range(3):
        report = CHECKS[name](ours, variant=seed, seed=numbers, points=2)
        assert report and report.points == 2, str(report)
    assert variant.asks in report.reason and re.fullmatch(rf"{name} \(variant \d\)", report.name)


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_what_lies_around_hears_that_it_is_the_usual(name, variant, seed):
    exercise = EXERCISES[name]
    for fn in (*RIGHT[name], exercise.oracle, exercise.reference or exercise.oracle):
        report = CHECKS[name](fn, variant=seed)
        assert not report and report.points == 0
        assert report.reason.startswith("This is the usual convention; this course asks for "), str(report)
        assert variant.asks in report.reason


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_no_other_solution_passes(name, variant, seed):
    assert not CHECKS[name](written(variant.solution, name))
    for other in EXERCISES[name].variants:
        if other is not variant:
            assert not CHECKS[name](written(other.solution, name), variant=seed)


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_wrong_answers_fail(name, variant, seed):
    for fn, _ in WRONG[name]:
        words = CONVENTIONS.get((name, fn.__name__))
        own = words is not None and words in variant.asks
        assert bool(CHECKS[name](fn, variant=seed)) == own, fn.__name__


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_a_blank_is_not_started_yet(name, variant, seed):
    def stub(*args):
        raise NotImplementedError

    assert CHECKS[name](stub, variant=seed).reason == "Not started yet."
    names = list(inspect.signature(EXERCISES[name].oracle).parameters)
    assert f"but must take ({', '.join(names)})" in CHECKS[name](lambda: None, variant=seed).reason


def apart(exercise, ours, theirs):
    """Whether two functions can be told apart, more clearly than a named mistake must fit."""

    def alike(a, b):
        if a is None or b is None:
            return a is b
        return len(a) == len(b) and all(near(x, y, 3 * max(exercise.tolerance, 1e-6)) for x, y in zip(a, b))

    return not all(map(alike, ours, theirs))


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_its_mistakes_are_mistakes_and_all_different(name, variant, seed):
    exercise = EXERCISES[name].varied(seed)
    found = [[want for _, want in trials(exercise, 0)], *(wrongs for _, wrongs in suspects(exercise, 0))]
    for i, ours in enumerate(found):
        assert any(result is not None for result in ours), exercise.mistakes[i - 1].says
        for j in range(i):
            assert apart(exercise, ours, found[j]), (exercise.mistakes[i - 1].says, j)


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_words_of_mistakes_are_there(name, variant, seed):
    for words in (*variant.leave, *variant.keep):
        assert any(words in mistake.says for mistake in EXERCISES[name].mistakes), words


@pytest.mark.parametrize("name, variant, seed", VARIANTS)
def test_its_words_tell_all_and_give_nothing_away(name, variant, seed):
    assert variant.says.startswith("In this course") and variant.says.endswith((".", ".)"))
    assert not variant.asks.endswith(".") and variant.solution.count(f"def {name}(") == 1
    body = written(variant.solution, name)
    assert body.__doc__ and list(inspect.signature(body).parameters) == list(
        inspect.signature(EXERCISES[name].oracle).parameters
    )
    # Code that a variant's words quote is what the course defines, not a line of the answer.
    lines = [line.strip().removeprefix("return ") for line in variant.solution.splitlines()]
    assert not any(len(line) > 25 and line in variant.says for line in lines)
