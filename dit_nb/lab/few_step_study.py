"""Emoji in one, two and four network calls: the bundled MeanFlow model against Euler steps of its teacher.

`python -m dit_nb.lab.few_step_study` writes `results/few_step_emoji.csv`, a row for each sampler, number of steps and
seed, and `results/few_step_emoji.npz`, twelve images of each from the same noise.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.data import emoji
from dit_nb.emoji_features import evaluate_emoji
from dit_nb.guidance import Guided
from dit_nb.pretrained import emoji_model, few_step_emoji_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.meanflow import mean_flow_sample
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.utils import _atomic_write

__all__ = ["PICTURES", "RESULTS"]

_CATEGORIES = ("smileys", "animals", "food")
RESULTS = Path(__file__).parent / "results" / "few_step_emoji.csv"
PICTURES = RESULTS.with_suffix(".npz")
_COLUMNS = ("sampler", "steps", "seed", "rms_to_50", "frechet", "category_accuracy", "style_accuracy")
_STEPS, _SEEDS, _IMAGES = (1, 2, 4, 50), 5, 150  # steps, seeds, samples of each: 25 of each class


def _guided_teacher(class_names: tuple[str, ...], scale: float = 2.0) -> Callable:
    """The velocity that the few-step model was distilled from: the bundled diffusion model of emoji with guidance.

    Args:
        class_names: classes that the labels count, of `emoji(CATEGORIES)`
        scale: guidance scale

    Returns:
        function (x, 1000 t, y) -> velocity, for `flow_sample` with `clip_x0=True`
    """
    model, sampling = emoji_model(device="cpu")
    label = torch.tensor([sampling.class_names.index(name) for name in class_names])
    guided = Guided(NoiseAsVelocity(InferenceModel(model), make_diffusion(sampling)), scale)
    return lambda x, t, y: guided(x, t, label[y])


def _samples(y: Tensor, seed: int, class_names: tuple[str, ...]) -> Iterator[tuple[str, int, Tensor]]:
    "Images of both samplers in each number of steps, from the same noise; the teacher's in 50 steps first."
    x_T = torch.randn(len(y), 3, 32, 32, generator=torch.Generator().manual_seed(1000 + seed))
    teacher, (model, _) = _guided_teacher(class_names), few_step_emoji_model(device="cpu")
    for steps in reversed(_STEPS):
        options = dict(x_T=x_T, clip_x0=True, progress=False)
        flow = RectifiedFlow().respaced(steps)
        yield "Euler", steps, flow_sample(flow, teacher, x_T.shape, y, **options)
        yield "jumps", steps, mean_flow_sample(model, x_T.shape, y, steps, x_T=x_T)


@fast_cpu()
def main() -> None:
    """Record all samplers, steps and seeds."""
    split, pictures = emoji(_CATEGORIES), {}
    names = split.train.class_names
    y = torch.arange(_IMAGES) % len(names)
    with _atomic_write(RESULTS) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for seed in range(_SEEDS):
            best = None
            for sampler, steps, images in _samples(y, seed, names):
                images = images.clamp(-1, 1)
                best = images if best is None else best
                rms = float((images - best).square().mean((1, 2, 3)).sqrt().mean())
                found = evaluate_emoji(images, y, split)
                row = (sampler, steps, seed, *(round(v, 6) for v in (rms, *(found[c] for c in _COLUMNS[4:]))))
                writer.writerow(row)
                print(*row, flush=True)
                pictures.setdefault(f"{sampler} {steps}", (images[:12] * 127.5 + 127.5).byte().numpy())
            file.flush()
    with _atomic_write(PICTURES) as draft:
        np.savez_compressed(draft, **pictures)


if __name__ == "__main__":
    main()
