"""Image files, folders of images and data sets of the Hub as training data: reading, checking and labels."""

import glob
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dit_nb.data import ImageSet, _center_crop, _to_tensor, digits
from dit_nb.errors import UserError
from dit_nb.utils import _bar_visible

__all__ = ["ImageFolder", "open_images", "read_image"]


# One file


def read_image(source, size: int, mode: str = "RGB") -> Image.Image:
    """Read an image as it is meant to be seen: upright, on white, 8 bits per channel, sRGB. It is not cropped yet.

    A large JPEG is decoded at reduced resolution (at least `4 * size`), and the ends of a very long image are cut
    off; the center crop stays the same or nearly so. Pillow's limit of pixels is raised to 1000 million.

    Args:
        source: path of an image file, or a file that is open for reading
        size: side of the square that will be cropped from the image, in pixels
        mode: "RGB", or "L" for gray

    Raises:
        UserError: if the pixels are floating-point numbers. Pillow raises other errors if the file is broken.
    """
    with _open_large(source) as file:
        profile = file.info.get("icc_profile")
        file.draft(None, (4 * size, 4 * size))
        image = _composite_on_white(_to_8bit(_trim_ends(ImageOps.exif_transpose(file))))
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    return _to_srgb(image, profile).convert(mode)


_MAX_PIXELS = 500_000_000  # above, Pillow warns; at twice as many it fails
_OPENING = threading.Lock()  # images are opened in several threads


def _open_large(source) -> Image.Image:
    "Open an image with a higher limit of pixels, which holds for this call alone: it is checked on opening."
    with _OPENING:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = before and max(before, _MAX_PIXELS)  # None: no limit
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _trim_ends(image: Image.Image, ratio: int = 8) -> Image.Image:
    "Cut both ends off an image whose long side exceeds `ratio` short sides. Its center square stays the same."
    short, long = sorted(image.size)
    cut = max(0, long - ratio * short) // 2
    left, top = (cut if side == long else 0 for side in image.size)  # for a square image, cut is 0
    return image.crop((left, top, image.width - left, image.height - top))


def _to_8bit(image: Image.Image) -> Image.Image:
    "Convert 16-bit gray to 8-bit gray. Other modes stay."
    if image.mode == "F":
        raise UserError("its pixels are floating-point numbers without a range; save it in 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # rounded; 65535 / 255 = 257


def _composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    "Convert the colors by an ICC profile. A profile that is broken, or of another mode, is ignored."
    if not profile:
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        return (
            ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            or image
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


# Tables of images and labels


class _Table(NamedTuple):
    "Images that were found, and their classes."

    rows: object  # datasets.Dataset with the column image: a cell is a dict of path and bytes
    labels: list[int] | None  # None if there are no classes
    class_names: tuple[str, ...]


def _number_classes(values: list) -> tuple[list[int], tuple[str, ...]]:
    "Labels and class names, in alphabetical or numerical order, from the class of each image."
    if missing := [i for i, value in enumerate(values) if value is None or value != value]:
        raise UserError(f"label of image {missing[0]} is missing, but either all images need one, or none.")
    names = sorted(set(values))
    number = {name: k for k, name in enumerate(names)}
    return [number[value] for value in values], tuple(str(name) for name in names)


def _read_labels(rows) -> tuple[list[int] | None, tuple[str, ...]]:
    "Labels and class names from the label column, or from the first column that is declared as classes."
    from datasets import ClassLabel, Value

    classes = [name for name, kind in rows.features.items() if isinstance(kind, ClassLabel)]
    plain = [name for name in ("label", "labels", "class") if isinstance(rows.features.get(name), Value)]
    if not classes and not plain:
        return None, ()
    if not classes:
        return _number_classes(rows[plain[0]][:])
    column = "label" if "label" in classes else classes[0]
    labels = rows[column][:]
    if None in labels or -1 in labels:  # the Hub's mark for test splits whose labels are withheld
        raise UserError(f"column {column} has images without a label: choose another split, with @SPLIT.")
    return labels, tuple(rows.features[column].names)


def _tabulate(rows) -> _Table:
    "Find the images and the classes among the columns of a datasets.Dataset."
    import datasets

    columns = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise UserError(f"no column holds images; the columns are {', '.join(rows.features)}.")
    column = "image" if "image" in columns else columns[0]
    undecoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return _Table(undecoded.rename_columns({column: "image"}), *_read_labels(rows))


_SPLIT_FOLDERS = {"train", "test", "val", "valid", "validation", "dev", "eval"}
_CAMERA_SUFFIXES = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}


def _folder_table(folder: str | Path) -> _Table:
    """Table of the images in a folder, with classes by metadata.csv, metadata.jsonl, or subfolders.

    Formats that `imagefolder` would pass over without a word (cameras') are listed, so that the check names them.
    """
    import datasets

    root = Path(folder).resolve()
    if not root.is_dir():
        raise UserError(f"data folder {folder} does not exist.")
    parts = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"}
    if "train" in parts and parts <= _SPLIT_FOLDERS:  # else train is a class: images of trains
        root = root / "train"
    table = _tabulate(_list_files(root))
    if table.labels is not None:
        return table
    extra = [str(path) for path in sorted(root.rglob("*")) if path.suffix.lower() in _CAMERA_SUFFIXES]
    more = datasets.Dataset.from_dict({"image": extra}, features=table.rows.features)
    rows = datasets.concatenate_datasets([table.rows, more]) if extra else table.rows
    names = _classes_by_folder([cell["path"] for cell in rows["image"]], root)
    return _Table(rows, *(_number_classes(names) if names else (None, ())))


def _list_files(root: Path):  # datasets.Dataset
    "All images below a folder. One glob for all files: `imagefolder` would take a name with test for test data."
    import datasets

    try:
        options = {"data_dir": glob.escape(str(root)), "data_files": {"train": "**"}, "drop_labels": True}
        rows = datasets.load_dataset("imagefolder", split="train", **options)
        image = rows.cast_column("image", datasets.Image(decode=False))["image"]
    except (datasets.exceptions.DatasetsError, ValueError, OSError, LookupError) as error:
        raise UserError(f"data folder {root} holds no images that can be listed: {_short(error)}.") from None
    # Not files inside a zip file, which are mostly second copies, nor those that macOS adds to one.
    plain = [i for i, cell in enumerate(image) if "::" not in cell["path"] and "__MACOSX" not in cell["path"]]
    if not plain:
        raise UserError(f"data folder {root} holds images only inside a zip file: unpack it.")
    return rows.select(plain) if len(plain) < len(rows) else rows


def _classes_by_folder(paths: list[str], root: Path) -> list[str] | None:
    "Name of each image's folder below the root, or None if all images lie in the root itself."
    parents = [Path(path).relative_to(root).parent for path in paths]
    depth = {len(parent.parts): path for parent, path in zip(parents, paths)}
    if len(depth) > 1:
        a, b = list(depth.values())[:2]
        raise UserError(
            f"data folder {root} holds images at different depths, such as {a} and {b}, but must have one "
            "subfolder for each class, or none."
        )
    return None if 0 in depth else [parent.name for parent in parents]


def _hub_table(name: str) -> _Table:
    "Table of a data set: NAME, NAME:CONFIG, NAME@SPLIT or NAME:CONFIG@SPLIT; the split is train by default."
    import datasets

    start, _, split = name.partition("@")
    path, _, config = start.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, split=split or None)
    except ConnectionError:
        raise UserError(f"data hub:{name} is not on this machine, and the Hub cannot be reached.") from None
    except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"data hub:{name} cannot be loaded: {_short(error)}.") from None
    if not split:
        if "train" not in found and len(found) > 1:
            raise UserError(f"data hub:{name} has no split train: add @ and one of {', '.join(found)}.")
        found = found["train"] if "train" in found else next(iter(found.values()))
    return _tabulate(found)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].strip(".")


# Checking


def _read_cell(cell: dict, i: int, size: int, mode: str = "RGB") -> Image.Image:
    "Read image i of a table. Raises a UserError that names its file, or its number if it lies in a larger file."
    try:
        return read_image(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]), size, mode)
    except Exception as error:  # Pillow raises many kinds
        name = cell["path"] if cell["bytes"] is None else f"{i} of the data set"
        why = str(error).strip(".") or type(error).__name__
        raise UserError(f"image {name} cannot be read: {why}.") from None


def _read_error(cell: dict, i: int, size: int) -> str:
    "Message of the error that reading an image raises, or an empty string."
    try:
        _read_cell(cell, i, size)
        return ""
    except ValueError as error:
        return str(error)


def _read_errors(batch: dict, indices: list[int], size: int) -> dict:
    with ThreadPoolExecutor(
        min(16, os.cpu_count() or 1)
    ) as pool:  # Pillow decodes without the interpreter lock
        return {"error": list(pool.map(_read_error, batch["image"], indices, [size] * len(indices)))}


def _drop_unreadable(table: _Table, size: int, skip_bad: bool) -> tuple[_Table, list[str]]:
    """Read every image once, as training will: the rows that can be read, and an error for each other one.

    `datasets` keeps the result on disk until a file changes. Pillow's quick `verify` misses cut-off JPEG files.
    """
    options = {"batched": True, "batch_size": 100, "with_indices": True, "remove_columns": ["image"]}
    seen = table.rows.map(_read_errors, fn_kwargs={"size": size}, desc="reading every image once", **options)
    errors = seen["error"][:]
    bad, good = [text for text in errors if text], [i for i, text in enumerate(errors) if not text]
    if bad and not skip_bad:
        which = f"all {len(bad)} such files" if len(bad) > 1 else "it"
        raise UserError(f"{bad[0]} Fix or remove {which}, or leave out with skip_bad.")
    if not good:
        raise UserError(f"none of {len(errors)} images can be read; the first error: {bad[0]}")
    if not bad:
        return table, []
    labels = table.labels and [table.labels[i] for i in good]
    if table.labels and (lost := set(table.labels) - set(labels)):
        raise UserError(f"class {table.class_names[min(lost)]} has no image that can be read: {bad[0]}")
    return _Table(table.rows.select(good), labels, table.class_names), bad


# Data sets


class ImageFolder:
    """Data set of images on disk, each read, cropped and scaled when it is asked for. Made by `open_images`.

    Attributes: `class_names` (tuple), `labels` (list, or None), `skipped` (error of each image that was left out).
    """

    def __init__(self, table: _Table, size: int, channels: int = 3, skipped: Sequence[str] = ()):
        self.rows, self.labels, self.class_names = table
        self.size, self.mode, self.skipped = size, {1: "L", 3: "RGB"}[channels], list(skipped)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = _read_cell(self.rows[i]["image"], i, self.size, self.mode)
        return _to_tensor(_center_crop(image, self.size)), torch.tensor(self.labels[i] if self.labels else 0)


def open_images(
    data: str | Path, size: int | None = None, channels: int = 3, skip_bad: bool = False
) -> ImageSet | ImageFolder:
    """Open images to train on. Every file is read once first, so that a broken one is found before training.

    Args:
        data: "digits"; a folder of images, of subfolders by class, or of images and metadata.csv or
            metadata.jsonl; or "hub:NAME", also with a configuration and a split, "hub:NAME:CONFIG@SPLIT"
        size: side of the square center crop in pixels; needed for all data but digits, which are 8x8
        channels: 3 for RGB or 1 for gray; digits are always gray
        skip_bad: leave out images that cannot be read, instead of raising an error

    Raises:
        UserError: if there are no images, if one cannot be read, or if an argument does not fit
    """
    if data == "digits":
        if size not in (None, 8):
            raise UserError(f"size is {size}, but must be 8 for digits.")
        return digits().train
    if size is None:
        raise UserError(
            "size is missing, but images other than digits need one: the side of their square crop."
        )
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"size is {size!r}, but must be an integer of 1 or more.")
    if channels not in (1, 3):
        raise UserError(f"channels is {channels!r}, but must be 1 or 3.")
    _hide_progress_bars()
    hub = isinstance(data, str) and data.startswith("hub:")
    table = _hub_table(data.removeprefix("hub:")) if hub else _folder_table(data)
    table, skipped = _drop_unreadable(table, size, skip_bad)
    return ImageFolder(table, size, channels, skipped)


def _hide_progress_bars() -> None:
    "Turn the bars of `datasets` off if stderr is a log file."
    if not _bar_visible(True):
        import datasets

        datasets.disable_progress_bars()
