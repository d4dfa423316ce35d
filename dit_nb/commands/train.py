"""`dit-nb train`: train a DiT on images or latents, from scratch or from a trained model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.checkpoint import Checkpointer, checkpoints
from dit_nb.commands.build import _build_model
from dit_nb.commands.data import _describe_data, _open_data
from dit_nb.commands.options import Train
from dit_nb.commands.output import _staged_output
from dit_nb.commands.sample import _load_decoder
from dit_nb.config import SamplingConfig, TrainConfig
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images, save_model
from dit_nb.progress import SampleImages
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import Trainer

__all__ = []


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
    data, held_out = _open_data(options)  # the processes share the reading of every file
    if state.is_main_process:
        print(_describe_data(data, held_out, options.data or options.latents))
    model, sampling = _build_model(options, data)
    with _raise_on_all_ranks():
        decode = _load_decoder(sampling, model.to(state.device)) if state.is_main_process else None
    sample_grid = partial(_sample_grid, sampling=sampling, seed=config.seed, decode=decode)
    parts = {
        "on_step": (SampleImages(config.sample_every, sample_grid),),
        "checkpointer": Checkpointer(options.out, config.keep, sampling),
    }
    trainer = Trainer(model, make_diffusion(sampling), data, config, options.out, **parts)
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
