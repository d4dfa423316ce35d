"""Isolation of a student's function: inputs, settings and PyTorch's functions stay as they were."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = []

_NAMESPACES = (torch, nn.functional, Tensor)


def _leaves(value) -> Iterator:
    """Yield what an argument is made of: tensors and other things, in tuples, lists and modules."""
    if isinstance(value, nn.Module):
        yield from [*value.parameters(), *value.buffers()]
    elif isinstance(value, tuple | list):
        yield len(value)
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _copied(args: tuple) -> tuple:
    """Return deep copies of arguments; faster than `deepcopy` if they are tensors and numbers."""
    if all(isinstance(a, int | float | str) or (type(a) is Tensor and not a.requires_grad) for a in args):
        with torch.inference_mode(False):
            return tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
    return _isolated(lambda: deepcopy(args))


def _equal(a, b) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return a == b if isinstance(a, int | float | str | bool) else type(a) is type(b)


def _changed(before, after) -> bool:
    """Whether an argument is no longer what it was."""
    old, new = list(_leaves(before)), list(_leaves(after))
    return len(old) != len(new) or not all(map(_equal, old, new))


def _isolated(call: Callable):
    """Return call(), run with PyTorch's default settings and a fixed seed; restore the settings."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.default_generator.manual_seed(0)
            if dtype != torch.float32 or device.type != "cpu":
                _set_defaults(torch.float32, torch.device("cpu"))
            return call()
    finally:
        _set_defaults(dtype, device)


def _set_defaults(dtype: torch.dtype, device: torch.device) -> None:
    """Set the defaults if they differ: a default device slows down every call."""
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def _torch_functions() -> list[dict]:
    """Return the contents of PyTorch's namespaces, for `_restore_torch`."""
    return [dict(vars(space)) for space in _NAMESPACES]


def _restore_torch(before: list[dict]) -> list[str]:
    """Undo changes to PyTorch's own functions; return the names that had changed, and update `before`."""
    found = []
    for k, (space, old) in enumerate(zip(_NAMESPACES, before)):
        if vars(space) == old:  # nearly always
            continue
        now = dict(vars(space))
        replaced = [name for name in now.keys() & old.keys() if now[name] is not old[name]]
        replaced = [name for name in replaced if callable(old[name]) or callable(now[name])]
        replaced = [name for name in replaced if not _is_wrapped_by_torch(old[name], now[name])]
        added = sorted(now.keys() - old.keys()) if space is Tensor else []  # modules load parts of themselves
        for name in replaced:
            setattr(space, name, old[name])
        for name in added:
            delattr(space, name)
        found += [f"{space.__name__}.{name}" for name in sorted(replaced) + added]
        before[k] = dict(vars(space))
    return found


def _is_wrapped_by_torch(old, now) -> bool:
    """Whether PyTorch itself has wrapped a function, as its compiler does with `manual_seed` when it is first used."""
    code = getattr(now, "__code__", None)
    inside = code is not None and Path(code.co_filename).is_relative_to(Path(torch.__file__).parent)
    return inside and getattr(now, "__wrapped__", None) is old


def _source_file(fn: Callable) -> str | None:
    """Return the file or cell in which a Python function is written."""
    fn = inspect.unwrap(fn)
    fn = getattr(fn, "func", fn)  # of a partial
    fn = fn if hasattr(fn, "__code__") or hasattr(fn, "__func__") else getattr(fn, "forward", fn)
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    return code.co_filename if code is not None else None


def _error_text(error: BaseException) -> str:
    """Return the first line of an exception's text; from einops, whose texts are long, the last line too."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # its text can be computed by the student's code
        return ""
    lines = lines[:1] + lines[1:][-1:] if type(error).__name__ == "EinopsError" else lines[:1]
    return f": {' '.join(lines)[:240]}" if lines else ""


def _describe_error(error: BaseException, fn: Callable) -> str:
    """Describe an exception of the student's function `fn` in one sentence."""
    file = _source_file(fn)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = ""
    if own:
        source = linecache.getline(own[-1].filename, own[-1].lineno).strip()
        where = f", in line {own[-1].lineno}" + (f": {source[:120]}" if source else "")
    return f"it stopped with {type(error).__name__}{_error_text(error)}{where}"
