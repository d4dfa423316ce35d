"""Quality of the bundled digit model's samples by solver, spacing of the timesteps and number of steps.

`python -m dit_nb.lab.few_steps` writes `results/few_steps.csv`: a row for each configuration and seed.
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.few_steps import dpm_solver_sample, respaced_by_log_snr
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.speed import InferenceModel
from dit_nb.utils import _atomic_write

__all__ = ["RESULTS"]

RESULTS = Path(__file__).parent / "results" / "few_steps.csv"
_STEPS, _SEEDS, _IMAGES = (4, 8, 16), 5, 300  # number of steps, seeds, images of one configuration
_SOLVERS = {"DDIM": ddim_sample, "DPM++": dpm_solver_sample}


def _schedules(full: Diffusion, steps: int) -> dict[str, Diffusion]:
    """The two ways to space the timesteps."""
    return {"t": full.respaced(str(steps)), "log SNR": respaced_by_log_snr(full, steps)}


def _record(model: Callable, full: Diffusion, steps: int, seed: int, images: int, measure: Callable) -> list:
    """Sample with every solver and spacing from the same noise; return a row (solver, spacing, steps, seed, value) each."""
    labels = torch.arange(images) % 10
    x_T = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    rows = []
    for spacing, diffusion in _schedules(full, steps).items():
        for solver, sample in _SOLVERS.items():
            samples = sample(diffusion, model, x_T.shape, labels, x_T=x_T, clip_x0=True, progress=False)
            rows.append((solver, spacing, steps, seed, round(measure(samples), 6)))
    return rows


def main() -> None:
    """Record all configurations."""
    split, (model, sampling) = digits(), digit_model()
    classifier, full = DigitClassifier(split), make_diffusion(sampling)
    fast, rows = InferenceModel(model.cpu()), []
    for seed in range(_SEEDS):
        for steps in _STEPS:
            rows += _record(
                fast, full, steps, seed, _IMAGES, partial(classifier.distance, reference=split.held_out)
            )
            print(*rows[-4:], sep="\n", flush=True)
    with _atomic_write(RESULTS) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("solver", "spacing", "steps", "seed", "frechet"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
