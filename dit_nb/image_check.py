"""Reading every image once before training: by several threads and processes, and only what is new or has changed."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from dit_nb.errors import UserError
from dit_nb.image_reading import _open_large, read_image
from dit_nb.utils import _atomic_write, _progress_bar

__all__ = []

_CHUNK = 64  # images that are read between two looks at the clock


class _Ranks(NamedTuple):
    "The processes that read together: each a share, and none waits longer than `round_seconds` for another."

    rank: int = 0
    world_size: int = 1
    gather: Callable[[object], list] = lambda value: [value]  # the values of all processes
    on_all_ranks: Callable = nullcontext  # context manager that raises an error of one process in all
    round_seconds: float = 30.0


# One image


def _read_cell(cell: dict, i: int | str, size: int | tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Read image i of a data set, which is its number or its name.

    Raises a UserError that names its file, or the image if it lies in a larger file.
    """
    try:
        return read_image(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]), size, mode)
    except Exception as error:  # Pillow raises many kinds
        number = i if isinstance(i, str) else f"{i} of the data set"
        name = cell["path"] if cell["bytes"] is None else number
        raise UserError(f"image {name} cannot be read: {_why_unreadable(error, name)}.") from None


def _why_unreadable(error: Exception, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "the link leads nowhere" if os.path.islink(name) else "there is no such file"
    if isinstance(error, UnidentifiedImageError):  # its text names the object in memory
        return "it is no image, or one of a format that Pillow does not know"
    return " ".join(str(error).split()).strip(".") or type(error).__name__


def _read_error(cell: dict, i: int, size: int | tuple[int, int]) -> str:
    "Message of the error that reading an image raises, or an empty string."
    try:
        _read_cell(cell, i, size)
        return ""
    except ValueError as error:
        return str(error)


def _has_frames(cell: dict) -> bool:
    "Whether an image that can be read has more than one frame, of which only the first is used."
    if os.path.splitext(cell["path"] or "")[1].lower() in (".jpg", ".jpeg", ".bmp"):
        return False
    try:
        with _open_large(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"])) as file:
            return file.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(file, "is_animated", False)
    except Exception:  # the second frame is broken, or the file has just gone
        return False


# All images


def _find_unreadable(source, size: int | tuple[int, int], ranks: _Ranks) -> tuple[dict[int, str], list[int]]:
    """Read every image once, as training will, but those that were readable before.

    Returns errors by index, and the indices of images with several frames.

    Pillow's quick `verify` misses cut-off JPEG files. All processes must call this, and get the same result.

    Args:
        source: sequence of cells, with `keys()`: what identifies each image's content, (N,) uint64; `name()`:
            what identifies the whole on all machines; and `place`
        size: side, or height and width, to read the images for
        ranks: the processes that share the work
    """
    keys, caches = source.keys(), [_cache_file(source.place, kind) for kind in ("checked", "frames")]
    known, with_frames = map(_load_known, caches)
    mine = np.flatnonzero(~np.isin(keys, known)) if ranks.rank == 0 else None
    frames = set(np.flatnonzero(np.isin(keys, with_frames)).tolist())
    names, (todo, *_), (frames, *_) = zip(*ranks.gather((source.name(), mine, frames)))
    if len(set(names)) > 1:
        raise UserError(
            f"data {source.place} is not the same for all processes, but must be: compare its copies."
        )
    errors: dict[int, str] = {}
    good = np.isin(np.arange(len(keys)), todo, invert=True)
    for done, found, moving in _read_in_rounds(source, todo, size, ranks):
        errors |= found
        frames |= moving
        good[done] = True
        good[list(errors)] = False
        if ranks.rank == 0 and len(done):  # another split's are kept
            if moving:
                _save_known(caches[1], np.union1d(with_frames, keys[sorted(frames)]))
            _save_known(caches[0], np.union1d(known, keys[good]))
    return errors, sorted(frames - set(errors))


def _read_in_rounds(source, todo: np.ndarray, size, ranks: _Ranks):
    """Read this process's share; after each round yield what all processes have read in it.

    These are indices, errors by index, and the indices of images with several frames.
    """
    shares = [todo[rank :: ranks.world_size] for rank in range(ranks.world_size)]
    mine, counts = shares[ranks.rank], [0] * ranks.world_size
    threads = min(16, os.cpu_count() or 1)  # Pillow decodes without the interpreter lock
    bar = _progress_bar(
        desc="reading every image once", shown=ranks.rank == 0 and len(todo) > 0, total=len(todo)
    )
    with ThreadPoolExecutor(threads) as pool, bar:
        while any(count < len(share) for count, share in zip(counts, shares)):
            start, end = counts[ranks.rank], time.monotonic() + ranks.round_seconds
            errors: dict[int, str] = {}
            frames: set[int] = set()
            position = start
            while position < len(mine) and (position == start or time.monotonic() < end):
                chunk = mine[position : position + _CHUNK].tolist()
                texts = pool.map(_read_error, (source[i] for i in chunk), chunk, [size] * len(chunk))
                errors |= {i: text for i, text in zip(chunk, texts) if text}
                good = [i for i in chunk if i not in errors]
                moving = pool.map(_has_frames, (source[i] for i in good))
                frames |= {i for i, several in zip(good, moving) if several}
                position += len(chunk)
            results = ranks.gather((position, errors, frames))
            done = np.concatenate([share[a:b] for share, a, (b, *_) in zip(shares, counts, results)])
            counts = [count for count, *_ in results]
            bar.update(len(done))
            errors = {i: text for _, found, _ in results for i, text in found.items()}
            yield done, errors, set().union(*(moving for *_, moving in results))


def _drop_unreadable(errors: dict[int, str], n: int, skip_bad: bool) -> list[int]:
    "Indices of the images to keep; a UserError if there are errors and `skip_bad` is not set."
    texts = [errors[i] for i in sorted(errors)]
    if texts and not skip_bad:
        which = f"all {len(texts)} such files" if len(texts) > 1 else "it"
        raise UserError(f"{texts[0]} Fix or remove {which}, or leave out with skip_bad.")
    if len(texts) == n:
        raise UserError(f"none of {n} images can be read; the first error: {texts[0]}")
    return [i for i in range(n) if i not in errors]


# What was readable before


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "dit_nb"


def _cache_file(place: str, kind: str) -> Path:
    return _cache_folder() / f"{kind}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.npy"


def _load_known(file: Path) -> np.ndarray:
    "Keys of images that were readable; none if there is no file, or a damaged one."
    try:
        known = np.load(file, allow_pickle=False)
        return known if known.dtype == np.uint64 and known.ndim == 1 else np.empty(0, np.uint64)
    except Exception:  # numpy and zipfile raise many kinds
        return np.empty(0, np.uint64)


def _save_known(file: Path, keys: np.ndarray) -> None:
    "Keep the keys, if the disk allows: otherwise every image is read again next time."
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _atomic_write(file) as draft:
            np.save(draft, keys)
    except OSError:
        pass


def _hash(*parts: str | int) -> int:
    "64 bits that identify texts and numbers."
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _combined(keys: Sequence[int] | np.ndarray) -> str:
    "A fingerprint of many keys, in order."
    return hashlib.sha256(np.asarray(keys, np.uint64).tobytes()).hexdigest()[:16]
