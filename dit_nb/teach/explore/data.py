"""Explorers of lesson 01: the range of the pixels against noise, and from a photograph to a training image."""

from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from torch import Tensor

from dit_nb.data import _center_crop, _to_tensor, digits, running_example
from dit_nb.objective import Diffusion
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops, switch
from dit_nb.utils import randn
from dit_nb.visual import COLORS, figure, show_image

__all__ = ["explore_crop", "explore_range"]

_RANGES = {"0 to 0.1": (0.0, 0.1), "0 to 1": (0.0, 1.0), "-1 to 1": (-1.0, 1.0)}


def _scale(images: Tensor, low: float, high: float) -> Tensor:
    """Map values from [-1, 1] to [low, high]."""
    return low + (images + 1) / 2 * (high - low)


def _plot_range(
    diffusion: Diffusion, example: Tensor, pixels: Tensor, t: int, scale: str, wrong: bool
) -> Figure:
    """Show a digit in a range, the same with the noise of t, and the histograms of its two parts."""
    low, high = (0.0, 255.0) if wrong else _RANGES[scale]
    bar, color = float(diffusion.alphas_cumprod[t]), COLORS["wrong" if wrong else "x_t"]
    x0 = _scale(example, low, high)
    noise = randn(x0.shape, torch.Generator().manual_seed(0))
    x_t = bar**0.5 * x0 + (1 - bar) ** 0.5 * noise
    signal = bar**0.5 * _scale(pixels, low, high)  # what is left of all pixels
    share = float(signal.var() / (signal.var() + 1 - bar))
    fig, (axes,) = figure(1, 3, (9, 2.9), width_ratios=[1, 1, 2])
    middle, half = (high + low) / 2, (high - low) / 2
    show_image(axes[0], (x0[0] - middle) / half, "clean")
    width = bar**0.5 * half + (1 - bar) ** 0.5  # of image and noise: black to gray in the figure
    show_image(axes[1], (x_t[0] - bar**0.5 * middle) / width, f"noise of t = {t}")
    edges = np.linspace(-3.5, max(3.5, 1.05 * bar**0.5 * high), 60)
    noises = (1 - bar) ** 0.5 * randn((20_000,), torch.Generator().manual_seed(1))
    for values, shade in ((noises, COLORS["eps"]), (signal.flatten(), color)):
        heights = np.histogram(values.numpy(), edges, density=True)[0]
        axes[2].stairs(heights, edges, fill=True, color=shade, alpha=0.6)
    axes[2].set(xlabel="value: image in blue, noise in orange", yticks=[], ylabel="density")
    title = f"{100 * share:.1f} % of the variance is image" + (" (bytes)" if wrong else f" ({scale})")
    axes[2].set_title(title, fontsize=10, color=color if wrong else "black")
    fig.alt_text = f"A digit, clean and with the noise of t = {t}; histograms of image and noise: {title}."
    return fig


def explore_range() -> Explorer:
    """Explore how soon an image disappears in noise, for several ranges of its pixels."""
    return Explorer(
        partial(_plot_range, Diffusion(), running_example()[0], digits().train.images),
        "the range of the pixels, against noise of variance 1",
        """
        1. *Move t from 0 to 999.* The image disappears gradually: at t = 200 half of the variance is image, at
           t = 600 less than 2 %.
        2. *Set the range to 0 to 0.1, and t to 100.* After a tenth of the timesteps only 1 % of the variance is image.
        3. *Switch the mistake on, at t = 999.* Bytes never disappear: a quarter of the variance is still image.
        """,
        t=slider("t", 0, 999, 200),
        scale=stops("range", list(_RANGES), "-1 to 1"),
        wrong=mistake("bytes from 0 to 255 as they are"),
    )


def _bundled_photos() -> dict:
    """Load the two photographs that come with scikit-learn, as PIL images by name."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("flower", "china")}


def _crop_photo(photo, size: int, place: float = 0, average: bool = True, squash: bool = False):
    """Crop as `_center_crop` does, but with a movable frame and two possible mistakes."""
    (width, height), side = photo.size, min(photo.size)
    left, top = (round((length - side) * (1 + place) / 2) for length in photo.size)
    box = (0, 0, width, height) if squash else (left, top, side, side)
    if squash or not average:
        kept = photo.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        return kept.resize((size, size), 3 if average else 0), box  # bicubic, or nearest pixel
    # `_center_crop` keeps the middle: give it as much photo on one side of the frame as on the other.
    right, low = width - left - side, height - top - side
    x, y = min(left, right) + 1, min(top, low) + 1
    even = (left - min(x, left), top - min(y, top), left + side + min(x, right), top + side + min(y, low))
    return _center_crop(photo.crop(even), size), box


def _plot_crop(photos, name: str, size: int, place=0.0, average: bool = True, wrong: bool = False) -> Figure:
    """Show a photo with the crop frame, the training image, and a histogram of its values."""
    photo, color = photos[name], COLORS["wrong" if wrong else "x_t"]
    square, (left, top, width, height) = _crop_photo(photo, size, place, average, wrong)
    pixels, kept = np.asarray(photo), np.s_[top : top + height, left : left + width]
    shown, image = 160 + pixels // 8 * 3, _to_tensor(square)  # pale outside the frame
    shown[kept] = pixels[kept]
    fig, axes = figure(1, 3, (9, 3.3), width_ratios=[1.5, 1.1, 1])
    axes[0, 0].imshow(shown, interpolation="nearest")
    axes[0, 0].add_patch(Rectangle((left, top), width, height, fill=False, ec=color, lw=3, clip_on=False))
    show_image(axes[0, 1], image)
    circle = 0.8 * min(photo.size)
    middles = (left + width / 2, top + height / 2), ((size - 1) / 2, (size - 1) / 2)
    for ax, middle, x, y in zip(axes[0], middles, (1, size / width), (1, size / height)):
        ax.add_patch(Ellipse(middle, circle * x, circle * y, fill=False, ec="white", lw=2, ls="--"))
    counts, edges = np.histogram(image, 32, (-1, 1))
    axes[0, 2].stairs(100 * counts / image.numel(), edges, fill=True, color=color)
    axes[0, 2].set(xlim=(-1.1, 1.1), xticks=[-1, 0, 1], ylim=(0, 30), yticks=[0, 30])
    axes[0, 2].set(xlabel="pixel value", ylabel="% of all values")
    axes[0, 0].set(xticks=[], yticks=[])
    squashed = f"squashed: {width / height:.2f} : 1 becomes 1 : 1"
    middle_title = squashed if wrong else f"training image, {size} x {size}"
    titles = (f"photo, {photo.size[1]} x {photo.size[0]}", middle_title, f"its {image.numel()} values")
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=10, color=color if wrong and title == squashed else "black")
    fig.alt_text = f"{titles[0]}, with a frame; {middle_title}; a histogram of {titles[2]} from -1 to 1."
    return fig


def explore_crop(photo=None) -> Explorer:
    """Explore how a photo of any shape becomes a square of numbers from -1 to 1.

    Args:
        photo: PIL image of yours; two bundled photographs by default
    """
    photos = _bundled_photos() if photo is None else {"yours": photo.convert("RGB")}
    for image in photos.values():
        image.thumbnail((640, 640))  # a large photo takes long to draw
    return Explorer(
        partial(_plot_crop, photos),
        "from a photo to a training image",
        """
        1. *Move the frame to -1, then to 1.* The shorter side is always kept in full; only the longer side is
           cropped.
        2. *Switch the averaging off.* Edges turn jagged, and a model would learn to reproduce that.
        3. *Switch the mistake on.* Nothing is cropped, but the circle becomes an ellipse.
        """,
        name=choice("photo", list(photos), list(photos)[0]),
        size=stops("size", [16, 32, 64, 128, 256], 64),
        place=slider("frame position", -1.0, 1.0, 0.0, 0.1),
        average=switch("average pixels", True),
        wrong=mistake("squash the photo into the square"),
    )
