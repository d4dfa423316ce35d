"""One case: is what came back a tensor, of the right shape and type, with the right numbers?"""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.exercise import Case, Exercise
from dit_nb.teach.graders.framework.limits import (
    OutOfTime,
    apart,
    changed,
    inventory,
    limited,
    put_back,
    told,
)
from dit_nb.teach.graders.framework.report import Row


def numbers(a: Tensor) -> Tensor:
    "To compare with: on the CPU, in float64, without gradients."
    return (a.real if a.is_complex() else a).detach().cpu().double()


def mean_size(parts: tuple[Tensor, ...]) -> float:
    "The mean size of all numbers."
    return torch.cat([numbers(part).flatten().abs() for part in parts]).mean().item()


def distance(a: Tensor, b: Tensor) -> float:
    "The largest difference of two tensors of one shape; infinite where a number is missing."
    if not a.numel():
        return 0.0
    a, b = numbers(a), numbers(b)
    same = (a == b) | (a.isnan() & b.isnan())  # two equal infinities are no distance apart
    gap = torch.where(same, 0.0, (a - b).abs()).max().item()
    return gap if gap == gap else float("inf")


def near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    "Whether two tensors agree, in shape too, up to the tolerance."
    if a.shape != b.shape:
        return False
    sizes = numbers(b).abs()
    largest = torch.where(sizes.isfinite(), sizes, 0.0).max().item() if b.numel() else 0.0
    return distance(a, b) <= tolerance * max(1.0, largest)


STAGES = ("blank", "time", "error", "input", "type", "shape", "dtype", "value")


class Outcome(NamedTuple):
    "How the function did in one case."

    case: Case
    want: tuple[Tensor, ...]
    got: tuple | None = None  # None where it returned nothing that can be compared
    stage: str = ""  # what failed, one of STAGES; empty if all is right
    says: str = ""

    def row(self) -> Row:
        "A line of the table."
        size = mean_size(self.want)
        if self.got is None or self.stage in ("type", "shape"):
            return Row(self.case.label, size, None, None, not self.stage)
        gap = max(map(distance, self.got, self.want))
        return Row(self.case.label, size, mean_size(self.got), gap, not self.stage)


def as_parts(value) -> tuple:
    "A result, or several, as a tuple."
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def ordinary(part) -> Tensor | None:
    "The tensor as it is in memory, with no behaviour of its own; None if there are no plain numbers in it."
    with torch._C.DisableTorchFunctionSubclass():
        if not isinstance(part, Tensor) or part.layout != torch.strided:
            return None
        if part.device.type == "meta" or part.is_quantized:
            return None
        return part if type(part) is Tensor else part.detach().as_subclass(Tensor)


def described(value) -> str:
    "What a function returned instead of tensors."
    if value is None:
        return "nothing (is a return missing?)"
    kind = type(value).__name__
    if isinstance(value, tuple | list):
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        count = f"{len(value)} thing" + "s" * (len(value) != 1)
        comma = ": is there a comma too many?" if isinstance(value, tuple) and len(value) == 1 else ""
        return f"a {kind} of {count}" + f" ({kinds})" * bool(kinds) + comma
    known = {
        "ndarray": "a NumPy array (torch.from_numpy makes it a tensor)",
        "generator": "a generator (does yield stand where return belongs?)",
    }
    return known.get(kind, f"a{'n' * (kind[0] in 'aeiou')} {kind}")


def compare(exercise: Exercise, case: Case, want: tuple, value) -> Outcome:
    "Type, shape, dtype, numbers: the first that is wrong."
    outcome = partial(Outcome, case, want)
    got = tuple(map(ordinary, as_parts(value)))
    lonely = len(want) == 1 and isinstance(value, tuple | list)  # a comma too many
    if len(got) != len(want) or None in [None if g is None else 1 for g in got] or lonely:
        one = len(want) == 1 or exercise.probe is not None
        wanted = "a tensor" if one else f"{len(want)} tensors: {', '.join(exercise.parts)}"
        return outcome(None, "type", f"it must return {wanted}, but returns {described(value)}")
    trios = list(zip(exercise.parts, got, want))
    for part, g, w in trios:
        if g.shape != w.shape:
            return outcome(
                got, "shape", f"the {part} has shape {tuple(g.shape)}, but must have {tuple(w.shape)}"
            )
    for part, g, w in trios:
        kinds = [(x.is_floating_point(), x.is_complex()) for x in (g, w)]
        if g.dtype != w.dtype and (exercise.same_dtype or kinds[0] != kinds[1]):
            return outcome(got, "dtype", f"the {part} is {g.dtype}, but must be {w.dtype}")
    for part, g, w in trios:
        if not near(g, w, exercise.tolerance):
            return outcome(got, "value", f"the {part} has the right shape, but other numbers")
    return outcome(got)


def observe(
    exercise: Exercise,
    fn: Callable,  # the student's
    case: Case,
    want: tuple,  # what the oracle says
    seconds: float,  # for the call
) -> Outcome:
    "Try one case."
    args, before = apart(lambda: deepcopy(case.args)), inventory()
    outcome = partial(Outcome, case, want, None)
    try:
        value = apart(lambda: limited(lambda: exercise.run(fn, args), seconds))
    except OutOfTime:
        return outcome(
            "time", f"it did not come back within {seconds:g} seconds: is there a loop that never ends?"
        )
    except KeyboardInterrupt:  # that is for the person at the keyboard
        raise
    except BaseException as error:
        # PyTorch has a NotImplementedError of its own, for kernels that it lacks.
        blank = isinstance(error, NotImplementedError) and "implemented for" not in str(error)
        return outcome("blank" if blank else "error", told(error, fn))
    finally:
        replaced = put_back(before)
    if replaced:
        return outcome(
            "input", f"it changes {replaced[0]} for everybody; leave PyTorch's own functions as they are"
        )
    names = list(inspect.signature(exercise.oracle).parameters)
    touched = [name for name, a, b in zip(names, case.args, args) if changed(a, b)]
    if touched and not exercise.in_place:
        return outcome(
            "input",
            f"it changes its input {touched[0]}: whoever called it still needs that. Work on new tensors",
        )
    try:
        return compare(exercise, case, want, value)
    except Exception as error:
        return outcome(
            "type", f"it returns {described(value)} that cannot be compared ({type(error).__name__})"
        )


def diagnose(got: Tensor, want: Tensor, tolerance: float) -> str:
    "What wrong numbers have to do with the right ones, or nothing."
    coarse = torch.finfo(got.dtype).eps if got.is_floating_point() else 0
    dtype, got, want = got.dtype, numbers(got), numbers(want)
    close = max(tolerance, 1e-6)
    if not torch.isfinite(got).all():
        return "some of them are nan or infinite"
    if coarse > tolerance and near(got, want, 30 * coarse):
        return f"they are right but for rounding: work in the type of the input, not in {dtype}"
    if near(got, want, 1e4 * tolerance) and near(got, want, 1e-4):
        return "they are almost right: is a step done in float32, or is a small constant another one?"
    if near(got.flatten().sort()[0], want.flatten().sort()[0], close):
        return "all the right numbers are there, but in other places"
    if got.ndim > 1 and len(got) > 1 and near(got[0], want[0], close):
        return "the first of the batch is right and others are not: does each get its own coefficients?"
    factor = ((got * want).sum() / (want * want).sum().clamp(min=1e-300)).item()
    if want.numel() > 2 and abs(factor) > 1e-6 and near(got, factor * want, close):
        return f"all of them are {factor:.4g} times what they should be"
    offset = (got - want).mean().item()
    if want.numel() > 2 and near(got - offset, want, close):
        return f"all of them are off by the same amount, {offset:.4g}"
    return ""
