"""`dit-nb train`: train a DiT on images or latents, from scratch or from a trained model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.background_checkpoint import BackgroundCheckpointer
from dit_nb.callbacks import SampleImages, Validation
from dit_nb.checkpoint import Checkpointer, checkpoints
from dit_nb.commands.build import _build_model
from dit_nb.commands.captions import _check_caption_options, _read_texts, _Texts
from dit_nb.commands.data import _describe_data, _open_data
from dit_nb.commands.options import Train
from dit_nb.commands.output import _staged_output, _training_card
from dit_nb.commands.sample import _load_decoder
from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.finetune import save_lora
from dit_nb.lab.budget import _format_duration, training_memory, training_time
from dit_nb.lab.profiling import _matmul_gflops
from dit_nb.model import DiT
from dit_nb.pretrained import make_diffusion, sample_images, save_model
from dit_nb.speed import InferenceModel, _tf32, fast_cpu
from dit_nb.training import Trainer

__all__ = []

_SHARES = 0.5, 0.1  # of peak throughput that training usually reaches: guide Speed


def _sample_grid(
    model: DiT,
    sampling: SamplingConfig,
    seed: int,
    decode: Callable[[Tensor], Tensor],
    texts: Tensor | None = None,  # (k, L) ids
) -> np.ndarray:  # (height, width, 3) uint8
    "Sample four images of each of the first eight classes, or of each text, side by side."
    k = len(texts) if texts is not None else min(model.config.num_classes, 8) or 4
    labels = torch.arange(k).repeat(4) if model.config.num_classes else None
    labels = labels if texts is None else texts.repeat(4, 1)
    sampling = replace(sampling, steps=str(min(50, sampling.num_timesteps)))
    images = decode(sample_images(InferenceModel(model), sampling, labels, 4 * k, seed=seed, progress=False))
    return image_grid(images, columns=k, zoom=max(1, 64 // images.shape[-1]))


def _make_trainer(options: Train) -> tuple[Trainer, SamplingConfig, Callable]:
    "Build the trainer, its sampling settings, and the function from a model to an image of samples."
    config, state = TrainConfig(**vars(options.training)), _process_state()
    torch.manual_seed(config.seed)
    options = _check_caption_options(options)
    data, held_out = _open_data(options)  # the processes share the reading of every file
    texts = _read_texts(options, data)
    if state.is_main_process:
        found = texts.describe() if texts else ""
        print(_describe_data(data, held_out, options.data or options.latents, found))
    if texts is not None:
        data, held_out = texts.data_sets(data, held_out)
        config = replace(config, flip=False)  # the data set has the mirror images
    model, sampling = _build_model(options, data, texts)
    sampling = replace(sampling, card=_card(options, texts))
    with _raise_on_all_ranks():
        decode = _load_decoder(sampling, model.to(state.device)) if state.is_main_process else None
    ids = texts.sample_ids() if texts else None
    sample_grid = partial(_sample_grid, sampling=sampling, seed=config.seed, decode=decode, texts=ids)
    on_step: list[Callable] = [SampleImages(config.sample_every, sample_grid)]
    if held_out is not None:
        on_step.insert(0, Validation(config.validate_every, held_out))
    elif config.validate_every and options.training.validate_every != Train.training.validate_every:
        raise UserError(
            f"validate_every is {config.validate_every}, but there are no held-out images: give val_fraction or val_split."
        )
    kind = BackgroundCheckpointer if config.background_save else Checkpointer
    checkpointer = kind(options.out, config.keep, config.keep_every, sampling)
    parts = {"on_step": on_step, "checkpointer": checkpointer}
    trainer = Trainer(model, make_diffusion(sampling), data, config, options.out, **parts)
    return trainer, sampling, sample_grid


def _card(options: Train, texts: _Texts | None) -> dict:
    "What the model card says of the training: data, command, and versions; and a text to sample."
    card = _training_card(str(options.data or options.latents), options.command)
    return card if texts is None else {**card, "prompt": texts.prompts[0]}


def _describe_run(trainer: Trainer) -> str:
    "Parameters, precision, device, length and memory of a run, as lines of text."
    config, a = trainer.config, trainer.accelerator
    parameters = sum(p.numel() for p in trainer.raw_model.parameters() if p.requires_grad)
    precision = a.mixed_precision.replace("no", "fp32")
    length = f"{config.seconds:g} seconds" if config.steps is None else f"{config.steps:,} steps"
    processes = f", {a.num_processes} processes" if a.num_processes > 1 else ""
    forecast = ", no forecast of memory and time: there is one for models of classes only"
    if not hasattr(trainer.raw_model, "encode_text"):  # which `lab.budget` does not count
        forecast = f", about {_memory(trainer):.2g} GB for each process{_time(trainer)}"
    return (
        f"model: {parameters:,} trained parameters, {precision} on {a.device.type}{processes}\n"
        f"run: {length} of {config.batch_size} images{forecast}"
    )


def _counted_config(trainer: Trainer) -> DiTConfig:
    "The configuration whose work and memory `lab.budget` counts: modern blocks have parts of the same sizes."
    model = trainer.raw_model.config
    return replace(model, block="adaln_zero", switches=()) if model.block == "modern" else model


def _memory(trainer: Trainer) -> float:
    "Forecast of the memory of a process, in GB: weights, their copies and moments, and activations."
    config, a = trainer.config, trainer.accelerator
    precision = "fp32" if a.mixed_precision == "no" else "bf16"  # fp16 takes the same
    images, recomputed = config.batch_size // config.grad_accum_steps, config.gradient_checkpointing
    forecast = training_memory(_counted_config(trainer), images, precision, recomputed, a.num_processes)
    return (forecast.peak if config.grad_accum_steps == 1 else forecast.total) / 1e9


def _time(trainer: Trainer) -> str:
    "Forecast of the time of all steps: their products at shares of the device's throughput, which is measured."
    config, a = trainer.config, trainer.accelerator
    if config.steps is None:
        return ""
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[a.mixed_precision]
    tflops = _matmul_gflops(dtype, a.device.type, 8192 if a.device.type == "cuda" else 1024) / 1000
    work = _counted_config(trainer), config.batch_size, config.steps, tflops * a.num_processes
    shortest, longest = (
        _format_duration(training_time(*work, mfu, config.gradient_checkpointing)) for mfu in _SHARES
    )
    return f", {shortest} to {longest} ({_SHARES[0]:.0%} to {_SHARES[1]:.0%} of peak throughput)"


def _resume(trainer: Trainer, options: Train) -> None:
    "Continue from the last checkpoint as the options say, and print where; or see that there is none."
    found = checkpoints(options.out)
    if options.resume == "yes" or (options.resume == "auto" and found):
        trainer.resume(name.replace("-", "_") for name in options.change)
        lines = [f"resumed after step {trainer.progress.step}", *trainer.progress.changes]
        if trainer.accelerator.is_main_process:
            print("\n".join(lines))
    elif found:
        raise UserError(
            f"out is {options.out}, but must have no checkpoints: pass --resume to continue from them."
        )


@fast_cpu()
def run(options: Train) -> None:
    "Run dit-nb train."
    with _tf32(options.tf32):
        trainer, sampling, sample_grid = _make_trainer(options)
        if trainer.accelerator.is_main_process:
            print(_describe_run(trainer), flush=True)
        _resume(trainer, options)
        with fast_cpu(trainer):
            averaged = trainer.fit()
        if trainer.accelerator.is_main_process:
            _write_model(Path(options.out), averaged, trainer, sampling, sample_grid)


def _write_model(out: Path, averaged: DiT, trainer: Trainer, sampling: SamplingConfig, sample_grid: Callable):
    "Write the model and an image of its samples. The card tells what was changed on the way."
    command = "\n    # ".join([sampling.card["command"], *trainer.progress.changes])
    sampling = replace(sampling, card={**sampling.card, "command": command})
    with _staged_output(out) as work:
        save_model(averaged, work / "model", sampling)
        if hasattr(averaged, "peft_config"):  # adapters alone; the model has them merged
            save_lora(averaged, work / "adapter")
        save_image(sample_grid(averaged), work / "samples.png")
    print(f"model in {out / 'model'}, samples in {out / 'samples.png'}")
