"""Thirteen small studies of the paper's questions: training, sampling, and the list of all variants."""

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_nb.config import SamplingConfig, TrainConfig
from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.ema import EMA
from dit_nb.errors import _check_choice
from dit_nb.lab.paper_tables import _read_csv
from dit_nb.lab.study_models import (
    _DATA,
    _EMBEDDINGS,
    _GATES,
    _count_macs_and_parameters,
    _evaluate_samples,
    _make_model,
)
from dit_nb.lab.sweep import Study
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, bits_per_dim
from dit_nb.pretrained import digit_model, make_diffusion, sample_images
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer

__all__ = ["STUDIES", "load_study"]

_RECIPE = dict(batch_size=64, lr=2e-3, lr_schedule="cosine", warmup_steps=50, beta2=0.99, grad_clip=1.0)
_RECIPE |= dict(ema_decay=0.99, precision="fp32")


_LABELS = torch.arange(10).repeat_interleave(50)  # 500 samples, 50 of each digit


def _train(settings: dict, seed: int, watch: Callable = lambda trainer: None) -> Trainer:
    "Train a variant; `watch` receives the trainer before it starts."
    recipe = {**_RECIPE, **{k: v for k, v in settings.items() if k in TrainConfig.__dataclass_fields__}}
    limits = {"steps": settings["steps"] or None, "seconds": settings.get("for_seconds") or None}
    data = _DATA[settings.get("data", "digits")]().train
    torch.manual_seed(seed)
    model = _make_model(settings)
    bins = 256 if settings.get("data") == "mnist" else 17
    trainer = Trainer(model, Diffusion(bins=bins), data, TrainConfig(**{**recipe, **limits, "seed": seed}))
    watch(trainer)
    with fast_cpu(trainer):
        trainer.fit(progress=False)
    return trainer


def _evaluate_model(model: nn.Module, seed: int, settings: dict) -> dict[str, float]:
    "Metrics of 500 samples of a model."
    data, how = settings.get("data", "digits"), {"steps": settings.get("sampling_steps", "50")}
    how |= {k: settings[k] for k in ("cfg_scale", "guided_channels") if k in settings}
    images = sample_images(model, SamplingConfig(**how), _LABELS, seed=seed, progress=False)
    if data == "folded":
        images, data = F.pixel_shuffle(images, 2), "digits"
    return _evaluate_samples(images, _LABELS, data)


def _loss_by_decile(trainer: Trainer) -> dict[str, float]:
    "Mean squared error in each tenth of a training run."
    losses = np.array(trainer.progress.history["mse"])
    return {f"mse_{i + 1}": float(part.mean()) for i, part in enumerate(np.array_split(losses, 10))}


def _train_and_evaluate(settings: dict, seed: int) -> dict[str, float]:
    "Train a variant and evaluate samples."
    trainer = _train(settings, seed)
    model, done = trainer.ema.model, trainer.progress
    about = {"trained_steps": done.step, "trained_seconds": round(done.seconds, 2)}
    return {
        **_evaluate_model(model, seed, settings),
        **_count_macs_and_parameters(trainer.raw_model),
        **about,
        **_loss_by_decile(trainer),
    }


def _run_depth_study(settings: dict, seed: int) -> dict[str, float]:
    "Train, evaluate, and measure the RMS of the tokens after each block, before and after training."
    torch.manual_seed(seed)
    before = _token_rms(_make_model(settings))
    trainer = _train(settings, seed)
    model = trainer.ema.model
    lengths = {"start": before, "end": _token_rms(model)}
    by_depth = {f"{when}_{i}": v for when, values in lengths.items() for i, v in enumerate(values)}
    return {
        **_evaluate_model(model, seed, settings),
        **_loss_by_decile(trainer),
        **by_depth,
        **_count_macs_and_parameters(trainer.raw_model),
    }


@torch.no_grad()
def _token_rms(model: DiT) -> list[float]:
    "RMS of the tokens before the first block and after each, on 100 noisy held-out digits."
    real, lengths = digits().held_out, []

    def record(module: nn.Module, inputs: tuple, out: Tensor) -> None:
        if not lengths:
            lengths.append(float(inputs[0].pow(2).mean().sqrt()))
        lengths.append(float(out.pow(2).mean().sqrt()))

    hooks = [block.register_forward_hook(record) for block in model.blocks]
    t, noise = torch.arange(100) * 10, torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = Diffusion().q_sample(real.images[:100], t, noise)
    where = next(model.parameters()).device
    model(x_t.to(where), t.to(where), real.labels[:100].to(where))
    for hook in hooks:
        hook.remove()
    return lengths


_EMA_DECAYS = (0.0, 0.9, 0.99, 0.999, 0.9999)


_SAMPLING_STEP_COUNTS = ("5", "10", "25", "50", "100", "250")


def _run_ema_study(settings: dict, seed: int) -> dict[str, float]:
    "Train once with several EMAs side by side: decay 0 to 0.9999, with warm-up (w) or without (c)."
    torch.manual_seed(seed)
    averages = {}

    def watch(trainer: Trainer) -> None:
        for decay in _EMA_DECAYS:
            for how in ("w", "c") if decay else ("w",):
                average = EMA(trainer.raw_model, decay)
                average.updates = 0 if how == "w" else 10**9  # far beyond its warm-up
                averages[f"{decay:g}{how}"] = average
        first, many = trainer.ema.update, list(averages.values())
        trainer.ema.update = lambda model: [update(model) for update in (first, *(a.update for a in many))]

    trainer = _train(settings, seed, watch)
    found = {
        name: _evaluate_model(average.model, seed, settings)["frechet"] for name, average in averages.items()
    }
    found = {f"frechet_{name}": v for name, v in found.items()}
    return {**found, **_loss_by_decile(trainer), **_count_macs_and_parameters(trainer.raw_model)}


def _run_steps_study(settings: dict, seed: int) -> dict[str, float]:
    "Train once; sample with few and many steps."
    trainer = _train(settings, seed)
    model, steps = (
        trainer.ema.model,
        [s for s in _SAMPLING_STEP_COUNTS if int(s) <= settings.get("at_most", 250)],
    )
    found = {s: _evaluate_model(model, seed, {"sampling_steps": s})["frechet"] for s in steps}
    return {**{f"frechet_{s}": v for s, v in found.items()}, **_count_macs_and_parameters(trainer.raw_model)}


def _evaluate_bundled_model(settings: dict, seed: int, labels: Tensor = _LABELS) -> dict[str, float]:
    "Metrics of samples of the bundled digit model."
    model, sampling = digit_model()
    sampling = replace(sampling, **{"steps": "25", **settings})
    images = sample_images(InferenceModel(model), sampling, labels, seed=seed, progress=False)
    return _evaluate_samples(images.cpu(), labels)


def _run_variance_study(settings: dict, seed: int) -> dict[str, float]:
    "Metrics of 200 samples of that model, and the bound on 40 held-out digits in bits per dimension."
    model, sampling = digit_model()
    model, real = model.cpu(), digits().held_out
    some = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:40]
    chain = make_diffusion(replace(sampling, variance=settings["variance"])).respaced(settings["steps"])
    noise = torch.Generator().manual_seed(seed)
    bits = bits_per_dim(chain, model, real.images[some], real.labels[some], generator=noise, progress=False)
    few = torch.arange(10).repeat_interleave(20)
    return {**_evaluate_bundled_model(settings, seed, few), "bits": float(bits["total"].mean())}


_BLOCKS = ("adaln_zero", "adaln", "cross_attention", "in_context")


def _steps_at_equal_compute(block: str, steps: int = 2000) -> int:
    "Number of steps with the multiply-adds of `steps` steps of adaLN-Zero."
    first, other = (cost(_make_model({"block": b}).config).total_macs for b in (_BLOCKS[0], block))
    return round(steps * first / other)


_FAST = {"steps": 30, "sampling_steps": "5"}


STUDIES = {
    "blocks": Study(
        "Four blocks, the same width and steps: does the paper's order hold?",
        [{"block": b, "steps": 2000} for b in _BLOCKS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "blocks_compute": Study(
        "Four blocks, the same width and multiply-adds: does it still?",
        [{"block": b, "steps": _steps_at_equal_compute(b)} for b in _BLOCKS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "blocks_mnist": Study(
        "The same blocks on harder images: does the order hold?",
        [{"data": "mnist", "block": b, "steps": 1200} for b in _BLOCKS],
        _train_and_evaluate,
        seeds=3,
        fast=_FAST,
    ),
    "scaling": Study(
        "Width, depth and patch size: do multiply-adds predict quality when parameters do not?",
        [
            {"hidden_size": d, "depth": n, "patch_size": p, "steps": 1000}
            for d in (32, 64, 128)
            for n in (2, 4)
            for p in (4, 2, 1)
        ],
        _train_and_evaluate,
        seeds=3,
        fast=_FAST,
    ),
    "zero": Study(
        "Which part of adaLN-Zero's zero initialization matters: the gates, all of it, or sigmoid gates?",
        [{"gates": s, "depth": 6, "steps": 1000} for s in _GATES],
        _run_depth_study,
        fast=_FAST,
    ),
    "zero_gates": Study(
        "Only shift and scale at zero: the combination that `zero` lacks, added after its result was seen.",
        [{"gates": "shift_scale_only", "depth": 6, "steps": 1000}],
        _run_depth_study,
        seeds=3,
        fast=_FAST,
    ),
    "init": Study(
        "At a small width, which embedding needs the larger scale for the label to have an effect?",
        [{"embeddings": s, "steps": 1000} for s in _EMBEDDINGS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "variance": Study(
        "When does a learned variance help?",
        [
            {"variance": v, "steps": s}
            for s in ("10", "50", "250", "1000")
            for v in ("learned", "fixed_small", "fixed_large")
        ],
        _run_variance_study,
        seeds=3,
        fast={"steps": "5"},
    ),
    "guidance": Study(
        "What does a larger guidance scale improve, and what does it cost?",
        [{"cfg_scale": w} for w in (1.0, 0.0, 1.5, 2.0, 4.0)],
        _evaluate_bundled_model,
        fast={"steps": "5"},
    ),
    "channels": Study(
        "Guidance of all channels, or of three in four, as in the official code?",
        [
            {"data": "folded", "cfg_scale": w, "guided_channels": k, "steps": 1000}
            for w, k in ((1.0, 4), (1.5, 4), (1.5, 3))
        ],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "sampling": Study(
        "Can many sampling steps of a small model do what few steps of a large one do?",
        [{"hidden_size": d, "steps": 1000} for d in (32, 64, 128)],
        _run_steps_study,
        seeds=3,
        fast={"steps": 30, "at_most": 10},
    ),
    "unet": Study(
        "Is the U-Net's inductive bias crucial: at the same multiply-adds, and in the same time?",
        [
            {"net": net, "width": 20, "hidden_size": 80, "depth": 5, "steps": steps, "for_seconds": seconds}
            for steps, seconds in ((1500, 0), (0, 30))
            for net in ("dit", "unet")
        ],
        _train_and_evaluate,
        seeds=3,
        fast={**_FAST, "for_seconds": 0},
    ),
    "ema": Study(
        "Which EMA decay is best, and does it need a warm-up?",
        [{"steps": s, "sampling_steps": "25"} for s in (300, 1000, 3000)],
        _run_ema_study,
        fast=_FAST,
    ),
}


def _find_study(name: str) -> Study:
    """A study by its name."""
    _check_choice("study", name, STUDIES)
    return STUDIES[name]


def load_study(name: str) -> list[dict]:
    """The recorded rows of a study, which come with the package."""
    _find_study(name)
    return _read_csv((files("dit_nb.lab") / "results" / f"{name}.csv").read_text(encoding="utf-8"))


def _fast_version(study: Study) -> Study:
    """A smoke test of a study: the same variants, one seed, few steps; its numbers mean nothing.

    Args:
        study: the study to shorten
    """
    variants = {str(v): v for v in ({**variant, **study.fast} for variant in study.variants)}
    return study._replace(variants=list(variants.values()), seeds=1)
