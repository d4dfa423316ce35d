"""Saving, loading and sharing trained models together with their sampling settings; sampling from them."""

import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import cast

import numpy as np
import torch
from huggingface_hub import HfApi
from torch import Tensor

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError, _check_choice, _check_path, _check_type, _is_int, _shown
from dit_nb.guidance import Guided
from dit_nb.hub import _CARD_ENTRIES, _KINDS, _kind, _model_folder, _saved_file
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.sampling import Step, ddim_step, ddpm_step, sample_loop
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_sample
from dit_nb.since.targets import TargetFlow
from dit_nb.utils import _check_device, _check_dtype, _check_index, _write_text, seeded_generator

__all__ = ["block_model", "digit_model", "emoji_model", "few_step_emoji_model", "load_model"]
__all__ += ["make_diffusion", "push_model", "sample_batches", "sample_images", "save_model"]
__all__ += ["text_emoji_model"]

_SAMPLING = "sampling.json"


def _is_pixel_model(config: DiTConfig) -> bool:
    "Whether a model generates grayscale or RGB images, not latents: decided by its number of channels."
    return config.in_channels in (1, 3)


def make_diffusion(sampling: SamplingConfig) -> Diffusion | RectifiedFlow:
    """Build the diffusion process, or the flow, that a model was trained with.

    Args:
        sampling: its sampling settings

    Raises:
        UserError: if the objective is mean_flow, which has a sampler of its own (`dit_nb.since.meanflow`)
    """
    _check_type("sampling", sampling, SamplingConfig)
    if sampling.objective == "mean_flow":
        raise UserError("objective is mean_flow, but must be diffusion or flow: see `dit_nb.since.meanflow`.")
    if sampling.objective == "flow":
        if sampling.predicts == "velocity":
            return RectifiedFlow(sampling.time_density, sampling.time_shift)
        return TargetFlow(sampling.predicts, density=sampling.time_density, shift=sampling.time_shift)
    betas = sampling.schedule
    if not isinstance(betas, str):
        betas = torch.tensor(betas, dtype=torch.float64)
    return Diffusion(betas, sampling.num_timesteps, sampling.variance, sampling.bins)


def save_model(model: DiT, folder: str | Path, sampling: SamplingConfig) -> None:
    """Write weights, configuration, model card (README.md) and sampling settings (sampling.json) to a folder.

    Args:
        model: the model, in any mode
        folder: output folder, created if missing; files in it are replaced
        sampling: its sampling settings, with the facts of the model card

    Raises:
        UserError: if the settings do not fit the model, or the folder cannot be written
    """
    _check_sampling_fits(sampling, model)
    _check_path("folder", folder)
    folder = Path(folder)
    facts = {"objective": sampling.objective, "predicts": sampling.predicts, **sampling.card}
    model.save_pretrained(folder, **{name: facts[name] for name in _CARD_ENTRIES if facts.get(name)})
    _write_text(folder / _SAMPLING, json.dumps(asdict(sampling), indent=1))


def _check_model(model, objective: str | None = None) -> None:
    "Raise a UserError if it is no model, or if one of model and objective is MeanFlow's, and the other is not."
    if not isinstance(getattr(model, "config", None), DiTConfig):
        raise UserError(f"model is {type(model).__name__}, but must be a DiT or an InferenceModel.")
    jumps = hasattr(getattr(model, "model", model), "span_embedder")  # that of an InferenceModel
    if objective is not None and jumps != (objective == "mean_flow"):
        wanted = "mean_flow for a MeanFlowDiT" if jumps else "diffusion or flow for this model"
        raise UserError(f"objective is {objective}, but must be {wanted}.")


def _check_sampling_fits(sampling: SamplingConfig, model: DiT) -> None:
    "Raise a UserError if sampling settings are none, or have another objective or number of classes than the model."
    if not isinstance(sampling, SamplingConfig):
        raise UserError(f"sampling is {type(sampling).__name__}, but must be a SamplingConfig.")
    _check_model(model, sampling.objective)
    names, classes = sampling.class_names, model.config.num_classes
    if names is not None and classes and len(names) != classes:
        raise UserError(f"class_names has {len(names)} names, but must have {classes}, one for each class.")


def _read_sampling(path: Path, model: DiT) -> SamplingConfig:
    "Read a sampling.json, or raise a UserError if it is not one. What it leaves out follows from the model."
    try:
        fields = dict(json.loads(path.read_text(encoding="utf-8")))
        sampling = replace(_default_sampling(model.config, _kind(model)), **fields)
        _check_sampling_fits(sampling, model)
        return sampling
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{path} must hold the fields of a SamplingConfig: {reason}.") from None


def _default_sampling(config: DiTConfig, kind: str = "DiT") -> SamplingConfig:
    "The paper's sampling settings, for a model that was saved without its own. Pixel models are clipped."
    objective = _KINDS[kind][1]
    if objective != "diffusion":
        steps = "4" if objective == "mean_flow" else "50"
        return SamplingConfig(objective=objective, steps=steps, clip_x0=_is_pixel_model(config))
    return SamplingConfig(
        variance="learned" if config.learn_sigma else "fixed_large", clip_x0=_is_pixel_model(config)
    )


def load_model(
    folder: str | Path,
    y_embedder: torch.nn.Module | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    weights: str = "ema",
    **download,
) -> tuple[DiT, SamplingConfig]:
    """Load a model in eval() mode with its sampling settings.

    Without a sampling.json, the settings are those of the paper's models, with a warning.

    Args:
        folder: a folder that `save_model` wrote; a checkpoint of a run; the folder of a run, for its last
            checkpoint; or a Hub id such as "user/name"
        y_embedder: module of the kind that the model was made with, if it was not made with labels
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; as saved by default
        weights: "ema" or "model": averaged or raw weights of a checkpoint, which has both
        **download: options of the Hub: revision, token, cache_dir, force_download, local_files_only

    Raises:
        FileNotFoundError: if there is no such model
        UserError: if a file is damaged, or an argument does not fit
    """
    folder, device = _model_folder(folder), _best_device() if device is None else device
    options = {"device": device, "dtype": dtype, "weights": weights}
    model = DiT.from_pretrained(folder, y_embedder, **options, **download)
    try:
        path = _saved_file(folder, _SAMPLING, **download)
    except FileNotFoundError:
        warnings.warn(
            f"{folder} has no {_SAMPLING}: the objective, schedule and variance are assumed to be the paper's; save "
            "with save_model, or save_pretrained(..., sampling=...), if the model was trained with others.",
            stacklevel=2,
        )
        return model, _default_sampling(model.config, _kind(model))
    return model, _read_sampling(path, model)


def _best_device() -> str:
    """Return "cuda", "mps" or "cpu": the fastest device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def push_model(
    model: DiT,
    repo_id: str,
    sampling: SamplingConfig,
    token: str | None = None,
    private: bool | None = None,
    **options,
) -> str:
    """Upload to the Hub what `save_model` writes, and return the address of the commit.

    Args:
        model: the model to share
        repo_id: "user/name" of the repository, created if it does not exist
        sampling: its sampling settings
        token: access token; None uses the one that `hf auth login` stored
        private: whether a new repository is private; None uses the account's default
        **options: revision, commit_message, create_pr
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder, replace(sampling, card={**sampling.card, "model_id": repo_id}))
        return str(api.upload_folder(repo_id=repo_id, folder_path=Path(folder), **options))


_STEPS = {"ddpm": (ddpm_step, True), "ddim": (ddim_step, False)}  # step, whether it needs mean and variance


def sample_images(
    model: DiT | Callable,
    sampling: SamplingConfig,
    labels: Tensor | list[int | str] | None = None,
    n: int | None = None,
    *,
    seed: int = 0,
    first: int = 0,
    callback: Callable[[Step], None] | None = None,
    progress: bool = True,
    **changes,
) -> Tensor:
    """Sample images (latents from a latent model). Image i depends on the seed and on i alone, not on the batch.

    Args:
        model: the model in eval() mode, an `InferenceModel` of it, which is faster, or one with guidance around it
        sampling: sampler, steps, guidance, ...
        labels: (n,) class of each image, a tensor or an array of any integer type, or a list of numbers or names;
            a list of prompts for a model of texts; None for a model without classes
        n: number of images, if there are no labels
        seed: seed of the noise, 0 or more
        first: index of the first image
        callback: function that is called with a `Step` after each step; of a flow a `FlowStep`
        progress: show a progress bar
        **changes: settings that are others than those of `sampling`, such as steps=250 or cfg_scale=4.0

    Returns:
        (n, C, H, W) samples

    Raises:
        UserError: if an argument is out of range, or does not fit the model
    """
    sampling = _changed(sampling, changes) if changes else sampling
    labels, n, device = _check_sampling_call(model, sampling, labels, n, seed, first)
    guided = model
    if sampling.cfg_scale != 1:
        guided = Guided(model, sampling.cfg_scale, sampling.guided_channels)
    settings = {name: getattr(sampling, name) for name in (*_PROCESS, "sampler", "steps")}
    return _make_sampler(device, **settings)(
        guided,
        (n, *model.image_shape),
        None if labels is None else labels.to(device),
        generator=[seeded_generator(seed, 2, first + i) for i in range(n)],  # (seed, 0), (seed, 1): training
        clip_x0=sampling.clip_x0,
        callback=callback,
        progress=progress,
        device=device,
    )


def _changed(sampling: SamplingConfig, changes: dict) -> SamplingConfig:
    "Sampling settings with some others; a UserError if there is no such setting."
    _check_type("sampling", sampling, SamplingConfig)
    for name in changes:
        _check_choice("setting", name, tuple(vars(sampling)))
    return replace(sampling, **changes)


_FLOW = "time_density", "time_shift", "predicts"
_PROCESS = ("objective", *_FLOW, "schedule", "num_timesteps", "variance", "bins")


@lru_cache(maxsize=8)
def _make_sampler(device: torch.device, **settings) -> Callable:
    "The sampling loop of these settings, made once for all batches: a function (model, shape, y, ...) to images."
    sampling = SamplingConfig(**settings)
    if sampling.objective == "mean_flow":
        return partial(_sample_jumps, int(sampling.steps))
    process = make_diffusion(sampling).respaced(sampling.steps).to(device)
    if sampling.objective == "flow":
        return partial(flow_sample, process, step=sampling.sampler)
    step, posterior = _STEPS[sampling.sampler]
    return partial(sample_loop, step, process, posterior=posterior)


def _sample_jumps(
    steps: int, model: Callable, shape, y: Tensor | None, *, clip_x0: bool, **options
) -> Tensor:
    "MeanFlow's sampler, with the options of the others; it needs no progress bar. Only the result is clipped."
    chosen = {name: options[name] for name in ("generator", "callback")}
    images = mean_flow_sample(model, shape, y, steps, **chosen)
    return images.clamp(-1, 1) if clip_x0 else images


def _check_sampling_call(
    model, sampling, labels, n: int | None, seed: int, first: int
) -> tuple[Tensor | None, int, torch.device]:
    "Return labels as a tensor, the number of images and the model's device, or raise a UserError."
    if not isinstance(sampling, SamplingConfig):
        raise UserError(f"sampling is {type(sampling).__name__}, but must be a SamplingConfig.")
    _check_model(model, sampling.objective)
    channels, most = sampling.guided_channels, model.config.in_channels
    if channels is not None and channels > most:  # guidance would reach the variance values
        raise UserError(f"guided_channels is {channels}, but must be at most {most}, the channels of eps.")
    for name, value in {"seed": seed, "first": first, "n": 0 if n is None else n}.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise UserError(f"{name} is {_shown(value)}, but must be an integer of 0 or more.")
    labels = None if labels is None else _as_labels(labels, sampling.class_names, model)
    if labels is None and n is None:
        raise UserError("n is missing: without labels, give the number of images.")
    if labels is not None and n not in (None, len(labels)):
        raise UserError(f"n is {n}, but must be the number of labels, {len(labels)}.")
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else model.device
    return labels, len(labels) if n is None else int(n), device


def _as_labels(labels, class_names: tuple[str, ...] | None, model) -> Tensor:  # (n, ...)
    names, classes = class_names or (), model.config.num_classes
    network = getattr(model, "model", model)  # of an InferenceModel
    if hasattr(network, "encode_text") and not isinstance(labels, Tensor):
        return network.encode_text(labels)
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        labels = torch.from_numpy(labels.astype(np.int64))
    if not isinstance(labels, Tensor):
        labels = [_class_number(y, names) for y in (labels if isinstance(labels, _LISTS) else [labels])]
        if not all((type(y) is int and abs(y) < 2**62) or isinstance(y, float) for y in labels):
            raise UserError(
                f"labels is {_shown(labels)}, but must be numbers or names of classes{_some_names(labels, names)}."
            )
        labels = torch.tensor(labels, dtype=None if labels else torch.long)
    if labels.ndim == 0:
        raise UserError("labels has shape (), but must be (n,): one for each image.")
    if classes:
        _check_index("labels", labels, len(labels))
    if (
        classes
        and not labels.is_floating_point()
        and len(labels)
        and not 0 <= labels.min() <= labels.max() <= classes
    ):
        raise UserError(f"labels is in [{labels.min()}, {labels.max()}], but must be in [0, {classes - 1}].")
    return labels.long() if labels.dtype in _INTEGERS else labels


_LISTS = (list, tuple, range)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)  # types that an embedding may refuse


def _some_names(labels: list, names: tuple[str, ...]) -> str:
    "Names of classes that are spelled like wrong ones, or the first, for an error."
    if not names:
        return ", which have no names here"
    wrong = [y for y in labels if isinstance(y, str) and y not in names]
    near = [name for y in wrong[:3] for name in get_close_matches(y, names, n=2)]
    return f", such as {', '.join(dict.fromkeys(near or names[:10]))}"


def _class_number(y, names: tuple[str, ...]):
    "The number of a class that is given by name, or as an integer of any type; anything else as it is."
    if isinstance(y, str) and y in names:
        return names.index(y)
    return int(y) if isinstance(y, np.integer) else y


def sample_batches(
    model: DiT,
    sampling: SamplingConfig,
    labels: Tensor | list[int] | None,
    n: int,
    *,
    seed: int = 0,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    sample: Callable = sample_images,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one process's part of n samples, batch by batch. Image i equals image i of `sample_images`.

    Args:
        model, sampling, labels, n, seed: as for `sample_images`, over all processes
        batch_size: images per batch
        rank: index of this process
        world_size: number of processes; they take batches in turn
        start: number of images that exist already and are skipped
        sample: function that samples a batch, with the arguments of `sample_images`

    Returns:
        iterator over indices (B,) and images (B, C, H, W)

    Raises:
        UserError: if an argument is out of range
    """
    counts = {"n": (n, 0), "batch_size": (batch_size, 1), "world_size": (world_size, 1)}
    for name, (value, least) in (counts | {"rank": (rank, 0), "start": (start, 0)}).items():
        if not _is_int(value, least) or value > 2**62:
            raise UserError(f"{name} is {_shown(value)}, but must be an integer of {least} or more.")
    if rank >= world_size:
        raise UserError(f"rank is {rank}, but must be in [0, {world_size - 1}], below world_size.")
    labels, _, _ = _check_sampling_call(model, sampling, labels, n, seed, start)

    def sample_batch(i: Tensor) -> tuple[Tensor, Tensor]:
        y = None if labels is None else labels[i]
        return i, sample(model, sampling, y, len(i), seed=seed, first=int(i[0]))

    batches = torch.arange(min(start, n), n).split(batch_size)[rank::world_size]
    return map(sample_batch, filter(len, batches))


@lru_cache(maxsize=6)
def _load_bundled(folder: str) -> tuple[DiT, SamplingConfig]:
    return load_model(files("dit_nb") / "models" / folder, device="cpu")


def _copy_bundled(folder: str, device, dtype) -> tuple[DiT, SamplingConfig]:
    _check_device(device)
    _check_dtype(dtype)
    model, sampling = _load_bundled(folder)
    return copy.deepcopy(model).to(device=device or _best_device(), dtype=dtype), sampling


def digit_model(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[DiT, SamplingConfig]:
    """Load the digit model that comes with the package, a new copy at each call, and its sampling settings.

    Args:
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; float32 by default
    """
    return _copy_bundled("digits", device, dtype)


def emoji_model(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[DiT, SamplingConfig]:
    """Load the emoji model that comes with the package, a new copy at each call, and its sampling settings.

    Its classes are those of `dit_nb.data.emoji()`, category and style; `dit_nb/models/emoji/README.md` has its metrics.

    Args:
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; float32 by default
    """
    return _copy_bundled("emoji", device, dtype)


def text_emoji_model(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[DiT, SamplingConfig]:
    """Load the text-to-emoji model that comes with the package, a new copy at each call, and its sampling settings.

    `sample_images(model, sampling, ["3d green apple"])` takes prompts; `dit_nb/models/text_emoji/README.md` has its metrics.

    Args:
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; float32 by default
    """
    return _copy_bundled("text_emoji", device, dtype)


def few_step_emoji_model(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[MeanFlowDiT, SamplingConfig]:
    """Load the few-step emoji model that comes with the package, a new copy at each call, and its sampling settings.

    A MeanFlow model of lesson 35: it samples in one, two or four network calls, without guidance. Its classes are those
    of `emoji(("smileys", "animals", "food"))`; `dit_nb/models/few_step_emoji/README.md` tells how it was made.

    Args:
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; float32 by default
    """
    return cast(tuple[MeanFlowDiT, SamplingConfig], _copy_bundled("few_step_emoji", device, dtype))


_BLOCK_MODELS = ("in_context", "cross_attention", "adaln", "adaln_zero")  # folders of dit_nb/models/blocks


def block_model(
    block: str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[DiT, SamplingConfig]:
    """Load one of four small digit models that differ only in the block, a new copy at each call.

    They were trained alike, with one seed, steps and width; `dit_nb/models/blocks/README.md` has command and metrics.

    Args:
        block: in_context, cross_attention, adaln or adaln_zero
        device: where to put the model; the fastest device of this machine by default
        dtype: number format of the weights; float32 by default

    Raises:
        UserError: if there is no such block
    """
    _check_choice("block", block, _BLOCK_MODELS)
    return _copy_bundled(f"blocks/{block}", device, dtype)
