"""Fifty thousand images, five numbers, and for each number how much of it is chance."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_nb.data import digits, to_uint8
from dit_nb.image_files import open_images
from dit_nb.utils import whole_file


@dataclass
class Images:
    "Images that are read in batches, and what a file says of them besides."

    name: str  # for messages
    n: int = 0  # none where a file holds statistics only
    shape: tuple[int, ...] = ()  # (C, H, W)
    batches: Callable[[int], Iterator[Tensor]] = lambda size: iter(())  # of (B, C, H, W) in [-1, 1]
    statistics: dict[str, np.ndarray] = field(default_factory=dict)  # mu, sigma, mu_s, sigma_s


STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")


def npz_array(
    path: Path,
    name: str,  # of an array in the file
    size: int | None = None,  # rows in a batch; None: the header only
) -> Iterator:  # shape and type, then batches of rows
    "Read an array of a .npz file in batches."
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[np.lib.format.read_magic(file)[0]](file)
            yield shape, dtype, fortran
            row = int(np.prod(shape[1:])) * dtype.itemsize
            for start in range(0, shape[0] if size else 0, size or 1):
                count = min(size, shape[0] - start)
                yield np.frombuffer(file.read(count * row), dtype).reshape(count, *shape[1:])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}.") from None


def read_npz(
    path: Path,
) -> Images:
    "ADM's form (arr_0), ours (images), or ADM's statistics (mu, sigma, mu_s, sigma_s)."
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in STATISTICS if key in file.files}
            key = next((key for key in ("arr_0", "images") if key in file.files), None)
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}.") from None
    if key is None:
        if "mu" in found:
            return Images(str(path), statistics=found)
        raise ValueError(f"{path} holds neither arr_0 nor images, nor the statistics mu and sigma.")
    return npz_images(path, key, *next(npz_array(path, key)), found)


def npz_images(
    path: Path, key: str, shape: tuple, dtype: np.dtype, fortran: bool, statistics: dict
) -> Images:
    "The images of a .npz file, where they have the form that their name promises."
    last = key == "arr_0"  # channels last
    size = (shape[-1], *shape[1:-1]) if last else shape[1:]
    wanted = "bytes (N, H, W, 3)" if last else "floats (N, C, H, W)"
    if (
        len(size) != 3
        or size[0] not in (1, 3)
        or fortran
        or (dtype != np.uint8 if last else dtype.kind != "f")
    ):
        raise ValueError(f"{path} has {key} of {dtype} {shape}, but must have {wanted}.")

    def batches(count: int) -> Iterator[Tensor]:
        rows = npz_array(path, key, count)
        next(rows)
        for batch in rows:
            x = torch.from_numpy(batch.astype(np.float32))
            yield x.permute(0, 3, 1, 2) / 127.5 - 1 if last else x

    return Images(str(path), shape[0], tuple(size), batches, statistics)


def read_images(
    source,  # a folder, hub:NAME, a .npz file, the word digits (held-out ones), images (N, C, H, W), or a data set
    size: int | None = None,  # side that pictures of a folder are cropped to; by default that of the first
    channels: int | None = None,  # of pictures in a folder; by default those of the first
) -> Images:
    "Open images to be judged."
    if isinstance(source, Tensor):
        return Images("images", len(source), tuple(source.shape[1:]), lambda b: iter(source.split(b)))
    if hasattr(source, "__getitems__"):
        return set_images(source, type(source).__name__)
    if source == "digits":
        return set_images(digits().held_out, "held-out digits")
    if str(source).startswith("hub:"):
        return set_images(open_images(source, size, channels or 3), str(source))
    path = Path(source)
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path)
    if not path.is_dir():
        raise ValueError(f"{source} is no folder, no .npz file, and not the word digits.")
    own_size, own_channels = first_picture(path)
    return set_images(open_images(str(path), size or own_size, channels or own_channels), str(path))


def set_images(data, name: str) -> Images:
    "The images of a data set."

    def batches(size: int) -> Iterator[Tensor]:
        for start in range(0, len(data), size):
            yield data.__getitems__(list(range(start, min(start + size, len(data)))))[0]

    return Images(name, len(data), tuple(data[0][0].shape), batches)


def first_picture(
    folder: Path,
) -> tuple[int, int]:  # shorter side in pixels, and channels
    "What the first picture in a folder looks like."
    from PIL import Image, UnidentifiedImageError

    for path in sorted(folder.rglob("*")):
        try:
            with Image.open(path) as picture:
                return min(picture.size), 1 if picture.mode in ("1", "L", "I;16") else 3
        except (OSError, UnidentifiedImageError):
            continue
    raise ValueError(f"folder {folder} holds no images.")


def save_npz(
    path: str | Path,
    batches: Iterable,  # of (B, H, W, C) uint8 arrays, or (B, C, H, W) tensors in [-1, 1]
    labels=None,  # (N,) whole numbers, one for each image
    n: int | None = None,  # how many images, where there are no labels
) -> None:
    "Write the file that ADM's evaluator reads: arr_0 images, arr_1 labels. Batches are not kept."
    if labels is None and n is None:
        raise ValueError("n is missing: without labels it must be said how many images there will be.")
    n = len(labels) if labels is not None else n
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            write_rows(file, batches, n)
        if labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(labels, dtype=np.int64))


def write_rows(file, batches: Iterable, n: int) -> None:
    "A .npy array of n rows, from batches."
    done, shape = 0, None
    for batch in batches:
        if isinstance(batch, Tensor):
            batch = to_uint8(batch).permute(0, 2, 3, 1).cpu().numpy()
        if batch.dtype != np.uint8 or batch.ndim != 4:
            raise ValueError(f"batches has {batch.dtype} {batch.shape}, but must have uint8 (B, H, W, C).")
        if shape is None:
            shape = batch.shape[1:]
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        if batch.shape[1:] != shape:
            raise ValueError(
                f"batches has images of {batch.shape[1:]} and of {shape}, but all must be alike."
            )
        done += len(batch)
        file.write(np.ascontiguousarray(batch).data)
    if done != n:
        raise ValueError(f"batches had {done} images, but {n} were promised.")
