"""Explorer of lesson 19: noisy weights and their exponential moving average."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from dit_nb.ema import EMA
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops, switch
from dit_nb.training import TrainConfig, learning_rate
from dit_nb.visual import COLORS, figure

__all__ = ["explore_training"]

_CURVATURE = np.array([0.6, 1.2])  # of the loss along the two weights
_START = np.array([-5.0, 3.0])
_UPDATES = 1000


def _quadratic_loss(weights: np.ndarray) -> np.ndarray:
    """The loss of two weights (..., 2), 0 at the minimum."""
    return 0.5 * (_CURVATURE * np.square(weights)).sum(-1)


def _train(schedule: str) -> np.ndarray:  # (1 + updates, 2)
    """The weights after each update: gradient descent with the noise of a small batch."""
    config = TrainConfig(steps=_UPDATES, lr=0.3, lr_schedule=schedule)
    noise, path = np.random.default_rng(0).normal(0, 2, (_UPDATES, 2)), [_START]
    for k in range(_UPDATES):
        gradient = _CURVATURE * path[-1] + noise[k]
        path.append(path[-1] - learning_rate(config, k, k / _UPDATES) * gradient)
    return np.array(path)


def _average(path: np.ndarray, decay: float, warmup: bool, ema: Callable = EMA) -> np.ndarray:  # (1 + K, 3)
    """The EMA of weights (1 + K, 2), and the share of the initial weights in it."""
    is_start = np.arange(len(path)) == 0
    rows = torch.from_numpy(np.column_stack([path, is_start])).float()[:, None]
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = rows[0]
    average = ema(model, decay)
    average.updates = 0 if warmup else 10**9  # after that many updates the warm-up is over
    averages = [average.model.weight[0].tolist()]
    for row in rows[1:]:
        model.weight.data = row
        average.update(model)
        averages.append(average.model.weight[0].tolist())
    return np.array(averages)


def _plot_training(
    run: tuple[np.ndarray, np.ndarray], decay: float, warmup: bool, schedule: str, updates: int, swapped: bool
) -> Figure:
    """Show the path of two weights and of their average, and the loss of both."""
    path, average = (a[: updates + 1] for a in run)
    color, name = COLORS["wrong"] if swapped else "black", "average, swapped" if swapped else "average"
    fig, axes = figure(1, 2, (9, 3.6), width_ratios=(1.25, 1))
    _draw_contours(axes[0, 0])
    axes[0, 0].plot(*path.T, color=COLORS["gray"], lw=0.6, alpha=0.7)
    axes[0, 0].plot(*average.T[:2], color=color, lw=2.2)
    axes[0, 0].plot(*average[-1, :2], "o", color=color, ms=9, mec="white", zorder=5)
    left = average[-1, 2]
    axes[0, 0].set_title(f"{left:.0%} of the average is still the initial weights", fontsize=11, y=1.01)
    losses = _quadratic_loss(path), _quadratic_loss(average[:, :2])
    axes[0, 1].plot(losses[0], color=COLORS["gray"], lw=0.6, alpha=0.7, label="weights")
    axes[0, 1].plot(losses[1], color=color, lw=2.2, label=name)
    axes[0, 1].set(xlabel="updates", ylabel="loss", yscale="log", ylim=(1e-4, 30))
    axes[0, 1].set(xlim=(0, _UPDATES), xticks=(0, 500, 1000))
    axes[0, 1].minorticks_off()
    axes[0, 1].set_yticks((0.001, 0.1, 10), ("0.001", "0.1", "10"))
    late = [loss[-len(loss) // 5 :].mean() for loss in losses]
    axes[0, 1].set_title(f"loss, last fifth: {late[0]:.2g}, average {late[1]:.2g}", fontsize=11, y=1.01)
    axes[0, 1].legend(loc="lower left")
    fig.alt_text = (
        f"Two weights after {updates} updates and their average with decay {decay}: mean loss over the last fifth "
        f"{late[0]:.2g} and {late[1]:.2g}; {left:.0%} of the average is the initial weights."
    )
    return fig


def _draw_contours(ax) -> None:
    """Lines of equal loss, the start and the minimum."""
    turn = np.linspace(0, 2 * np.pi, 80)
    ring = np.sqrt(2 / _CURVATURE)[:, None] * (np.cos(turn), np.sin(turn))
    levels, gap = (0.3, 1.5, 4, 8, 14), {"constant_values": np.nan}
    rings = [np.pad(ring * np.sqrt(level), ((0, 0), (0, 1)), **gap) for level in levels]
    ax.plot(
        *np.concatenate(rings, axis=1), color="#DDDDDD", lw=1, zorder=0
    )  # one line with gaps is drawn faster
    ax.plot(0, 0, "k+", ms=12, mew=2, zorder=6)
    ax.text(*_START + (-0.2, 0.35), "start", ha="center")
    ax.plot(*_START, "ks", ms=5)
    ax.set(xlim=(-6.2, 4.6), ylim=(-3.4, 4.2), xticks=[], yticks=[], xlabel="weight 1", ylabel="weight 2")


def explore_training(ema: Callable = EMA) -> Explorer:
    """Explore noisy weights and their average: decay, warm-up, learning rate, time.

    Args:
        ema: class made with (model, decay), with `model`, `updates` and `update(model)`; the library's by default
    """
    paths = {schedule: _train(schedule) for schedule in ("constant", "cosine")}

    def prepare(decay, warmup, schedule, swapped):
        return paths[schedule], _average(paths[schedule], 1 - decay if swapped else decay, warmup, ema)

    return Explorer(
        _plot_training,
        "noisy weights and their moving average",
        """
        1. *Set the decay to 0.9999 and switch the warm-up off.* After 1000 updates nine tenths of the average
           are still the initial weights.
        2. *Reset, then choose the cosine learning rate.* The weights converge by themselves, and the average
           gains less.
        3. *Reset, then switch the mistake on.* The average is the weights themselves, one step behind:
           nothing is averaged.
        """,
        prepare,
        decay=stops("decay d", [0.0, 0.9, 0.99, 0.999, 0.9999], 0.99),
        updates=stops("updates", [1, 10, 30, 100, 300, 1000], 1000),
        schedule=choice("learning rate", ["constant", "cosine"], "constant"),
        warmup=switch("warm-up of the decay", True),
        swapped=mistake("average = (1 - d) · average + d · weights"),
    )
