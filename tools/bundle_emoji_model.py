"""Measure a trained emoji model and put it into the package: dit_nb/models/emoji, with weights in float16 and a card.

    python tools/bundle_emoji_model.py runs/emoji-all/model --command "dit-nb emoji --all --steps 20000" --time "5 hours ..."

The model must have the 16 classes of `dit_nb.data.emoji()`.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from dit_nb.data import emoji, image_grid, save_image
from dit_nb.emoji_features import _composition_scores, _EmojiExtractor, _nearest_in_class, evaluate_emoji
from dit_nb.hub import _write_float16
from dit_nb.measure import evaluate
from dit_nb.pretrained import load_model, sample_images
from dit_nb.speed import InferenceModel, fast_cpu

FOLDER = Path(__file__).resolve().parents[1] / "dit_nb" / "models" / "emoji"
HEAD = """---
library_name: dit_nb
license: apache-2.0
tags:
- diffusion
- dit
---
# A DiT for emoji

32x32 color pictures of 16 classes, eight categories in two styles: patch {config.patch_size}, width {config.hidden_size}, {config.depth} adaLN-Zero blocks, {config.num_heads} heads, learned variance; {parameters:.2f} million weights, averaged (EMA), in float16.

Trained on the 2723 training emoji of `dit_nb.data.emoji()` (Noto Emoji, Apache-2.0; Fluent Emoji, MIT) and the mirror images of those without a direction by

    {command}

{time}

Metrics of {samples} samples of each of three sampling seeds (50 steps, no guidance); in parentheses the range over the seeds, beside it real emoji (for the Fréchet distance as many training emoji of the same classes, for the others the held-out ones):

{table}

    from dit_nb.pretrained import emoji_model, sample_images
"""
ROWS = (
    ("Fréchet distance to the 512 held-out emoji", "frechet"),
    ("recognized as their category", "category_accuracy"),
    ("recognized as their style", "style_accuracy"),
    (
        "median RMS distance to the nearest training emoji of the class, or mirror image of one",
        "nearest_train",
    ),
)


def measure(model, sampling, samples: int, out: Path) -> dict:
    "Metrics over three sampling seeds, the interval of the first, the composition scores, and pictures."
    split, classes = emoji(), len(sampling.class_names)
    labels = torch.arange(classes).repeat_interleave(samples // classes)
    runs, everything = [], []
    for seed in range(3):
        images = sample_images(InferenceModel(model), sampling, labels, seed=seed, progress=True).cpu()
        runs.append(evaluate_emoji(images, labels, split))
        everything.append(images)
        print(json.dumps(runs[-1]), flush=True)
    interval = evaluate(everything[0], split.held_out.images, features=_EmojiExtractor(), progress=False)
    first = everything[0].view(classes, -1, 3, 32, 32)[:, :8]
    save_image(image_grid(first.flatten(0, 1), columns=8, zoom=2), out / "samples.png")
    shown = first[:, :1].flatten(0, 1)
    _, nearest = _nearest_in_class(shown, torch.arange(classes), split.train)
    pairs = torch.cat([shown, split.train.images[nearest]])
    save_image(image_grid(pairs, columns=classes, zoom=2), out / "nearest.png")
    np.savez_compressed(
        out / "samples.npz", images=torch.cat(everything).half().numpy(), labels=labels.repeat(3).numpy()
    )
    composition = _composition_scores(torch.cat(everything), labels.repeat(3), split)
    return {"runs": runs, "interval": interval["metrics"]["frechet"], "composition": composition}


def table(found: dict) -> str:
    lines = ["| | samples | real emoji |", "|---|---|---|"]
    for title, name in ROWS:
        values = [run[name] for run in found["runs"]]
        form = "{:.1%}" if "accuracy" in name else "{:.3f}"
        mean, low, high = (form.format(f) for f in (np.mean(values), min(values), max(values)))
        lines.append(
            f"| {title} | {mean} ({low} to {high}) | {form.format(found['runs'][0][name + '_real'])} |"
        )
    i, c = found["interval"], found["composition"]
    score = lambda s: f"{s['value']:.3f} (95 % interval {s['low']:.3f} to {s['high']:.3f})"  # noqa: E731
    return "\n".join(lines) + (
        f"\n\nThe 95 % interval of the Fréchet distance for one set of samples, by half-samples, is {i['low']:.3f} to "
        f"{i['high']:.3f}. Does it compose? A sample is closer to a held-out emoji whose name was seen in the other style "
        f"than to one whose name was never seen with probability {score(c['half_seen'])}; 0.5 means that the other style "
        f"taught nothing. The closest sample of its category has the style of a held-out emoji with probability "
        f"{score(c['style'])}."
    )


@fast_cpu()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of the trained model")
    parser.add_argument("--command", required=True, help="command that trained it")
    parser.add_argument("--time", required=True, help="sentence on time, machine, and loss")
    parser.add_argument("--samples", type=int, default=512, help="samples per sampling seed")
    parser.add_argument("--report", default="runs/emoji-report", help="folder for pictures and numbers")
    options = parser.parse_args()
    out = Path(options.report)
    out.mkdir(parents=True, exist_ok=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = Path(options.model)
    weights = load_file(source / "model.safetensors")
    _write_float16(weights, FOLDER / "model.safetensors")
    shutil.copy(source / "config.json", FOLDER)
    shutil.copy(source / "sampling.json", FOLDER)
    model, sampling = load_model(FOLDER)
    (FOLDER / "sampling.json").write_text(
        json.dumps({**vars(replace(sampling, card={}))}, indent=1), encoding="utf-8"
    )
    found = measure(model, sampling, options.samples, out)
    (out / "metrics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    facts = {
        "config": model.config,
        "command": options.command,
        "time": options.time,
        "samples": options.samples,
    }
    facts["parameters"] = sum(v.numel() for k, v in weights.items() if k != "pos_embed") / 1e6
    (FOLDER / "README.md").write_text(HEAD.format(**facts, table=table(found)), encoding="utf-8")
    print((FOLDER / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
