"""Measuring: every number against an independent computation, files against numpy, and bad input against a sentence."""

import json
import sys
import types
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import binom

from dit_nb import measure
from dit_nb.cli import main
from dit_nb.data import digits, to_uint8
from dit_nb.evaluation import (
    evaluate_digits,
    frechet_distance,
    gaussian_distance,
    inception_score,
    precision_recall,
)
from dit_nb.features import DigitFeatures, Features, ModuleFeatures
from dit_nb.measure import (
    Gaussian,
    Moments,
    RunningScore,
    evaluate,
    gaussian_of,
    half_sample_intervals,
    interval,
    uniform_labels,
)
from dit_nb.sample_files import read_images, save_npz

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def split():
    """The real digits."""
    return digits()


@pytest.fixture(scope="module")
def judge(split):
    """The judge of digits, trained once."""
    return DigitFeatures(split)


@pytest.fixture
def one_judge(judge, monkeypatch):
    """Let commands use the judge that is trained already."""
    monkeypatch.setattr(measure, "DigitFeatures", lambda: judge)


@pytest.fixture
def vision(monkeypatch):
    """A torchvision that torchmetrics and torch-fidelity can import; neither needs it for what is tested here."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # not there, or made for another build of torch
        for name in ("", ".transforms", ".transforms.functional", ".datasets", ".models", ".ops"):
            fake = types.ModuleType(f"torchvision{name}")
            fake.__spec__ = ModuleSpec(fake.__name__, None)
            fake.__getattr__ = lambda attribute: type(attribute, (), {})
            monkeypatch.setitem(sys.modules, fake.__name__, fake)
            if name:
                parent, _, child = fake.__name__.rpartition(".")
                setattr(sys.modules[parent], child, fake)


# Distances


@pytest.mark.parametrize("f", [1, 3, 8])
def test_distance_of_gaussians_has_a_closed_form_where_they_commute(f):
    a, b = RNG(f).uniform(0.1, 3, (2, f))
    mean_a, mean_b = RNG(f + 9).normal(size=(2, f))
    turn = np.linalg.qr(RNG(f).normal(size=(f, f)))[0]
    want = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    got = gaussian_distance(mean_a, turn * a @ turn.T, mean_b, turn * b @ turn.T)
    assert got == pytest.approx(want, rel=1e-10)
    root = turn * np.sqrt(a) @ turn.T
    covs = [turn * values @ turn.T for values in (a, b)]
    assert gaussian_distance(mean_a, covs[0], mean_b, covs[1], root) == pytest.approx(want)


def test_distance_equals_scipys_root():
    a, b = RNG(0).normal(size=(300, 6)) @ RNG(1).normal(size=(6, 6)), RNG(2).normal(size=(200, 6)) + 1
    one, two = gaussian_of(a), gaussian_of(b)
    middle = np.real(sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)))
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one.cov + two.cov - 2 * middle)
    assert gaussian_distance(*one, *two) == pytest.approx(want, rel=1e-8)
    assert gaussian_distance(*one, *two) == pytest.approx(frechet_distance(a, b), rel=1e-10)
    assert gaussian_distance(*two, *one) == pytest.approx(want, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 4))
def test_moments_do_not_depend_on_the_batches(n, f, cuts, power):
    rows = RNG(n).normal(size=(n, f)) + 10.0**power
    moments = Moments()
    for batch in np.split(rows, sorted(c for c in cuts if c < n)):
        moments.add(batch)
    got = moments.gaussian()
    assert moments.n == n
    np.testing.assert_allclose(got.mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(got.cov, np.atleast_2d(np.cov(rows, rowvar=False)), rtol=1e-9, atol=1e-9)


def test_streamed_distance_equals_the_one_of_all_rows():
    a, b = RNG(0).normal(size=(500, 7)) + 50, RNG(1).normal(size=(400, 7)) * 2 + 50
    streamed = []
    for rows, parts in ((a, 13), (b, 3)):
        moments = Moments()
        for batch in np.array_split(rows.astype(np.float32), parts):
            moments.add(batch)
        streamed.append(moments.gaussian())
    want = frechet_distance(a.astype(np.float32), b.astype(np.float32))
    assert gaussian_distance(*streamed[0], *streamed[1]) == pytest.approx(want, rel=1e-9)


# Scores and balls


def test_inception_score_by_hand_and_at_its_limits():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = [0.55, 0.45]
    kl = [sum(p * np.log(p / m) for p, m in zip(row, mean)) for row in probs]
    assert inception_score(probs) == pytest.approx(np.exp(np.mean(kl)))
    for k in (2, 10, 1000):
        assert inception_score(np.eye(k)) == pytest.approx(k)
        assert inception_score(np.full((7, k), 1 / k)) == pytest.approx(1)
        assert inception_score(np.eye(k)[[1] * 9]) == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.integers(0, 50), max_size=6))
def test_running_score_is_the_mean_over_splits(n, split, cuts):
    probs = RNG(n).dirichlet(np.full(4, 0.4), size=n)
    running = RunningScore(split)
    for batch in np.split(probs, sorted(c for c in cuts if c < n)):
        running.add(batch)
    want = np.mean([inception_score(probs[i : i + split]) for i in range(0, n, split)])
    assert running.value() == pytest.approx(want, rel=1e-9)


def brute_precision(real, fake, k):
    """The share of samples in a ball around a real one, from the definition."""
    radius = np.sort(cdist(real, real), 1)[:, k]
    return np.mean([(np.linalg.norm(real - point, axis=1) <= radius).any() for point in fake])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_balls_equal_a_brute_force(k):
    real, fake = RNG(0).normal(size=(1203, 4)), RNG(1).normal(size=(1101, 4)) * 1.3 + 0.5
    want = brute_precision(real, fake, k), brute_precision(fake, real, k)
    assert precision_recall(real, fake, k) == pytest.approx(want, abs=1e-12)
    crowds = [
        measure.FeatureStats(name, len(x), kept=Features(x)) for name, x in (("fake", fake), ("real", real))
    ]
    comparison = measure.Comparison(*crowds, k=k, seed=7)
    assert list(comparison.whole().values()) == pytest.approx(want, abs=1e-12)
    assert comparison.part(np.arange(len(fake))) == pytest.approx(want, abs=1e-9)
    part = RNG(3).permutation(len(fake))[:500]
    some = comparison.some.pooled[part]
    want = brute_precision(real, some, k), brute_precision(some, real, k)
    assert comparison.part(part)[1] == pytest.approx(want[1], abs=1e-9)
    assert comparison.part(part)[0] == pytest.approx(want[0], abs=1e-9)


class FirstNumbers(torch.nn.Module):
    """A small judge: some random projections of the pixels."""

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
    judge = FirstNumbers()
    fake, real = (torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (90, 120))
    fake = fake**2
    theirs = torchmetrics.FrechetInceptionDistance(feature=judge, input_img_size=(3, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = [gaussian_of(judge(images).numpy()) for images in (fake, real)]
    assert gaussian_distance(*ours[0], *ours[1]) == pytest.approx(float(theirs.compute()), rel=1e-6)
    score = scores.InceptionScore(feature=judge, splits=1)
    score.update(fake)
    assert inception_score(judge(fake).softmax(1).numpy()) == pytest.approx(
        float(score.compute()[0]), rel=1e-6
    )


# Intervals


def coverage(metric, truth, draw, trials, seed):
    """How many of the intervals of fresh samples hold the truth."""
    chance, held = RNG(seed), 0
    for i in range(trials):
        rows = draw(chance)
        halves = half_sample_intervals(lambda part, rows=rows: metric(rows[part]), len(rows), 100, seed=i)
        low, high = interval(metric(rows), halves)
        held += low <= truth <= high
    return held


@pytest.mark.parametrize("f, n, off, spread", [(4, 80, 0.3, 1.2), (16, 60, 0.3, 0.8)])
def test_intervals_hold_the_mean_distance_as_often_as_they_say(f, n, off, spread):
    reference = Gaussian(np.zeros(f), np.eye(f))

    def distance(rows):
        return gaussian_distance(*reference, *gaussian_of(rows), root_a=reference.cov)

    def draw(chance):
        return off + spread * chance.normal(size=(n, f))

    truth = np.mean([distance(draw(RNG(10_000 + i))) for i in range(1500)])
    held = coverage(distance, truth, draw, 150, seed=1)
    # 95 % nominal; a small sample costs a little. Far outside 0.88 to 1 would be another kind of interval.
    assert held >= binom.ppf(0.001, 150, 0.93)
    chance, naive = RNG(2), 0
    for _ in range(40):
        rows = draw(chance)
        again = [distance(rows[chance.integers(0, n, n)]) for _ in range(100)]
        low, high = np.quantile(again, [0.025, 0.975])
        naive += low <= truth <= high
    if f == 16:
        assert naive < 30, "the plain bootstrap was expected to fail here"


def test_intervals_of_a_mean_and_of_recall():
    held = coverage(np.mean, 0.0, lambda chance: chance.normal(size=50), 300, seed=0)
    assert binom.ppf(0.001, 300, 0.93) <= held <= binom.ppf(0.999, 300, 0.97)
    wide = coverage(np.mean, 0.5, lambda chance: chance.normal(size=50), 50, seed=0)
    assert wide < 20, "an interval that holds everything is no interval"
    real = RNG(5).normal(size=(150, 3))
    draw = lambda chance: chance.normal(size=(120, 3)) * 0.7  # noqa: E731
    truth = np.mean([precision_recall(real, draw(RNG(i)))[1] for i in range(200)])
    held = coverage(lambda rows: precision_recall(real, rows)[1], truth, draw, 30, seed=3)
    assert held >= binom.ppf(0.001, 30, 0.9)


def test_interval_by_hand():
    halves = np.arange(101.0)
    assert interval(7, halves, level=0.9) == pytest.approx((7 - 45, 7 + 45))
    assert interval(7, halves, level=0.9, share=0.25) == pytest.approx((7 - 22.5, 7 + 22.5))
    assert interval(7, halves, level=0.9, limits=(0, 10)) == (0, 10)
    low, high = interval(
        0, np.array([0.0] * 90 + [10.0] * 10), level=0.9
    )  # seldom much too high, so the truth is lower
    assert (low, high) == pytest.approx((-9, 1))
    assert np.array_equal(
        half_sample_intervals(np.sum, 9, 5, seed=1), half_sample_intervals(np.sum, 9, 5, seed=1)
    )
    assert set(half_sample_intervals(len, 9, 5)) == {4}
    assert half_sample_intervals(lambda part: len(set(part)), 9, 5).tolist() == [4] * 5, "no sample twice"


# Files


def photo(n, seed=0, h=6, w=5):
    """Random coloured bytes."""
    return RNG(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def test_npz_reads_back_with_numpy_and_with_admss_names(tmp_path):
    images, labels = photo(11), np.arange(11) % 4
    save_npz(tmp_path / "x.npz", np.array_split(images, 3), labels)
    with np.load(tmp_path / "x.npz") as file:
        assert file.files == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8 and np.array_equal(file["arr_0"], images)
        assert file["arr_1"].dtype == np.int64 and np.array_equal(file["arr_1"], labels)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:  # what ADM's streaming reader relies on
        assert archive.namelist() == ["arr_0.npy", "arr_1.npy"] and archive.testzip() is None
        with archive.open("arr_0.npy") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == ((11, 6, 5, 3), False, np.dtype("uint8"))
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    save_npz(tmp_path / "y.npz", tensors.split(2), n=11)
    with np.load(tmp_path / "y.npz") as file:
        assert file.files == ["arr_0"] and np.array_equal(file["arr_0"], images)


def test_npz_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, [photo(3)], [0, 1, 2])
    before = path.read_bytes()

    def breaks():
        yield photo(2)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="power"):
        save_npz(path, breaks(), n=5)
    for batches, n, words in (
        ([photo(2)], 3, "2 images, but 3"),
        ([photo(2)], 1, "2 images, but 1"),
        ([photo(1), photo(1, h=7)], 2, "alike"),
        ([photo(1).astype(np.float32)], 1, "float32"),
        ([photo(1)], None, "n is missing"),
    ):
        with pytest.raises(ValueError, match=words):
            save_npz(path, batches, n=n)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_writing_and_reading_keep_no_more_than_a_batch(tmp_path):
    import tracemalloc

    batch = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    tracemalloc.start()
    save_npz(tmp_path / "x.npz", (batch for _ in range(100)), n=800)
    for part in read_images(tmp_path / "x.npz").batches(8):
        assert part.shape == (8, 3, 64, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * batch.nbytes * 4, "800 images are 100 batches"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_all_forms_of_images_are_read_alike(tmp_path, size, compressed):
    images = photo(9, h=8, w=8)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "adm.npz", arr_0=images)
    save(tmp_path / "ours.npz", images=floats.numpy(), labels=np.arange(9))
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i:03d}.png")
    for source in (tmp_path / "adm.npz", str(tmp_path / "ours.npz"), tmp_path / "folder", floats):
        opened = read_images(source)
        batches = list(opened.batches(size))
        assert opened.n == 9 and opened.shape == (3, 8, 8)
        assert all(batch.dtype == torch.float32 and 1 <= len(batch) <= size for batch in batches)
        torch.testing.assert_close(torch.cat(batches), floats, rtol=0, atol=1e-6)


def test_digits_are_the_held_out_ones(split):
    opened = read_images("digits")
    assert opened.shape == (1, 8, 8) and torch.equal(
        torch.cat(list(opened.batches(50))), split.held_out.images
    )


def test_bytes_are_the_nearest():
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = bytes_ / 127.5 - 1
    noise = 0.003 * torch.sin(torch.arange(256.0)).view_as(x)  # below half a step of 1 / 127.5
    assert torch.equal(to_uint8(x + noise), bytes_)
    assert to_uint8(torch.tensor([[[[-9.0, 9.0]]]])).tolist() == [[[[0, 255]]]]


# Judges


def test_the_digit_judge_is_the_one_of_lesson_18(split, judge):
    seen = judge(split.held_out.images)
    assert np.array_equal(seen.pooled, judge.judge.features(split.held_out.images))
    assert np.allclose(seen.probs.sum(1), 1) and np.array_equal(
        seen.probs.argmax(1), judge.judge.mlp.predict(seen.spatial / 16)
    )
    assert np.allclose(seen.spatial, split.held_out.images.flatten(1).numpy() * 8 + 8)


def test_judge_digits_is_what_it_was(split, judge):
    some = split.train.images[:200], split.train.labels[:200]
    report = evaluate_digits(*some, split)
    assert report["frechet_floor"] == pytest.approx(0.3279, abs=5e-3)
    assert report["accuracy"] == 1 and report["nearest_train"] == 0
    a, b = (judge(x).pooled for x in (some[0], split.held_out.images))
    covs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    middle = np.real(sqrtm(covs[0] @ covs[1] + 1e-12 * np.eye(64)))
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * middle)
    assert report["frechet"] == pytest.approx(want, abs=1e-3)


def random_inception(folder):
    """Inception with random weights, and the file that holds them."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    net = inception.FeatureExtractorInceptionV3
    made = {}

    def take(path, **_):
        made["path"] = path
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", take)
        patch.setattr(net, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        empty = net("x", ["2048"])
    torch.save(empty.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def test_inception_gives_what_adm_asks_of_it(vision, tmp_path):
    path = random_inception(tmp_path)
    judge = measure.InceptionFeatures(path, device="cpu")
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = judge(images)
    assert seen.pooled.shape == (2, 2048) and seen.spatial.shape == (2, 17 * 17 * 7)
    assert seen.probs.shape == (2, 1008) and np.allclose(seen.probs.sum(1), 1, atol=1e-5)
    # The layers one by one, up to the fourth of the mixed_6 family: its 1x1 branch, seven channels, channel last.
    net = judge.net
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resize,
    )

    x = (resize(to_uint8(images).float(), size=(299, 299), align_corners=False) - 128) / 128
    for name in ("Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_1 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_2 "
                 "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c").split():  # fmt: skip
        x = getattr(net, name)(x)
    branch = net.Mixed_6d.branch1x1
    want = torch.relu(branch.bn(branch.conv(x))).numpy()
    assert want.shape == (2, 192, 17, 17)
    got = seen.spatial.reshape(2, 17, 17, 7)
    for y, x_, c in ((0, 0, 0), (3, 11, 6), (16, 2, 4)):
        np.testing.assert_allclose(got[:, y, x_, c], want[:, c, y, x_], rtol=1e-4, atol=1e-6)
    logits = torch.from_numpy(seen.pooled) @ net.fc.weight.T  # without the bias
    np.testing.assert_allclose(seen.probs, logits.softmax(1).numpy(), rtol=1e-3, atol=1e-7)
    grey = judge(images[:, :1])
    np.testing.assert_array_equal(grey.pooled, judge(images[:, :1].expand(-1, 3, -1, -1)).pooled)


def test_weights_that_are_no_weights_are_refused_and_not_run(vision, tmp_path):
    pytest.importorskip("torch_fidelity")

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, words in (
        ("trap", "plain weights"),
        ("text", "plain weights"),
        ("no", "does not exist"),
        ("other", "do not fit"),
    ):
        with pytest.raises(ValueError, match=words):
            measure.open_inception(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_without_a_network_inception_says_so(vision, monkeypatch, tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from urllib.error import URLError

    def offline(*args, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(module, "load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match="cannot be downloaded.*name the file with weights"):
        measure.open_inception()


def test_without_torch_fidelity_inception_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match="need torch-fidelity"):
        measure.open_inception()


# All together


def test_evaluate_equals_the_pieces(split, judge):
    a, b = split.train.images[:300], split.held_out.images
    result = evaluate(a, b, judge, batch_size=37, resamples=0, progress=False)
    got = {name: row["value"] for name, row in result["metrics"].items()}
    one, two = judge(a), judge(b)
    assert got["frechet"] == pytest.approx(frechet_distance(one.pooled, two.pooled), abs=1e-5)
    assert got["spatial_frechet"] == pytest.approx(frechet_distance(one.spatial, two.spatial), abs=1e-4)
    assert got["inception_score"] == pytest.approx(inception_score(one.probs))
    assert (got["precision"], got["recall"]) == precision_recall(two.pooled, one.pooled)
    assert result["notes"] == [] and json.loads(json.dumps(result)) == result


def test_evaluate_reports_intervals_that_repeat(split, judge):
    a = split.train.images[:150]
    results = [
        evaluate(a, split, judge_, resamples=40, progress=False)
        for judge_, split in [(judge, split.held_out)] * 2
    ]
    assert results[0] == results[1]
    for name, row in results[0]["metrics"].items():
        assert row["low"] <= row["value"] <= row["high"] and row["low"] < row["high"], name
        assert ("bias" in row) == ("frechet" in name)
    other = evaluate(a, split.held_out, judge, resamples=40, seed=1, progress=False)
    assert other["metrics"]["frechet"]["value"] == results[0]["metrics"]["frechet"]["value"]
    assert other["metrics"]["frechet"]["low"] != results[0]["metrics"]["frechet"]["low"]


def test_keeping_fewer_changes_balls_and_not_distances(split, judge):
    a = split.train.images[:400]
    all_, some = (
        evaluate(a, split.held_out, judge, keep=n, resamples=60, progress=False) for n in (1000, 100)
    )
    for name in ("frechet", "spatial_frechet", "inception_score"):
        one, two = all_["metrics"][name], some["metrics"][name]
        assert one["value"] == two["value"]
        assert 0.4 < (two["high"] - two["low"]) / (one["high"] - one["low"]) < 2.5, "scaled to all samples"
    assert all_["metrics"]["recall"]["value"] != some["metrics"]["recall"]["value"]


def test_statistics_take_the_place_of_images(split, judge, tmp_path):
    seen = judge(split.train.images)
    known = dict(zip(("mu", "sigma"), gaussian_of(seen.pooled))) | dict(
        zip(("mu_s", "sigma_s"), gaussian_of(seen.spatial))
    )
    np.savez(tmp_path / "stats.npz", **known)
    images = to_uint8(split.train.images[:100]).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "both.npz", arr_0=images, **known)
    a = split.held_out.images
    options = {"features": judge, "resamples": 0, "progress": False}
    full, stats, both = (
        evaluate(a, ref, **options)
        for ref in (split.train.images, tmp_path / "stats.npz", tmp_path / "both.npz")
    )
    for name in (
        "frechet",
        "spatial_frechet",
    ):  # roots of eigenvalues near 0: the last digits are the processor's
        assert stats["metrics"][name]["value"] == pytest.approx(full["metrics"][name]["value"], rel=1e-6)
        assert both["metrics"][name]["value"] == pytest.approx(full["metrics"][name]["value"], rel=1e-6)
    assert "precision" not in stats["metrics"] and any("statistics only" in note for note in stats["notes"])
    read = next(iter(read_images(tmp_path / "both.npz").batches(100)))
    want = precision_recall(judge(read).pooled, judge(a).pooled)
    assert (both["metrics"]["precision"]["value"], both["metrics"]["recall"]["value"]) == want
    assert both["reference"] == {"name": str(tmp_path / "both.npz"), "n": 100, "statistics": True}


def test_a_network_of_ones_own_is_a_judge():
    a, b = (torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) * 2 - 1 for n in (60, 50))
    result = evaluate(a, b, FirstNumbers(), resamples=0, progress=False)
    assert (
        set(result["metrics"]) == {"frechet", "precision", "recall"} and result["features"] == "FirstNumbers"
    )
    want = frechet_distance(*(FirstNumbers()(x).float().numpy() for x in (a, b)))
    assert result["metrics"]["frechet"]["value"] == pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match="must be"):
        ModuleFeatures(torch.nn.Identity(), "cpu")(a)
    lone = evaluate(a, b, lambda x: Features(x.flatten(1)[:, :4].numpy()), resamples=0, progress=False)
    assert lone["features"] == "function"


def test_fewer_samples_than_features_warns_and_says_why(split, judge):
    with pytest.warns(
        UserWarning, match="40 images for 64 pooled and 64 spatial features.*singular.*too large"
    ):
        result = evaluate(split.train.images[:40], split.held_out, judge, resamples=0, progress=False)
    assert len(result["notes"]) == 1


# The command


def refused(capsys, *words):
    """The sentence with which the command ends."""
    assert main(["evaluate", *map(str, words)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dit-nb: error: ")
    return error


def test_the_command_end_to_end(one_judge, split, tmp_path, capsys):
    np.savez_compressed(
        tmp_path / "samples.npz", images=split.train.images[:200], labels=split.train.labels[:200]
    )
    (tmp_path / "png").mkdir()
    for i, image in enumerate(to_uint8(split.held_out.images[:120])[:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "png" / f"{i:03d}.png")
    assert main(["evaluate", str(tmp_path / "samples.npz"), "digits", "--resamples", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["samples"]["n"] == 200 and result["reference"]["n"] == 360 and result["features"] == "digits"
    )
    assert set(result["metrics"]) == {"frechet", "spatial_frechet", "inception_score", "precision", "recall"}
    assert main(["evaluate", str(tmp_path / "samples.npz"), str(tmp_path / "png"), "--resamples", "0"]) == 0
    text = capsys.readouterr().out
    assert "120 images" in text and "Fréchet distance" in text and "interval" not in text
    assert main(["evaluate", str(tmp_path / "png"), "digits", "--resamples", "20", "--level", "0.8"]) == 0
    text = capsys.readouterr().out
    assert "0.8 interval" in text and "bias about" in text
    assert main(["evaluate", str(tmp_path / "png"), "digits", "--keep", "60", "--resamples", "0"]) == 0


def test_bad_input_ends_with_a_sentence(one_judge, split, tmp_path, capsys):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, images=split.train.images[:100])
    say = lambda *words: refused(capsys, *words)  # noqa: E731

    def holds(**arrays):
        np.savez(bad, **arrays)
        return bad

    assert "nowhere is no folder" in say(tmp_path / "nowhere", "digits")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in say(tmp_path / "empty", "digits")
    assert "3x16x16" in say(holds(arr_0=photo(20, h=16, w=16)), "digits")
    assert "3x16x16" in say(good, holds(arr_0=photo(20, h=16, w=16)))
    assert "neither arr_0 nor images" in say(holds(x=np.zeros(3)), "digits")
    assert "float64" in say(holds(arr_0=np.zeros((9, 8, 8, 3))), "digits")
    assert "int64" in say(holds(images=np.zeros((9, 1, 8, 8), dtype=int)), "digits")
    assert "uint8 (9, 8, 8)" in say(holds(arr_0=np.zeros((9, 8, 8), dtype=np.uint8)), "digits")
    assert "arr_0 of object" in say(holds(arr_0=np.array([{}], dtype=object)), "digits")
    broken = split.train.images[:100].clone()
    broken[77, 0, 3, 3] = torch.nan
    assert "NaN or infinity, first in image 77" in say(holds(images=broken), "digits")
    assert "7 images, but balls with k = 3 need at least 8" in say(
        holds(images=split.train.images[:7]), "digits"
    )
    assert "keep: 5 images" in say(good, "digits", "--keep", "5")
    assert "need at least 5" in say(good, holds(images=split.train.images[:4]))
    assert "holds no images" in say(holds(mu=np.zeros(64), sigma=np.eye(64)), "digits")
    assert "2048 pooled features, but the judge has 64" in say(
        good, holds(mu=np.zeros(2048), sigma=np.eye(2048))
    )
    assert "do not fit" in say(good, holds(mu=np.zeros(64), sigma=np.eye(63)))
    np.savez(tmp_path / "photos.npz", arr_0=photo(20))
    assert "wants 1x8x8" in say(tmp_path / "photos.npz", tmp_path / "photos.npz", "--features", "digits")
    assert "level is 2" in say(good, "digits", "--level", "2")
    bad.write_bytes(good.read_bytes()[:-300])
    assert "cannot be read" in say(bad, "digits")
    bad.write_text("hello")
    assert "cannot be read" in say(bad, "digits")


def test_other_sizes_are_told_apart(judge):
    with pytest.raises(ValueError, match="3x8x8, but the digit judge wants 1x8x8"):
        judge(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="must be one of digits, inception"):
        measure.open_features("clip", (3, 8, 8))


# The protocol


def test_the_papers_protocol():
    paper = measure.PRESETS["paper"]
    assert (paper["n"], paper["steps"], paper["cfg_scale"], paper["guided_channels"]) == (
        50_000,
        "250",
        1.5,
        3,
    )
    assert paper["vae"] == "stabilityai/sd-vae-ft-ema" and paper["sampler"] == "ddpm" and not paper["clip_x0"]
    from inspect import signature

    from dit_nb.pretrained import sample_images

    assert set(paper) - set(signature(sample_images).parameters) == {"vae"}


def test_labels_are_uniform_and_random():
    labels = uniform_labels(50_000, 1000, seed=3)
    counts = np.bincount(labels, minlength=1000)
    assert labels.dtype == torch.long and counts.min() > 15 and counts.max() < 100
    assert 0.85 < counts.var() / 50 < 1.15, "Poisson: not 50 of each"
    assert torch.equal(labels, uniform_labels(50_000, 1000, seed=3))
