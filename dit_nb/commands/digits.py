"""A minute of training on real handwritten digits, a thousand new ones, and a judge."""

import argparse
import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.commands.options import add_fields, given, published
from dit_nb.config import DiTConfig
from dit_nb.data import digits
from dit_nb.model import DiT
from dit_nb.pretrained import SAMPLING, make_diffusion, sample_images, save_model
from dit_nb.sampling import Step
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import make_folder

DIGITS_MODEL = DiTConfig(
    input_size=8,
    patch_size=4,
    in_channels=1,
    hidden_size=128,
    depth=2,
    num_heads=4,
    num_classes=10,
    init="scaled",
)


DIGITS_SAMPLING = {**SAMPLING, "bins": 17, "class_names": list("0123456789")}


def digits_config(
    seconds: float | None = 60.0,  # how long to train, or
    steps: int | None = None,  # how many updates, for exact repeatability
    seed: int = 0,
    **changes,  # other values for lr, ema_decay, ...
) -> TrainConfig:
    "The recipe that draws good digits in a minute on two cores."
    recipe = TrainConfig(
        steps=steps,
        seconds=seconds if steps is None else None,
        batch_size=128,
        lr=7e-3,
        lr_schedule="cosine",
        warmup_steps=50,
        beta2=0.99,
        grad_clip=1.0,
        ema_decay=0.99,
        seed=seed,
    )
    return replace(recipe, **changes)


def run_digits(
    out: str | Path = "runs/digits",  # folder for pictures, figures and the model
    seconds: float | None = 60.0,  # how long to train, or
    steps: int | None = None,  # how many updates
    seed: int = 0,
    progress: bool = True,
    config: DiTConfig = DIGITS_MODEL,
    **changes,  # to the training recipe: lr, ema_decay, ...
) -> dict:  # what metrics.json holds
    "Train on real handwritten digits, draw 1000, and judge them against digits that the model has not seen."
    out, split = make_folder(out), digits()
    torch.manual_seed(seed)
    model, diffusion = DiT(config), make_diffusion(DIGITS_SAMPLING)
    trainer = Trainer(model, diffusion, split.train, digits_config(seconds, steps, seed, **changes))
    model = trainer.fit(progress=progress)
    labels, frames = torch.arange(10).repeat_interleave(100), {}
    keep = partial(keep_frames, frames)
    images = sample_images(model, DIGITS_SAMPLING, labels, 1000, seed, callback=keep, progress=progress).cpu()
    others = [
        sample_images(model, DIGITS_SAMPLING, labels, 1000, other, progress=False).cpu()
        for other in range(seed + 1, seed + 4)  # how much of one drawing's distance is luck (see above)
    ]
    metrics = digits_metrics(images, others, labels, split, trainer, seed)
    with published(out) as work:
        write_digits(work, images, labels, frames, trainer, metrics)
        save_model(model, work / "model", {**DIGITS_SAMPLING, "metrics": metrics})
    return metrics


def keep_frames(frames: dict, step: Step) -> None:
    "Remember one image of each class at some moments, for denoising.png."
    if step.i in (0, 15, 25, 32, 37, 40, 43, 45, 47):  # most happens near the end
        frames[step.t] = step.x_t[::100].cpu()
    if step.i == 49:
        frames[-1] = step.x_prev[::100].cpu()


def digits_metrics(
    images: Tensor, others: list[Tensor], labels: Tensor, split, trainer: Trainer, seed: int
) -> dict:
    "What the judge says of the images, and of the distances of other drawings; and how the model came about."
    from dit_nb.evaluation import DigitClassifier, evaluate_digits

    judge, state = DigitClassifier(split), trainer.progress
    found = evaluate_digits(images, labels, split, judge)
    found["frechet_draws"] = [found["frechet"], *(judge.distance(o, split.held_out) for o in others)]
    run = {"seconds": round(state.seconds, 2), "steps": state.step, "seed": seed, "samples": len(images)}
    run["device"] = str(trainer.accelerator.device)
    run["parameters"] = sum(p.numel() for p in trainer.raw.parameters() if p.requires_grad)
    return {**found, **run, "cfg_scale": 1.0, "sampling_steps": 50}


def write_digits(
    folder: Path, images: Tensor, labels: Tensor, frames: dict, trainer: Trainer, metrics: dict
) -> None:
    "Every file of a digits run but the model."
    from dit_nb.visual import plot_classes, plot_denoising, plot_loss

    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    np.savez_compressed(folder / "samples.npz", images=images.numpy(), labels=labels.numpy())
    plot_classes(images, labels, tuple("0123456789")).savefig(folder / "samples.png", dpi=150)
    titles = [f"t = {t}" if t >= 0 else "done" for t in frames]
    plot_denoising(torch.stack(list(frames.values())), titles).savefig(folder / "denoising.png", dpi=150)
    plot_loss(trainer.progress.history).savefig(folder / "loss.png", dpi=150)


def digits_table(m: dict) -> str:
    "The metrics as a person reads them."
    draws = m["frechet_draws"]
    rows = [
        ("", "samples", "real digits"),
        ("read as the right digit", f"{m['accuracy']:.1%}", f"{m['accuracy_real']:.1%}"),
        ("Fréchet distance to unseen digits", f"{m['frechet']:.3f}", f"{m['frechet_floor']:.3f}"),
        (f"the same, mean of {len(draws)} drawings", f"{sum(draws) / len(draws):.3f}", ""),
        ("distance to nearest training digit", f"{m['nearest_train']:.1f}", f"{m['nearest_train_real']:.1f}"),
    ]
    head = f"{m['steps']} steps in {m['seconds']:.0f} s on {m['device']}, seed {m['seed']}, {m['parameters']:,} parameters"
    return "\n".join([head, *(f"{a:<36}{b:>9}{c:>13}" for a, b, c in rows)])


DIGITS_OPTIONS = ("batch_size", "lr", "warmup_steps", "ema_decay")  # of the recipe


DATA_FIELDS = ("input_size", "in_channels", "num_classes")  # of the model: the data says these


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb digits."
    add = parser.add_argument
    add("--out", default="runs/digits", help="folder for pictures, metrics and model (default: %(default)s)")
    add("--seconds", type=float, default=60.0, help="how long to train (default: %(default)s)")
    add("--steps", type=int, help="train for so many updates instead: repeats exactly")
    add("--seed", type=int, default=0, help="fixes all that is random (default: %(default)s)")
    others = [f.name for f in fields(TrainConfig) if f.name not in DIGITS_OPTIONS]
    add_fields(parser, digits_config(), "training", skip=others)
    add_fields(parser, DIGITS_MODEL, "model", skip=DATA_FIELDS)


def run(args: argparse.Namespace) -> None:
    "dit-nb digits"
    config = replace(DIGITS_MODEL, **given(args, DiTConfig))
    recipe = {name: getattr(args, name) for name in DIGITS_OPTIONS if hasattr(args, name)}
    metrics = run_digits(args.out, args.seconds, args.steps, args.seed, config=config, **recipe)
    print(digits_table(metrics))
    print(f"pictures, metrics and model in {args.out}")
