"""Explorer of lesson 05: the sinusoidal timestep embedding, and which timesteps it distinguishes."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.conditioning import timestep_embedding
from dit_nb.errors import UserError
from dit_nb.teach.explore.core import Explorer, mistake, slider, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_timestep"]


def _show_phases(ax, table: Tensor, steps: dict[int, str], count: int = 8) -> None:
    """Unit circles of `count` frequencies, high to low, with arms for some timesteps (timestep -> color).

    The table (1000, dim) holds cosines, then sines; gray dots are the phases of all 1000 timesteps.
    """
    half = table.shape[1] // 2
    channels = [round(i * (half - 1) / (count - 1)) for i in range(count)]
    middles, nan = 2.7 * torch.arange(count), torch.full((count,), torch.nan)  # NaN interrupts a line
    x, y = table[:, channels] + middles, table[:, [half + i for i in channels]]  # (1000, count)
    ax.plot(x.flatten(), y.flatten(), ".", ms=2, color="#CCCCCC")
    for step, color in steps.items():
        across, up = torch.stack([middles, x[step], nan], 1), torch.stack([0 * middles, y[step], nan], 1)
        ax.plot(across.flatten(), up.flatten(), color=color, lw=2.5)
    for middle, channel in zip(middles.tolist(), channels):
        ax.text(middle, -1.2, f"channel {channel}", ha="center", va="top", fontsize=9)
    ax.set(xlim=(-1.3, 2.7 * (count - 1) + 1.3), ylim=(-1.6, 1.1), aspect="equal")
    ax.axis("off")


def _plot_timestep(
    t: int, other: int, dim: int, max_period: float, wrong: bool, timestep_embedding: Callable
) -> Figure:
    """Show the phases of two timesteps at eight frequencies, and the similarity of t with all timesteps."""
    steps, color = torch.arange(1000), COLORS["wrong" if wrong else "cond"]
    table = timestep_embedding(steps / 1000 if wrong else steps, dim, max_period)  # (1000, dim)
    if tuple(table.shape) != (1000, dim):
        raise UserError(
            f"timestep_embedding returned {tuple(table.shape)} for 1000 timesteps, but must return {(1000, dim)}."
        )
    similarity = torch.cosine_similarity(table, table[t : t + 1])
    fig, axes = figure(2, 1, (9, 3.8), height_ratios=[1.15, 1.2])
    _show_phases(axes[0, 0], table, {other: COLORS["gray"], t: color})
    axes[1, 0].plot(similarity, color=color)
    for step, shade in ((other, COLORS["gray"]), (t, color)):
        axes[1, 0].plot(step, similarity[step], "o", color=shade)
    axes[1, 0].axhline(0, color="#CCCCCC", lw=0.8, zorder=0)
    axes[1, 0].set(xlim=(-5, 1004), ylim=(-0.8, 1.15), xticks=[0, 500, 999], yticks=[0, 1])
    axes[1, 0].set(xlabel="other timestep", ylabel="cosine similarity")
    title = (
        f"t = {t} and {other}: similarity {similarity[other]:.2f}, the mean cosine of the phase differences"
    )
    axes[0, 0].set_title(title, fontsize=10, color=color if wrong else "black")
    lowest = f"The timestep least similar to t has {similarity.min():.2f}."
    fig.alt_text = f"Eight of {dim // 2} frequencies. {title}. {lowest}"
    return fig


def explore_timestep(timestep_embedding: Callable = timestep_embedding) -> Explorer:
    """Explore the timestep embedding, and which timesteps it distinguishes.

    Args:
        timestep_embedding: function (t, dim, max_period) -> (N, dim); the library's by default
    """
    return Explorer(
        lambda **values: _plot_timestep(timestep_embedding=timestep_embedding, **values),
        "a timestep as phases at several frequencies",
        """
        1. *Set the other t to 301.* Only high frequencies register one step; the similarity is 0.97.
        2. *Lower the width to 16.* With 8 frequencies distant timesteps look similar: far from t the curve
           rises to 0.72.
        3. *Switch the mistake on.* Phases hardly move in 1000 steps, and all timesteps look the same.
        """,
        t=slider("t", 0, 999, 300),
        other=slider("other t", 0, 999, 320),
        dim=stops("width", [16, 32, 64, 128, 256, 512], 256),
        max_period=stops("max_period", [10.0, 100.0, 1000.0, 10000.0, 100000.0], 10000.0),
        wrong=mistake("t from 0 to 1"),
    )
