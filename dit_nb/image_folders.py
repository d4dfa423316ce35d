"""Images in a folder: the files below it, the split to use, and the class of each image by folder or by table."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dit_nb.errors import UserError
from dit_nb.image_splits import _may_be_classes, _names_of_split, _split_level

__all__ = []

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
_SYSTEM = {"__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir"}
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
    unused: list[_File] = field(default_factory=list)  # images of other splits
    split: str | None = None  # the split that was used, by folder or by table
    folders: list[tuple[str, ...]] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)  # number of files that are no images, by suffix
    notes: list[str] = field(default_factory=list)


# Files


def _walk(root: Path) -> _Found:
    """Find all files below a folder, through links, in the order of their names.

    Hidden files and folders (`.name`) and those of systems (`__MACOSX`) are passed over. Folders are read in threads: file servers are slow.
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
                found.folders += [names for names, _ in folders]
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
        entries = [e for e in os.scandir(path) if not (e.name.startswith(".") or e.name in _SYSTEM)]
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


def _check_links(root: Path, found: _Found) -> None:
    """Raise a UserError if a link that leads nowhere seems to be one to a folder: no image lies beside it.

    Others are named by the check of all images, like files that cannot be read.
    """
    places, suffixes = {image.folder for image in found.images if image.size >= 0}, _image_suffixes()
    for image in found.images:
        is_image = image.size >= 0 or os.path.splitext(image.name)[1].lower() in suffixes
        if not is_image and image.folder not in places:
            raise UserError(f"link {image.path} in data folder {root} leads nowhere: fix or remove it.")


def _note_empty(found: _Found) -> None:
    "Note the folders without images or tables, but for those inside others and those of other splits."
    full = _with_parents(file.folder for file in (*found.images, *found.tables))
    known = full | _with_parents(file.folder for file in found.unused)
    empty = ["/".join(folder) for folder in found.folders if folder not in known and folder[:-1] in full]
    if empty:
        which = f"folder {empty[0]}, which holds" if len(empty) == 1 else f"{len(empty):,} folders that hold"
        found.notes.append(f"{which} no images" + (f", such as {empty[0]}" if len(empty) > 1 else ""))


def _with_parents(folders: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {folder[:n] for folder in set(folders) for n in range(len(folder) + 1)}


# Splits


def _select_split(
    root: Path, found: _Found, split: str | None, class_folder: str | None, captions: bool = False
) -> int | None:
    """Keep the images of one split, if some level of folders is named after splits; return that level.

    Folders that look like splits beside others are refused, unless `split` or `class_folder` tells what they are.
    """
    level = _split_level({image.folder for image in found.images}, split, class_folder)
    if level is None:
        return None
    counts = Counter(image.folder[level] for image in found.images if len(image.folder) > level)
    names = _choose_folders(root, found, level, sorted(counts), split, captions)
    beside = len(found.images) - counts.total()
    if beside and split is None:
        first = min(found.images, key=lambda image: len(image.folder)).path
        raise UserError(
            f"data folder {root} holds images beside its folders of splits, such as {first} beside {names[0]}: "
            "choose a folder with split."
        )
    _keep_folders(found, level, names)
    found.notes += [f"{counts[name]:,} images in {name}" for name in sorted(counts) if name not in names]
    found.notes += [f"{beside:,} images beside the folders of splits"] if beside else []
    found.split = names[0]
    return level


def _keep_folders(found: _Found, level: int, names: list[str]) -> None:
    "Keep the images and the tables in the folders of these names; tables above them are kept, too."
    wanted = {(name,) for name in names}
    found.unused += [file for file in found.images if file.folder[level : level + 1] not in wanted]
    found.images = [file for file in found.images if file.folder[level : level + 1] in wanted]
    found.tables = [file for file in found.tables if file.folder[level : level + 1] in {(), *wanted}]


def _choose_folders(
    root: Path, found: _Found, level: int, names: list[str], split: str | None, captions: bool
) -> list[str]:
    "The folders to use of those at a level, some of which look like splits."
    hint = ", or rename what is no split" if captions else ""
    if _may_be_classes(names) and not captions:
        rule = "first" if len({image.folder[:level] for image in found.images}) == 1 else "path"
        hint = f", or set class_folder to {rule} if they are classes"
    return _names_of_split(f"data folder {root}", names, split, hint=hint)


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
