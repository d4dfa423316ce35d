"""Saving, loading and sharing trained models together with their sampling settings; sampling from them."""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import HfApi
from torch import Tensor

from dit_nb.config import DiTConfig
from dit_nb.guidance import Guided
from dit_nb.hub import _saved_file
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.patchify import _height_width
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, keep_freed_memory
from dit_nb.utils import _check_choice, _check_eval, seeded_generator

__all__ = ["SAMPLING", "digit_model", "load_model", "make_diffusion", "push_model"]
__all__ += ["sample_batches", "sample_images", "save_model", "wrap_for_sampling"]

# Default sampling settings. A saved model may add class_names, vae, and the facts of its model card.
SAMPLING = {"schedule": "linear", "num_timesteps": 1000, "variance": "learned", "bins": 256, "clip_x0": True}

_CARD_FIELDS = ("data", "command", "metrics", "source", "model_id")  # settings shown in the model card


def _is_pixel_model(config: DiTConfig) -> bool:
    "Whether a model generates grayscale or RGB images, not latents: decided by its number of channels."
    return config.in_channels in (1, 3)


def make_diffusion(sampling: dict) -> Diffusion:
    """Build the diffusion process of a model from its sampling settings, as in `SAMPLING`."""
    return Diffusion(**{k: sampling[k] for k in ("schedule", "num_timesteps", "variance", "bins")})


def save_model(model: DiT, folder: str | Path, sampling: dict) -> None:
    """Write weights, configuration, model card (README.md) and sampling settings (sampling.json) to a folder."""
    folder = Path(folder)
    model.save_pretrained(folder, **{name: sampling[name] for name in _CARD_FIELDS if sampling.get(name)})
    (folder / "sampling.json").write_text(json.dumps(sampling, indent=1))


def load_model(folder: str | Path, **download) -> tuple[DiT, dict]:
    """Load a model in eval() mode, on the best device, with its sampling settings.

    Without a sampling.json, the settings are those of the paper's latent models.

    Args:
        folder: a folder that `save_model` wrote, or a Hub id such as "user/name"
        **download: for the Hub: revision, token, cache_dir, local_files_only

    Raises:
        ValueError: if a file is missing or damaged
    """
    model = DiT.from_pretrained(folder, **download)
    try:
        path = _saved_file(folder, "sampling.json", **download)
    except ValueError:
        path = None
    sampling = json.loads(path.read_text()) if path else {**SAMPLING, "clip_x0": False}
    return model.to(_best_device()).eval(), sampling


def _best_device() -> str:
    """Return "cuda", "mps" or "cpu": the fastest device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def push_model(
    model: DiT, repo_id: str, sampling: dict, token: str | None = None, private: bool | None = None, **options
) -> str:
    """Upload to the Hub what `save_model` writes, and return the address of the commit.

    Args:
        model: the model to share
        repo_id: "user/name" of the repository, created if it does not exist
        sampling: its sampling settings, as in `SAMPLING`
        token: access token; None uses the one that `hf auth login` stored
        private: whether a new repository is private; None uses the account's default
        **options: revision, commit_message, create_pr
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder, {**sampling, "model_id": repo_id})
        return str(api.upload_folder(repo_id=repo_id, folder_path=Path(folder), **options))


def wrap_for_sampling(
    model: DiT, cfg_scale: float = 1.0, guided_channels: int | None = None, precision: str = "fp32"
) -> Callable:
    """Wrap a model for sampling: an optional bfloat16 copy, and optional guidance. Call it like the model.

    Args:
        model: the model, in eval() mode
        cfg_scale: guidance scale; 1 is no guidance
        guided_channels: number of eps channels to guide; None guides all of them
        precision: "fp32", or "bf16" for a copy with bfloat16 matrices
    """
    _check_choice("precision", precision, ("fp32", "bf16"))
    _check_eval(model)
    network = InferenceModel(model) if precision == "bf16" else model
    return Guided(network, cfg_scale, guided_channels) if cfg_scale != 1 else network


def sample_images(
    model: DiT,
    sampling: dict,
    labels: Tensor | None,
    n: int,
    seed: int = 0,
    cfg_scale: float = 1.0,
    guided_channels: int | None = None,
    sampler: str = "ddpm",
    steps: str = "50",
    variance: str | None = None,
    clip_x0: bool | None = None,
    precision: str = "fp32",
    first: int = 0,
    **options,
) -> Tensor:
    """Sample images (latents from a latent model). Image i depends on the seed and on i alone, not on the batch.

    Args:
        model: the model, in eval() mode
        sampling: its sampling settings, as in `SAMPLING`
        labels: (n,) class of each image; None for a model without classes
        n: number of images
        seed: seed of the noise, 0 or more
        cfg_scale: guidance scale; 1 is no guidance
        guided_channels: number of eps channels to guide; None guides all of them
        sampler: "ddpm" or "ddim"
        steps: sampling steps: "250", or "10,15,20" for three sections of the schedule, or "ddim50"
        variance: variance of a DDPM step; None uses the one of `sampling`
        clip_x0: whether to clip the predicted x0 to [-1, 1]; None uses the value of `sampling`
        precision: "fp32", or "bf16": faster if the hardware supports it, within 1 % (guide Speed)
        first: index of the first image
        **options: callback, progress (see `sample_loop`)

    Returns:
        (n, C, H, W) samples

    Raises:
        ValueError: if an argument is out of range, or does not fit the model
    """
    _check_choice("sampler", sampler, ("ddpm", "ddim"))
    if seed < 0 or first < 0:
        raise ValueError(f"seed is {seed} and first {first}, but both must be 0 or more.")
    device = next(model.parameters()).device
    run = {"ddpm": ddpm_sample, "ddim": ddim_sample}[sampler]
    keep_freed_memory(device)
    with fast_float32_matmul(device):
        return run(
            make_diffusion(sampling).respaced(steps).to(device),
            wrap_for_sampling(model, cfg_scale, guided_channels, precision),
            (n, model.config.in_channels, *_height_width(model.config.input_size)),
            None if labels is None else labels.to(device),
            generator=_image_generators(seed, first, n),
            clip_x0=sampling["clip_x0"] if clip_x0 is None else clip_x0,
            variance=variance,
            device=device,
            **options,
        )


def _image_generators(seed: int, first: int, n: int) -> list[torch.Generator]:
    "One generator per image; keys (seed, 0) and (seed, 1) belong to training."
    return [seeded_generator(seed, 2, first + i) for i in range(n)]


def sample_batches(
    model: DiT,
    sampling: dict,
    labels: Tensor | None,
    n: int,
    seed: int = 0,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    sample: Callable = sample_images,
    **options,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one process's part of n samples, batch by batch. Image i equals image i of `sample_images`.

    Args:
        model, sampling, labels, n, seed: as for `sample_images`, over all processes
        batch_size: images per batch
        rank: index of this process
        world_size: number of processes; they take batches in turn
        start: number of images that exist already and are skipped
        sample: function that samples a batch, with the arguments of `sample_images`
        **options: further arguments of `sample`

    Returns:
        iterator over indices (B,) and images (B, C, H, W)

    Raises:
        ValueError: if an argument is out of range
    """
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels has {len(labels)} entries, but must have n = {n}.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be 1 or more.")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, but must be in [0, {world_size - 1}].")

    def sample_batch(i: Tensor) -> tuple[Tensor, Tensor]:
        y = None if labels is None else labels[i]
        return i, sample(model, sampling, y, len(i), seed, first=int(i[0]), **options)

    batches = torch.arange(start, n).split(batch_size)[rank::world_size]
    return map(sample_batch, filter(len, batches))


@lru_cache(maxsize=1)
def digit_model() -> tuple[DiT, dict]:
    """Load the digit model that comes with the package, and its sampling settings."""
    return load_model(str(files("dit_nb") / "models" / "digits"))
