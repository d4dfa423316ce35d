"""`dit-nb train`: train a DiT on images or latents, from scratch or from a trained model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.checkpoint import checkpoints
from dit_nb.commands.digits import _DIGITS_MODEL
from dit_nb.commands.options import Train
from dit_nb.commands.output import _staged_output
from dit_nb.commands.sample import _load_decoder
from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import _main_process_first, _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.image_files import open_images
from dit_nb.interop.convert import load_any
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images, save_model
from dit_nb.progress import SampleImages
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer

__all__ = []


def _open_data(options: Train):
    "Open the data set of images or latents that the options name."
    if options.latents is not None:
        from dit_nb.latent_cache import open_latents

        return open_latents(options.latents)
    if options.data != "digits" and options.image_size is None:
        raise UserError("image_size is missing: give the side of the square to crop images to, in pixels.")
    data = open_images(options.data, options.image_size, options.channels, options.skip_bad)
    skipped = getattr(data, "skipped", ())
    if skipped and _process_state().is_main_process:
        print(f"skipped {len(skipped)} unreadable images: {', '.join(map(str, skipped[:5]))}")
    return data


def _input_shape(data) -> dict:
    "The fields of DiTConfig that follow from the shape of an image."
    channels, height, width = data[0][0].shape[-3:]
    return {"input_size": height if height == width else (height, width), "in_channels": channels}


def _class_names(data) -> tuple[str, ...]:
    return tuple(getattr(data, "class_names", None) or ())


def _model_config(options: Train, data) -> DiTConfig:
    fields = {**_input_shape(data), **options.shape, "num_classes": len(_class_names(data))}
    if options.data == "digits" and options.model is None:
        return replace(_DIGITS_MODEL, **fields)
    return DiTConfig.named(options.model or "DiT-S/4", **fields)


def _init_from(source: str, data) -> tuple[DiT, SamplingConfig]:
    "Load a trained model and fit it to the data: another input size, and a new label table for other classes."
    model, sampling = load_any(source)
    shape, channels = _input_shape(data), model.config.in_channels
    if shape["in_channels"] != channels:
        raise UserError(f"data has {shape['in_channels']} channels, but must have the model's {channels}.")
    names, known = _class_names(data), sampling.class_names
    fitted = DiT(replace(model.config, num_classes=len(names), **shape))
    weights = model.state_dict()
    del weights["pos_embed"]  # depends on the input size alone
    if len(names) != model.config.num_classes or (known and names != known):
        if _process_state().is_main_process:
            print(f"the classes are not those of {source}: the label embeddings are initialized again")
        weights = {key: value for key, value in weights.items() if not key.startswith("y_embedder.")}
    fitted.load_state_dict(weights, strict=False)
    return fitted, sampling


def _build_model(options: Train, data) -> tuple[DiT, SamplingConfig]:
    "Build or load the model to train, and its sampling settings."
    shape = {"model": options.model} if options.model else options.shape
    if options.init_from is None:
        sampling = SamplingConfig(bins=17 if options.data == "digits" else 256)
        model = DiT(_model_config(options, data))
    elif shape:
        name, value = next(iter(shape.items()))
        raise UserError(
            f"{name} is {value}, but must not be given: init_from {options.init_from} fixes the model."
        )
    else:
        model, sampling = _init_from(options.init_from, data)
    return model, replace(
        sampling,
        **options.diffusion,
        class_names=_class_names(data) or None,
        clip_x0=options.latents is None,
        variance="learned" if model.config.learn_sigma else options.variance,
        vae=None if options.latents is None else data.vae,
        card={},  # what is known of the model that training started from does not hold for the new one
    )


def _sample_grid(
    model: DiT, sampling: SamplingConfig, seed: int, decode: Callable[[Tensor], Tensor]
) -> np.ndarray:  # (height, width, 3) uint8
    "Sample four images of each of the first eight classes, side by side."
    k = min(model.config.num_classes, 8) or 4
    labels = torch.arange(k).repeat(4) if model.config.num_classes else None
    sampling = replace(sampling, steps=str(min(50, sampling.num_timesteps)))
    images = decode(sample_images(InferenceModel(model), sampling, labels, 4 * k, seed=seed, progress=False))
    return image_grid(images, columns=k, zoom=max(1, 64 // images.shape[-1]))


def _make_trainer(options: Train) -> tuple[Trainer, SamplingConfig, Callable]:
    "Build the trainer, its sampling settings, and the function from a model to an image of samples."
    config, state = TrainConfig(**vars(options.training)), _process_state()
    torch.manual_seed(config.seed)
    data = _main_process_first(lambda: _open_data(options))  # only one process checks every file
    model, sampling = _build_model(options, data)
    with _raise_on_all_ranks():
        decode = _load_decoder(sampling, model.to(state.device)) if state.is_main_process else None
    sample_grid = partial(_sample_grid, sampling=sampling, seed=config.seed, decode=decode)
    on_step = (SampleImages(config.sample_every, sample_grid),)
    trainer = Trainer(model, make_diffusion(sampling), data, config, options.out, on_step=on_step)
    return trainer, sampling, sample_grid


@fast_cpu()
def run(options: Train) -> None:
    "Run dit-nb train."
    trainer, sampling, sample_grid = _make_trainer(options)
    if options.resume:
        trainer.resume()
    elif checkpoints(options.out):
        raise UserError(
            f"out is {options.out}, but must have no checkpoints: pass --resume to continue from them."
        )
    averaged = trainer.fit()
    if trainer.accelerator.is_main_process:
        out = Path(options.out)
        with _staged_output(out) as work:
            card = {"data": Path(options.data or options.latents).name, "command": "dit-nb train"}
            save_model(averaged, work / "model", replace(sampling, card=card))
            save_image(sample_grid(averaged), work / "samples.png")
        print(f"model in {out / 'model'}, samples in {out / 'samples.png'}")
