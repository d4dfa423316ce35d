"""Running statistics, intervals and `evaluate`, each against an independent computation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import binom
from torch.utils.data import TensorDataset

from dit_nb.config import SamplingConfig
from dit_nb.data import _to_uint8
from dit_nb.evaluation import (
    frechet_distance,
    gaussian_frechet_distance,
    in_knn_manifold,
    inception_score,
    precision_recall,
)
from dit_nb.features import Features
from dit_nb.measure import (
    _PRESETS,
    _Comparison,
    _distances,
    _features_in_order,
    _FeatureStats,
    _half_sample_interval,
    _half_sample_values,
    _in_manifold,
    _mean_cov,
    _MeanCov,
    _measure,
    _open_both,
    _RunningInceptionScore,
    _RunningMeanCov,
    _Settings,
    _uniform_labels,
    _values_of_halves,
    evaluate,
)
from dit_nb.sample_files import _open_image_source
from support import error_cases, raises_input_error
from support_ranks import in_ranks

RNG = np.random.default_rng
X = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


# Statistics, batch by batch


def test_frechet_distance_equals_scipys_matrix_root():
    a, b = RNG(0).normal(size=(300, 6)) @ RNG(1).normal(size=(6, 6)), RNG(2).normal(size=(200, 6)) + 1
    one, two = _mean_cov(a), _mean_cov(b)
    middle = np.real(sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)))
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one.cov + two.cov - 2 * middle)
    assert gaussian_frechet_distance(*one, *two) == pytest.approx(want, rel=1e-8)
    assert gaussian_frechet_distance(*one, *two) == pytest.approx(frechet_distance(a, b), rel=1e-10)
    assert gaussian_frechet_distance(*two, *one) == pytest.approx(want, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 4))
def test_running_mean_and_covariance_do_not_depend_on_the_batches(n, f, cuts, power):
    rows = RNG(n).normal(size=(n, f)) + 10.0**power
    moments = _RunningMeanCov(at_once=1 + n // 7)
    for batch in np.split(rows, sorted(c for c in cuts if c < n)):
        moments.add(batch)
    got = moments.result()
    assert moments.n == n
    np.testing.assert_allclose(got.mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(got.cov, np.atleast_2d(np.cov(rows, rowvar=False)), rtol=1e-9, atol=1e-9)


def test_a_distance_is_never_below_0():
    """Rounding of eigenvalues gives the same statistics distances of about 1e-8, of either sign."""
    for seed in range(20):
        rows = RNG(seed).normal(size=(40, 30)) @ RNG(99).normal(size=(30, 60)) * 10.0 ** (seed % 4)
        stats = _mean_cov(rows)
        scale = np.trace(stats.cov)
        assert 0 <= gaussian_frechet_distance(*stats, *stats) < 1e-5 * scale


def test_distance_of_running_statistics():
    a, b = RNG(0).normal(size=(500, 7)) + 50, RNG(1).normal(size=(400, 7)) * 2 + 50
    streamed = []
    for rows, parts in ((a, 13), (b, 3)):
        moments = _RunningMeanCov()
        for batch in np.array_split(rows.astype(np.float32), parts):
            moments.add(batch)
        streamed.append(moments.result())
    want = frechet_distance(a.astype(np.float32), b.astype(np.float32))
    assert gaussian_frechet_distance(*streamed[0], *streamed[1]) == pytest.approx(want, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.integers(0, 50), max_size=6))
def test_running_inception_score_is_the_mean_over_splits(n, split, cuts):
    probs = RNG(n).dirichlet(np.full(4, 0.4), size=n)
    running = _RunningInceptionScore(split)
    for batch in np.split(probs, sorted(c for c in cuts if c < n)):
        running.add(batch)
    want = np.mean([inception_score(probs[i : i + split]) for i in range(0, n, split)])
    assert running.value() == pytest.approx(want, rel=1e-9)


def brute_precision(real, fake, k):
    """The fraction of samples within the k-NN radius of a real one, from the definition."""
    radius = np.sort(cdist(real, real), 1)[:, k]
    return np.mean([(np.linalg.norm(real - point, axis=1) <= radius).any() for point in fake])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_equal_a_brute_force(k):
    real, fake = RNG(0).normal(size=(1203, 4)), RNG(1).normal(size=(1101, 4)) * 1.3 + 0.5
    want = brute_precision(real, fake, k), brute_precision(fake, real, k)
    assert precision_recall(real, fake, k) == pytest.approx(want, abs=1e-12)
    stats = [_FeatureStats(name, len(x), kept=Features(x)) for name, x in (("fake", fake), ("real", real))]
    comparison = _Comparison(*stats, k=k, seed=7)
    assert list(comparison.of_all().values()) == pytest.approx(want, abs=1e-12)
    assert comparison.of_subset(np.arange(len(fake))) == pytest.approx(want, abs=1e-9)
    part = RNG(3).permutation(len(fake))[:500]
    some = comparison.some.pooled[part]
    want = brute_precision(real, some, k), brute_precision(some, real, k)
    assert comparison.of_subset(part)[1] == pytest.approx(want[1], abs=1e-9)
    assert comparison.of_subset(part)[0] == pytest.approx(want[0], abs=1e-9)


class RandomProjections(torch.nn.Module):
    """A small extractor: some random projections of the pixels."""

    num_features = 6

    def __init__(self):
        super().__init__()
        matrix = torch.randn(3 * 8 * 8, 6, generator=torch.Generator().manual_seed(0)) / 8
        self.register_buffer("matrix", matrix)

    def forward(self, images):
        return (images.double().flatten(1) @ self.matrix.double()).relu()


def test_torchmetrics_agrees(vision):
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    scores = pytest.importorskip("torchmetrics.image.inception")
    extractor = RandomProjections()
    fake, real = (torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (90, 120))
    fake = fake**2
    theirs = torchmetrics.FrechetInceptionDistance(feature=extractor, input_img_size=(3, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = [_mean_cov(extractor(images).numpy()) for images in (fake, real)]
    assert gaussian_frechet_distance(*ours[0], *ours[1]) == pytest.approx(float(theirs.compute()), rel=1e-6)
    score = scores.InceptionScore(feature=extractor, splits=1)
    score.update(fake)
    assert inception_score(extractor(fake).softmax(1).numpy()) == pytest.approx(
        float(score.compute()[0]), rel=1e-6
    )


# Intervals


def coverage(metric, truth, sample, trials, seed):
    """How many of the intervals of new samples contain the truth."""
    rng, held = RNG(seed), 0
    for i in range(trials):
        rows = sample(rng)
        halves = _half_sample_values(lambda part, rows=rows: metric(rows[part]), len(rows), 100, seed=i)
        low, high = _half_sample_interval(metric(rows), halves)
        held += low <= truth <= high
    return held


@pytest.mark.parametrize("f, n, off, spread", [(4, 80, 0.3, 1.2), (16, 60, 0.3, 0.8)])
def test_coverage_of_intervals_of_a_distance(f, n, off, spread):
    reference = _MeanCov(np.zeros(f), np.eye(f))

    def distance(rows):
        return gaussian_frechet_distance(*reference, *_mean_cov(rows), root_a=reference.cov)

    def sample(rng):
        return off + spread * rng.normal(size=(n, f))

    truth = np.mean([distance(sample(RNG(10_000 + i))) for i in range(1500)])
    held = coverage(distance, truth, sample, 150, seed=1)
    # 95 % nominal; a small sample costs a little. Far outside 0.88 to 1 would be another kind of interval.
    assert held >= binom.ppf(0.001, 150, 0.93)
    rng, naive = RNG(2), 0
    for _ in range(40):
        rows = sample(rng)
        again = [distance(rows[rng.integers(0, n, n)]) for _ in range(100)]
        low, high = np.quantile(again, [0.025, 0.975])
        naive += low <= truth <= high
    if f == 16:
        assert naive < 30, "the plain bootstrap was expected to fail here"


def test_coverage_of_intervals_of_a_mean_and_of_recall():
    held = coverage(np.mean, 0.0, lambda rng: rng.normal(size=50), 300, seed=0)
    assert binom.ppf(0.001, 300, 0.93) <= held <= binom.ppf(0.999, 300, 0.97)
    wide = coverage(np.mean, 0.5, lambda rng: rng.normal(size=50), 50, seed=0)
    assert wide < 20, "wrong values are outside of most intervals"
    real = RNG(5).normal(size=(150, 3))
    sample = lambda rng: rng.normal(size=(120, 3)) * 0.7  # noqa: E731
    truth = np.mean([precision_recall(real, sample(RNG(i)))[1] for i in range(200)])
    held = coverage(lambda rows: precision_recall(real, rows)[1], truth, sample, 30, seed=3)
    assert held >= binom.ppf(0.001, 30, 0.9)


def test_halves_have_at_most_5000_samples():
    """What bounds the time of an interval, however many samples are kept."""
    stats = _FeatureStats("many", 10_500, kept=Features(RNG(0).normal(size=(10_500, 1))))
    comparison, sizes = _Comparison(stats, _FeatureStats("statistics", 0)), []
    comparison.of_subset = lambda half: sizes.append(len(half)) or [0.0]
    _values_of_halves(comparison, _Settings(resamples=4, progress=False))
    assert sizes == [5000] * 4


def test_half_sample_interval_by_hand():
    halves = np.arange(101.0)
    assert _half_sample_interval(7, halves, level=0.9) == pytest.approx((7 - 45, 7 + 45))
    assert _half_sample_interval(7, halves, level=0.9, fraction=0.25) == pytest.approx((7 - 22.5, 7 + 22.5))
    assert _half_sample_interval(7, halves, level=0.9, limits=(0, 10)) == (0, 10)
    skewed = np.array([0.0] * 90 + [10.0] * 10)  # seldom much too high, so the truth is lower
    low, high = _half_sample_interval(0, skewed, level=0.9)
    assert (low, high) == pytest.approx((-9, 1))
    assert np.array_equal(
        _half_sample_values(np.sum, 9, 5, seed=1), _half_sample_values(np.sum, 9, 5, seed=1)
    )
    assert set(_half_sample_values(len, 9, 5)) == {4}
    assert _half_sample_values(lambda part: len(set(part)), 9, 5).tolist() == [4] * 5, "no sample twice"


# evaluate


def test_evaluate_equals_the_single_functions(split, extractor):
    a, b = split.train.images[:300], split.held_out.images
    result = evaluate(a, b, extractor, batch_size=37, resamples=0, progress=False)
    got = {name: row["value"] for name, row in result["metrics"].items()}
    one, two = extractor(a), extractor(b)
    assert got["frechet"] == pytest.approx(frechet_distance(one.pooled, two.pooled), abs=1e-5)
    assert got["spatial_frechet"] == pytest.approx(frechet_distance(one.spatial, two.spatial), abs=1e-4)
    assert got["inception_score"] == pytest.approx(inception_score(one.probs))
    assert (got["precision"], got["recall"]) == precision_recall(two.pooled, one.pooled)
    assert result["notes"] == [] and json.loads(json.dumps(result)) == result


def test_evaluate_is_reproducible(split, extractor):
    a = split.train.images[:150]
    results = [evaluate(a, split.held_out, extractor, resamples=40, progress=False) for _ in range(2)]
    assert results[0] == results[1]
    for name, row in results[0]["metrics"].items():
        assert row["low"] <= row["value"] <= row["high"] and row["low"] < row["high"], name
        assert ("bias" in row) == ("frechet" in name)
    other = evaluate(a, split.held_out, extractor, resamples=40, seed=1, progress=False)
    assert other["metrics"]["frechet"]["value"] == results[0]["metrics"]["frechet"]["value"]
    assert other["metrics"]["frechet"]["low"] != results[0]["metrics"]["frechet"]["low"]


def test_max_features_changes_recall_but_not_distances(split, extractor):
    a = split.train.images[:400]
    all_, some = (
        evaluate(a, split.held_out, extractor, max_features=n, resamples=60, progress=False)
        for n in (1000, 100)
    )
    for name in ("frechet", "spatial_frechet", "inception_score"):
        one, two = all_["metrics"][name], some["metrics"][name]
        assert one["value"] == two["value"]
        assert 0.4 < (two["high"] - two["low"]) / (one["high"] - one["low"]) < 2.5, "scaled to all samples"
    assert all_["metrics"]["recall"]["value"] != some["metrics"]["recall"]["value"]


def test_statistics_of_a_file_replace_those_of_its_images(split, extractor, tmp_path):
    seen = extractor(split.train.images)
    known = dict(zip(("mu", "sigma"), _mean_cov(seen.pooled))) | dict(
        zip(("mu_s", "sigma_s"), _mean_cov(seen.spatial))
    )
    np.savez(tmp_path / "stats.npz", **known)
    images = _to_uint8(split.train.images[:100]).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "both.npz", arr_0=images, **known)
    a = split.held_out.images
    options = {"features": extractor, "resamples": 0, "progress": False}
    full, stats, both = (
        evaluate(a, ref, **options)
        for ref in (split.train.images, tmp_path / "stats.npz", tmp_path / "both.npz")
    )
    for name in ("frechet", "spatial_frechet"):  # roots of eigenvalues near 0: the last digits differ
        assert stats["metrics"][name]["value"] == pytest.approx(full["metrics"][name]["value"], rel=1e-6)
        assert both["metrics"][name]["value"] == pytest.approx(full["metrics"][name]["value"], rel=1e-6)
    assert "precision" not in stats["metrics"] and len(stats["notes"]) == 1
    read = next(iter(_open_image_source(tmp_path / "both.npz").batches(100)))
    want = precision_recall(extractor(read).pooled, extractor(a).pooled)
    assert (both["metrics"]["precision"]["value"], both["metrics"]["recall"]["value"]) == want
    assert both["reference"] == {"name": str(tmp_path / "both.npz"), "n": 100, "statistics": True}


def test_evaluate_with_any_network():
    a, b = (torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) * 2 - 1 for n in (60, 50))
    result = evaluate(a, b, RandomProjections(), resamples=0, progress=False)
    assert (
        set(result["metrics"]) == {"frechet", "precision", "recall"}
        and result["features"] == "RandomProjections"
    )
    want = frechet_distance(*(RandomProjections()(x).float().numpy() for x in (a, b)))
    assert result["metrics"]["frechet"]["value"] == pytest.approx(want, rel=1e-5)
    lone = evaluate(a, b, lambda x: Features(x.flatten(1)[:, :4].numpy()), resamples=0, progress=False)
    assert lone["features"] == "function"


def test_fewer_samples_than_features_warn(split, extractor):
    with pytest.warns(UserWarning, match="40 images for 64 pooled and 64 spatial features") as caught:
        result = evaluate(split.train.images[:40], split.held_out, extractor, resamples=0, progress=False)
    assert len(result["notes"]) == 1 and caught[0].filename == __file__, "the line that called evaluate"


@error_cases(
    (lambda **o: evaluate(X, X, **o, level=1), "level.*1.*between"),
    (lambda **o: evaluate(X, X, **o, k=0), "k.*0"),
    (lambda **o: evaluate(X, X, **o, batch_size=0), "batch_size.*0"),
    (lambda **o: evaluate(X, X, **o, resamples=-1), "resamples.*-1"),
    (lambda **o: evaluate(X, X, **o, k=10), "images.*20.*22"),
    (lambda **o: evaluate(X, X[:, :, :4, :4], **o), "3x8x8.*3x4x4"),
)
def test_arguments_that_do_not_fit(call, pattern):
    with raises_input_error(pattern):
        call(features=RandomProjections(), progress=False)


BYTES = ((X + 1) * 127.5).round()
LATE = torch.cat([X, X])
LATE[33, 0, 2, 2] = float("nan")


def as_data_set(images):
    return TensorDataset(images, torch.zeros(len(images)).long())


def as_file(images, tmp_path):
    np.savez(tmp_path / "x.npz", images=images.numpy())
    return tmp_path / "x.npz"


KINDS = {
    "tensor": lambda images, _: images,
    "array": lambda images, _: images.numpy(),
    "data set": lambda images, _: as_data_set(images),
    "file": as_file,
}


@pytest.mark.parametrize("argument", ["samples", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "images, pattern",
    [
        ((X + 1) / 2, r"has values from .* to .*, but must be in \[-1, 1\]: pass 2 \* x - 1"),
        (BYTES, r"has values from [01] to 255.*, but must be in \[-1, 1\]: pass x / 127.5 - 1"),
        (BYTES.byte(), r"uint8.*\[-1, 1\]|uint8 .*floats"),
        (LATE, "holds NaN or infinity, first in image 33"),
    ],
    ids=["0 to 1", "0 to 255", "uint8", "NaN"],
)
def test_images_in_a_wrong_range_are_refused(images, pattern, kind, argument, tmp_path):
    other = "reference" if argument == "samples" else "samples"
    name = "" if (kind, images.dtype) == ("file", torch.uint8) else argument  # whose file is refused at once
    with raises_input_error(f"{name}.*{pattern}"):
        evaluate(
            **{argument: KINDS[kind](images, tmp_path), other: X},
            features=RandomProjections(),
            batch_size=8,
            progress=False,
        )


def test_bright_batches_among_dark_ones_are_right():
    """Images sorted by brightness, as a folder by class may be: no batch decides alone."""
    images = torch.cat([X.clamp(0, 1), X])
    result = evaluate(as_data_set(images), X, RandomProjections(), batch_size=8, resamples=0, progress=False)
    assert result["samples"]["n"] == 40


# Several processes


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_measure_what_one_does(kind, world_size, split, extractor, tmp_path):
    """To the last bit. 8 and 5 batches, so that some processes have none in the last round; 11 halves."""
    samples = KINDS[kind](split.train.images[:150], tmp_path)
    options = {"batch_size": 20, "max_features": 90, "resamples": 11, "progress": False}
    one = evaluate(samples, split.held_out.images[:90], extractor, **options)

    def work(ranks):
        sources = _open_both(samples, split.held_out.images[:90], None)
        return _measure(*sources, extractor, _Settings(**options), ranks)

    first, *others = in_ranks(world_size, work)
    assert first == one and others == [{}] * (world_size - 1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_reading_and_features(world_size):
    """Each image is read once, by one process, and its features are the same for all."""
    read, images = [[] for _ in range(world_size)], torch.rand(23, 3, 4, 4) * 2 - 1

    def work(ranks):
        source = _open_image_source(as_data_set(images))

        def features(batch):
            read[ranks.rank].append(len(batch))
            return Features(batch.mean((2, 3)).numpy())

        return np.concatenate([seen.pooled for seen in _features_in_order(source, features, 4, ranks)])

    for got in in_ranks(world_size, work):
        assert np.array_equal(got, images.mean((2, 3)).numpy())
    assert sum(map(sum, read)) == 23 and max(map(len, read)) == -(-6 // world_size)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    "images, pattern",
    [
        (LATE, "samples holds NaN or infinity, first in image 33"),
        ((X + 1) / 2, r"samples has values .* 2 \* x - 1"),
    ],
    ids=["NaN", "0 to 1"],
)
def test_an_image_out_of_range_is_an_error_of_all_processes(images, pattern, world_size):
    """One process has the image with NaN; that values are in [0, 1] follows from the images of all."""

    def work(ranks):
        return _measure(
            *_open_both(images, X, None), RandomProjections(), _Settings(8, progress=False), ranks
        )

    found = in_ranks(world_size, work)
    for error in found:
        with raises_input_error(pattern):
            raise error


def test_distances_are_those_of_scipy_and_0_between_equal_rows():
    """Also far from the origin, where a square is the small difference of large ones."""
    a, b = RNG(0).normal(size=(25, 40)), RNG(1).normal(size=(17, 40))
    a[[3, 20]] = b[[5, 5]]
    for far in (0.0, 1e4):
        got = torch.cat(list(_distances(a + far, b + far, rows=10))).numpy()
        np.testing.assert_allclose(got, cdist(a + far, b + far), rtol=1e-9)
        assert (got[[3, 20], 5] == 0).all() and (got == 0).sum() == 2
    assert _in_manifold(a, b, 3).tolist() == in_knn_manifold(a, b, 3).tolist()
    assert _in_manifold(a, a, 3).all(), "each is within its own radius"


def test_a_set_compared_with_itself_and_with_copies(split, extractor):
    """Ties: every image is covered, however often it is there, as by the functions of the lesson."""
    x = split.held_out.images[:40].repeat(5, 1, 1, 1)  # 4 copies: the radius is 0
    for real in (x, split.held_out.images[:90]):
        result = evaluate(x, real, extractor, resamples=4, progress=False)["metrics"]
        want = precision_recall(extractor(real).pooled, extractor(x).pooled)
        assert (result["precision"]["value"], result["recall"]["value"]) == want
    assert evaluate(x, x, extractor, resamples=0, progress=False)["metrics"]["recall"]["value"] == 1


def test_features_that_do_not_fit_the_batch():
    with raises_input_error("features has pooled rows with NaN"):
        evaluate(X, X, lambda x: Features(x.flatten(1).log().numpy()), progress=False)
    with raises_input_error("features has 1 pooled rows, but must have one for each of 8"):
        evaluate(X, X, lambda x: Features(x.flatten(1)[:1].numpy()), batch_size=8, progress=False)


# The protocol


def test_the_papers_protocol():
    paper = _PRESETS["paper"]
    expected = {"n": 50_000, "steps": "250", "cfg_scale": 1.5, "guided_channels": 3}
    assert expected.items() <= paper.items()
    assert paper["vae"] == "stabilityai/sd-vae-ft-ema" and paper["sampler"] == "ddpm" and not paper["clip_x0"]
    fields = {name: value for name, value in paper.items() if name not in ("n", "vae")}
    # Whatever it does not name is as in the paper by default.
    assert replace(SamplingConfig(), **fields) == SamplingConfig(
        steps="250", cfg_scale=1.5, guided_channels=3, clip_x0=False
    )


def test_labels_are_uniform_and_random():
    labels = _uniform_labels(50_000, 1000, seed=3)
    counts = np.bincount(labels, minlength=1000)
    assert labels.dtype == torch.long and counts.min() > 15 and counts.max() < 100
    assert 0.85 < counts.var() / 50 < 1.15, "Poisson: not 50 of each"
    assert torch.equal(labels, _uniform_labels(50_000, 1000, seed=3))
