"""Isolation: a student's function changes neither its inputs nor PyTorch, and its errors are described."""

import functools
import inspect

import pytest
import torch

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.core import _all_checks, all_exercises
from dit_nb.teach.graders.framework.isolation import _restore_torch
from dit_nb.teach.graders.framework.originals import _contents
from support import student_function

CHECKS, PATCHIFY = _all_checks(), all_exercises()["patchify"]
check_patchify, patchify = CHECKS["patchify"], RIGHT["patchify"][0]


def test_changed_inputs_are_named():
    def scribble(images, patch_size):
        images += 1
        return patchify(images - 1, patch_size)

    assert "changes its input images" in check_patchify(scribble).reason


def test_changed_lists_are_named():
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


def test_an_exception_is_one_sentence():
    def crash(images, patch_size):
        return images.reshape(3, 5, 7)

    report = check_patchify(crash)
    assert "stopped with RuntimeError" in report.reason and "return images.reshape(3, 5, 7)" in report.reason
    assert "Traceback" not in str(report) and "\n" not in str(report)


def test_exits_and_missing_kernels_do_not_escape():
    for body in (
        "    raise SystemExit(3)",
        "    raise NotImplementedError('\"x\" not implemented for Half')",
    ):
        report = check_patchify(student_function(PATCHIFY.oracle, body))
        assert "stopped with" in report.reason


def broken(images, patch_size):
    return images[9, 9, 9, 9, 9]


class Broken(torch.nn.Module):
    def forward(self, images, patch_size):
        return images[9, 9, 9, 9, 9]


@pytest.mark.parametrize("fn", [broken, Broken(), functools.partial(broken), functools.lru_cache(broken)])
def test_the_line_of_an_exception_is_found(fn):
    reason = check_patchify(fn).reason
    assert "stopped with IndexError" in reason and "return images[9, 9, 9, 9, 9]" in reason


def test_random_state_and_grad_mode_stay_as_they_were():
    def meddler(images, patch_size):
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return patchify(images, patch_size)

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert check_patchify(meddler)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_default_device_and_dtype_stay_as_they_were():
    def meddles(images, patch_size):
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        return patchify(images, patch_size)

    assert check_patchify(meddles)
    assert torch.get_default_device().type == "cpu" and torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_settings_are_restored_after_an_interrupt():
    def interrupted(images, patch_size):
        torch.set_default_dtype(torch.float64)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_patchify(interrupted)
    assert torch.get_default_dtype() == torch.float32


def test_functions_of_pytorch_are_restored():
    def cheats(images, patch_size):
        torch.Tensor.__eq__ = lambda a, b: torch.ones(()).bool()
        torch.Tensor.max = lambda *a: torch.zeros(())
        torch.where = lambda *a: a[1]
        return torch.zeros_like(patchify(images, patch_size))

    assert "for all code" in check_patchify(cheats).reason
    assert torch.where(torch.tensor(True), 1, 2) == 1 and torch.tensor([1, 5]).max() == 5
    assert check_patchify(patchify) and not check_patchify(WRONG["patchify"][0][0])


def test_what_the_compiler_of_torch_wraps_is_no_change(monkeypatch):
    """`torch.func.jvp` makes PyTorch wrap `manual_seed`; a person's own wrapper is still found."""
    plain, own = inspect.unwrap(torch.manual_seed), torch.add
    monkeypatch.setattr(torch, "manual_seed", plain)
    monkeypatch.setattr(torch, "add", own)
    before = _contents()
    torch.manual_seed = torch._disable_dynamo(plain)
    torch.add = functools.wraps(own)(lambda *args: own(*args))
    assert _restore_torch(before) == ["torch.add"] and torch.add is own
