"""What is replaced before a check does not count in it, and is there again afterwards."""

import builtins
import math

import pytest
import torch
from torch import Tensor, nn

from answers import RIGHT, WRONG
from dit_nb.teach.graders.framework.core import _all_checks
from dit_nb.teach.graders.framework.originals import _first, _replaced

check, right, wrong = _all_checks()["patchify"], RIGHT["patchify"][0], WRONG["patchify"][0][0]


class AlwaysEqual:
    """A function that says that it equals all others."""

    def __call__(self, *args):
        return torch.zeros(())

    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "space, name, new",
    [
        (Tensor, "item", lambda self: 0.0),
        (Tensor, "__le__", lambda a, b: True),
        (Tensor, "shape", property(lambda self: ())),
        (Tensor, "max", AlwaysEqual()),
        (torch, "where", AlwaysEqual()),
        (torch, "float64", torch.float16),
        (nn.functional, "pad", lambda x, *_: x),
        (nn.Module, "parameters", lambda self: iter(())),
        (math, "isfinite", lambda x: False),
        (builtins, "all", lambda values: True),
    ],
)
def test_replaced_functions_change_no_verdict(space, name, new, monkeypatch):
    monkeypatch.setattr(space, name, new)
    verdicts = bool(check(right)), bool(check(wrong))
    kept = vars(space)[name] is new
    monkeypatch.undo()
    assert verdicts == (True, False) and kept


def test_own_methods_of_tensors_may_be_used(monkeypatch):
    """What hides no method of PyTorch stays there during a check."""
    monkeypatch.setattr(Tensor, "in_patches", right, raising=False)
    assert check(lambda images, patch_size: images.in_patches(patch_size))


def test_a_forged_wrapper_is_found(monkeypatch):
    """The compiler's wrapper of a person's function, with a mark that says it wraps PyTorch's."""
    forged = torch._disable_dynamo(lambda *args: torch.zeros(()))
    forged.__wrapped__ = torch.where
    monkeypatch.setattr(torch, "where", forged)
    assert _replaced(torch, _first["torch"]) == ["where"]


def test_what_the_compiler_replaces_in_modules_is_no_change():
    import torch._dynamo.mutation_guard as guard

    before = dict(vars(nn.Module))
    guard.install_generation_tagging_init()
    assert _replaced(nn.Module, before) == []
