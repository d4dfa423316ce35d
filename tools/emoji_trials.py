"""Short trials of size, patch, augmentation and batch for the emoji model: equal time for each, one seed.

Usage: python tools/emoji_trials.py --seconds 210 --json dit_nb/lab/results/emoji_trials.json [--only base shifts]

Each trial trains on all 16 classes with the learning rate falling over --seconds, and measures 256 samples. Run it
alone on a machine: steps per second count. A short trial favors small models: read it as that.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dit_nb.commands.emoji import _emoji_config
from dit_nb.commands.options import Emoji
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.data import emoji
from dit_nb.emoji import EmojiSet
from dit_nb.emoji_features import evaluate_emoji
from dit_nb.lab.benchmark import _device_name
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer

BATCH = {"batch_size": 64, "lr": 1.5e-3}
TRIALS = {  # changes of the model, of the training settings, and of the data
    "base": ({}, {}, "mirror"),
    "patch 2": ({"patch_size": 2}, {}, "mirror"),
    "patch 8": ({"patch_size": 8}, {}, "mirror"),
    "width 128": ({"hidden_size": 128, "num_heads": 4}, {}, "mirror"),
    "width 256": ({"hidden_size": 256, "num_heads": 8}, {}, "mirror"),
    "no mirror images": ({}, {}, "plain"),
    "mirror images and shifts": ({}, {}, "shifts"),
    "batches of 16": ({}, {"batch_size": 16, "lr": 1e-3}, "mirror"),
}


def with_shifts(data: EmojiSet) -> EmojiSet:
    """Append each image moved by one pixel up, down, left and right; what comes in at the border is white."""
    framed = torch.nn.functional.pad(data.images, (1, 1, 1, 1), value=1.0)  # (N, 3, 34, 34)
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    images = torch.cat([framed[..., row : row + 32, column : column + 32] for row, column in corners])
    return EmojiSet(images, data.labels.repeat(5), data.class_names, data.entries * 5)


def run_trial(name: str, seconds: float, seed: int = 0) -> dict:
    """Train for some seconds, and return what 256 samples are like."""
    shape, changes, kind = TRIALS[name]
    split = emoji()
    data = split.train if kind == "plain" else split.train.with_mirror_images()
    data = with_shifts(data) if kind == "shifts" else data
    config = replace(DiTConfig(**vars(Emoji.model)), **shape)
    torch.manual_seed(seed)
    sampling = SamplingConfig(class_names=split.train.class_names)
    settings = _emoji_config(seconds, seed=seed, **{**BATCH, **changes})
    trainer = Trainer(DiT(config), make_diffusion(sampling), data, settings)
    with fast_cpu(trainer):
        model = trainer.fit(progress=False)
    labels = torch.arange(16).repeat_interleave(16)
    images = sample_images(InferenceModel(model), sampling, labels, seed=seed, progress=False).cpu()
    found = evaluate_emoji(images, labels, split)
    run = {
        "trial": name,
        "seed": seed,
        "seconds": round(trainer.progress.seconds),
        "steps": trainer.progress.step,
    }
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {**run, "images": run["steps"] * settings.batch_size, "parameters": size, **found}


@fast_cpu()
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=210, help="length of a trial")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS), help="trials to run")
    parser.add_argument("--json", type=Path, required=True, help="file to write; rows in it are kept")
    options = parser.parse_args(words)
    rows = json.loads(options.json.read_text()) if options.json.exists() else []
    for name in options.only:
        machine = {"device": _device_name("cpu"), "torch": torch.__version__}
        rows.append({**run_trial(name, options.seconds), **machine})
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(
            {
                key: rows[-1][key]
                for key in ("trial", "steps", "frechet", "category_accuracy", "nearest_train")
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
