"""The few plotting functions that all lessons share. A picture is a pure function of what it shows."""

import inspect
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

# One colour for one quantity, in all lessons; told apart by colour-blind eyes too (Okabe and Ito).
COLORS = {
    "x_t": "#0072B2",  # blue: images, noised or clean
    "eps": "#E69F00",  # orange: noise
    "cond": "#009E73",  # green: timestep, label, what they are turned into
    "gate": "#AA4499",  # purple: gates
    "wrong": "#D55E00",  # red: mistakes
    "grey": "#777777",
}


class Picture(Figure):
    "A figure that can be told in words: to those who do not see it, and to a program."

    words = ""  # set this where the titles do not say enough

    @property
    def alt(self) -> str:
        "The words, or what titles and labels say."
        return self.words or describe(self)

    def _repr_mimebundle_(self, **_):
        return {"text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def describe(
    fig: Figure,
) -> str:
    "Titles and axis labels of a figure, as a sentence for each panel."
    title = fig.get_suptitle()
    parts = [f"{title}." if title else "Figure."]
    for ax in fig.axes:
        across, up = ax.get_xlabel(), ax.get_ylabel()
        axes = " against ".join(label for label in (up, across) if label)
        name = ": ".join(part for part in (ax.get_title().replace("\n", " "), axes) if part)
        parts += [f"{name}."] if name else []
    return " ".join(dict.fromkeys(parts))


def figure(
    rows: int = 1,  # rows of axes
    columns: int = 1,  # columns of axes
    size: tuple[float, float] = (6.4, 3.2),  # width and height in inches
    **options,  # for plt.subplots
) -> tuple[Picture, np.ndarray]:  # the figure and its axes, (rows, columns)
    "Start a figure that is shown once, where it is the last value of a cell."
    options = {"squeeze": False, "layout": "constrained", "FigureClass": Picture, **options}
    fig, axes = plt.subplots(rows, columns, figsize=size, **options)
    plt.close(fig)  # else Jupyter would show it a second time
    return fig, axes


def to_pixels(
    image: Tensor,  # (C, H, W) in [-1, 1]
) -> np.ndarray:  # (H, W) or (H, W, 3) in [0, 1]
    "An image as matplotlib wants it."
    array = ((image.detach().cpu().float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array[..., :3]


def show_image(
    ax,  # matplotlib axes
    image: Tensor,  # (C, H, W)
    title: str = "",  # above the picture
    signed: bool = False,  # noise and differences: colours centred at 0, first channel only
    limit: float = 1.0,  # the number that gets the strongest colour, where signed
):  # the artist, for a colour bar
    "Draw one image on given axes, without ticks."
    if signed:
        data = image.detach().cpu().float()[0].numpy()
        artist = ax.imshow(data, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        artist = ax.imshow(to_pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
    return artist


def plot_images(
    images: Tensor,  # (N, C, H, W)
    titles: list[str] | None = None,  # one for each image
    columns: int | None = None,  # pictures in a row; all in one row by default
    row_titles: list[str] | None = None,  # one for each row, at its left
    signed: bool = False,  # noise and differences: colours centred at 0
    limit: float = 1.0,  # the number that gets the strongest colour, where signed
    size: float = 1.1,  # inches of one picture
    title: str = "",  # above all
) -> Figure:
    "Images side by side."
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    titled = sum(any(titles[r * columns : (r + 1) * columns]) for r in range(rows)) if titles else 0
    height = rows * size + 0.25 * titled + 0.35 * bool(title)
    fig, axes = figure(rows, columns, (columns * size + 0.6 * bool(row_titles), height))
    for i, ax in enumerate(axes.flat):
        if i >= len(images):
            ax.axis("off")
            continue
        artist = show_image(ax, images[i], titles[i] if titles else "", signed, limit)
        if row_titles and i % columns == 0:
            name = row_titles[i // columns]
            upright = {"rotation": 0, "ha": "right", "va": "center"} if len(name) < 4 else {}
            ax.set_ylabel(name, fontsize=10, **upright)
    if signed:
        fig.colorbar(artist, ax=axes, shrink=0.8)
    fig.suptitle(title, fontsize=11)
    named = [name.replace("\n", " ") for name in [*(row_titles or []), *(titles or [])] if name]
    count = f"{len(images)} pictures in {rows} rows" if rows > 1 else f"{len(images)} pictures in a row"
    fig.words = ": ".join(part for part in (title, count, ", ".join(named)) if part) + "."
    return fig


def show_matrix(
    ax,  # matplotlib axes
    matrix: Tensor,  # (rows, columns)
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    signed: bool = False,  # colours centred at 0; otherwise from dark to light
    limit: float | None = None,  # the number that gets the strongest colour, where signed
    colorbar: str | None = "",  # its label; None for no bar
    **options,  # for imshow
):  # the artist
    "A heat map on given axes."
    matrix = torch.as_tensor(matrix).detach().cpu().float()
    if signed:
        limit = float(matrix.abs().max()) if limit is None else limit
        options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, **options}
    options = {"aspect": "auto", "interpolation": "nearest", "cmap": "viridis", **options}
    artist = ax.imshow(matrix.numpy(), **options)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=10)
    if colorbar is not None:
        ax.figure.colorbar(artist, ax=ax, label=colorbar)
    return artist


def plot_classes(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    names: tuple[str, ...],  # K class names
    per_class: int = 12,  # pictures in a row
) -> Figure:
    "A row of samples for each class."
    rows = [images[labels == k][:per_class] for k in range(len(names))]
    if any(len(row) < per_class for row in rows):
        raise ValueError(f"per_class is {per_class}, but labels has a class with fewer images.")
    fig = plot_images(torch.cat(rows), columns=per_class, row_titles=list(names), size=0.62)
    fig.words = f"{per_class} pictures of each of the classes {', '.join(names)}."
    return fig


def plot_denoising(
    frames: Tensor,  # (F, N, C, H, W) the same N images at F moments
    titles: list[str],  # one for each moment
) -> Figure:
    "From noise to image: a column for each moment."
    images = frames.transpose(0, 1).flatten(0, 1)  # image by image, all its moments
    titles = [*titles, *[""] * (len(images) - len(titles))]
    return plot_images(images, titles, columns=len(frames), size=0.8)


def plot_loss(
    history: list[tuple[float, float, float]],  # (loss, mse, vb) of each step
    window: int = 50,  # steps that are averaged
) -> Figure:
    "How the loss fell: squared error of the noise, and the bound that trains the variance."
    fig, axes = figure(1, 2, (9, 3))
    rows = np.array(history)
    window = max(1, min(window, len(rows) // 4))
    panels = (
        ("squared error of the noise", "per pixel", 1, "eps"),
        ("variational bound", "bits per dimension", 2, "x_t"),
    )
    for ax, (title, unit, column, color) in zip(axes[0], panels):
        smooth = np.convolve(rows[:, column], np.ones(window) / window, "valid")
        ax.plot(rows[:, column], color=COLORS[color], alpha=0.35, lw=0.6)
        ax.plot(np.arange(len(smooth)) + window - 1, smooth, color=COLORS[color])
        ax.set(title=title, xlabel="training step", ylabel=unit, yscale="log")
        ax.grid(alpha=0.3)
    return fig


def show_source(
    *functions: Callable,  # functions or classes of the package
) -> object:  # an IPython Markdown
    "The source code of functions, to be read in a notebook."
    from IPython.display import Markdown

    sources = [inspect.getsource(function).rstrip() for function in functions]
    return Markdown("```python\n" + "\n\n\n".join(sources) + "\n```")
