"""Images to evaluate, from .npz files, folders, data sets or tensors, read in batches; and the .npz files of ADM."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.batches import BatchReader
from dit_nb.data import _to_uint8, digits, emoji
from dit_nb.errors import UserError, _check_number, _check_path, _shown
from dit_nb.image_check import _Ranks
from dit_nb.image_files import open_images
from dit_nb.image_range import _check_range
from dit_nb.image_streams import open_stream
from dit_nb.utils import _atomic_write, _check_image_batch

__all__ = ["save_npz"]


@dataclass
class _ImageSource:
    "Images that are read in batches, and the statistics that a file holds beside them."

    name: str  # path or kind, for messages
    n: int = 0  # number of images; 0 if a file holds statistics only
    shape: tuple[int, ...] = ()  # (C, H, W)
    # Batch size, rank and number of processes, which take batches in turn -> (B, C, H, W) in [-1, 1]
    batches: Callable[..., Iterator[Tensor]] = lambda size, rank=0, world_size=1: iter(())
    statistics: dict[str, np.ndarray] = field(default_factory=dict)  # mu, sigma (FID), mu_s, sigma_s (sFID)
    data: object = None  # the data set that is read, if there is one
    argument: str = "images"  # the argument that holds them, for messages


_STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")


# What numpy and zipfile raise for damaged files
_DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, SyntaxError, OverflowError)
_DAMAGED += (MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__


# Reading


def _open_image_source(
    source, size: int | tuple[int, int] | None = None, channels: int | None = None, name="images", **options
) -> _ImageSource:
    """Open images to evaluate, or to compare with; `name` is for messages, options are those of `open_images`.

    Several processes, `ranks`, share the reading of a folder; all of them must call this.
    """
    if isinstance(source, _ImageSource):
        return source
    if isinstance(source, np.ndarray) and source.dtype.kind in "fiu":
        source = torch.from_numpy(source)
    if isinstance(source, Tensor):
        _check_range(source, name)
        return _from_tensor(source)
    if hasattr(source, "__getitem__") and not isinstance(source, str | bytes | np.generic):
        _check_data_set(source, name)
        return _from_data_set(source, type(source).__name__)
    _check_path(name, source)
    if source == "digits":
        return _from_data_set(digits().held_out, "held-out digits")
    if source == "emoji":
        return _from_data_set(emoji().held_out, "held-out emoji")
    if str(source).startswith("hub:"):
        return _from_data_set(open_images(source, size, channels or 3, **options), str(source))
    if str(source).startswith("stream:"):
        if size is None:
            raise UserError(f"size is missing, but {source} needs one: the side of its square crop.")
        stream = open_stream(str(source).removeprefix("stream:"), size, channels or 3, **options)
        return _from_data_set(stream, str(source))
    path = Path(source)
    if path.suffix == ".npz" and path.is_file():
        return _read_npz(path)
    ranks = options.get("ranks", _Ranks())
    with ranks.on_all_ranks():
        if not path.is_dir():
            raise UserError(f"{name}: {source} is no folder, no .npz file, and not the word digits or emoji.")
        first = _first_image(path) if ranks.rank == 0 else None
    own_size, own_channels = ranks.gather(first)[0]
    data = open_images(str(path), size or own_size, channels or own_channels, **options)
    return _from_data_set(data, str(path))


def _check_data_set(data, name: str) -> None:
    "Raise a UserError unless the first item of a data set has an image (C, H, W)."
    try:
        fits = len(data) > 0 and data[0][0].ndim == 3
    except (TypeError, LookupError, AttributeError):
        fits = False
    if not fits:
        raise UserError(
            f"{name} is {_shown(data)}, but must be images (N, C, H, W), a folder, a .npz file, or a data set that "
            "gives an image (C, H, W) and a label."
        )


def _from_tensor(images: Tensor) -> _ImageSource:
    def batches(size: int, rank: int = 0, world_size: int = 1) -> Iterator[Tensor]:
        return iter(images.split(size)[rank::world_size])

    return _ImageSource("images", len(images), tuple(images.shape[1:]), batches)


def _from_data_set(data, name: str) -> _ImageSource:
    def batches(size: int, rank: int = 0, world_size: int = 1) -> Iterator[Tensor]:
        for start in range(rank * size, len(data), world_size * size):
            yield BatchReader(data)(list(range(start, min(start + size, len(data)))))[0]

    return _ImageSource(name, len(data), tuple(data[0][0].shape), batches, data=data)


def _first_image(folder: Path, looked_at: int = 8) -> tuple[int | tuple[int, int], int]:
    "Size and channels of the first images in a folder: their height and width, or the shorter side if they differ."
    from PIL import Image

    sizes, channels = [], 3
    for path in sorted(folder.rglob("*")):
        try:
            with Image.open(path) as image:
                channels = channels if sizes else 1 if image.mode in ("1", "L", "I;16") else 3
                sizes.append((image.height, image.width))
        except Exception:  # Pillow raises many kinds
            continue
        if len(sizes) == looked_at:
            break
    if not sizes:
        raise UserError(f"folder {folder} holds no images.")
    return sizes[0] if len(set(sizes)) == 1 else min(sizes[0]), channels


def _read_npz(path: Path) -> _ImageSource:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in _STATISTICS if key in file.files}
            key = next((key for key in ("arr_0", "images") if key in file.files), None)
    except _DAMAGED as error:
        raise UserError(f"{path} cannot be read as .npz: {_reason(error)}.") from None
    if key is None:
        if "mu" in found:
            return _ImageSource(str(path), statistics=found)
        raise UserError(f"{path} holds neither arr_0 nor images, nor the statistics mu and sigma.")
    return _npz_images(path, key, *next(_npz_array(path, key)), found)


def _npz_array(path: Path, name: str, size: int | None = None) -> Iterator:
    "Yield shape, type and order of an array in a .npz file, then batches of `size` rows. Nothing else is kept."
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[np.lib.format.read_magic(file)[0]](file)
            yield shape, dtype, fortran
            row = int(np.prod(shape[1:])) * dtype.itemsize
            for start in range(0, shape[0] if size else 0, size or 1):
                count = min(size, shape[0] - start)
                yield np.frombuffer(file.read(count * row), dtype).reshape(count, *shape[1:])
    except _DAMAGED as error:
        raise UserError(f"{path} cannot be read as .npz: {_reason(error)}.") from None


def _npz_images(
    path: Path, key: str, shape: tuple, dtype: np.dtype, fortran: bool, statistics: dict
) -> _ImageSource:
    "Images of a .npz file. Floats in `arr_0` are most likely in the wrong range: they are refused."
    last = key == "arr_0"  # channels last
    size = (shape[-1], *shape[1:-1]) if last else shape[1:]
    right_type = dtype == np.uint8 if last else dtype.kind == "f"
    if len(size) != 3 or size[0] not in (1, 3) or fortran or not right_type:
        wanted = "uint8 (N, H, W, 3)" if last else "floats (N, C, H, W)"
        raise UserError(f"{path} has {key} of {dtype} {shape}, but must have {wanted}.")

    def batches(count: int, rank: int = 0, world_size: int = 1) -> Iterator[Tensor]:
        rows = _npz_array(path, key, count)
        next(rows)
        for batch in islice(rows, rank, None, world_size):
            x = torch.from_numpy(batch.astype(np.float32))
            yield x.permute(0, 3, 1, 2) / 127.5 - 1 if last else x

    return _ImageSource(str(path), shape[0], tuple(size), batches, statistics)


# Writing


def save_npz(path: str | Path, batches: Iterable, labels=None, n: int | None = None) -> None:
    """Write the file that ADM's evaluator reads (`arr_0` images, `arr_1` labels), atomically, batch by batch.

    Args:
        path: file to write
        batches: iterable of uint8 arrays (B, H, W, C), or of tensors (B, C, H, W) in [-1, 1]
        labels: integers (N,), one for each image; or None
        n: number of images, needed if there are no labels: it is written before the first image

    Raises:
        UserError: if the batches have another type, differ in size, or are not `n` images
    """
    if labels is None and n is None:
        raise UserError("n is missing, but without labels it must be the number of images.")
    if labels is not None:
        try:
            labels = np.asarray(labels)
        except ValueError:  # lists of different lengths
            raise UserError("labels is a nested list, but must be integers (N,).") from None
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(f"labels is {labels.dtype} {labels.shape}, but must be integers (N,).")
    n = len(labels) if labels is not None else n
    _check_number("n", n, int)
    if not isinstance(batches, Iterable) or np.ndim(batches if hasattr(batches, "ndim") else [0]) == 0:
        raise UserError(f"batches is {_shown(batches)}, but must be a list or an iterator of batches.")
    with _atomic_write(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            _write_rows(file, batches, n)
        if labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(labels, dtype=np.int64))


def _write_rows(file, batches: Iterable, n: int) -> None:
    "Write a .npy array of n rows from batches."
    done, shape = 0, None
    for batch in batches:
        if isinstance(batch, Tensor):
            _check_image_batch("batches", batch)
            batch = _to_uint8(batch).permute(0, 2, 3, 1).cpu().numpy()
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8 or batch.ndim != 4:
            got = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else _shown(batch)
            raise UserError(f"batches has {got}, but must have uint8 (B, H, W, C).")
        if shape is None:
            shape = batch.shape[1:]
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        if batch.shape[1:] != shape:
            raise UserError(
                f"batches has images of {batch.shape[1:]}, but all must be {shape}, as the first."
            )
        done += len(batch)
        file.write(np.ascontiguousarray(batch).data)
    if done != n:
        raise UserError(f"batches has {done} images, but must have n = {n}.")
