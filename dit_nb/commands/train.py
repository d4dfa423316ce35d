"""`dit-nb train`: train a DiT on images or latents, from scratch or from a trained model."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.checkpoint import checkpoints
from dit_nb.commands.digits import _DATA_FIELDS, _DIGITS_MODEL
from dit_nb.commands.options import _add_fields, _given, _staged_output
from dit_nb.commands.sample import _load_decoder
from dit_nb.config import _MODEL_NAMES, DiTConfig
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import _main_process_first, _process_state, _raise_on_all_ranks
from dit_nb.image_files import open_images
from dit_nb.interop.official import _SHAPE_FIELDS
from dit_nb.model import DiT
from dit_nb.objective import _VARIANCES
from dit_nb.pretrained import SAMPLING, make_diffusion, sample_images, save_model
from dit_nb.schedule import _SCHEDULES
from dit_nb.training import TrainConfig, Trainer

__all__ = []

_DEFAULTS = {"save_every": 1000, "sample_every": 1000}  # of the command, where TrainConfig has None


def _open_data(args: argparse.Namespace):
    "Open the data set of images or latents that the command line names."
    if args.latents is not None:
        from dit_nb.latent_cache import open_latents

        return open_latents(args.latents)
    if args.data != "digits" and args.image_size is None:
        raise ValueError("image_size is missing: give the side of the square to crop images to, in pixels.")
    data = open_images(args.data, args.image_size, args.channels, args.skip_bad)
    skipped = getattr(data, "skipped", ())
    if skipped and _process_state().is_main_process:
        print(f"skipped {len(skipped)} unreadable images: {', '.join(map(str, skipped[:5]))}")
    return data


def _input_shape(data) -> dict:
    "The fields of DiTConfig that follow from the shape of an image."
    channels, height, width = data.__getitems__([0])[0].shape[-3:]
    return {"input_size": height if height == width else (height, width), "in_channels": channels}


def _model_config(args: argparse.Namespace, data) -> DiTConfig:
    fields = {**_input_shape(data), **_given(args, DiTConfig), "num_classes": len(data.class_names)}
    if args.data == "digits" and args.model is None:
        return DiTConfig(**{**asdict(_DIGITS_MODEL), **fields})
    return DiTConfig.named(args.model or "DiT-S/4", **fields)


def _init_from(source: str, data) -> tuple[DiT, dict]:
    "Load a trained model and fit it to the data: another input size, and a new label table for other classes."
    from dit_nb.interop.convert import load_any

    model, sampling = load_any(source)
    shape, channels = _input_shape(data), model.config.in_channels
    if shape["in_channels"] != channels:
        raise ValueError(f"data has {shape['in_channels']} channels, but must have the model's {channels}.")
    names, known = list(data.class_names), sampling.get("class_names")
    fitted = DiT(replace(model.config, num_classes=len(names), **shape))
    weights = model.state_dict()
    del weights["pos_embed"]  # depends on the input size alone
    if len(names) != model.config.num_classes or (known and names != list(known)):
        if _process_state().is_main_process:
            print(f"the classes are not those of {source}: the label embeddings are initialized again")
        weights = {key: value for key, value in weights.items() if not key.startswith("y_embedder.")}
    fitted.load_state_dict(weights, strict=False)
    return fitted, sampling


def _build_model(args: argparse.Namespace, data) -> tuple[DiT, dict]:
    "Build or load the model to train, and its sampling settings."
    shape = {"model": args.model} if args.model else _given(args, DiTConfig)
    if args.init_from is None:
        sampling = {**SAMPLING, "bins": 17 if args.data == "digits" else 256}
        model = DiT(_model_config(args, data))
    elif shape:
        name, value = next(iter(shape.items()))
        raise ValueError(
            f"{name} is {value}, but must not be given: init_from {args.init_from} fixes the model."
        )
    else:
        model, sampling = _init_from(args.init_from, data)
    noise = {
        name: getattr(args, name) for name in ("schedule", "num_timesteps", "bins") if hasattr(args, name)
    }
    sampling |= noise | {"class_names": list(data.class_names), "clip_x0": args.latents is None}
    sampling["variance"] = "learned" if model.config.learn_sigma else args.variance
    sampling.pop("vae", None)
    return model, sampling | ({"vae": data.vae} if args.latents is not None else {})


def _sample_grid(
    model: DiT, sampling: dict, seed: int, decode: Callable[[Tensor], Tensor]
) -> np.ndarray:  # (height, width, 3) uint8
    "Sample four images of each of the first eight classes, side by side."
    k = min(model.config.num_classes, 8) or 4
    labels = torch.arange(k).repeat(4) if model.config.num_classes else None
    steps = str(min(50, sampling["num_timesteps"]))
    images = decode(sample_images(model, sampling, labels, 4 * k, seed, steps=steps, progress=False))
    return image_grid(images, columns=k, zoom=max(1, 64 // images.shape[-1]))


def run(args: argparse.Namespace) -> None:
    "Run dit-nb train."
    config = TrainConfig(**(_DEFAULTS | _given(args, TrainConfig)))
    torch.manual_seed(config.seed)
    data = _main_process_first(lambda: _open_data(args))  # only one process checks every file
    model, sampling = _build_model(args, data)
    trainer = Trainer(model, make_diffusion(sampling), data, config, args.out)
    is_main = trainer.accelerator.is_main_process
    with _raise_on_all_ranks():
        decode = _load_decoder(sampling, model) if is_main else None
    sample_grid = partial(_sample_grid, sampling=sampling, seed=config.seed, decode=decode)
    if args.resume:
        trainer.resume()
    elif checkpoints(args.out):
        raise ValueError(
            f"out is {args.out}, but must have no checkpoints: pass --resume to continue from them."
        )
    averaged = trainer.fit(sample=sample_grid)
    if is_main:
        out = Path(args.out)
        with _staged_output(out) as work:
            save_model(averaged, work / "model", sampling)
            save_image(sample_grid(averaged), work / "samples.png")
        print(f"model in {out / 'model'}, samples in {out / 'samples.png'}")


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb train."
    add, unset = parser.add_argument, {"default": argparse.SUPPRESS}
    source = parser.add_mutually_exclusive_group(required=True)
    data = "folder of images, with one sub-folder per class if it has classes; hub:NAME; or digits"
    source.add_argument("--data", help=data)
    source.add_argument("--latents", help="folder of latents that dit-nb encode wrote")
    add("--out", required=True, help="output folder: checkpoints, samples and the model")
    add("--resume", action="store_true", help="resume from the last checkpoint in --out")
    add(
        "--init-from",
        metavar="MODEL",
        help="start from a trained model: folder, official .pt file, or Hub id",
    )
    add("--image-size", type=int, metavar="SIZE", help="side of the square to crop images to, in pixels")
    add(
        "--channels", type=int, default=3, help="image channels: 3, or 1 for grayscale (default: %(default)s)"
    )
    add("--skip-bad", action="store_true", help="skip images that cannot be read")
    add("--model", help=f"one of {', '.join(_MODEL_NAMES)} (default: DiT-S/4; for digits a small model)")
    add("--schedule", choices=tuple(_SCHEDULES), help="noise schedule (default: linear)", **unset)
    add("--num-timesteps", type=int, metavar="STEPS", help="diffusion timesteps (default: 1000)", **unset)
    add("--bins", type=int, help="number of values of a pixel (default: 256; 17 for digits)", **unset)
    fixed = "variance of a DDPM step, with --no-learn-sigma (default: %(default)s)"
    add("--variance", choices=_VARIANCES[1:], default="fixed_small", help=fixed)
    _add_fields(parser, TrainConfig, "training", defaults=_DEFAULTS)
    sizes = dict.fromkeys(_SHAPE_FIELDS, "that of --model")
    _add_fields(parser, DiTConfig, "model (overrides --model)", skip=_DATA_FIELDS, defaults=sizes)
