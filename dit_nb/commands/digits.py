"""`dit-nb digits`: train on handwritten digits, sample 1000 new ones, and evaluate them."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.commands.options import Digits
from dit_nb.commands.output import _staged_output, _training_card
from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.data import digits
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images, save_model
from dit_nb.sampling import Step
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer
from dit_nb.utils import _make_folder

__all__ = ["digits_config"]

_DIGITS_MODEL = DiTConfig(**vars(Digits.model))
_DIGITS_SAMPLING = SamplingConfig(bins=17, class_names=tuple("0123456789"))


def digits_config(
    seconds: float | None = 60.0, steps: int | None = None, seed: int = 0, **changes
) -> TrainConfig:
    """Return the training settings that give good digits after a minute on two CPU cores.

    Args:
        seconds: training time in seconds, if `steps` is None
        steps: number of updates; repeats exactly, unlike a time
        seed: seed of the data order and of all noise
        **changes: other fields of TrainConfig
    """
    return _short_recipe(Digits, seconds, steps, seed, **changes)


def _short_recipe(
    command: type, seconds: float | None, steps: int | None, seed: int, **changes
) -> TrainConfig:
    "Settings of a run of minutes: AdamW with a cosine schedule, and the defaults of a command's options."
    length = {"steps": steps, "seconds": seconds if steps is None else None}
    names = ("batch_size", "lr", "warmup_steps", "ema_decay", "save_every")
    options = {name: getattr(command, name) for name in names if hasattr(command, name)}
    options |= {"lr_schedule": "cosine", "beta2": 0.99, "grad_clip": 1.0}
    return TrainConfig(**{"seed": seed, **length, **options, **changes})


def _run_digits(
    out: str | Path = "runs/digits",
    seconds: float | None = 60.0,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    config: DiTConfig = _DIGITS_MODEL,
    command: str = "",
    **changes,
) -> dict:
    """Train on the digits, sample 1000, compare them with held-out digits, and return the metrics.

    Args:
        out: output folder: model, metrics.json, samples.npz and figures
        seconds, steps, seed, **changes: as for `digits_config`
        progress: whether to show progress bars
        config: configuration of the model
        command: the command line, for the model card

    Raises:
        UserError: if a setting is invalid, or the folder cannot be written
    """
    out, split = _make_folder(out), digits()
    torch.manual_seed(seed)
    model, diffusion = DiT(config), make_diffusion(_DIGITS_SAMPLING)
    trainer = Trainer(model, diffusion, split.train, digits_config(seconds, steps, seed, **changes))
    with fast_cpu(trainer):
        model = trainer.fit(progress=progress)
    labels, frames = torch.arange(10).repeat_interleave(100), {}
    sample = partial(sample_images, InferenceModel(model), _DIGITS_SAMPLING, labels)
    images = sample(seed=seed, callback=partial(_record_frames, frames), progress=progress).cpu()
    others = [sample(seed=other, progress=False).cpu() for other in range(seed + 1, seed + 4)]
    metrics = _compute_metrics(images, others, labels, split, trainer)
    with _staged_output(out) as work:
        _write_results(work, images, labels, _DIGITS_SAMPLING.class_names, frames, trainer, metrics)
        card = {**_training_card("digits", command), "metrics": metrics}
        save_model(model, work / "model", replace(_DIGITS_SAMPLING, card=card))
    return metrics


def _record_frames(frames: dict, step: Step, every: int = 100) -> None:
    "Sampling callback: keep one image of `every` at some of 50 timesteps, for denoising.png."
    if step.i in (0, 15, 25, 32, 37, 40, 43, 45, 47):  # most changes happen near the end
        frames[step.t] = step.x_t[::every].cpu()
    if step.i == 49:
        frames[-1] = step.x_prev[::every].cpu()


def _compute_metrics(images: Tensor, others: list[Tensor], labels: Tensor, split, trainer: Trainer) -> dict:
    "Evaluate the samples, and three more sample sets to show how far the Fréchet distance varies; describe the run."
    from dit_nb.evaluation import DigitClassifier, evaluate_digits

    classifier, run = DigitClassifier(split), trainer.progress
    metrics = evaluate_digits(images, labels, split, classifier)
    distances = [classifier.distance(other, split.held_out) for other in others]
    return {
        **metrics,
        "frechet_by_seed": [metrics["frechet"], *distances],
        "seconds": round(run.seconds, 2),
        "steps": run.step,
        "seed": trainer.config.seed,
        "samples": len(images),
        "device": str(trainer.accelerator.device),
        "parameters": sum(p.numel() for p in trainer.raw_model.parameters() if p.requires_grad),
        "cfg_scale": 1.0,
        "sampling_steps": 50,
    }


def _write_results(
    folder: Path, images: Tensor, labels: Tensor, names: tuple, frames: dict, trainer: Trainer, metrics: dict
) -> None:
    "Write every file of a run except the model."
    from dit_nb.visual import plot_classes, plot_denoising, plot_loss

    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    np.savez_compressed(folder / "samples.npz", images=images.numpy(), labels=labels.numpy())
    plot_classes(images, labels, names).savefig(folder / "samples.png", dpi=150)
    titles = [f"t = {t}" if t >= 0 else "done" for t in frames]
    plot_denoising(torch.stack(list(frames.values())), titles).savefig(folder / "denoising.png", dpi=150)
    plot_loss(trainer.progress.history).savefig(folder / "loss.png", dpi=150)


def _metrics_table(m: dict) -> str:
    distances = m["frechet_by_seed"]
    mean = f"{sum(distances) / len(distances):.3f}"
    rows = [
        ("", "samples", "real digits"),
        ("classified as their label", f"{m['accuracy']:.1%}", f"{m['accuracy_real']:.1%}"),
        ("Fréchet distance to held-out digits", f"{m['frechet']:.3f}", f"{m['frechet_real']:.3f}"),
        (f"the same, mean of {len(distances)} sample sets", mean, ""),
        ("distance to nearest training digit", f"{m['nearest_train']:.1f}", f"{m['nearest_train_real']:.1f}"),
    ]
    head = f"{m['steps']} steps in {m['seconds']:.0f} s on {m['device']}, seed {m['seed']}, {m['parameters']:,} parameters"
    return "\n".join([head, *(f"{a:<36}{b:>9}{c:>13}" for a, b, c in rows)])


@fast_cpu()
def run(options: Digits) -> None:
    "Run dit-nb digits."
    settings = dict(vars(options))
    out, config = settings.pop("out"), DiTConfig(**vars(settings.pop("model")))
    print(_metrics_table(_run_digits(out, config=config, **settings)))
    print(f"model, metrics and figures in {out}")
