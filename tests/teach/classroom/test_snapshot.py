"""What is replaced in a module is found, whatever it is replaced by; what changes by itself is not told."""

import math
import sys
from types import ModuleType

import pytest

from dit_nb.teach.classroom import snapshot

NAME = "dit_nb.teach.invented"
SOURCE = """
from dataclasses import dataclass
from functools import cache


LIMIT = 1e-9
seen = []

@dataclass(frozen=True)
class Exercise:
    name: str
    tolerance: float = 1e-9

    def right(self, x): return x

    @property
    def shown(self): return self.name

@cache
def kept(x): return x

def near(a, b, tolerance=1.0): return a == b

exercise = Exercise("patchify")
"""


@pytest.fixture
def module(monkeypatch):
    """A module of graders, loaded and remembered."""
    made = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, made)
    monkeypatch.setattr(snapshot, "_loaded", {})
    exec(SOURCE, vars(made))
    snapshot._remember(made)
    return made


@pytest.mark.parametrize(
    "change, told",
    [
        ("near = max", "near"),
        ("near.__code__ = (lambda a, b, tolerance: True).__code__", "near.__code__"),
        ("near.__defaults__ = (9.0,)", "near.__defaults__"),
        ("Exercise.right = lambda *_: True", "Exercise.right"),
        ("Exercise.__init__ = lambda *_: None", "Exercise.__init__"),
        ("Exercise.shown = property(lambda self: '')", "Exercise.shown"),
        ("object.__setattr__(exercise, 'tolerance', 9.0)", "exercise.tolerance"),
        ("kept.__wrapped__.__code__ = (lambda x: 1).__code__", "kept.__code__"),
        ("LIMIT = 1.0", "LIMIT"),
        ("del near", "near"),
    ],
)
def test_what_is_replaced_is_told(change, told, module):
    exec(change, vars(module))
    assert snapshot._replaced_names() == [f"invented.{told}"]


def test_use_replaces_nothing(module):
    exec("seen.append(kept(near(1, 1)))\nnew = exercise.shown", vars(module))
    assert snapshot._replaced_names() == []


def test_another_module_of_that_name_is_told(module, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, ModuleType(NAME))
    assert snapshot._replaced_names() == [NAME]


def test_tools_of_python_are_watched(monkeypatch):
    monkeypatch.setattr(snapshot, "_loaded", {})
    snapshot._remember(math)
    monkeypatch.setattr(math, "isfinite", bool)
    monkeypatch.setattr(math, "sqrt", lambda x: x)
    assert snapshot._replaced_names() == ["math.isfinite", "math.sqrt"]


def test_libraries_may_replace_tools(monkeypatch, tmp_path):
    """As torch does; a file of the student's, in whose folder the kernel runs, may not."""
    monkeypatch.setattr(snapshot, "_loaded", {})
    snapshot._remember(math)
    monkeypatch.chdir(tmp_path)
    for folder, told in ((tmp_path.parent, []), (tmp_path, ["math.sqrt"])):
        (folder / "library.py").write_text("def sqrt(x): return x")
        space = {}
        exec(compile("def sqrt(x): return x", str(folder / "library.py"), "exec"), space)
        monkeypatch.setattr(math, "sqrt", space["sqrt"])
        assert snapshot._replaced_names() == told


def test_libraries_are_watched_from_the_start_of_a_kernel(monkeypatch):
    """Before any cell runs; how a tensor is printed, and own methods of tensors, are no one's concern."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(snapshot, "_loaded", {})
    monkeypatch.setattr(snapshot, "_libraries", {})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    snapshot._remember_graders()
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda self: "tensor")
    monkeypatch.setattr(torch.Tensor, "own", lambda self: 1, raising=False)
    torch.func.jvp(torch.sin, (torch.ones(2),), (torch.ones(2),))
    none = snapshot._replaced_names()
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 0.0)
    monkeypatch.setattr(torch.nn.functional, "pad", lambda x, *_: x)
    told = snapshot._replaced_names()
    monkeypatch.undo()
    assert none == [] and told == ["torch.Tensor.item", "torch.nn.functional.pad"]
