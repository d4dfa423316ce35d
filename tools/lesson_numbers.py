"""Measure what takes too long for a lesson: the numbers that lessons 19 and 21 load with `load_results`.

Usage: python tools/lesson_numbers.py [digit_bound] [label_influence]

`digit_bound`: bits of the digit model for each of 100 unseen and 100 training digits, in 250 and in 1000 steps.
`label_influence`: how much the predicted noise depends on the label, for several widths and lengths of training.
Seed 0; a few minutes on two cores.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.resources import files

import torch

from dit_nb.config import DiTConfig
from dit_nb.data import digits
from dit_nb.lab.benchmark import _device_name
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, bits_per_dim
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.speed import fast_cpu
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import randn


def digit_bound() -> list[dict]:
    """Rows of steps and digits, with the bits per dimension of each image, and those of t = 1 to 9 in 1000 steps."""
    model, sampling = digit_model()
    split, rows = digits(), []
    for steps in (250, 1000):
        diffusion = make_diffusion(sampling).respaced(str(steps))
        for name, part in (("unseen", split.held_out), ("training", split.train)):
            chance = torch.Generator().manual_seed(0)
            found = bits_per_dim(diffusion, model, part.images[:100], part.labels[:100], generator=chance)
            rows.append({"steps": steps, "digits": name, "bits": _rounded(found["total"])})
            if steps == 1000:
                rows[-1]["bits_of_t_1_to_9"] = _rounded(found["vb"][:, 1:10].sum(1))
    return rows


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _influence_after(data, init: str, width: int, steps: int, dropout: float) -> float:
    "Relative change of the predicted noise when the label is removed, as in lesson 19."
    torch.manual_seed(0)
    config = DiTConfig(8, 2, 1, width, 2, 4, num_classes=10, class_dropout_prob=dropout, init=init)
    settings = TrainConfig(steps=steps, batch_size=48, lr=1e-3, precision="fp32", ema_decay=0.99)
    trainer = Trainer(DiT(config), Diffusion(bins=17), data, settings)
    trainer.fit(progress=False)
    x0, y = data.images[:128], data.labels[:128]
    t = torch.full((128,), 600)
    x_t = Diffusion().q_sample(x0, t, randn(x0.shape, torch.Generator().manual_seed(1)))
    with torch.no_grad():
        model = trainer.raw_model.eval()
        labeled, unlabeled = (model(x_t, t, label)[:, :1] for label in (y, torch.full_like(y, 10)))
    return ((labeled - unlabeled).norm() / labeled.norm()).item()


def label_influence() -> list[dict]:
    """Rows of settings, with the influence of the label after training."""
    rows = []
    for init, width, steps, dropout in (
        ("paper", 64, 200, 0.1),
        ("paper", 64, 1000, 0.1),
        ("paper", 256, 200, 0.1),
        ("scaled", 64, 200, 0.1),
        ("scaled", 64, 200, 0.5),
    ):
        influence = _influence_after(digits().train, init, width, steps, dropout)
        rows.append({"init": init, "width": width, "steps": steps, "class_dropout_prob": dropout})
        rows[-1]["influence"] = round(influence, 4)
    return rows


MEASURE = {"digit_bound": digit_bound, "label_influence": label_influence}


@fast_cpu()
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=" or ".join(MEASURE) + "; by default both")
    names = parser.parse_args(words).names or list(MEASURE)
    for name in names:
        machine = {"device": _device_name("cpu"), "torch": torch.__version__}
        rows = [{**machine, **row} for row in MEASURE[name]()]
        path = files("dit_nb.lab") / "results" / f"{name}.json"
        path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        print(f"{path}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
