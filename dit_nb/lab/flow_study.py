"""Diffusion against flow matching on emoji: the same network, images, updates and noise; several seeds.

`python -m dit_nb.lab.flow_study` writes `results/flow_study.csv`, a row for each objective, number of steps and seed,
and `results/flow_study.npz`, twelve samples of each objective in 30 steps.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.config import DiTConfig, TrainConfig
from dit_nb.data import emoji
from dit_nb.emoji import EmojiSplit
from dit_nb.emoji_features import evaluate_emoji
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.speed import InferenceModel
from dit_nb.training import Trainer
from dit_nb.utils import _atomic_write

__all__ = ["PICTURES", "RESULTS"]

RESULTS = Path(__file__).parent / "results" / "flow_study.csv"
PICTURES = RESULTS.with_suffix(".npz")
_COLUMNS = ("objective", "updates", "steps", "seed", "frechet", "frechet_real", "seconds")
_OBJECTIVES = {  # noise prediction as in DiT, but without its variance; the same network as a velocity
    "diffusion": Diffusion(variance="fixed_large"),
    "flow": RectifiedFlow("logit_normal"),
}
_MODEL = DiTConfig(32, 4, 3, 96, 2, 4, num_classes=2, learn_sigma=False, init="scaled")
_UPDATES, _STEPS, _SEEDS, _IMAGES = 1500, (10, 30), 3, 104  # updates, sampling steps, seeds, samples


def _config(seed: int, updates: int) -> TrainConfig:
    """Settings of the study, the same for both objectives."""
    recipe = dict(batch_size=64, lr=2e-3, lr_schedule="cosine", warmup_steps=50, beta2=0.99, grad_clip=1.0)
    return TrainConfig(steps=updates, seed=seed, ema_decay=0.998, **recipe)


def _sample(
    objective: Diffusion | RectifiedFlow, model: Callable, steps: int, y: Tensor, seed: int
) -> Tensor:
    """Samples without noise in the steps: DDIM, or Euler on straight paths; from the same starting noise."""
    x_T = torch.randn(len(y), 3, 32, 32, generator=torch.Generator().manual_seed(1000 + seed))
    sample = flow_sample if isinstance(objective, RectifiedFlow) else ddim_sample
    return sample(objective.respaced(str(steps)), model, x_T.shape, y, x_T=x_T, clip_x0=True, progress=False)


def _record(
    name: str, seed: int, split: EmojiSplit, updates: int, images: int
) -> Iterator[tuple[tuple, Tensor]]:
    """Train one model; yield a row of `_COLUMNS` and the samples for each number of sampling steps."""
    torch.manual_seed(seed)
    objective, data = _OBJECTIVES[name], split.train.with_mirror_images()
    trainer = Trainer(DiT(_MODEL), objective, data, _config(seed, updates))
    model = InferenceModel(trainer.fit(progress=False).cpu())
    labels = torch.arange(images) % 2
    for steps in _STEPS:
        samples = _sample(objective, model, steps, labels, seed)
        found = evaluate_emoji(samples, labels, split)
        metrics = (round(found[metric], 6) for metric in _COLUMNS[4:6])
        yield (name, updates, steps, seed, *metrics, round(trainer.progress.seconds, 1)), samples


def main() -> None:
    """Record all objectives and seeds."""
    split, pictures = emoji(("smileys",)), {}
    with _atomic_write(RESULTS) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for seed in range(_SEEDS):
            for name in _OBJECTIVES:
                for row, samples in _record(name, seed, split, _UPDATES, _IMAGES):
                    writer.writerow(row)
                    print(*row, flush=True)
                    pictures.setdefault(
                        (name, row[2]), (samples[:12].clamp(-1, 1) * 127.5 + 127.5).byte().numpy()
                    )
                file.flush()
    with _atomic_write(PICTURES) as draft:
        np.savez_compressed(
            draft, **{key: images for (key, steps), images in pictures.items() if steps == 30}
        )


if __name__ == "__main__":
    main()
