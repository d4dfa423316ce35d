"""Put a trained text-to-emoji model into the package, dit_nb/models/text_emoji, and measure it.

    python tools/bundle_text_emoji_model.py runs/text-emoji/model --time "In 62 minutes ..."

It writes weights in float16, settings, the results of `dit_nb.lab.text_study`, and a card that states them.
"""

import argparse
import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from dit_nb.config import SamplingConfig
from dit_nb.emoji_features import _with_bootstrap
from dit_nb.hub import _write_float16
from dit_nb.lab import text_study
from dit_nb.pretrained import load_model

FOLDER = Path(__file__).resolve().parents[1] / "dit_nb" / "models" / "text_emoji"
CARD = """---
library_name: dit_nb
license: apache-2.0
tags:
- diffusion
- dit
- text-to-image
---
# A text-to-image DiT for emoji

32x32 color pictures from prompts such as "3d green apple": an MM-DiT (Stable Diffusion 3's joint attention, with
QK-norm) of patch {config.patch_size}, width {config.hidden_size}, {config.depth} blocks, {config.num_heads} heads, and a text encoder of {config.text_depth} layers with a vocabulary of {words} words;
{parameters:.2f} million weights, averaged (EMA), in float16. It predicts the velocity of rectified flow.

Trained on the {pictures} training emoji of `dit_nb.data.emoji(["smileys", "animals", "food"])` (Noto Emoji,
Apache-2.0; Fluent Emoji, MIT), the mirror images of those without a direction, and their names, by

    dit-nb train --data emoji --categories smileys animals food --captions --flip --text-length 12 \\
      --patch-size 4 --hidden-size 128 --depth 6 --num-heads 4 --init scaled --batch-size 64 --lr 1.5e-3 \\
      --lr-schedule cosine --warmup-steps 100 --beta2 0.99 --grad-clip 1 --ema-decay 0.998 --compile \\
      --seconds {seconds:.0f} --out runs/text-emoji

{time}

A prompt is a style, "flat" or "3d", and the name of an emoji. Words that the model does not know are refused.

Does it compose? {unseen} held-out pictures have a name that was trained on in the other style. A score is the
probability that a sample is nearer to the picture of its caption than to that of another such caption of the same
category and style: 0.5 if the model knew the class alone. {samples} samples of each caption, 20 Euler steps, guidance scale 3;
95 % bootstrap intervals over captions:

| | captions not trained on | trained on |
|---|---|---|
{table}
| the training picture of the same name in the other style, as if it were a sample (pixels) | {copied} | |

    from dit_nb.pretrained import sample_images, text_emoji_model

    model, sampling = text_emoji_model()
    images = sample_images(model, sampling, model.encode_text(["3d green apple", "flat cat face"]))
"""
SAMPLING = SamplingConfig(
    objective="flow", sampler="euler", steps="25", cfg_scale=3.0, clip_x0=True, bins=256
)
ROWS = (
    ("score by pixels", "pixels"),
    ("score by features of the emoji classifier", "features"),
    ("fraction of samples classified as the style asked for", "style_right"),
)


def read_results() -> dict[str, list[dict]]:
    "Rows of the study by kind of caption."
    with text_study.RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    return {kind: [row for row in rows if row["kind"] == kind] for kind in ("unseen", "seen")}


def interval(rows: list[dict], column: str) -> str:
    found = _with_bootstrap(np.array([float(row[column]) for row in rows]), seed=0)
    return "{value:.3f} ({low:.3f} to {high:.3f})".format(**found)


def write_card(time: str, seconds: float) -> None:
    model, _ = load_model(FOLDER, device="cpu")
    results = read_results()
    table = "\n".join(
        f"| {title} | {interval(results['unseen'], column)} | {interval(results['seen'], column)} |"
        for title, column in ROWS
    )
    facts = {"config": model.config, "words": len(model.config.vocabulary), "time": time, "seconds": seconds}
    facts |= {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
        "pictures": 766,
    }
    facts |= {"unseen": len(results["unseen"]), "samples": 4, "table": table}
    facts["copied"] = interval(results["unseen"], "other_style")
    (FOLDER / "README.md").write_text(CARD.format(**facts), encoding="utf-8")
    print((FOLDER / "README.md").read_text(encoding="utf-8"))


def copy_model(source: Path) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = load_file(
        source / ("ema.safetensors" if (source / "ema.safetensors").is_file() else "model.safetensors")
    )
    _write_float16(weights, FOLDER / "model.safetensors")
    shutil.copy(source / "config.json", FOLDER)
    fields = json.loads((FOLDER / "config.json").read_text())
    (FOLDER / "config.json").write_text(json.dumps({"model": "MMDiT", **fields}, indent=1) + "\n")
    (FOLDER / "sampling.json").write_text(json.dumps(asdict(SAMPLING), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of the trained model")
    parser.add_argument("--time", required=True, help="sentence on time, machine, and loss")
    parser.add_argument("--seconds", type=float, default=3720, help="training time")
    options = parser.parse_args()
    copy_model(Path(options.model))
    text_study.main()
    write_card(options.time, options.seconds)


if __name__ == "__main__":
    main()
