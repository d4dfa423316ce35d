"""A model in a folder, with all that one must know to draw from it; and one that comes with the package."""

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
from dit_nb.hub import saved_file
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.patchify import pair
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, keep_freed_memory
from dit_nb.utils import check_choice, check_eval, seeded

SAMPLING = {"schedule": "linear", "num_timesteps": 1000, "variance": "learned", "bins": 256, "clip_x0": True}


def draws_pixels(config: DiTConfig) -> bool:
    "Whether a model draws grey or RGB pictures, and not latents. Only its channels tell."
    return config.in_channels in (1, 3)


def make_diffusion(
    sampling: dict,  # as in SAMPLING; other entries are not looked at
) -> Diffusion:
    "The diffusion process that a model was trained with."
    return Diffusion(**{k: sampling[k] for k in ("schedule", "num_timesteps", "variance", "bins")})


def save_model(
    model: DiT,
    folder: Path,  # is made
    sampling: dict,  # what else sampling needs: the diffusion process, clipping, class names
) -> None:
    "Weights, configuration, a README, and sampling.json beside them."
    folder = Path(folder)
    facts = {name: sampling[name] for name in CARD_FACTS if sampling.get(name)}
    model.save_pretrained(folder, **facts)
    (folder / "sampling.json").write_text(json.dumps(sampling, indent=1))


CARD_FACTS = ("data", "command", "metrics", "source", "model_id")  # of a process: told in the README


def load_model(
    folder: str,  # a folder that `save_model` wrote, or a hub id
    **download,  # for the Hub: revision, token, cache_dir, local_files_only
) -> tuple[DiT, dict]:
    "A model ready to sample, and its process."
    model = DiT.from_pretrained(folder, **download)
    try:
        path = saved_file(folder, "sampling.json", **download)
    except ValueError:  # a model from elsewhere: taken for one of latents, trained as in the paper
        path = None
    sampling = json.loads(path.read_text()) if path else {**SAMPLING, "clip_x0": False}
    return model.to(best_device()).eval(), sampling


def best_device() -> str:
    "Where this machine computes fastest."
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def push_model(
    model: DiT,
    repo_id: str,  # 'user/name' on the Hub
    sampling: dict,  # as for `save_model`
    token: str | None = None,  # yours; by default the one that `hf auth login` keeps
    private: bool | None = None,  # whether a new repository is
    **options,  # revision, commit_message, create_pr
) -> str:  # where it went
    "Share a model, with all that one must know to draw from it."
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder), {**sampling, "model_id": repo_id})
        return str(api.upload_folder(repo_id=repo_id, folder_path=Path(folder), **options))


def guided(
    model: DiT,
    cfg_scale: float = 1.0,  # 1 is no guidance
    guided_channels: int | None = None,  # all of eps by default
    precision: str = "fp32",  # or bf16
) -> Callable:  # to be called like the model
    "What a sampler asks: the model itself, a leaner copy of it, either of them under guidance."
    check_choice("precision", precision, ("fp32", "bf16"))
    check_eval(model)
    model = InferenceModel(model) if precision == "bf16" else model
    return Guided(model, cfg_scale, guided_channels) if cfg_scale != 1 else model


def sample_images(
    model: DiT,
    sampling: dict,  # see SAMPLING
    labels: Tensor | None,  # (N,) one image for each
    n: int,  # how many, for a model without classes
    seed: int = 0,  # 0 or more
    cfg_scale: float = 1.0,  # 1 is no guidance
    guided_channels: int | None = None,  # all of eps by default
    sampler: str = "ddpm",  # ddpm, ddim
    steps: str = "50",  # respacing: 250, or 10,15,20, or ddim50
    variance: str | None = None,  # in place of the one the model was trained with
    clip_x0: bool | None = None,  # in place of the one in `sampling`
    precision: str = "fp32",  # or bf16: faster where the hardware has it, within 1 % (the guide Speed)
    first: int = 0,  # number of the first image: images 4 and 5 of a seed are the same, drawn alone or with others
    **options,  # callback, progress
) -> Tensor:  # (N, C, H, W); latents from a model of latents
    "Samples. Image i of a seed is the same on every device, in a batch of any size."
    check_choice("sampler", sampler, ("ddpm", "ddim"))
    if seed < 0 or first < 0:
        raise ValueError(f"seed is {seed} and first {first}, but both must be 0 or more.")
    device = next(model.parameters()).device
    run = {"ddpm": ddpm_sample, "ddim": ddim_sample}[sampler]
    keep_freed_memory(device)
    with fast_float32_matmul(device):
        return run(
            make_diffusion(sampling).respaced(steps).to(device),
            guided(model, cfg_scale, guided_channels, precision),
            (n, model.config.in_channels, *pair(model.config.input_size)),
            None if labels is None else labels.to(device),
            generator=[seeded(seed, 2, first + i) for i in range(n)],  # 0 and 1 are for training's own luck
            clip_x0=sampling["clip_x0"] if clip_x0 is None else clip_x0,
            variance=variance,
            device=device,
            **options,
        )


def sample_batches(
    model: DiT,
    sampling: dict,  # see SAMPLING
    labels: Tensor | None,  # (n,) labels of all images, whoever draws them
    n: int,  # how many images, over all processes
    seed: int = 0,
    batch_size: int = 64,  # images drawn at once
    rank: int = 0,  # this process
    world: int = 1,  # processes that share the work: they take batches in turn
    start: int = 0,  # images that are there already
    draw: Callable = sample_images,  # or what draws in its place, with the same arguments
    **options,  # for it
) -> Iterator[tuple[Tensor, Tensor]]:  # numbers of the images (B,), images (B, C, H, W)
    "This process's share of n samples: image i is what `sample_images` draws as image i."
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels has {len(labels)} entries, but n asks for {n} images.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be 1 or more.")
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank}, but must be in [0, {world - 1}]: there are {world} processes.")
    mine = torch.arange(start, n).split(batch_size)[rank::world]

    def drawn(i: Tensor) -> tuple[Tensor, Tensor]:
        y = None if labels is None else labels[i]
        return i, draw(model, sampling, y, len(i), seed, first=int(i[0]), **options)

    return map(drawn, filter(len, mine))


@lru_cache(maxsize=1)
def digit_model() -> tuple[DiT, dict]:
    "The digit model that comes with the package, ready to sample, and its process."
    return load_model(str(files("dit_nb") / "models" / "digits"))
