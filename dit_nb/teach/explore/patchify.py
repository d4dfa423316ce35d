"""Five pictures to play with, one for each of the lessons 01 to 06."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor

from dit_nb.data import sample_photo
from dit_nb.patchify import grid_size, patchify, unpatchify
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops, switch
from dit_nb.visual import COLORS, figure, show_image, to_pixels


def bundled_photos() -> dict:  # name -> PIL image
    "The two photographs that come with scikit-learn."
    from PIL import Image
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("flower", "china")}


def sources(
    cut: Callable,  # a `patchify`: (N, C, H, W), patch size -> (N, T, p*p*C)
    shape: tuple[int, ...],  # (1, C, H, W)
    p: int,  # side of a patch
) -> Tensor:  # (T, p*p*C) whole numbers: where each number of a token stood in the image
    "Ask a function where it takes its numbers from: it cuts an image of 0, 1, 2, ..."
    wanted = (1, prod(grid_size(shape[-2:], p)), p * p * shape[1])
    tokens = cut(torch.arange(prod(shape), dtype=torch.float64).view(*shape), p)
    if getattr(tokens, "shape", None) != wanted:
        got = tuple(getattr(tokens, "shape", ())) or type(tokens).__name__
        raise ValueError(f"patchify returned {got}, but must return a tensor of shape {wanted}.")
    return tokens[0].long()


def show_cut(
    ax,  # matplotlib axes
    image: Tensor,  # (1, C, H, W)
    lit: Tensor,  # like image: 1 where a number is in the marked token, otherwise 0
    p: int,  # side of a patch
    token: int,  # the marked one
) -> None:
    "An image, dark but for a token, the cuts between its patches, and the numbers of some of them."
    (height, width), (rows, columns) = image.shape[-2:], grid_size(image.shape[-2:], p)
    show_image(ax, ((image + 1) * (0.4 + 0.6 * lit) - 1)[0])
    ax.hlines(np.arange(1, rows) * p - 0.5, -0.5, width - 0.5, color=COLORS["x_t"], lw=1)
    ax.vlines(np.arange(1, columns) * p - 0.5, -0.5, height - 0.5, color=COLORS["x_t"], lw=1)
    edge = (
        set(range(rows * columns))
        if rows * columns <= 16
        else {*range(columns), *range(0, rows * columns, columns)}
    )
    for k in {token} | edge if columns <= 16 else {token}:
        x, y = (k % columns + 0.5) * p - 0.5, (k // columns + 0.5) * p - 0.5
        ax.text(x, y, k, ha="center", va="center", color="white", fontsize=9)


def show_tokens(
    ax,  # matplotlib axes
    tokens: Tensor,  # (1, T, p*p*C)
    channels: int,  # C
    token: int,  # the marked one
) -> None:
    "The tokens as rows of pixels, dark but for one."
    _, count, width = tokens.shape
    pixels = to_pixels(rearrange(tokens[0], "t (pixel c) -> c t pixel", c=channels))
    pixels[np.arange(count) != token] *= 0.4
    lines = pixels.repeat(6, axis=0)
    if count <= 64:
        lines[5::6] = 1  # a white line below each token
    box = (-0.5, width // channels - 0.5, count - 0.5, -0.5)
    ax.imshow(lines, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=box)
    for k in range(count) if count <= 16 else [token]:
        ax.text(box[1], k, f" {k}", va="center")
    ax.set(
        xticks=[],
        yticks=[],
        xlabel=f"{width // channels} pixels in a row, {channels} number{'s' * (channels > 1)} each",
    )
    ax.spines[:].set_visible(False)


def plot_patchify(
    image: Tensor,  # (1, C, H, W)
    p: int = 2,  # side of a patch, in pixels
    token: int = 5,  # the one that is marked
    swapped: bool = False,  # lay the tokens out in W/p rows and H/p columns
    wrong: bool = False,  # reshape, and nothing else
    patchify: Callable = patchify,  # (images, patch size) -> tokens
) -> Figure:
    "An image with its patches, its tokens, one of them marked in both, and the tokens as an image again."
    grid, channels = grid_size(image.shape[-2:], p), image.shape[1]
    if not 0 <= token < prod(grid):
        raise ValueError(f"token is {token}, but there are {prod(grid)}, counted from 0.")
    where = torch.arange(image.numel()).view(prod(grid), -1) if wrong else sources(patchify, image.shape, p)
    tokens = image.flatten()[where][None]  # (1, T, p*p*C)
    lit = torch.zeros(image.numel()).index_fill(0, where[token], 1).view_as(image)
    back = grid[::-1] if swapped else grid
    again = unpatchify(tokens, back, p)
    (x, y), place = (((token % n) * p, token // n * p) for n in (grid[1], back[1]))
    is_square = bool(lit[..., y : y + p, x : x + p].all() and lit.sum() == p * p * channels)
    is_image = torch.equal(again, image)
    fig, axes = figure(1, 3, (9, 3.3))
    show_cut(axes[0, 0], image, lit, p, token)
    show_tokens(axes[0, 1], tokens, channels, token)
    show_image(axes[0, 2], again[0])
    for ax, corner in zip(axes[0, [0, 2]], ((x, y), place)):
        corner = (corner[0] - 0.5, corner[1] - 0.5)
        ax.add_patch(Rectangle(corner, p, p, fill=False, ec=COLORS["eps"], lw=2.5, clip_on=False))
    ends = {"coordsA": axes[0, 0].transData, "coordsB": axes[0, 1].transData}
    link = ConnectionPatch((x + p - 0.5, y - 0.5), (-0.5, token), **ends, color=COLORS["eps"], lw=2)
    link.set_in_layout(False)
    fig.add_artist(link)
    titles = {
        f"lit: token {token}, {'its square' if is_square else 'NOT its square'}": is_square,
        f"tokens {tuple(where.shape)}": True,
        f"laid out as {back[0]} x {back[1]}: {'the image' if is_image else 'NOT the image'}": is_image,
    }
    for ax, (title, fine) in zip(axes[0], titles.items()):
        ax.set_title(title, fontsize=10, color="black" if fine else COLORS["wrong"])
    fig.words = ". ".join(titles) + "."
    return fig


def explore_patchify(
    image: Tensor | None = None,  # (1, C, H, W) in [-1, 1]; two photos by default
    patchify: Callable = patchify,  # (images, patch size) -> tokens; the picture shows what it does
) -> Explorer:
    "Which pixels are in which token, and what comes of a wrong order."
    square = sample_photo("flower.jpg", (64, 96))[..., 16:80]
    images = {"48 x 64": sample_photo("china.jpg", (48, 64)), "64 x 64": square}
    images = images if image is None else {"yours": image}
    *_, height, width = next(iter(images.values())).shape
    cuts = [p for p in range(1, 33) if height % p == width % p == 0 and height * width > 5 * p * p]
    if not cuts:
        raise ValueError(f"image has {height}x{width} pixels, but must have 6 or more.")
    tries = [
        (
            "Raise the token from 5 to 9.",
            "Four tokens make a line of patches: the lit square moves down by one.",
        ),
        (
            "Swap rows and columns; then choose the image of 64 x 64.",
            "The photo falls apart, though each patch is whole. A square image hides the mistake.",
        ),
        (
            "Switch the mistake on.",
            "Token 5 is twelve whole lines of green. Yet the shape is right, and reshaping back gives the image.",
        ),
    ]
    return Explorer(
        lambda name, **values: plot_patchify(images[name], patchify=patchify, **values),
        "patches and tokens",
        tries,
        name=choice("image", list(images), list(images)[0]),
        p=stops("patch size", cuts, cuts[-1]),
        token=slider("token", 0, height * width // cuts[-1] ** 2 - 1, 5),  # even the largest patches have it
        swapped=switch("swap rows and columns"),
        wrong=mistake("reshape without permute"),
    )
