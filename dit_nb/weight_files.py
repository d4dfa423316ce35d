"""Writing tensors to files: a full disk is an OSError, and the files have the permissions of any other file."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = []


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    "Write a safetensors file. Raises OSError if the disk is full."
    with _system_errors(path):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    _finish(path)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    "Raise the OSError that is in the text of an error of safetensors."
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _save_object(value: Any, path: Path) -> None:
    "Write what `torch.save` can write. Raises OSError if the disk is full."
    try:
        with open(path, "wb") as file:
            torch.save(value, file)
    except RuntimeError as error:  # of the zip archive's writer, while an OSError of the file is handled
        if not isinstance(error.__context__, OSError):
            raise
        number = error.__context__.errno or errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
    _finish(path)


def _finish(path: Path) -> None:
    "Give a file the permissions that `open` gives (safetensors makes it private), and wait until the disk has it."
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
