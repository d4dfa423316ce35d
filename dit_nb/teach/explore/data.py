"""Five pictures to play with, one for each of the lessons 01 to 06."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from dit_nb.data import center_crop, to_tensor
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops, switch
from dit_nb.teach.explore.patchify import bundled_photos
from dit_nb.visual import COLORS, figure, show_image


def crop_photo(
    photo,  # a PIL image
    size: int,  # side of the square wanted, in pixels
    place: float = 0,  # where along the longer side: -1 start, 0 middle, 1 end
    average: bool = True,  # as `center_crop` does; otherwise every k-th pixel is kept
    squash: bool = False,  # WRONG: keep all, change the shape
):  # the PIL image of (size, size), and what it shows: (left, top, width, height)
    "The recipe of `center_crop`, with a frame that can be moved, and two ways to go wrong."
    (width, height), side = photo.size, min(photo.size)
    left, top = (round((length - side) * (1 + place) / 2) for length in photo.size)
    box = (0, 0, width, height) if squash else (left, top, side, side)
    if squash or not average:
        kept = photo.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        return kept.resize((size, size), 3 if average else 0), box  # cubic, or nearest pixel
    # With as much photo on one side of the frame as on the other (but for a pixel), it is in the middle.
    right, low = width - left - side, height - top - side
    x, y = min(left, right) + 1, min(top, low) + 1
    even = (left - min(x, left), top - min(y, top), left + side + min(x, right), top + side + min(y, low))
    return center_crop(photo.crop(even), size), box


def plot_crop(
    photos: dict,  # name -> PIL image
    name: str,  # which of them
    size: int,  # side of the training image, in pixels
    place: float = 0,  # see `crop_photo`, also for the others
    average: bool = True,
    wrong: bool = False,
) -> Figure:
    "A photo with its frame, the training image, and its numbers."
    photo, color = photos[name], COLORS["wrong" if wrong else "x_t"]
    square, (left, top, width, height) = crop_photo(photo, size, place, average, wrong)
    pixels, kept = np.asarray(photo), np.s_[top : top + height, left : left + width]
    shown, image = 160 + pixels // 8 * 3, to_tensor(square)  # pale, where nothing is kept
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
    axes[0, 2].set(xlabel="value of a pixel", ylabel="% of all")
    axes[0, 0].set(xticks=[], yticks=[])
    says = (
        f"squashed: {width / height:.2f} : 1 becomes 1 : 1" if wrong else f"training image, {size} x {size}"
    )
    titles = (f"photo, {photo.size[1]} x {photo.size[0]}", says, f"its {image.numel()} numbers")
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=10, color=color if wrong and title == says else "black")
    fig.words = f"{titles[0]}, with a frame; {says}; a histogram of {titles[2]} from -1 to 1."
    return fig


def explore_crop(
    photo=None,  # a PIL image of yours; two bundled ones by default
) -> Explorer:
    "How a photo of any shape becomes a square of numbers from -1 to 1."
    photos = bundled_photos() if photo is None else {"yours": photo.convert("RGB")}
    for picture in photos.values():
        picture.thumbnail((640, 640))  # a large photo takes long to draw
    tries = [
        ("Move the frame to -1, then to 1.", "The shorter side stays whole; only the longer one loses."),
        ("Switch the averaging off.", "Edges turn jagged: a model would learn to draw that."),
        ("Switch the mistake on.", "Nothing is cut away, but the circle is no circle any more."),
    ]
    return Explorer(
        partial(plot_crop, photos),
        "a photo becomes a training image",
        tries,
        name=choice("photo", list(photos), list(photos)[0]),
        size=stops("size", [16, 32, 64, 128, 256], 64),
        place=slider("frame", -1.0, 1.0, 0.0, 0.1),
        average=switch("average pixels", True),
        wrong=mistake("squash the photo into the square"),
    )
