"""Real handwritten digits, your own photographs, and the range that everything after this relies on."""

import glob
import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dit_nb.data import ImageSet, center_crop, digits, to_tensor
from dit_nb.utils import show_bar


def to_8bit(
    image: Image.Image,
) -> Image.Image:
    "16-bit grey becomes 8-bit grey; all other modes stay."
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a range; save it in 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    numbers = np.asarray(image).clip(0, 65535).astype(np.uint32)
    return Image.fromarray(((numbers + 128) // 257).astype(np.uint8))  # rounded; 65535 / 255 = 257


def composite_on_white(
    image: Image.Image,
) -> Image.Image:
    "Whatever is transparent shows white paper."
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def to_srgb(
    image: Image.Image,  # grey, RGB or CMYK
    profile: bytes | None,  # the ICC profile that came with it
) -> Image.Image:
    "The colours that the profile means. A profile that is broken, or of another mode, is passed over."
    if not profile:
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def trim(
    image: Image.Image,
    ratio: int = 8,  # the longest that stays, in short sides
) -> Image.Image:
    "Cut the ends off a very long picture. The square in its middle stays where it is."
    short, long = sorted(image.size)
    cut = max(0, long - ratio * short) // 2
    left, top = (cut if side == long else 0 for side in image.size)  # a square: cut is 0
    return image.crop((left, top, image.width - left, image.height - top))


def read_picture(
    source,  # a path, or a file open for reading
    size: int,  # side of the square that will be cut from it, in pixels
    mode: str = "RGB",  # or L: grey
) -> Image.Image:  # not yet cropped; a JPEG may come smaller than it is, see below
    "A picture as its photographer meant it: upright, on white, in 8 bits, in sRGB."
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, 500_000_000)  # a warning here, an error at twice
    with Image.open(source) as image:
        profile = image.info.get("icc_profile")
        image.draft(None, (4 * size, 4 * size))
        picture = composite_on_white(to_8bit(trim(ImageOps.exif_transpose(image))))
    if picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    return to_srgb(picture, profile).convert(mode)


def name_of(cell: dict, i: int) -> str:
    "How to call a picture in a message: its path, or its number where it lies inside of a larger file."
    return f"{i} of the data set" if cell["bytes"] is not None else cell["path"]


def read_cell(
    cell: dict,  # path and bytes of a picture, one of them may be None
    i: int,  # its number
    size: int,
    mode: str = "RGB",
) -> Image.Image:
    "Read a picture of a table. Raises a ValueError that names it."
    try:
        return read_picture(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]), size, mode)
    except Exception as error:  # Pillow raises many kinds
        why = str(error).strip(".") or type(error).__name__
        raise ValueError(f"image {name_of(cell, i)} cannot be read: {why}.") from None


def read_error(cell: dict, i: int, size: int) -> str:
    "What is wrong with a picture; nothing where nothing is."
    try:
        read_cell(cell, i, size)
        return ""
    except ValueError as error:
        return str(error)


def read_errors(batch: dict, indices: list[int], size: int) -> dict:
    "What is wrong with each of a batch of pictures, looked at side by side."
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # Pillow lets them run side by side
        found = pool.map(read_error, batch["image"], indices, [size] * len(indices))
        return {"complaint": list(found)}


def hide_bars() -> None:
    "No progress bars of `datasets` in a log file; in a terminal and a notebook they stay."
    if not show_bar(True):
        import datasets

        datasets.disable_progress_bars()


class Table(NamedTuple):
    "Pictures that were found, and their classes."

    rows: object  # a datasets.Dataset with the column image: path and bytes
    labels: list[int] | None  # None: no classes
    class_names: tuple[str, ...]


def number_classes(
    values: list,  # the class of each picture, as text or a number
) -> tuple[list[int], tuple[str, ...]]:  # labels and names
    "Classes in the order of the alphabet, or of their numbers."
    if missing := [i for i, value in enumerate(values) if value is None or value != value]:
        raise ValueError(f"label of image {missing[0]} is missing: all images need one, or none.")
    names = sorted(set(values))
    number = {name: k for k, name in enumerate(names)}
    return [number[value] for value in values], tuple(str(name) for name in names)


def read_labels(
    rows,  # a datasets.Dataset
) -> tuple[list[int] | None, tuple[str, ...]]:
    "The classes of a table: its label column, or whichever column it declares as classes."
    from datasets import ClassLabel, Value

    classes = [name for name, kind in rows.features.items() if isinstance(kind, ClassLabel)]
    plain = [name for name in ("label", "labels", "class") if isinstance(rows.features.get(name), Value)]
    if not classes and not plain:
        return None, ()
    if not classes:
        return number_classes(rows[plain[0]][:])
    column = "label" if "label" in classes else classes[0]
    labels = rows[column][:]
    if None in labels or -1 in labels:  # how the Hub marks what contestants must not know
        raise ValueError(f"column {column} has images without a label: choose another split, with @SPLIT.")
    return labels, tuple(rows.features[column].names)


def tabulate(
    rows,  # a datasets.Dataset with a column of pictures
) -> Table:
    "Find the pictures and the classes among the columns."
    import datasets

    pictures = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if not pictures:
        raise ValueError(f"no column holds images; there are {', '.join(rows.features)}.")
    column = "image" if "image" in pictures else pictures[0]
    undecoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return Table(undecoded.rename_columns({column: "image"}), *read_labels(rows))


SPLITS = {"train", "test", "val", "valid", "validation", "dev", "eval"}


CAMERA_FILES = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}


def classes_by_folder(
    paths: list[str],
    root: Path,  # they lie below it
) -> list[str] | None:
    "The name of each picture's folder, or None where all lie in the root itself."
    parents = [Path(path).relative_to(root).parent for path in paths]
    depth = {len(parent.parts): path for parent, path in zip(parents, paths)}
    if len(depth) > 1:
        a, b = list(depth.values())[:2]
        raise ValueError(
            f"data folder {root} holds images at different depths, such as {a} and {b}: sort them."
        )
    return None if 0 in depth else [parent.name for parent in parents]


def list_files(
    root: Path,
):  # a datasets.Dataset with the column image, and those of metadata.csv or metadata.jsonl
    "All pictures below a folder."
    import datasets

    try:
        options = {"data_dir": glob.escape(str(root)), "data_files": {"train": "**"}, "drop_labels": True}
        rows = datasets.load_dataset("imagefolder", split="train", **options)
        image = rows.cast_column("image", datasets.Image(decode=False))["image"]
    except (datasets.exceptions.DatasetsError, ValueError, OSError, LookupError) as error:
        why = " ".join(str(error).split())[:200].strip(".")
        raise ValueError(f"data folder {root} holds no images that can be listed: {why}.") from None
    # Not what lies in a zip file, which is mostly a second copy, nor what a Mac adds when it makes one.
    plain = [i for i, cell in enumerate(image) if "::" not in cell["path"] and "__MACOSX" not in cell["path"]]
    if not plain:
        raise ValueError(f"data folder {root} holds no images but what lies in a zip file: unpack it.")
    return rows.select(plain) if len(plain) < len(rows) else rows


def folder_table(
    folder: str | Path,
) -> Table:
    "The pictures of a folder, with classes by metadata.csv, metadata.jsonl, or sub-folders."
    import datasets

    root = Path(folder).resolve()
    if not root.is_dir():
        raise ValueError(f"data folder {folder} does not exist.")
    parts = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"}
    if "train" in parts and parts <= SPLITS:  # else train is a class: pictures of trains
        root = root / "train"
    table = tabulate(list_files(root))
    if table.labels is not None:
        return table
    extra = [str(path) for path in sorted(root.rglob("*")) if path.suffix.lower() in CAMERA_FILES]
    more = datasets.Dataset.from_dict({"image": extra}, features=table.rows.features)
    rows = datasets.concatenate_datasets([table.rows, more]) if extra else table.rows
    names = classes_by_folder([cell["path"] for cell in rows["image"]], root)
    return Table(rows, *(number_classes(names) if names else (None, ())))


def hub_table(
    name: str,  # NAME, NAME:CONFIG, NAME@SPLIT, NAME:CONFIG@SPLIT; NAME may be a folder with parquet files
) -> Table:
    "The pictures of a data set on the Hub, by default its part train."
    import datasets

    start, _, split = name.partition("@")
    path, _, config = start.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, split=split or None)
    except ConnectionError:
        raise ValueError(f"data hub:{name} is not on this machine, and the Hub cannot be reached.") from None
    except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200].strip(".")
        raise ValueError(f"data hub:{name} cannot be loaded: {why}.") from None
    if not split:
        if "train" not in found and len(found) > 1:
            raise ValueError(f"data hub:{name} has no part train: add @ and one of {', '.join(found)}.")
        found = found["train"] if "train" in found else next(iter(found.values()))
    return tabulate(found)


def drop_broken(
    table: Table,
    size: int,  # side of the square crop
    skip_bad: bool,  # leave out what is broken; otherwise stop
) -> tuple[Table, list[str]]:  # what can be read, and a sentence about each of the others
    "Read every picture once, as training will. Remembered on disk, until a file changes."
    options = {"batched": True, "batch_size": 100, "with_indices": True, "remove_columns": ["image"]}
    seen = table.rows.map(read_errors, fn_kwargs={"size": size}, desc="reading every image once", **options)
    found = seen["complaint"][:]
    bad, good = [text for text in found if text], [i for i, text in enumerate(found) if not text]
    if bad and not skip_bad:
        more = f" So it is with {len(bad) - 1} more." if len(bad) > 1 else ""
        raise ValueError(f"{bad[0]}{more} Mend or remove, or leave out with skip_bad.")
    if not good:
        raise ValueError(f"none of {len(found)} images can be read, the first because: {bad[0]}")
    if not bad:
        return table, []
    labels = table.labels and [table.labels[i] for i in good]
    if table.labels and (lost := set(table.labels) - set(labels)):
        raise ValueError(f"class {table.class_names[min(lost)]} has no image that can be read: {bad[0]}")
    return Table(table.rows.select(good), labels, table.class_names), bad


class ImageFolder:
    "Images on disk, cropped and scaled when they are asked for. Made by `open_images`."

    def __init__(
        self,
        table: Table,
        size: int,  # side of the square crop
        channels: int = 3,  # 3, or 1 for grey
        skipped: list[str] = (),  # what was left out, and why
    ):
        self.rows, self.labels, self.class_names = table
        self.size, self.mode, self.skipped = size, {1: "L", 3: "RGB"}[channels], list(skipped)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture = read_cell(self.rows[i]["image"], i, self.size, self.mode)
        return to_tensor(center_crop(picture, self.size)), torch.tensor(self.labels[i] if self.labels else 0)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "A whole batch at once."
        images, labels = zip(*(self[i] for i in indices))
        return torch.stack(images), torch.stack(labels)


def image_folder(
    folder: str | Path,  # images, or sub-folders of images, or images and metadata.csv; or hub:NAME
    size: int,  # side of the square crop
    channels: int = 3,  # 3, or 1 for grey
    skip_bad: bool = False,  # leave out images that cannot be read; otherwise stop at once
) -> ImageFolder:
    "Your own pictures. Raises ValueError where there are none, or where one cannot be read."
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size!r}, but must be a whole number of 1 or more.")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}, but must be 1 or 3.")
    hide_bars()
    hub = isinstance(folder, str) and folder.startswith("hub:")
    table = hub_table(folder.removeprefix("hub:")) if hub else folder_table(folder)
    table, skipped = drop_broken(table, size, skip_bad)
    return ImageFolder(table, size, channels, skipped)


def open_images(
    data: str | Path,  # digits, a folder, or hub:NAME (also hub:NAME:CONFIG and hub:NAME@SPLIT)
    size: int | None = None,  # side of the square crop; digits have their own
    channels: int = 3,  # 3, or 1 for grey; digits are grey
    skip_bad: bool = False,  # leave out images that cannot be read; otherwise stop at once
) -> ImageSet | ImageFolder:
    "The images to learn from, by name."
    if data != "digits":
        if size is None:
            raise ValueError("size is missing: pictures are cut to a square, of how many pixels?")
        return image_folder(data, size, channels, skip_bad)
    if size not in (None, 8):
        raise ValueError(f"size is {size}, but digits are 8 by 8 pixels.")
    return digits().train
