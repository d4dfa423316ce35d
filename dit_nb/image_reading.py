"""One image file as it is meant to be seen: orientation, transparency, bit depth, color profile."""

import threading
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from dit_nb.errors import UserError

__all__ = ["read_image"]


def read_image(source, size: int | tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Read an image as it is meant to be seen: upright, on white, 8 bits per channel, sRGB. It is not cropped yet.

    A large JPEG is decoded at reduced resolution (at least `4 * size`), and the ends of a very long image are cut
    off; the center crop stays the same or nearly so. Pillow's limit of pixels is raised to 1000 million.

    Args:
        source: path of an image file, or a file that is open for reading
        size: side of the square, or height and width, that will be cropped from the image, in pixels
        mode: "RGB", or "L" for gray

    Raises:
        UserError: if the pixels are floating-point numbers. Pillow raises other errors if the file is broken.
    """
    sides = (size, size) if isinstance(size, int) else size
    with _open_large(source) as file:
        profile = file.info.get("icc_profile")
        file.draft(None, (4 * max(sides), 4 * max(sides)))  # before it is turned upright
        trimmed = _trim_ends(ImageOps.exif_transpose(file), ratio=8 * max(sides) / min(sides))
        image = _composite_on_white(_to_8bit(trimmed))
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


def _trim_ends(image: Image.Image, ratio: float = 8) -> Image.Image:
    "Cut both ends off an image whose long side exceeds `ratio` short sides. Its center crop stays the same."
    short, long = sorted(image.size)
    cut = int(max(0, long - ratio * short)) // 2
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
