"""`DiTPipeline` folders, and conversion between our format, official checkpoints and diffusers."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import torch

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError, _check_choice, _check_path
from dit_nb.hub import _check_download, _saved_file
from dit_nb.interop.diffusers import _make_scheduler, from_diffusers, to_diffusers
from dit_nb.interop.folders import (
    _SD3_CLASS,
    _check_class,
    _class_name,
    _is_alone,
    _is_diffusers,
    _load_transformer,
)
from dit_nb.interop.official import _default_sampling, load_official, save_official
from dit_nb.interop.sd3 import load_sd3
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.pretrained import _best_device, _is_pixel_model, _read_sampling, load_model, save_model
from dit_nb.schedule import _SCHEDULES
from dit_nb.utils import _check_device, _check_dtype
from dit_nb.weight_files import _system_errors

__all__ = ["save_diffusers", "load_diffusers", "load_any", "convert"]

_README = (files("dit_nb") / "models" / "diffusers_card.md").read_text(encoding="utf-8")
_NO_DECODER = {
    "pixels": "The model generates pixels, without a decoder: use its transformer and scheduler.",
    "latents": "The model generates latents, and this folder has no autoencoder to decode them: convert again with vae.",
}


def save_diffusers(
    model: DiT, folder: str | Path, sampling: SamplingConfig, vae=None, scheduler: str = "ddim"
) -> None:
    """Write a folder that `DiTPipeline.from_pretrained` opens.

    Args:
        model: a model that `to_diffusers` can convert
        folder: output folder
        sampling: sampling settings; its class_names become id2label
        vae: a `diffusers.AutoencoderKL`, for a latent model
        scheduler: "ddim", "ddpm" or "dpm++"

    Raises:
        UserError: if diffusers has no such model, or the vae does not fit it
    """
    from diffusers import DiTPipeline

    folder, transformer = Path(folder), to_diffusers(model)
    if sampling.objective != "diffusion":
        raise UserError(
            f"objective is {sampling.objective}, but must be diffusion: DiTPipeline of diffusers has no other."
        )
    if vae is not None:
        _check_vae(vae, model.config, sampling.vae or {})
    changes = {}
    if scheduler == "ddpm" and sampling.variance == "learned":
        changes["variance_type"] = "fixed_small"  # the pipeline drops the predicted variance
    noise = _make_scheduler(sampling, scheduler, **changes)
    DiTPipeline(transformer, vae, noise).save_config(folder)
    for name, part in (("transformer", transformer), ("scheduler", noise), ("vae", vae)):
        if part is not None:
            with _system_errors(folder / name):
                part.save_pretrained(folder / name)
    names = sampling.class_names or [str(k) for k in range(model.config.num_classes)]
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {str(k): name for k, name in enumerate(names)}  # save_config leaves it out
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    (folder / "sampling.json").write_text(json.dumps(asdict(sampling), indent=1))
    note = "" if vae else _NO_DECODER["pixels" if _is_pixel_model(model.config) else "latents"]
    text = _README.replace("{vae}", "" if vae else ", vae=None").replace("{note}", note)
    (folder / "README.md").write_text(text.replace("{classes}", str(model.config.num_classes)))


def _check_vae(vae, config: DiTConfig, made: dict) -> None:
    "Raise UserError unless the pipeline of diffusers can decode the model's latents with this autoencoder."
    channels, shift = vae.config.latent_channels, getattr(vae.config, "shift_factor", None)
    if channels != config.in_channels:
        raise UserError(
            f"vae has {channels} latent channels, but must have the model's {config.in_channels}."
        )
    if shift:
        raise UserError(f"shift_factor of the vae is {shift}, but must be 0: DiTPipeline ignores it.")
    scale = made.get("scale", vae.config.scaling_factor)
    if made.get("shift") or isinstance(scale, list):
        raise UserError(
            "latents of the model have a shift, or a scale for each channel: DiTPipeline has neither."
        )
    if scale != vae.config.scaling_factor:
        raise UserError(
            f"scaling_factor of the vae is {vae.config.scaling_factor}, but must be {scale}, as of the model's "
            f"latents: call vae.register_to_config(scaling_factor={scale})."
        )


def load_diffusers(source: str | Path, **download) -> tuple[DiT, SamplingConfig]:
    """Load a model in eval() mode from a `DiTPipeline`, with its sampling settings.

    Args:
        source: folder of a pipeline or of its transformer, or a Hub id
        **download: options of the Hub: revision, token, cache_dir, force_download, local_files_only

    Raises:
        UserError: if files are missing or damaged, if the transformer is of another class than a DiT, or if
            `from_diffusers` cannot convert it
    """
    from diffusers import DiTTransformer2DModel

    _check_class(source, **download)
    transformer = _load_transformer(DiTTransformer2DModel, source, **download)
    model, own = from_diffusers(transformer), Path(source) / "sampling.json"
    if own.is_file():  # written by `save_diffusers`
        return model, _read_sampling(own, model)
    sampling = _default_sampling(model.config)
    return model, sampling if _is_alone(source) else replace(sampling, **_read_pipeline(source, **download))


def _read_pipeline(source: str | Path, **download) -> dict:
    "Read schedule, clipping and class names from the folder of a pipeline."

    def read(name: str) -> dict:
        try:
            return dict(json.loads(_saved_file(source, name, **download).read_text(encoding="utf-8")))
        except (TypeError, ValueError, RecursionError):
            raise UserError(f"{name} of {source} is not a JSON object.") from None

    scheduler = read("scheduler/scheduler_config.json")
    labels = read("model_index.json").get("id2label") or {}
    found = {
        "schedule": _matching_schedule(scheduler),
        "num_timesteps": scheduler.get("num_train_timesteps", 1000),
        "clip_x0": bool(scheduler.get("clip_sample", scheduler.get("thresholding", False))),
    }
    try:
        return found | ({"class_names": tuple(labels[k] for k in sorted(labels, key=int))} if labels else {})
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"id2label of {source} is not a name for each class.") from None


def _matching_schedule(settings: dict) -> str:
    "Find the schedule of ours that has the betas of a scheduler configuration."
    from diffusers import DDPMScheduler

    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    try:
        theirs = DDPMScheduler(**{k: settings[k] for k in names if k in settings}).alphas_cumprod
    except Exception as error:  # settings of wrong types fail in many ways
        raise UserError(f"the scheduler's settings cannot be used ({type(error).__name__}).") from None
    for name in _SCHEDULES:
        ours = Diffusion(name, len(theirs)).alphas_cumprod
        if torch.allclose(theirs.double(), ours, atol=1e-4):
            return name
    kind = settings.get("beta_schedule", "linear")
    raise UserError(
        f"beta_schedule of the scheduler is {kind}, but must have the betas of {' or '.join(_SCHEDULES)}."
    )


def load_any(
    source: str | Path,
    num_heads: int | None = None,
    num_classes: int | None = None,
    weights: str = "ema",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **download,
) -> tuple[DiT, SamplingConfig]:
    """Load a model of any format, in eval() mode, with its sampling settings.

    Args:
        source: an official .pt file; a folder of this package (model, run or checkpoint); one of diffusers (a DiT,
            or Stable Diffusion 3, see `from_sd3`); or a Hub id
        num_heads: number of heads of an official checkpoint, if its width is not one of S, B, L and XL
        num_classes: number of classes of an official checkpoint without a null class
        weights: "ema" or "model": averaged or raw weights of a checkpoint with both
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; as saved, or float32, by default
        **download: options of the Hub: revision, token, cache_dir, force_download, local_files_only

    Raises:
        FileNotFoundError: if there is no such model
        UserError: if it is damaged, or not a model that this package can hold
    """
    _check_choice("weights", weights, ("ema", "model"))
    _check_download(download)
    _check_path("source", source)
    _check_device(device)
    _check_dtype(dtype)
    path, options = Path(source), {"device": device, "dtype": dtype, "weights": weights, **download}
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():  # of a folder of ours
        path, source = path.parent, str(path.parent)
    if path.is_file():
        model, sampling = load_official(path, num_heads, num_classes, weights)
    elif _is_diffusers(source, download):
        load = load_sd3 if _class_name(source, **download) == _SD3_CLASS else load_diffusers
        model, sampling = load(source, **download)
    else:
        return load_model(source, **options)
    return model.to(device=_best_device() if device is None else device, dtype=dtype), sampling


def convert(
    source: str | Path, target: str | Path, to: str, vae: str | None = None, training: bool = False, **options
) -> None:
    """Convert a model to another format. The target appears complete, or not at all.

    Args:
        source: any model that `load_any` opens
        target: a .pt file for the official format, else a folder; must not exist yet
        to: "official", "diffusers" or "dit_nb"
        vae: folder or Hub id of an `AutoencoderKL` to save with a diffusers pipeline
        training: whether to write the training form of the official format (see `save_official`)
        **options: further arguments of `load_any`

    Raises:
        FileNotFoundError: if there is no such source
        UserError: if the source cannot be loaded, the target exists, or the format cannot hold the model
    """
    _check_choice("to", to, ("official", "diffusers", "dit_nb"))
    _check_path("source", source)
    _check_path("target", target)
    target = Path(target)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"target is {target}, but must not exist yet.")
    if vae is not None and to != "diffusers":
        raise UserError(f"vae is {vae}, but must not be given for {to}: only a diffusers pipeline has one.")
    model, sampling = load_any(source, device="cpu", **options)
    name = Path(source).resolve().name if Path(source).exists() else str(source)
    sampling = replace(sampling, card={"source": name, **sampling.card})
    decoder = None if vae is None else _load_vae(vae)
    if decoder is not None and isinstance(scale := (sampling.vae or {}).get("scale"), float):
        decoder.register_to_config(scaling_factor=scale)  # what the latents were made with
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
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


def _load_vae(name: str):
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(name)
    except Exception as error:  # a damaged folder can fail in any way
        raise UserError(f"vae {name} cannot be loaded ({type(error).__name__}).") from None
