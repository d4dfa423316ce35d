"""Checkpoints of a training run: written atomically, independent of the number of processes, checked on resume."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.utils import _make_folder

__all__ = ["checkpoints"]

_MAY_CHANGE_ON_RESUME = ("grad_accum_steps", "compile", "gradient_checkpointing", "keep", "sample_every")
_MAY_CHANGE_ON_RESUME += ("save_every", "tracker", "num_workers")


def checkpoints(out: str | Path) -> list[Path]:
    """Return the complete checkpoints in a run's folder, oldest first.

    Args:
        out: folder of the run
    """
    return sorted((Path(out) / "checkpoints").glob("step-[0-9]*"))


class _Checkpointing:
    "The part of a trainer that saves and resumes."

    def _run_settings(self) -> dict:
        "What the weights depend on: to resume, these must be as in the checkpoint."
        free = _MAY_CHANGE_ON_RESUME + (("steps", "seconds") if self.config.lr_schedule == "constant" else ())
        settings = {k: v for k, v in asdict(self.config).items() if k not in free}
        settings["precision"] = self.accelerator.mixed_precision
        diffusion = {name: getattr(self.diffusion, name) for name in ("num_timesteps", "variance", "bins")}
        diffusion["last alphas_cumprod"] = float(self.diffusion.alphas_cumprod[-1])
        data = {"images": len(self.data), "class_names": list(self.data.class_names)}
        data["vae"] = getattr(self.data, "vae", None)
        model = asdict(self.raw_model.config)
        parts = {"model": model, "training": settings, "diffusion": diffusion, "data": data}
        return json.loads(json.dumps(parts))

    def _gather_state(self) -> tuple[dict, dict, dict]:  # weights, averaged weights, the rest
        "Full state of the run, on rank 0. All ranks must call this."
        from torch.distributed.checkpoint import state_dict

        options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = self.raw_model, self.optimizer.optimizer
        weights, moments = state_dict.get_state_dict(model, optimizer, options=options)
        average = state_dict.get_model_state_dict(self.ema.model, options=options)
        rest = {"optimizer": moments, "ema updates": self.ema.updates, "progress": vars(self.progress)}
        return weights, average, rest

    def save(self) -> Path:
        """Write a checkpoint and remove the oldest beyond `keep`. It appears complete or not at all."""
        final = self.out / "checkpoints" / f"step-{self.progress.step:08d}"
        state = self._gather_state()
        with _raise_on_all_ranks():
            if self.accelerator.is_main_process and not final.exists():
                _write_checkpoint(final, *state, self._run_settings())
                for old in checkpoints(self.out)[: -self.config.keep]:
                    shutil.rmtree(old)
        return final

    def resume(self) -> None:
        """Restore the last checkpoint in the run's folder; training then continues with identical results."""
        from torch.distributed.checkpoint import state_dict

        if self.out is None:
            raise ValueError("out is None, but must be the folder of a run to resume.")
        found = checkpoints(self.out)
        if not found:
            raise ValueError(f"out is {self.out}, but must be the folder of a run: it holds no checkpoint.")
        weights, average, rest, saved_settings = _read_checkpoint(found[-1])
        _check_same_settings(saved_settings, self._run_settings(), found[-1])
        options = state_dict.StateDictOptions(full_state_dict=True)
        state = {"model_state_dict": weights, "optim_state_dict": rest["optimizer"], "options": options}
        state_dict.set_state_dict(self.raw_model, self.optimizer.optimizer, **state)
        state_dict.set_model_state_dict(self.ema.model, average, options=options)
        self.ema.updates = rest["ema updates"]
        vars(self.progress).update(rest["progress"])


def _write_checkpoint(final: Path, weights: dict, average: dict, rest: dict, settings: dict) -> None:
    "Write all files into a hidden folder, then rename it."
    temporary = _make_folder(final.parent) / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({k: v.contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
    save_file({k: v.contiguous() for k, v in average.items()}, temporary / "ema.safetensors")
    torch.save(rest, temporary / "training.pt")
    (temporary / "run.json").write_text(json.dumps(settings, indent=1))
    os.replace(temporary, final)


def _read_checkpoint(folder: Path) -> tuple[dict, dict, dict, dict]:
    "Read what `_write_checkpoint` wrote; raise ValueError if a file is damaged or missing."
    try:
        weights, average = (load_file(folder / f"{name}.safetensors") for name in ("model", "ema"))
        rest = torch.load(folder / "training.pt", weights_only=True, map_location="cpu")
        return weights, average, rest, json.loads((folder / "run.json").read_text())
    except Exception as error:  # each kind of file has its own
        raise ValueError(
            f"Checkpoint {folder} is damaged ({type(error).__name__}): "
            "remove that folder to resume from the previous checkpoint."
        ) from error


def _check_same_settings(saved: dict, wanted: dict, checkpoint: Path, prefix: str = "") -> None:
    "Raise a ValueError that names the first setting that differs."
    for name, value in wanted.items():
        was = saved.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            _check_same_settings(was, value, checkpoint, f"{name}." if name == "vae" else "")
        elif was != value:
            raise ValueError(f"{prefix}{name} is {value}, but must be {was}, as in checkpoint {checkpoint}.")
