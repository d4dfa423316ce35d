"""Isolation of a student's function: inputs, settings and PyTorch's functions stay as they were."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from dit_nb.teach.graders.framework.originals import _GONE, _SPACES, _put, _replaced

__all__ = []


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


def _restore_torch(before: dict[str, dict]) -> list[str]:
    """Undo changes to PyTorch's own functions, and to others that graders use; update `before`.

    Args:
        before: what `_contents` returned

    Returns:
        the names that had changed
    """
    found = []
    for key, old in before.items():
        space, names = _SPACES[key], _replaced(_SPACES[key], old)
        if space is Tensor:  # modules load parts of themselves
            names += sorted(vars(space).keys() - old.keys() - {*names})
        for name in names:
            _put(space, name, old.get(name, _GONE))
        if names or len(vars(space)) != len(old):
            before[key] = dict(vars(space))
        found += [f"{key}.{name}" for name in names]
    return found


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
