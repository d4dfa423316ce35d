"""New images from a trained model: a picture to look at, or as many as an evaluation needs."""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.data import image_grid, save_image, to_uint8
from dit_nb.distributed import processes
from dit_nb.interop.convert import load_any
from dit_nb.interop.diffusers import make_scheduler, scheduler_sample
from dit_nb.measure import PRESETS, uniform_labels
from dit_nb.model import DiT
from dit_nb.objective import VARIANCES
from dit_nb.patchify import pair
from dit_nb.pretrained import draws_pixels, guided, make_diffusion, sample_batches, sample_images
from dit_nb.sample_files import save_npz
from dit_nb.utils import make_folder, randn, seeded, whole_file


def class_index(
    name: str,  # a class name, or a number
    sampling: dict,  # with class_names, where they are known
    classes: int,  # K
) -> int:
    "The label of a class."
    names = sampling.get("class_names") or [str(k) for k in range(classes)]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < classes:
        return int(name)
    some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise ValueError(f"class is {name!r}, but must be a number below {classes} or one of {some}.")


def choose_labels(
    name: str | None,  # a class; None: one after the other; random: uniform, as the paper counts
    n: int,
    sampling: dict,
    classes: int,  # K
    seed: int = 0,
) -> Tensor | None:  # (n,)
    "The label of each image."
    if not classes:
        if name not in (None, "random"):
            raise ValueError(f"class is {name!r}, but the model has no classes.")
        return None
    if name is None:
        return torch.arange(n) % classes
    if name == "random" and name not in sampling.get("class_names", ()):
        return uniform_labels(n, classes, seed)
    return torch.full((n,), class_index(name, sampling, classes))


def open_decoder(
    sampling: dict,  # with "vae", the description of an autoencoder, for a model of latents
    model: DiT,
    vae: str | None = None,  # folder or id of the autoencoder, in place of the one in `sampling`
) -> Callable[[Tensor], Tensor]:
    "What makes images of what the model draws."
    known, channels = sampling.get("vae") or {}, model.config.in_channels
    if vae is None and not known:
        if not draws_pixels(model.config):
            text = f"the model draws latents of {channels} channels: name their autoencoder with vae."
            raise ValueError(text)
        return lambda images: images
    from dit_nb.latents import open_codec

    codec = open_codec(known, vae, device=next(model.parameters()).device)
    if codec.channels != channels:
        raise ValueError(f"vae has {codec.channels} latent channels, but the model draws {channels}.")
    return codec.decode


def dpm_images(
    model: DiT,
    sampling: dict,  # see SAMPLING
    labels: Tensor | None,  # (N,)
    n: int,
    seed: int = 0,
    cfg_scale: float = 1.0,
    guided_channels: int | None = None,
    steps: str = "20",
    precision: str = "fp32",
    first: int = 0,  # number of the first image
    **_,  # what this sampler has no use for: variance, clip_x0
) -> Tensor:  # (N, C, H, W)
    "As `sample_images`, by DPM-Solver++ of diffusers."
    if not steps.isdecimal():
        raise ValueError(f"steps is {steps!r}, but must be a whole number for dpm++.")
    device = next(model.parameters()).device
    shape = (n, model.config.in_channels, *pair(model.config.input_size))
    return scheduler_sample(
        make_diffusion(sampling).to(device),
        guided(model, cfg_scale, guided_channels, precision),
        shape,
        None if labels is None else labels.to(device),
        scheduler=make_scheduler(sampling, "dpm++"),
        steps=int(steps),
        x_T=randn(shape, [seeded(seed, 2, first + i) for i in range(n)], device),
    )


DRAW = {
    "ddpm": partial(sample_images, sampler="ddpm"),
    "ddim": partial(sample_images, sampler="ddim"),
    "dpm++": dpm_images,
}


def in_order(
    share: Iterator[tuple[Tensor, Tensor]],  # from `sample_batches`: this process's images
    n: int,  # images of all processes
    per_round: int,  # that all processes draw at a time
    decode: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:  # (B, C, H, W) uint8
    "The images of all processes, batch by batch, in their order."
    from accelerate.utils import gather_object

    for _ in range(math.ceil(n / per_round)):
        _, images = next(share, (None, None))  # in the last round some have none left
        yield from gather_object([] if images is None else [to_uint8(decode(images)).cpu()])


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def write(
    out: Path,
    batches: Iterator[Tensor],  # (B, C, H, W) uint8
    done: int,  # images that are there
    asked: dict,
    labels: Tensor | None,  # (N,)
) -> None:
    "Write images where they should go: what is there is whole."
    if out.suffix == ".npz":
        rows = (batch.permute(0, 2, 3, 1).numpy() for batch in batches)
        save_npz(out, rows, None if labels is None else labels.numpy(), asked["n"])
    elif out.suffix:
        pixels = torch.cat(list(batches))
        columns = min(asked["n"], 10 if asked["label"] is None else max(1, round(asked["n"] ** 0.5)))
        grid = image_grid(pixels / 127.5 - 1, columns, zoom=max(1, 64 // pixels.shape[-1]))
        save_whole(grid, out)
    else:
        for i, image in enumerate(chain.from_iterable(batches), done):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            save_whole(pixels.numpy(), out / f"{i:06d}.png")


def save_whole(picture: np.ndarray, path: Path) -> None:
    "Write a picture beside its place, then move it there."
    with whole_file(path) as draft:
        save_image(picture, draft)


def first_missing(
    out: Path,  # a folder of images
    settings: dict,  # all that they depend on
    state,  # Accelerate's PartialState
) -> int:  # how many are there
    "Begin a folder of samples, or find what was begun. Raises ValueError where it is not the same."
    from accelerate.utils import gather_object

    note, there = out / "settings.json", 0
    if state.is_main_process:
        if not note.exists() and any(out.iterdir()):
            raise ValueError(f"out folder {out} holds something else: choose another.")
        was = json.loads(note.read_text()) if note.exists() else settings
        for name in settings:
            if settings[name] != was.get(name):
                raise ValueError(f"{name} is {settings[name]}, but {out} was begun with {was.get(name)}.")
        note.write_text(json.dumps(settings, indent=1))
        there = len(list(out.glob("[0-9]*.png")))
    return gather_object([there])[0]


ASKED = {  # what can be asked for, and what else it is
    **{"n": 16, "label": None, "vae": None, "batch_size": 64, "sampler": "ddpm", "steps": "50"},
    **{"cfg_scale": 1.0, "guided_channels": None, "variance": None, "clip_x0": None, "precision": "fp32"},
}


DRAWING = ("cfg_scale", "guided_channels", "variance", "clip_x0", "precision", "steps")  # for `sample_images`


def settle(args: argparse.Namespace) -> dict:  # as ASKED
    "What was asked for."
    asked = dict(ASKED)
    if args.preset is not None:
        asked |= {"label": "random", **PRESETS[args.preset]}
    asked |= {name: getattr(args, name) for name in asked if hasattr(args, name)}
    for name in ("n", "batch_size"):
        if asked[name] < 1:
            raise ValueError(f"{name} is {asked[name]}, but must be 1 or more.")
    if asked["sampler"] == "dpm++" and "steps" not in args:
        asked["steps"] = "20"
    return asked


def run(args: argparse.Namespace) -> None:
    "dit-nb sample"
    out, asked, state = Path(args.out), settle(args), processes()
    make_folder(out if not out.suffix else out.parent)
    if out.suffix and out.suffix.lower() not in (*PICTURES, ".npz"):
        raise ValueError(f"out is {out}, but must be a folder or end in .npz, .png, .jpg or .webp.")
    model, sampling = load_any(args.model)
    model = model.to(state.device).eval()
    if "vae" not in args and (sampling.get("vae") or draws_pixels(model.config)):
        asked["vae"] = None  # a preset's is for models of latents that name none
    decode = open_decoder(sampling, model, asked["vae"])
    labels = choose_labels(asked["label"], asked["n"], sampling, model.config.num_classes, args.seed)
    settings = {"model": args.model, "seed": args.seed, **asked, "n": None, "batch_size": None}
    done = first_missing(out, settings, state) if not out.suffix else 0
    share = sample_batches(
        model,
        sampling,
        labels,
        asked["n"],
        args.seed,
        asked["batch_size"],
        state.process_index,
        state.num_processes,
        start=done,
        draw=partial(DRAW[asked["sampler"]], **{name: asked[name] for name in DRAWING}),
    )
    batches = in_order(share, asked["n"] - done, asked["batch_size"] * state.num_processes, decode)
    if state.is_main_process:
        write(out, batches, done, asked, labels)
        print(f"{asked['n']} samples in {out}")
    else:  # takes part in the gathering
        list(batches)


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb sample."
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("model", help="a folder such as runs/digits/model, an official .pt file, or an id on the Hub")
    add("--class", dest="label", help="name or number of the class, or random (default: one after the other)")
    add("--n", type=int, help="how many images (default: 16)")
    add("--cfg-scale", type=float, help="guidance: 1 is none (default: 1)")
    add("--guided-channels", type=int, help="that guidance acts on (default: all of the noise; officially 3)")
    add("--sampler", choices=tuple(DRAW), help="dpm++ is that of diffusers (default: ddpm)")
    add("--steps", help="sampling steps: 250, or 10,15,20, or ddim50 (default: 50; 20 for dpm++)")
    add("--variance", choices=VARIANCES, help="of each step (default: as the model was trained)")
    clip = "hold predicted images in [-1, 1] (default: as trained)"
    add("--clip-x0", action=argparse.BooleanOptionalAction, help=clip)
    add(
        "--precision",
        choices=("fp32", "bf16"),
        help="bf16 is faster where the hardware has it (default: fp32)",
    )
    add("--vae", help="folder or id of the autoencoder (default: the one that the model was trained with)")
    add("--batch-size", type=int, help="images that a process draws at a time (default: 64)")
    preset = "paper: 250 steps, random classes, guidance 1.5 on 3 channels, 50,000 images"
    parser.add_argument("--preset", choices=("paper",), help=preset)
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same images (default: %(default)s)"
    )
    parser.add_argument(
        "--out", default="samples.png", help="a picture, a .npz file, or a folder (default: %(default)s)"
    )
