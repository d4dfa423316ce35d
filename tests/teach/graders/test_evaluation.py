"""Graders of the Fréchet distance: properties that need no formula for it."""

import math

import pytest
import torch

from dit_nb.evaluation import frechet_distance


def test_shift_scale_and_rotation(check_identity):
    def number(value):
        return torch.as_tensor(value, dtype=torch.float64)

    def holds(fn, a, b):
        # a null eigenvalue comes out as eps times the largest, and its root as 1.5e-8 of it
        close = 1e-6 * max(1, float(a.var(0).sum() + b.var(0).sum()))
        shift = torch.arange(1, a.shape[1] + 1, dtype=a.dtype)
        turn = torch.linalg.qr(torch.ones(a.shape[1], a.shape[1], dtype=a.dtype).cumsum(0).sin())[0]
        moved = number(fn(a, a + shift))
        shrunk = number(fn(a - a.mean(0), (a - a.mean(0)) / 3))
        return (
            abs(number(fn(a, a))) < close
            and abs(moved - (shift**2).sum()) < close
            and abs(shrunk - 4 / 9 * a.var(0).sum()) < close
            and abs(number(fn(a @ turn, b @ turn)) - number(fn(a, b))) < close
            and number(fn(a, b)) > 1e-3
            and abs(number(fn(a, b)) - frechet_distance(a.numpy(), b.numpy())) < close
        )

    check_identity("frechet", holds)


@pytest.mark.parametrize("n", [5, 40])
def test_a_mirrored_set_has_a_distance(n):
    from dit_nb.teach.graders.framework.core import reference_solution

    a = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a[:, 1] += a[:, 0]
    mirrored = a * torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert reference_solution("frechet")(a, mirrored) > 0.1


def test_the_line_leaves_no_trend_in_its_errors(check_identity):
    """Errors of a least squares line sum to 0, and so do their products with 1 / n; a line is its own fit."""

    def holds(fn, counts, distances, n):
        at = lambda y, n: float(fn(counts, y, n))  # noqa: E731
        errors = distances - torch.tensor([at(distances, c) for c in counts.tolist()], dtype=distances.dtype)
        close = 1e-6 * float(distances.max())
        end = at(distances, math.inf)
        return (
            abs(errors.sum()) < close
            and abs((errors / counts).sum() * counts.min()) < close
            and abs(at(2 + 500 / counts, n) - (2 + 500 / n)) < close
            and abs(at(500 / counts - 0.1, math.inf) + 0.1) < close
            and abs(at(distances, n) - end - (at(distances, 100) - end) * 100 / n) < close
        )

    check_identity("distance_at", holds)
