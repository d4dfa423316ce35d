"""Images in a folder: the files below it, the split to use, and the class of each image by folder or by table."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dit_nb.errors import UserError

__all__ = []

_SPLITS = {"train": "train", "training": "train", "trn": "train"}
_SPLITS |= {"test": "test", "testing": "test", "tst": "test", "holdout": "test", "heldout": "test"}
_SPLITS |= dict.fromkeys(
    ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "validation"
)
_SPLITS |= dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled")
_FILLERS = {"set", "images", "image", "imgs", "img", "data", "dataset", "split"}  # of train_set, val_images
_CAMERAS = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
_NO_IMAGES = {
    ".pdf",
    ".ps",
    ".eps",
    ".mpg",
    ".mpeg",
    ".h5",
    ".hdf",
    ".fits",
    ".grib",
    ".bufr",
    ".wmf",
    ".emf",
}
_TABLES = {".csv", ".tsv", ".jsonl", ".parquet"}
_CLASS_FOLDERS = ("first", "last", "path")


class _File(NamedTuple):
    "A file below the folder."

    folder: tuple[str, ...]  # names of the folders on the way to it
    name: str
    size: int  # bytes; -1 for a link that leads nowhere
    mtime: int  # nanoseconds

    @property
    def path(self) -> str:
        return "/".join((*self.folder, self.name))


@dataclass
class _Found:
    "What lies below a folder, and what was left out of it."

    images: list[_File] = field(default_factory=list)
    tables: list[_File] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)  # number of files that are no images, by suffix
    notes: list[str] = field(default_factory=list)


# Files


def _walk(root: Path) -> _Found:
    """Find all files below a folder, through links, in the order of their names.

    Hidden files and folders (`.name`, `__name`) are passed over. Folders are read in threads: file servers are slow.
    """
    found, suffixes = _Found(), _image_suffixes()
    level = [
        ((), (os.path.realpath(root),))
    ]  # folders by name, and the real paths on the way: a link may lead back
    with ThreadPoolExecutor(16) as pool:
        while level:
            rows = pool.map(lambda item: _scan(root.joinpath(*item[0]), item[0], suffixes), level)
            below = []
            for (_, reals), (part, folders) in zip(level, rows):
                _merge(found, part)
                below += _enter(found, reals, folders)
            level = below
    found.images.sort()
    found.tables.sort()
    return found


def _image_suffixes() -> set[str]:
    "Suffixes that Pillow reads, and those of cameras: the check names such a file if Pillow lacks a plugin for it."
    from PIL import Image

    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return (known - _NO_IMAGES) | _CAMERAS


def _scan(path: Path, folder: tuple[str, ...], suffixes: set[str]) -> tuple[_Found, list[tuple]]:
    "Files in one folder, and its subfolders: (names, real path if it is a link, else None)."
    found, folders = _Found(), []
    try:
        entries = [e for e in os.scandir(path) if not e.name.startswith((".", "__"))]
    except OSError as error:
        raise UserError(f"data folder {path} cannot be read: {error.strerror}.") from None
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            real = os.path.realpath(entry.path) if entry.is_symlink() else None
            folders.append(((*folder, entry.name), real))
        elif suffix in suffixes or suffix in _TABLES:
            where = found.images if suffix in suffixes else found.tables
            where.append(_File(folder, entry.name, *_size_and_time(entry)))
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.images.append(_File(folder, entry.name, -1, 0))  # a class, perhaps: the check names it
        else:
            found.others[suffix or entry.name] += 1
    return found, sorted(folders)


def _size_and_time(entry: os.DirEntry) -> tuple[int, int]:
    try:
        status = entry.stat()
        return status.st_size, status.st_mtime_ns
    except OSError:  # a link that leads nowhere
        return -1, 0


def _merge(found: _Found, part: _Found) -> None:
    found.images += part.images
    found.tables += part.tables
    found.others += part.others


def _enter(found: _Found, reals: tuple[str, ...], folders: Iterable[tuple]) -> list[tuple]:
    "The subfolders to read next, without links that lead back to where they lie."
    below = []
    for names, link in folders:
        real = link or os.path.join(reals[-1], names[-1])
        if real in reals:
            found.notes.append(f"link {'/'.join(names)}, which leads back to a folder above it")
        else:
            below.append((names, (*reals, real)))
    return below


# Splits


def _split_of(name: str) -> str | None:
    "The split that a folder's name means, in any spelling: Train, training, val2017, test_images; or None."
    words = [word for word in re.findall("[a-z]+", name.lower().replace("held-out", "heldout"))]
    words = [word for word in words if word not in _FILLERS]
    return _SPLITS.get(words[0]) if len(words) == 1 else None


def _select_split(root: Path, found: _Found, split: str | None) -> tuple[str | None, int | None]:
    "Keep the images of one split, if some level of folders is named after splits; return its name and that level."
    level = _split_level(root, {image.folder for image in found.images})
    if level is None:
        if split is not None:
            raise UserError(f"split is {split}, but data folder {root} has no folders of splits.")
        return None, None
    counts = Counter(image.folder[level] for image in found.images)
    names = _names_of_split(root, sorted(counts), split)
    found.images = [image for image in found.images if image.folder[level] in names]
    found.tables = [file for file in found.tables if len(file.folder) <= level or file.folder[level] in names]
    found.notes += [f"{counts[name]:,} images in {name}" for name in sorted(counts) if name not in names]
    return names[0], level


def _split_level(root: Path, folders: set[tuple[str, ...]]) -> int | None:
    "The level of folders that are named after splits; None if there is none. It raises if only some are."
    for level in range(min(map(len, folders))):
        names = sorted({folder[level] for folder in folders})
        splits = {_split_of(name) for name in names} - {None}
        if splits and all(map(_split_of, names)):
            return level
        if len(splits) > 1:
            like = [name for name in names if _split_of(name)]
            other = next(name for name in names if not _split_of(name))
            raise UserError(
                f"data folder {root} has the folders {' and '.join(like[:2])}, which look like splits, beside "
                f"{other}, which does not: name the folder to use itself, or move {other} away."
            )
    return None


def _names_of_split(root: Path, names: list[str], split: str | None) -> list[str]:
    "The folders to use: those of the split that is asked for, of train, or the only one."
    exact = [name for name in names if name == split]
    wanted = split and (_split_of(split) or split)
    chosen = exact or [name for name in names if _split_of(name) == (wanted or "train")]
    if not chosen and split is None and len({_split_of(name) for name in names}) == 1:
        chosen = names
    if not chosen:
        asked = "no split train" if split is None else f"no split {split}"
        raise UserError(f"data folder {root} has {asked}: choose one with split, of {', '.join(names)}.")
    if len(chosen) > 1 and len({name.lower() for name in chosen}) > 1:
        raise UserError(
            f"data folder {root} has the folders {' and '.join(chosen)} for one split: choose one with split."
        )
    return chosen


# Classes by folder


def _classes_by_folder(
    root: Path, images: list[_File], folders: list[tuple[str, ...]], rule: str | None
) -> list[str] | None:
    "Class of each image, by its folder without that of the split; None if all lie in the same one, without classes."
    depths = {len(folder) for folder in folders}
    while min(depths) > 1 and len({folder[0] for folder in folders}) == 1:  # one folder around all others
        folders = [folder[1:] for folder in folders]
        depths = {depth - 1 for depth in depths}
    if depths == {0}:
        return None
    if 0 in depths:
        beside, inside = (by(images, key=lambda image: len(image.folder)).path for by in (min, max))
        raise UserError(
            f"data folder {root} holds images at different depths, such as {beside} and {inside}, but must have one "
            "subfolder for each class, or none."
        )
    if depths == {1}:
        return [folder[0] for folder in folders]
    if rule is None:
        deepest = max(folders, key=len)
        example = "/".join(deepest)
        raise UserError(
            f"data folder {root} has folders in folders, such as {example}: choose with class_folder whether the "
            f"class is the first ({deepest[0]}), the last ({deepest[-1]}) or the path ({example})."
        )
    pick = {"first": lambda f: f[0], "last": lambda f: f[-1], "path": "/".join}[rule]
    return [pick(folder) for folder in folders]
