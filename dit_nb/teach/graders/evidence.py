"""Grader of lesson 22: the confidence interval of a paired difference."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_paired_interval"]


def _t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t by integrating its density and bisection; no library."""

    def central(q: float) -> float:  # integral of the density over (0, q), with q = sqrt(df) tan(angle)
        end, n = math.atan(q / math.sqrt(df)), 2000
        heights = [math.cos(end * i / n) ** (df - 1) for i in range(n + 1)]
        total = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        norm = math.gamma((df + 1) / 2) / (math.sqrt(math.pi) * math.gamma(df / 2))
        return norm * total * end / n / 3

    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if central(middle) < p - 0.5 else (low, middle)
    return low


def _interval_by_loops(first: Tensor, second: Tensor, level: float) -> Tensor:
    gaps = [after - before for before, after in zip(first.tolist(), second.tolist())]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    half = _t_quantile((1 + level) / 2, len(gaps) - 1) * math.sqrt(variance / len(gaps))
    return torch.tensor([mean, mean - half, mean + half], dtype=torch.float64)


def _three_numbers(value):
    """A tuple or array of numbers as one tensor; anything else as it is."""
    if isinstance(value, tuple | list) and all(
        isinstance(v, int | float | np.generic | Tensor) for v in value
    ):
        parts = [torch.as_tensor(v, dtype=torch.float64) for v in value]
        same = len({part.shape for part in parts}) == 1
        return torch.stack(parts) if same and parts else value
    return torch.as_tensor(value) if type(value) is np.ndarray else value


_LEVEL_UNUSED = "It is right for 95 % only: `level` is given, but not used."


def _score_cases(rng: RandomInputs) -> list[Case]:
    """Scores of two variants, seed by seed: few and many seeds, correlated or not, two levels."""
    cases, sizes = (
        [],
        [(5, 0.95, 1.0, ""), (3, 0.95, 0.0, ""), (8, 0.95, -2.0, ""), (4, 0.8, 1.0, _LEVEL_UNUSED)],
    )
    for n, level, shared, note in sizes:
        common = shared * rng.normal(n)
        scores = 3 + common + 0.4 * rng.normal(n), 2.2 + common + 0.6 * rng.normal(n)
        cases.append(Case(f"{n} seeds, level {level:g}", (*scores, level), note))
    return cases


def _quantile(level: float, df: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, df))


def _z(level: float, df: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def _of_differences(first: Tensor, second: Tensor) -> tuple[float, int]:
    gaps = second - first
    return float(gaps.std()) / len(gaps) ** 0.5, len(gaps) - 1


def _of_each(df: Callable) -> Callable:
    """Standard error from each variant's own spread, as if other seeds had been used."""

    def error(first, second):
        n, variances = len(first), [float(v.var()) for v in (first, second)]
        return (sum(variances) / n) ** 0.5, df(n, *variances)

    return error


def _welch_df(n: int, one: float, two: float) -> float:
    return (one + two) ** 2 * (n - 1) / (one**2 + two**2)


def _interval(
    quantile: Callable = _quantile,
    error: Callable = _of_differences,
    ends: Callable = lambda mean, half: (mean, mean - half, mean + half),
    gaps: Callable = lambda first, second: second - first,
) -> Callable:
    """Interval with another step in one place."""

    def interval(first, second, level):
        size, df = error(first, second)
        numbers = ends(float(gaps(first, second).mean()), quantile(level, df) * size)
        return torch.tensor(numbers, dtype=torch.float64)

    return interval


def _scaled(factor: Callable) -> Callable:
    """Standard error of the differences times a factor of n."""

    def error(first, second):
        size, df = _of_differences(first, second)
        return size * factor(len(first)), df

    return error


def _percentiles(first: Tensor, second: Tensor, level: float) -> Tensor:
    gaps = second - first
    ends = [gaps.quantile((1 + sign * level) / 2) for sign in (-1, 1)]
    return torch.stack([gaps.mean(), *ends])


_UNPAIRED = "The spread of each variant is used; seeds are paired, so the spread of the differences counts"
_QUANTILE_HINT = "lesson 22, 'How to read a difference': which quantile."

_PAIRED_INTERVAL = Exercise(
    "paired_interval",
    _interval_by_loops,
    _score_cases,
    {
        f"{_UNPAIRED} (2n - 2 degrees of freedom do not help).": _interval(
            error=_of_each(lambda n, *_: 2 * n - 2)
        ),
        f"{_UNPAIRED}.": _interval(error=_of_each(lambda n, *_: n - 1)),
        f"{_UNPAIRED} (this is Welch's interval, for independent samples).": _interval(
            error=_of_each(_welch_df)
        ),
        "The standard deviation divides by n; from few seeds it must divide by n - 1.": _interval(
            error=_scaled(lambda n: ((n - 1) / n) ** 0.5)
        ),
        "The quantile is the normal distribution's; for few seeds it must be Student's t.": (
            _interval(quantile=_z),
            _QUANTILE_HINT,
        ),
        "The half width is two standard errors; for few seeds it is more.": (
            _interval(quantile=lambda level, df: 2.0),
            _QUANTILE_HINT,
        ),
        "The half width is 1.96 standard errors at every level: the normal distribution's.": (
            _interval(quantile=lambda level, df: 1.96),
            _QUANTILE_HINT,
        ),
        "The half width is one standard error: there is no quantile in it.": (
            _interval(quantile=lambda level, df: 1.0),
            _QUANTILE_HINT,
        ),
        "The quantile leaves out all of 1 - level on one side; half of it belongs on each side.": (
            _interval(quantile=lambda level, df: _quantile(2 * level - 1, df)),
            _QUANTILE_HINT,
        ),
        "There are n degrees of freedom; the mean takes one of them.": (
            _interval(quantile=lambda level, df: _quantile(level, df + 1)),
            _QUANTILE_HINT,
        ),
        "The spread is divided by n; the error of a mean falls with the root of n.": _interval(
            error=_scaled(lambda n: n**-0.5)
        ),
        "The spread is not divided by the root of n: this would be for one more seed, not for the mean.": _interval(
            error=_scaled(lambda n: n**0.5)
        ),
        "The variance is used; take its root, the standard deviation.": _interval(
            error=lambda a, b: (float((b - a).var()) / len(a) ** 0.5, len(a) - 1)
        ),
        "The variance is divided by n, but its root is missing.": _interval(
            error=lambda a, b: (float((b - a).var()) / len(a), len(a) - 1)
        ),
        "The sign is the other way round: it must be second minus first.": _interval(
            gaps=lambda first, second: first - second
        ),
        "The differences lose their sign before they are averaged.": _interval(
            gaps=lambda first, second: (second - first).abs()
        ),
        "The ends lie around zero; the interval lies around the mean difference.": _interval(
            ends=lambda mean, half: (mean, -half, half)
        ),
        "The lower and the upper end are exchanged.": _interval(
            ends=lambda mean, half: (mean, mean + half, mean - half)
        ),
        "The half width is given instead of the two ends.": _interval(
            ends=lambda mean, half: (mean, half, half)
        ),
        "These are percentiles of the differences themselves; asked is an interval for their mean.": _percentiles,
        "These are the smallest and the largest difference; asked is an interval for their mean.": lambda a, b, level: (
            torch.stack([(b - a).mean(), (b - a).min(), (b - a).max()])
        ),
        "This is the second variant's own interval; the first is not subtracted.": lambda a, b, level: (
            _interval()(torch.zeros_like(b), b, level)
        ),
        "The spread divides by n - 1 twice: once in the standard deviation, and again in the error of the mean.": _interval(
            error=_scaled(lambda n: (n / (n - 1)) ** 0.5)
        ),
        "The middle is the median of the differences; asked is an interval for their mean.": lambda a, b, level: (
            _interval()(a, b, level) + (b - a).quantile(0.5) - (b - a).mean()
        ),
        "The first number is the median of the differences; the ends lie around their mean, and the mean is asked for.": lambda a, b, level: (
            torch.cat([(b - a).quantile(0.5)[None], _interval()(a, b, level)[1:]])
        ),
        "The quantile is taken at 1 - level / 2, as if level were the error that is allowed.": _interval(
            quantile=lambda level, df: _quantile(1 - level, df)
        ),
        "The quantile is the normal distribution's, and one-sided: two mistakes at once.": _interval(
            quantile=lambda level, df: _z(2 * level - 1, df)
        ),
        "The quantile is the normal distribution's, and the standard deviation divides by n: two mistakes at once.": _interval(
            quantile=_z, error=_scaled(lambda n: ((n - 1) / n) ** 0.5)
        ),
        "The degrees of freedom are those of two independent groups, 2n - 2; there are n differences.": _interval(
            quantile=lambda level, df: _quantile(level, 2 * df)
        ),
        "The spread is the second variant's alone; that of the differences counts.": _interval(
            error=lambda a, b: (float(b.std()) / len(b) ** 0.5, len(b) - 1)
        ),
        "The half width is halved: the two numbers given are a whole half width apart.": _interval(
            ends=lambda mean, half: (mean, mean - half / 2, mean + half / 2)
        ),
        "The half width is doubled.": _interval(
            ends=lambda mean, half: (mean, mean - 2 * half, mean + 2 * half)
        ),
    },
    "lesson 22, 'How to read a difference'.",
    tolerance=1e-6,
    probe=lambda fn, *args: _three_numbers(fn(*args)),
    reference=_interval(),
)


def check_paired_interval(fn: Callable, **grade_options) -> Report:
    """Check fn(first (n,), second (n,), level) -> mean of second - first, lower end, upper end."""
    return grade(_PAIRED_INTERVAL, fn, **grade_options)
