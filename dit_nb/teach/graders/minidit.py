"""Grader of lesson 24: the largest relative difference of two tensors."""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_relative_difference"]

_NAN = -1e77  # stands for NaN in the cases: NaN differs from itself, so an input with it would look changed
_SMALL = 1e-6  # results below it are compared in units of 1e-9


def _with_nan(x: Tensor) -> Tensor:
    """Put NaN where a case has its stand-in; other tensors are returned as they are."""
    if x.dtype != torch.float64 or not (x == _NAN).any():
        return x
    return x.where(x != _NAN, math.nan)


def _one_number(fn: Callable, ours: Tensor, theirs: Tensor):
    """The function's result as a tensor without axes; what is not one number stays as it is."""
    result = fn(_with_nan(ours), _with_nan(theirs))
    if not isinstance(result, int | float) and hasattr(result, "item"):
        result = result.item() if math.prod(result.shape) == 1 else result
    if isinstance(result, bool) or not isinstance(result, int | float):
        return result
    return torch.tensor(result * 1e9 if abs(result) < _SMALL else result, dtype=torch.float64)


def _difference_by_loops(ours: Tensor, theirs: Tensor) -> float:
    if tuple(ours.shape) != tuple(theirs.shape):
        return math.inf
    gap, size = 0.0, 0.0
    for a, b in zip(ours.double().flatten().tolist(), theirs.double().flatten().tolist()):
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.inf
        gap, size = max(gap, abs(a - b)), max(size, abs(b))
    if size == 0:
        return math.inf if gap else 0.0
    return gap / size


_RIGHT_UNTIL = "It is right until"
_TYPES = (
    f"{_RIGHT_UNTIL} the tensors are not in float64: whole numbers wrap around, and short floats are rounded. "
    "Convert both before the subtraction."
)
_WHOLE = f"{_RIGHT_UNTIL} the tensors hold whole numbers: convert them to float64 before the subtraction."
_WRAPS = (
    f"{_RIGHT_UNTIL} the tensors are in uint8 or int8: their differences wrap around. Convert both tensors before the "
    "subtraction."
)
_BYTE = f"{_RIGHT_UNTIL} theirs holds -128 in int8: its absolute value does not fit into int8."
_SHORT = (
    f"{_RIGHT_UNTIL} the tensors are in bfloat16 or float16, which round the difference: convert them first."
)
_BFLOAT = f"{_RIGHT_UNTIL} the tensors are in bfloat16, which rounds the difference: convert them first."
_FLOAT32 = "The numbers are converted to float32; small differences, and tiny and huge numbers, need float64."
_TOLERANCE = (
    f"{_RIGHT_UNTIL} the difference is small: no tolerance, constant or rounding may change the ratio. The caller decides "
    "what is small enough."
)
_ABSOLUTE = (
    "There is an absolute tolerance: it hides every difference of tiny numbers, and small ones of others."
)
_EPSILON = (
    "A small constant in the denominator hides the differences of tiny numbers, and keeps the result from being "
    "infinite if theirs is zero everywhere."
)
_TINY = f"{_RIGHT_UNTIL} all numbers are tiny: they are not zero, and what counts is their ratio."
_HUGE = f"{_RIGHT_UNTIL} the numbers are huge: is something squared, or added up, on the way?"
_THEIRS_ZERO = f"{_RIGHT_UNTIL} theirs is zero everywhere and ours is not: that is an infinite difference."
_BOTH_ZERO = f"{_RIGHT_UNTIL} both are zero everywhere: then nothing differs, and the result is 0."
_ZEROS = "It is wrong if theirs is zero everywhere: 0 if ours is zero as well, infinity if it is not."
_OURS_ZERO = f"{_RIGHT_UNTIL} ours alone is zero everywhere: that is an ordinary difference."
_OURS_OR_BOTH = "It is wrong if ours is zero everywhere. The special case is that of theirs."
_EMPTY = f"{_RIGHT_UNTIL} both tensors are empty: nothing differs there, so the result is 0."
_SHAPES = f"{_RIGHT_UNTIL} the shapes differ: then the result is infinity, also if they could be broadcast."
_BROADCAST = (
    f"{_RIGHT_UNTIL} the shapes differ and can be broadcast: no error comes, and the result is a lie."
)
_COUNT = "Only the number of numbers is compared; the shapes must be equal."
_AXES = "Only the number of axes is compared; the shapes must be equal."
_FIRST_AXIS = f"{_RIGHT_UNTIL} the shapes are (3, 1) and (3, 4): the sizes of all axes must be equal."
_ONE_MORE = f"{_RIGHT_UNTIL} the shapes are (4,) and (1, 4): an axis of size 1 makes another shape."
_FLATTENED = f"{_RIGHT_UNTIL} the shapes differ and the tensors have equally many numbers."
_NOT_FINITE = "It is wrong if a number is NaN or infinite: then the result must be infinity, whatever the other numbers are."
_SLIPS = (
    f"{_RIGHT_UNTIL} a number is NaN or infinite: then the division gives NaN, and every comparison with NaN is "
    "false."
)
_NAN_ALONE = f"{_RIGHT_UNTIL} a number is NaN. It is neither smaller nor larger than any other, nor infinite."
_INF_ALONE = f"{_RIGHT_UNTIL} theirs holds an infinite number. NaN is not all that must be looked for."
_OURS_CHECKED = f"{_RIGHT_UNTIL} theirs holds NaN or infinity: only ours is looked at."
_THEIRS_CHECKED = f"{_RIGHT_UNTIL} ours holds NaN."
_BOTH_NEEDED = f"{_RIGHT_UNTIL} one of the tensors is not finite and the other one is: one of them is enough for infinity."
_THEIR_NAN = f"{_RIGHT_UNTIL} theirs holds NaN."
_THEIR_INF = f"{_RIGHT_UNTIL} theirs holds infinity: divided by it, each difference becomes 0 or NaN."
_OUR_INF = f"{_RIGHT_UNTIL} ours holds infinity."
_SAME_INF = f"{_RIGHT_UNTIL} both hold the same infinity: this is no agreement, the result must be infinity."
_SAME_NAN = (
    f"{_RIGHT_UNTIL} both hold NaN at the same place: this is no agreement, the result must be infinity."
)
_EQUAL = f"{_RIGHT_UNTIL} both hold the same numbers: then the result is 0."
_NO_AXES = f"{_RIGHT_UNTIL} the tensors have no axes: one number each."
_EMPTY_SHAPES = f"{_RIGHT_UNTIL} ours is empty and theirs is not: these are different shapes."
_MIXED = f"{_RIGHT_UNTIL} whole numbers above 2^24 meet float32, which rounds them: convert both to float64."
_INFINITE = (
    "It is wrong wherever the result must be infinity: positive infinity, neither NaN nor a large number."
)
_HALF = f"{_RIGHT_UNTIL} a difference is too large for float16."


def _pair(rng: RandomInputs, *shape: int, sign: int = 1, highest: float = 0.4) -> tuple[Tensor, Tensor]:
    """Ours, and theirs: the largest number, and the largest difference, have the sign -`sign`, at two places."""
    theirs = rng.uniform(-1, 1, *shape)
    ours = theirs + rng.uniform(-0.4, highest, *shape)
    theirs.view(-1)[5] = -rng.uniform(1.6, 2.0)
    ours.view(-1)[5] = theirs.view(-1)[5] + (0.3 if highest > 0 else -0.3)
    ours.view(-1)[-2] = theirs.view(-1)[-2] - rng.uniform(0.9, 1.9)
    return sign * ours, sign * theirs


def _number_cases(rng: RandomInputs) -> list[Case]:
    """Finite numbers of all sizes."""
    small = rng.uniform(-1, 1, 4, 3)
    near = small.clone()
    near[2, 1] += rng.uniform(3e-9, 6e-9)
    return [
        Case("shape (3, 4)", _pair(rng, 3, 4)),
        Case("shape (2, 3, 5)", _pair(rng, 2, 3, 5, sign=-1)),
        Case("almost equal, in units of 1e-9", (near, small), (_FLOAT32, _ABSOLUTE, _TOLERANCE)),
        Case(
            "numbers of about 1e-60",
            tuple(1e-60 * x for x in _pair(rng, 2, 4, highest=-0.1)),
            (_FLOAT32, _ABSOLUTE, _EPSILON, _TINY),
        ),
        Case(
            "numbers of about 1e200", tuple(1e200 * x for x in _pair(rng, 4, 2, sign=-1)), (_FLOAT32, _HUGE)
        ),
    ]


def _zero_cases(rng: RandomInputs) -> list[Case]:
    """One tensor zero everywhere, or both, or nothing in them."""
    x, zeros = rng.normal(3, 2), torch.zeros(3, 2, dtype=torch.float64)
    canceling = torch.cat([x, -x, 0 * x])
    return [
        Case("ours is zero everywhere", (zeros, x), (_OURS_ZERO, _OURS_OR_BOTH)),
        Case(
            "theirs is zero everywhere",
            (canceling, 0 * canceling),
            (_EPSILON, _THEIRS_ZERO, _ZEROS, _INFINITE),
        ),
        Case("both are zero everywhere", (zeros, zeros), (_BOTH_ZERO, _ZEROS, _OURS_OR_BOTH)),
        Case("both are empty", (zeros[:0], zeros[:0]), _EMPTY),
    ]


def _replaced(x: Tensor, value: float, place: int) -> Tensor:
    x = x.clone()
    x.view(-1)[place] = value
    return x


def _infinite_cases(rng: RandomInputs) -> list[Case]:
    """NaN and infinity, in one tensor or in both."""
    ours, theirs = _pair(rng, 2, 5)
    always = (_NOT_FINITE, _SLIPS, _INFINITE)
    same = _replaced(theirs, math.inf, 3)
    return [
        Case(
            "ours holds NaN",
            (_replaced(ours, _NAN, 6), theirs),
            (*always, _NAN_ALONE, _THEIRS_CHECKED, _BOTH_NEEDED),
        ),
        Case(
            "theirs holds NaN",
            (ours, _replaced(theirs, _NAN, 7)),
            (*always, _NAN_ALONE, _OURS_CHECKED, _BOTH_NEEDED, _THEIR_NAN),
        ),
        Case("ours holds -inf", (_replaced(ours, -math.inf, 4), theirs), (_NOT_FINITE, _OUR_INF, _INFINITE)),
        Case(
            "theirs holds -inf",
            (ours, _replaced(theirs, -math.inf, 2)),
            (*always, _INF_ALONE, _OURS_CHECKED, _BOTH_NEEDED, _THEIR_INF),
        ),
        Case("equal, with the same inf", (same, same), (*always, _INF_ALONE, _SAME_INF)),
    ]


def _shape_cases(rng: RandomInputs) -> list[Case]:
    """Shapes that differ, with numbers that would be equal if they were broadcast, or flattened."""
    column, row, flat = rng.normal(3, 1), rng.normal(4), rng.normal(12)
    return [
        Case(
            "shapes (3, 1) and (3, 4)",
            (column, column.repeat(1, 4)),
            (_SHAPES, _BROADCAST, _AXES, _FIRST_AXIS, _INFINITE),
        ),
        Case(
            "shapes (4,) and (1, 4)",
            (row, row[None].clone()),
            (_SHAPES, _BROADCAST, _COUNT, _ONE_MORE, _INFINITE),
        ),
        Case(
            "shapes (2, 6) and (3, 4)",
            (flat.view(2, 6).clone(), flat.view(3, 4).clone()),
            (_SHAPES, _COUNT, _AXES, _FLATTENED, _INFINITE),
        ),
    ]


def _difference_cases(rng: RandomInputs) -> list[Case]:
    """Ordinary numbers first, then all special inputs, then numbers of a random size."""
    cases = [*_number_cases(rng), *_zero_cases(rng), *_infinite_cases(rng), *_shape_cases(rng)]
    scale, shape = rng.choice(0.01, 30.0, 500.0), rng.choice((7, 3), (2, 2, 5), (13,))
    sign = rng.choice(-1, 1)
    return [*cases, Case(f"shape {shape}", tuple(scale * x for x in _pair(rng, *shape, sign=sign)))]


def _type_cases(rng: RandomInputs) -> list[Case]:
    """Whole numbers, and short floats."""
    small = rng.integers(100, 120, 4, 7)
    small[0, 1], small[1, 1] = 3, 250
    signed = rng.integers(-90, 90, 2, 5)
    signed[0, 3], signed[1, 3] = 101, -128
    large = torch.tensor([[2**24 + 1, 5, 7]], dtype=torch.int32)  # the first is rounded
    half = torch.tensor([[6e4, 1.0, 2.0], [3.0, 1.0, 0.0]], dtype=torch.float16)
    short = torch.tensor(
        [[300, 1.0, 0.5], [-1.0078125, 2.0, 0.5]], dtype=torch.bfloat16
    )  # 301.0078 is rounded
    return [
        Case("uint8", tuple(small.to(torch.uint8).view(2, 2, 7).unbind(1)), (_TYPES, _WHOLE, _WRAPS)),
        Case("int8", tuple(signed.to(torch.int8)), (_TYPES, _WHOLE, _WRAPS, _BYTE)),
        Case("int32 and float32, in units of 1e-9", (large, large.float()), (_TYPES, _WHOLE, _MIXED)),
        Case("bfloat16", tuple(short), (_TYPES, _SHORT, _BFLOAT)),
        Case("float16", (half, -half), (_TYPES, _SHORT, _HALF)),
    ]


def _rare_cases(rng: RandomInputs) -> list[Case]:
    """Other types, and special inputs that few answers miss."""
    x = rng.normal(2, 3)
    with_nan = _replaced(x, _NAN, 4)
    return [
        Case("equal numbers", (x, x.clone()), _EQUAL),
        Case("shape ()", (x[0, 0].clone(), x[1, 2].clone()), _NO_AXES),
        Case("equal, with the same NaN", (with_nan, with_nan.clone()), _SAME_NAN),
        Case("shapes (0, 3) and (1, 3)", (x[:0], x[:1].clone()), _EMPTY_SHAPES),
        *_type_cases(rng),
    ]


_PARTS = {
    "shapes": "different shapes",
    "finite": "NaN and infinity",
    "zeros": "tensors that are zero everywhere",
    "empty": "empty tensors",
}


def _largest_ratio(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).abs().max() / theirs.abs().max()


def _difference(
    formula: Callable = _largest_ratio,
    skipped: tuple[str, ...] = (),
    convert: Callable = Tensor.double,
    finite: Callable = lambda ours, theirs: bool(ours.isfinite().all() and theirs.isfinite().all()),
) -> Callable:
    """A formula for ordinary numbers, and the special inputs, some of them skipped."""

    def difference(ours, theirs):
        if "shapes" not in skipped and ours.shape != theirs.shape:
            return math.inf
        if "empty" not in skipped and not ours.numel():
            return 0.0
        ours, theirs = convert(ours), convert(theirs)
        if "finite" not in skipped and not finite(ours, theirs):
            return math.inf
        if "zeros" not in skipped and theirs.abs().max() == 0:
            return math.inf if ours.abs().max() > 0 else 0.0
        return formula(ours, theirs)

    return difference


def _root_mean_square(x: Tensor) -> Tensor:
    return x.double().square().mean().sqrt()


def _at_largest(ours: Tensor, theirs: Tensor) -> Tensor:
    gap = (ours - theirs).abs().flatten()
    return gap.max() / theirs.abs().flatten()[gap.argmax()]


def _without_infinite(ours: Tensor, theirs: Tensor) -> Tensor:
    kept = ours.isfinite() & theirs.isfinite()
    return _largest_ratio(ours[kept], theirs[kept])


_FORMULAS = {
    "It is divided by the largest number of ours; theirs is the reference.": lambda ours, theirs: (
        (ours - theirs).abs().max() / ours.abs().max()
    ),
    "It is divided by the largest number of either tensor; it should be that of theirs, the reference.": (
        lambda ours, theirs: (ours - theirs).abs().max() / torch.maximum(ours.abs().max(), theirs.abs().max())
    ),
    "It is divided by the mean size of ours and theirs; theirs alone is the reference.": lambda ours, theirs: (
        2 * (ours - theirs).abs().max() / (ours.abs().max() + theirs.abs().max())
    ),
    "It is divided by the sum of the largest numbers of both; theirs alone is the reference.": (
        lambda ours, theirs: (ours - theirs).abs().max() / (ours.abs().max() + theirs.abs().max())
    ),
    "This is the absolute difference; it must be divided by the largest number of theirs.": (
        lambda ours, theirs: (ours - theirs).abs().max()
    ),
    "It is divided by the mean of theirs; it should be its largest absolute value.": lambda ours, theirs: (
        (ours - theirs).abs().max() / theirs.double().abs().mean()
    ),
    "It is divided by the largest number of theirs with its sign; a large negative number counts as well.": (
        lambda ours, theirs: (ours - theirs).abs().max() / theirs.max()
    ),
    "It is divided by the range of theirs, largest minus smallest; it should be its largest absolute value.": (
        lambda ours, theirs: (ours - theirs).abs().max() / (theirs.max() - theirs.min())
    ),
    "It is divided by the standard deviation of theirs; it should be its largest absolute value.": (
        lambda ours, theirs: (ours - theirs).abs().max() / theirs.double().std()
    ),
    "It is divided by at least 1, so it is an absolute difference for small numbers.": lambda ours, theirs: (
        (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)
    ),
    "The differences keep their signs; where ours is smaller, the difference counts as well.": (
        lambda ours, theirs: (ours - theirs).max() / theirs.abs().max()
    ),
    "Neither the differences nor the numbers of theirs are made absolute: negative ones are never the largest.": (
        lambda ours, theirs: (ours - theirs).max() / theirs.max()
    ),
    "The absolute value is taken at the end; it must be taken of each difference, before the maximum.": (
        lambda ours, theirs: ((ours - theirs).max() / theirs.max()).abs()
    ),
    "The absolute value is taken of the largest difference; it must be taken of each, before the maximum.": (
        lambda ours, theirs: (ours - theirs).max().abs() / theirs.abs().max()
    ),
    "Absolute values are compared; a number and its negative differ.": lambda ours, theirs: (
        (ours.abs() - theirs.abs()).abs().max() / theirs.abs().max()
    ),
    "Only the largest numbers of both tensors are compared; each number must be compared with its partner.": (
        lambda ours, theirs: (ours.max() - theirs.max()).abs() / theirs.abs().max()
    ),
    "Only the largest absolute values of both tensors are compared; each number has a partner.": (
        lambda ours, theirs: (ours.abs().max() - theirs.abs().max()).abs() / theirs.abs().max()
    ),
    "Each difference is divided by its own number of theirs; all have one denominator, the largest.": (
        lambda ours, theirs: ((ours - theirs).abs() / theirs.abs()).max()
    ),
    "The largest difference is divided by the number at its own place; it should be the largest of theirs.": (
        _at_largest
    ),
    "The differences are averaged; the largest one counts. One wrong number among many hardly shows in a mean.": (
        lambda ours, theirs: (ours - theirs).double().abs().mean() / theirs.abs().max()
    ),
    "Means, or sums, are compared above and below; both should be the largest.": lambda ours, theirs: (
        (ours - theirs).double().abs().mean() / theirs.double().abs().mean()
    ),
    "The differences are added up; the largest one counts.": lambda ours, theirs: (
        (ours - theirs).abs().sum() / theirs.abs().max()
    ),
    "These are root mean squares, or norms; both should be the largest absolute value.": lambda ours, theirs: (
        _root_mean_square(ours - theirs) / _root_mean_square(theirs)
    ),
    "The numbers are squared and no root is taken.": lambda ours, theirs: (
        _largest_ratio(ours.double(), theirs.double()) ** 2
    ),
    "This is the smallest difference; the largest one counts.": lambda ours, theirs: (
        (ours - theirs).abs().min() / theirs.abs().max()
    ),
    "It is upside down: the difference belongs above the line.": lambda ours, theirs: (
        theirs.abs().max() / (ours - theirs).abs().max()
    ),
    "These are percent, 100 times the ratio.": lambda ours, theirs: 100 * _largest_ratio(ours, theirs),
    "There is one number for each index of the first axes; the maximum must run over all axes.": (
        lambda ours, theirs: (ours - theirs).abs().amax(-1) / theirs.abs().max()
    ),
    "The maximum runs over the first axis alone; it must run over all of them.": lambda ours, theirs: (
        (ours - theirs).abs().amax(0) / theirs.abs().max()
    ),
    "Only the first of the batch is compared; all of it counts.": lambda ours, theirs: (
        (ours - theirs)[0].abs().max() / theirs.abs().max()
    ),
}
_NONE_HANDLED = "The special inputs of the exercise are not handled either."


def _not_handled(skipped: tuple[str, ...]) -> str:
    """The message for a right formula without some of the special inputs."""
    return f"The formula is right for ordinary numbers. Not handled: {'; '.join(_PARTS[p] for p in skipped)}."


def _partial(*sizes: int) -> dict[str, Callable]:
    """Right formulas without some of the special inputs, by their messages."""
    found = [skipped for size in sizes for skipped in combinations(_PARTS, size)]
    return {_not_handled(skipped): _difference(skipped=skipped) for skipped in found}


_RELATIVE_DIFFERENCE = Exercise(
    "relative_difference",
    _difference_by_loops,
    _difference_cases,
    {message: _difference(formula) for message, formula in _FORMULAS.items()}
    | {
        f"{message} {_NONE_HANDLED}": _difference(formula, skipped=tuple(_PARTS))
        for message, formula in _FORMULAS.items()
    }
    | _partial(2, 3, 4)
    | {
        "The two tensors are exchanged: theirs is the reference.": lambda ours, theirs: _difference()(
            theirs, ours
        ),
        "NaN and infinity are replaced by finite numbers; they must make the result infinite.": _difference(
            convert=lambda x: x.double().nan_to_num()
        ),
        "A result that is NaN is replaced by 0: that reports agreement where a number is not finite.": _difference(
            lambda ours, theirs: _largest_ratio(ours, theirs).nan_to_num(), skipped=("finite",)
        ),
        "Numbers that are not finite are left out; they must make the result infinite.": _difference(
            _without_infinite, skipped=("finite",)
        ),
    },
    "lesson 24, 'Is it the DiT of the course?', and the list of special inputs in the exercise.",
    result_names=("relative difference",),
    tolerance=1e-6,
    edge_cases=_rare_cases,
    returns="one number, a float or a tensor that holds one",
    probe=_one_number,
    reference=_difference(),
)


def check_relative_difference(fn: Callable, **grade_options) -> Report:
    """Check fn(ours, theirs) -> largest absolute difference by the largest absolute value of theirs."""
    return grade(_RELATIVE_DIFFERENCE, fn, **grade_options)
