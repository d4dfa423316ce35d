"""Evaluation as in the paper: Fréchet distances, inception score, precision and recall, each with an interval."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dit_nb.errors import UserError, _check_number, _is_number, _shown
from dit_nb.evaluation import _covariance_root, gaussian_frechet_distance, inception_score
from dit_nb.features import Features, _open_extractor, _shape_text
from dit_nb.image_check import _Ranks
from dit_nb.image_range import _RangeCheck
from dit_nb.sample_files import _ImageSource, _open_image_source
from dit_nb.utils import _progress_bar

__all__ = ["evaluate"]


def evaluate(
    samples,
    reference,
    features=None,
    weights: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    batch_size: int = 64,
    max_features: int = 10_000,
    k: int = 3,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Compare samples with real images: distances, inception score, precision and recall, with intervals.

    An interval says how the value would vary over other samples of the same number. It does not cover another
    seed of training, another reference, or another feature extractor.

    A half has at most 5,000 samples, so the time of the intervals does not grow with the number of images. With
    Inception's 2048 and 2023 features a half took 4.9 seconds of one core (Intel Xeon): 200 take a quarter of an hour
    of one core, and less on several. `resamples=0` takes none. The command shares images and halves between processes.

    Args:
        samples: samples in any form that `_open_image_source` opens
        reference: real images in any such form, or ADM's statistics of them
        features: feature extractor: "inception", "digits", "emoji", a network, or any callable from images to
            `Features`; "digits" for images of 1x8x8 and "inception" for all others by default
        weights: local file of Inception's weights; downloaded once by default
        size: side, or (height, width), that images in folders are cropped to; that of the first samples by default
        batch_size: images whose features are extracted at a time
        max_features: images whose features are kept for precision, recall and intervals; ADM keeps all 50,000 samples
        k: which nearest neighbor sets the radius for precision and recall
        resamples: random halves of the samples for the intervals; 0 for no intervals
        level: confidence level of the intervals
        seed: seed of which images are kept, and of the random halves
        progress: show progress bars

    Returns:
        A dict for JSON: "samples", "reference", "features", "metrics" (name to "value", "low", "high" and for
        distances "bias", the part that the finite number of samples added), the settings, and "notes"

    Raises:
        UserError: if images cannot be read, do not fit each other or the extractor, or are too few for `k`
    """
    settings = _Settings(batch_size, max_features, k, resamples, level, seed, progress)
    settings.check()
    mine, real = _open_both(samples, reference, size)
    _check_counts(mine, real, settings)
    return _measure(mine, real, _open_extractor(features, mine.shape, weights), settings)


class _Settings(NamedTuple):
    "How samples are measured: the arguments of `evaluate`."

    batch_size: int = 64
    max_features: int = 10_000
    k: int = 3
    resamples: int = 200
    level: float = 0.95
    seed: int = 0
    progress: bool = True

    def check(self) -> None:
        "Raise a UserError for a setting that is out of range."
        if not _is_number(self.level) or not 0 < self.level < 1:
            raise UserError(f"level is {_shown(self.level)}, but must be a number between 0 and 1.")
        for name in ("k", "batch_size", "max_features"):
            _check_number(name, getattr(self, name), int)
        for name in ("resamples", "seed"):
            _check_number(name, getattr(self, name), int, positive=False)


def _measure(
    mine: _ImageSource,
    real: _ImageSource,
    extractor: Callable[[Tensor], Features],
    settings: _Settings,
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> dict:
    """Measure samples: see `evaluate`. Several processes share images and halves; only the first has a result.

    Features are computed in the same batches and used in the same order for any number of processes, so the numbers
    are the same: bit for bit on processors and threads that compute the same features.
    """
    fake, true = (_extract_features(images, extractor, settings, ranks) for images in (mine, real))
    comparison = _Comparison(fake, true, settings.k, settings.seed)
    halves = _values_of_halves(comparison, settings, ranks)
    if ranks.rank:
        return {}
    found = _with_intervals(comparison, halves, settings.level)
    shown = {name: getattr(settings, name) for name in ("level", "resamples", "seed", "max_features", "k")}
    return {
        "samples": {"name": mine.name, "n": mine.n},
        "reference": {"name": real.name, "n": real.n, "statistics": bool(real.statistics)},
        "features": getattr(extractor, "name", type(extractor).__name__),
        "metrics": found,
        **shown,
        "notes": _notes(fake, true, real.statistics, found),
    }


def _check_counts(mine: _ImageSource, real: _ImageSource, settings: _Settings) -> None:
    "Raise a UserError if there are too few images for precision and recall."
    k = settings.k
    for name, count, least in (
        (mine.name, mine.n, 2 * k + 2),
        (real.name, real.n, k + 2),
        ("max_features", settings.max_features, 2 * k + 2),
    ):
        if 0 < count < least:
            raise UserError(f"{name}: {count} images, but precision and recall with k = {k} need {least}.")


def _open_both(samples, reference, size: int | tuple[int, int] | None) -> tuple[_ImageSource, _ImageSource]:
    "Samples, and a reference of the same size: real images in a folder are cropped to it."
    mine = _open_image_source(samples, size, name="samples")
    if not mine.n:
        raise UserError(f"{mine.name} holds no images, but samples must.")
    real = _open_image_source(reference, mine.shape[1:], mine.shape[0], name="reference")
    if real.n and real.shape != mine.shape:
        raise UserError(
            f"{mine.name} has images of {_shape_text(mine.shape)}, but {real.name} of {_shape_text(real.shape)}."
        )
    for source, argument in ((mine, "samples"), (real, "reference")):
        source.argument = argument if source.name == "images" else f"{argument} ({source.name})"
    return mine, real


def _notes(fake: "_FeatureStats", real: "_FeatureStats", statistics: dict, found: dict) -> list[str]:
    "What could not be measured; and a warning if there are fewer images than features."
    notes = []
    if "precision" not in found:
        notes.append(f"{real.name} holds statistics only: no precision and recall.")
    if "spatial_frechet" not in found and fake.spatial is not None:
        notes.append(f"{real.name} has no spatial statistics: no spatial distance.")
    for stats, known in ((fake, {}), (real, statistics)):
        few = {
            name: len(gaussian.mean)
            for name, key in (("pooled", "mu"), ("spatial", "mu_s"))
            if (gaussian := getattr(stats, name)) and key not in known and stats.n <= len(gaussian.mean)
        }
        if few:
            counts = " and ".join(f"{count} {name}" for name, count in few.items())
            notes.append(
                f"{stats.name} has {stats.n} images for {counts} features: the covariance is singular and the "
                "Fréchet distance far too large; compare it only at equal counts."
            )
            warnings.warn(notes[-1], stacklevel=4)
    return notes


# Statistics that are updated batch by batch


class _MeanCov(NamedTuple):
    "Mean and covariance of features."

    mean: np.ndarray  # (F,)
    cov: np.ndarray  # (F, F)


class _RunningMeanCov:
    """Mean and covariance of rows that come in batches, merged in float64 (Chan, Golub and LeVeque 1979).

    At least `at_once` rows are merged at a time: merging costs as much memory traffic for one row as for many.
    """

    def __init__(self, at_once: int = 1024):
        self.at_once, self.n, self.waiting = at_once, 0, []
        self.merged, self.mean, self.squares = 0, 0.0, 0.0  # rows merged, their mean, squares around it

    def add(self, rows: np.ndarray) -> None:
        """Take a batch, after all that came before."""
        self.n += len(rows)
        self.waiting.append(np.asarray(rows, dtype=np.float64))
        if self.n - self.merged >= self.at_once:
            self._merge()

    def _merge(self) -> None:
        rows, self.waiting = np.concatenate(self.waiting), []
        mean, before, self.merged = rows.mean(0), self.merged, self.n
        step = mean - self.mean
        between = step * (before * len(rows) / self.n) ** 0.5  # as if it were one more row
        off = np.vstack([rows - mean, between])
        self.squares = self.squares + off.T @ off
        self.mean = self.mean + step * (len(rows) / self.n)

    def result(self) -> _MeanCov:
        "Mean and covariance of all rows so far, of which there must be two or more."
        if self.merged < self.n:
            self._merge()
        return _MeanCov(self.mean, self.squares / (self.n - 1))


def _mean_cov(rows: np.ndarray) -> _MeanCov:
    running = _RunningMeanCov()
    running.add(rows)
    return running.result()


class _RunningInceptionScore:
    "Inception score of probabilities that come in batches: the mean over splits, as in ADM."

    def __init__(self, split: int = 5000):
        self.split, self.scores = split, []
        self.n, self.total, self.negentropy = 0, 0.0, 0.0

    def add(self, probs: np.ndarray) -> None:
        "Fill the open split with probabilities (B, K), and close it when it is full."
        probs = np.asarray(probs, dtype=np.float64)
        while len(probs):
            some, probs = np.split(probs, [self.split - self.n])
            self.n, self.total = self.n + len(some), self.total + some.sum(0)
            self.negentropy += (some * np.log(some.clip(1e-300))).sum()
            if self.n == self.split:
                self.scores.append(self._open_score())
                self.n, self.total, self.negentropy = 0, 0.0, 0.0

    def _open_score(self) -> float:
        mean = self.total / self.n
        return float(np.exp(self.negentropy / self.n - (mean * np.log(mean.clip(1e-300))).sum()))

    def value(self) -> float:
        "Mean over splits, the last of which may be smaller."
        return float(np.mean(self.scores + ([self._open_score()] if self.n else [])))


@dataclass
class _FeatureStats:
    "Feature statistics of a set of images."

    name: str  # of the set, for messages
    n: int  # images
    pooled: _MeanCov | None = None  # for the Fréchet distance
    spatial: _MeanCov | None = None  # for the spatial Fréchet distance
    score: float | None = None  # inception score
    kept: Features | None = None  # features of images chosen at random


class _FeatureSums:
    "Feature statistics of `n` images that come in batches, in order, and the features of some, chosen at random."

    def __init__(self, n: int, max_features: int = 10_000, seed: int = 0):
        self.chosen = np.zeros(n, dtype=bool)
        self.chosen[np.random.default_rng(seed).permutation(n)[:max_features]] = True
        self.moments, self.score = (_RunningMeanCov(), _RunningMeanCov()), _RunningInceptionScore()
        self.kept, self.done = [], 0

    def add(self, seen: Features) -> None:
        "Take the features of the next images."
        for running, part in zip((*self.moments, self.score), seen):
            if part is not None:
                running.add(part)
        count = len(seen.pooled)
        some = self.chosen[self.done : self.done + count]
        self.kept.append([None if part is None else part[some] for part in seen])
        self.done += count

    def result(self, name: str) -> _FeatureStats:
        "Statistics of all images so far, which are those of the set `name`."
        parts = [None if part[0] is None else np.concatenate(part) for part in zip(*self.kept)]
        pooled, spatial = (moments.result() if moments.n > 1 else None for moments in self.moments)
        score = self.score.value() if self.score.n or self.score.scores else None
        return _FeatureStats(name, self.done, pooled, spatial, score, Features(*parts) if parts else None)


def _extract_features(
    images: _ImageSource,
    extractor: Callable[[Tensor], Features],
    settings: _Settings = _Settings(),  # noqa: B008
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> _FeatureStats:
    """Features of all images, batch by batch: their statistics, and the features of some, chosen at random.

    Statistics that the source's file holds replace those of its images: ADM's are of the whole training set.
    """
    sums = _FeatureSums(images.n, settings.max_features, settings.seed)
    shown = settings.progress and ranks.rank == 0
    with _progress_bar(desc=images.name[-30:], shown=shown, total=images.n, unit=" images") as bar:
        for seen in _features_in_order(images, extractor, settings.batch_size, ranks):
            sums.add(seen)
            bar.update(len(seen.pooled))
    return _with_file_statistics(sums.result(images.name), images.statistics)


def _features_in_order(
    images: _ImageSource, extractor: Callable[[Tensor], Features], batch_size: int, ranks: _Ranks
) -> Iterator[Features]:
    "Features of each batch, in order. The processes take batches in turn; each gets the features of all."
    values, size = _RangeCheck(images.argument), ranks.world_size
    batches = images.batches(batch_size, ranks.rank, size)
    for start in range(0, images.n, batch_size * size):
        with ranks.on_all_ranks():
            values.done, batch = start + batch_size * ranks.rank, next(batches, None)
            seen = None if batch is None else _checked_features(batch, extractor, values)
        yield from (
            part for part in ranks.gather(seen) if part is not None
        )  # None: no batch in the last round
    lows, highs = zip(*ranks.gather((values.low, values.high)))
    values.low, values.high = min(lows), max(highs)
    values.finish()


def _checked_features(
    batch: Tensor, extractor: Callable[[Tensor], Features], values: _RangeCheck
) -> Features:
    "Features of a batch; a UserError if the images are out of range, or the extractor returns anything else."
    values.add(batch)
    seen = extractor(batch)
    if not isinstance(seen, Features):
        raise UserError(f"features returns a {type(seen).__name__}, but must return Features.")
    for name, part in zip(seen._fields, seen):
        if part is not None and len(part) != len(batch):
            raise UserError(
                f"features has {len(part)} {name} rows, but must have one for each of {len(batch)}."
            )
        if part is not None and not np.isfinite(part).all():
            raise UserError(f"features has {name} rows with NaN or infinity, but must be finite.")
    return seen


def _with_file_statistics(stats: _FeatureStats, known: dict[str, np.ndarray]) -> _FeatureStats:
    for name, mean, cov in (("pooled", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
        if mean in known and cov in known:
            gaussian = _MeanCov(np.float64(known[mean]).reshape(-1), np.float64(known[cov]))
            f = len(gaussian.mean)
            if gaussian.cov.shape != (f, f) or not all(np.isfinite(part).all() for part in gaussian):
                raise UserError(f"{stats.name} has {mean} and {cov} that do not fit, or hold NaN.")
            setattr(stats, name, gaussian)
    return stats


# Numbers and their intervals


class _Comparison:
    """Metrics of samples against a reference, of all samples or of a subset; the reference stays as it is.

    Subsets are taken from at most 10,000 samples, whose distances from each other are held in memory.
    """

    def __init__(self, fake: _FeatureStats, real: _FeatureStats, k: int = 3, seed: int = 0):
        self.fake, self.real, self.k, self.roots = fake, real, k, {}
        for name in ("pooled", "spatial"):
            mine, other = getattr(fake, name), getattr(real, name)
            if mine is not None and other is not None:
                if mine.mean.shape != other.mean.shape:
                    got, want = len(other.mean), len(mine.mean)
                    raise UserError(f"{real.name} has {got} {name} features, but the extractor has {want}.")
                self.roots[name] = _covariance_root(other.cov)
        some = np.random.default_rng(seed).permutation(len(fake.kept.pooled))[:10_000]
        self.some = Features(*(None if part is None else part[some] for part in fake.kept))

    def distances(self, gaussian: Callable[[str], _MeanCov]) -> dict[str, float]:
        "Fréchet distances of the reference from `gaussian(name)`, by pooled and by spatial features."
        names = {"pooled": "frechet", "spatial": "spatial_frechet"}
        return {
            names[name]: gaussian_frechet_distance(*getattr(self.real, name), *gaussian(name), root_a=root)
            for name, root in self.roots.items()
        }

    def of_all(self) -> dict[str, float]:
        "Every metric of all samples."
        numbers = self.distances(lambda name: getattr(self.fake, name))
        if self.fake.score is not None:
            numbers["inception_score"] = self.fake.score
        if self.real.kept is not None:
            fake, real = self.fake.kept.pooled, self.real.kept.pooled
            numbers["precision"] = float(_in_manifold(fake, real, self.k).mean())
            numbers["recall"] = float(_in_manifold(real, fake, self.k).mean())
        return numbers

    def of_subset(self, indices: np.ndarray) -> list[float]:
        "The same metrics, in the same order, of some of the samples."
        some = self.some
        numbers = list(self.distances(lambda name: _mean_cov(getattr(some, name)[indices])).values())
        if some.probs is not None:
            numbers.append(inception_score(some.probs[indices]))
        if self.real.kept is not None:
            inside, across, among = self.neighbors
            radius = among[indices][:, indices].topk(self.k + 1, largest=False).values[:, -1]
            covered = (across[:, indices] <= radius).any(1)
            numbers += [float(inside[indices].mean()), float(covered.double().mean())]
        return numbers

    @cached_property
    def neighbors(self) -> tuple[np.ndarray, Tensor, Tensor]:
        "Which samples are realistic; distances of real images from samples, and of samples from each other."
        fake, real = self.some.pooled, self.real.kept.pooled
        across, among = (torch.cat([*map(Tensor.float, _distances(a, fake))]) for a in (real, fake))
        return _in_manifold(fake, real, self.k), across, among


def _in_manifold(points: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:  # (N,) bool
    "What `in_knn_manifold` of lesson 21 finds, several times as fast if there are thousands of features."
    nearest = [some.topk(k + 1, largest=False).values for some in _distances(reference, reference)]
    radius = torch.cat(nearest)[:, -1]  # (M,)
    return torch.cat([(some <= radius).any(1) for some in _distances(points, reference)]).numpy()


def _distances(a: np.ndarray, b: np.ndarray, rows: int = 1000) -> Iterator[Tensor]:
    "All distances of rows of `a` (N, F) from those of `b` (M, F), by one product for each part (`rows`, M); float64."
    center = np.asarray(b, dtype=np.float64).mean(0)
    x, y = (torch.from_numpy(np.asarray(part, dtype=np.float64) - center) for part in (a, b))
    lengths = y.square().sum(1)
    for some in x.split(rows):
        size = some.square().sum(1, keepdim=True) + lengths
        squares = size - 2 * (some @ y.T)
        yield squares.masked_fill_(
            squares < 1e-12 * size, 0
        ).sqrt_()  # equal rows: rounding is less than that


def _half_sample_values(
    statistic: Callable,
    n: int,
    resamples: int = 200,
    seed: int = 0,
    progress: bool = False,
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> np.ndarray:
    """Compute a statistic on random halves of the samples, for `_half_sample_interval`. Processes take them in turn.

    A half has no sample twice, as a bootstrap has, so that neither the bias of a Fréchet distance nor the nearest
    neighbors are distorted (McCarthy 1969; Præstgaard and Wellner 1993)."""
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(n)[: n // 2] for _ in range(resamples)][ranks.rank :: ranks.world_size]
    with ranks.on_all_ranks():
        shown = progress and ranks.rank == 0
        mine = [statistic(half) for half in _progress_bar(halves, "resampling", shown, leave=False)]
    parts = ranks.gather(mine)
    return np.array([parts[i % len(parts)][i // len(parts)] for i in range(resamples)])


def _half_sample_interval(
    value: float,
    halves: np.ndarray,
    level: float = 0.95,
    fraction: float = 1.0,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Confidence interval of the mean of a statistic over sample sets of this size: its bias stays in it."""
    off = (halves - halves.mean()) * fraction**0.5
    low, high = np.quantile(off, [(1 - level) / 2, (1 + level) / 2])
    return float(np.clip(value - high, *limits)), float(np.clip(value - low, *limits))


def _values_of_halves(
    comparison: _Comparison,
    settings: _Settings,
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> np.ndarray:  # (R, M)
    "Every metric of random halves of the samples."
    n, resamples = len(comparison.some.pooled), settings.resamples
    return _half_sample_values(comparison.of_subset, n, resamples, settings.seed, settings.progress, ranks)


def _with_intervals(comparison: _Comparison, halves: np.ndarray, level: float) -> dict:
    "Every metric with its interval, and for a distance the bias, the part that the finite number of samples added."
    found = {name: {"value": float(value)} for name, value in comparison.of_all().items()}
    if not len(halves):
        return found
    some, kept = len(comparison.some.pooled), len(comparison.fake.kept.pooled)
    everything = comparison.of_subset(np.arange(some))
    for (name, row), parts, full in zip(found.items(), halves.T, everything):
        fraction = some / (kept if name in ("precision", "recall") else comparison.fake.n)
        low = 1 if name == "inception_score" else 0
        high = 1 if name in ("precision", "recall") else np.inf
        row["low"], row["high"] = _half_sample_interval(row["value"], parts, level, fraction, (low, high))
        if "frechet" in name:  # a half has about twice the bias of all samples
            row["bias"] = float(parts.mean() - full) * fraction
    return found


# The paper's protocol


# Settings of the paper's headline numbers (Table 2): number of images, VAE, and fields of a `SamplingConfig`. On all
# four latent channels (guided_channels 4), cfg_scale 1.375 is about the same. Labels: see `_uniform_labels`.
_PAPER = {"n": 50_000, "sampler": "ddpm", "steps": "250", "cfg_scale": 1.5, "guided_channels": 3}
_PAPER |= {"variance": "learned", "clip_x0": False, "vae": "stabilityai/sd-vae-ft-ema"}
_PRESETS = {"paper": _PAPER}


def _uniform_labels(n: int, num_classes: int, seed: int = 0) -> Tensor:
    """Sample labels uniformly at random, as the paper does: some classes get more images than others."""
    return torch.randint(num_classes, (n,), generator=torch.Generator().manual_seed(seed))
