"""Five pictures to play with, one for each of the lessons 01 to 06."""

from collections.abc import Callable
from math import prod

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, show_matrix


def compare_positions(
    table: Tensor,  # (T, dim) one address for each patch
    token: int,  # the one that all are compared with
) -> Tensor:  # (3, T): by the first half, by the second half, by the whole
    "Dot products of one address with all, so that the token itself gets 1."
    first, second = (2 * half @ half[token] / half.shape[1] for half in table.double().chunk(2, dim=1))
    return torch.stack([first, second, (first + second) / 2])


def plot_positions(
    grid: tuple[int, int] = (12, 16),  # rows and columns of patches
    token: int = 86,  # the one that all are compared with
    dim: int = 64,  # width of an address
    max_period: float = 10000.0,
    wrong: bool = False,  # the grid is handed over as (columns, rows)
    sincos_2d: Callable = sincos_2d,  # (grid, dim) -> (T, dim)
) -> Figure:
    "How alike one address and all others are: by each half, and by the whole."
    options = {} if max_period == 10000 else {"max_period": max_period}
    table = sincos_2d(grid[::-1] if wrong else grid, dim, **options)
    if tuple(table.shape) != (prod(grid), dim):
        raise ValueError(f"positions have shape {tuple(table.shape)}, but must be {(prod(grid), dim)}.")
    row, column = divmod(token, grid[1])
    fig, axes = figure(1, 3, (9, 2.8))
    fig.get_layout_engine().set(rect=(0, 0.08, 1, 0.83))  # room for titles, whatever the grid
    titles = ("by the first half: the column", "by the second half: the row", "by the whole address")
    for ax, alike, title in zip(axes[0], compare_positions(table, token), titles):
        options = {"vmin": 0.5, "vmax": 1, "colorbar": None, "aspect": "equal"}
        artist = show_matrix(ax, alike.view(grid), title, **options)
        ax.plot(column, row, "s", mfc="none", mec="black", ms=9, mew=2)
        ax.set(xticks=[], yticks=[])
    asked = f"token {token}: row {row}, column {column}"
    axes[0, 0].set_xlabel(asked)
    if wrong and grid[0] != grid[1]:
        axes[0, 2].set_title(f"addresses of a {grid[1]} x {grid[0]} grid", fontsize=10, color=COLORS["wrong"])
    fig.colorbar(artist, ax=axes, shrink=0.9, extend="min", ticks=[0.5, 1], label="similarity to the token")
    fig.words = f"How alike the addresses of {asked} and of all others are, by column, by row, and by both."
    return fig


GRIDS = {"12 x 16": (12, 16), "14 x 14": (14, 14)}


def explore_positions(
    sincos_2d: Callable = sincos_2d,  # (grid, dim) -> (T, dim); with max_period, if that is to be turned
) -> Explorer:
    "Which places look alike to attention."
    tries = [
        ("Raise the token from 86 to 102.", "16 tokens make a row: the cross moves down by one."),
        (
            "Lower max_period to 1.",
            "All waves are equally fast: every 6 places the address comes back, nearly.",
        ),
        (
            "Switch the mistake on; then choose 14 x 14.",
            "The cross breaks. On a square grid nothing is seen.",
        ),
    ]
    return Explorer(
        lambda grid, **values: plot_positions(GRIDS[grid], sincos_2d=sincos_2d, **values),
        "who is near whom",
        tries,
        grid=choice("grid", list(GRIDS), "12 x 16"),
        token=slider("token", 0, 191, 86),
        dim=stops("width", [8, 16, 32, 64, 128, 256], 64),
        max_period=stops("max_period", [1.0, 10.0, 100.0, 1000.0, 10000.0], 10000.0),
        wrong=mistake("the grid as (columns, rows)"),
    )
