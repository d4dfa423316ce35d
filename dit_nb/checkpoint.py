"""A run may be killed at any moment, and shared by any number of processes. What comes out is the same."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dit_nb.distributed import together
from dit_nb.utils import make_folder


def checkpoints(
    out: str | Path,  # the folder of a run
) -> list[Path]:  # oldest first
    "The complete checkpoints of a run; half-written ones have another name."
    return sorted((Path(out) / "checkpoints").glob("step-[0-9]*"))


FREE = ("grad_accum_steps", "compile", "gradient_checkpointing", "keep")  # settings that change no result


FREE += ("sample_every", "save_every", "tracker", "workers")


class Checkpointing:
    "The part of a trainer that can be killed and goes on as if nothing had happened."

    def describe(self) -> dict:
        "What a checkpoint must have been made with, if this run is to go on from it."
        free = FREE + (("steps", "seconds") if self.config.lr_schedule == "constant" else ())
        settings = {k: v for k, v in asdict(self.config).items() if k not in free}
        settings["precision"] = self.accelerator.mixed_precision
        process, data = self.diffusion, self.data
        noise = {"num_timesteps": process.num_timesteps, "variance": process.variance, "bins": process.bins}
        noise["last alphas_cumprod"] = float(process.alphas_cumprod[-1])
        images = {
            "images": len(data),
            "class_names": list(data.class_names),
            "vae": getattr(data, "vae", None),
        }
        parts = {"model": asdict(self.raw.config), "training": settings, "diffusion": noise, "data": images}
        return json.loads(json.dumps(parts))

    def gather(self) -> tuple[dict, dict, dict]:  # weights, their average, the rest
        "All that a checkpoint holds. All processes must call this; the first one gets it."
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            get_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, moments = get_state_dict(self.raw, self.optimizer.optimizer, options=options)
        average = get_model_state_dict(self.ema.model, options=options)
        rest = {"optimizer": moments, "ema updates": self.ema.updates, "progress": vars(self.progress)}
        return weights, average, rest

    def save(self) -> Path:
        "Write a checkpoint: it is there whole or not at all, whatever happens meanwhile."
        final = self.out / "checkpoints" / f"step-{self.progress.step:08d}"
        state = self.gather()
        with together():
            if self.accelerator.is_main_process and not final.exists():
                write_checkpoint(final, *state, self.describe())
                for old in checkpoints(self.out)[: -self.config.keep]:
                    shutil.rmtree(old)
        return final

    def resume(self) -> None:
        "Go on from the last checkpoint in the run's folder, as if nothing had happened."
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_state_dict,
        )

        if self.out is None:
            raise ValueError("out is None, but resuming needs the folder of a run.")
        found = checkpoints(self.out)
        if not found:
            raise ValueError(f"out folder {self.out} holds no checkpoint to resume from.")
        weights, average, rest, made_with = read_checkpoint(found[-1])
        compare(made_with, self.describe(), found[-1])
        options = StateDictOptions(full_state_dict=True)
        state = {"model_state_dict": weights, "optim_state_dict": rest["optimizer"], "options": options}
        set_state_dict(self.raw, self.optimizer.optimizer, **state)
        set_model_state_dict(self.ema.model, average, options=options)
        self.ema.updates = rest["ema updates"]
        vars(self.progress).update(rest["progress"])


def write_checkpoint(
    final: Path,  # a folder that is not there yet
    weights: dict,
    average: dict,
    rest: dict,
    made_with: dict,  # as `describe` tells it
) -> None:
    "Files first, the name last."
    temporary = make_folder(final.parent) / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({k: v.contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
    save_file({k: v.contiguous() for k, v in average.items()}, temporary / "ema.safetensors")
    torch.save(rest, temporary / "training.pt")
    (temporary / "run.json").write_text(json.dumps(made_with, indent=1))
    os.replace(temporary, final)


def read_checkpoint(folder: Path) -> tuple[dict, dict, dict, dict]:
    "What `write_checkpoint` wrote. Raises ValueError where a file is damaged or missing."
    try:
        weights, average = (load_file(folder / f"{name}.safetensors") for name in ("model", "ema"))
        rest = torch.load(folder / "training.pt", weights_only=True, map_location="cpu")
        return weights, average, rest, json.loads((folder / "run.json").read_text())
    except Exception as error:  # each kind of file has its own
        raise ValueError(
            f"checkpoint {folder} is damaged ({type(error).__name__}): "
            "remove that folder, to go on from the checkpoint before it."
        ) from error


def compare(
    saved: dict,  # what a checkpoint was made with
    wanted: dict,  # what this run is
    checkpoint: Path,
    inside: str = "",  # name of the setting that holds these
) -> None:
    "Raise a ValueError that names the first setting that differs."
    for name, value in wanted.items():
        was = saved.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            compare(was, value, checkpoint, f"{name}." if name == "vae" else "")
        elif was != value:
            raise ValueError(f"{inside}{name} is {value}, but checkpoint {checkpoint} was made with {was}.")
