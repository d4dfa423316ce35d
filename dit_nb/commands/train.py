"""Your pictures, or their latents, and a DiT that has learned them."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.checkpoint import checkpoints
from dit_nb.commands.digits import DATA_FIELDS, DIGITS_MODEL
from dit_nb.commands.options import add_fields, given, published
from dit_nb.commands.sample import open_decoder
from dit_nb.config import NAMES, DiTConfig
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import main_first, processes, together
from dit_nb.image_files import open_images
from dit_nb.interop.official import SHAPE
from dit_nb.model import DiT
from dit_nb.objective import VARIANCES
from dit_nb.pretrained import SAMPLING, make_diffusion, sample_images, save_model
from dit_nb.schedule import SCHEDULES
from dit_nb.training import TrainConfig, Trainer


def open_data(args: argparse.Namespace):  # a data set, see `dit_nb.data`
    "The images or latents that the command line names."
    if args.latents is not None:
        from dit_nb.latent_cache import open_latents

        return open_latents(args.latents)
    if args.data != "digits" and args.image_size is None:
        raise ValueError("image-size is missing: pictures are cut to a square, of how many pixels?")
    data = open_images(args.data, args.image_size, args.channels, args.skip_bad)
    skipped = getattr(data, "skipped", ())
    if skipped and processes().is_main_process:
        print(f"{len(skipped)} images cannot be read and are skipped: {', '.join(map(str, skipped[:5]))}")
    return data


def inputs(
    data,  # a data set of images or of latents
) -> dict:  # input_size and in_channels of a model
    "What one image is for the model."
    channels, height, width = data.__getitems__([0])[0].shape[-3:]
    return {"input_size": height if height == width else (height, width), "in_channels": channels}


def model_config(
    args: argparse.Namespace,
    data,  # what the model will be trained on
) -> DiTConfig:
    "The model that the command line describes, fitted to the data."
    fitted = {**inputs(data), **given(args, DiTConfig), "num_classes": len(data.class_names)}
    if args.data == "digits" and args.size is None:
        return DiTConfig(**{**asdict(DIGITS_MODEL), **fitted})
    return DiTConfig.named(args.size or "DiT-S/4", **fitted)


def go_on_from(
    source: str,  # a .pt file, a folder of dit_nb or diffusers, an id on the Hub
    data,  # what the model will be trained on
) -> tuple[DiT, dict]:
    "A trained model, fitted to other data: a new label table where the classes are others."
    from dit_nb.interop.convert import load_any

    model, sampling = load_any(source)
    shape, takes = inputs(data), model.config.in_channels
    if shape["in_channels"] != takes:
        raise ValueError(f"data has {shape['in_channels']} channels, but {source} takes {takes}.")
    names, known = list(data.class_names), sampling.get("class_names")
    fitted = DiT(replace(model.config, num_classes=len(names), **shape))
    weights = model.state_dict()
    del weights["pos_embed"]  # computed, for the size at hand
    if len(names) != model.config.num_classes or (known and names != list(known)):
        if processes().is_main_process:
            print(f"the classes are not those of {source}: their embeddings are learned anew.")
        weights = {key: value for key, value in weights.items() if not key.startswith("y_embedder.")}
    fitted.load_state_dict(weights, strict=False)
    return fitted, sampling


def new_or_old(
    args: argparse.Namespace,
    data,  # what the model will be trained on
) -> tuple[DiT, dict]:
    "The model to train, and all that sampling from it will need to know."
    asked = {
        name: getattr(args, name) for name in ("schedule", "num_timesteps", "bins") if hasattr(args, name)
    }
    if args.start is None:
        model, sampling = (
            DiT(model_config(args, data)),
            {**SAMPLING, "bins": 17 if args.data == "digits" else 256},
        )
    elif args.size or given(args, DiTConfig):
        named = args.size or next(iter(given(args, DiTConfig)))
        raise ValueError(f"{named} is given, but start {args.start} brings a model of its own.")
    else:
        model, sampling = go_on_from(args.start, data)
    sampling |= asked | {"class_names": list(data.class_names), "clip_x0": args.latents is None}
    sampling["variance"] = "learned" if model.config.learn_sigma else args.variance
    sampling.pop("vae", None)
    return model, sampling | ({"vae": data.vae} if args.latents is not None else {})


def preview(
    model: DiT,
    sampling: dict,  # see SAMPLING
    seed: int,
    decode: Callable[[Tensor], Tensor],  # from what the model draws to images
) -> np.ndarray:  # (height, width, 3) uint8
    "A few samples of the first classes, for a look in between."
    k = min(model.config.num_classes, 8) or 4
    labels = torch.arange(k).repeat(4) if model.config.num_classes else None
    steps = str(min(50, sampling["num_timesteps"]))
    images = decode(sample_images(model, sampling, labels, 4 * k, seed, steps=steps, progress=False))
    return image_grid(images, columns=k, zoom=max(1, 64 // images.shape[-1]))


OFTEN = {"save_every": 1000, "sample_every": 1000}


def run(args: argparse.Namespace) -> None:
    "dit-nb train"
    training = TrainConfig(**(OFTEN | given(args, TrainConfig)))
    torch.manual_seed(training.seed)
    data = main_first(lambda: open_data(args))  # one process looks at every picture
    model, sampling = new_or_old(args, data)
    trainer = Trainer(model, make_diffusion(sampling), data, training, args.out)
    with together():  # only one process shows pictures, and needs what decodes them
        decode = open_decoder(sampling, model) if trainer.accelerator.is_main_process else None
    look = partial(preview, sampling=sampling, seed=training.seed, decode=decode)
    if args.resume:
        trainer.resume()
    elif checkpoints(args.out):
        text = f"out folder {args.out} holds checkpoints: go on with --resume, or choose another folder."
        raise ValueError(text)
    averaged = trainer.fit(sample=look)
    if trainer.accelerator.is_main_process:
        finish(averaged, sampling, Path(args.out), look)


def finish(model: DiT, sampling: dict, out: Path, look: Callable[[DiT], np.ndarray]) -> None:
    "Save the averaged model and a last picture."
    with published(out) as work:
        save_model(model, work / "model", sampling)
        save_image(look(model), work / "samples.png")
    print(f"model in {out / 'model'}, samples in {out / 'samples.png'}")


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb train."
    add, unset = parser.add_argument, {"default": argparse.SUPPRESS}
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data", help="a folder of images, best with a sub-folder for each class; hub:NAME; or digits"
    )
    source.add_argument("--latents", help="a folder that dit-nb encode wrote")
    add("--out", required=True, help="folder for checkpoints, sample pictures and the model")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add("--start", help="go on from a trained model: a folder, an official .pt file, or an id on the Hub")
    add("--image-size", type=int, help="side of the square that images are cropped to")
    add("--channels", type=int, default=3, help="3, or 1 for grey (default: %(default)s)")
    add("--skip-bad", action="store_true", help="leave out images that cannot be read")
    add("--size", help=f"one of {', '.join(NAMES)} (default: DiT-S/4; for digits a small one)")
    add("--schedule", choices=tuple(SCHEDULES), help="of the noise (default: linear)", **unset)
    add("--num-timesteps", type=int, help="steps of the diffusion process (default: 1000)", **unset)
    add("--bins", type=int, help="values that a pixel can take (default: 256; 17 for digits)", **unset)
    add(
        "--variance",
        choices=VARIANCES[1:],
        default="fixed_small",
        help="with --no-learn-sigma (default: %(default)s)",
    )
    add_fields(parser, TrainConfig, "training", defaults=OFTEN)
    add_fields(
        parser,
        DiTConfig,
        "model: each changes what --size says",
        skip=DATA_FIELDS,
        defaults=dict.fromkeys(SHAPE, "that of --size"),
    )
