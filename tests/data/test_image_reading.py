"""One image file: formats, transparency, bit depth, profile, orientation, and very large or long images."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dit_nb.batches import BatchReader
from dit_nb.data import _center_crop
from dit_nb.image_files import open_images
from dit_nb.image_reading import read_image
from support_data import random_pixels, swapped_profile, write_image

ORIENTATION = 0x0112  # number of the EXIF tag


# Square images of the requested size must stay unchanged, so that every pixel can be predicted.


def bytes_of(folder, size, channels=3):
    """The pixels of the only image in a folder as the model receives them, in bytes: (H, W) or (H, W, 3)."""
    data = open_images(folder, size, channels)
    assert len(data) == 1
    x = BatchReader(data)([0])[0]
    assert x.shape == (1, channels, size, size) and x.dtype == torch.float32
    levels = ((x[0] + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(levels - levels.round()).max() < 1e-3
    return levels.round().astype(int).squeeze(-1) if channels == 1 else levels.round().astype(int)


def test_rgb_is_unchanged(folder):
    array = random_pixels(16, 16, 3)
    write_image(folder / "a.png", array)
    assert np.array_equal(bytes_of(folder, 16), array)


def test_gray_becomes_three_equal_channels(folder):
    array = random_pixels(16, 16)
    write_image(folder / "a.png", array)
    assert np.array_equal(bytes_of(folder, 16), np.stack([array] * 3, -1))
    assert np.array_equal(bytes_of(folder, 16, channels=1), array)


def test_color_becomes_luma(folder):
    array = random_pixels(16, 16, 3)
    write_image(folder / "a.png", array)
    luma = array @ np.array([0.299, 0.587, 0.114])
    assert np.abs(bytes_of(folder, 16, channels=1) - luma).max() <= 1


def over_white(color, alpha):
    return color * (alpha / 255.0) + 255 * (1 - alpha / 255.0)


def test_rgba_is_composited_on_white(folder):
    array = random_pixels(16, 16, 4)
    write_image(folder / "a.png", array)
    expected = over_white(array[..., :3], array[..., 3:])
    assert np.abs(bytes_of(folder, 16) - expected).max() <= 1


def test_transparent_pixels_do_not_bleed_when_enlarged(folder):
    array = np.zeros((4, 4, 4), dtype=np.uint8)  # black, but transparent
    write_image(folder / "a.png", array)
    assert (bytes_of(folder, 32) == 255).all()


def test_gray_with_alpha_is_composited_on_white(folder):
    array = random_pixels(16, 16, 2)
    write_image(
        folder / "a.png", Image.merge("LA", [Image.fromarray(array[..., k].copy()) for k in range(2)])
    )
    expected = over_white(array[..., 0], array[..., 1])
    assert np.abs(bytes_of(folder, 16, channels=1) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_palette_with_one_transparent_color(folder, kind):
    index = random_pixels(16, 16) % 4
    image = Image.fromarray(index)
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert image.mode == "P"
    write_image(folder / f"a.{kind}", image, transparency=2)
    colors = np.array([[10, 20, 30], [200, 0, 0], [255, 255, 255], [0, 0, 200]])
    assert np.array_equal(bytes_of(folder, 16), colors[index])


def test_palette_with_half_transparent_colors(folder):
    index = random_pixels(16, 16) % 2
    image = Image.fromarray(index)
    image.putpalette([100, 0, 0, 0, 100, 0])
    write_image(folder / "a.png", image, transparency=bytes([51, 255]))  # the first is a fifth opaque
    colors = np.array([[224, 204, 204], [0, 100, 0]])
    assert np.abs(bytes_of(folder, 16) - colors[index]).max() <= 1


def test_rgb_with_a_transparent_color(folder):
    array = random_pixels(16, 16, 3)
    array[3, 5] = (1, 2, 3)
    write_image(folder / "a.png", array, transparency=(1, 2, 3))
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
        write_image(path, array)
    assert np.array_equal(bytes_of(folder, 16, channels=1), np.round(array / 65535 * 255).astype(int))


def test_floating_point_pixels_raise(folder):
    path = write_image(folder / "a.tiff", np.random.default_rng(0).random((16, 16)).astype(np.float32))
    with pytest.raises(ValueError, match=f"{path}.*floating-point"):
        open_images(folder, 16)


def test_one_bit(folder):
    array = random_pixels(16, 16) > 127
    write_image(folder / "a.png", Image.fromarray(array))
    assert np.array_equal(bytes_of(folder, 16, channels=1), array * 255)


def test_cmyk_without_a_profile(folder):
    array = np.tile(random_pixels(2, 2, 4), (8, 8, 1)).reshape(2, 8, 2, 8, 4)[:, :1, :, :1]  # four colors
    array = np.repeat(np.repeat(array.reshape(2, 2, 4), 8, 0), 8, 1)  # in blocks of 8 pixels: JPEG keeps them
    write_image(folder / "a.jpg", Image.fromarray(array, "CMYK"), quality=100)
    ink = array.astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(bytes_of(folder, 16) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["png", "jpg", "tiff"])
def test_colors_are_converted_by_the_profile(folder, kind):
    array = np.zeros((16, 16, 3), dtype=np.uint8) + np.array([220, 40, 90], dtype=np.uint8)
    write_image(folder / f"a.{kind}", array, icc_profile=swapped_profile())
    assert np.abs(bytes_of(folder, 16) - (40, 220, 90)).max() <= 4


@pytest.mark.parametrize("profile", [b"", b"nonsense" * 40])
def test_a_broken_profile_is_ignored(folder, profile):
    array = random_pixels(16, 16, 3)
    write_image(folder / "a.png", array, icc_profile=profile)
    assert np.array_equal(bytes_of(folder, 16), array)


def test_srgb_is_unchanged(folder):
    array = random_pixels(16, 16, 3)
    write_image(
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
    array = np.kron(
        random_pixels(2, 2, 3), np.ones((8, 8, 1), dtype=np.uint8)
    )  # JPEG keeps blocks of 8 pixels
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    write_image(
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
    write_image(folder / f"a.{kind}", first, save_all=True, append_images=rest)
    assert np.abs(bytes_of(folder, 16, channels=1) - 60).max() <= 1


def test_a_tiny_image_is_enlarged_smoothly(folder):
    write_image(folder / "a.png", np.array([[0, 255], [0, 255]], dtype=np.uint8))
    row = bytes_of(folder, 64, channels=1)[32]
    assert row[0] == 0 and row[-1] == 255 and (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 20, "no jump"
    assert abs(row[31] + row[32] - 255) <= 1, "half gray in the middle"


def test_one_pixel(folder):
    write_image(folder / "a.png", np.array([[[7, 8, 9]]], dtype=np.uint8))
    assert (bytes_of(folder, 16) == (7, 8, 9)).all()


@pytest.mark.parametrize("wide", [True, False])
def test_a_strip_of_one_by_five_thousand(folder, wide):
    ramp = np.zeros((1, 5000), dtype=np.uint8)
    ramp[0, 2500:] = 200  # the edge lies exactly in the middle
    write_image(folder / "a.png", ramp if wide else ramp.T)
    pixels = bytes_of(folder, 256, channels=1)
    across = pixels if wide else pixels.T
    assert (np.ptp(across, axis=0) == 0).all()
    assert abs(across[0, 127] + across[0, 128] - 200) <= 1 and across[0, 0] < across[0, 255]


def test_a_huge_photo_opens(folder):
    """180 megapixels: more than Pillow opens by itself."""
    assert 13400**2 > 2 * 89478485
    image = Image.new("L", (13400, 13400), 70)
    image.paste(190, (0, 0, 6700, 13400))
    write_image(folder / "a.jpg", image, quality=50)
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
    read_image(write_image(folder / "a.png"), 8)
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("size,exact", [(64, False), (256, True)])
def test_jpeg_drafts_are_close_to_full_decoding(folder, size, exact):
    i, j = np.mgrid[:1024, :1400]
    waves = 127 + 60 * np.sin(i / 9) + 60 * np.cos(j / 23)
    path = write_image(folder / "a.jpg", waves.astype(np.uint8), quality=95)
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


def test_a_long_crop_keeps_more_of_a_long_image():
    """The ends are cut off at 8 short sides for a square crop, at 64 for one of 1 : 8."""
    for size, width in ((8, 80), ((4, 32), 500)):
        file = io.BytesIO()
        Image.new("L", (500, 10), 90).save(file, "png")
        assert read_image(file, size).size == (width, 10)
