"""Noise goes in, a handwritten 3 comes out. The whole of DiT in twenty minutes, before any of it is explained."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def check_index(
    name: str,  # how the caller calls it, for the message
    index: Tensor,  # should be (n,) whole numbers in [0, limit)
    n: int,  # how many are wanted
    limit: int | None = None,  # first number that is too large; None where there is no upper end
) -> None:
    "Raise a ValueError that says what is wrong with a vector of timesteps or labels."
    if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype == torch.bool:
        got = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise ValueError(f"{name} is {got}, but must be a tensor of whole numbers (torch.long).")
    if index.shape != (n,):
        raise ValueError(f"{name} has shape {tuple(index.shape)}, but must be ({n},): one per image.")
    # Looking at values would stall a GPU's queue and break a compiled graph: only on the CPU.
    if index.device.type != "cpu" or torch.compiler.is_compiling() or n == 0:
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or (limit is not None and high >= limit):
        wanted = f"in [0, {limit - 1}]" if limit is not None else "0 or more"
        raise ValueError(f"{name} holds {low if low < 0 else high}, but must be {wanted}.")


def check_choice(name: str, value: str, known) -> None:
    "Raise a ValueError that lists what is known."
    if value not in known:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(known)}.")


def check_eval(model) -> None:
    "Raise a ValueError where a model would hide labels at random."
    if getattr(model, "training", False):
        raise ValueError(
            "model is in train() mode, in which it hides labels at random: call model.eval() first."
        )


def show_bar(progress: bool) -> bool:
    "Whether a progress bar can be seen: in a terminal or a notebook, not in a log file."
    return progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)


@lru_cache
def cpu_has_bf16() -> bool:
    "Whether the processor multiplies bfloat16 numbers itself, rather than by way of float32."
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@contextmanager
def whole_file(
    path: str | Path,  # where a file is to be
) -> Iterator[Path]:  # where to write it
    "A file appears under its name when all of it is written, or not at all."
    path = Path(path)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def as_is(batch):
    "For a DataLoader whose data set makes whole batches: nothing is left to collate."
    return batch


def seeded(
    *key: int,  # for instance seed and step; 0 or more
) -> torch.Generator:
    "A generator on the CPU that depends on the key alone, so that nothing about it needs to be saved."
    state = np.random.SeedSequence(key).generate_state(1, np.uint32)[0]
    return torch.Generator().manual_seed(int(state))


def randn(
    shape: tuple[int, ...],  # (N, ...)
    generator: torch.Generator | list[torch.Generator] | None = None,  # one for all, or one for each image
    device: torch.device | str | None = None,  # where the numbers are wanted
) -> Tensor:
    "Standard normal noise, drawn where the generator lives (on a CPU: the same for all devices), then sent."
    if not isinstance(generator, list):
        source = generator.device if generator is not None else device
        return torch.randn(shape, generator=generator, device=source).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"generator has {len(generator)} generators, but shape asks for {shape[0]} images.")
    noise = torch.empty(shape, device=generator[0].device if generator else device)
    for image, own in zip(noise, generator):
        image.normal_(generator=own)
    return noise.to(device)


def make_folder(path: str | Path) -> Path:
    "Make a folder that can be written to, or raise a ValueError that says why not."
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"out folder {path} cannot be written: {error.strerror}.") from None
    return path
