"""Graders of lesson 22: the confidence interval of a paired difference, and which of many differences are clear."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_paired_interval", "check_clear_differences"]


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
        "The middle is the lower median of the differences, as torch.median gives it; asked is an interval for their mean.": lambda a, b, level: (
            _interval()(a, b, level) + (b - a).median() - (b - a).mean()
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
    half_results=(
        lambda results: torch.stack([results[0][0], results[0][1:].mean()]),
    ),  # where the interval lies
    probe=lambda fn, *args: _three_numbers(fn(*args)),
    reference=_interval(),
)


def check_paired_interval(fn: Callable, **grade_options) -> Report:
    """Check fn(first (n,), second (n,), level) -> mean of second - first, lower end, upper end."""
    return grade(_PAIRED_INTERVAL, fn, **grade_options)


def _clear_by_loops(baseline: Tensor, variants: Tensor, alpha: float) -> Tensor:
    """Compare each mean with the half width of its interval, whose level leaves out alpha / m."""
    half_level, found = 1 - alpha / len(variants), []
    for scores in variants:
        mean, low, high = _interval_by_loops(baseline, scores, half_level).tolist()
        found.append(1.0 if high < 0 else -1.0 if low > 0 else 0.0)
    return torch.tensor(found, dtype=torch.float64)


_ALPHA_UNUSED = "It is right for alpha = 0.05 only: `alpha` is given, but not used."


def _comparison_cases(rng: RandomInputs) -> list[Case]:
    """Differences whose p-values lie close to both sides of alpha / m, and of the limits of other tests.

    In each case some are clear, some likely, in both directions, and some unknown: few tests are right by chance.
    """
    cases, sizes = [], [(5, 0.05, 2.0, (0.02, 0.6, 0.93, 1.07, 1.5, 2.5, 10), "")]
    sizes += [(3, 0.05, 1.0, (0.1, 0.9, 1.2, 4.5, 40), "")]
    sizes += [(8, 0.2, 0.3, (0.1, 0.93, 1.04, 1.12, 1.9, 6.5, 20), _ALPHA_UNUSED)]
    many = (1e-4, 1e-3, 3e-3, 5e-3, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12)
    many += (0.18, 0.25, 0.35, 0.45, 0.65, 0.85, 1.15, 7, 12, 20, 100)
    sizes += [(4, 0.05, 0.6, many, ""), (6, 0.05, 0.01, (1e-6, 0.02, 0.3, 0.7, 0.95, 1.15, 2.5, 5, 20), "")]
    for n, alpha, shared, multiples, note in sizes:
        label = f"{len(multiples)} variants, {n} seeds, alpha {alpha:g}"
        cases.append(Case(label, (*_compared(rng, n, alpha, shared, multiples), alpha), note))
    return cases


def _compared(
    rng: RandomInputs, n: int, alpha: float, shared: float, multiples: tuple
) -> tuple[Tensor, Tensor]:
    """Baseline (n,) and variants (m, n) whose p-values are multiples of alpha / m; signs alternate."""
    from scipy.stats import t

    m, order = len(multiples), rng.uniform(0, 1, len(multiples)).argsort()
    ratios = torch.tensor(t.isf([alpha / m * multiple / 2 for multiple in multiples], n - 1))
    ratios = (rng.choice(-1, 1) * (-1.0) ** torch.arange(m) * ratios)[order]
    noise, spread = rng.normal(m, n), rng.uniform(0.1, 0.6, m, 1)
    noise = (noise - noise.mean(1, keepdim=True)) / noise.std(1, keepdim=True)
    baseline = 3 + shared * rng.normal(n)
    return baseline, baseline + spread * (noise + ratios[:, None] / n**0.5)


_ONE_VARIANT = (
    "It is right until there is a single variant, whose scores are (1, n): the result must be (1,)."
)


def _single_comparisons(rng: RandomInputs) -> list[Case]:
    """One variant, which is clearly better or worse."""
    scores = _compared(rng, 6, 0.05, 1.0, (0.7,))
    return [Case("1 variant, 6 seeds, alpha 0.05", (*scores, 0.05), _ONE_VARIANT)]


def _p_of(ratios: Tensor, df: float) -> Tensor:
    from scipy.stats import t

    return torch.tensor(2 * t.sf(ratios.abs().numpy(), df))


def _ratios(gaps: Tensor, axis: int = 1, correction: int = 1) -> Tensor:
    return gaps.mean(axis) / gaps.std(axis, correction=correction) * gaps.shape[axis] ** 0.5


def _of_ratios(change: Callable) -> Callable:
    """p-values of a paired t-test whose ratio of mean and error is another."""
    return lambda a, b: _p_of(change(b - a), len(a) - 1)


_paired_p = _of_ratios(_ratios)


def _p_of_two(baseline: Tensor, variants: Tensor, equal_var: bool) -> Tensor:
    from scipy.stats import ttest_ind

    return torch.tensor(
        ttest_ind(variants.numpy(), baseline[None].numpy(), axis=1, equal_var=equal_var).pvalue
    )


def _wilcoxon_p(baseline: Tensor, variants: Tensor) -> Tensor:
    from scipy.stats import wilcoxon

    return torch.tensor([float(wilcoxon(gaps).pvalue) for gaps in (variants - baseline).numpy()])


def _normal_p(baseline: Tensor, variants: Tensor) -> Tensor:
    from scipy.stats import norm

    return torch.tensor(2 * norm.sf(_ratios(variants - baseline).abs().numpy()))


def _ranked(limit: Callable, first_failure: bool) -> Callable:
    """Correction that compares the k-th smallest of m p-values, k from 0, with alpha times limit(k, m)."""

    def clear(p, n, alpha):
        values, order = p.sort()
        below = [float(v) < alpha * limit(k, len(p)) for k, v in enumerate(values)]
        count = [*below, False].index(False) if first_failure else len(p) - [*below[::-1], True].index(True)
        return torch.zeros(len(p), dtype=torch.bool).scatter(0, order[:count], True)

    return clear


def _below(limit: Callable) -> Callable:
    return lambda p, n, alpha: p < limit(alpha, len(p), n)


def _clear(
    p_values: Callable = _paired_p,
    clear: Callable = lambda p, n, alpha: p < alpha / len(p),
    result: Callable = lambda gaps: -gaps.mean(1).sign(),
) -> Callable:
    """Signs of clear differences with another test, limit or sign."""

    def clear_differences(baseline, variants, alpha):
        p = p_values(baseline, variants)
        return result(variants - baseline) * clear(p, len(baseline), alpha)

    return clear_differences


def _own_intervals(baseline: Tensor, variants: Tensor, alpha: float) -> Tensor:
    level, zero = 1 - alpha / len(variants), torch.zeros_like(baseline)
    one, *others = ([float(v) for v in _interval()(zero, x, level)] for x in (baseline, *variants))
    return torch.tensor([float(two[2] < one[1]) - float(two[1] > one[2]) for two in others]).double()


def _one_direction(sign: int, factor: float) -> Callable:
    """Only better (1) or worse (-1) variants are found, with another factor of the limit."""
    one_sided = _clear(clear=_below(lambda alpha, m, n: factor * alpha / m))
    return lambda *args: sign * (sign * one_sided(*args)).clamp(min=0)


def _results_of(fn: Callable, baseline: Tensor, variants: Tensor, alpha: float):
    """The result in float64; one number for each seed, of any test, becomes 0."""
    value = _three_numbers(fn(baseline, variants, alpha))
    if not isinstance(value, Tensor) or value.is_complex():
        return value
    per_seed = value.shape == baseline.shape != variants.shape[:1]
    return value.double() * 0 if per_seed else value.double()


_MANY_HINT = "lesson 22, 'How to read a difference': what clear means in a figure of m comparisons."

_CLEAR_DIFFERENCES = Exercise(
    "clear_differences",
    _clear_by_loops,
    _comparison_cases,
    {
        "Each comparison is tested at alpha, however many there are; of many, some are then clear by chance.": (
            _clear(clear=_below(lambda alpha, m, n: alpha)),
            _MANY_HINT,
        ),
        "It divides alpha by the number of seeds; the number of comparisons counts.": (
            _clear(clear=_below(lambda alpha, m, n: alpha / n)),
            _MANY_HINT,
        ),
        "The baseline is counted as a comparison, too; each variant is one comparison.": (
            _clear(clear=_below(lambda alpha, m, n: alpha / (m + 1))),
            _MANY_HINT,
        ),
        "It divides alpha by the number of all pairs; here each variant is compared with the baseline alone.": (
            _clear(clear=_below(lambda alpha, m, n: alpha / (m * (m + 1) / 2))),
            _MANY_HINT,
        ),
        "The correction goes the wrong way: with more comparisons the limit must become smaller.": (
            _clear(clear=_below(lambda alpha, m, n: alpha * m)),
            _MANY_HINT,
        ),
        "This is Holm's correction, which compares the smallest p-value first; asked is Bonferroni's.": (
            _clear(clear=_ranked(lambda k, m: 1 / (m - k), True)),
            _MANY_HINT,
        ),
        "This is the correction of Benjamini and Hochberg, for the share of false findings; asked is Bonferroni's.": (
            _clear(clear=_ranked(lambda k, m: (k + 1) / m, False)),
            _MANY_HINT,
        ),
        "This is Šidák's correction; asked is Bonferroni's, alpha divided by m.": (
            _clear(clear=_below(lambda alpha, m, n: 1 - (1 - alpha) ** (1 / m))),
            _MANY_HINT,
        ),
        "Better and worse are exchanged: these are distances, and the smaller one is better.": _clear(
            result=lambda gaps: gaps.mean(1).sign()
        ),
        "Clearly better and clearly worse get the same number; a worse variant gets -1.": _clear(
            result=lambda gaps: torch.ones(len(gaps)).double()
        ),
        "The differences lose their sign before they are averaged.": lambda a, b, alpha: _clear()(
            torch.zeros_like(a), (b - a).abs(), alpha
        ),
        "There is no test: each variant is called better or worse.": _clear(clear=lambda p, n, alpha: 1),
        "The mean differences are returned if they are clear; return 1 or -1.": _clear(
            result=lambda gaps: gaps.mean(1)
        ),
        "The p-values are returned; return -1, 0 or 1.": lambda a, b, alpha: _paired_p(a, b),
        "The test is one-sided; each variant may be better or worse, so both sides count.": _clear(
            clear=_below(lambda alpha, m, n: 2 * alpha / m)
        ),
        "The p-value is the normal distribution's; for few seeds it must be Student's t.": _clear(_normal_p),
        "The standard deviation divides by n; from few seeds it must divide by n - 1.": _clear(
            _of_ratios(lambda gaps: _ratios(gaps, correction=0))
        ),
        "All variants share one standard deviation; each difference has its own.": _clear(
            _of_ratios(lambda gaps: gaps.mean(1) / gaps.std() * gaps.shape[1] ** 0.5)
        ),
        "The test is for independent samples; seeds are paired, so test the differences.": _clear(
            lambda a, b: _p_of_two(a, b, True)
        ),
        "This is Welch's test, for independent samples; seeds are paired, so test the differences.": _clear(
            lambda a, b: _p_of_two(a, b, False)
        ),
        "This is Wilcoxon's signed-rank test; asked is the paired t-test.": _clear(_wilcoxon_p),
        "Alpha is halved for two sides, but the p-value holds both sides already.": _clear(
            clear=_below(lambda alpha, m, n: alpha / m / 2)
        ),
        "There are n degrees of freedom; the mean takes one of them.": _clear(
            lambda a, b: _p_of(_ratios(b - a), len(a))
        ),
        "The root of n is missing: the error of a mean falls with it.": _clear(
            _of_ratios(lambda gaps: _ratios(gaps) / gaps.shape[1] ** 0.5)
        ),
        "The spread is divided by n; the error of a mean falls with the root of n.": _clear(
            _of_ratios(lambda gaps: _ratios(gaps) * gaps.shape[1] ** 0.5)
        ),
        "One comparison too few is counted: alpha is divided by m - 1.": (
            _clear(clear=_below(lambda alpha, m, n: alpha / (m - 1))),
            _MANY_HINT,
        ),
        "A clearly worse variant is never found; it gets -1.": _one_direction(1, 1),
        "A clearly better variant is never found: does a ratio below 0 get a p-value above 1?": _one_direction(
            -1, 1
        ),
        "A clearly worse variant is never found, and the limit for better ones is one-sided.": _one_direction(
            1, 2
        ),
        "A clearly better variant is never found, and the limit for worse ones is one-sided.": _one_direction(
            -1, 2
        ),
        "A likely difference gets 0.5; only clear ones count.": _clear(
            clear=lambda p, n, alpha: ((p < alpha / len(p)).double() + (p < alpha)) / 2
        ),
        "The comparison is reversed: differences are called clear if their p-value lies above the limit.": _clear(
            clear=lambda p, n, alpha: p > alpha / len(p)
        ),
        "The variants are compared with their own mean; compare each with the baseline.": lambda a, b, alpha: (
            _clear()(b.mean(0), b, alpha)
        ),
        "The variants are compared with the mean of the baseline; subtract the score of the same seed.": _clear(
            lambda a, b: _paired_p(a.mean().expand(len(a)), b)
        ),
        "The intervals of both are compared, and clear means that they do not overlap; test the differences.": (
            _own_intervals
        ),
        "A variant is called better or worse if all seeds agree; how far they agree by chance depends on their number.": (
            _clear(
                lambda a, b: 1.0 - ((b - a).sign().mean(1).abs() == 1).double(), lambda p, n, alpha: p < 0.5
            )
        ),
        "The test runs over the variants, and gives a number for each seed; it must run over the seeds.": lambda a, b, alpha: (
            torch.zeros_like(a)
        ),
    },
    "lesson 22, 'How to read a difference'.",
    tolerance=1e-6,
    edge_cases=_single_comparisons,
    probe=_results_of,
    reference=_clear(),
)


def check_clear_differences(fn: Callable, **grade_options) -> Report:
    """Check fn(baseline (n,), variants (m, n), alpha) -> (m,): 1 clearly better, -1 clearly worse, 0 otherwise."""
    return grade(_CLEAR_DIFFERENCES, fn, **grade_options)
