"""`dit-nb emoji`: train on emoji, sample new ones of each class, and evaluate them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.checkpoint import checkpoints
from dit_nb.commands.digits import _record_frames, _short_recipe, _write_results
from dit_nb.commands.options import Emoji
from dit_nb.commands.output import _staged_output, _training_card
from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.data import emoji
from dit_nb.emoji import EmojiSplit
from dit_nb.emoji_features import evaluate_emoji
from dit_nb.errors import UserError
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images, save_model
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer
from dit_nb.utils import _make_folder

__all__ = []

_SAMPLES = 256  # samples that are evaluated


def _emoji_config(
    seconds: float | None = Emoji.seconds, steps: int | None = None, seed: int = 0, **changes
) -> TrainConfig:
    """Return the training settings that give smileys in both styles after eight minutes on two CPU cores.

    Args:
        seconds: training time in seconds, if `steps` is None
        steps: number of updates; repeats exactly, unlike a time
        seed: seed of the data order and of all noise
        **changes: other fields of TrainConfig
    """
    return _short_recipe(Emoji, seconds, steps, seed, **changes)


def _run_emoji(
    out: str | Path = Emoji.out,
    seconds: float | None = Emoji.seconds,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    config: DiTConfig | None = None,
    categories: Sequence[str] | None = Emoji.categories,
    resume: bool = False,
    command: str = "",
    **changes,
) -> dict:
    """Train on emoji, sample 256 of all classes, compare them with held-out emoji, and return the metrics.

    Args:
        out: output folder: model, metrics.json, samples.npz and figures; checkpoints with `save_every`
        seconds, steps, seed, **changes: as for `_emoji_config`
        progress: whether to show progress bars
        config: configuration of the model; its number of classes is set to that of the data
        categories: categories of emoji; None for all of them
        resume: continue from the last checkpoint in `out`
        command: the command line, for the model card

    Raises:
        UserError: if a setting is invalid, or the folder cannot be written
    """
    split, settings = emoji(categories), _emoji_config(seconds, steps, seed, **changes)
    out, names = _make_folder(out), split.train.class_names
    config = replace(config or DiTConfig(**vars(Emoji.model)), num_classes=len(names))
    _check_checkpoints(out, resume, settings)
    torch.manual_seed(seed)
    sampling = SamplingConfig(class_names=names)
    data = split.train.with_mirror_images()
    folder = out if settings.save_every else None
    trainer = Trainer(DiT(config), make_diffusion(sampling), data, settings, folder)
    if resume:
        trainer.resume()
    with fast_cpu(trainer):
        model = trainer.fit(progress=progress)
    labels, frames = torch.arange(len(names)).repeat_interleave(_SAMPLES // len(names)), {}
    record = partial(_record_frames, frames, every=len(labels) // 8)
    images = sample_images(
        InferenceModel(model), sampling, labels, seed=seed, callback=record, progress=progress
    ).cpu()
    metrics = _compute_metrics(images, labels, split, trainer)
    with _staged_output(out) as work:
        _write_results(work, images, labels, names, frames, trainer, metrics)
        data = f"emoji ({', '.join(categories or ('all categories',))})"
        card = {**_training_card(data, command), "metrics": metrics}
        save_model(model, work / "model", replace(sampling, card=card))
    return metrics


def _check_checkpoints(out: Path, resume: bool, settings: TrainConfig) -> None:
    if resume and not settings.save_every:
        raise UserError("save_every is missing: --resume needs the value of the run that was interrupted.")
    if not resume and settings.save_every and checkpoints(out):
        raise UserError(f"out is {out}, but must have no checkpoints: pass --resume to continue from them.")


def _compute_metrics(images: Tensor, labels: Tensor, split: EmojiSplit, trainer: Trainer) -> dict:
    "Evaluate the samples, and describe the run."
    run = trainer.progress
    return {
        **evaluate_emoji(images, labels, split),
        "seconds": round(run.seconds, 2),
        "steps": run.step,
        "seed": trainer.config.seed,
        "samples": len(images),
        "device": str(trainer.accelerator.device),
        "parameters": sum(p.numel() for p in trainer.raw_model.parameters() if p.requires_grad),
        "cfg_scale": 1.0,
        "sampling_steps": 50,
    }


def _metrics_table(m: dict) -> str:
    percent = lambda name: (f"{m[name]:.1%}", f"{m[f'{name}_real']:.1%}")  # noqa: E731
    rows = [
        ("", "samples", "real emoji"),
        ("classified as their category", *percent("category_accuracy")),
        ("classified as their style", *percent("style_accuracy")),
        ("Fréchet distance to held-out emoji", f"{m['frechet']:.3f}", f"{m['frechet_real']:.3f}"),
        ("distance to nearest training emoji", f"{m['nearest_train']:.3f}", f"{m['nearest_train_real']:.3f}"),
    ]
    head = f"{m['steps']} steps in {m['seconds']:.0f} s on {m['device']}, seed {m['seed']}, {m['parameters']:,} parameters"
    return "\n".join([head, *(f"{a:<36}{b:>9}{c:>13}" for a, b, c in rows)])


@fast_cpu()
def run(options: Emoji) -> None:
    "Run dit-nb emoji."
    settings = dict(vars(options))
    config = DiTConfig(**vars(settings.pop("model")))
    if settings["all"] and settings["categories"] != Emoji.categories:
        raise UserError("categories must not be given with --all, which takes all of them.")
    if settings.pop("all"):
        settings["categories"] = None
    print(_metrics_table(_run_emoji(config=config, **settings)))
    print(f"model, metrics and figures in {options.out}")
