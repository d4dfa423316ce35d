"""`dit-nb sample`: sample from a trained model into one image, an .npz file or a folder."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.commands.options import Sample
from dit_nb.config import _SAMPLERS, SamplingConfig
from dit_nb.data import _to_uint8, image_grid, save_image
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError, _check_number
from dit_nb.guidance import Guided
from dit_nb.hub import _model_folder
from dit_nb.interop.convert import load_any
from dit_nb.interop.diffusers import _make_scheduler, scheduler_sample
from dit_nb.measure import _PRESETS, _uniform_labels
from dit_nb.model import DiT
from dit_nb.pretrained import (
    _check_sampling_call,
    _is_pixel_model,
    make_diffusion,
    sample_batches,
    sample_images,
)
from dit_nb.sample_files import save_npz
from dit_nb.speed import InferenceModel, _tf32, fast_cpu
from dit_nb.utils import (
    _atomic_write,
    _make_folder,
    _read_json_object,
    _write_text,
    randn,
    seeded_generator,
)

__all__ = []

_NAMES = ("sampler", "steps", "cfg_scale", "guided_channels", "variance", "clip_x0", "time_shift")
_BUNDLED = ("digits", "emoji", "few-step-emoji", "text-emoji")  # models that come with the package
_UNUSED = {  # objective of a model -> settings that it would ignore
    "diffusion": ("time_shift",),
    "flow": ("variance",),
    "mean_flow": ("sampler", "time_shift", "variance", "cfg_scale", "guided_channels"),
}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def _merge_settings(options: Sample) -> dict:
    "Settings of the preset, changed by the options that were given."
    preset = dict(_PRESETS[options.preset]) if options.preset else {}
    settings = {"num_samples": preset.pop("n", 16), "vae": None, **preset, **options.sampling}
    if settings.get("sampler") == "dpm++":
        settings["steps"] = options.sampling.get("steps", "20")  # a preset's are for its own sampler
    settings["label"] = options.label or ("random" if options.preset and not options.prompt else None)
    if options.prompt:
        settings["prompt"] = list(options.prompt)
    return settings


def _model_source(options: Sample) -> str:
    "A model as `load_any` takes it: the folder of one that comes with the package, if nothing here has its name."
    name = options.model or _default_model(options.prompt)
    if name not in _BUNDLED or Path(name).exists():
        return name
    return str(files("dit_nb") / "models" / name.replace("-", "_"))


def _default_model(prompt: tuple[str, ...]) -> str:
    "The bundled model of texts if there are texts, of which the last must not be a model's name after --prompt."
    if not prompt:
        known = ", ".join(_BUNDLED)
        raise UserError(f"model is missing: give a folder, a file, a Hub id, or one of {known}.")
    last = prompt[-1]
    if last in _BUNDLED or (last and Path(last).exists()):
        raise UserError(f"model is missing, and prompt has {last!r}: give the model first, before --prompt.")
    return "text-emoji"


def _load(options: Sample, settings: dict, device) -> tuple[DiT, SamplingConfig]:
    "Load a model, and change the settings saved with it. A preset's VAE is for a latent model that names none."
    model, saved = load_any(_model_source(options), weights=options.weights)
    if (saved.vae or _is_pixel_model(model.config)) and "vae" not in options.sampling:
        settings["vae"] = None
    for name in (name for name in options.sampling if name in _UNUSED[saved.objective]):
        raise UserError(
            f"{name} is {options.sampling[name]}, but must not be given: a model of {saved.objective} has no such setting."
        )
    if options.preset and saved.objective != "diffusion":
        raise UserError(
            f"preset is {options.preset}, but must not be given: it is for diffusion, and the model is of {saved.objective}."
        )
    changes = {name: settings[name] for name in _NAMES if name in settings}
    if changes.get("sampler") == "dpm++":  # not a sampler of SamplingConfig
        del changes["sampler"]
    return model.to(device).eval(), replace(saved, **changes)


def _choose_conditions(options: Sample, settings: dict, n: int, model: DiT, sampling: SamplingConfig):
    "The label or the ids of the text of each image, (n,) or (n, L); None without either."
    if not hasattr(model, "encode_text"):
        if options.prompt:
            raise UserError(
                f"prompt is {options.prompt[0]!r}, but must not be given: the model takes no text."
            )
        return _choose_labels(settings["label"], n, sampling, model.config.num_classes, options.seed)
    if options.label is not None:
        raise UserError(
            f"class is {options.label!r}, but must not be given: the model takes texts, by --prompt."
        )
    if not options.prompt:
        example = sampling.card.get("prompt", "3d green apple")  # the bundled model has no such fact
        raise UserError(f"prompt is missing: the model needs a text, such as --prompt {example!r}.")
    return model.encode_text(options.prompt)[torch.arange(n) % len(options.prompt)].cpu()


def _choose_labels(
    name: str | None, n: int, sampling: SamplingConfig, num_classes: int, seed: int
) -> Tensor | None:
    "The class of each image, (n,): one class, random classes, or all in turn if `name` is None."
    if not num_classes:
        if name not in (None, "random"):
            raise UserError(f"class is {name!r}, but must not be given: the model has no classes.")
        return None
    names = sampling.class_names or tuple(map(str, range(num_classes)))
    if name is None:
        return torch.arange(n) % num_classes
    if name in names:
        return torch.full((n,), names.index(name))
    if name == "random":
        return _uniform_labels(n, num_classes, seed)
    if name.isdecimal() and int(name) < num_classes:
        return torch.full((n,), int(name))
    lower = {known.lower(): known for known in names}
    near = [lower[found] for found in get_close_matches(name.lower(), lower, 5, 0.5)]
    some = ", ".join(near or names[:20]) + (" and so on" if len(names) > 20 and not near else "")
    hint = f"similar names: {some}" if near else f"the names are {some}"
    raise UserError(
        f"class is {name!r}, but must be a number below {num_classes}, random, or a class of the model; {hint}."
    )


def _load_decoder(sampling: SamplingConfig, model: DiT, vae: str | None = None) -> Callable[[Tensor], Tensor]:
    "Return the function from samples to images. An explicit `vae` replaces the one that `sampling` describes."
    known, channels = sampling.vae or {}, model.config.in_channels
    if vae is None and not known:
        if not _is_pixel_model(model.config):
            raise UserError(f"vae is missing: the model generates latents of {channels} channels.")
        return lambda images: images
    from dit_nb.latents import _open_codec

    codec = _open_codec(known, vae, device=next(model.parameters()).device)
    if codec.channels != channels:
        raise UserError(f"vae has {codec.channels} latent channels, but must have the model's {channels}.")
    return codec.decode


def _sample_dpm(
    model: InferenceModel,
    sampling: SamplingConfig,
    labels: Tensor | None,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    "Sample as `sample_images` does, with DPM-Solver++ of diffusers."
    if sampling.objective != "diffusion":
        own = ", ".join(_SAMPLERS[sampling.objective])
        raise UserError(f"sampler is dpm++, but must be one of {own}: the model predicts a velocity.")
    if not sampling.steps.isdecimal():
        raise UserError(f"steps is {sampling.steps!r}, but must be an integer for dpm++.")
    _check_sampling_call(model, sampling, labels, n, seed, first)
    shape, scale = (n, *model.config.image_shape), sampling.cfg_scale
    guided = model if scale == 1 else Guided(model, scale, sampling.guided_channels)
    return scheduler_sample(
        make_diffusion(sampling).to(model.device),
        guided,
        shape,
        None if labels is None else labels.to(model.device),
        scheduler=_make_scheduler(sampling, "dpm++"),
        steps=int(sampling.steps),
        x_T=randn(shape, [seeded_generator(seed, 2, first + i) for i in range(n)], model.device),
    )


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
    out: Path, batches: Iterator[Tensor], first: int, n: int, labels: Tensor | None, columns: int
) -> None:
    "Write uint8 images (B, C, H, W) to an .npz file, one image or a folder, each file atomically."
    if out.suffix == ".npz":
        rows = (batch.permute(0, 2, 3, 1).numpy() for batch in batches)
        save_npz(out, rows, None if labels is None or labels.ndim > 1 else labels.numpy(), n)
    elif out.suffix:
        pixels = torch.cat(list(batches))
        _save_atomic(
            image_grid(pixels / 127.5 - 1, min(n, columns), zoom=max(1, 64 // pixels.shape[-1])), out
        )
    else:
        for i, image in enumerate(chain.from_iterable(batches), first):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            _save_atomic(pixels.numpy(), out / f"{i:06d}.png")


def _save_atomic(pixels: np.ndarray, path: Path) -> None:
    with _atomic_write(path) as draft:
        save_image(pixels, draft)


def _count_existing(out: Path, settings: dict, state) -> int:
    "Count the images that a folder has already. Raises UserError if they were made with other settings."
    from accelerate.utils import gather_object

    count = 0
    with _raise_on_all_ranks():
        if state.is_main_process:
            _check_same_settings(out, settings)
            count = len(list(out.glob("[0-9]*.png")))
    return gather_object([count])[0]


def _check_same_settings(out: Path, settings: dict) -> None:
    "Write the settings into an empty folder; raise UserError if a folder is of others, or of something else."
    note = out / "settings.json"
    if not note.is_file():
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise UserError(f"out is {out}, but must be empty, or a folder of samples.")
        return _write_text(note, json.dumps(settings, indent=1))
    try:
        saved = {"time_shift": 1.0} | _read_json_object(note)  # which older folders do not have
    except UserError:
        raise UserError(f"out is {out}, but its settings.json is damaged: choose another folder.") from None
    for name in settings:
        if settings[name] != saved.get(name):
            raise UserError(f"{name} is {settings[name]}, but the images in {out} have {saved.get(name)}.")


def _check_request(out: Path, n: int, batch_size: int, overwrite: bool = False) -> None:
    _check_number("num_samples", n, int)
    _check_number("batch_size", batch_size, int)
    if not out.suffix and overwrite:
        raise UserError(f"overwrite is True, but out {out} is a folder, whose images are never replaced.")
    _make_folder(out if not out.suffix else out.parent)
    if out.suffix and out.suffix.lower() not in (*_IMAGE_SUFFIXES, ".npz"):
        raise UserError(f"out is {out}, but must be a folder or end in .npz, .png, .jpg or .webp.")
    if out.suffix and out.exists() and not (overwrite and out.is_file()):
        raise UserError(f"out is {out}, which exists: choose another name, or pass --overwrite for a file.")


@fast_cpu()
def run(options: Sample) -> None:
    "Run dit-nb sample."
    with _tf32(options.tf32):
        _sample(options)


def _sample(options: Sample) -> None:
    out, settings, state = Path(options.out), _merge_settings(options), _process_state()
    n, size = settings.pop("num_samples"), options.batch_size
    _check_request(out, n, size, options.overwrite)
    model, sampling = _load(options, settings, state.device)
    decode = _load_decoder(sampling, model, settings["vae"])
    labels = _choose_conditions(options, settings, n, model, sampling)
    facts = {name: getattr(options, name) for name in ("seed", "precision", "tf32", "weights")}
    facts["model"] = str(_model_folder(_model_source(options)))  # of a run, its last checkpoint now
    facts |= {name: getattr(sampling, name) for name in _NAMES} | settings
    existing = _count_existing(out, facts, state) if not out.suffix else 0
    sample = _sample_dpm if facts["sampler"] == "dpm++" else sample_images
    ranks = {"rank": state.process_index, "world_size": state.num_processes, "start": existing}
    shared = {"seed": options.seed, "batch_size": size, "sample": sample, **ranks}
    batches = sample_batches(InferenceModel(model, options.precision), sampling, labels, n, **shared)
    images = _gather_in_order(batches, math.ceil((n - existing) / (size * state.num_processes)), decode)
    if state.is_main_process:
        one_kind = settings["label"] is not None or len(options.prompt) == 1
        kinds = len(options.prompt) or model.config.num_classes
        columns = max(1, round(n**0.5)) if one_kind else kinds if 1 < kinds <= 20 else 10
        _write_samples(out, images, existing, n, labels, columns)
        print(f"{n} samples{'' if options.model else ' of text-emoji'} in {out}")
    else:
        list(images)  # gathering needs every process
