"""Evaluation as in the paper: Fréchet distances, inception score, precision and recall, each with an interval."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dit_nb.errors import UserError, _check_number, _is_number, _shown
from dit_nb.evaluation import (
    _covariance_root,
    gaussian_frechet_distance,
    in_knn_manifold,
    inception_score,
    precision_recall,
)
from dit_nb.features import Features, _open_extractor, _shape_text
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
    if not _is_number(level) or not 0 < level < 1:
        raise UserError(f"level is {_shown(level)}, but must be a number between 0 and 1.")
    for name, count in {"k": k, "batch_size": batch_size, "max_features": max_features}.items():
        _check_number(name, count, int)
    for name, count in {"resamples": resamples, "seed": seed}.items():
        _check_number(name, count, int, positive=False)
    mine, real = _open_both(samples, reference, size)
    for name, count, least in (
        (mine.name, mine.n, 2 * k + 2),
        (real.name, real.n, k + 2),
        ("max_features", max_features, 2 * k + 2),
    ):
        if 0 < count < least:
            raise UserError(f"{name}: {count} images, but precision and recall with k = {k} need {least}.")
    extractor = _open_extractor(features, mine.shape, weights)
    fake, true = (
        _extract_features(images, extractor, batch_size, max_features, seed, progress)
        for images in (mine, real)
    )
    found = _with_intervals(_Comparison(fake, true, k, seed), resamples, level, seed, progress)
    return {
        "samples": {"name": mine.name, "n": mine.n},
        "reference": {"name": real.name, "n": real.n, "statistics": bool(real.statistics)},
        "features": getattr(extractor, "name", type(extractor).__name__),
        "metrics": found,
        **{"level": level, "resamples": resamples, "seed": seed, "max_features": max_features, "k": k},
        "notes": _notes(fake, true, real.statistics, found),
    }


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
            warnings.warn(notes[-1], stacklevel=3)
    return notes


# Statistics that are updated batch by batch


class _MeanCov(NamedTuple):
    "Mean and covariance of features."

    mean: np.ndarray  # (F,)
    cov: np.ndarray  # (F, F)


class _RunningMeanCov:
    "Mean and covariance of rows that come in batches, merged in float64 (Chan, Golub and LeVeque 1979)."

    def __init__(self):
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, rows: np.ndarray) -> None:
        """Merge a batch with all that came before."""
        if not len(rows):
            return
        rows = np.asarray(rows, dtype=np.float64)
        mean, before = rows.mean(0), self.n
        self.n += len(rows)
        off, step = rows - mean, mean - self.mean
        self.squares = self.squares + off.T @ off + np.outer(step, step) * (before * len(rows) / self.n)
        self.mean = self.mean + step * (len(rows) / self.n)

    def result(self) -> _MeanCov:
        "Mean and covariance of all rows so far, of which there must be two or more."
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


def _extract_features(
    images: _ImageSource,
    extractor: Callable[[Tensor], Features],
    batch_size: int = 64,
    max_features: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> _FeatureStats:
    """Features of all images, batch by batch: their statistics, and the features of some, chosen at random.

    Statistics that the source's file holds replace those of its images: ADM's are of the whole training set.
    """
    chosen = np.zeros(images.n, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(images.n)[:max_features]] = True
    moments, score, kept, done = (_RunningMeanCov(), _RunningMeanCov()), _RunningInceptionScore(), [], 0
    values = _RangeCheck(images.argument)
    with _progress_bar(desc=images.name[-30:], shown=progress, total=images.n, unit=" images") as bar:
        for batch in images.batches(batch_size):
            values.add(batch)
            seen = extractor(batch)
            if not isinstance(seen, Features):
                raise UserError(f"features returns a {type(seen).__name__}, but must return Features.")
            for running, part in zip((*moments, score), seen):
                if part is not None:
                    running.add(part)
            some = chosen[done : done + len(batch)]
            kept.append([None if part is None else part[some] for part in seen])
            done += len(batch)
            bar.update(len(batch))
    values.finish()
    parts = [None if part[0] is None else np.concatenate(part) for part in zip(*kept)]
    stats = _FeatureStats(images.name, done, kept=Features(*parts) if parts else None)
    stats.pooled, stats.spatial = (m.result() if m.n > 1 else None for m in moments)
    stats.score = score.value() if score.n or score.scores else None
    return _with_file_statistics(stats, images.statistics)


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
            pair = precision_recall(self.real.kept.pooled, self.fake.kept.pooled, self.k)
            numbers["precision"], numbers["recall"] = pair
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
        return in_knn_manifold(fake, real, self.k), _pairwise(real, fake), _pairwise(fake, fake)


def _pairwise(a: np.ndarray, b: np.ndarray) -> Tensor:  # (N, M)
    "All distances, computed in float64 and kept in float32."
    x, y = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (a, b))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(some, y, compute_mode=exact).float() for some in x.split(1000)])


def _half_sample_values(
    statistic: Callable, n: int, resamples: int = 200, seed: int = 0, progress: bool = False
) -> np.ndarray:
    """Compute a statistic on random halves of the samples, for `_half_sample_interval`.

    A half has no sample twice, as a bootstrap has, so that neither the bias of a Fréchet distance nor the nearest
    neighbors are distorted (McCarthy 1969; Præstgaard and Wellner 1993)."""
    rng = np.random.default_rng(seed)
    rounds = _progress_bar(range(resamples), "resampling", progress, leave=False)
    return np.array([statistic(rng.permutation(n)[: n // 2]) for _ in rounds])


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


def _with_intervals(comparison: _Comparison, resamples: int, level: float, seed: int, progress: bool) -> dict:
    "Every metric with its interval, and for a distance the bias, the part that the finite number of samples added."
    found = {name: {"value": float(value)} for name, value in comparison.of_all().items()}
    if not resamples:
        return found
    some, kept = len(comparison.some.pooled), len(comparison.fake.kept.pooled)
    halves = _half_sample_values(comparison.of_subset, some, resamples, seed, progress)
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
