"""What PyTorch and other libraries held when the graders were loaded, whatever a student's code replaces later."""

import builtins
import math
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from pathlib import Path
from types import BuiltinFunctionType, ModuleType

import numpy
import torch
from torch import Tensor, nn

__all__ = []

_SPACES = {
    "torch": torch,
    "torch.Tensor": Tensor,
    "torch.linalg": torch.linalg,
    "torch.nn": nn,
    "torch.nn.functional": nn.functional,
    "torch.nn.Module": nn.Module,
    "torch.nn.Linear": nn.Linear,
    "numpy": numpy,
    "math": math,
    "builtins": builtins,
}
_CHANGING = {"input", "Storage"}  # a kernel replaces the first itself, `torch.set_default_dtype` the second
_CONSTANTS = ModuleType | torch.dtype | torch.layout | float
_TORCH = Path(torch.__file__).parent
_GONE = object()


def _contents() -> dict[str, dict[str, object]]:
    """Return what each of the namespaces holds now."""
    return {name: dict(vars(space)) for name, space in _SPACES.items()}


def _replaced(space, old: dict[str, object]) -> list[str]:
    """Return the names of what no longer has its first value, and of what hides a method of a parent class."""
    now = vars(space)
    if len(now) == len(old) and all(map(is_, map(now.get, old), old.values())):  # nearly always
        return []
    changed = [name for name, value in old.items() if now.get(name, _GONE) is not value]
    found = [name for name in changed if _matters(space, name, old[name], now.get(name, _GONE))]
    parents = space.__mro__[1:] if isinstance(space, type) else ()
    return sorted(found + [n for n in now.keys() - old.keys() if any(n in vars(p) for p in parents)])


def _matters(space, name: str, old: object, now: object) -> bool:
    """Whether another value can change results; False for what a kernel or PyTorch itself replaces."""
    if name in _CHANGING:
        return False
    if space is builtins:
        return isinstance(old, type | BuiltinFunctionType) and old.__module__ == "builtins"
    if _is_wrapped_by_torch(old, now) or space is nn.Module and _is_of_torch(now):
        return False
    return any(callable(v) or hasattr(type(v), "__get__") or isinstance(v, _CONSTANTS) for v in (old, now))


def _is_of_torch(function: object) -> bool:
    """Whether a function is written in PyTorch's own files."""
    code = getattr(function, "__code__", None)
    return code is not None and Path(code.co_filename).is_relative_to(_TORCH)


def _is_wrapped_by_torch(old: object, now: object) -> bool:
    """Whether PyTorch itself has wrapped a function, as its compiler does with `manual_seed` when it is first used."""
    if not _is_of_torch(now) or getattr(now, "__wrapped__", None) is not old:
        return False
    return any(cell.cell_contents is old for cell in getattr(now, "__closure__", None) or ())


def _put(space, name: str, value: object) -> None:
    """Set or delete a name of a module or class."""
    if value is not _GONE:
        setattr(space, name, value)
    elif name in vars(space):
        delattr(space, name)


_first = _contents()


@contextmanager
def _original_functions() -> Iterator[None]:
    """Use the functions of when this module was loaded; afterwards, those that replaced them are back."""
    pairs = [(_SPACES[key], old) for key, old in _first.items()]
    changed = [(space, name, old) for space, old in pairs for name in _replaced(space, old)]
    theirs = [(space, name, vars(space).get(name, _GONE)) for space, name, _ in changed]
    for space, name, old in changed:
        _put(space, name, old.get(name, _GONE))
    try:
        yield
    finally:
        for space, name, value in theirs:
            _put(space, name, value)
