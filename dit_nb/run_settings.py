"""What a run is made of: the settings that must be those of a checkpoint to resume from it, and how to sample from it."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path

import torch

from dit_nb.batches import BatchReader, _find_attribute
from dit_nb.config import SamplingConfig, TrainConfig
from dit_nb.errors import UserError, _check_choice
from dit_nb.objective import Diffusion
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.targets import TargetFlow
from dit_nb.subsets import _data_fingerprint

__all__ = []

_WITHOUT_INFLUENCE = ("grad_accum_steps", "compile", "gradient_checkpointing", "keep", "keep_every")
_WITHOUT_INFLUENCE += ("background_save",)
_WITHOUT_INFLUENCE += ("sample_every", "validate_every", "save_every", "log_every", "tracker", "num_workers")
_MAY_CHANGE = ("lr", "lr_schedule", "warmup_steps", "beta2", "weight_decay", "grad_clip", "ema_decay")
_MAY_CHANGE += ("precision", "flip", "steps", "seconds", "data")  # if the user says so


def _run_settings(trainer) -> dict:
    "What the weights depend on: to resume, these must be as in the checkpoint."
    config, data = trainer.config, trainer.data
    free = _WITHOUT_INFLUENCE + (("steps", "seconds") if config.lr_schedule == "constant" else ())
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    settings["precision"] = trainer.accelerator.mixed_precision.replace("no", "fp32")
    trained = [
        name for name, p in trainer.raw_model.named_parameters() if p.requires_grad
    ]  # others are frozen
    names = _find_attribute(data, "class_names")
    described = {"images": len(data), "class_names": None if names is None else list(names)}
    described["fingerprint"] = _data_fingerprint(data)
    described["word_dropout"] = _find_attribute(data, "word_dropout")  # of captions
    described["means"] = None if described["fingerprint"] else _some_means(data)
    parts = {
        "model": {**asdict(trainer.raw_model.config), "trained parameters": _short_list(trained)},
        "training": settings,
        "diffusion": _diffusion_settings(trainer.diffusion),
        "data": {**described, "vae": _find_attribute(data, "vae")},
    }
    return json.loads(json.dumps(parts))


def _short_list(names: list[str]) -> str:
    "Number, checksum and the first of some names."
    return f"{len(names)} tensors ({zlib.crc32(' '.join(names).encode()):08x}), {names[0]} the first"


def _some_means(data) -> list[float] | None:
    "Mean values of 16 images, by which other images are noticed; None if they are random each time."
    if getattr(data, "streamed", False):  # read in order: the last image is far away
        return None
    indices = torch.linspace(0, len(data) - 1, 16).long().tolist()
    first, again = (BatchReader(data)(indices)[0].float().flatten(1).mean(1).tolist() for _ in range(2))
    return [round(mean, 3) for mean in first] if first == again else None


def _diffusion_settings(diffusion) -> dict:
    "What identifies an objective: its class, and the noise schedule if it has one."
    named = {name: getattr(diffusion, name, None) for name in ("num_timesteps", "variance", "bins")}
    if isinstance(diffusion, RectifiedFlow):
        named |= {"time_density": diffusion.density, "time_shift": diffusion.shift}
        named |= {name: getattr(diffusion, name, None) for name in ("predicts", "least")}
    table = getattr(diffusion, "alphas_cumprod", None)
    return {
        "class": type(diffusion).__name__,
        **named,
        "last alphas_cumprod": None if table is None else float(table[-1]),
    }


def _sampling_settings(trainer) -> SamplingConfig | None:
    "Sampling settings of a run that were not given; None for an objective of the user's own."
    process, data = trainer.diffusion, trainer.data
    if isinstance(process, Diffusion):
        fields = {name: getattr(process, name) for name in ("num_timesteps", "variance", "bins")}
        fields["schedule"] = tuple(process.betas.tolist())
    elif type(process) in (RectifiedFlow, TargetFlow) and getattr(process, "least", 0.05) == 0.05:
        fields = {"objective": "flow", "time_shift": process.shift, "time_density": process.density}
        fields["predicts"] = getattr(process, "predicts", "velocity")
    else:
        return None
    names, channels = _find_attribute(data, "class_names"), trainer.raw_model.config.in_channels
    return SamplingConfig(
        **fields,
        clip_x0=channels in (1, 3),
        class_names=None if names is None else tuple(map(str, names)),
        vae=_find_attribute(data, "vae"),
    )


def _changed_settings(
    saved: dict, wanted: dict, model: type, checkpoint: Path, change: tuple[str, ...]
) -> list[str]:
    "The settings that differ from the checkpoint's, as phrases; a UserError if one may not. `model`: its config's class."
    for name in change:
        _check_choice("change", name, _MAY_CHANGE)
    saved = _with_new_fields(saved, wanted, model)
    images = [_pop_images(settings["data"]) for settings in (saved, wanted)]
    changes = _compare(saved, wanted, checkpoint, change)
    if not _same_images(*images):
        if "data" not in change:
            raise UserError(
                f"data has other images than {checkpoint}, but must have the same, unless change names data."
            )
        changes.append("data has other images")
    return changes


def _with_new_fields(saved: dict, wanted: dict, config: type) -> dict:
    "Settings of a checkpoint, with the defaults of fields that the package has got since it was written."
    known = saved["model"]
    fields = {name: known[name] for name in config.__dataclass_fields__ if name in known}
    defaults = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}
    training = {name: defaults[name] for name in wanted["training"]} | saved["training"]
    filled = {**saved, "model": asdict(config(**fields)) | known, "training": training}
    return json.loads(json.dumps(filled))


def _pop_images(data: dict) -> dict:
    "Remove from the description of a data set, and return, what depends on its images."
    return {name: data.pop(name, None) for name in ("images", "fingerprint", "means")}


def _same_images(a: dict, b: dict) -> bool:
    "Whether two data sets have the same images, as far as is known. Decoders of JPEG differ by less than 0.02."
    if a["means"] and b["means"] and max(abs(x - y) for x, y in zip(a["means"], b["means"])) > 0.02:
        return False
    known = a["fingerprint"] and b["fingerprint"]
    return a["images"] == b["images"] and (not known or a["fingerprint"] == b["fingerprint"])


def _compare(
    saved: dict, wanted: dict, checkpoint: Path, change: tuple[str, ...], prefix: str = ""
) -> list[str]:
    "The settings that differ, as phrases. Raise a UserError that names the first that must not."
    changes = []
    for name, value in wanted.items():
        was = saved.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            changes += _compare(was, value, checkpoint, change, f"{name}." if name == "vae" else "")
        elif was != value and name not in change:
            if name == "vocabulary":  # hundreds of words
                raise UserError(
                    f"captions have other words than in checkpoint {checkpoint}, or other counts of them."
                )
            unless = ", unless change names it" if name in _MAY_CHANGE else ""
            raise UserError(
                f"{prefix}{name} is {value}, but must be {was}, as in checkpoint {checkpoint}{unless}."
            )
        elif was != value:
            changes.append(f"{name} is {value} instead of {was}")
    return changes
