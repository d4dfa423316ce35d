"""The ladder of lesson 31: digits with adaLN-Zero blocks, and then one switch of the modern block after the other.

`python -m dit_nb.lab.modern_study` writes `results/modern_blocks.csv`: a row for each configuration and seed, as they
come; rows that are there already are not computed again. `frechet` compares 300 samples with the held-out digits; `mse` is the error of the predicted noise on held-out
digits; `mse_12` and `mse_16` are the same with the digit in the middle of a larger, empty image, which the model was
not trained on, at the pixels of the digit.
"""

import csv
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dit_nb.config import _SWITCHES, SamplingConfig
from dit_nb.data import digits
from dit_nb.finetune import fit_model
from dit_nb.lab.studies import _evaluate_samples, _train
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.positions import sincos_2d
from dit_nb.pretrained import sample_images

__all__ = ["PUBLISHED", "RESULTS", "RUNGS", "read_rows"]

RESULTS = Path(__file__).parent / "results" / "modern_blocks.csv"
RUNGS = {  # name of a rung -> settings of DiTConfig
    "adaLN-Zero": {"block": "adaln_zero"},
    "+ RMSNorm": {"block": "modern", "switches": _SWITCHES[:1]},
    "+ SwiGLU": {"block": "modern", "switches": _SWITCHES[:2]},
    "+ QK-norm": {"block": "modern", "switches": _SWITCHES[:3]},
    "+ RoPE": {"block": "modern", "switches": _SWITCHES[:4]},
    "+ shared": {"block": "modern", "switches": _SWITCHES},
    "RoPE and table": {"block": "modern", "switches": _SWITCHES[:4]},  # the sin-cos table stays
}
PUBLISHED = {  # FID-50k of DiT-XL/2 without guidance: Table 1 of arXiv 2501.01423, in the order of its rungs
    "before": 12.52,
    "+ SwiGLU": 10.10,
    "+ RMSNorm": 9.25,
    "+ RoPE": 7.13,
}
_SMALL = dict(hidden_size=32, depth=3, batch_size=32, steps=800)
_SEEDS, _TIMES = 3, (100, 300, 500)  # timesteps at which the noise error is measured
_LABELS = torch.arange(10).repeat_interleave(30)


def _add_table(trainer) -> None:
    "Give a model with rotary positions the sin-cos table too."
    for model in (trainer.raw_model, trainer.ema.model):
        _set_table(model)


def _set_table(model: DiT) -> None:
    model.pos_embed.data.copy_(sincos_2d(model.grid, model.config.hidden_size).float()[None])


def _on_canvas(image: Tensor, noise: Tensor, side: int) -> tuple[Tensor, Tensor]:
    "A digit (N, 1, 8, 8) in the middle of an empty image of this side, and noise for it, cut out of (N, 1, 16, 16)."
    margin, cut = (side - 8) // 2, (16 - side) // 2
    padded = F.pad(image, [margin] * 4, value=-1.0)
    return padded, noise[..., cut : cut + side, cut : cut + side]


@torch.no_grad()
def _noise_error(model: DiT, side: int = 8) -> float:
    "Mean squared error of the predicted noise at the pixels of held-out digits, on a canvas of this side."
    real, diffusion, errors = digits().held_out, Diffusion(), []
    fitted, _ = fit_model(model, side)
    if model.pos_embed.any():  # with rotary positions too
        _set_table(fitted)
    noise = torch.randn(len(real), 1, 16, 16, generator=torch.Generator().manual_seed(0))
    x0, noise = _on_canvas(real.images, noise, side)
    inside = slice((side - 8) // 2, (side + 8) // 2)
    for t in _TIMES:
        times = torch.full((len(real),), t)
        eps = fitted(diffusion.q_sample(x0, times, noise), times, real.labels)[:, :1]
        errors.append((eps - noise)[..., inside, inside].square().mean())
    return float(torch.stack(errors).mean())


def _run(rung: str, seed: int) -> tuple:
    "Train one configuration, and measure it: a row of the table."
    watch = _add_table if rung == "RoPE and table" else lambda trainer: None
    trainer = _train({**_SMALL, **RUNGS[rung]}, seed, watch)
    model = trainer.ema.model
    images = sample_images(model, SamplingConfig(steps="20"), _LABELS, seed=seed, progress=False)
    parameters = sum(p.numel() for p in model.parameters()) - model.pos_embed.numel()
    errors = (_noise_error(model), *(_noise_error(model, side) for side in (12, 16)))
    frechet = _evaluate_samples(images, _LABELS)["frechet"]
    return (rung, seed, parameters, *(round(number, 5) for number in (frechet, *errors)))


def read_rows() -> list[dict[str, str]]:
    """Read what has been recorded: the rows of those seeds that all configurations have."""
    if not RESULTS.exists():
        return []
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    seeds = {
        seed for seed in (row["seed"] for row in rows) if sum(r["seed"] == seed for r in rows) == len(RUNGS)
    }
    return [row for row in rows if row["seed"] in seeds]


def main() -> None:
    """Record all configurations that are missing, seed by seed."""
    done = set()
    if RESULTS.exists():
        with RESULTS.open() as file:
            done = {(row["rung"], int(row["seed"])) for row in csv.DictReader(file)}
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(("rung", "seed", "parameters", "frechet", "mse", "mse_12", "mse_16"))
        for rung, seed in ((rung, seed) for seed in range(_SEEDS) for rung in RUNGS):
            if (rung, seed) not in done:
                writer.writerow(_run(rung, seed))
                file.flush()


if __name__ == "__main__":
    main()
