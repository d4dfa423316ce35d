"""Folders of images and data sets of the Hub as training data: `open_images`."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.batches import _as_index, _uniform
from dit_nb.data import ImageSet, _center_crop, _to_tensor, digits, emoji
from dit_nb.errors import UserError, _check_choice, _check_path, _is_int, _shown
from dit_nb.image_check import _combined, _drop_unreadable, _find_unreadable, _hash, _Ranks, _read_cell
from dit_nb.image_sources import _folder_table, _hub_table, _Table
from dit_nb.utils import _bar_visible

__all__ = ["ImageFolder", "open_images"]

_CROPS = ("center", "random")
_MOST_ZOOM = 1.25  # a random crop has at least 1 / 1.25 = 0.8 of the largest possible side, as ADM's


class ImageFolder:
    """Data set of images on disk, each read, cropped and scaled when it is asked for. Made by `open_images`.

    It is a map-style data set of PyTorch: `DataLoader`, `Subset`, `random_split` and `ConcatDataset` take it.

    Attributes:
        class_names: K names, a tuple; empty if there are no classes
        labels: (N,) long; None if there are no classes
        captions: N texts, a tuple; None if they were not asked for
        place: where the images were found
        notes: what was left out, and why
        skipped: error of each image that cannot be read and was left out
        fingerprint: a hash of names, sizes, labels or captions, and some of the content
    """

    def __init__(
        self,
        table: _Table,
        size: int | tuple[int, int],
        channels: int = 3,
        errors: dict[int, str] | None = None,
        crop: str = "center",
    ):
        errors = errors or {}
        self.cells, self.class_names, self.place, self.notes = (
            table.cells,
            table.class_names,
            table.place,
            table.notes,
        )
        self.rows = torch.tensor([i for i in range(len(table.cells)) if i not in errors])  # readable ones
        self.labels = None if table.labels is None else torch.tensor(table.labels)[self.rows]
        self.captions = table.captions and tuple(table.captions[i] for i in self.rows.tolist())
        self.skipped = [errors[i] for i in sorted(errors)]
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mode, self.crop = {1: "L", 3: "RGB"}[channels], crop
        self.fingerprint = _fingerprint(self)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        images, labels = self.get_batch([_as_index(i, len(self))])
        return images[0], labels[0]

    def center_cropped(self) -> "ImageFolder":
        "The same data set, always with the center crop: to compare with."
        other = copy.copy(self)
        other.crop = "center"
        return other

    def path(self, i: int) -> str:
        "Path of image i; empty if it does not lie in a file of its own."
        return self.cells[int(self.rows[i])]["path"] or ""

    def get_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        "Images (B, C, H, W) in [-1, 1] and labels (B,) of a batch; all labels are 0 if there are no classes."
        numbers = _uniform(indices, 3) if self.crop == "random" else [None] * len(indices)
        images = torch.stack([self._read(int(self.rows[i]), u) for i, u in zip(indices, numbers)])
        labels = (
            torch.zeros(len(images)).long() if self.labels is None else self.labels[[int(i) for i in indices]]
        )
        return images, labels

    def _read(self, i: int, numbers: Tensor | None) -> Tensor:
        return _crop_to(_read_cell(self.cells[i], i, self.size, self.mode), self.size, numbers)


def _crop_to(image, size: tuple[int, int], numbers: Tensor | None) -> Tensor:
    "The center crop of an image, or that of a random window, as a tensor (C, H, W) in [-1, 1]."
    if numbers is not None:
        image = _random_window(image, size, *numbers.tolist())
    return _to_tensor(_center_crop(image, size))


def _random_window(image, size: tuple[int, int], zoom: float, x: float, y: float):
    "Cut a window of the shape of `size` out of an image, of random scale and at a random place."
    height, width = size
    largest = min(image.width / width, image.height / height)
    scale = largest / (1 + zoom * (_MOST_ZOOM - 1))
    sides = [max(1, min(round(side * scale), whole)) for side, whole in zip((width, height), image.size)]
    left, top = (round(place * (whole - side)) for place, whole, side in zip((x, y), image.size, sides))
    return image.crop((left, top, left + sides[0], top + sides[1]))


def _fingerprint(data: ImageFolder, files: int = 16) -> str:
    "Hash of names, sizes, labels or captions, and of the bytes of a few files, which tells other images apart."
    spots = torch.linspace(0, len(data) - 1, min(len(data), files)).long().tolist()
    labels = (data.captions or ()) if data.labels is None else data.labels.tolist()
    return _combined(
        [_hash(data.cells.name(), len(data)), _hash(*labels), *(_content(data, i) for i in spots)]
    )


def _content(data: ImageFolder, i: int) -> int:
    cell = data.cells[int(data.rows[i])]
    try:
        content = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    except OSError:  # removed since it was read; training names it
        return 0
    return _hash(content.hex())


def open_images(
    data: str | Path,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    skip_bad: bool = False,
    *,
    split: str | None = None,
    crop: str = "center",
    class_folder: str | None = None,
    label_column: str | None = None,
    captions: bool | str = False,
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> ImageSet | ImageFolder:
    """Open images to train on. Every file is read once first, so that a broken one is found before training.

    What was readable is remembered: the next time, only new and changed files are read again.

    Args:
        data: "digits" or "emoji"; a folder of images, of subfolders by class, or of images and a table
            (metadata.csv, metadata.jsonl); or "hub:NAME", also with a configuration and a split,
            "hub:NAME:CONFIG@SPLIT"
        size: side of the square crop in pixels, or (height, width); not needed for digits, which are 8x8, and
            emoji, which are 32x32
        channels: 3 for RGB or 1 for gray; digits are always gray and emoji always RGB
        skip_bad: leave out images that cannot be read, instead of raising an error
        split: split to use: of a folder with folders such as train and test, of a table with a column split, or
            of the Hub; train by default
        crop: "center", or "random": another part of 80 to 100 % of the largest crop's side each time
        class_folder: folder that names the class where folders are nested: "first", "last", or the whole "path";
            with it, a folder such as train beside others is a class
        label_column: column of the table that holds the classes; by default label, labels or class
        captions: find captions instead of classes, in the table's column text, caption or prompt, or in a text
            file beside each image, cat.txt for cat.png; the name of a column: find them there. Emoji always
            have captions
        ranks: processes that share the reading; set by the commands

    Raises:
        UserError: if there are no images, if one cannot be read, or if an argument does not fit
    """
    _check_path("data", data)
    _check_choice("crop", crop, _CROPS)
    _check_size(size)
    if data in _BUNDLED:
        names = {"split": split, "class_folder": class_folder, "label_column": label_column}
        names["captions"] = None if data == "emoji" and captions is True else captions or None
        _check_bundled(str(data), size, crop=None if crop == "center" else crop, **names)
        return _BUNDLED[str(data)][0]().train
    _check_arguments(size, channels)
    with ranks.on_all_ranks():
        table = _find_table(data, split, class_folder, label_column, captions)
    errors, frames = _find_unreadable(table.cells, size, ranks)
    kept = _drop_unreadable(errors, len(table.cells), skip_bad)
    if table.labels and (lost := set(table.labels) - {table.labels[i] for i in kept}):
        raise UserError(
            f"class {table.class_names[min(lost)]} has no image that can be read: {min(errors.items())[1]}"
        )
    return ImageFolder(_note_frames(table, frames), size, channels, errors, crop)


def _note_frames(table: _Table, frames: list[int]) -> _Table:
    "Note that only the first frame of some images is used."
    if not frames:
        return table
    path = table.cells[frames[0]]["path"] or f"image {frames[0]}"
    note = f"frames after the first of {len(frames):,} images, such as {os.path.basename(path)}"
    return replace(table, notes=(*table.notes, note))


_BUNDLED = {"digits": (digits, 8), "emoji": (emoji, 32)}  # data sets of the package, and their side in pixels


def _check_bundled(data: str, size, **unused) -> None:
    side = _BUNDLED[data][1]
    if size not in (None, side, (side, side)):
        raise UserError(f"size is {size}, but must be {side} for {data}.")
    for name, value in unused.items():
        if value is not None:
            raise UserError(f"{name} is {value}, but must not be given for {data}.")


def _find_table(
    data: str | Path,
    split: str | None,
    class_folder: str | None,
    label_column: str | None,
    captions: bool | str = False,
) -> _Table:
    "Find images and classes or captions, in a folder or a data set of the Hub."
    for name, value in {"class_folder": class_folder, "label_column": label_column}.items():
        if captions and value is not None:
            raise UserError(f"{name} is {value}, but must not be given with captions, which replace classes.")
    if not (isinstance(data, str) and data.startswith("hub:")):
        return _folder_table(data, split, class_folder, label_column, captions)
    if class_folder is not None:
        raise UserError(f"class_folder is {class_folder}, but {data} has no folders of classes.")
    with _bars_of_datasets():
        return _hub_table(data.removeprefix("hub:"), split, label_column, captions)


def _check_arguments(size, channels: int) -> None:
    if size is None:
        raise UserError(
            "size is missing, but images other than digits and emoji need one: the side of their square crop."
        )
    if not _is_int(channels) or channels not in (1, 3):
        raise UserError(f"channels is {_shown(channels)}, but must be 1 or 3.")


def _check_size(size) -> None:
    sides = size if isinstance(size, tuple) else (size,)
    if size is not None and (not 1 <= len(sides) <= 2 or not all(map(_is_int, sides))):
        raise UserError(f"size is {_shown(size)}, but must be an integer of 1 or more, or (height, width).")


@contextmanager
def _bars_of_datasets() -> Iterator[None]:
    "Inside, `datasets` shows no bars if stderr is a log file."
    import datasets

    hidden = not _bar_visible(True) and not datasets.are_progress_bars_disabled()
    if hidden:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            datasets.enable_progress_bars()
