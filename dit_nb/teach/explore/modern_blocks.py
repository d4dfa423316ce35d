"""Explorer of lesson 31: what a query finds by rotary positions alone."""

from collections.abc import Callable
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.since.blocks import axial_rope, rotate
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, show_matrix

__all__ = ["explore_modern_blocks"]

_GRID = (8, 12)


def _scores(
    rotate: Callable, width: int, theta: float, query: int, is_swapped: bool
) -> Tensor:  # (rows, columns)
    """Scores of one query and all keys, if all tokens hold the same numbers; 1 for the token itself."""
    cos, sin = axial_rope(_GRID[::-1] if is_swapped else _GRID, width, theta)
    same = torch.ones(1, 1, _GRID[0] * _GRID[1], width)
    turned = rotate(same, cos, sin)[0, 0]  # (T, d)
    return (turned @ turned[query] / width).view(_GRID)


def _plot_modern_blocks(
    rotate: Callable, row: int, column: int, width: int, theta: float, is_swapped: bool
) -> Figure:
    """Show the score of one query with every key, and along its row and its column."""
    scores = _scores(rotate, width, theta, row * _GRID[1] + column, is_swapped)
    fig, (axes,) = figure(1, 2, (9, 3.1), width_ratios=[1.3, 1])
    color = COLORS["wrong" if is_swapped else "x_t"]
    show_matrix(axes[0], scores, "score with the key at each place", signed=True, limit=1, aspect="equal")
    axes[0].plot(column, row, "s", mfc="none", mec=color, ms=13, mew=2.5)
    axes[0].set(xlabel="column", ylabel="row")
    axes[1].plot(torch.arange(_GRID[1]) - column, scores[row], "o-", color=color, label="along the row")
    axes[1].plot(
        torch.arange(_GRID[0]) - row,
        scores[:, column],
        "s--",
        color=color,
        mfc="none",
        label="along the column",
    )
    axes[1].set(xlabel="places from the query", ylim=(-1.1, 1.1), title="score against distance")
    axes[1].set_xlim(-_GRID[1], _GRID[1])
    axes[1].legend(fontsize=8, loc="lower left")
    axes[1].axhline(0, color=COLORS["gray"], lw=0.8)
    fig.alt_text = (
        f"Scores of the query in row {row}, column {column} with all keys of a grid of "
        f"{_GRID[0]} x {_GRID[1]}, from rotary positions alone, for heads of width {width}, theta {theta:g}"
        f"{', with rows and columns exchanged' if is_swapped else ''}. "
        f"One place to the right of column {min(column, _GRID[1] - 2)} the score is "
        f"{float(scores[row, min(column, _GRID[1] - 2) + 1]):.2f}."
    )
    return fig


def explore_modern_blocks(rotate: Callable = rotate) -> Explorer:
    """Explore the scores of rotary positions: all tokens hold the same numbers, only their places differ.

    Args:
        rotate: function with the signature of `dit_nb.since.blocks.rotate`, which is the default
    """
    return Explorer(
        partial(_plot_modern_blocks, rotate),
        "scores of rotary positions",
        """
        1. *Move the query.* The pattern moves with it: a score depends on the offset alone. Along the row it
           rises again six places away, where the fastest pair has almost made a full turn (6 of 6.28 rad).
        2. *Lower theta to 10.* All pairs turn, and places in another row and column get scores near 0. In
           the row or the column of the query half of the channels agree, and scores stay near 0.5. With
           10000 half of the pairs hardly turn on a grid of this size.
        3. *Switch the mistake on.* The table of a grid of 12 x 8 has as many tokens, so nothing fails. But
           the pattern no longer moves with the query, and three of its four neighbors get lower scores than
           places further away.
        """,
        row=slider("row", 0, _GRID[0] - 1, 3),
        column=slider("column", 0, _GRID[1] - 1, 4),
        width=choice("width of a head", [8, 16, 32, 64], 16),
        theta=stops("theta", [10.0, 100.0, 1000.0, 10000.0], 100.0),
        is_swapped=mistake("exchange height and width"),
    )
