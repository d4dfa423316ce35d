"""Explorer of lesson 03: which pixels are in which token."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor

from dit_nb.data import running_emoji, sample_photo
from dit_nb.errors import UserError
from dit_nb.patchify import grid_size, patchify, unpatchify
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops, switch
from dit_nb.visual import COLORS, _to_pixels, figure, show_image

__all__ = ["explore_patchify"]


def _source_indices(patchify: Callable, shape: tuple[int, ...], p: int) -> Tensor:  # (T, p*p*C)
    """For each number of each token, its index in the flattened image: patchify an image of 0, 1, 2, ..."""
    wanted = (1, prod(grid_size(shape[-2:], p)), p * p * shape[1])
    tokens = patchify(torch.arange(prod(shape), dtype=torch.float64).view(*shape), p)
    if getattr(tokens, "shape", None) != wanted:
        got = tuple(getattr(tokens, "shape", ())) or type(tokens).__name__
        raise UserError(f"patchify returned {got}, but must return a tensor of shape {wanted}.")
    return tokens[0].long()


def _show_patches(ax, image: Tensor, mask: Tensor, p: int, token: int) -> None:
    """The image (1, C, H, W), darkened where `mask` is 0, with patch borders and some patch numbers."""
    (height, width), (rows, columns) = image.shape[-2:], grid_size(image.shape[-2:], p)
    show_image(ax, ((image + 1) * (0.6 + 0.4 * mask) - 1)[0])
    ax.hlines(np.arange(1, rows) * p - 0.5, -0.5, width - 0.5, color=COLORS["x_t"], lw=1)
    ax.vlines(np.arange(1, columns) * p - 0.5, -0.5, height - 0.5, color=COLORS["x_t"], lw=1)
    count = rows * columns
    numbered = set(range(count)) if count <= 16 else {*range(columns), *range(0, count, columns)}
    box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
    for k in {token} | numbered if columns <= 16 else {token}:
        x, y = (k % columns + 0.5) * p - 0.5, (k // columns + 0.5) * p - 0.5
        ax.text(x, y, k, ha="center", va="center", color=COLORS["x_t"], fontsize=9, bbox=box)


def _outline(ax, region: np.ndarray, color: str) -> tuple[float, float]:
    """Draw the border of the pixels (H, W) that are true; return the upper right corner of the first ones."""
    padded = np.pad(region, 1)
    y, x = np.nonzero(padded[1:] != padded[:-1])
    ax.hlines(y - 0.5, x - 1.5, x - 0.5, color=color, lw=2)
    y, x = np.nonzero(padded[:, 1:] != padded[:, :-1])
    ax.vlines(x - 0.5, y - 1.5, y - 0.5, color=color, lw=2)
    top = np.argmax(region.any(1))
    return np.flatnonzero(region[top])[-1] + 0.5, top - 0.5


def _show_tokens(ax, tokens: Tensor, channels: int, token: int, color: str) -> None:
    """The tokens (1, T, p*p*C) as rows of pixels, all darkened but one, which is framed."""
    _, count, width = tokens.shape
    pixels = _to_pixels(rearrange(tokens[0], "t (pixel c) -> c t pixel", c=channels))
    pixels[np.arange(count) != token] *= 0.6
    lines = pixels.repeat(6, axis=0)
    if count <= 64:
        lines[5::6] = 1  # a white line below each token
    box = (-0.5, width // channels - 0.5, count - 0.5, -0.5)
    ax.imshow(lines, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=box)
    frame = Rectangle(
        (box[0], token - 0.5),
        box[1] - box[0],
        1,
        fill=False,
        ec=color,
        lw=2.5 if count <= 16 else 1,
        clip_on=False,
    )
    ax.add_patch(frame)
    for k in range(count) if count <= 16 else [token]:
        ax.text(box[1], k, f" {k}", va="center")
    drawn = f", drawn as {width // channels} pixels" if channels > 1 else ""
    ax.set(xticks=[], yticks=[], xlabel=f"{width} numbers per token{drawn}")
    ax.spines[:].set_visible(False)


def _plot_patchify(
    image: Tensor,
    p: int = 2,
    token: int = 5,
    swapped: bool = False,
    wrong: bool = False,
    patchify: Callable = patchify,
) -> Figure:
    """Show an image with its patches, its tokens, and the tokens as an image again; one token is highlighted."""
    grid, channels = grid_size(image.shape[-2:], p), image.shape[1]
    if not 0 <= token < prod(grid):
        raise UserError(f"token is {token}, but must be below {prod(grid)}, the number of tokens.")
    reshaped = torch.arange(image.numel()).view(prod(grid), -1)
    indices = reshaped if wrong else _source_indices(patchify, image.shape, p)
    tokens = image.flatten()[indices][None]  # (1, T, p*p*C)
    mask = torch.zeros(image.numel()).index_fill(0, indices[token], 1).view_as(image)
    new_grid = grid[::-1] if swapped else grid
    again = unpatchify(tokens, new_grid, p)
    (x, y), new_corner = (((token % n) * p, token // n * p) for n in (grid[1], new_grid[1]))
    is_square = bool(mask[..., y : y + p, x : x + p].all() and mask.sum() == p * p * channels)
    is_image = torch.equal(again, image)
    fig, axes = figure(1, 3, (9, 3.3))
    _show_patches(axes[0, 0], image, mask, p, token)
    color = COLORS["x_t" if is_square else "wrong"]
    _show_tokens(axes[0, 1], tokens, channels, token, color)
    show_image(axes[0, 2], again[0])
    start = (x + p - 0.5, y - 0.5) if is_square else _outline(axes[0, 0], mask[0].amax(0).numpy() > 0, color)
    for ax, corner in [(axes[0, 0], (x, y)), (axes[0, 2], new_corner)][0 if is_square else 1 :]:
        corner = (corner[0] - 0.5, corner[1] - 0.5)
        ax.add_patch(Rectangle(corner, p, p, fill=False, ec=color, lw=2.5, clip_on=False))
    ends = {"coordsA": axes[0, 0].transData, "coordsB": axes[0, 1].transData}
    link = ConnectionPatch(start, (-0.5, token), **ends, color=color, lw=2)
    link.set_in_layout(False)
    fig.add_artist(link)
    shape = f"{new_grid[0]} x {new_grid[1]}"
    titles = {
        f"pixels of token {token}: {'its patch' if is_square else 'NOT its patch'}": is_square,
        f"tokens {tuple(indices.shape)}": True,
        f"reassembled as {shape}: {'the image' if is_image else 'NOT the image'}": is_image,
    }
    for ax, (title, is_right) in zip(axes[0], titles.items()):
        ax.set_title(title, fontsize=10, color="black" if is_right else COLORS["wrong"])
    fig.alt_text = ". ".join(titles) + "."
    return fig


def explore_patchify(image: Tensor | None = None, patchify: Callable = patchify) -> Explorer:
    """Explore which pixels are in which token, and what a wrong order does.

    Args:
        image: image, (1, C, H, W) in [-1, 1]; a bundled photograph and the running emoji by default
        patchify: function (images, patch size) -> tokens to show; the library's by default

    Raises:
        UserError: if the image is too small to have six patches
    """
    square = running_emoji()[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    images = {"48 x 64": sample_photo("china.jpg", (48, 64)), "64 x 64": square}
    images = images if image is None else {"yours": image}
    *_, height, width = next(iter(images.values())).shape
    sizes = [p for p in range(1, 33) if height % p == width % p == 0 and height * width > 5 * p * p]
    if not sizes:
        raise UserError(f"image has {height}x{width} pixels, but must have 6 or more.")
    return Explorer(
        lambda name, **values: _plot_patchify(images[name], patchify=patchify, **values),
        "patches and tokens",
        """
        1. *Raise the token from 5 to 9.* One row of the grid has four tokens: the patch moves down by one.
        2. *Swap rows and columns; then choose the image of 64 x 64.* The photo falls apart, though each patch
           is intact. A square image, here the emoji at twice its size, hides the mistake.
        3. *Switch the mistake on.* Token 5 holds twelve rows of the green channel. Yet the shape is right,
           and reshaping back gives the image.
        """,
        name=choice("image", list(images), list(images)[0]),
        p=stops("patch size", sizes, sizes[-1]),
        token=slider(
            "token", 0, height * width // sizes[-1] ** 2 - 1, 5
        ),  # exists for the largest patches too
        swapped=switch("swap rows and columns"),
        wrong=mistake("reshape without permute"),
    )
