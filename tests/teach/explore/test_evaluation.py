"""The explorer of lesson 21, against SciPy and loops."""

import re

import numpy as np
import pytest
from scipy.linalg import sqrtm

from dit_nb.evaluation import frechet_distance
from dit_nb.teach.explore.evaluation import (
    _COUNTS,
    _KINDS,
    _diagonal_frechet_distance,
    _sample_points,
    explore_frechet,
)
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def shared():
    return explore_frechet()


@pytest.fixture
def frechet(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def curves(ax) -> list[tuple]:
    """The lines of an axes: their numbers and their color."""
    return [(np.array(line.get_data(), dtype=float), line.get_color()) for line in ax.lines]


def numbers(explorer) -> tuple[float, float, float]:
    """The distance, precision and recall from the titles."""
    points, curve = explorer.figure.axes
    precision, recall = map(float, re.findall(r"\d\.\d+", points.get_title()))
    return float(curve.get_title().split(": ")[1]), precision, recall


def points_drawn(explorer):
    """The points that were drawn: real inside and outside, samples inside and outside."""
    return [data.T for data, _ in curves(explorer.figure.axes[0])[:4]]


def ellipses_drawn(explorer):
    return [data for data, _ in curves(explorer.figure.axes[0])[4:]]


def oracle(a, b):
    """The Fréchet distance by SciPy's general matrix root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(cov_a @ cov_b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def inside(points, reference, k=3):
    """Whether points are in the k-NN manifold of a reference set, by loops."""
    radii = [sorted(np.linalg.norm(reference - c, axis=1))[k] for c in reference]
    return np.array([any(np.linalg.norm(p - c) <= r for c, r in zip(reference, radii)) for p in points])


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("n", [10, 30, 100])
def test_numbers_and_marks(frechet, kind, n):
    frechet.set(kind=kind, n=n, spread=1.2, shift=0.5)
    real_inside, real_outside, fake_inside, fake_outside = points_drawn(frechet)
    real, fake = np.concatenate([real_inside, real_outside]), np.concatenate([fake_inside, fake_outside])
    assert len(real) == len(fake) == n
    assert inside(real_inside, fake).all() and not inside(real_outside, fake).any()
    assert inside(fake_inside, real).all() and not inside(fake_outside, real).any()
    distance, precision, recall = numbers(frechet)
    assert abs(precision - len(fake_inside) / n) < 0.006 and abs(recall - len(real_inside) / n) < 0.006
    assert abs(distance - oracle(real, fake)) < 0.06 * distance + 1e-3


def test_ellipses_are_two_standard_deviations(frechet):
    real_inside, real_outside, fake_inside, fake_outside = points_drawn(frechet)
    pairs = (np.concatenate([real_inside, real_outside]), np.concatenate([fake_inside, fake_outside]))
    for points, line in zip(pairs, ellipses_drawn(frechet)):
        away = line.T - points.mean(0)
        mahalanobis = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(points, rowvar=False)), away)
        assert np.allclose(mahalanobis, 4)


def test_shift_moves_and_spread_spreads(frechet):
    frechet.set(kind="same distribution", n=300)
    before = ellipses_drawn(frechet)
    moved = ellipses_drawn(frechet.set(shift=2.0))
    assert np.allclose(moved[1] - before[1], [[2], [0]]) and np.array_equal(moved[0], before[0])
    wide, narrow = (_sample_points(300, 1, spread=s) for s in (2.0, 0.5))
    modes = np.random.default_rng(1).integers(6, size=1000)[:300] % 3
    for k in range(3):
        assert np.allclose(wide[modes == k].std(0), 4 * narrow[modes == k].std(0))


def test_curves(frechet):
    """The dashed line, the mean for equal distributions, falls as 1/n; with a missing mode the limit is not 0."""
    base, these, dot = (line.get_ydata() for line in frechet.figure.axes[1].lines)
    assert 5 < min(base * _COUNTS) and max(base * _COUNTS) < 25, "n times the distance hardly changes"
    assert (np.diff(base) < 0).all()
    modes = np.array([[-2.4, -1.5], [0.0, 0.9], [2.4, 1.6]])

    def moments(centers):  # of equally likely modes with standard deviation 0.5
        return centers.mean(0), np.cov(centers, rowvar=False, bias=True) + 0.25 * np.eye(2)

    (mean_a, cov_a), (mean_b, cov_b) = moments(modes), moments(modes[:2])
    exact = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert abs(these[-1] / exact - 1) < 0.1
    assert abs(dot[0] - numbers(frechet)[0]) < 0.06 * dot[0]


def test_default_shows_the_missing_mode(frechet):
    _, precision, recall = numbers(frechet)
    assert precision > 0.9 and recall < 0.75
    _, outside, _, _ = points_drawn(frechet)
    assert np.mean(outside[:, 0] > 1.0) > 0.8, "rings are where the missing mode is"


def test_experiment_1_few_points(frechet):
    """Both sets come from one distribution, yet they are far apart."""
    few = numbers(frechet.set(kind="same distribution", n=10))[0]
    many = numbers(frechet.set(n=300))[0]
    base = frechet.figure.axes[1].lines[0].get_ydata()
    assert few > 0.5 and few > 20 * many and base[0] > 10 * base[3]


def test_experiment_2_copies(frechet):
    """Distance 0, precision and recall 1, better than new samples of the distribution can be."""
    distance, precision, recall = numbers(frechet.set(kind="copies"))
    assert (distance, precision, recall) == (pytest.approx(0, abs=1e-9), 1, 1)
    same = numbers(frechet.set(kind="same distribution"))
    assert distance < 0.01 * same[0] and same[1] < 1 and same[2] < 1
    frechet.set(kind="copies")
    assert (
        frechet.figure.axes[1].lines[2].get_ydata()[0] < 0.1 * frechet.figure.axes[1].lines[0].get_ydata()[2]
    )


def test_experiment_3_mistake(frechet):
    """Without covariances the mirrored set has distance 0, and the ellipses have no slope."""
    right = numbers(frechet.set(kind="mirrored"))
    tilted = ellipses_drawn(frechet)
    frechet.controls["wrong"].value = True
    wrong, level = numbers(frechet), ellipses_drawn(frechet)
    assert wrong[0] < 0.02 * right[0] and wrong[1:] == right[1:] and max(right[1:]) < 0.5

    def slope(line):
        return np.corrcoef(line[:, :-1])[0, 1]

    assert slope(tilted[0]) > 0.8 and slope(tilted[1]) < -0.8
    assert max(abs(slope(line)) for line in level) < 1e-6
    title = frechet.figure.axes[1].title
    assert title.get_color() == COLORS["wrong"] and "standard deviations only" in title.get_text()


def test_diagonal_distance_sums_over_features():
    """The mistake equals the sum of the distances of single features."""
    a, b = _sample_points(100, 0), _sample_points(80, 1, "mirrored", 0.7, 0.4)
    alone = sum(frechet_distance(a[:, i : i + 1], b[:, i : i + 1]) for i in (0, 1))
    assert abs(_diagonal_frechet_distance(a, b) - alone) < 1e-9 < 1 < frechet_distance(a, b) - alone


def test_question_of_lesson_21(frechet):
    """A spread of 0.4: the distance stays small, precision goes to 1, recall falls."""
    before = numbers(frechet.set(kind="same distribution"))
    distance, precision, recall = numbers(frechet.set(spread=0.4))
    assert distance < 0.1 and precision == 1 and recall < 0.6 < before[2]


def test_own_distance():
    explorer = explore_frechet(lambda a, b: 7.0)
    assert numbers(explorer)[0] == 7
    assert all((data[1] == 7).all() for data, _ in curves(explorer.figure.axes[1]))
