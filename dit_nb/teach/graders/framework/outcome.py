"""Outcome of one case: is the result a tensor of the right shape and dtype, with the right numbers?"""

import inspect
import math
import re
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.exercise import Case, Exercise
from dit_nb.teach.graders.framework.isolation import (
    _changed,
    _copied,
    _describe_error,
    _isolated,
    _restore_torch,
)
from dit_nb.teach.graders.framework.limits import _call_with_limit, _OutOfTime
from dit_nb.teach.graders.framework.report import _Row

__all__ = []


def _numbers(a: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float64, without gradients."""
    if a.dtype == torch.float64 and not a.requires_grad and a.device.type == "cpu":  # nearly always
        return a
    return (a.real if a.is_complex() else a).detach().cpu().double()


def _mean_size(parts: tuple[Tensor, ...]) -> float:
    """Return the mean magnitude of all numbers."""
    if len(parts) == 1:
        return _numbers(parts[0]).abs().mean().item()
    return torch.cat([_numbers(part).flatten().abs() for part in parts]).mean().item()


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors of one shape; infinite if one of them has a nan."""
    if not a.numel():
        return 0.0
    a, b = _numbers(a), _numbers(b)
    gap = (a - b).abs().max().item()
    if math.isfinite(gap):  # nearly always
        return gap
    same = (a == b) | (a.isnan() & b.isnan())  # also equal infinities
    gap = torch.where(same, 0.0, (a - b).abs()).max().item()
    return gap if gap == gap else float("inf")


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors have the same shape, and the same numbers up to the tolerance."""
    if a.shape != b.shape:
        return False
    if not b.numel():
        return True
    a, b = _numbers(a), _numbers(b)
    largest = b.abs().max().item()
    if math.isfinite(largest):  # nearly always
        return (a - b).abs().max().item() <= tolerance * max(1.0, largest)
    largest = torch.where(b.isfinite(), b.abs(), 0.0).max().item()
    return _distance(a, b) <= tolerance * max(1.0, largest)


_FIRST_ONLY = "the first of the batch is right and the others are not"
_ROUNDED = "they are right except for rounding"
_TO_TENSOR = " (torch.from_numpy makes it a tensor)"
_STAGES = ("blank", "time", "error", "input", "type", "shape", "dtype", "value")


class _Outcome(NamedTuple):
    """How the function did in one case."""

    case: Case
    expected: tuple[Tensor, ...]
    got: tuple | None = None  # None if it returned nothing that can be compared
    stage: str = ""  # what failed, one of _STAGES; empty if all is right
    message: str = ""

    def row(self) -> _Row:
        size = _mean_size(self.expected)
        if self.got is None or self.stage in ("type", "shape"):
            return _Row(self.case.label, size, None, None, not self.stage)
        gap = max(map(_distance, self.got, self.expected))
        return _Row(self.case.label, size, _mean_size(self.got), gap, not self.stage)


def _as_tuple(value) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _plain_tensor(part) -> Tensor | None:
    """Return a tensor without the methods of a subclass; None if it holds no plain numbers."""
    with torch._C.DisableTorchFunctionSubclass():
        if not isinstance(part, Tensor) or part.layout != torch.strided:
            return None
        if part.device.type == "meta" or part.is_quantized:
            return None
        return part if type(part) is Tensor else part.detach().as_subclass(Tensor)


def _describe(value) -> str:
    """Describe what a function returned instead of tensors."""
    if value is None:
        return "nothing (is a return missing?)"
    kind = type(value).__name__
    if isinstance(value, tuple | list):
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        count = f"{len(value)} thing" + "s" * (len(value) != 1)
        comma = ": is there a comma too many?" if isinstance(value, tuple) and len(value) == 1 else ""
        return f"a {kind} of {count}" + f" ({kinds})" * bool(kinds) + comma
    known = {
        "ndarray": f"a NumPy array{_TO_TENSOR}",
        "generator": "a generator (is there a yield instead of a return?)",
    }
    return known.get(kind, f"a{'n' * (kind[0] in 'aeiou')} {kind}")


def _verb(name: str, singular: str) -> str:
    """Return the verb that fits a name, such as timesteps or loss."""
    head = re.split(" (?:of|in|whether) ", name)[0]
    plural = head.endswith("s") and not head.endswith(("ss", "bias", "afterwards"))
    return {"has": "have", "is": "are"}[singular] if plural else singular


def _is_stacked(value, expected: tuple) -> bool:
    """Whether it is one tensor that can be unpacked like a tuple of the expected ones."""
    shapes = {part.shape for part in expected}
    if len(expected) == 1 or len(shapes) > 1 or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.shape == (len(expected), *expected[0].shape)


def _compare(exercise: Exercise, case: Case, expected: tuple, value) -> _Outcome:
    """Compare type, shape, dtype and numbers; report the first that is wrong."""
    outcome = partial(_Outcome, case, expected)
    parts = tuple(value) if _is_stacked(value, expected) else _as_tuple(value)
    got = tuple(g for g in map(_plain_tensor, parts) if g is not None)
    wrapped = len(expected) == 1 and isinstance(value, tuple | list)  # a comma too many
    if not len(parts) == len(got) == len(expected) or wrapped:
        one = len(expected) == 1 or exercise.probe is not None
        wanted = (
            "a tensor"
            if one
            else f"{len(expected)} tensors: {', '.join(exercise.result_names[: len(expected)])}"
        )
        found = _describe(value)
        if exercise.returns:
            wanted, found = exercise.returns, found.replace(_TO_TENSOR, "")
        return outcome(None, "type", f"it must return {wanted}, but returns {found}")
    triples = list(zip(exercise.result_names, got, expected))
    for name, g, e in triples:
        if g.shape != e.shape:
            message = (
                f"the {name} {_verb(name, 'has')} shape {tuple(g.shape)}, but must have {tuple(e.shape)}"
            )
            return outcome(got, "shape", message)
    for name, g, e in triples:
        kinds = [(x.is_floating_point(), x.is_complex()) for x in (g, e)]
        if g.dtype != e.dtype and (exercise.same_dtype or kinds[0] != kinds[1]):
            return outcome(got, "dtype", f"the {name} {_verb(name, 'is')} {g.dtype}, but must be {e.dtype}")
    for name, g, e in triples:
        if not _near(g, e, exercise.tolerance):
            return outcome(
                got, "value", f"the {name} {_verb(name, 'has')} the right shape, but wrong numbers"
            )
    return outcome(got)


@cache
def _parameters(fn: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(fn).parameters)


def _argument_names(exercise: Exercise) -> tuple[str, ...]:
    """Return the names of the arguments that the function must take."""
    return _parameters(exercise.oracle)


def _observe(
    exercise: Exercise, fn: Callable, case: Case, expected: tuple, seconds: float, before: dict[str, dict]
) -> _Outcome:
    """Try the student's function in one case; `before`: what libraries hold."""
    args = _copied(case.args)
    outcome = partial(_Outcome, case, expected, None)
    try:
        value = _isolated(lambda: _call_with_limit(lambda: exercise.run(fn, args), seconds))
    except _OutOfTime:
        return outcome("time", f"it did not return within {seconds:g} seconds: is there an endless loop?")
    except KeyboardInterrupt:  # from the person at the keyboard
        raise
    except BaseException as error:
        # PyTorch and einops also raise NotImplementedError, for what they lack.
        lacks = ("implemented for", "not yet supported")
        blank = isinstance(error, NotImplementedError) and not any(words in str(error) for words in lacks)
        return outcome("blank" if blank else "error", _describe_error(error, fn))
    finally:
        replaced = _restore_torch(before)
    if replaced:
        return outcome(
            "input", f"it replaces {replaced[0]} for all code; leave the functions of libraries as they are"
        )
    touched = [n for n, a, b in zip(_argument_names(exercise), case.args, args) if _changed(a, b)]
    if touched and not exercise.in_place:
        message = f"it changes its input {touched[0]}, which the caller still needs: work on new tensors"
        return outcome("input", message)
    try:
        return _compare(exercise, case, expected, value)
    except Exception as error:
        message = f"it returns {_describe(value)} that cannot be compared ({type(error).__name__})"
        return outcome("type", message)


def _relation(got: Tensor, expected: Tensor, tolerance: float) -> str:
    """Describe how wrong numbers are related to the right ones; empty if no relation is found."""
    coarse = torch.finfo(got.dtype).eps if got.is_floating_point() else 0
    dtype, got, expected = got.dtype, _numbers(got), _numbers(expected)
    close = max(tolerance, 1e-6)
    if not torch.isfinite(got).all():
        return "some of them are nan or infinite"
    if coarse > tolerance and _near(got, expected, 30 * coarse):
        return f"{_ROUNDED}: work in the type of the input, not in {dtype}"
    whole = torch.equal(got, got.round())  # no rounding makes one whole number of another
    if not whole and _near(got, expected, 2e-6):
        made = "is a step done in float32, as torch.tensor(0.1) and torch.ones(3) are?"
        return f"{_ROUNDED}: {made} Work in the type of the input"
    if not whole and _near(got, expected, 1e4 * tolerance) and _near(got, expected, 1e-4):
        return "they are almost right: is a step done in float32, or does a small constant differ?"
    if _near(got.flatten().sort()[0], expected.flatten().sort()[0], close):
        return "the right numbers are all there, but in the wrong places"
    if got.ndim > 1 and len(got) > 1 and _near(got[0], expected[0], close):
        return _FIRST_ONLY
    factor = ((got * expected).sum() / (expected * expected).sum().clamp(min=1e-300)).item()
    if expected.numel() > 2 and abs(factor) > 1e-6 and _near(got, factor * expected, close):
        return f"all of them are {factor:.4g} times what they should be"
    offset = (got - expected).mean().item()
    if expected.numel() > 2 and _near(got - offset, expected, close):
        return f"all of them are off by the same amount, {offset:.4g}"
    return ""
