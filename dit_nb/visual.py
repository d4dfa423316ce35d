"""Plots that the lessons share: images, heat maps, losses, and figures with an alternative text."""

import inspect
import textwrap
from collections.abc import Callable
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.errors import UserError
from dit_nb.image_range import _check_no_bytes

__all__ = [
    "COLORS",
    "figure",
    "plot_classes",
    "plot_denoising",
    "plot_images",
    "plot_loss",
    "show_image",
    "show_matrix",
    "show_source",
]

# One color for each quantity, in all figures (Okabe and Ito's palette, distinct for color-blind readers).
COLORS = {
    "x_t": "#0072B2",  # blue: images, noised or clean
    "eps": "#E69F00",  # orange: noise
    "velocity": "#5D3A00",  # brown: velocities, noise minus clean image
    "cond": "#009E73",  # green: timestep, label, and their embeddings
    "gate": "#AA4499",  # purple: gates
    "wrong": "#D55E00",  # vermillion: mistakes
    "gray": "#777777",  # gray: references and everything else
}


class _AltTextFigure(Figure):
    """A figure with an alternative text, for screen readers and programs."""

    _alt_text = ""

    @property
    def alt_text(self) -> str:
        """The text that was set, or else one made from titles and axis labels."""
        return self._alt_text or _describe(self)

    @alt_text.setter
    def alt_text(self, text: str) -> None:
        self._alt_text = text

    def _repr_mimebundle_(self, **_):
        return {"text/plain": self.alt_text}, {"image/png": {"alt": self.alt_text}}


def _describe(fig: Figure) -> str:
    """Titles and axis labels of a figure, as a sentence for each panel."""
    title = fig.get_suptitle()
    parts = [f"{title}." if title else "Figure."]
    for ax in fig.axes:
        across, up = ax.get_xlabel(), ax.get_ylabel()
        axes = " against ".join(label for label in (up, across) if label)
        name = ": ".join(part for part in (ax.get_title().replace("\n", " "), axes) if part)
        parts += [f"{name}."] if name else []
    return " ".join(dict.fromkeys(parts))


def figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.2), **options
) -> tuple[_AltTextFigure, np.ndarray]:
    """Start a figure that Jupyter shows as the last value of a cell; return it and its axes, (rows, columns).

    Its attribute `alt_text` is the alternative text; set it if titles and labels do not say enough.

    Args:
        rows: rows of axes
        columns: columns of axes
        size: width and height in inches
        **options: passed to `plt.subplots`
    """
    options = {"squeeze": False, "layout": "constrained", "FigureClass": _AltTextFigure, **options}
    fig, axes = plt.subplots(rows, columns, figsize=size, **options)
    plt.close(fig)  # else Jupyter would show it a second time
    return cast(_AltTextFigure, fig), axes


def _to_pixels(image: Tensor) -> np.ndarray:
    """Convert an image (C, H, W) in [-1, 1] to what matplotlib expects: (H, W) or (H, W, 3) in [0, 1]."""
    array = ((image.detach().cpu().float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array[..., :3]


def show_image(ax, image: Tensor, title: str = "", signed: bool = False, limit: float = 1.0):
    """Plot one image on given axes, without ticks, and return the artist.

    Args:
        ax: matplotlib axes
        image: (C, H, W), in [-1, 1] unless `signed`
        title: title of the axes
        signed: show the first channel in a color map centered at 0, for noise and differences
        limit: absolute value that gets the strongest color, if `signed`

    Raises:
        UserError: if the image holds bytes, 0 to 255
    """
    if signed:
        data = image.detach().cpu().float()[0].numpy()
        artist = ax.imshow(data, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        _check_no_bytes(image, "image")
        artist = ax.imshow(_to_pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    return artist


def plot_images(
    images: Tensor,
    titles: list[str] | None = None,
    columns: int | None = None,
    row_titles: list[str] | None = None,
    signed: bool = False,
    limit: float = 1.0,
    size: float = 1.1,
    title: str = "",
) -> Figure:
    """Images side by side.

    Args:
        images: (N, C, H, W), in [-1, 1] unless `signed`
        titles: one title for each image
        columns: images in a row; all in one row by default
        row_titles: one label for each row, at its left
        signed: show the first channel in a color map centered at 0, for noise and differences
        limit: absolute value that gets the strongest color, if `signed`
        size: width and height of one image in inches
        title: title of the figure

    Raises:
        UserError: if the images are bytes, 0 to 255
    """
    if not signed:
        _check_no_bytes(images, "images")
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    titled = sum(any(titles[r * columns : (r + 1) * columns]) for r in range(rows)) if titles else 0
    height = rows * size + 0.25 * titled + 0.35 * bool(title)
    longest = max((len(line) for name in row_titles or [] for line in name.split("\n")), default=0)
    is_upright = longest < 4 or 0.09 * longest > 1.5 * size  # a turned label would reach into the next row
    beside = max(0.6, 0.09 * longest if is_upright else 0) * bool(row_titles)
    fig, axes = figure(rows, columns, (columns * size + beside, height))
    for i, ax in enumerate(axes.flat):
        if i >= len(images):
            ax.axis("off")
            continue
        artist = show_image(ax, images[i], titles[i] if titles else "", signed, limit)
        if row_titles and i % columns == 0:
            name = row_titles[i // columns]
            upright = {"rotation": 0, "ha": "right", "va": "center"} if is_upright or len(name) < 4 else {}
            ax.set_ylabel(name, fontsize=10, **upright)
    if signed:
        fig.colorbar(artist, ax=axes, shrink=0.8)
    fig.suptitle(title, fontsize=11)
    named = [name.replace("\n", " ") for name in [*(row_titles or []), *(titles or [])] if name]
    count = f"{len(images)} images in {rows} rows" if rows > 1 else f"{len(images)} images in a row"
    fig.alt_text = ": ".join(part for part in (title, count, ", ".join(named)) if part) + "."
    return fig


def show_matrix(
    ax,
    matrix: Tensor,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    signed: bool = False,
    limit: float | None = None,
    colorbar: str | None = "",
    **options,
):
    """Plot a heat map on given axes, and return the artist. Zero is white: in grays, or in red and blue if `signed`.

    Args:
        ax: matplotlib axes
        matrix: (rows, columns)
        title: title of the axes
        xlabel: label of the columns
        ylabel: label of the rows
        signed: use a color map centered at 0
        limit: absolute value that gets the strongest color, if `signed`; by default the largest one
        colorbar: label of the color bar; None for no color bar
        **options: passed to `imshow`
    """
    matrix = torch.as_tensor(matrix).detach().cpu().float()
    if signed:
        limit = float(matrix.abs().max()) if limit is None else limit
        options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, **options}
    options = {"aspect": "auto", "interpolation": "nearest", "cmap": "Greys", **options}
    artist = ax.imshow(matrix.numpy(), **options)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=10)
    if colorbar is not None:
        ax.figure.colorbar(artist, ax=ax, label=colorbar)
    return artist


def plot_classes(images: Tensor, labels: Tensor, names: tuple[str, ...], per_class: int = 12) -> Figure:
    """A row of images for each class.

    Args:
        images: (N, C, H, W) in [-1, 1]
        labels: (N,) class of each image, 0 to K-1
        names: K class names
        per_class: images in a row

    Raises:
        UserError: if a class has fewer than `per_class` images
    """
    rows = [images[labels == k][:per_class] for k in range(len(names))]
    fewest = min(map(len, rows))
    if fewest < per_class:
        raise UserError(f"per_class is {per_class}, but must be at most {fewest} for these labels.")
    fig = plot_images(torch.cat(rows), columns=per_class, row_titles=list(names), size=0.62)
    fig.alt_text = f"{per_class} images of each of the classes {', '.join(names)}."
    return fig


def plot_denoising(frames: Tensor, titles: list[str]) -> Figure:
    """Sampling from noise to image: a row for each of N images, a titled column for each of F steps.

    Args:
        frames: (F, N, C, H, W) in [-1, 1]
        titles: F column titles
    """
    images = frames.transpose(0, 1).flatten(0, 1)  # image by image, all its steps
    titles = [*titles, *[""] * (len(images) - len(titles))]
    return plot_images(images, titles, columns=len(frames), size=0.8)


def plot_loss(history: dict[str, list[float]], window: int = 50) -> Figure:
    """The training loss: mean squared error of the noise, and the bound that trains the variance.

    Args:
        history: each loss by name, per step: `trainer.progress.history`, with mse and vb
        window: steps in the moving average, at most a quarter of the history
    """
    fig, axes = figure(1, 2, (9, 3))
    window = max(1, min(window, len(history["mse"]) // 4))
    panels = (
        ("squared error of the noise", "per pixel", "mse", COLORS["eps"]),
        ("variational bound", "bits per dimension", "vb", "black"),
    )
    for ax, (title, unit, name, color) in zip(axes[0], panels):
        smooth = np.convolve(history[name], np.ones(window) / window, "valid")
        ax.plot(history[name], color=color, alpha=0.35, lw=0.6)
        ax.plot(np.arange(len(smooth)) + window - 1, smooth, color=color)
        ax.set(title=title, xlabel="training step", ylabel=unit, yscale="log")
        ax.grid(alpha=0.3)
    return fig


def show_source(*functions: Callable) -> object:
    """The source code of functions, methods or classes of the package, as Markdown for a notebook."""
    from IPython.display import Markdown

    sources = [textwrap.dedent(inspect.getsource(function)).rstrip() for function in functions]
    return Markdown("```python\n" + "\n\n\n".join(sources) + "\n```")
