"""A weight that never rests and its average that does; two clouds, and three numbers that say how alike they are."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from dit_nb.ema import EMA
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops, switch
from dit_nb.training import TrainConfig, learning_rate
from dit_nb.visual import COLORS, figure

BOWL = np.array([0.6, 1.2])  # curvature along the two weights


START = np.array([-5.0, 3.0])


UPDATES = 1000


def bowl_loss(
    weights: np.ndarray,  # (..., 2)
) -> np.ndarray:
    "The loss of two weights: 0 at the bottom of the bowl."
    return 0.5 * (BOWL * np.square(weights)).sum(-1)


def noisy_walk(
    schedule: str,  # constant or cosine, as in TrainConfig
) -> np.ndarray:  # (1 + UPDATES, 2) the weights after each update
    "Gradient descent in the bowl, with the noise of a small batch."
    config = TrainConfig(steps=UPDATES, lr=0.3, lr_schedule=schedule)
    noise, walk = np.random.default_rng(0).normal(0, 2, (UPDATES, 2)), [START]
    for k in range(UPDATES):
        gradient = BOWL * walk[-1] + noise[k]
        walk.append(walk[-1] - learning_rate(config, k, k / UPDATES) * gradient)
    return np.array(walk)


def average_walk(
    walk: np.ndarray,  # (1 + K, 2)
    decay: float,
    warmup: bool,
    ema: Callable = EMA,
) -> np.ndarray:  # (1 + K, 3) the averaged weights, and the share of the start in them
    "What an EMA makes of weights that walk."
    start = np.arange(len(walk)) == 0
    rows = torch.from_numpy(np.column_stack([walk, start])).float()[:, None]
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = rows[0]
    average = ema(model, decay)
    average.updates = 0 if warmup else 10**9  # with as many updates behind it, no warm-up is left
    seen = [average.model.weight[0].tolist()]
    for row in rows[1:]:
        model.weight.data = row
        average.update(model)
        seen.append(average.model.weight[0].tolist())
    return np.array(seen)


def plot_training(
    run: tuple,  # walk (1 + K, 2) and average (1 + K, 3)
    decay: float,
    warmup: bool,
    schedule: str,
    upto: int,  # updates that are shown
    swapped: bool,  # the shares of old and new are exchanged
) -> Figure:
    "The weights and their average in the bowl, and the loss of both."
    walk, average = (a[: upto + 1] for a in run)
    color, name = COLORS["wrong" if swapped else "x_t"], "average, swapped" if swapped else "average"
    fig, axes = figure(1, 2, (9, 3.6), width_ratios=(1.25, 1))
    draw_bowl(axes[0, 0])
    axes[0, 0].plot(*walk.T, color=COLORS["grey"], lw=0.6, alpha=0.7)
    axes[0, 0].plot(*average.T[:2], color=color, lw=2.2)
    axes[0, 0].plot(*average[-1, :2], "o", color=color, ms=9, mec="white", zorder=5)
    left = average[-1, 2]
    axes[0, 0].set_title(f"{left:.0%} of the average is still its random start", fontsize=11, y=1.01)
    losses = bowl_loss(walk), bowl_loss(average[:, :2])
    axes[0, 1].plot(losses[0], color=COLORS["grey"], lw=0.6, alpha=0.7, label="weights")
    axes[0, 1].plot(losses[1], color=color, lw=2.2, label=name)
    axes[0, 1].set(
        xlabel="updates",
        ylabel="loss",
        xlim=(0, UPDATES),
        yscale="log",
        ylim=(1e-4, 30),
        xticks=(0, 500, 1000),
    )
    axes[0, 1].minorticks_off()
    axes[0, 1].set_yticks((0.001, 0.1, 10), ("0.001", "0.1", "10"))
    late = [loss[-len(loss) // 5 :].mean() for loss in losses]
    axes[0, 1].set_title(f"loss, last fifth: {late[0]:.2g}, average {late[1]:.2g}", fontsize=11, y=1.01)
    axes[0, 1].legend(loc="lower left")
    fig.words = (
        f"Two weights after {upto} updates and their average with decay {decay}: mean loss over the last fifth "
        f"{late[0]:.2g} and {late[1]:.2g}; {left:.0%} of the average is its start."
    )
    return fig


def draw_bowl(ax) -> None:
    "Lines of equal loss, the start and the bottom."
    turn = np.linspace(0, 2 * np.pi, 80)
    ring = np.sqrt(2 / BOWL)[:, None] * (np.cos(turn), np.sin(turn))
    rings = [
        np.pad(ring * np.sqrt(level), ((0, 0), (0, 1)), constant_values=np.nan)
        for level in (0.3, 1.5, 4, 8, 14)
    ]
    ax.plot(
        *np.concatenate(rings, axis=1), color="#DDDDDD", lw=1, zorder=0
    )  # one line with gaps draws faster
    ax.plot(0, 0, "k+", ms=12, mew=2, zorder=6)
    ax.text(*START + (-0.2, 0.35), "start", ha="center")
    ax.plot(*START, "ks", ms=5)
    ax.set(xlim=(-6.2, 4.6), ylim=(-3.4, 4.2), xticks=[], yticks=[], xlabel="weight 1", ylabel="weight 2")


def explore_training(
    ema: Callable = EMA,  # your own: made with (model, decay), has .model, .updates and update(model)
) -> Explorer:
    "Noisy weights and their average: decay, warm-up, learning rate, time."
    walks = {schedule: noisy_walk(schedule) for schedule in ("constant", "cosine")}

    def prepare(decay, warmup, schedule, swapped):
        return walks[schedule], average_walk(walks[schedule], 1 - decay if swapped else decay, warmup, ema)

    return Explorer(
        plot_training,
        "weights that never rest, and their average",
        [
            (
                "Set the decay to 0.9999 and switch the warm-up off.",
                "After 1000 updates nine tenths of the average are still its random start.",
            ),
            (
                "Reset, then choose the cosine learning rate.",
                "The weights come to rest by themselves, and the average has less left to do.",
            ),
            (
                "Reset, then switch the mistake on.",
                "The average is the weights themselves, one step behind: nothing is averaged.",
            ),
        ],
        prepare,
        decay=stops("decay d", [0.0, 0.9, 0.99, 0.999, 0.9999], 0.99),
        upto=stops("updates", [1, 10, 30, 100, 300, 1000], 1000),
        schedule=choice("learning rate", ["constant", "cosine"], "constant"),
        warmup=switch("warm-up of the decay", True),
        swapped=mistake("average = (1 - d) · average + d · weights"),
    )
