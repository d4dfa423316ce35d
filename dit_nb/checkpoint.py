"""Checkpoints of a training run: written atomically, independent of the number of processes, checked on resume."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dit_nb.config import SamplingConfig
from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import _DISK_ERRORS, UserError, _damaged_checkpoint, _explain_os_error
from dit_nb.finetune import _save_adapter_config
from dit_nb.hub import _config_fields
from dit_nb.run_settings import _changed_settings, _run_settings, _sampling_settings
from dit_nb.utils import _make_folder
from dit_nb.weight_files import _save_object, _save_tensors

__all__ = ["Checkpointer", "checkpoints"]

_SHARDS = "optimizer"  # folder of the optimizer's moments in a checkpoint that is written in shards


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
            UserError: if a weight or a moment is not finite, or the disk is full
        """
        if self.out is None:
            raise UserError("out is None, but must be a folder to write checkpoints to.")
        final = self.out / "checkpoints" / f"step-{trainer.progress.step:08d}"
        _check_finite(trainer, moments=True)
        state = _gather_state(trainer)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process and not final.exists():
                sampling = self.sampling or _sampling_settings(trainer)
                _write_checkpoint(final, *state, _run_settings(trainer), trainer.raw_model, sampling)
                self._remove_old()
        return final

    def finish(self, trainer) -> None:
        """Wait until all checkpoints are complete. All ranks must call this.

        Args:
            trainer: the run
        """

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
        wanted, model = _run_settings(trainer), type(trainer.raw_model.config)
        with _explain_damage(found[-1]):
            changes = _changed_settings(settings, wanted, model, found[-1], tuple(change))
        done, steps = rest["progress"]["step"], trainer.config.steps
        if steps is not None and done > steps:
            raise UserError(f"steps is {steps}, but must be at least {done}, the updates of {found[-1]}.")
        with _explain_damage(found[-1]):
            _restore(trainer, weights, average, rest, found[-1])
        trainer.progress.changes += [f"from step {done}: {text}" for text in changes]


def _restore(trainer, weights: dict, average: dict, rest: dict, checkpoint: Path) -> None:
    "Give a trainer the state of a checkpoint. All ranks must call this."
    from torch.distributed.checkpoint import state_dict

    model, optimizer = trainer.raw_model, trainer.optimizer.optimizer
    options = state_dict.StateDictOptions(full_state_dict=True)
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    shapes = {name: tuple(w.shape) for name, w in state_dict.get_model_state_dict(model).items()}
    if any({name: tuple(w.shape) for name, w in state.items()} != shapes for state in (weights, average)):
        raise ValueError("a tensor is missing, unknown or of another shape")  # PyTorch would pass over it
    state_dict.set_model_state_dict(model, weights, options=options)
    state_dict.set_model_state_dict(trainer.ema.model, average, options=options)
    if rest["optimizer"] is None:  # written in shards
        from dit_nb.checkpoint_shards import _load_shards  # which imports torch.distributed.checkpoint

        moments = state_dict.get_optimizer_state_dict(model, optimizer)
        _load_shards(moments, checkpoint / _SHARDS)
        state_dict.set_optimizer_state_dict(model, optimizer, moments)
    else:
        state_dict.set_optimizer_state_dict(model, optimizer, rest["optimizer"], options=options)
    for group, settings in zip(optimizer.param_groups, own):
        group.update(settings)  # those of this run, which may have been changed
    trainer.ema.updates = rest["ema updates"]
    vars(trainer.progress).update(rest["progress"])
    if trainer.accelerator.scaler is not None and rest.get("scaler"):
        trainer.accelerator.scaler.load_state_dict(rest["scaler"])
    trainer.logger.pending.clear()


def _check_finite(trainer, moments: bool = False) -> None:
    "Raise a UserError if a weight, an averaged weight, or a moment is not finite. All ranks must call this."
    tensors = {"weights": [*trainer.raw_model.parameters(), *trainer.ema.model.parameters()]}
    if moments:  # an infinite one stops the training of its weight, which stays finite
        tensors["moments of AdamW"] = _moments(trainer.optimizer.optimizer)
    with _raise_on_all_ranks():
        for name, group in tensors.items():
            if not _all_finite(group):
                step, lr = trainer.progress.step, trainer.config.lr
                raise UserError(
                    f"{name} are not finite after step {step}, but must be: lr {lr} may be too high. They are not "
                    "saved; earlier checkpoints are finite: resume with a smaller lr, and name it in change."
                )


def _moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    "The moments of all parameters; none before the first step."
    values = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in values if isinstance(value, torch.Tensor) and value.ndim]  # not the step


def _all_finite(tensors: list[torch.Tensor]) -> bool:
    "Whether all numbers of this process's parts of some tensors are finite. It waits for the device once."
    local = [getattr(tensor, "to_local", lambda tensor=tensor: tensor)() for tensor in tensors]
    finite = [tensor.detach().isfinite().all() for tensor in local]
    return not finite or bool(torch.stack(finite).all())


def _gather_state(trainer, moments: bool = True) -> tuple[dict, dict, dict]:  # weights, average, the rest
    "Full state of the run, on rank 0, with or without the optimizer's moments. All ranks must call this."
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, optimizer = trainer.raw_model, trainer.optimizer.optimizer
    weights, average = (
        state_dict.get_model_state_dict(network, options=options) for network in (model, trainer.ema.model)
    )
    full = state_dict.get_optimizer_state_dict(model, optimizer, options=options) if moments else None
    rest = {"optimizer": full, "ema updates": trainer.ema.updates, "progress": trainer.progress.state()}
    scaler = trainer.accelerator.scaler  # of fp16
    rest["scaler"] = None if scaler is None else scaler.state_dict()
    return weights, average, rest


def _start_checkpoint(final: Path) -> Path:
    "Make the hidden folder that a checkpoint is written to, and remove those of runs that were killed."
    folder = _make_folder(final.parent)
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    temporary = folder / f".{final.name}.tmp"
    temporary.mkdir()
    return temporary


def _write_checkpoint(final: Path, *files) -> None:
    "Write all files into a hidden folder, then rename it."
    temporary = _start_checkpoint(final)
    try:
        _write_files(temporary, *files)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_files(
    folder: Path,
    weights: dict,
    average: dict,
    rest: dict,
    settings: dict,
    model: nn.Module,
    sampling: SamplingConfig | None,
) -> None:
    "Write the files of a checkpoint: weights, the rest, and what makes it a model, as `save_model` does."
    _save_tensors(weights, folder / "model.safetensors")
    _save_tensors(average, folder / "ema.safetensors")
    _save_object(rest, folder / "training.pt")
    _write_json(settings, folder / "run.json")
    _write_json(_config_fields(model), folder / "config.json")
    _save_adapter_config(model, folder)
    if sampling is not None:
        _write_json(asdict(sampling), folder / "sampling.json")


def _write_json(value, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _read_checkpoint(folder: Path) -> tuple[dict, dict, dict, dict]:
    "Read what `_write_checkpoint` wrote; raise UserError if a file is damaged or missing."
    with _explain_damage(folder):
        weights, average = (load_file(folder / f"{name}.safetensors") for name in ("model", "ema"))
        rest = torch.load(folder / "training.pt", weights_only=True, map_location="cpu")
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        _check_contents(rest, settings, int(folder.name.removeprefix("step-")))
    return weights, average, rest, settings


def _check_contents(rest: dict, settings: dict, step: int) -> None:
    "Raise a ValueError, KeyError or TypeError unless training.pt and run.json hold what is read from them."
    if not all(isinstance(settings[name], dict) for name in ("model", "training", "diffusion", "data")):
        raise ValueError("run.json is incomplete")
    progress, history = rest["progress"], rest["progress"]["history"]
    kinds = {"seconds": int | float, "history": dict, "step": int}
    if not all(isinstance(progress[name], kind) for name, kind in kinds.items()) or progress["step"] != step:
        raise ValueError("the progress in training.pt is not that of the folder")
    if not all(isinstance(loss, int | float) for losses in history.values() for loss in losses):
        raise ValueError("the history in training.pt has other entries than numbers")
    if not isinstance(rest["optimizer"], dict | None) or not isinstance(rest["ema updates"], int):
        raise ValueError("training.pt has no state of the optimizer")


@contextmanager
def _explain_damage(checkpoint: Path) -> Iterator[None]:
    "Turn what damaged files raise, of which each kind has its own, into a sentence."
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise UserError(_explain_os_error(error)) from error
        raise _damaged_checkpoint(checkpoint, error) from error
