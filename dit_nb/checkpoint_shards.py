"""Shards of a checkpoint, which torch.distributed.checkpoint wrote: read without running code that they may hold."""

import io
import operator
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata

from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import UserError, _damaged_checkpoint

__all__ = []

_METADATA = ".metadata"  # torch's name
_CLASSES = ("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata")
_CLASSES += ("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING")
_ALLOWED: dict[tuple[str, str], Any] = {  # module and name in the pickle -> what it stands for
    **{(Metadata.__module__, name): getattr(dcp.metadata, name) for name in _CLASSES},
    (_StorageInfo.__module__, "_StorageInfo"): _StorageInfo,
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("builtins", "getattr"): operator.getitem,  # a member of the enumeration, as Python 3.11.0 writes it
    **{(module, "PosixPath"): PurePosixPath for module in ("pathlib", "pathlib._local")},
    **{(module, "WindowsPath"): PurePosixPath for module in ("pathlib", "pathlib._local")},
}


class _MetadataUnpickler(pickle.Unpickler):
    "Reads what torch writes about shards. Anything else that a pickle could call is refused."

    def find_class(self, module: str, name: str):
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        raise _Refused(f"{module}.{name}")


class _Refused(Exception):
    "A pickle would call what is not allowed; the message is its name."


class _Reader(dcp.FileSystemReader):
    "Reads shards whose metadata has been read already: torch itself would unpickle it, and run any code in it."

    def __init__(self, folder: Path, metadata: Metadata):
        super().__init__(folder)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


class _Planner(dcp.DefaultLoadPlanner):
    "Reads plain values, such as a learning rate, without running any code in them, which torch itself would do."

    def load_bytes(self, read_item, value: io.BytesIO) -> None:
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True, map_location="cpu"), plain)
        plain.seek(0)
        super().load_bytes(read_item, plain)


def _read_metadata(folder: Path) -> Metadata:
    "Read what torch wrote about the shards in a folder. Raises many kinds of errors if it is damaged."
    with open(folder / _METADATA, "rb") as file:
        metadata = _MetadataUnpickler(file).load()
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise ValueError("it is no metadata")
    for info in metadata.storage_data.values():
        if Path(info.relative_path).name != info.relative_path:
            raise ValueError("a shard lies in another folder")
    return metadata


def _load_shards(state: dict, folder: Path) -> None:
    """Fill a state with what all processes of a run have written, for any number of processes now.

    Raises:
        UserError: if a file is damaged, or would run code when it is read
    """
    with _raise_on_all_ranks(), _explained(folder.parent):
        reader = _Reader(folder, _read_metadata(folder))
    with _raise_on_all_ranks(), _explained(folder.parent):
        alone = not torch.distributed.is_initialized()
        dcp.load(state, storage_reader=reader, planner=_Planner(), no_dist=alone)


@contextmanager
def _explained(checkpoint: Path) -> Iterator[None]:
    "Turn what damaged and manipulated files raise into a sentence."
    try:
        yield
    except _Refused as error:
        raise UserError(
            f"Checkpoint {checkpoint} would call {error} when it is read: refused, nothing was run."
        ) from None
    except (Exception, dcp.api.CheckpointException) as error:  # the latter is a BaseException
        raise _damaged_checkpoint(checkpoint, error) from error
