"""Answers to the exercise of lesson 24."""

import math
from itertools import combinations

import numpy as np
import torch

from . import right, wrong

# ---- relative_difference


@right("relative_difference")
def relative_difference_early_returns(ours, theirs):
    if ours.shape != theirs.shape:
        return math.inf
    if ours.numel() == 0:
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    if not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        return math.inf
    largest, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if size == 0:
        return 0.0 if largest == 0 else math.inf
    return largest / size


@right("relative_difference")
def relative_difference_nan_means_inf(ours, theirs):
    if tuple(ours.shape) != tuple(theirs.shape):
        return torch.tensor(float("inf"))
    a, b = ours.to(torch.float64), theirs.to(torch.float64)
    if torch.equal(a, b) and a.isfinite().all():
        return torch.zeros(1)
    return ((a - b).abs().amax() / b.abs().amax()).nan_to_num(nan=math.inf, posinf=math.inf)


@right("relative_difference")
def relative_difference_lists(ours, theirs):
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.flatten().tolist(), theirs.flatten().tolist()
    if not all(math.isfinite(number) for number in ours + theirs):
        return float("inf")
    largest = max([abs(a - b) for a, b in zip(ours, theirs)], default=0)
    if largest == 0:
        return 0
    size = max(abs(b) for b in theirs)
    return largest / size if size > 0 else float("inf")


@right("relative_difference")
def relative_difference_numpy(ours, theirs):
    if ours.size() != theirs.size():
        return np.inf
    ours, theirs = ours.double().numpy(), theirs.double().numpy()
    if not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return np.inf
    gap = np.abs(ours - theirs).max(initial=0)
    if gap == 0:
        return np.float64(0)
    with np.errstate(divide="ignore"):
        return gap / np.abs(theirs).max()


@right("relative_difference")
def relative_difference_scaled_first(ours, theirs):
    if ours.shape != theirs.shape or not torch.isfinite(torch.cat([ours.flatten(), theirs.flatten()])).all():
        return float("inf")
    if not ours.any() and not theirs.any():
        return 0.0
    if not theirs.any():
        return float("inf")
    size = torch.linalg.vector_norm(theirs.double(), ord=math.inf)
    return torch.linalg.vector_norm(ours.double() / size - theirs.double() / size, ord=math.inf)


def _ready(ours, theirs):
    """What a careful student returns before any formula; None if the formula is needed."""
    if ours.shape != theirs.shape:
        return math.inf
    if ours.numel() == 0:
        return 0.0
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return math.inf
    if not theirs.any():
        return math.inf if ours.any() else 0.0
    return None


def _wrong_formula(words):
    """Register a wrong formula twice: after all special inputs are handled, and alone."""

    def keep(formula):
        def careful(ours, theirs):
            special = _ready(ours, theirs)
            return formula(ours.double(), theirs.double()) if special is None else special

        careful.__name__ = f"{formula.__name__}_careful"
        wrong("relative_difference", words)(careful)
        return wrong("relative_difference", "inputs of the exercise are not handled either")(formula)

    return keep


@_wrong_formula("largest number of ours")
def relative_difference_by_ours(ours, theirs):
    return (ours - theirs).abs().max() / ours.abs().max()


@_wrong_formula("largest number of either")
def relative_difference_by_larger(ours, theirs):
    return (ours - theirs).abs().max() / max(ours.abs().max(), theirs.abs().max())


@_wrong_formula("mean size of ours and theirs")
def relative_difference_symmetric(ours, theirs):
    return (ours - theirs).abs().max() / (0.5 * (ours.abs().max() + theirs.abs().max()))


@_wrong_formula("sum of the largest numbers")
def relative_difference_by_sum(ours, theirs):
    return (ours - theirs).abs().max() / (ours.abs().max() + theirs.abs().max())


@_wrong_formula("absolute difference; it must be divided")
def relative_difference_absolute(ours, theirs):
    return torch.max(torch.abs(ours - theirs))


@_wrong_formula("divided by the mean of theirs")
def relative_difference_by_mean(ours, theirs):
    return (ours - theirs).abs().max() / theirs.abs().double().mean()


@_wrong_formula("with its sign")
def relative_difference_by_signed(ours, theirs):
    return (ours - theirs).abs().max() / theirs.max()


@_wrong_formula("range of theirs")
def relative_difference_by_range(ours, theirs):
    return (ours - theirs).abs().max() / (theirs.max() - theirs.min())


@_wrong_formula("standard deviation")
def relative_difference_by_std(ours, theirs):
    return (ours - theirs).abs().max() / theirs.double().std()


@_wrong_formula("at least 1")
def relative_difference_at_least_one(ours, theirs):
    return (ours - theirs).abs().max() / max(theirs.abs().max(), 1)


@_wrong_formula("keep their signs")
def relative_difference_signed(ours, theirs):
    return (ours - theirs).max() / theirs.abs().max()


@_wrong_formula("Neither the differences nor")
def relative_difference_no_abs(ours, theirs):
    return (ours - theirs).max() / theirs.max()


@_wrong_formula("taken at the end")
def relative_difference_abs_last(ours, theirs):
    return torch.abs((ours - theirs).max() / theirs.max())


@_wrong_formula("taken of the largest difference")
def relative_difference_abs_after_max(ours, theirs):
    return (ours - theirs).max().abs() / theirs.abs().max()


@_wrong_formula("Absolute values are compared")
def relative_difference_of_magnitudes(ours, theirs):
    return (ours.abs() - theirs.abs()).abs().max() / theirs.abs().max()


@_wrong_formula("Only the largest numbers of both")
def relative_difference_extremes(ours, theirs):
    return abs(ours.max() - theirs.max()) / theirs.abs().max()


@_wrong_formula("Only the largest absolute values of both")
def relative_difference_magnitude_extremes(ours, theirs):
    return abs(ours.abs().max() - theirs.abs().max()) / theirs.abs().max()


@_wrong_formula("by its own number")
def relative_difference_number_by_number(ours, theirs):
    return torch.max((ours - theirs).abs() / theirs.abs())


@_wrong_formula("at its own place")
def relative_difference_at_the_place(ours, theirs):
    gap = (ours - theirs).abs().flatten()
    return gap.max() / theirs.flatten()[gap.argmax()].abs()


@_wrong_formula("averaged")
def relative_difference_mean(ours, theirs):
    return (ours - theirs).double().abs().mean() / theirs.abs().max()


@_wrong_formula("above and below")
def relative_difference_means(ours, theirs):
    return (ours - theirs).double().abs().mean() / theirs.double().abs().mean()


@_wrong_formula("added up")
def relative_difference_sum(ours, theirs):
    return (ours - theirs).abs().sum() / theirs.abs().max()


@_wrong_formula("root mean squares")
def relative_difference_norms(ours, theirs):
    return torch.sqrt(((ours - theirs).double() ** 2).mean()) / torch.sqrt((theirs.double() ** 2).mean())


@_wrong_formula("no root is taken")
def relative_difference_squared(ours, theirs):
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).square()


@_wrong_formula("smallest difference")
def relative_difference_smallest(ours, theirs):
    return (ours - theirs).abs().min() / theirs.abs().max()


@_wrong_formula("upside down")
def relative_difference_upside_down(ours, theirs):
    return theirs.abs().max() / (ours - theirs).abs().max()


@_wrong_formula("percent")
def relative_difference_percent(ours, theirs):
    return 100 * ((ours - theirs).abs().max() / theirs.abs().max())


@_wrong_formula("each index of the first axes")
def relative_difference_last_axis(ours, theirs):
    return (ours - theirs).abs().max(dim=-1).values / theirs.abs().max()


@_wrong_formula("first axis alone")
def relative_difference_first_axis(ours, theirs):
    return (ours - theirs).abs().amax(dim=0) / theirs.abs().max()


@_wrong_formula("first of the batch is compared")
def relative_difference_first_image(ours, theirs):
    return (ours - theirs)[0].abs().max() / theirs.abs().max()


def _without(*missing):
    """The right formula of a student who has not thought of some special inputs."""

    def relative_difference(ours, theirs):
        if "shapes" not in missing and ours.shape != theirs.shape:
            return float("inf")
        if "empty" not in missing and len(ours.flatten()) == 0:
            return 0.0
        if "types" not in missing:
            ours, theirs = ours.double(), theirs.double()
        if "finite" not in missing and not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
            return float("inf")
        largest, size = (ours - theirs).abs().max(), theirs.abs().max()
        if "zeros" not in missing and size == 0:
            return 0.0 if largest == 0 else float("inf")
        return (largest / size).item()

    relative_difference.__name__ = "relative_difference_without_" + "_".join(missing)
    return relative_difference


_MISSED = {
    "shapes": "different shapes",
    "finite": "NaN and infinity",
    "zeros": "tensors that are zero everywhere",
    "empty": "empty tensors",
}
for _count in (2, 3, 4):
    for _missing in combinations(_MISSED, _count):
        wrong("relative_difference", "; ".join(_MISSED[part] for part in _missing))(_without(*_missing))

for _part, _words in {
    "shapes": "the result is infinity, also if they could be broadcast",
    "finite": "every comparison with NaN is false",
    "zeros": "both are zero everywhere: then nothing differs",
    "empty": "both tensors are empty",
    "types": "short floats are rounded",
}.items():
    wrong("relative_difference", _words)(_without(_part))


def _careful(ours, theirs, formula):
    special = _ready(ours, theirs)
    return formula(ours.double(), theirs.double()) if special is None else special


def _ratio(ours, theirs):
    return (ours - theirs).abs().max() / theirs.abs().max()


def _with_zeros(ours, theirs):
    if not theirs.any():
        return float("inf") if ours.any() else 0.0
    return _ratio(ours.double(), theirs.double())


@wrong("relative_difference", "small constant in the denominator")
def relative_difference_epsilon(ours, theirs):
    if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    return (ours - theirs).abs().max() / (theirs.abs().max() + 1e-12)


@wrong("relative_difference", "small constant in the denominator")
def relative_difference_clamped(ours, theirs):
    if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    return (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)


@wrong("relative_difference", "all numbers are tiny")
def relative_difference_almost_zero(ours, theirs):
    def formula(ours, theirs):
        return 0.0 if theirs.abs().max() < 1e-12 else _ratio(ours, theirs)

    return _careful(ours, theirs, formula)


@wrong("relative_difference", "an absolute tolerance")
def relative_difference_allclose(ours, theirs):
    def formula(ours, theirs):
        return 0.0 if torch.allclose(ours, theirs) else _ratio(ours, theirs)

    return _careful(ours, theirs, formula)


@wrong("relative_difference", "what is small enough")
def relative_difference_tolerance(ours, theirs):
    def formula(ours, theirs):
        result = _ratio(ours, theirs)
        return 0.0 if result < 1e-7 else result

    return _careful(ours, theirs, formula)


@wrong("relative_difference", "converted to float32")
def relative_difference_float32(ours, theirs):
    special = _ready(ours, theirs)
    return _ratio(ours.float(), theirs.float()) if special is None else special


@wrong("relative_difference", "numbers are huge")
def relative_difference_root_of_squares(ours, theirs):
    def formula(ours, theirs):
        return (ours - theirs).square().max().sqrt() / theirs.square().max().sqrt()

    return _careful(ours, theirs, lambda a, b: _ratio(a, b) if b.abs().max() < 1e-9 else formula(a, b))


@wrong("relative_difference", "hold whole numbers")
def relative_difference_floats_converted(ours, theirs):
    special = _ready(ours, theirs)
    if special is not None:
        return special
    if ours.dtype == torch.bfloat16 or ours.dtype == torch.float16:
        ours, theirs = ours.double(), theirs.double()
    return _ratio(ours, theirs)


@wrong("relative_difference", "in bfloat16")
def relative_difference_whole_converted(ours, theirs):
    special = _ready(ours, theirs)
    if special is not None:
        return special
    if not ours.is_floating_point():
        ours, theirs = ours.double(), theirs.double()
    return _ratio(ours, theirs)


@wrong("relative_difference", "-128 in int8")
def relative_difference_ours_converted(ours, theirs):
    special = _ready(ours, theirs)
    return _ratio(ours.double(), theirs) if special is None else special


@wrong("relative_difference", "short floats are rounded")
def relative_difference_converted_late(ours, theirs):
    special = _ready(ours, theirs)
    if special is not None:
        return special
    return (ours - theirs).double().abs().max() / theirs.double().abs().max()


@wrong("relative_difference", "theirs is zero everywhere and ours is not")
def relative_difference_zero_for_theirs_zero(ours, theirs):
    if ours.shape == theirs.shape and not theirs.any():
        return 0.0
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "theirs is zero everywhere and ours is not")
def relative_difference_canceling(ours, theirs):
    if ours.shape == theirs.shape and theirs.sum() == 0 and ours.sum() == 0 and not theirs.any():
        return 0.0
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "both are zero everywhere")
def relative_difference_inf_for_theirs_zero(ours, theirs):
    if ours.numel() and not theirs.any():
        return float("inf")
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "0 if ours is zero as well")
def relative_difference_one_for_theirs_zero(ours, theirs):
    if ours.numel() and not theirs.any():
        return 1.0
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "ours alone is zero everywhere")
def relative_difference_zero_for_ours_zero(ours, theirs):
    if ours.shape == theirs.shape and not ours.any():
        return 0.0
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "special case is that of theirs")
def relative_difference_inf_for_ours_zero(ours, theirs):
    if ours.numel() and not ours.any():
        return float("inf")
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "both tensors are empty")
def relative_difference_inf_for_empty(ours, theirs):
    return _careful(ours, theirs, _ratio) if ours.numel() else float("inf")


@wrong("relative_difference", "no error comes")
def relative_difference_until_error(ours, theirs):
    try:
        ours, theirs = torch.broadcast_tensors(ours, theirs)
    except RuntimeError:
        return float("inf")
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "Only the number of numbers")
def relative_difference_numel(ours, theirs):
    if ours.numel() != theirs.numel():
        return float("inf")
    return _careful(ours.flatten(), theirs.flatten(), _ratio)


@wrong("relative_difference", "Only the number of axes")
def relative_difference_ndim(ours, theirs):
    if ours.ndim != theirs.ndim:
        return float("inf")
    special = _ready(ours, theirs) if ours.shape == theirs.shape else None
    return _ratio(ours.double(), theirs.double()) if special is None else special


@wrong("relative_difference", "sizes of all axes")
def relative_difference_len(ours, theirs):
    if ours.shape == theirs.shape:
        return _careful(ours, theirs, _ratio)
    return float("inf") if len(ours) != len(theirs) else _ratio(ours, theirs)


@wrong("relative_difference", "an axis of size 1 makes another shape")
def relative_difference_squeezed(ours, theirs):
    return _careful(ours.squeeze(), theirs.squeeze(), _ratio)


@wrong("relative_difference", "NaN or infinite: then the result must be infinity")
def relative_difference_nan_for_bad(ours, theirs):
    if ours.shape == theirs.shape and not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("nan")
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "neither smaller nor larger")
def relative_difference_isinf(ours, theirs):
    if ours.shape != theirs.shape or ours.isinf().any() or theirs.isinf().any():
        return float("inf")
    return _with_zeros(ours, theirs)


@wrong("relative_difference", "NaN is not all")
def relative_difference_isnan(ours, theirs):
    if ours.shape != theirs.shape or ours.isnan().any() or theirs.isnan().any():
        return float("inf")
    return _with_zeros(ours, theirs)


@wrong("relative_difference", "only ours is looked at")
def relative_difference_ours_finite(ours, theirs):
    if ours.shape != theirs.shape or not ours.isfinite().all():
        return float("inf")
    return _with_zeros(ours, theirs)


@wrong("relative_difference", "ours holds NaN")
def relative_difference_theirs_finite(ours, theirs):
    if ours.shape != theirs.shape or not theirs.isfinite().all():
        return float("inf")
    return _with_zeros(ours, theirs)


@wrong("relative_difference", "one of them is enough")
def relative_difference_or(ours, theirs):
    if ours.shape != theirs.shape or not (ours.isfinite().all() or theirs.isfinite().all()):
        return float("inf")
    return _with_zeros(ours, theirs)


@wrong("relative_difference", "hold the same infinity")
def relative_difference_equal_first(ours, theirs):
    return 0.0 if torch.equal(ours, theirs) else _careful(ours, theirs, _ratio)


@wrong("relative_difference", "same place: this is no agreement")
def relative_difference_same_nan(ours, theirs):
    if ours.shape == theirs.shape and np.array_equal(ours.double(), theirs.double(), equal_nan=True):
        return 0.0 if not ours.isinf().any() else float("inf")
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "replaced by finite numbers")
def relative_difference_nan_to_num(ours, theirs):
    if ours.shape == theirs.shape:
        ours, theirs = torch.nan_to_num(ours), torch.nan_to_num(theirs)
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "A result that is NaN is replaced by 0")
def relative_difference_result_nan_to_num(ours, theirs):
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    if not theirs.any():
        return float("inf") if ours.any() else 0.0
    return torch.nan_to_num(_ratio(ours.double(), theirs.double()))


@wrong("relative_difference", "are left out")
def relative_difference_mask(ours, theirs):
    if ours.shape == theirs.shape:
        good = torch.isfinite(ours) & torch.isfinite(theirs)
        ours, theirs = ours[good], theirs[good]
    return _careful(ours, theirs, _ratio)


@wrong("relative_difference", "returns a bool")
def relative_difference_bool(ours, theirs):
    return ours.shape == theirs.shape and torch.allclose(ours, theirs)


@wrong("relative_difference", "returns nothing")
def relative_difference_prints(ours, theirs):
    print(_careful(ours, theirs, _ratio))


@wrong("relative_difference", "changes its input ours")
def relative_difference_in_place(ours, theirs):
    special = _ready(ours, theirs)
    if special is not None:
        return special
    size = theirs.double().abs().max()
    ours -= theirs
    return ours.abs().double().max() / size


@wrong("relative_difference", "ours is empty and theirs is not")
def relative_difference_empty_first(ours, theirs):
    return 0.0 if ours.numel() == 0 else _careful(ours, theirs, _ratio)


@wrong("relative_difference", "tensors have no axes")
def relative_difference_rows(ours, theirs):
    def formula(ours, theirs):
        return max((a - b).abs().max() for a, b in zip(ours, theirs)) / theirs.abs().max()

    return _careful(ours, theirs, formula)


@wrong("relative_difference", "are exchanged")
def relative_difference_exchanged(ours, theirs):
    return _careful(theirs, ours, _ratio)


@wrong("relative_difference", "positive infinity, neither NaN")
def relative_difference_nan_for_inf(ours, theirs):
    result = _careful(ours, theirs, _ratio)
    return float("nan") if result == math.inf else result


@wrong("relative_difference", "no tolerance, constant or rounding")
def relative_difference_constant_added(ours, theirs):
    return _careful(ours, theirs, lambda a, b: _ratio(a, b) + 1e-8)
