"""Image files, folders, tables and shards for the tests of data."""

import io
import json
import tarfile
from collections import Counter

import datasets
import numpy as np
from PIL import Image, ImageCms

# Image files


def random_pixels(height, width, *channels, seed=0):
    """Random bytes, (height, width) or (height, width, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def write_image(path, array=None, **options):
    """Write an image (random pixels by default) and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (
        array
        if isinstance(array, Image.Image)
        else Image.fromarray(random_pixels(30, 40, 3) if array is None else array)
    )
    image.save(path, **options)
    return path


def swapped_profile():
    """A profile in which the numbers called red mean green: sRGB's own, with two primaries exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def png(level, size=8):
    """The bytes of a gray PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), level, np.uint8)).save(file, "png")
    return file.getvalue()


# Folders

PETS = ["cat/1.png", "cat/2.png", "dog/1.png"]


def fill(folder, *names):
    """Write a small black image for each name; return the folder."""
    for name in names:
        write_image(folder / name, np.zeros((8, 8), np.uint8))
    return folder


def class_counts(data) -> dict:
    """Number of images by class."""
    return dict(Counter(data.class_names[k] for k in data.labels)) if data.class_names else {}


def write_table(folder, text, name="metadata.csv"):
    """Write a table into a folder; return the folder."""
    (folder / name).write_text(text)
    return folder


# Data sets as downloaded from the Hub


def encoded(level, size=8):
    """A gray image as a cell of a data set."""
    return {"bytes": png(level, size), "path": f"{level}.png"}


def as_parquet(path, columns, features, split="train"):
    """Write a folder as downloaded from the Hub; return the name of the data set."""
    path.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    rows.to_parquet(path / f"{split}-00000.parquet")
    return f"hub:{path}"


def write_parquet(folder, labels, kind=None):
    """Write images of gray levels 0, 1, ... and their labels as one file of a split train; return its path."""
    columns = {"image": [{"bytes": png(k), "path": None} for k in range(len(labels))], "label": labels}
    as_parquet(folder, columns, {"image": datasets.Image(), "label": kind or datasets.Value("string")})
    return folder / "train-00000.parquet"


# Shards


def write_tar(path, labels, first=0, suffix="cls"):
    """Write a shard of gray images of levels `first`, `first` + 1, ..., one for each label; return its path.

    The sizes of two such files are equal: tar pads to 10,240 bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for k, label in enumerate(labels, first):
            for kind, content in (("png", png(k)), (suffix, str(label).encode())):
                info = tarfile.TarInfo(f"{k:05d}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, shards=4, images=6, name="shard-{:04d}.tar", label="cls"):
    """Write WebDataset shards: image k is gray of level k, its class is k % 3, or a word in a JSON file."""
    for s in range(shards):
        numbers = range(s * images, (s + 1) * images)
        labels = [json.dumps({"label": "abc"[k % 3]}) if label == "json" else k % 3 for k in numbers]
        write_tar(folder / name.format(s), labels, s * images, label)
    return folder


def levels(images) -> list[int]:
    """The gray levels of images (N, C, H, W): the numbers of those of a shard."""
    return ((images.mean((1, 2, 3)) + 1) * 127.5).round().int().tolist()
