"""Fifty thousand images, five numbers, and for each number how much of it is chance."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dit_nb.evaluation import (
    covariance_root,
    gaussian_distance,
    in_knn_manifold,
    inception_score,
    precision_recall,
)
from dit_nb.features import Features, open_features, sizes
from dit_nb.sample_files import Images, read_images
from dit_nb.utils import show_bar


class Gaussian(NamedTuple):
    "Mean and covariance of features."

    mean: np.ndarray  # (F,)
    cov: np.ndarray  # (F, F)


class Moments:
    "Mean and covariance of rows that come in batches. No batch is kept."

    def __init__(self):
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(
        self,
        rows: np.ndarray,  # (B, F)
    ) -> None:
        "Merge a batch with all that came before."
        if not len(rows):
            return
        rows = np.asarray(rows, dtype=np.float64)
        mean, before = rows.mean(0), self.n
        self.n += len(rows)
        off, step = rows - mean, mean - self.mean
        self.squares = self.squares + off.T @ off + np.outer(step, step) * (before * len(rows) / self.n)
        self.mean = self.mean + step * (len(rows) / self.n)

    def gaussian(self) -> Gaussian:
        "What the rows so far amount to; at least two are needed."
        return Gaussian(self.mean, self.squares / (self.n - 1))


def gaussian_of(
    rows: np.ndarray,  # (N, F)
) -> Gaussian:
    "Mean and covariance of rows that are all there."
    moments = Moments()
    moments.add(rows)
    return moments.gaussian()


class RunningScore:
    "The inception score of probabilities that come in batches: the mean over splits, as ADM takes it."

    def __init__(
        self,
        split: int = 5000,  # images in a split
    ):
        self.split, self.scores = split, []
        self.n, self.total, self.negentropy = 0, 0.0, 0.0

    def add(
        self,
        probs: np.ndarray,  # (B, K)
    ) -> None:
        "Fill the split that is open; close it where it is full."
        probs = np.asarray(probs, dtype=np.float64)
        while len(probs):
            some, probs = np.split(probs, [self.split - self.n])
            self.n, self.total = self.n + len(some), self.total + some.sum(0)
            self.negentropy += (some * np.log(some.clip(1e-300))).sum()
            if self.n == self.split:
                self.scores.append(self.open_score())
                self.n, self.total, self.negentropy = 0, 0.0, 0.0

    def open_score(self) -> float:
        "The score of the split that is open."
        mean = self.total / self.n
        return float(np.exp(self.negentropy / self.n - (mean * np.log(mean.clip(1e-300))).sum()))

    def value(self) -> float:
        "The mean over splits; the last may be smaller."
        return float(np.mean(self.scores + ([self.open_score()] if self.n else [])))


def half_sample_intervals(
    statistic: Callable,  # from indices of samples to a number, or to an array of numbers
    n: int,  # samples
    resamples: int = 200,  # random halves
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:  # (resamples, ...)
    "A statistic of random halves of the samples."
    chance = np.random.default_rng(seed)
    bar = tqdm(range(resamples), desc="resampling", leave=False, disable=not show_bar(progress))
    return np.array([statistic(chance.permutation(n)[: n // 2]) for _ in bar])


def interval(
    value: float,  # measured on all samples
    halves: np.ndarray,  # (R,) measured on random halves
    level: float = 0.95,  # how often it should hold the mean over many draws of so many samples
    share: float = 1.0,  # of the samples, were kept for the halves
    limits: tuple[float, float] = (-np.inf, np.inf),  # that the statistic cannot leave
) -> tuple[float, float]:
    "From where to where a number may vary by chance, with other samples of the same number."
    off = (halves - halves.mean()) * share**0.5
    low, high = np.quantile(off, [(1 - level) / 2, (1 + level) / 2])
    return tuple(float(np.clip(edge, *limits)) for edge in (value - high, value - low))


@dataclass
class FeatureStats:
    "What remains of images when a judge has looked at them."

    name: str
    n: int
    pooled: Gaussian | None = None
    spatial: Gaussian | None = None
    score: float | None = None
    kept: Features | None = None  # of some images, chosen at random


def extract_features(
    images: Images,
    judge: Callable[[Tensor], Features],
    batch_size: int = 64,
    keep: int = 10_000,  # images whose features are kept
    seed: int = 0,
    progress: bool = True,
) -> FeatureStats:
    "Look at each image once."
    chosen = np.zeros(images.n, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(images.n)[:keep]] = True
    moments, score, kept, done = (Moments(), Moments()), RunningScore(), [], 0
    bar = tqdm(total=images.n, desc=images.name[-30:], unit=" images", disable=not show_bar(progress))
    for batch in images.batches(batch_size):
        if not torch.isfinite(batch).all():
            first = done + int((~torch.isfinite(batch)).flatten(1).any(1).nonzero()[0])
            raise ValueError(f"{images.name} holds NaN or infinity, first in image {first}.")
        seen = judge(batch)
        for running, part in zip((*moments, score), seen):
            if part is not None:
                running.add(part)
        some = chosen[done : done + len(batch)]
        kept.append([None if part is None else part[some] for part in seen])
        done += len(batch)
        bar.update(len(batch))
    bar.close()
    parts = [None if part[0] is None else np.concatenate(part) for part in zip(*kept)]
    crowd = FeatureStats(images.name, done, kept=Features(*parts) if parts else None)
    crowd.pooled, crowd.spatial = (m.gaussian() if m.n > 1 else None for m in moments)
    crowd.score = score.value() if score.n or score.scores else None
    return with_statistics(crowd, images.statistics)


def with_statistics(crowd: FeatureStats, known: dict[str, np.ndarray]) -> FeatureStats:
    "Statistics that a file brings go before those of its images: ADM's are of the whole training set."
    for name, mean, cov in (("pooled", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
        if mean in known and cov in known:
            gaussian = Gaussian(np.float64(known[mean]).reshape(-1), np.float64(known[cov]))
            f = len(gaussian.mean)
            if gaussian.cov.shape != (f, f) or not all(np.isfinite(part).all() for part in gaussian):
                raise ValueError(f"{crowd.name} has {mean} and {cov} that do not fit, or hold NaN.")
            setattr(crowd, name, gaussian)
    return crowd


class Comparison:
    "Samples against real images: every number that the judge and the reference allow."

    def __init__(
        self,
        fake: FeatureStats,
        real: FeatureStats,
        k: int = 3,  # which neighbour a ball reaches to
        seed: int = 0,  # of which samples halves are taken from
    ):
        self.fake, self.real, self.k, self.roots = fake, real, k, {}
        for name in ("pooled", "spatial"):
            mine, other = getattr(fake, name), getattr(real, name)
            if mine is not None and other is not None:
                if mine.mean.shape != other.mean.shape:
                    got, want = len(other.mean), len(mine.mean)
                    raise ValueError(f"{real.name} has {got} {name} features, but the judge has {want}.")
                self.roots[name] = covariance_root(other.cov)
        some = np.random.default_rng(seed).permutation(len(fake.kept.pooled))[:10_000]
        self.some = Features(*(None if part is None else part[some] for part in fake.kept))

    def distances(self, gaussian: Callable[[str], Gaussian]) -> dict[str, float]:
        "Fréchet distances from the reference, by pooled and by spatial features."
        names = {"pooled": "frechet", "spatial": "spatial_frechet"}
        return {
            names[name]: gaussian_distance(*getattr(self.real, name), *gaussian(name), root_a=root)
            for name, root in self.roots.items()
        }

    def whole(self) -> dict[str, float]:
        "Every number, of all samples."
        numbers = self.distances(lambda name: getattr(self.fake, name))
        if self.fake.score is not None:
            numbers["inception_score"] = self.fake.score
        if self.real.kept is not None:
            pair = precision_recall(self.real.kept.pooled, self.fake.kept.pooled, self.k)
            numbers["precision"], numbers["recall"] = pair
        return numbers

    def part(self, indices: np.ndarray) -> list[float]:
        "The same numbers, of some of the samples."
        some = self.some
        numbers = list(self.distances(lambda name: gaussian_of(getattr(some, name)[indices])).values())
        if some.probs is not None:
            numbers.append(inception_score(some.probs[indices]))
        if self.real.kept is not None:
            inside, across, among = self.balls
            reach = among[indices][:, indices].topk(self.k + 1, largest=False).values[:, -1]
            covered = (across[:, indices] <= reach).any(1)
            numbers += [float(inside[indices].mean()), float(covered.double().mean())]
        return numbers

    @cached_property
    def balls(self) -> tuple[np.ndarray, Tensor, Tensor]:
        "Which samples are realistic; how far they are from real images; and from each other."
        fake, real = self.some.pooled, self.real.kept.pooled
        return in_knn_manifold(fake, real, self.k), near(real, fake), near(fake, fake)


def near(a: np.ndarray, b: np.ndarray) -> Tensor:  # (N, M)
    "All distances: taken in float64, held in float32."
    a, b = (torch.from_numpy(np.asarray(x, dtype=np.float64)) for x in (a, b))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(some, b, compute_mode=exact).float() for some in a.split(1000)])


def evaluate(
    samples,  # see `read_images`
    reference,  # see `read_images`: the real images, or their statistics
    features=None,  # inception, digits, a network, or any judge; by default what fits the size of the images
    weights: str | Path | None = None,  # a local file of Inception's
    size: int | None = None,  # side that pictures in folders are cropped to
    batch_size: int = 64,
    keep: int = 10_000,  # images kept for balls and intervals; ADM keeps all 50,000 samples
    k: int = 3,  # which neighbour a ball reaches to
    resamples: int = 200,  # random halves for the intervals; 0 for none
    level: float = 0.95,  # of the intervals
    seed: int = 0,  # of which images are kept, and of the halves
    progress: bool = True,
) -> dict:  # for JSON
    "Compare samples with real images: distances, inception score, precision and recall, with intervals."
    if not 0 < level < 1 or min(k, batch_size, keep) < 1 or resamples < 0:
        got = f"level is {level}, k {k}, batch_size {batch_size}, keep {keep}, resamples {resamples}"
        raise ValueError(f"{got}, but level must lie between 0 and 1, the others be 1 or more (resamples 0).")
    mine, real = open_both(samples, reference, size)
    for name, count, least in (
        (mine.name, mine.n, 2 * k + 2),
        (real.name, real.n, k + 2),
        ("keep", keep, 2 * k + 2),
    ):
        if 0 < count < least:
            raise ValueError(f"{name}: {count} images, but balls with k = {k} need at least {least}.")
    judge = open_features(features, mine.shape, weights)
    fake, true = (
        extract_features(images, judge, batch_size, keep, seed, progress) for images in (mine, real)
    )
    comparison = Comparison(fake, true, k, seed)
    found = with_intervals(comparison, resamples, level, seed, progress)
    return {
        "samples": {"name": mine.name, "n": mine.n},
        "reference": {"name": real.name, "n": real.n, "statistics": bool(real.statistics)},
        "features": getattr(judge, "name", type(judge).__name__),
        "metrics": found,
        **{"level": level, "resamples": resamples, "seed": seed, "keep": keep, "k": k},
        "notes": notes_on(fake, true, real.statistics, found),
    }


def with_intervals(comparison: Comparison, resamples: int, level: float, seed: int, progress: bool) -> dict:
    "Every number with its interval, and for a distance the part that the number of samples added."
    found = {name: {"value": float(value)} for name, value in comparison.whole().items()}
    if not resamples:
        return found
    some, kept = len(comparison.some.pooled), len(comparison.fake.kept.pooled)
    halves = half_sample_intervals(comparison.part, some, resamples, seed, progress)
    everyone = comparison.part(np.arange(some))
    for (name, row), parts, whole in zip(found.items(), halves.T, everyone):
        share = some / (kept if name in ("precision", "recall") else comparison.fake.n)
        low = 1 if name == "inception_score" else 0
        high = 1 if name in ("precision", "recall") else np.inf
        row["low"], row["high"] = interval(row["value"], parts, level, share, (low, high))
        if "frechet" in name:  # a half has about twice the bias of the whole
            row["bias"] = float(parts.mean() - whole) * share
    return found


def open_both(samples, reference, size: int | None) -> tuple[Images, Images]:
    "Samples and reference, which must be of one size; real pictures in a folder are cropped to it."
    mine = read_images(samples, size)
    if not mine.n:
        raise ValueError(f"{mine.name} holds no images, but samples must.")
    real = read_images(reference, min(mine.shape[1:]), mine.shape[0])
    if real.n and real.shape != mine.shape:
        raise ValueError(
            f"{mine.name} has images of {sizes(mine.shape)}, but {real.name} of {sizes(real.shape)}."
        )
    return mine, real


def notes_on(fake: FeatureStats, real: FeatureStats, statistics: dict, found: dict) -> list[str]:
    "What could not be measured; and a warning where there are fewer images than features."
    notes = []
    if "precision" not in found:
        notes.append(f"{real.name} holds statistics only: no precision and recall.")
    if "spatial_frechet" not in found and fake.spatial is not None:
        notes.append(f"{real.name} has no spatial statistics: no spatial distance.")
    for crowd, known in ((fake, {}), (real, statistics)):
        few = {
            name: len(gaussian.mean)
            for name, key in (("pooled", "mu"), ("spatial", "mu_s"))
            if (gaussian := getattr(crowd, name)) and key not in known and crowd.n <= len(gaussian.mean)
        }
        if few:
            counts = " and ".join(f"{count} {name}" for name, count in few.items())
            notes.append(
                f"{crowd.name} has {crowd.n} images for {counts} features: the covariance is singular and the "
                "Fréchet distance far too large; compare it only at equal counts."
            )
            warnings.warn(notes[-1], stacklevel=3)
    return notes


# The paper's headline numbers (Table 2), by the names of `sample_images`. On all four latent channels
# (guided_channels 4) cfg_scale 1.375 is about the same. Labels: see `uniform_labels`.
PRESETS = {
    "paper": {
        "n": 50_000,
        "sampler": "ddpm",
        "steps": "250",
        "cfg_scale": 1.5,
        "guided_channels": 3,
        "variance": "learned",
        "clip_x0": False,
        "vae": "stabilityai/sd-vae-ft-ema",
    }
}


def uniform_labels(
    n: int,
    num_classes: int,
    seed: int = 0,
) -> Tensor:  # (n,) long
    "Labels drawn uniformly at random, as the paper draws them: some classes get more than others."
    return torch.randint(num_classes, (n,), generator=torch.Generator().manual_seed(seed))
