"""Distances, scores, precision and recall against closed forms, SciPy and brute force."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dit_nb.errors import UserError
from dit_nb.evaluation import (
    _nearest_distances,
    evaluate_digits,
    frechet_distance,
    gaussian_frechet_distance,
    in_knn_manifold,
    inception_score,
    precision_recall,
)
from support import error_cases, raises_input_error

RNG = np.random.default_rng


@pytest.mark.parametrize("f", [1, 3, 8])
def test_gaussian_frechet_distance_of_commuting_covariances(f):
    a, b = RNG(f).uniform(0.1, 3, (2, f))
    mean_a, mean_b = RNG(f + 9).normal(size=(2, f))
    rotation = np.linalg.qr(RNG(f).normal(size=(f, f)))[0]
    want = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    got = gaussian_frechet_distance(mean_a, rotation * a @ rotation.T, mean_b, rotation * b @ rotation.T)
    assert got == pytest.approx(want, rel=1e-10)
    root = rotation * np.sqrt(a) @ rotation.T
    covs = [rotation * values @ rotation.T for values in (a, b)]
    assert gaussian_frechet_distance(mean_a, covs[0], mean_b, covs[1], root) == pytest.approx(want)


def test_frechet_distance_in_one_dimension():
    a, b = RNG(0).normal(size=(30, 1)), 2 + 3 * RNG(1).normal(size=(50, 1))
    want = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("n", [4, 40])  # fewer samples than features: singular covariances
def test_frechet_distance_by_scipy(n):
    a, b = RNG(0).normal(size=(n, 6)), RNG(1).normal(size=(n, 6)) @ RNG(2).normal(size=(6, 6)) + 1
    covs = [np.cov(x, rowvar=False) for x in (a, b)]
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    want = shift + np.trace(covs[0] + covs[1] - 2 * np.real(sqrtm(covs[0] @ covs[1])))
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


X = np.zeros((4, 4))


@error_cases(
    (lambda: frechet_distance(X * float("nan"), X), "a.*NaN"),
    (lambda: frechet_distance(X, X[:1]), r"b.*\(1, 4\)"),
    (lambda: frechet_distance(X[0], X), r"a.*\(4,\).*\(N, F\)"),
    (lambda: frechet_distance(X, X[:, :3]), r"b.*\(4, 3\).*4"),
    (lambda: in_knn_manifold(X, X, 4), "k.*4.*4"),
    (lambda: in_knn_manifold(X, X, 0), "k.*0"),
    (lambda: in_knn_manifold(X, X[:, :2]), r"reference.*\(4, 2\).*4"),
)
def test_features_that_do_not_fit(call, pattern):
    with raises_input_error(pattern):
        call()


def test_in_knn_manifold_on_a_line():
    reference = np.array([[0.0], [1.0], [3.0]])  # radii with k = 1: 1, 1, 2
    points = np.array([[-1.0], [-1.1], [4.9], [5.1], [2.0]])
    assert in_knn_manifold(points, reference, 1).tolist() == [True, False, True, False, True]


def test_nearest_distances_by_hand():
    images = torch.zeros(2, 1, 8, 8)
    images[1] = 0.5  # 4 gray levels in each of 64 pixels
    assert _nearest_distances(images, images[:1]).tolist() == pytest.approx([0, 32])
    assert _nearest_distances(images, images, skip_self=True).tolist() == pytest.approx([32, 32])


def test_inception_score_by_hand_and_at_its_limits():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = [0.55, 0.45]
    kl = [sum(p * np.log(p / m) for p, m in zip(row, mean)) for row in probs]
    assert inception_score(probs) == pytest.approx(np.exp(np.mean(kl)))
    for k in (2, 10, 1000):
        assert inception_score(np.eye(k)) == pytest.approx(k)
        assert inception_score(np.full((7, k), 1 / k)) == pytest.approx(1)
        assert inception_score(np.eye(k)[[1] * 9]) == pytest.approx(1)


def test_evaluate_digits(split, extractor):
    some = split.train.images[:200], split.train.labels[:200]
    report = evaluate_digits(*some, split, extractor.classifier)
    assert report["frechet_real"] == pytest.approx(
        0.33, abs=0.05
    )  # a trained network: not the same on all processors
    assert report["accuracy"] == 1 and report["nearest_train"] == 0
    a, b = (extractor(x).pooled for x in (some[0], split.held_out.images))
    covs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    middle = np.real(sqrtm(covs[0] @ covs[1] + 1e-12 * np.eye(64)))
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * middle)
    assert report["frechet"] == pytest.approx(want, abs=1e-3)


def inside_by_loops(points, reference, k=3):
    """Whether points are in the k-NN manifold of a reference set, by loops."""
    radii = [sorted(np.linalg.norm(reference - c, axis=1))[k] for c in reference]
    return np.array([any(np.linalg.norm(p - c) <= r for c, r in zip(reference, radii)) for p in points])


def test_precision_recall_in_many_dimensions():
    real, fake = RNG(0).normal(size=(60, 9)), RNG(1).normal(size=(45, 9)) * 0.8 + 0.2
    for k in (1, 3, 7):
        want = inside_by_loops(fake, real, k).mean(), inside_by_loops(real, fake, k).mean()
        assert precision_recall(real, fake, k) == want
    tensors = torch.from_numpy(real), torch.from_numpy(fake)
    assert precision_recall(*tensors) == precision_recall(real, fake)


@pytest.mark.parametrize(
    ("real", "fake", "k", "pattern"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), 3, r"\(4, 2\).*3"),
        (np.zeros((3, 2)), np.zeros((9, 2)), 3, "k is 3"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, "k is 0"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), 3, "NaN"),
        (np.zeros(9), np.zeros((9, 2)), 3, r"\(9,\)"),
    ],
)
def test_precision_recall_input_errors(real, fake, k, pattern):
    with pytest.raises(UserError, match=pattern):
        precision_recall(real, fake, k)
