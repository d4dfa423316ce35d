"""Shared helpers: input checks, seeded random numbers, progress bars and atomic writes."""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit_nb.errors import UserError, _check_path, _shown

__all__ = ["randn", "seeded_generator"]


def seeded_generator(*key: int) -> torch.Generator:
    """Make a CPU generator whose numbers depend on a key alone, so that a resumed run needs no saved state.

    Args:
        *key: integers from 0 up, for instance a seed and a step

    Raises:
        UserError: if one is no such integer
    """
    for number in key:
        if not isinstance(number, Integral) or number < 0:
            raise UserError(f"key is {_shown(number)}, but must be an integer of 0 or more.")
    state = np.random.SeedSequence(key).generate_state(1, np.uint32)[0]
    return torch.Generator().manual_seed(int(state))


def randn(
    shape: tuple[int, ...],
    generator: torch.Generator | list[torch.Generator] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Generate standard normal noise on the generator's device, then move it: a CPU generator fixes it for all.

    Args:
        shape: shape of the noise, (N, ...)
        generator: one for all images, or a list with one for each; the global random state by default
        device: device of the result; the CPU by default

    Raises:
        UserError: if the shape is not one, or an argument is of another type
    """
    integers = isinstance(shape, tuple | list) and all(isinstance(n, Integral) and n >= 0 for n in shape)
    if not integers or not shape:
        raise UserError(f"shape is {_shown(shape)}, but must be a tuple of integers of 0 or more, (N, ...).")
    try:
        torch.empty(0, device=device)
    except (
        RuntimeError,
        AssertionError,
        TypeError,
    ) as error:  # the kinds that PyTorch raises for a wrong device
        raise UserError(f"device is {_shown(device)}, but must be a device of this machine.") from error
    for one in generator if isinstance(generator, list) else [generator]:
        if not isinstance(one, torch.Generator) and (one is not None or isinstance(generator, list)):
            raise UserError(f"generator is {_shown(one)}, but must be a torch.Generator, or one per image.")
    if not isinstance(generator, list):
        source = generator.device if generator is not None else device
        return torch.randn(shape, generator=generator, device=source).to(device)
    if [len(generator)] != list(shape[:1]):
        raise UserError(f"generator has length {len(generator)}, but shape is {tuple(shape)}: one per image.")
    noise = torch.empty(shape, device=generator[0].device if generator else device)
    for image, own in zip(noise, generator):
        image.normal_(generator=own)
    return noise.to(device)


def _progress_bar(iterable: Iterable | None = None, desc: str = "", shown: bool = True, **options) -> Any:
    """Wrap an iterable in a tqdm bar that shows in a terminal or a notebook, but not in a log file."""
    if iterable is not None and not _bar_visible(shown):
        return iterable
    from tqdm.auto import tqdm

    return tqdm(iterable, desc=desc, disable=not _bar_visible(shown), **options)


def _bar_visible(shown: bool) -> bool:
    if not isinstance(shown, bool):
        raise UserError(f"progress is {_shown(shown)}, but must be True or False.")
    return shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)


@contextmanager
def _atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary file to write, and rename it to `path` only if the block succeeds."""
    _check_path("path", path)
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        wrong = "is a folder" if path.is_dir() else f"is in {path.parent}, which is no folder"
        raise UserError(f"path is {path}, but {wrong}: name a file in a folder that exists.")
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write_text(path: str | Path, text: str) -> None:
    "Write a text file in UTF-8, which is complete or as it was before."
    with _atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _append_text(path: Path, text: str, sync: bool = False) -> None:
    "Append to a text file in UTF-8; `sync` waits for the disk. If it fails, the file is as it was before."
    before = path.stat().st_size if path.exists() else None
    try:
        with open(path, "ab") as file:
            file.write(text.encode())
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True) if before is None else os.truncate(path, before)
        raise


def _read_json_object(path: Path) -> dict:
    "Read a JSON file that holds an object, or raise a UserError."
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, RecursionError, IsADirectoryError):
        raise UserError(f"{path} is not a JSON object.") from None


def _make_folder(path: str | Path) -> Path:
    "Make a folder, or raise a UserError if it cannot be written to."
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"out folder {path} cannot be written: {error.strerror}.") from None
    return path


def _identity(batch):
    "Collate function for a data set that returns complete batches."
    return batch


@lru_cache
def _cpu_has_bf16() -> bool:
    "Whether the processor multiplies bfloat16 numbers natively, without going through float32."
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _check_index(name: str, index: Tensor, n: int, limit: int | None = None, floats: bool = False) -> None:
    "Raise a UserError unless `index` is (n,) numbers in [0, limit), or from 0 up; integers unless `floats`."
    if (
        not isinstance(index, Tensor)
        or index.dtype == torch.bool
        or (index.is_floating_point() and not floats)
    ):
        got = index.dtype if isinstance(index, Tensor) else type(index).__name__
        wanted = "numbers" if floats else "integers (torch.long)"
        raise UserError(f"{name} is {got}, but must be a tensor of {wanted}.")
    if index.shape != (n,):
        raise UserError(f"{name} has shape {tuple(index.shape)}, but must be ({n},): one per image.")
    # Reading values would make the CPU wait for a GPU and break a compiled graph: only on the CPU.
    if index.device.type != "cpu" or torch.compiler.is_compiling() or n == 0:
        return
    try:
        low, high = index.min().item(), index.max().item()
    except RuntimeError:  # torch.func.vmap forbids reading values
        return
    if not 0 <= low <= high < math.inf or (limit is not None and high >= limit):
        wanted = f"in [0, {limit - 1}]" if limit is not None else "0 or more, and finite"
        raise UserError(f"{name} holds {high if low >= 0 else low}, but must be {wanted}.")


def _check_image_batch(name: str, x) -> None:
    "Raise a UserError unless x is a batch of floating point images."
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise UserError(f"{name} is {got}, but must be a floating point tensor (N, C, H, W).")


def _check_eval(model) -> None:
    if getattr(model, "training", False):
        raise UserError(
            "model is in train() mode, in which labels are dropped at random: call model.eval() first."
        )


def _check_device(device) -> None:
    "Raise a UserError unless a device is None, or one of this machine."
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError):
        raise UserError(
            f"device is {_shown(device)}, but must be one of this machine, such as 'cpu' or 'cuda'."
        ) from None


def _check_dtype(dtype) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UserError(
            f"dtype is {_shown(dtype)}, but must be a floating point type of torch, such as torch.bfloat16."
        )
