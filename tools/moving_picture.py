"""Make nbs/images/denoising.gif: the bundled model samples one digit of each class, x_t above, predicted x_0 below.

Usage: python tools/moving_picture.py
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from dit_nb.pretrained import digit_model, sample_images

OUT = Path(__file__).resolve().parent.parent / "nbs" / "images" / "denoising.gif"
SIDE, GAP, LEFT, TOP = 48, 4, 110, 22  # pixels: an image, the space between two, the labels


def sample_frames(seed: int = 1) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Timestep, x_t and predicted x_0 of ten digits at every second step; the finished samples at the end."""
    model, sampling = digit_model()
    frames = []
    samples = sample_images(
        model,
        sampling,
        torch.arange(10),
        seed=seed,
        progress=False,
        callback=lambda step: frames.append((step.t, step.x_t, step.prediction.x0)),
    )
    return [*frames[::2], (0, samples, samples)]


def paste_row(canvas: Image.Image, images: torch.Tensor, y: int) -> None:
    """Ten images in a row."""
    for k, image in enumerate(images):
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        tile = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        canvas.paste(tile, (LEFT + k * (SIDE + GAP), y))


def draw_frame(t: int, x_t: torch.Tensor, x0: torch.Tensor, name: str) -> Image.Image:
    """One frame, on white."""
    size = (LEFT + 10 * (SIDE + GAP), TOP + 2 * (SIDE + GAP))
    canvas, font = Image.new("L", size, 255), ImageFont.load_default(14)
    draw = ImageDraw.Draw(canvas)
    draw.text((LEFT, 2), name, fill=0, font=font)
    draw.text((4, TOP + SIDE // 2 - 8), "x_t", fill=0, font=font)
    draw.text((4, TOP + SIDE + GAP + SIDE // 2 - 8), "predicted x_0", fill=0, font=font)
    paste_row(canvas, x_t, TOP)
    paste_row(canvas, x0, TOP + SIDE + GAP)
    return canvas.point(lambda level: round(level / 17) * 17)  # 16 gray levels: a quarter of the bytes


def main() -> None:
    """Write the moving picture."""
    steps = sample_frames()
    frames = [
        draw_frame(*step, f"t = {step[0]}" if i + 1 < len(steps) else "done") for i, step in enumerate(steps)
    ]
    durations = [220] * (len(frames) - 1) + [2500]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    print(f"{OUT.name}: {len(frames)} frames, {OUT.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
