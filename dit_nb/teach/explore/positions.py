"""Explorer of lesson 04: similarity of position embeddings."""

from collections.abc import Callable
from math import prod

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.errors import UserError
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, show_matrix

__all__ = ["explore_positions"]


def _similarities(table: Tensor, token: int) -> Tensor:  # (3, T)
    """Dot products of one embedding of (T, dim) with all: first half, second half, both; 1 for the token itself."""
    first, second = (2 * half @ half[token] / half.shape[1] for half in table.double().chunk(2, dim=1))
    return torch.stack([first, second, (first + second) / 2])


def _plot_positions(
    grid: tuple[int, int], token: int, dim: int, max_period: float, wrong: bool, sincos_2d: Callable
) -> Figure:
    """Show how similar one token's position embedding is to all others: by each half, and in full."""
    options = {} if max_period == 10000 else {"max_period": max_period}
    table = sincos_2d(grid[::-1] if wrong else grid, dim, **options)
    if tuple(table.shape) != (prod(grid), dim):
        raise UserError(f"positions have shape {tuple(table.shape)}, but must be {(prod(grid), dim)}.")
    row, column = divmod(token, grid[1])
    fig, axes = figure(1, 3, (9, 2.8))
    fig.get_layout_engine().set(rect=(0, 0.08, 1, 0.83))  # space for titles, whatever the grid
    titles = ("first half: the column", "second half: the row", "full embedding")
    for ax, similarity, title in zip(axes[0], _similarities(table, token), titles):
        options = {"vmin": 0.5, "vmax": 1, "colorbar": None, "aspect": "equal"}
        artist = show_matrix(ax, similarity.view(grid), title, **options)
        ax.plot(column, row, "s", mfc="none", mec="black", ms=9, mew=2)
        ax.set(xticks=[], yticks=[])
    name = f"token {token}: row {row}, column {column}"
    axes[0, 0].set_xlabel(name)
    if wrong and grid[0] != grid[1]:
        title = f"embeddings of a {grid[1]} x {grid[0]} grid"
        axes[0, 2].set_title(title, fontsize=10, color=COLORS["wrong"])
    fig.colorbar(artist, ax=axes, shrink=0.9, extend="min", ticks=[0.5, 1], label="similarity to the token")
    fig.alt_text = (
        f"Similarity of the position embeddings of {name} and of all others: column, row, and both."
    )
    return fig


_GRIDS = {"12 x 16": (12, 16), "14 x 14": (14, 14)}


def explore_positions(sincos_2d: Callable = sincos_2d) -> Explorer:
    """Explore which positions look similar to attention.

    Args:
        sincos_2d: function (grid, dim) -> (T, dim), with a `max_period` if that control is used; the library's
            by default
    """
    return Explorer(
        lambda grid, **values: _plot_positions(_GRIDS[grid], sincos_2d=sincos_2d, **values),
        "which positions are similar",
        """
        1. *Raise the token from 86 to 102.* A row has 16 tokens: the cross moves down by one row.
        2. *Lower max_period to 1.* All sinusoids have the same frequency: the embedding nearly repeats every
           6 positions.
        3. *Switch the mistake on; then choose 14 x 14.* The cross breaks up. On a square grid the mistake is
           invisible.
        """,
        grid=choice("grid", list(_GRIDS), "12 x 16"),
        token=slider("token", 0, 191, 86),
        dim=stops("width", [8, 16, 32, 64, 128, 256], 64),
        max_period=stops("max_period", [1.0, 10.0, 100.0, 1000.0, 10000.0], 10000.0),
        wrong=mistake("pass the grid as (columns, rows)"),
    )
