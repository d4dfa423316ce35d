"""Graders of lesson 21: the Fréchet distance of two sets of features, and its value at another count."""

import math
import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_frechet", "check_distance_at"]


def _frechet_by_singular_values(a: Tensor, b: Tensor) -> Tensor:
    """The distance without any covariance: its last trace is the sum of singular values of A Bᵀ."""
    rows = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    gap = sum((one - other) ** 2 for one, other in zip(a.mean(0).tolist(), b.mean(0).tolist()))
    spread = sum(float((x**2).sum()) for x in rows)
    return a.new_tensor(gap + spread - 2 * float(torch.linalg.svdvals(rows[0] @ rows[1].T).sum()))


def _number(value):
    """A Python or NumPy number as a tensor; anything else as it is."""
    if isinstance(value, int | float | complex | np.generic) or type(value) is np.ndarray:
        return torch.as_tensor(np.asarray(value))
    return value


_SINGULAR = (
    "It is right until there are fewer images than features: eigenvalues of a covariance that should be 0 then come "
    "out slightly negative. They have no real root, and no Cholesky factor."
)


def _feature_cases(rng: RandomInputs) -> list[Case]:
    """Correlated features, equal and different counts, and fewer images than features."""
    cases, sizes = [], [(30, 20, 3, ""), (25, 25, 2, ""), (12, 15, 2, "")]
    sizes += [(rng.choice(40, 50), 30, 4, ""), (5, 6, 8, _SINGULAR)]
    for n, m, f, note in sizes:
        a, b = (rng.normal(k, f) @ rng.normal(f, f) for k in (n, m))
        cases.append(Case(f"{n} and {m} images, {f} features", (a, b + rng.normal(f)), note))
    return cases


def _symmetric_root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.mT


def _root_trace(a: Tensor, b: Tensor) -> Tensor:
    root = _symmetric_root(a)
    return torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()


def _unclipped_root_trace(a: Tensor, b: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.sqrt() @ vectors.mT
    return torch.linalg.eigvalsh(root @ b @ root).sqrt().sum()


def _cov(x: Tensor, correction: int = 1) -> Tensor:
    return torch.atleast_2d(torch.cov(x.T, correction=correction))


def _cov_of_images(x: Tensor) -> Tensor:
    rows = x - x.mean(1, keepdim=True)
    return rows @ rows.T / torch.tensor(x.shape[1] - 1)


def _squared(gap: Tensor) -> Tensor:
    return (gap**2).sum()


def _frechet(
    cov: Callable = _cov,
    root_trace: Callable = _root_trace,
    factor: float = 2,
    length: Callable = _squared,
    mean: Callable = lambda x: x.mean(0),
) -> Callable:
    """Fréchet distance with another term in one place."""

    def distance(a, b):
        one, two = cov(a), cov(b)
        return length(mean(a) - mean(b)) + one.trace() + two.trace() - factor * root_trace(one, two)

    return distance


_ROOT_HINT = "lesson 21, 'From lines to ellipses': which matrix is symmetric."

_FRECHET = Exercise(
    "frechet",
    _frechet_by_singular_values,
    _feature_cases,
    {
        "The root is taken of each entry; the matrix needs a root whose square is the matrix.": (
            _frechet(root_trace=lambda a, b: (a @ b).sqrt().trace()),
            _ROOT_HINT,
        ),
        "The root is taken of each entry, with negative ones set to 0; the matrix needs a root of its own.": (
            _frechet(root_trace=lambda a, b: (a @ b).clamp(min=0).sqrt().trace()),
            _ROOT_HINT,
        ),
        "The factor 2 in front of the root is missing: a set would be far from itself.": _frechet(factor=1),
        "The root's trace is added; it must be subtracted.": _frechet(factor=-2),
        "There is no root: the product of the covariances is used as it is.": _frechet(
            root_trace=lambda a, b: (a @ b).trace()
        ),
        "The covariances are of the images, not of the features: the library takes rows as variables.": (
            _frechet(cov=_cov_of_images),
            "which axis torch.cov and np.cov take as variables.",
        ),
        "Only the standard deviation of each feature is compared; a mirrored set would be at distance 0.": (
            _frechet(root_trace=lambda a, b: (a.diag() * b.diag()).sqrt().sum()),
            "lesson 21, 'From lines to ellipses'.",
        ),
        "Only eigenvalues are compared; a turned or mirrored set would be at distance 0.": (
            _frechet(
                root_trace=lambda a, b: (
                    (torch.linalg.eigvalsh(a).clamp(min=0) * torch.linalg.eigvalsh(b).clamp(min=0))
                    .sqrt()
                    .sum()
                )
            ),
            "lesson 21, 'From lines to ellipses'.",
        ),
        "Each covariance gets a root of its own, and the roots are multiplied; "
        "the root of the product is another matrix.": (
            _frechet(root_trace=lambda a, b: (_symmetric_root(a) @ _symmetric_root(b)).trace()),
            _ROOT_HINT,
        ),
        "The eigenvalues are those of a symmetric matrix, but a product of covariances is not symmetric: "
        "half of it is ignored.": (
            _frechet(root_trace=lambda a, b: torch.linalg.eigvalsh(a @ b).clamp(min=0).sqrt().sum()),
            _ROOT_HINT,
        ),
        "The eigenvalues are those of a symmetric matrix, but a product of covariances is not symmetric: "
        "some come out negative.": (
            _frechet(root_trace=lambda a, b: torch.linalg.eigvalsh(a @ b).sqrt().sum()),
            _ROOT_HINT,
        ),
        "The covariances divide by N; np.cov, torch.cov and this exercise divide by N - 1.": _frechet(
            cov=lambda x: _cov(x, 0)
        ),
        "The features are not centered: these are second moments, not covariances.": _frechet(
            cov=lambda x: x.T @ x / (len(x) - 1)
        ),
        "The result is the distance itself; FID, and this exercise, are its square.": lambda a, b: (
            _frechet()(a, b).clamp(min=0).sqrt()
        ),
        "The difference of the means is averaged over the features; its squares are summed.": _frechet(
            length=lambda gap: (gap**2).mean()
        ),
        "The length of the difference of the means is not squared.": _frechet(length=lambda gap: gap.norm()),
        "The term of the means is missing: a shifted set would be at distance 0.": _frechet(
            length=lambda gap: 0
        ),
        "Only the means are compared; the covariances are missing.": lambda a, b: _squared(
            a.mean(0) - b.mean(0)
        ),
        _SINGULAR: _frechet(root_trace=_unclipped_root_trace),
        "There is one mean for all features; each feature needs its own.": _frechet(mean=lambda x: x.mean()),
        "The root is taken of each entry, with negative ones made positive; the matrix needs a root of its own.": (
            _frechet(root_trace=lambda a, b: (a @ b).abs().sqrt().trace()),
            _ROOT_HINT,
        ),
        "The covariances are multiplied entry by entry; the formula has the product of two matrices.": (
            _frechet(root_trace=lambda a, b: torch.linalg.eigvalsh(a * b).clamp(min=0).sqrt().sum()),
            "lesson 21, 'From lines to ellipses'.",
        ),
        "The root is taken of the trace; it must be the trace of a root.": (
            _frechet(root_trace=lambda a, b: (a @ b).trace().clamp(min=0).sqrt()),
            _ROOT_HINT,
        ),
        "The root is taken of the product of two traces; it must be the trace of a root.": (
            _frechet(root_trace=lambda a, b: (a.trace() * b.trace()).sqrt()),
            _ROOT_HINT,
        ),
        "The absolute differences of the means are added up; their squares should be.": _frechet(
            length=lambda gap: gap.abs().sum()
        ),
        "All entries of the covariances are added up; a trace is the sum of the diagonal.": lambda a, b: (
            _frechet()(a, b) + sum(c.sum() - c.trace() for c in (_cov(a), _cov(b)))
        ),
        "The root is that of the sum of the covariances; it must be that of their product.": _frechet(
            root_trace=lambda a, b: _symmetric_root(a + b).trace()
        ),
        "The root is that of the mean of the covariances; it must be that of their product.": _frechet(
            root_trace=lambda a, b: _symmetric_root((a + b) / 2).trace()
        ),
        "Two traces are multiplied; it must be the trace of a root of the product.": _frechet(
            root_trace=lambda a, b: a.trace() * b.trace()
        ),
        "The size of the product stands where its root's trace belongs.": _frechet(
            root_trace=lambda a, b: (a @ b).norm()
        ),
        "The term with the root is missing: a set would be far from itself.": _frechet(
            root_trace=lambda a, b: 0 * a.trace()
        ),
    },
    "lesson 21, 'From lines to ellipses'.",
    tolerance=1e-6,  # a general matrix root loses half the digits if the covariance is singular
    probe=lambda fn, a, b: _number(fn(a, b)),
    reference=_frechet(),
)


def check_frechet(fn: Callable, **grade_options) -> Report:
    """Check fn(a (N, F), b (M, F)) -> number: the squared Fréchet distance of the fitted Gaussians."""
    return grade(_FRECHET, fn, **grade_options)


def _distance_at_by_pairs(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    """The slope is the mean of the slopes of all pairs, each weighted by its squared width."""
    points = [(1 / count, distance) for count, distance in zip(counts.tolist(), distances.tolist())]
    pairs = [(a[0] - b[0], a[1] - b[1]) for a, b in combinations(points, 2)]
    slope = sum(width * height for width, height in pairs) / sum(width**2 for width, _ in pairs)
    x, y = (sum(values) / len(points) for values in zip(*points))
    return counts.new_tensor(y + slope * (1 / n - x))


def _one_number(value):
    """One number in any shape as a scalar tensor; anything else as it is."""
    value = _number(value)
    return value.reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value


_RISING = "It is right until the distances rise with the count: the slope may be below 0, keep its sign."
_REPEATED = "It is right until there are several distances of one count: each of them is a point of its own."
_INFINITE = "It is right for finite n, but wrong for infinitely many images, where 1 / n is 0."


def _count_cases(rng: RandomInputs) -> list[Case]:
    """Two counts and more; n beyond, between and infinite; an end below 0, a negative slope, and an equal count.

    Of six points, the distances of the two largest counts are exchanged, as noise may do.
    """
    cases, sizes = [], [(6, 5000, 3.0, ""), (2, math.inf, 4.0, _INFINITE), (5, math.inf, -0.15, _INFINITE)]
    sizes += [(5, 250, 2.0, ""), (8, 1000, 3.0, _REPEATED), (7, 400, 3.0, _RISING)]
    for k, n, end, note in sizes:
        counts = (60 * 1.6 ** torch.arange(k)).double() + rng.integers(0, 30, k)
        slope, noise = rng.uniform(150, 300, 1), (0.02 if k > 2 else 0) * rng.normal(k)
        order = rng.uniform(0, 1, k).argsort()
        if note == _RISING:
            slope = -slope / 4
        if note == _REPEATED:
            counts[1:4], order = counts[1].item(), torch.arange(k).flip(0)
        distances = end + slope / counts + noise * (1 + 60 / counts)
        if k == 6:
            distances[-2:] = distances[-2:].flip(0)
        where = "infinitely many images" if n == math.inf else f"{n} images"
        label = f"{k} counts, {where}" + " (below 0)" * (end < 0)
        cases.append(Case(label, (counts[order], distances[order], n), note))
    return cases


def _at(
    x: Callable = lambda n: 1 / n,
    value: Callable = lambda end, slope, n: end + slope / n,
    weights: Callable = torch.ones_like,
    some: Callable = lambda counts: slice(None),
) -> Callable:
    """Value of a line with another step in one place; weights multiply squared errors."""

    def distance_at(counts, distances, n):
        (c, d), n = (v[some(counts)] for v in (counts, distances)), torch.tensor(float(n)).double()
        w = weights(c) / weights(c).sum()
        width, height = x(c) - (w * x(c)).sum(), d - (w * d).sum()
        slope = (w * width * height).sum() / (w * width**2).sum()
        return value((w * d).sum() - slope * (w * x(c)).sum(), slope, n)

    return distance_at


def _in(x: Callable) -> Callable:
    """A line in another quantity than 1 / n."""
    return _at(x, lambda end, slope, n: end + slope * x(n))


def _averaged_slope(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    """The slope divides a covariance over k - 1 by a variance over k."""
    right, k = _at()(counts, distances, n), len(counts)
    return right + (right - distances.mean()) / (k - 1)


def _exchanged_axes(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    """The line gives 1 / n for a distance, and is solved for the distance."""
    x, y = 1 / counts - (1 / counts).mean(), distances - distances.mean()
    return distances.mean() + (1 / n - (1 / counts).mean()) * (y**2).sum() / (x * y).sum()


def _parabola(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's: two points hold no parabola
        return torch.tensor(np.polyval(np.polyfit(1 / counts.numpy(), distances.numpy(), 2), 1 / n))


def _between_counts(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    order = counts.argsort()
    return torch.tensor(np.interp(n, counts[order].numpy(), distances[order].numpy()))


def _from_largest(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    slope = _at(value=lambda end, slope, n: slope)(counts, distances, n)
    return distances[counts.argmax()] + slope * (1 / n - 1 / counts.max())


def _between_points(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    order = counts.argsort(descending=True)
    return torch.tensor(np.interp(1 / n, 1 / counts[order].numpy(), distances[order].numpy()))


def _through_zero(counts: Tensor, distances: Tensor, n: float) -> Tensor:
    return (distances / counts).sum() / (1 / counts**2).sum() / n


_BIAS_HINT = "lesson 21, 'Two sets of real digits': how the bias depends on n."
_LEAST_HINT = "all points count alike in ordinary least squares."

_DISTANCE_AT = Exercise(
    "distance_at",
    _distance_at_by_pairs,
    _count_cases,
    {
        "The line is in n; the bias falls in a straight line of 1 / n.": (_in(lambda n: n), _BIAS_HINT),
        "The line is in the logarithm of n; the bias falls in a straight line of 1 / n.": (
            _in(torch.log),
            _BIAS_HINT,
        ),
        "The line is in one over the root of n, as for the error of a mean; the bias goes as 1 / n.": (
            _in(torch.rsqrt),
            _BIAS_HINT,
        ),
        "The line is in one over the square of n; the bias goes as 1 / n.": (
            _in(lambda n: n**-2),
            _BIAS_HINT,
        ),
        "This is a power law, a line in two logarithms: it ends at 0, whatever the model; fit a line in 1 / n.": (
            lambda counts, distances, n: _in(torch.log)(counts, distances.log(), n).exp(),
            _BIAS_HINT,
        ),
        "This is the distance of infinitely many images: n is not used.": _at(
            value=lambda end, slope, n: end
        ),
        "This is the slope of the line; asked is its value at n.": _at(value=lambda end, slope, n: slope),
        "Slope and end are exchanged: in which order does the fit give them?": _at(
            value=lambda end, slope, n: slope + end / n
        ),
        "This is the bias at n alone; the distance of infinitely many images is to be added.": _at(
            value=lambda end, slope, n: slope / n
        ),
        "The bias is subtracted; few images make the distance larger.": _at(
            value=lambda end, slope, n: end - slope / n
        ),
        "The line is fitted in 1 / n, but its value is taken at n.": _at(
            value=lambda end, slope, n: end + slope * n
        ),
        "The line is forced through 0: as if infinitely many images of any model had distance 0. Fit its end, too.": (
            _through_zero
        ),
        "The line goes through the first and the last point only; fit it to all.": (
            _at(some=lambda counts: [0, -1]),
            _LEAST_HINT,
        ),
        "The line goes through the points of the smallest and the largest count only; fit it to all.": (
            _at(some=lambda counts: [int(counts.argmin()), int(counts.argmax())]),
            _LEAST_HINT,
        ),
        "The line goes through the points of the two largest counts only; fit it to all.": (
            _at(some=lambda counts: counts.topk(2).indices),
            _LEAST_HINT,
        ),
        "The line goes through the points of the four largest counts only, as in the figure of the lesson; fit it to "
        "all.": (
            _at(some=lambda counts: counts.topk(min(4, len(counts))).indices),
            _LEAST_HINT,
        ),
        "The line gives 1 / n for a distance; fit it the other way round, to give a distance for 1 / n.": (
            _exchanged_axes,
            _LEAST_HINT,
        ),
        "The counts are sorted alone: each distance then stands beside another count.": lambda counts, *rest: (
            _at()(counts.sort().values, *rest)
        ),
        "Counts and distances are sorted each by themselves; a distance belongs to its count.": lambda c, d, n: (
            _at()(c.sort().values, d.sort(descending=True).values, n)
        ),
        "This is a parabola in 1 / n; fit a straight line.": _parabola,
        "The line is fitted to 1 / distance; fit it to the distances.": (
            lambda counts, distances, n: 1 / _in(lambda n: n)(counts, 1 / distances, n),
            _BIAS_HINT,
        ),
        "The line is fitted to the roots of the distances; fit it to the distances.": (
            lambda counts, distances, n: _at()(counts, distances.sqrt(), n) ** 2,
            _BIAS_HINT,
        ),
        "The line is in 1 / (n - 1); it must be in 1 / n.": (_in(lambda n: 1 / (n - 1)), _BIAS_HINT),
        "The slope divides a covariance over k - 1 by a variance over k; both must divide by the same number.": (
            _averaged_slope
        ),
        "The bias is added to the last distance, which has a bias already; add it to the end of the line.": lambda c, d, n: (
            d[-1] + _at(value=lambda end, slope, n: slope / n)(c, d, n)
        ),
        "The mean of distance times count is divided by n: infinitely many images would have distance 0. Fit a "
        "line.": lambda counts, distances, n: (counts * distances).mean() / n,
        "These are slope and end of the line; asked is its value at n.": _at(
            value=lambda end, slope, n: torch.stack([slope, end])
        ),
        "Errors are multiplied by the counts before they are squared; asked is ordinary least squares.": (
            _at(weights=lambda counts: counts**2),
            _LEAST_HINT,
        ),
        "Squared errors are weighted by the counts; asked is ordinary least squares.": (
            _at(weights=lambda counts: counts),
            _LEAST_HINT,
        ),
        "The slope is right, but it starts at the point of the largest count; take the value of the fitted line.": (
            _from_largest
        ),
        "This is the distance at the largest count: nothing is extrapolated.": lambda counts, distances, n: (
            distances[counts.argmax()]
        ),
        "The distances are averaged; they depend on the count.": lambda counts, distances, n: (
            distances.mean()
        ),
        "The value is interpolated in n between neighboring counts; fit a line to all.": _between_counts,
        "The value is interpolated between neighbors, and beyond them it stays the same: np.interp fits no line.": (
            _between_points
        ),
        "A value below 0 is set to 0: a squared distance cannot be negative, but an estimate of it can.": (
            _at(value=lambda end, slope, n: (end + slope / n).clamp(min=0)),
            "lesson 21, 'Two sets of real digits': an end below 0.",
        ),
    },
    "lesson 21, 'Two sets of real digits'.",
    tolerance=1e-6,
    probe=lambda fn, *args: _one_number(fn(*args)),
    reference=_at(),
)


def check_distance_at(fn: Callable, **grade_options) -> Report:
    """Check fn(counts (k,), distances (k,), n) -> number: the Fréchet distance to be expected of n images."""
    return grade(_DISTANCE_AT, fn, **grade_options)
