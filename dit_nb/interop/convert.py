"""A folder that a pipeline opens, the fast samplers of diffusers around our own model, and one command from any world to any other."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

from dit_nb.config import DiTConfig
from dit_nb.hub import saved_file
from dit_nb.interop.diffusers import from_diffusers, make_scheduler, to_diffusers
from dit_nb.interop.official import load_official, process_of, save_official
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.pretrained import load_model, save_model
from dit_nb.schedule import SCHEDULES
from dit_nb.utils import check_choice

README = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [dit, class-conditional]
---
# A diffusion transformer, for `diffusers`

Written by `dit_nb`. The model was trained with timestep frequencies divided by 128;
`DiTTransformer2DModel` divides by 127. Set this right before you sample, or every
prediction is off by some per cent:

    from diffusers import DiTPipeline

    pipe = DiTPipeline.from_pretrained(folder{vae})
    for block in pipe.transformer.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0

Classes: {classes}. The null class for guidance is 1000, as the pipeline expects. {note}
"""


def save_diffusers(
    model: DiT,  # with adaLN-Zero blocks
    folder: str | Path,
    sampling: dict,  # see SAMPLING; its class_names become id2label
    vae=None,  # an AutoencoderKL, for a model of latents
    scheduler: str = "ddim",  # ddim, ddpm or dpm++
) -> None:
    "Write a folder that `DiTPipeline.from_pretrained` opens."
    from diffusers import DiTPipeline

    folder, transformer = Path(folder), to_diffusers(model)
    if vae is not None:
        check_vae(vae, model.config)
    changes = {}
    if scheduler == "ddpm" and sampling["variance"] == "learned":
        changes["variance_type"] = "fixed_small"  # the pipeline hands on the noise alone
    noise = make_scheduler(sampling, scheduler, **changes)
    DiTPipeline(transformer, vae, noise).save_config(folder)
    for name, part in (("transformer", transformer), ("scheduler", noise), ("vae", vae)):
        if part is not None:
            part.save_pretrained(folder / name)
    names = sampling.get("class_names") or [str(k) for k in range(model.config.num_classes)]
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {str(k): name for k, name in enumerate(names)}  # the pipeline itself forgets them
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    (folder / "sampling.json").write_text(json.dumps(sampling, indent=1))
    note = "" if vae else "There is no decoder: the model draws pixels, so use its transformer and scheduler."
    text = README.replace("{vae}", "" if vae else ", vae=None").replace("{note}", note)
    (folder / "README.md").write_text(text.replace("{classes}", str(model.config.num_classes)))


def check_vae(vae, config: DiTConfig) -> None:
    "Raise ValueError where the decoder is not for this model, or diffusers' pipeline would feed it wrongly."
    channels = vae.config.latent_channels
    if channels != config.in_channels:
        raise ValueError(
            f"vae has {channels} latent channels, but the model's inputs have {config.in_channels}."
        )
    if getattr(vae.config, "shift_factor", None):
        raise ValueError(
            f"vae shifts its latents by {vae.config.shift_factor}, which diffusers' DiT pipeline does not know."
        )


def load_diffusers(
    source: str | Path,  # a pipeline's folder, a transformer's, or an id on the Hub
    **download,  # for the Hub: revision, token, cache_dir, local_files_only
) -> tuple[DiT, dict]:
    "A model from a DiTPipeline, in eval() mode, and its process."
    from diffusers import DiTTransformer2DModel

    alone = Path(source).is_dir() and not (Path(source) / "transformer").is_dir()
    try:
        transformer, report = DiTTransformer2DModel.from_pretrained(
            source, subfolder=None if alone else "transformer", output_loading_info=True, **download
        )
    except Exception as error:  # whatever is wrong with the folder
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:200]
        raise ValueError(
            f"{source} holds no DiT that diffusers can open ({type(error).__name__}: {reason})."
        ) from None
    wrong = [
        name
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for name in report.get(kind, ())
    ]
    if wrong:
        raise ValueError(
            f"{source} does not fit its config.json: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first is {wrong[0]}."
        )
    model = from_diffusers(transformer)
    sampling = process_of(model.config)
    return model, sampling if alone else {**sampling, **read_process(source, **download)}


def read_process(
    source: str | Path,  # a pipeline's folder, or an id on the Hub
    **download,
) -> dict:
    "What a pipeline's folder says of the diffusion process and the class names."

    def read(name: str) -> dict:
        try:
            return dict(json.loads(saved_file(source, name, **download).read_text(encoding="utf-8")))
        except (TypeError, UnicodeDecodeError, json.JSONDecodeError):
            raise ValueError(f"{name} of {source} is not a JSON object.") from None

    if (Path(source) / "sampling.json").is_file():  # we wrote the folder
        return read("sampling.json")
    scheduler, labels = (
        read("scheduler/scheduler_config.json"),
        read("model_index.json").get("id2label") or {},
    )
    found = {"schedule": schedule_of(scheduler), "num_timesteps": scheduler.get("num_train_timesteps", 1000)}
    found["clip_x0"] = bool(scheduler.get("clip_sample", scheduler.get("thresholding", False)))
    names = {"class_names": [labels[k] for k in sorted(labels, key=int)]} if labels else {}
    return {**found, **names}


def schedule_of(
    settings: dict,  # a scheduler's configuration
) -> str:
    "Which of our schedules a scheduler of diffusers follows."
    from diffusers import DDPMScheduler

    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    theirs = DDPMScheduler(**{k: settings[k] for k in names if k in settings}).alphas_cumprod
    for name in SCHEDULES:
        ours = Diffusion(name, len(theirs)).alphas_cumprod
        if torch.allclose(theirs.double(), ours, atol=1e-4):
            return name
    raise ValueError(
        f"the scheduler's noise ({settings.get('beta_schedule', 'linear')}) is none of {', '.join(SCHEDULES)}."
    )


def load_any(
    source: str | Path,  # a .pt file, a folder of this package or of diffusers, or an id on the Hub
    num_heads: int | None = None,  # of an official checkpoint whose width is none of the paper's
    num_classes: int | None = None,  # of an official checkpoint without a null class
    weights: str = "ema",  # of an official checkpoint: ema or model
    **download,  # for the Hub
) -> tuple[DiT, dict]:
    "A model from any of the three worlds, and its process."
    path = Path(source)
    if path.is_file():
        return load_official(path, num_heads, num_classes, weights)
    if path.is_dir():
        pipeline = (path / "model_index.json").is_file()
        config = path / "config.json"
        if pipeline or (
            config.is_file() and "_class_name" in config.read_text(encoding="utf-8", errors="replace")
        ):
            return load_diffusers(source)
        return load_model(str(source))
    try:
        saved_file(str(source), "model_index.json", **download)
    except ValueError:
        return load_model(str(source), **download)
    return load_diffusers(source, **download)


def convert(
    source: str | Path,  # see `load_any`
    target: str | Path,  # a .pt file for official, else a folder; must not be there yet
    to: str,  # official, diffusers or dit_nb
    vae: str | None = None,  # for diffusers: folder or id of the AutoencoderKL to go with it
    training: bool = False,  # for official: as the training script writes it
    **options,  # see `load_any`
) -> None:
    "Bring a model from one world to another. The target appears whole or not at all."
    check_choice("to", to, ("official", "diffusers", "dit_nb"))
    target = Path(target)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target} is there already: choose another place.")
    if vae is not None and to != "diffusers":
        raise ValueError(f"vae is {vae}, but only diffusers' pipelines carry one.")
    model, sampling = load_any(source, **options)
    name = Path(source).resolve().name if Path(source).exists() else str(source)
    sampling = {"source": name, **sampling}
    decoder = None if vae is None else open_vae(vae)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error.strerror}.") from None
    try:
        if to == "official":
            save_official(model, work / "model", sampling, training)
        elif to == "diffusers":
            save_diffusers(model, work / "model", sampling, decoder)
        else:
            save_model(model, work / "model", sampling)
        if target.is_dir():
            target.rmdir()
        os.replace(work / "model", target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def open_vae(
    name: str,  # a folder, or an id on the Hub
):  # a diffusers.AutoencoderKL
    "The decoder of latents."
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(name)
    except Exception as error:  # whatever is wrong with it
        raise ValueError(f"vae {name} cannot be opened ({type(error).__name__}).") from None
