"""Quality and diversity of samples by method and scale of guidance, of the bundled digit or emoji model.

`python -m dit_nb.lab.guidance_study --model digits` records the rows of that model in `results/guidance_today.csv`: one
for each method, scale and seed. For emoji add `--worse RUN/checkpoints/step-...`, an earlier checkpoint of the training.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dit_nb.config import SamplingConfig
from dit_nb.data import digits, emoji
from dit_nb.emoji_features import _features, _recognized
from dit_nb.evaluation import DigitClassifier, frechet_distance, precision_recall
from dit_nb.guidance import cfg_eps
from dit_nb.pretrained import block_model, digit_model, emoji_model, load_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.guidance import GuidedBy, MomentumGuidance, cfg_zero_star, rescaled_guidance
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.utils import _atomic_write

__all__ = ["METHODS", "RESULTS", "early_digit_model", "guidance_rows", "guided_by_method"]

RESULTS = Path(__file__).parent / "results" / "guidance_today.csv"
METHODS = ("CFG", "interval", "rescaled", "CFG-Zero*", "APG", "autoguidance", "autoguidance, early")
_COLUMNS = ("model", "method", "scale", "seed", "frechet", "recognized", "precision", "recall", "distance")
_SCALES, _STEPS = (2.0,), 12
_INTERVAL = (100, 600)  # 1000 t of the flow: sigma from 0.11 to 1.5; the best of three, with another seed
_THRESHOLDS = {"digits": 2.0, "emoji": 10.0}  # largest norm of the difference of two predicted x0, for APG


def early_digit_model() -> torch.nn.Module:
    """Load a small digit model that was trained for 400 updates only: a very bad model for autoguidance."""
    return load_model(files("dit_nb") / "models" / "digits_early", device="cpu")[0]


def guided_by_method(
    method: str, scale: float, model: Callable, worse: dict, threshold: float, steps: int = _STEPS
) -> Callable:
    """Wrap a velocity model by one of `METHODS`.

    Args:
        method: one of METHODS
        scale: guidance scale; 1 is none
        model: velocity model (x, 1000 t, y), with a null class
        worse: worse velocity models by method, for the two methods that need one
        threshold: largest norm of the difference, for APG
        steps: number of steps of the sampler; the first has zero velocity in CFG-Zero*
    """
    rule = partial(cfg_eps, cfg_scale=scale)
    if method in worse:
        return GuidedBy(model, rule, worse=worse[method])
    first = 1000 * (1 - 0.5 / steps)  # below the time of the first step, above that of the second
    return {
        "none": lambda: model,
        "CFG": lambda: GuidedBy(model, rule),
        "interval": lambda: GuidedBy(model, rule, interval=_INTERVAL),
        "rescaled": lambda: GuidedBy(model, partial(rescaled_guidance, cfg_scale=scale)),
        "CFG-Zero*": lambda: GuidedBy(model, partial(cfg_zero_star, cfg_scale=scale), zero_from=first),
        "APG": lambda: GuidedBy(model, MomentumGuidance(scale, threshold=threshold), x0_of=RectifiedFlow()),
    }[method]()


class _Subject(NamedTuple):
    "A model, what it is compared with, and how its samples are measured."

    model: Callable
    worse: dict[str, Callable]  # by method
    classes: int
    shape: tuple[int, ...]
    real: np.ndarray  # (M, F) features of held-out images
    features: Callable  # images -> (N, F)
    recognized: Callable  # (images, labels) -> fraction


def _digits(worse: str | None) -> _Subject:
    "The bundled model; as worse ones the small bundled adaLN-Zero model, or a given one, and the early one."
    split, (model, sampling) = digits(), digit_model("cpu")
    small = block_model("adaln_zero", "cpu")[0] if worse is None else load_model(worse, device="cpu")[0]
    velocity = partial(_velocity, sampling=sampling)
    others = {"autoguidance": velocity(small), "autoguidance, early": velocity(early_digit_model())}
    classifier = DigitClassifier(split)
    real = classifier.features(split.held_out.images)
    return _Subject(velocity(model), others, 10, (1, 8, 8), real, classifier.features, classifier.accuracy)


def _emoji(worse: str | None) -> _Subject:
    "The bundled model; as worse one an earlier checkpoint of its training."
    split, (model, sampling) = emoji(), emoji_model("cpu")
    if worse is None:
        raise SystemExit("--worse is missing: give an earlier checkpoint of the emoji model's training.")
    velocity, names = partial(_velocity, sampling=sampling), split.train.class_names
    others = {"autoguidance": velocity(load_model(worse, device="cpu")[0])}

    def recognized(images: Tensor, labels: Tensor) -> float:
        return _recognized(images, [names[k] for k in labels.tolist()])[0]  # the category

    real = _features(split.held_out.images)
    return _Subject(velocity(model), others, len(names), (3, 32, 32), real, _features, recognized)


def _velocity(model: torch.nn.Module, sampling: SamplingConfig) -> NoiseAsVelocity:
    return NoiseAsVelocity(InferenceModel(model), make_diffusion(sampling))


def _distance_within(images: Tensor, labels: Tensor) -> float:
    "Mean distance (RMS of a pixel) between two samples of the same class: the diversity that guidance costs."
    pixels = images.clamp(-1, 1).flatten(1)
    within = [torch.pdist(pixels[labels == k]).mean() for k in labels.unique()]
    return float(torch.stack(within).mean()) / pixels.shape[1] ** 0.5


def _measure(subject: _Subject, images: Tensor, labels: Tensor) -> list[float]:
    features = subject.features(images)
    values = (
        frechet_distance(features, subject.real),
        subject.recognized(images, labels),
        *precision_recall(subject.real, features),
        _distance_within(images, labels),
    )
    return [round(value, 6) for value in values]


def guidance_rows(
    name: str, images: int, seeds: int, scales: Sequence[float], worse: str | None = None
) -> Iterator[dict]:
    """Sample by every method and scale from the same noise; yield a row of the table for each, seed by seed.

    Args:
        name: digits or emoji
        images: samples of one row
        seeds: number of seeds
        scales: guidance scales
        worse: folder of the worse model; for digits the small bundled model by default
    """
    subject, flow = {"digits": _digits, "emoji": _emoji}[name](worse), RectifiedFlow().respaced(_STEPS)
    methods = [m for m in METHODS if not m.startswith("auto") or m in subject.worse]
    labels = torch.arange(images) % subject.classes
    for seed in range(seeds):
        x_T = torch.randn(images, *subject.shape, generator=torch.Generator().manual_seed(seed))
        for method, scale in [("none", 1.0), *((m, s) for s in scales for m in methods)]:
            guided = guided_by_method(method, scale, subject.model, subject.worse, _THRESHOLDS[name])
            samples = flow_sample(flow, guided, x_T.shape, labels, x_T=x_T, progress=False)
            measured = _measure(subject, samples, labels)
            yield dict(zip(_COLUMNS, (name, method, scale, seed, *measured)))


def _write(name: str, rows: list[dict], path: Path) -> None:
    "Replace the rows of one model."
    old = []
    if path.exists():
        with path.open(newline="") as file:
            old = [row for row in csv.DictReader(file) if row["model"] != name]
    with _atomic_write(path) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows([*old, *rows])


def main() -> None:
    """Record all methods and scales of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("digits", "emoji"), default="digits")
    parser.add_argument("--worse", help="folder of the worse model (default for digits: the bundled one)")
    parser.add_argument("--images", type=int, default=100, help="samples of one method, scale and seed")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--scales", type=float, nargs="+", default=list(_SCALES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options, rows = parser.parse_args(), []
    with fast_cpu():
        counts = (options.images, options.seeds, options.scales)
        for row in guidance_rows(options.model, *counts, options.worse):
            rows.append(row)
            print(*row.values(), flush=True)
            _write(options.model, rows, options.out)  # a study that is stopped keeps what is done


if __name__ == "__main__":
    main()
