"""Train the bundled MeanFlow model of digits: `python -m dit_nb.lab.meanflow_study` writes it, and its card."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.data import Split, digits
from dit_nb.ema import EMA
from dit_nb.hub import _write_float16
from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_losses, sample_time_pairs
from dit_nb.speed import fast_cpu
from dit_nb.utils import _write_text

__all__ = ["as_velocity_model", "mean_flow_digit_model"]

_MODEL = Path(__file__).parents[1] / "models" / "meanflow_digits"
_UPDATES, _BATCH, _LR = 800, 96, 2e-3
_SAMPLING = SamplingConfig(  # two steps: more do not lower the Fréchet distance (lesson 35)
    objective="mean_flow", steps="2", bins=17, class_names=tuple(map(str, range(10)))
)
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

    python -m dit_nb.lab.meanflow_study

in {cpu_seconds:.0f} CPU seconds: {updates} updates of {batch} digits, one thread, torch {torch}, float32. Lesson 35 measures its samples in one to 50 steps.

    from dit_nb.pretrained import load_model, sample_images
    model, sampling = load_model("dit_nb/models/meanflow_digits")
    images = sample_images(model, sampling, list(range(10)))
"""


def _train_mean_flow(
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
    return cast(MeanFlowDiT, ema.model)


def _save(model: MeanFlowDiT, **facts) -> None:
    "Write configuration, weights in float16, sampling settings and card."
    model.save_pretrained(_MODEL)  # creates the folder, and config.json
    _write_float16(model.state_dict(), _MODEL / "model.safetensors")
    _write_text(_MODEL / "sampling.json", json.dumps(asdict(_SAMPLING), indent=1) + "\n")
    count = sum(v.numel() for k, v in model.state_dict().items() if k != "pos_embed")
    card = _CARD.format(weights=count, batch=_BATCH, torch=torch.__version__.split("+")[0], **facts)
    _write_text(_MODEL / "README.md", card)


def _train(split: Split) -> None:
    start = time.process_time()
    model = _train_mean_flow(split, _UPDATES, report=lambda line: print(line, flush=True))
    _save(model, updates=_UPDATES, cpu_seconds=time.process_time() - start)


def mean_flow_digit_model() -> MeanFlowDiT:
    """Load the bundled MeanFlow model of digits on the CPU, in eval() mode."""
    return cast(MeanFlowDiT, MeanFlowDiT.from_pretrained(_MODEL))


def as_velocity_model(model: Callable) -> Callable:
    """Make a velocity model (x, 1000 t, y), for flow samplers, of a MeanFlow model: its velocity is where r = t."""
    return lambda x, t, y: model(x, t / 1000, t / 1000, y)


def main() -> None:
    """Train the bundled model, and write it with its card."""
    with fast_cpu():
        _train(digits())


if __name__ == "__main__":
    main()
