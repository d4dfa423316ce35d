"""Checkpoints of a training run: written atomically, independent of the number of processes, checked on resume."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dit_nb.batches import _find_attribute
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.objective import Diffusion
from dit_nb.utils import _make_folder

__all__ = ["Checkpointer", "checkpoints"]

_MAY_CHANGE_ON_RESUME = ("grad_accum_steps", "compile", "gradient_checkpointing", "keep", "sample_every")
_MAY_CHANGE_ON_RESUME += ("save_every", "log_every", "tracker", "num_workers")


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
        keep: number of checkpoints to keep
        sampling: sampling settings to write beside the weights, which make a checkpoint a model that can be
            loaded; by default those of the trainer's `Diffusion`
    """

    def __init__(self, out: str | Path | None, keep: int = 3, sampling: SamplingConfig | None = None):
        self.out, self.keep, self.sampling = None if out is None else Path(out), keep, sampling

    def check_new(self) -> None:
        """Raise a UserError if the folder holds checkpoints: those of two runs would be mixed."""
        if self.out is not None and checkpoints(self.out):
            raise UserError(
                f"out is {self.out}, but must have no checkpoints: call resume() to continue from them, "
                "or choose another folder."
            )

    def save(self, trainer) -> Path:
        """Write a checkpoint and remove the oldest beyond `keep`. It appears complete or not at all.

        Args:
            trainer: the run; all ranks must call this
        """
        if self.out is None:
            raise UserError("out is None, but must be a folder to write checkpoints to.")
        final = self.out / "checkpoints" / f"step-{trainer.progress.step:08d}"
        state = _gather_state(trainer)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process and not final.exists():
                sampling = self.sampling or _sampling_settings(trainer)
                _write_checkpoint(final, *state, _run_settings(trainer), trainer.raw_model.config, sampling)
                for old in checkpoints(self.out)[: -self.keep]:
                    shutil.rmtree(old)
        return final

    def resume(self, trainer) -> None:
        """Restore the last checkpoint in the run's folder.

        Args:
            trainer: a run with the settings of the checkpoint

        Raises:
            UserError: if there is no checkpoint, it is damaged, or a setting differs
        """
        from torch.distributed.checkpoint import state_dict

        if self.out is None:
            raise UserError("out is None, but must be the folder of a run to resume.")
        found = checkpoints(self.out)
        if not found:
            raise UserError(f"out is {self.out}, but must be the folder of a run: it holds no checkpoint.")
        weights, average, rest, saved_settings = _read_checkpoint(found[-1])
        _check_same_settings(saved_settings, _run_settings(trainer), found[-1])
        done, steps = rest["progress"]["step"], trainer.config.steps
        if steps is not None and done > steps:
            raise UserError(f"steps is {steps}, but must be at least {done}, the updates of {found[-1]}.")
        options = state_dict.StateDictOptions(full_state_dict=True)
        state = {"model_state_dict": weights, "optim_state_dict": rest["optimizer"], "options": options}
        state_dict.set_state_dict(trainer.raw_model, trainer.optimizer.optimizer, **state)
        state_dict.set_model_state_dict(trainer.ema.model, average, options=options)
        trainer.ema.updates = rest["ema updates"]
        vars(trainer.progress).update(rest["progress"])
        trainer.logger.pending.clear()


def _run_settings(trainer) -> dict:
    "What the weights depend on: to resume, these must be as in the checkpoint."
    config, data = trainer.config, trainer.data
    free = _MAY_CHANGE_ON_RESUME + (("steps", "seconds") if config.lr_schedule == "constant" else ())
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    settings["precision"] = trainer.accelerator.mixed_precision
    trained = sum(p.requires_grad for p in trainer.raw_model.parameters())  # tensors: some may be frozen
    names = _find_attribute(data, "class_names")
    described = {"images": len(data), "class_names": None if names is None else list(names)}
    parts = {
        "model": {**asdict(trainer.raw_model.config), "trained parameters": trained},
        "training": settings,
        "diffusion": _diffusion_settings(trainer.diffusion),
        "data": {**described, "vae": _find_attribute(data, "vae")},
    }
    return json.loads(json.dumps(parts))


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
    return weights, average, rest


def _write_checkpoint(
    final: Path,
    weights: dict,
    average: dict,
    rest: dict,
    settings: dict,
    config: DiTConfig,
    sampling: SamplingConfig | None,
) -> None:
    "Write all files into a hidden folder, then rename it."
    temporary = _make_folder(final.parent) / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({k: v.contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
    save_file({k: v.contiguous() for k, v in average.items()}, temporary / "ema.safetensors")
    torch.save(rest, temporary / "training.pt")
    (temporary / "run.json").write_text(json.dumps(settings, indent=1))
    (temporary / "config.json").write_text(json.dumps(asdict(config), indent=2))  # as `save_model` does
    if sampling is not None:
        (temporary / "sampling.json").write_text(json.dumps(asdict(sampling), indent=1))
    os.replace(temporary, final)


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


def _check_same_settings(saved: dict, wanted: dict, checkpoint: Path, prefix: str = "") -> None:
    "Raise a UserError that names the first setting that differs."
    for name, value in wanted.items():
        was = saved.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            _check_same_settings(was, value, checkpoint, f"{name}." if name == "vae" else "")
        elif was != value:
            raise UserError(f"{prefix}{name} is {value}, but must be {was}, as in checkpoint {checkpoint}.")
