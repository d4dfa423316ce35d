"""Image files of every kind, layouts of folders, data sets of the Hub, and broken files."""

import csv
import io
import json
import os
import pickle
import struct
import zlib

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torch.utils.data import DataLoader

from dit_nb import image_check
from dit_nb.batches import BatchReader
from dit_nb.data import ImageSet, _center_crop
from dit_nb.image_files import open_images
from dit_nb.image_reading import read_image
from dit_nb.image_tables import _number_classes
from support import raises_input_error

ORIENTATION = 0x0112


def noise(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(path, array=None, **options):
    """Write an image (noise by default) and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (
        array
        if isinstance(array, Image.Image)
        else Image.fromarray(noise(30, 40, 3) if array is None else array)
    )
    image.save(path, **options)
    return path


def bytes_of(folder, size, channels=3):
    """The pixels of the only image in a folder as the model receives them, in bytes: (H, W) or (H, W, 3)."""
    data = open_images(folder, size, channels)
    assert len(data) == 1
    x = BatchReader(data)([0])[0]
    assert x.shape == (1, channels, size, size) and x.dtype == torch.float32
    levels = ((x[0] + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(levels - levels.round()).max() < 1e-3
    return levels.round().astype(int).squeeze(-1) if channels == 1 else levels.round().astype(int)


# Formats. Square images of the requested size must stay unchanged, so that every pixel can be predicted.


def test_rgb_is_unchanged(folder):
    array = noise(16, 16, 3)
    save(folder / "a.png", array)
    assert np.array_equal(bytes_of(folder, 16), array)


def test_gray_becomes_three_equal_channels(folder):
    array = noise(16, 16)
    save(folder / "a.png", array)
    assert np.array_equal(bytes_of(folder, 16), np.stack([array] * 3, -1))
    assert np.array_equal(bytes_of(folder, 16, channels=1), array)


def test_color_becomes_luma(folder):
    array = noise(16, 16, 3)
    save(folder / "a.png", array)
    luma = array @ np.array([0.299, 0.587, 0.114])
    assert np.abs(bytes_of(folder, 16, channels=1) - luma).max() <= 1


def over_white(color, alpha):
    return color * (alpha / 255.0) + 255 * (1 - alpha / 255.0)


def test_rgba_is_composited_on_white(folder):
    array = noise(16, 16, 4)
    save(folder / "a.png", array)
    expected = over_white(array[..., :3], array[..., 3:])
    assert np.abs(bytes_of(folder, 16) - expected).max() <= 1


def test_transparent_pixels_do_not_bleed_when_enlarged(folder):
    array = np.zeros((4, 4, 4), dtype=np.uint8)  # black, but transparent
    save(folder / "a.png", array)
    assert (bytes_of(folder, 32) == 255).all()


def test_gray_with_alpha_is_composited_on_white(folder):
    array = noise(16, 16, 2)
    save(folder / "a.png", Image.merge("LA", [Image.fromarray(array[..., k].copy()) for k in range(2)]))
    expected = over_white(array[..., 0], array[..., 1])
    assert np.abs(bytes_of(folder, 16, channels=1) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_palette_with_one_transparent_color(folder, kind):
    index = noise(16, 16) % 4
    image = Image.fromarray(index)
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert image.mode == "P"
    save(folder / f"a.{kind}", image, transparency=2)
    colors = np.array([[10, 20, 30], [200, 0, 0], [255, 255, 255], [0, 0, 200]])
    assert np.array_equal(bytes_of(folder, 16), colors[index])


def test_palette_with_half_transparent_colors(folder):
    index = noise(16, 16) % 2
    image = Image.fromarray(index)
    image.putpalette([100, 0, 0, 0, 100, 0])
    save(folder / "a.png", image, transparency=bytes([51, 255]))  # the first is a fifth opaque
    colors = np.array([[224, 204, 204], [0, 100, 0]])
    assert np.abs(bytes_of(folder, 16) - colors[index]).max() <= 1


def test_rgb_with_a_transparent_color(folder):
    array = noise(16, 16, 3)
    array[3, 5] = (1, 2, 3)
    save(folder / "a.png", array, transparency=(1, 2, 3))
    expected = array.copy()
    expected[(array == (1, 2, 3)).all(-1)] = 255
    assert np.array_equal(bytes_of(folder, 16), expected)


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_sixteen_bits(folder, kind):
    array = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    array[0, :2] = 0, 65535
    path = folder / f"a.{kind}"
    if kind == "pgm":  # most significant byte first
        path.write_bytes(b"P5 16 16 65535\n" + array.astype(">u2").tobytes())
    else:
        save(path, array)
    assert np.array_equal(bytes_of(folder, 16, channels=1), np.round(array / 65535 * 255).astype(int))


def test_floating_point_pixels_raise(folder):
    path = save(folder / "a.tiff", np.random.default_rng(0).random((16, 16)).astype(np.float32))
    with pytest.raises(ValueError, match=f"{path}.*floating-point"):
        open_images(folder, 16)


def test_one_bit(folder):
    array = noise(16, 16) > 127
    save(folder / "a.png", Image.fromarray(array))
    assert np.array_equal(bytes_of(folder, 16, channels=1), array * 255)


def test_cmyk_without_a_profile(folder):
    array = np.tile(noise(2, 2, 4), (8, 8, 1)).reshape(2, 8, 2, 8, 4)[:, :1, :, :1]  # four colors
    array = np.repeat(np.repeat(array.reshape(2, 2, 4), 8, 0), 8, 1)  # in blocks of 8 pixels: JPEG keeps them
    save(folder / "a.jpg", Image.fromarray(array, "CMYK"), quality=100)
    ink = array.astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(bytes_of(folder, 16) - expected).max() <= 4


def swapped_profile():
    """A profile in which the numbers called red mean green: sRGB's own, with two primaries exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["png", "jpg", "tiff"])
def test_colors_are_converted_by_the_profile(folder, kind):
    array = np.zeros((16, 16, 3), dtype=np.uint8) + np.array([220, 40, 90], dtype=np.uint8)
    save(folder / f"a.{kind}", array, icc_profile=swapped_profile())
    assert np.abs(bytes_of(folder, 16) - (40, 220, 90)).max() <= 4


@pytest.mark.parametrize("profile", [b"", b"nonsense" * 40])
def test_a_broken_profile_is_ignored(folder, profile):
    array = noise(16, 16, 3)
    save(folder / "a.png", array, icc_profile=profile)
    assert np.array_equal(bytes_of(folder, 16), array)


def test_srgb_is_unchanged(folder):
    array = noise(16, 16, 3)
    save(
        folder / "a.png",
        array,
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    assert np.array_equal(bytes_of(folder, 16), array)


# How numpy undoes each of the eight orientations that a camera can note.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_exif_orientation(folder, orientation, kind):
    array = np.kron(noise(2, 2, 3), np.ones((8, 8, 1), dtype=np.uint8))  # JPEG keeps blocks of 8 pixels
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    save(
        folder / f"a.{kind}",
        array,
        exif=tags,
        **({"quality": 100, "subsampling": 0} if kind == "jpg" else {}),
    )
    assert np.abs(bytes_of(folder, 16) - UPRIGHT[orientation](array)).max() <= 3


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_an_animation_opens_at_its_first_frame(folder, kind):
    frames = [np.full((16, 16), level, dtype=np.uint8) for level in (60, 120, 180)]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    save(folder / f"a.{kind}", first, save_all=True, append_images=rest)
    assert np.abs(bytes_of(folder, 16, channels=1) - 60).max() <= 1


def test_a_tiny_image_is_enlarged_smoothly(folder):
    save(folder / "a.png", np.array([[0, 255], [0, 255]], dtype=np.uint8))
    row = bytes_of(folder, 64, channels=1)[32]
    assert row[0] == 0 and row[-1] == 255 and (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 20, "no jump"
    assert abs(row[31] + row[32] - 255) <= 1, "half gray in the middle"


def test_one_pixel(folder):
    save(folder / "a.png", np.array([[[7, 8, 9]]], dtype=np.uint8))
    assert (bytes_of(folder, 16) == (7, 8, 9)).all()


@pytest.mark.parametrize("wide", [True, False])
def test_a_strip_of_one_by_five_thousand(folder, wide):
    ramp = np.zeros((1, 5000), dtype=np.uint8)
    ramp[0, 2500:] = 200  # the edge lies exactly in the middle
    save(folder / "a.png", ramp if wide else ramp.T)
    pixels = bytes_of(folder, 256, channels=1)
    across = pixels if wide else pixels.T
    assert (np.ptp(across, axis=0) == 0).all()
    assert abs(across[0, 127] + across[0, 128] - 200) <= 1 and across[0, 0] < across[0, 255]


def test_a_huge_photo_opens(folder):
    """180 megapixels: more than Pillow opens by itself."""
    assert 13400**2 > 2 * 89478485
    image = Image.new("L", (13400, 13400), 70)
    image.paste(190, (0, 0, 6700, 13400))
    save(folder / "a.jpg", image, quality=50)
    pixels = bytes_of(folder, 16, channels=1)
    assert np.abs(pixels[:, :7] - 190).max() <= 2 and np.abs(pixels[:, 9:] - 70).max() <= 2


def test_a_decompression_bomb_raises(folder):
    """A file of 60 bytes that claims 10 gigapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    chunks += struct.pack(">I", 9) + b"IDAT" + bytes(13)
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(ValueError, match="a.png .*exceeds limit"):
        open_images(folder, 16)


def test_a_pixel_limit_of_none_is_kept(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    read_image(save(folder / "a.png"), 8)
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("size,exact", [(64, False), (256, True)])
def test_jpeg_drafts_are_close_to_full_decoding(folder, size, exact):
    i, j = np.mgrid[:1024, :1400]
    waves = 127 + 60 * np.sin(i / 9) + 60 * np.cos(j / 23)
    path = save(folder / "a.jpg", waves.astype(np.uint8), quality=95)
    read = read_image(path, size, "L")
    assert (min(read.size) == 1024) == exact and min(read.size) >= 4 * size
    full = np.asarray(_center_crop(Image.open(path), size), dtype=float)
    error = np.abs(np.asarray(_center_crop(read, size)) - full)
    assert error.max() == 0 if exact else error.mean() < 1


def edge(crop, wide):
    """Where black becomes white, in pixels from the start."""
    across = np.asarray(crop, dtype=float)
    across = across if wide else across.T
    assert np.ptp(across, axis=0).max() <= 1
    return (1 - across.mean(0) / 255).sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 900), st.integers(2, 40), st.booleans())
def test_trimming_keeps_the_center_crop(short, long, size, wide):
    """The crop of a trimmed image is where the crop of the full image is."""
    array = np.zeros((short, 2 * long), dtype=np.uint8)
    array[:, long:] = 255
    image, file = Image.fromarray(array if wide else array.T), io.BytesIO()
    image.save(file, "png")
    crop = _center_crop(read_image(file, size, "L"), size)
    assert crop.size == (size, size)
    assert abs(edge(crop, wide) - edge(_center_crop(image, size), wide)) <= 1


# Folders


def test_class_folders(folder):
    for name in (
        "b two/1.png",
        "b two/2.PNG",
        "a/ö ñ 猫.JPG",
        "a/[x] *.jpeg",
        "a/test 1.webp",
        "a/validation.tiff",
    ):
        save(folder / name)
    (folder / "empty").mkdir()
    data = open_images(folder, 8)
    assert data.class_names == ("a", "b two") and sorted(data.labels.tolist()) == [0, 0, 0, 0, 1, 1]
    x, labels = BatchReader(data)(list(range(6)))
    assert x.shape == (6, 3, 8, 8) and labels.dtype == torch.int64 and data.skipped == []
    for i in range(6):
        assert os.path.dirname(data.path(i)).endswith(data.class_names[labels[i]])


def test_files_of_the_operating_system_are_ignored(folder):
    save(folder / "a/1.png")
    for name in (
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/._1.png",
        ".thumbnails/1.png",
        "__MACOSX/a/1.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\0\0\1")
    data = open_images(folder, 8)
    assert len(data) == 1 and data.class_names == ("a",)


@pytest.mark.parametrize("name", ["Trip [2023]", "a*b?", "Füße 猫", "with space", "hub"])
def test_folders_of_any_name(tmp_path, name):
    save(tmp_path / name / "cat" / "1.png")
    assert len(open_images(tmp_path / name, 8)) == 1
    assert len(open_images(str(tmp_path / name), 8)) == 1


def test_flat_folder_has_no_classes(folder):
    save(folder / "1.png")
    data = open_images(folder, 8)
    assert data.class_names == () and BatchReader(data)([0])[1].tolist() == [0]


def test_an_image_beside_class_folders_raises(folder):
    save(folder / "cats/1.png")
    save(folder / "sheet.png")
    with pytest.raises(ValueError, match="(1.png.*sheet.png|sheet.png.*1.png)"):
        open_images(folder, 8)


def test_the_train_split_is_used(folder):
    save(folder / "train/cat/1.png")
    save(folder / "test/cat/2.png")
    data = open_images(folder, 8)
    assert len(data) == 1 and data.class_names == ("cat",)


def test_train_may_be_a_class(folder):
    for name in ("train/1.png", "bus/1.png"):
        save(folder / name)
    assert open_images(folder, 8, class_folder="first").class_names == ("bus", "train")


def test_unreadable_formats_are_reported(folder):
    save(folder / "a/1.png")
    (folder / "a/IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match="IMG_0001.HEIC"):
        open_images(folder, 8)
    data = open_images(folder, 8, skip_bad=True)
    assert len(data) == 1 and len(data.skipped) == 1


def write_table(folder, kind, rows):
    """metadata.csv or metadata.jsonl."""
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
        return
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "classes,names,ids", [(("tabby", "ñandú"), ("tabby", "ñandú"), [0, 1]), ((10, 9), ("9", "10"), [1, 0])]
)
def test_metadata(folder, kind, classes, names, ids):
    for k, name in enumerate(("a b.png", "sub/ü.png", "not listed.png")):
        save(folder / name, np.full((8, 8), 100 * k, dtype=np.uint8))
    rows = [{"file_name": f, "label": c} for f, c in zip(("a b.png", "sub/ü.png"), classes)]
    write_table(folder, kind, rows)
    data = open_images(folder, 8, channels=1)
    assert data.class_names == names and len(data) == 2
    x, labels = BatchReader(data)([0, 1])
    assert labels.tolist() == ids
    assert np.allclose(x.mean((1, 2, 3)), [-1, 100 / 127.5 - 1])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("classes", [("cat", None), (3, None)])
def test_metadata_with_a_label_missing(folder, kind, classes):
    for name in ("a.png", "b.png"):
        save(folder / name)
    write_table(folder, kind, [{"file_name": f, "label": c} for f, c in zip(("a.png", "b.png"), classes)])
    with pytest.raises(ValueError, match="label.*image 1"):
        open_images(folder, 8)


def test_nan_is_a_missing_label():
    with pytest.raises(ValueError, match="label.*image 1"):
        _number_classes([1.0, float("nan"), 2.0])


def test_metadata_that_names_a_missing_file(folder):
    save(folder / "a.png")
    write_table(
        folder, "csv", [{"file_name": "a.png", "label": "x"}, {"file_name": "gone.png", "label": "x"}]
    )
    with pytest.raises(ValueError, match="gone.png"):
        open_images(folder, 8)
    assert len(open_images(folder, 8, skip_bad=True)) == 1


def test_metadata_without_classes(folder):
    save(folder / "a.png")
    write_table(folder, "csv", [{"file_name": "a.png", "text": "a cat"}])
    assert open_images(folder, 8).class_names == ()


@pytest.mark.parametrize("text", ["", "name,label\na.png,1\n", "\0\1\2"])
def test_invalid_metadata(folder, text):
    save(folder / "a.png")
    (folder / "metadata.csv").write_text(text)
    with raises_input_error(f"table {folder / 'metadata.csv'}.*images"):
        open_images(folder, 8)


def test_missing_and_empty_folders(folder):
    with pytest.raises(ValueError, match="data folder .*images"):
        open_images(folder, 8)
    with pytest.raises(ValueError, match="dogs"):
        open_images(folder / "dogs", 8)
    with pytest.raises(ValueError, match="size"):
        open_images(folder)


def test_digits():
    data = open_images("digits")
    assert isinstance(data, ImageSet) and len(data) == 1437 and data.class_names == tuple("0123456789")
    assert len(open_images("digits", 8, 1)) == 1437
    with pytest.raises(ValueError, match="size.*64.*8"):
        open_images("digits", 64)


# Data sets of the Hub: parquet files with the images inside


def as_parquet(path, columns, features, split="train"):
    """A folder as downloaded from the Hub."""
    path.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(
        path / f"{split}-00000.parquet"
    )
    return f"hub:{path}"


def encoded(level, size=8):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), level, dtype=np.uint8)).save(file, "png")
    return {"bytes": file.getvalue(), "path": f"{level}.png"}


@pytest.mark.parametrize("image,label", [("image", "label"), ("img", "fine_label")])
def test_hub(tmp_path, image, label):
    kinds = {
        "id": datasets.Value("int64"),
        image: datasets.Image(),
        label: datasets.ClassLabel(names=["tabby", "lynx", "never"]),
    }
    name = as_parquet(
        tmp_path / "cats", {"id": [5, 6], image: [encoded(0), encoded(255)], label: [1, 0]}, kinds
    )
    data = open_images(name, 8, channels=1)
    assert data.class_names == ("tabby", "lynx", "never"), "as declared, whether they occur or not"
    x, labels = BatchReader(data)([0, 1])
    assert labels.tolist() == [1, 0] and torch.equal(x.mean((1, 2, 3)), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    "values,names,ids", [(["b", "a", "b"], ("a", "b"), [1, 0, 1]), ([7, 11, 7], ("7", "11"), [0, 1, 0])]
)
def test_hub_with_plain_labels(tmp_path, values, names, ids):
    kind = datasets.Value("string" if isinstance(values[0], str) else "int64")
    columns = {"image": [encoded(k) for k in range(3)], "label": values}
    data = open_images(as_parquet(tmp_path / "x", columns, {"image": datasets.Image(), "label": kind}), 8)
    assert data.class_names == names and data.labels.tolist() == ids


def test_hub_splits(tmp_path):
    kinds = {"image": datasets.Image()}
    name = as_parquet(tmp_path / "x", {"image": [encoded(1)] * 3}, kinds)
    as_parquet(tmp_path / "x", {"image": [encoded(2)] * 2}, kinds, split="test")
    assert [len(open_images(name + at, 8)) for at in ("", "@test", "@train[:2]")] == [3, 2, 2]
    with pytest.raises(ValueError, match="hub:.*@nonsense.*nonsense"):
        open_images(name + "@nonsense", 8)
    only = as_parquet(tmp_path / "y", {"image": [encoded(2)] * 4}, kinds, split="test")
    assert len(open_images(only, 8)) == 4
    as_parquet(tmp_path / "y", {"image": [encoded(2)] * 4}, kinds, split="validation")
    with pytest.raises(ValueError, match="train.*(test, validation|validation, test)"):
        open_images(only, 8)


def test_hub_configurations(tmp_path):
    root = tmp_path / "x"
    for config in ("small", "large"):
        as_parquet(root, {"image": [encoded(1)] * len(config)}, {"image": datasets.Image()}, split=config)
    parts = "".join(f"- config_name: {c}\n  data_files: {c}-00000.parquet\n" for c in ("small", "large"))
    (root / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    assert len(open_images(f"hub:{root}:large", 8)) == 5
    assert len(open_images(f"hub:{root}:small@train[:50%]", 8)) in (2, 3)
    with pytest.raises(ValueError, match="hub:.*(large|small)"):
        open_images(f"hub:{root}", 8)


def test_hub_without_images_or_labels(tmp_path):
    with pytest.raises(ValueError, match="column.*text"):
        open_images(as_parquet(tmp_path / "x", {"text": ["a"]}, {"text": datasets.Value("string")}), 8)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])}
    name = as_parquet(tmp_path / "y", {"image": [encoded(1)], "label": [-1]}, kinds)
    with pytest.raises(ValueError, match="column label"):
        open_images(name, 8)


def test_hub_out_of_reach():
    with pytest.raises(ValueError, match="data hub:nobody/nothing") as caught:
        open_images("hub:nobody/nothing", 8)
    assert "\n" not in str(caught.value)


# Broken files


def halves(path, keep=0.5):
    full = path.read_bytes()
    path.write_bytes(full[: int(len(full) * keep)])
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_cut_off_files_are_found_before_training(folder, kind, keep):
    save(folder / f"cats/good.{kind}")
    bad = halves(save(folder / f"cats/ö bad.{kind}"), keep)
    with pytest.raises(ValueError, match=f"image {bad} .*skip_bad") as caught:
        open_images(folder, 8)
    assert "\n" not in str(caught.value)
    data = open_images(folder, 8, skip_bad=True)
    assert len(data) == 1 and len(data.skipped) == 1 and str(bad) in data.skipped[0]
    assert BatchReader(data)([0])[0].isfinite().all()


def test_labels_follow_when_some_are_skipped(folder):
    for i in range(6):
        save(folder / "ab"[i % 2] / f"{i}.png", np.full((8, 8), 40 * i, dtype=np.uint8))
    for name in ("a/0.png", "b/3.png"):
        halves(folder / name)
    data = open_images(folder, 8, channels=1, skip_bad=True)
    x, labels = BatchReader(data)(range(4))
    shown = ((x.mean((1, 2, 3)) + 1) * 127.5 / 40).round().int().tolist()
    assert (
        sorted(shown) == [1, 2, 4, 5] and labels.tolist() == [i % 2 for i in shown] and len(data.skipped) == 2
    )
    with pytest.raises(ValueError, match="all 2 .*skip_bad"):
        open_images(folder, 8)


def test_a_class_must_keep_an_image(folder):
    save(folder / "a/1.png")
    halves(save(folder / "b/1.png"))
    with pytest.raises(ValueError, match="class b"):
        open_images(folder, 8, skip_bad=True)


def test_nothing_can_be_read(folder):
    halves(save(folder / "1.png"))
    with pytest.raises(ValueError, match="none of 1 images"):
        open_images(folder, 8, skip_bad=True)


def test_a_broken_image_in_a_table_is_named_by_its_number(tmp_path):
    columns = {"image": [encoded(1), {"bytes": b"junk", "path": "1.png"}]}
    name = as_parquet(tmp_path / "x", columns, {"image": datasets.Image()})
    with pytest.raises(ValueError, match="image 1 of the data set"):
        open_images(name, 8)
    assert len(open_images(name, 8, skip_bad=True)) == 1


def test_a_file_that_breaks_after_opening(folder):
    path = save(folder / "1.png")
    data = open_images(folder, 8)
    halves(path)
    with pytest.raises(ValueError, match=f"^image {path} [^\n]*$"):
        BatchReader(data)([0])
    path.unlink()
    with pytest.raises(ValueError, match=f"^image {path} [^\n]*$"):
        data[0]


def test_images_are_checked_once_until_one_changes(folder, monkeypatch):
    path = save(folder / "1.png")
    save(folder / "2.png")
    read = []
    monkeypatch.setattr(image_check, "read_image", lambda *a: read.append(a))
    for expected in (2, 2):
        open_images(folder, 8)
        assert len(read) == expected
    os.utime(path, (1, 1))
    open_images(folder, 8)
    assert len(read) == 3, "only that one"


def test_a_repaired_file_is_checked_again(folder):
    path = halves(save(folder / "1.png"))
    with pytest.raises(ValueError):
        open_images(folder, 8)
    path.unlink()
    save(path)
    os.utime(path, (2, 2))
    assert len(open_images(folder, 8)) == 1


PNG, JPEG = io.BytesIO(), io.BytesIO()
TAGS = Image.Exif()
TAGS[ORIENTATION] = 6
for file, kind in ((PNG, "png"), (JPEG, "jpeg")):
    Image.fromarray(noise(12, 16, 3)).save(file, kind, exif=TAGS, icc_profile=swapped_profile())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PNG, JPEG]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_give_an_image_or_a_value_error(file, place, junk):
    """Bytes overwritten in tags, profile or pixels: never anything but an image or a ValueError."""
    data = bytearray(file.getvalue())
    place %= len(data)
    data[place : place + len(junk)] = junk
    try:
        image = image_check._read_cell({"bytes": bytes(data), "path": None}, 3, 8)
    except ValueError as error:
        assert str(error).startswith("image 3 of the data set ")
    else:
        assert image.mode == "RGB" and min(image.size) >= 1


# In use


def test_worker_processes_read_the_same(folder):
    for i in range(4):
        save(folder / "ab"[i % 2] / f"{i}.png", noise(20, 30, 3, seed=i))
    data = open_images(folder, 8)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(BatchReader(copy)([0, 1, 2, 3])[0], BatchReader(data)([0, 1, 2, 3])[0])
    x, labels = next(iter(DataLoader(data, batch_size=4, num_workers=1)))
    assert torch.equal(x, BatchReader(data)([0, 1, 2, 3])[0]) and labels.tolist() == data.labels.tolist()


# Arguments


def test_folder_that_is_a_file(folder):
    path = save(folder / "a.png")
    with raises_input_error(f"{path}"):
        open_images(path, 8)


def test_folder_without_images(folder):
    (folder / "cats").mkdir()
    (folder / "cats" / "notes.txt").write_text("meow")
    with raises_input_error(f"data folder {folder}"):
        open_images(folder, 8)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("keep", [20, 500])
def test_a_file_with_only_its_first_bytes_is_named(folder, kind, keep):
    save(folder / f"cats/good.{kind}")
    bad = save(folder / f"cats/bad.{kind}")
    bad.write_bytes(bad.read_bytes()[:keep])
    with raises_input_error(f"image {bad}"):
        open_images(folder, 8)


@pytest.mark.parametrize(
    "options,pattern",
    [
        ({"channels": 2}, "channels.*2"),
        ({"size": 0}, "size.*0"),
        ({"size": 8.0}, r"size.*8\.0"),
        ({"size": True}, "size.*True"),
    ],
)
def test_arguments_that_do_not_fit(folder, options, pattern):
    save(folder / "cats" / "a.png")
    with raises_input_error(pattern):
        open_images(folder, **{"size": 8, **options})


def test_the_bars_of_datasets_are_hidden_while_a_table_is_read_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("dit_nb.image_files._bar_visible", lambda shown: False)
    seen = []
    monkeypatch.setattr(
        "dit_nb.image_files._hub_table", lambda *_: seen.append(datasets.are_progress_bars_disabled())
    )
    before = datasets.are_progress_bars_disabled()
    with pytest.raises(AttributeError):  # the stand-in returns no table
        open_images(f"hub:{tmp_path}", 8)
    assert seen == [True] and datasets.are_progress_bars_disabled() == before
