"""How long a recipe trains until its samples come within a given Fréchet distance: a row for each moment and seed.

Usage: python tools/time_to_distance.py emoji --seconds 480 --at 60 120 240 480 --seeds 3 --json FILE

Each run is that of `dit-nb digits` or `dit-nb emoji`, with its learning rate falling over --seconds. Sampling and
evaluation in between stop the clock, and change nothing in the run. Run it alone on a machine: steps per second count.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dit_nb.commands.digits import _DIGITS_MODEL, _DIGITS_SAMPLING, digits_config
from dit_nb.commands.emoji import _emoji_config
from dit_nb.commands.options import Emoji
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.data import digits, emoji
from dit_nb.lab.benchmark import _device_name
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer


def digits_recipe(samples: int):
    """Model, sampling settings, data, settings of training, and the distance of samples, of `dit-nb digits`."""
    from dit_nb.evaluation import DigitClassifier

    split = digits()
    classifier = DigitClassifier(split)
    labels = torch.arange(10).repeat_interleave(samples // 10)
    distance = lambda images: classifier.distance(images, split.held_out)  # noqa: E731
    return _DIGITS_MODEL, _DIGITS_SAMPLING, split.train, digits_config, labels, distance


def emoji_recipe(samples: int):
    """The same of `dit-nb emoji`."""
    from dit_nb.emoji_features import evaluate_emoji

    split = emoji(Emoji.categories)
    names = split.train.class_names
    labels = torch.arange(len(names)).repeat_interleave(samples // len(names))
    config = replace(DiTConfig(**vars(Emoji.model)), num_classes=len(names))
    distance = lambda images: evaluate_emoji(images, labels, split)["frechet"]  # noqa: E731
    data, sampling = split.train.with_mirror_images(), SamplingConfig(class_names=names)
    return config, sampling, data, _emoji_config, labels, distance


RECIPES = {"digits": (digits_recipe, 1000), "emoji": (emoji_recipe, 256)}


def distances(
    recipe: tuple, length: dict, at: Sequence[float], seed: int, clock: str = "seconds"
) -> list[dict]:
    """Train once, and measure the distance of the averaged model's samples at some moments.

    Args:
        recipe: what `digits_recipe` or `emoji_recipe` returns
        length: seconds or steps of the run
        at: moments, in the unit of `clock`
        seed: seed of the run and of the samples
        clock: seconds or step, of the trainer's progress
    """
    config, sampling, data, settings, labels, distance = recipe
    torch.manual_seed(seed)
    rows, left = [], sorted(at)

    def measure(trainer: Trainer, losses: dict) -> None:
        run = trainer.progress
        if not left or getattr(run, clock) < left[0]:
            return
        while left and getattr(run, clock) >= left[0]:
            left.pop(0)
        model = InferenceModel(trainer.ema.model)
        images = sample_images(model, sampling, labels, seed=seed, progress=False).cpu()
        rows.append({"seed": seed, "seconds": run.seconds, "steps": run.step, "frechet": distance(images)})
        run.start()  # the clock stood still

    trainer = Trainer(
        DiT(config), make_diffusion(sampling), data, settings(seed=seed, **length), on_step=[measure]
    )
    with fast_cpu(trainer):
        trainer.fit(progress=False)
    return rows


def first_below(rows: list[dict], limit: float) -> float | None:
    """Seconds of the first moment whose distance is at most `limit`; None if there is none."""
    return next((row["seconds"] for row in rows if row["frechet"] <= limit), None)


def table(rows: list[dict], limits: Sequence[float]) -> str:
    """Distances by seed and moment, then the seconds to each limit."""
    lines = ["| seed | seconds | steps | Fréchet distance |", "|---:|---:|---:|---:|"]
    lines += [f"| {r['seed']} | {r['seconds']:.0f} | {r['steps']} | {r['frechet']:.3f} |" for r in rows]
    for limit in limits:
        own = {
            seed: [r for r in rows if r["seed"] == seed] for seed in dict.fromkeys(r["seed"] for r in rows)
        }
        found = [first_below(part, limit) for part in own.values()]
        times = ", ".join("never" if t is None else f"{t:.0f} s" for t in found)
        lines.append(f"\nUntil a distance of {limit:g}: {times}.")
    return "\n".join(lines)


@fast_cpu()
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seconds", type=float, required=True, help="length of a run")
    parser.add_argument("--at", type=float, nargs="+", required=True, help="seconds at which to measure")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs")
    parser.add_argument("--limits", type=float, nargs="*", default=[], help="distances whose time is told")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args(words)
    make, samples = RECIPES[options.recipe]
    recipe, rows = make(samples), []
    for seed in range(options.seeds):
        rows += distances(recipe, {"seconds": options.seconds}, options.at, seed)
        if options.json:
            known = {"recipe": options.recipe, "of_seconds": options.seconds, "device": _device_name("cpu")}
            options.json.write_text(json.dumps([{**known, **row} for row in rows], indent=1) + "\n")
    print(table(rows, options.limits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
