"""`dit-nb sample`: sample from a trained model into one image, an .npz file or a folder."""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.commands.options import _add_fields, _given
from dit_nb.data import _to_uint8, image_grid, save_image
from dit_nb.distributed import _process_state
from dit_nb.interop.convert import load_any
from dit_nb.interop.diffusers import _make_scheduler, scheduler_sample
from dit_nb.measure import PRESETS, _uniform_labels
from dit_nb.model import DiT
from dit_nb.objective import _VARIANCES
from dit_nb.patchify import _height_width
from dit_nb.pretrained import (
    _image_generators,
    _is_pixel_model,
    make_diffusion,
    sample_batches,
    sample_images,
    wrap_for_sampling,
)
from dit_nb.sample_files import save_npz
from dit_nb.utils import _atomic_write, _make_folder, randn

__all__ = []

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class _Settings:
    "Options that a preset can set."

    label: str | None = None  # class name or number, or random; None takes the classes in turn
    num_samples: int = 16  # number of images
    sampler: str = "ddpm"  # sampler; dpm++ is DPM-Solver++ of diffusers
    steps: str | None = None  # sampling steps: 250, or 10,15,20, or ddim50
    cfg_scale: float = 1.0  # guidance scale; 1 is no guidance
    guided_channels: int | None = None  # number of eps channels to guide; official code: 3
    variance: str | None = None  # variance of a DDPM step
    clip_x0: bool | None = None  # clip the predicted x0 to [-1, 1]
    precision: str = "fp32"  # number format; bf16 is faster if the hardware supports it
    vae: str | None = None  # folder or Hub id of the autoencoder of a latent model
    batch_size: int = 64  # images per process and batch

    def __post_init__(self):
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 1 or more.")


def _parse_settings(args: argparse.Namespace) -> _Settings:
    preset = {}
    if args.preset is not None:
        preset = {"label": "random", **PRESETS[args.preset]}
        preset["num_samples"] = preset.pop("n")
    given = _given(args, _Settings)
    settings = _Settings(**(preset | given))
    if "steps" in given:
        return settings
    return replace(settings, steps="20" if settings.sampler == "dpm++" else settings.steps or "50")


def _choose_labels(name: str | None, n: int, sampling: dict, num_classes: int, seed: int) -> Tensor | None:
    "The class of each image, (n,): one class, random classes, or all in turn if `name` is None."
    if not num_classes:
        if name not in (None, "random"):
            raise ValueError(f"class is {name!r}, but must not be given: the model has no classes.")
        return None
    names = sampling.get("class_names") or [str(k) for k in range(num_classes)]
    if name is None:
        return torch.arange(n) % num_classes
    if name in names:
        return torch.full((n,), names.index(name))
    if name == "random":
        return _uniform_labels(n, num_classes, seed)
    if name.isdecimal() and int(name) < num_classes:
        return torch.full((n,), int(name))
    some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise ValueError(
        f"class is {name!r}, but must be a number below {num_classes}, random, or one of {some}."
    )


def _load_decoder(sampling: dict, model: DiT, vae: str | None = None) -> Callable[[Tensor], Tensor]:
    "Return the function from samples to images. An explicit `vae` replaces the one that `sampling` describes."
    known, channels = sampling.get("vae") or {}, model.config.in_channels
    if vae is None and not known:
        if not _is_pixel_model(model.config):
            raise ValueError(f"vae is missing: the model generates latents of {channels} channels.")
        return lambda images: images
    from dit_nb.latents import _open_codec

    codec = _open_codec(known, vae, device=next(model.parameters()).device)
    if codec.channels != channels:
        raise ValueError(f"vae has {codec.channels} latent channels, but must have the model's {channels}.")
    return codec.decode


def _sample_dpm(
    model: DiT,
    sampling: dict,
    labels: Tensor | None,
    n: int,
    seed: int = 0,
    cfg_scale: float = 1.0,
    guided_channels: int | None = None,
    steps: str = "20",
    precision: str = "fp32",
    first: int = 0,
    **_,  # options of the other samplers: variance, clip_x0
) -> Tensor:
    "Sample as `sample_images` does, with DPM-Solver++ of diffusers."
    if not steps.isdecimal():
        raise ValueError(f"steps is {steps!r}, but must be an integer for dpm++.")
    device = next(model.parameters()).device
    shape = (n, model.config.in_channels, *_height_width(model.config.input_size))
    return scheduler_sample(
        make_diffusion(sampling).to(device),
        wrap_for_sampling(model, cfg_scale, guided_channels, precision),
        shape,
        None if labels is None else labels.to(device),
        scheduler=_make_scheduler(sampling, "dpm++"),
        steps=int(steps),
        x_T=randn(shape, _image_generators(seed, first, n), device),
    )


_SAMPLERS = {
    "ddpm": partial(sample_images, sampler="ddpm"),
    "ddim": partial(sample_images, sampler="ddim"),
    "dpm++": _sample_dpm,
}


def _gather_in_order(
    batches: Iterator[tuple[Tensor, Tensor]],  # of this process, from `sample_batches`
    rounds: int,  # batches per process
    decode: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:  # (B, C, H, W) uint8
    "Gather the images of all processes, in the order of their indices."
    from accelerate.utils import gather_object

    for _ in range(rounds):
        _, images = next(batches, (None, None))  # some processes have no batch in the last round
        yield from gather_object([] if images is None else [_to_uint8(decode(images)).cpu()])


def _write_samples(
    out: Path, batches: Iterator[Tensor], first: int, settings: _Settings, labels: Tensor | None
) -> None:
    "Write uint8 images (B, C, H, W) to an .npz file, one image or a folder, each file atomically."
    n = settings.num_samples
    if out.suffix == ".npz":
        rows = (batch.permute(0, 2, 3, 1).numpy() for batch in batches)
        save_npz(out, rows, None if labels is None else labels.numpy(), n)
    elif out.suffix:
        pixels = torch.cat(list(batches))
        columns = min(n, 10 if settings.label is None else max(1, round(n**0.5)))
        _save_atomic(image_grid(pixels / 127.5 - 1, columns, zoom=max(1, 64 // pixels.shape[-1])), out)
    else:
        for i, image in enumerate(chain.from_iterable(batches), first):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            _save_atomic(pixels.numpy(), out / f"{i:06d}.png")


def _save_atomic(pixels: np.ndarray, path: Path) -> None:
    with _atomic_write(path) as draft:
        save_image(pixels, draft)


def _count_existing(out: Path, settings: dict, state) -> int:
    "Count the images that a folder has already. Raises ValueError if they were made with other settings."
    from accelerate.utils import gather_object

    note, count = out / "settings.json", 0
    if state.is_main_process:
        if not note.exists() and any(out.iterdir()):
            raise ValueError(f"out is {out}, but must be empty, or a folder of samples.")
        saved = json.loads(note.read_text()) if note.exists() else settings
        for name in settings:
            if settings[name] != saved.get(name):
                raise ValueError(
                    f"{name} is {settings[name]}, but the images in {out} have {saved.get(name)}."
                )
        note.write_text(json.dumps(settings, indent=1))
        count = len(list(out.glob("[0-9]*.png")))
    return gather_object([count])[0]


def run(args: argparse.Namespace) -> None:
    "Run dit-nb sample."
    out, settings, state = Path(args.out), _parse_settings(args), _process_state()
    _make_folder(out if not out.suffix else out.parent)
    if out.suffix and out.suffix.lower() not in (*_IMAGE_SUFFIXES, ".npz"):
        raise ValueError(f"out is {out}, but must be a folder or end in .npz, .png, .jpg or .webp.")
    model, sampling = load_any(args.model)
    model = model.to(state.device).eval()
    if "vae" not in args and (sampling.get("vae") or _is_pixel_model(model.config)):
        settings = replace(settings, vae=None)  # a preset's is only for a latent model that names none
    decode, n = _load_decoder(sampling, model, settings.vae), settings.num_samples
    labels = _choose_labels(settings.label, n, sampling, model.config.num_classes, args.seed)
    facts = {"model": args.model, "seed": args.seed, **asdict(settings)}
    facts = {name: value for name, value in facts.items() if name not in ("num_samples", "batch_size")}
    existing = _count_existing(out, facts, state) if not out.suffix else 0
    names = ("cfg_scale", "guided_channels", "variance", "clip_x0", "precision", "steps")
    sample = partial(_SAMPLERS[settings.sampler], **{name: facts[name] for name in names})
    ranks = {"rank": state.process_index, "world_size": state.num_processes, "start": existing}
    size = settings.batch_size
    batches = sample_batches(model, sampling, labels, n, args.seed, size, **ranks, sample=sample)
    rounds = math.ceil((n - existing) / (size * state.num_processes))
    images = _gather_in_order(batches, rounds, decode)
    if state.is_main_process:
        _write_samples(out, images, existing, settings, labels)
        print(f"{n} samples in {out}")
    else:
        list(images)  # gathering needs every process


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb sample."
    add = parser.add_argument
    add("model", help="folder such as runs/digits/model, official .pt file, or Hub id")
    add("--out", default="samples.png", help="image, .npz file or folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the noise and of random classes (default: %(default)s)")
    label = "class name or number, or random (default: each class in turn)"
    add("--class", dest="label", default=argparse.SUPPRESS, help=label)
    paper = "paper: 50,000 images of random classes, 250 steps, guidance 1.5 on 3 channels"
    add("--preset", choices=("paper",), help=f"other defaults; {paper} (default: none)")
    _add_fields(
        parser,
        _Settings,
        "sampling",
        skip=("label",),
        defaults={
            "steps": "50; 20 for dpm++",
            "guided_channels": "all",
            "variance": "as trained",
            "clip_x0": "as trained",
            "vae": "the one the model was trained with",
        },
        choices={"sampler": tuple(_SAMPLERS), "variance": _VARIANCES, "precision": ("fp32", "bf16")},
    )
