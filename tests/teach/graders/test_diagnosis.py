"""Diagnosis by what fails together: notes, arguments that are ignored, precisions, edges, half points."""

from typing import NamedTuple

import pytest
import torch

from answers import RIGHT
from dit_nb.teach.graders.framework.core import _all_checks, grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise

patchify = RIGHT["patchify"][0]
CHECKS = _all_checks()


def double(x, k):
    return k * x


def exercise(cases, **facts):
    """An exercise without known mistakes: multiply x by k."""
    return Exercise("double", double, lambda rng: cases, {}, "the task.", **facts)


def case(k, note="", n=3):
    return Case(f"k = {k}, n = {n}, {note}", (torch.arange(1.0, n + 1, dtype=torch.float64), k), note)


def wrong_where(condition):
    """Right, except where a condition on (x, k) holds."""
    return lambda x, k: k * x + condition(x, k)


def test_a_note_needs_all_failing_cases_and_no_passing_one():
    cases = [case(1), case(5), case(2, "A"), case(3, ("A", "B")), case(4, "B")]
    reason = lambda fn: grade(exercise(cases), fn).reason  # noqa: E731
    assert reason(wrong_where(lambda x, k: k in (2, 3))) == "A."
    assert reason(wrong_where(lambda x, k: k in (3, 4))) == "B."
    for some in ((2,), (3,), (2, 3, 4), (2, 4)):
        assert "wrong numbers" in reason(wrong_where(lambda x, k, some=some: k in some)), some


def test_an_error_is_quoted_beside_the_note():
    def fails(x, k):
        return k * x if k == 1 else x.reshape(7)

    report = grade(exercise([case(1), case(2, "Only k = 1 works."), case(3, "Only k = 1 works.")]), fails)
    assert report.reason.startswith("Only k = 1 works. There it stopped with RuntimeError")


def test_an_argument_that_is_ignored_is_named():
    report = grade(exercise([case(2), case(3), case(2, n=5), case(5)]), lambda x, k: 2 * x)
    assert report.reason == "It is right for k = 2 and wrong for all other values: what is different there?"
    report = grade(
        exercise([case(2), case(3), case(2, n=5)]), wrong_where(lambda x, k: k == 3 or len(x) == 5)
    )
    assert "wrong numbers" in report.reason, "two arguments may be the reason"


def test_signs_that_are_right_in_one_case_may_be_right_by_chance():
    signs = lambda x, k: (x - k).sign()  # noqa: E731
    words = "It is right for k = 2 and wrong for all other values"
    task = Exercise("signs", signs, lambda rng: [case(1), case(2), case(3), case(4)], {}, "the task.")
    wrong = lambda x, k: signs(x, k) + (k != 2)  # noqa: E731
    assert grade(task, wrong).reason.startswith("The result has the right shape, but wrong numbers")
    twice = Exercise("signs", signs, lambda rng: [case(1), case(2), case(2, n=5), case(3)], {}, "the task.")
    assert words in grade(twice, wrong).reason, "two cases are no chance"
    assert words in grade(exercise([case(1), case(2), case(3)]), wrong_where(lambda x, k: k != 2)).reason


def test_a_part_that_is_right_in_all_cases_is_half():
    def both(x, k):
        return k * x, x.sum()

    pair = Exercise(
        "both",
        both,
        lambda rng: [case(2), case(3)],
        {},
        "the task.",
        result_names=("product", "sum"),
        half_results=(lambda results: results[0],),
    )
    wrong = {
        "sum is wrong": (lambda x, k: (k * x, x.sum() + 1), 2),
        "sum has another shape": (lambda x, k: (k * x, x), 2),
        "product is wrong": (lambda x, k: (x, x.sum()), 0),
        "product is wrong once": (lambda x, k: (2 * x, x.mean()), 0),
        "one result": (lambda x, k: k * x, 0),
        "error": (lambda x, k: x.nothing, 0),
    }
    for words, (fn, points) in wrong.items():
        assert grade(pair, fn, points=4).points == points, words


class Network(NamedTuple):
    """A function that an exercise passes: a tuple of tensors."""

    weight: torch.Tensor

    def __call__(self, x):
        return self.weight * x


def test_a_network_among_the_arguments_is_no_number():
    x = torch.arange(1.0, 3.0, dtype=torch.float64)
    cases = [
        Case(f"k = {k}", (Network(torch.stack([x[0], x[0]]) * n), x * k)) for n, k in enumerate((1, 2, 1), 1)
    ]
    task = Exercise("call", lambda f, x: f(x), lambda rng: cases, {}, "the task.")
    report = grade(task, lambda f, x: f(x) + (x[0] > 1))
    assert report.reason.startswith("The result has the right shape, but wrong numbers")


def rows(numbers, start=0.0):
    x = torch.arange(6.0, dtype=torch.float64).reshape(3, 2) + start
    return Case(f"start {start}, k = {numbers}", (x, numbers))


def test_the_first_of_a_batch_is_named_only_if_that_holds_in_all_cases():
    def first_only(x, k):
        return torch.cat([k * x[:1], k * x[1:] + 1])

    def right_at_zero(x, k):
        return k * x + (x != x.flatten()[0]) * (x.flatten()[0] == 0) + (x.flatten()[0] != 0)

    cases = [rows(2), rows(3, 4.0)]
    words = "the first of the batch is right"
    assert words in grade(exercise(cases), first_only).reason
    assert words not in grade(exercise([rows(2), rows(2, 4.0)]), right_at_zero).reason


def test_other_precisions_are_tried_if_all_is_right():
    single = exercise([case(2), case(3)], precisions=(torch.float32,))
    assert grade(single, double) and len(grade(single, double).table) == 4
    report = grade(single, lambda x, k: k * x.double())
    assert report.points == 0 and "must be torch.float32" in report.reason
    report = grade(single, lambda x, k: (k * torch.ones(3, dtype=torch.float64)) @ torch.diag(x))
    assert "not in all precisions: it stopped with RuntimeError" in report.reason
    assert len(grade(single, lambda x, k: x).table) == 3, "only the first reason counts"


def test_edge_cases_are_tried_if_all_is_right():
    edge = exercise([case(2), case(3)], edge_cases=lambda rng: [case(0, "Wrong at 0.")])
    assert grade(edge, double).reason == "Right in all 4 cases."
    assert grade(edge, lambda x, k: k * x if k else x).reason == "Wrong at 0."
    assert len(grade(edge, lambda x, k: x).table) == 3


@pytest.mark.parametrize("name", ["patchify", "unpatchify", "sincos_2d"])
def test_square_alone_is_half_of_the_points(name):
    right = RIGHT[name][0]

    def square(*args):
        rows, columns = args[0].shape[2:] if name == "patchify" else args[name == "unpatchify"]
        result = right(*args)
        return result if rows == columns else result.flip(-1)

    report = CHECKS[name](square, points=3)
    assert not report and report.points == 1.5 and "It is right for square" in report.reason
    assert f"✗ {name} (1.5 of 3 points)" in str(report)
    assert CHECKS[name](lambda *args: right(*args).flip(-1), points=3).points == 0


def test_other_notes_earn_nothing():
    assert CHECKS["patchify"](lambda images, p: patchify(images, 2), points=3).points == 0


def test_a_tensor_may_stand_for_a_tuple_of_equal_shapes():
    both = Exercise(
        "both", lambda x: (x, 2 * x), lambda rng: [Case("x", (torch.ones(3).double(),))] * 3, {}, ""
    )
    assert grade(both, lambda x: torch.stack([x, 2 * x]))
    assert "must return 2 tensors" in grade(both, lambda x: torch.stack([x, x, x])).reason


def test_rounding_is_named_before_the_one_value_without_it():
    """A factor in float32 is exact for 2 and not for the others: the value is not what is wrong."""
    third = torch.tensor([1 / 3, 2.0, 5.0], dtype=torch.float64)
    cases = [Case(f"k = {k}", (third * k, k)) for k in (0.5, 0.1, 0.3)]
    report = grade(
        exercise(cases), lambda x, k: torch.tensor(k) * x * 1.0 if k == 0.5 else x * float(torch.tensor(k))
    )
    assert "they are right except for rounding: is a step done in float32" in report.reason
    assert "all other values" not in report.reason
    report = grade(exercise(cases), lambda x, k: x * (k if k == 0.5 else k + 1e-4))
    assert "right for k = 0.5 and wrong for all other values" in report.reason


def test_the_other_value_of_a_flag_is_named():
    x = torch.arange(1.0, 4.0, dtype=torch.float64)
    cases = [Case(f"training = {flag}, {n}", (x * n, flag)) for n, flag in enumerate((True, False, True), 1)]
    task = Exercise(
        "drop", lambda x, training: x * (2 if training else 1), lambda rng: cases, {}, "the task."
    )
    report = grade(task, lambda x, training: 2 * x)
    assert "right for training = True and wrong for training = False: what" in report.reason
