"""Grader of lesson 21: the Fréchet distance of two sets of features."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_frechet"]


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
    """Correlated features, equal and different counts, one feature, and fewer images than features."""
    cases, sizes = [], [(30, 20, 3, ""), (25, 25, 2, ""), (12, 15, 1, "")]
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
