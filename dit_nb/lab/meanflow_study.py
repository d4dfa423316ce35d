"""Train the bundled MeanFlow model of digits, and measure samples in one, two and four steps.

`python -m dit_nb.lab.meanflow_study train` makes `dit_nb/models/meanflow_digits` and its card, and `record` the table
`results/meanflow.csv`.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.config import DiTConfig
from dit_nb.data import Split, digits
from dit_nb.ema import EMA
from dit_nb.evaluation import DigitClassifier, precision_recall
from dit_nb.hub import _write_weights
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.since.flow import NoiseAsVelocity, RectifiedFlow, flow_sample
from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_losses, mean_flow_sample, sample_time_pairs
from dit_nb.speed import InferenceModel, fast_cpu

__all__ = ["MODEL", "RESULTS", "train_mean_flow"]

RESULTS = Path(__file__).parent / "results" / "meanflow.csv"
MODEL = Path(__file__).parents[1] / "models" / "meanflow_digits"
_UPDATES, _BATCH, _LR = 800, 96, 2e-3
_CONFIG = DiTConfig(
    input_size=8,
    patch_size=2,
    in_channels=1,
    hidden_size=64,
    depth=4,
    num_heads=4,
    num_classes=10,
    class_dropout_prob=0.0,
    learn_sigma=False,
    init="scaled",
)
_CARD = """---
library_name: dit_nb
license: apache-2.0
tags:
- diffusion
- dit
---
# A MeanFlow DiT that writes digits in one step

8x8 handwritten digits, one channel, ten classes: patch 2 (16 tokens), width 64, 4 adaLN-Zero blocks, 4 heads, conditioned on t, t - r and the label; {weights:,} weights, averaged (EMA), in float16 (the fixed positions in float32). It predicts the average velocity between two flow times (MeanFlow, arXiv 2505.13447), and was trained from scratch, without a teacher, on 1437 of the 1797 digits that scikit-learn bundles (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0) by

    python -m dit_nb.lab.meanflow_study train

in {cpu_seconds:.0f} CPU seconds: {updates} updates of {batch} digits, one thread, torch {torch}, float32. `dit_nb/lab/results/meanflow.csv` has its metrics.

    from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_sample
    model = MeanFlowDiT.from_pretrained("dit_nb/models/meanflow_digits")
"""


def train_mean_flow(
    split: Split, updates: int, seed: int = 0, equal: float = 0.5, report: Callable = print
) -> MeanFlowDiT:
    """Train a small MeanFlowDiT on digits from scratch, and return the average of its weights.

    Args:
        split: digits
        updates: number of updates
        seed: seed of weights, batches and noise
        equal: fraction of the pairs of times with r = t
        report: function that receives a line of progress every 200 updates
    """
    torch.manual_seed(seed)
    model, generator = MeanFlowDiT(_CONFIG).train(), torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), _LR, betas=(0.9, 0.99), weight_decay=0.0)
    ema = EMA(model, 0.995)
    for step in range(updates):
        rows = torch.randint(0, len(split.train), (_BATCH,), generator=generator).tolist()
        x0, y = split.train.get_batch(rows)
        t, r = sample_time_pairs(_BATCH, generator, equal=equal)
        noise = torch.randn(x0.shape, generator=generator)
        losses = mean_flow_losses(model, x0, t, r, y, noise)
        losses["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        warmup, cosine = min(1.0, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * step / updates))
        optimizer.param_groups[0]["lr"] = _LR * warmup * (0.02 + 0.98 * cosine)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        if step % 200 == 199:
            report(f"update {step + 1}: squared error {losses['mse'].mean():.4f}")
    return ema.model


def _save(model: MeanFlowDiT, **facts) -> None:
    "Write configuration, weights in float16 and card."
    model.save_pretrained(MODEL)  # creates the folder, and config.json
    weights = {k: v if k == "pos_embed" else v.half() for k, v in model.state_dict().items()}
    _write_weights(weights, MODEL / "model.safetensors")
    count = sum(v.numel() for k, v in weights.items() if k != "pos_embed")
    card = _CARD.format(weights=count, batch=_BATCH, torch=torch.__version__.split("+")[0], **facts)
    (MODEL / "README.md").write_text(card, encoding="utf-8")


def _train(split: Split) -> None:
    start = time.process_time()
    model = train_mean_flow(split, _UPDATES, report=lambda line: print(line, flush=True))
    _save(model, updates=_UPDATES, cpu_seconds=time.process_time() - start)


def _inputs(images: int, seed: int) -> tuple[Tensor, Tensor]:
    x_T = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x_T, torch.arange(images) % 10


def _measure(classifier: DigitClassifier, split: Split, images: Tensor, labels: Tensor) -> list[float]:
    "Fréchet distance, fraction recognized, precision, recall, and distance (RMS) within a class."
    features, real = classifier.features(images), classifier.features(split.held_out.images)
    pixels = images.clamp(-1, 1).flatten(1)
    within = torch.stack([torch.pdist(pixels[labels == k]).mean() for k in range(10)]).mean()
    values = (classifier.distance(images, split.held_out), classifier.accuracy(images, labels))
    values += (*precision_recall(real, features), float(within) / 8)
    return [round(float(value), 6) for value in values]


def _record(split: Split, images: int = 120, seeds: int = 4) -> None:
    "Samples of the MeanFlow model, and of the bundled digit model by Euler's method, from the same noise."
    model, (teacher, sampling) = MeanFlowDiT.from_pretrained(MODEL), digit_model("cpu")
    velocity = NoiseAsVelocity(InferenceModel(teacher), make_diffusion(sampling))
    classifier, rows = DigitClassifier(split), []
    for seed in range(seeds):
        x_T, labels = _inputs(images, seed)
        for steps in (1, 2, 4, 8, 50):
            flow, options = RectifiedFlow().respaced(steps), {"x_T": x_T}
            samples = {
                "MeanFlow": mean_flow_sample(model, x_T.shape, labels, steps, **options),
                "Euler": flow_sample(flow, velocity, x_T.shape, labels, progress=False, **options),
            }
            for name, sampled in samples.items():
                rows.append((name, steps, seed, *_measure(classifier, split, sampled, labels)))
                print(*rows[-1], flush=True)
    columns = ("model", "steps", "seed", "frechet", "recognized", "precision", "recall", "distance")
    _write(RESULTS, columns, rows)


def _write(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def main() -> None:
    """Train, or record a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "record"))
    jobs = {"train": _train, "record": _record}
    with fast_cpu():
        jobs[parser.parse_args().what](digits())


if __name__ == "__main__":
    main()
