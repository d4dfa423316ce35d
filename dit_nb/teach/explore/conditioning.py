"""Five pictures to play with, one for each of the lessons 01 to 06."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.conditioning import timestep_embedding
from dit_nb.teach.explore.core import Explorer, mistake, slider, stops
from dit_nb.visual import COLORS, figure


def show_clocks(
    ax,  # matplotlib axes
    table: Tensor,  # (1000, dim) all timesteps: cosines, then sines
    steps: dict[int, str],  # timestep -> colour of its hands
    count: int = 8,  # clocks, from the fastest to the slowest
) -> None:
    "Clocks with the hands of some timesteps; grey is where the hands of all 1000 point."
    half = table.shape[1] // 2
    channels = [round(i * (half - 1) / (count - 1)) for i in range(count)]
    middles, nan = 2.7 * torch.arange(count), torch.full((count,), torch.nan)  # nan lifts the pen
    x, y = table[:, channels] + middles, table[:, [half + i for i in channels]]  # (1000, count)
    ax.plot(x.flatten(), y.flatten(), ".", ms=2, color="#CCCCCC")
    for step, color in steps.items():
        across, up = torch.stack([middles, x[step], nan], 1), torch.stack([0 * middles, y[step], nan], 1)
        ax.plot(across.flatten(), up.flatten(), color=color, lw=2.5)
    for middle, channel in zip(middles.tolist(), channels):
        ax.text(middle, -1.2, f"channel {channel}", ha="center", va="top", fontsize=9)
    ax.set(xlim=(-1.3, 2.7 * (count - 1) + 1.3), ylim=(-1.6, 1.1), aspect="equal")
    ax.axis("off")


def plot_timestep(
    t: int = 300,
    other: int = 320,  # the timestep that it is compared with
    dim: int = 256,  # width of the embedding
    max_period: float = 10000.0,
    wrong: bool = False,  # t from 0 to 1
    timestep_embedding: Callable = timestep_embedding,  # (t, dim, max_period) -> (N, dim)
) -> Figure:
    "Two timesteps as hands of clocks, and the similarity of one timestep with all."
    steps, color = torch.arange(1000), COLORS["wrong" if wrong else "cond"]
    table = timestep_embedding(steps / 1000 if wrong else steps, dim, max_period)  # (1000, dim)
    if tuple(table.shape) != (1000, dim):
        raise ValueError(f"1000 timesteps became {tuple(table.shape)}, but must become {(1000, dim)}.")
    alike = torch.cosine_similarity(table, table[t : t + 1])
    fig, axes = figure(2, 1, (9, 3.8), height_ratios=[1.15, 1.2])
    show_clocks(axes[0, 0], table, {other: COLORS["grey"], t: color})
    axes[1, 0].plot(alike, color=color)
    for step, shade in ((other, COLORS["grey"]), (t, color)):
        axes[1, 0].plot(step, alike[step], "o", color=shade)
    axes[1, 0].axhline(0, color="#CCCCCC", lw=0.8, zorder=0)
    axes[1, 0].set(xlim=(-5, 1004), ylim=(-0.8, 1.15), xticks=[0, 500, 999], yticks=[0, 1])
    axes[1, 0].set(xlabel="other timestep", ylabel="similarity to t")
    says = (
        f"t = {t} and {other}: similarity {alike[other]:.2f}, the mean cosine of the angles between the hands"
    )
    axes[0, 0].set_title(says, fontsize=10, color=color if wrong else "black")
    fig.words = f"Eight of {dim // 2} clocks. {says}. The timestep least like t has {alike.min():.2f}."
    return fig


def explore_timestep(
    timestep_embedding: Callable = timestep_embedding,  # (t, dim, max_period) -> (N, dim)
) -> Explorer:
    "What a timestep looks like to the network, and which timesteps it can tell apart."
    tries = [
        ("Set the other t to 301.", "Only the fast hands see one step; the similarity is 0.97."),
        (
            "Lower the width to 16.",
            "With 8 clocks strangers look alike: far from t the curve climbs to 0.72.",
        ),
        ("Switch the mistake on.", "Hardly a hand moves in 1000 steps, and all timesteps look the same."),
    ]
    return Explorer(
        lambda **values: plot_timestep(timestep_embedding=timestep_embedding, **values),
        "a timestep as a row of clocks",
        tries,
        t=slider("t", 0, 999, 300),
        other=slider("other t", 0, 999, 320),
        dim=stops("width", [16, 32, 64, 128, 256, 512], 256),
        max_period=stops("max_period", [10.0, 100.0, 1000.0, 10000.0, 100000.0], 10000.0),
        wrong=mistake("t from 0 to 1"),
    )
