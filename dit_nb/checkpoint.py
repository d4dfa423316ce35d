"""Checkpoints of a training run: written atomically, independent of the number of processes, checked on resume."""

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dit_nb.batches import BatchReader, _find_attribute
from dit_nb.config import SamplingConfig
from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import UserError, _check_choice
from dit_nb.finetune import _save_adapter_config
from dit_nb.objective import Diffusion
from dit_nb.utils import _make_folder
from dit_nb.weight_files import _save_object, _save_tensors

__all__ = ["Checkpointer", "checkpoints"]

_WITHOUT_INFLUENCE = ("grad_accum_steps", "compile", "gradient_checkpointing", "keep", "keep_every")
_WITHOUT_INFLUENCE += ("sample_every", "validate_every", "save_every", "log_every", "tracker", "num_workers")
_MAY_CHANGE = ("lr", "lr_schedule", "warmup_steps", "beta2", "weight_decay", "grad_clip", "ema_decay")
_MAY_CHANGE += ("precision", "flip", "steps", "seconds", "data")  # if the user says so


def checkpoints(out: str | Path) -> list[Path]:
    """Return the complete checkpoints in a run's folder, oldest first.

    Args:
        out: folder of the run
    """
    return sorted((Path(out) / "checkpoints").glob("step-[0-9]*"))


class Checkpointer:
    """Saves and restores a run, with identical results for any number of processes.

    Args:
        out: folder of the run; None if it has none
        keep: number of checkpoints to keep, the newest
        keep_every: also keep each checkpoint whose step is a multiple of this
        sampling: sampling settings to write beside the weights, which make a checkpoint a model that can be
            loaded; by default those of the trainer's `Diffusion`
    """

    def __init__(
        self,
        out: str | Path | None,
        keep: int = 3,
        keep_every: int | None = None,
        sampling: SamplingConfig | None = None,
    ):
        self.out, self.keep, self.keep_every = None if out is None else Path(out), keep, keep_every
        self.sampling = sampling

    def check_new(self) -> None:
        """Raise a UserError if the folder holds checkpoints: those of two runs would be mixed."""
        if self.out is not None and checkpoints(self.out):
            raise UserError(
                f"out is {self.out}, but must have no checkpoints: call resume() to continue from them, "
                "or choose another folder."
            )

    def save(self, trainer) -> Path:
        """Write a checkpoint and remove older ones. It appears complete or not at all.

        Args:
            trainer: the run; all ranks must call this

        Raises:
            UserError: if a weight is not finite, or the disk is full
        """
        if self.out is None:
            raise UserError("out is None, but must be a folder to write checkpoints to.")
        final = self.out / "checkpoints" / f"step-{trainer.progress.step:08d}"
        _check_finite(trainer)
        state = _gather_state(trainer)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process and not final.exists():
                sampling = self.sampling or _sampling_settings(trainer)
                _write_checkpoint(final, *state, _run_settings(trainer), trainer.raw_model, sampling)
                self._remove_old()
        return final

    def _remove_old(self) -> None:
        "Remove what is neither among the newest nor a milestone; each under a hidden name, in case it takes a while."
        for old in checkpoints(self.out)[: -self.keep]:
            if not self.keep_every or int(old.name.removeprefix("step-")) % self.keep_every:
                hidden = old.with_name(f".{old.name}.old")
                os.replace(old, hidden)
                shutil.rmtree(hidden)

    def resume(self, trainer, change: Iterable[str] = ()) -> None:
        """Restore the last checkpoint in the run's folder.

        Args:
            trainer: a run with the settings of the checkpoint
            change: names of settings that may differ from the checkpoint's

        Raises:
            UserError: if there is no checkpoint, it is damaged, or a setting differs
        """
        if self.out is None:
            raise UserError("out is None, but must be the folder of a run to resume.")
        found = checkpoints(self.out)
        if not found:
            raise UserError(f"out is {self.out}, but must be the folder of a run: it holds no checkpoint.")
        weights, average, rest, settings = _read_checkpoint(found[-1])
        changes = _changed_settings(settings, trainer, found[-1], tuple(change))
        done, steps = rest["progress"]["step"], trainer.config.steps
        if steps is not None and done > steps:
            raise UserError(f"steps is {steps}, but must be at least {done}, the updates of {found[-1]}.")
        _restore(trainer, weights, average, rest)
        trainer.progress.changes += [f"from step {done}: {text}" for text in changes]


def _restore(trainer, weights: dict, average: dict, rest: dict) -> None:
    "Give a trainer the state of a checkpoint. All ranks must call this."
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True)
    own = [{k: v for k, v in group.items() if k != "params"} for group in trainer.optimizer.param_groups]
    state = {"model_state_dict": weights, "optim_state_dict": rest["optimizer"], "options": options}
    state_dict.set_state_dict(trainer.raw_model, trainer.optimizer.optimizer, **state)
    for group, settings in zip(trainer.optimizer.param_groups, own):
        group.update(settings)  # those of this run, which may have been changed
    state_dict.set_model_state_dict(trainer.ema.model, average, options=options)
    trainer.ema.updates = rest["ema updates"]
    vars(trainer.progress).update(rest["progress"])
    if trainer.accelerator.scaler is not None and rest.get("scaler"):
        trainer.accelerator.scaler.load_state_dict(rest["scaler"])
    trainer.logger.pending.clear()


def _check_finite(trainer) -> None:
    "Raise a UserError if a weight or an averaged weight is not finite. All ranks must call this."
    weights = [*trainer.raw_model.parameters(), *trainer.ema.model.parameters()]
    local = [getattr(weight, "to_local", lambda weight=weight: weight)() for weight in weights]
    with _raise_on_all_ranks():
        if not torch.stack([weight.detach().isfinite().all() for weight in local]).all():
            step, lr = trainer.progress.step, trainer.config.lr
            raise UserError(
                f"weights are not finite after step {step}, but must be: lr {lr} may be too high. They are not "
                "saved; earlier checkpoints are finite: resume with a smaller lr, and name it in change."
            )


def _run_settings(trainer) -> dict:
    "What the weights depend on: to resume, these must be as in the checkpoint."
    config, data = trainer.config, trainer.data
    free = _WITHOUT_INFLUENCE + (("steps", "seconds") if config.lr_schedule == "constant" else ())
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    settings["precision"] = trainer.accelerator.mixed_precision.replace("no", "fp32")
    trained = [
        name for name, p in trainer.raw_model.named_parameters() if p.requires_grad
    ]  # some may be frozen
    names = _find_attribute(data, "class_names")
    described = {"images": len(data), "class_names": None if names is None else list(names)}
    described["means of some images"] = _some_means(data)
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
    indices = torch.linspace(0, len(data) - 1, 16).long().tolist()
    first, again = (BatchReader(data)(indices)[0].float().flatten(1).mean(1).tolist() for _ in range(2))
    return [round(mean, 3) for mean in first] if first == again else None


def _diffusion_settings(diffusion) -> dict:
    "What identifies an objective: its class, and the noise schedule if it has one."
    named = {name: getattr(diffusion, name, None) for name in ("num_timesteps", "variance", "bins")}
    table = getattr(diffusion, "alphas_cumprod", None)
    return {
        "class": type(diffusion).__name__,
        **named,
        "last alphas_cumprod": None if table is None else float(table[-1]),
    }


def _sampling_settings(trainer) -> SamplingConfig | None:
    "Sampling settings of a run that were not given; None for an objective that is no `Diffusion`."
    process, data = trainer.diffusion, trainer.data
    if not isinstance(process, Diffusion):
        return None
    names, channels = _find_attribute(data, "class_names"), trainer.raw_model.config.in_channels
    return SamplingConfig(
        schedule=tuple(process.betas.tolist()),
        num_timesteps=process.num_timesteps,
        variance=process.variance,
        bins=process.bins,
        clip_x0=channels in (1, 3),
        class_names=None if names is None else tuple(map(str, names)),
        vae=_find_attribute(data, "vae"),
    )


def _gather_state(trainer) -> tuple[dict, dict, dict]:  # weights, averaged weights, the rest
    "Full state of the run, on rank 0. All ranks must call this."
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, optimizer = trainer.raw_model, trainer.optimizer.optimizer
    weights, moments = state_dict.get_state_dict(model, optimizer, options=options)
    average = state_dict.get_model_state_dict(trainer.ema.model, options=options)
    rest = {"optimizer": moments, "ema updates": trainer.ema.updates, "progress": trainer.progress.state()}
    scaler = trainer.accelerator.scaler  # of fp16
    rest["scaler"] = None if scaler is None else scaler.state_dict()
    return weights, average, rest


def _write_checkpoint(
    final: Path,
    weights: dict,
    average: dict,
    rest: dict,
    settings: dict,
    model: nn.Module,
    sampling: SamplingConfig | None,
) -> None:
    "Write all files into a hidden folder, then rename it."
    folder = _make_folder(final.parent)
    for unfinished in folder.glob(".step-*"):  # of a run that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    temporary = folder / f".{final.name}.tmp"
    try:
        temporary.mkdir()
        _save_tensors(weights, temporary / "model.safetensors")
        _save_tensors(average, temporary / "ema.safetensors")
        _save_object(rest, temporary / "training.pt")
        _write_json(settings, temporary / "run.json")
        _write_json(asdict(model.config), temporary / "config.json")  # as `save_model` does
        _save_adapter_config(model, temporary)
        if sampling is not None:
            _write_json(asdict(sampling), temporary / "sampling.json")
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_json(value, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _read_checkpoint(folder: Path) -> tuple[dict, dict, dict, dict]:
    "Read what `_write_checkpoint` wrote; raise UserError if a file is damaged or missing."
    try:
        weights, average = (load_file(folder / f"{name}.safetensors") for name in ("model", "ema"))
        rest = torch.load(folder / "training.pt", weights_only=True, map_location="cpu")
        return weights, average, rest, json.loads((folder / "run.json").read_text())
    except Exception as error:  # each kind of file has its own
        raise UserError(
            f"Checkpoint {folder} is damaged ({type(error).__name__}): "
            "remove that folder to resume from the previous checkpoint."
        ) from error


def _changed_settings(saved: dict, trainer, checkpoint: Path, change: tuple[str, ...]) -> list[str]:
    "The settings that differ from the checkpoint's, as phrases; a UserError if one may not."
    for name in change:
        _check_choice("change", name, _MAY_CHANGE)
    wanted = _run_settings(trainer)
    means = [settings["data"].pop("means of some images", None) for settings in (saved, wanted)]
    changes = _compare(saved, wanted, checkpoint, change)
    if all(means) and max(abs(a - b) for a, b in zip(*means)) > 0.02:  # decoders of JPEG differ by less
        if "data" not in change:
            raise UserError(
                f"data has other images than {checkpoint}, but must be the same data set, unless change names data."
            )
        changes.append("other images")
    return changes


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
            unless = ", unless change names it" if name in _MAY_CHANGE else ""
            raise UserError(
                f"{prefix}{name} is {value}, but must be {was}, as in checkpoint {checkpoint}{unless}."
            )
        elif was != value:
            changes.append(f"{name} is {value} instead of {was}")
    return changes
