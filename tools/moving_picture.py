"""Make the moving pictures of the front page, in nbs/images: x_t above, predicted x_0 below.

denoising.gif: the digit model samples one digit of each class. emoji.gif: the text model samples from prompts.
Usage: python tools/moving_picture.py [digits] [emoji]
"""

import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont

from dit_nb.pretrained import digit_model, sample_images, text_emoji_model

FOLDER = Path(__file__).resolve().parent.parent / "nbs" / "images"
GAP, LEFT, TOP = 4, 110, 22  # pixels: the space between two images, the labels
PROMPTS = [
    "3d smiling face with sunglasses",
    "flat cat face",
    "flat green apple",
    "3d hamburger",
    "flat watermelon",
    "3d panda face",
    "flat tomato",
    "flat purple heart",  # held out: the model was trained on the heart in 3D alone
]


class Frame(NamedTuple):
    """A moment of sampling: what to write above it, and images (N, C, H, W) in [-1, 1]."""

    name: str
    x_t: torch.Tensor
    x0: torch.Tensor


def sample_digits(seed: int = 1) -> list[Frame]:
    """Ten digits at every second of 50 steps; the finished samples at the end."""
    model, sampling = digit_model()
    frames = []
    samples = sample_images(
        model,
        sampling,
        torch.arange(10),
        seed=seed,
        progress=False,
        callback=lambda step: frames.append(Frame(f"t = {step.t}", step.x_t, step.prediction.x0)),
    )
    return [*frames[::2], Frame("done", samples, samples)]


def sample_emoji(seed: int = 2) -> list[Frame]:
    """One emoji for each prompt at each of 25 steps of a flow; the finished samples at the end."""
    model, sampling = text_emoji_model()
    frames = []

    def keep(step) -> None:
        frames.append(Frame(f"t = {step.t:.2f}", step.x_t, step.x_t - step.t * step.v))

    samples = sample_images(model, sampling, PROMPTS, seed=seed, progress=False, callback=keep)
    return [*frames, Frame("done", samples, samples)]


def paste_row(canvas: Image.Image, images: torch.Tensor, y: int, side: int) -> None:
    """Images in a row, each `side` pixels wide."""
    for k, image in enumerate(images):
        pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(tile, (LEFT + k * (side + GAP), y))


def draw_frame(frame: Frame, side: int, words: list[str], mode: str) -> Image.Image:
    """One frame, on white, with words below each image."""
    lines = [textwrap.wrap(word, 11) for word in words]
    bottom = 13 * max(map(len, lines), default=0)
    size = (LEFT + len(frame.x_t) * (side + GAP), TOP + 2 * (side + GAP) + bottom)
    canvas, font, small = (
        Image.new(mode, size, "white"),
        ImageFont.load_default(14),
        ImageFont.load_default(11),
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((LEFT, 2), frame.name, fill="black", font=font)
    for row, (name, images) in enumerate((("x_t", frame.x_t), ("predicted x_0", frame.x0))):
        y = TOP + row * (side + GAP)
        draw.text((4, y + side // 2 - 8), name, fill="black", font=font)
        paste_row(canvas, images, y, side)
    for k, line in enumerate(lines):
        x = LEFT + k * (side + GAP) + side // 2
        for row, part in enumerate(line):
            draw.text((x, TOP + 2 * (side + GAP) + 13 * row), part, fill="black", font=small, anchor="ma")
    return canvas


def save_film(frames: list[Image.Image], name: str, duration: int) -> None:
    """Write the frames, `duration` milliseconds each, the last for 2.5 seconds."""
    durations = [duration] * (len(frames) - 1) + [2500]
    FOLDER.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        FOLDER / name, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )
    print(f"{name}: {len(frames)} frames, {(FOLDER / name).stat().st_size // 1024} kB")


def make_palette(*frames: Image.Image, colors: int = 96) -> Image.Image:
    """An image whose palette has the colors of some frames, and white for what is nearly white."""
    both = Image.new("RGB", (frames[0].width, len(frames) * frames[0].height))
    for k, frame in enumerate(frames):
        both.paste(frame, (0, k * frame.height))
    palette = both.quantize(colors)
    values = palette.getpalette()[: 3 * colors]
    for k in range(0, len(values), 3):
        if min(values[k : k + 3]) > 245:
            values[k : k + 3] = [255, 255, 255]
    palette.putpalette(values)
    return palette


def main(names: list[str]) -> None:
    """Write the moving pictures."""
    if "digits" in names:
        frames = [draw_frame(frame, 48, [], "L") for frame in sample_digits()]
        # 16 gray levels: a quarter of the bytes
        save_film([f.point(lambda level: round(level / 17) * 17) for f in frames], "denoising.gif", 220)
    if "emoji" in names:
        frames = [draw_frame(frame, 64, PROMPTS, "RGB") for frame in sample_emoji()]
        palette = make_palette(frames[0], frames[-1])
        save_film([f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames], "emoji.gif", 220)


if __name__ == "__main__":
    main(sys.argv[1:] or ["digits", "emoji"])
