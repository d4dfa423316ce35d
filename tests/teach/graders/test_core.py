"""Grading one function: anything callable is graded, and messages say what is wrong."""

import functools

import pytest
import torch

from answers import RIGHT
from dit_nb.teach.graders.framework.core import all_exercises, grade
from dit_nb.teach.graders.patchify import check_patchify
from support import student_function

PATCHIFY, patchify = all_exercises()["patchify"], RIGHT["patchify"][0]


def test_functions_see_only_their_own_globals():
    body = "    return rearrange(images, 'n c (h p) (w q) -> n (h w) (p q c)', p=patch_size, q=patch_size)"
    report = grade(PATCHIFY, student_function(PATCHIFY.oracle, body))
    assert "NameError" in report.reason


class Callable:
    def __call__(self, images, patch_size):
        return patchify(images, patch_size)


class Module(torch.nn.Module):
    def forward(self, images, patch_size):
        return patchify(images, patch_size)


class Class:
    def method(self, images, patch_size):
        return patchify(images, patch_size)


@pytest.mark.parametrize(
    "fn",
    [
        Callable(),
        Module(),
        Class().method,
        functools.partial(patchify),
        functools.lru_cache(patchify),
        lambda a, b: patchify(a, b),
        lambda *both: patchify(*both),
        lambda images, patch_size, extra=3: patchify(images, patch_size),
        lambda images, patch_size: patchify(images, patch_size).requires_grad_(),
        lambda images, patch_size: torch.nn.Parameter(patchify(images, patch_size)),
        lambda images, patch_size: print("looking at", images.shape) or patchify(images, patch_size),
    ],
)
def test_a_right_answer_may_be_any_callable(fn):
    assert check_patchify(fn)


def test_a_function_that_returns_earlier_results_is_named():
    seen = {}

    def remembers(images, patch_size):
        return seen.setdefault(images.shape, patchify(images, patch_size))

    assert "from an earlier call" in check_patchify(remembers).reason


def test_half_an_answer_is_not_a_blank_one():
    def half(images, patch_size):
        if images.shape[2] != images.shape[3]:
            raise NotImplementedError("oblong pictures")
        return patchify(images, patch_size)

    reason = check_patchify(half).reason
    assert "not finished" in reason and "oblong pictures" in reason
