"""Explorer of lesson 14: signal and noise weights of the forward process."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import running_example, sample_photo
from dit_nb.schedule import _SCHEDULES, respaced_betas, space_timesteps
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_noise"]


def _weights(
    betas: Tensor, steps: int, no_roots: bool = False, old_betas: bool = False
) -> tuple[list[int], Tensor, Tensor]:
    """Kept timesteps, and the weights of signal and noise at each; two mistakes are possible."""
    kept, bar = space_timesteps(len(betas), str(steps)), (1 - betas).cumprod(0)
    short = betas[kept] if old_betas else respaced_betas(bar, kept)
    bar = (1 - short).cumprod(0)
    return (kept, bar, 1 - bar) if no_roots else (kept, bar.sqrt(), (1 - bar).sqrt())


def _draw_circle(ax, signal: Tensor, noise: Tensor, i: int, color: str) -> None:
    """The weights of all timesteps as points, over the quarter circle on which they should lie."""
    angle = np.linspace(0, np.pi / 2, 60)
    ax.plot(np.cos(angle), np.sin(angle), color=COLORS["gray"], lw=1)
    ax.plot(signal, noise, "." if len(signal) < 300 else "-", color=color, ms=6, lw=2.5)
    a, b = float(signal[i]), float(noise[i])
    ax.plot([0, a], [b, b], color=COLORS["x_t"], lw=3)
    ax.plot([a, a], [0, b], color=COLORS["eps"], lw=3)
    ax.plot(a, b, "o", color="black", ms=9)
    ax.set(xlim=(0, 1.08), ylim=(0, 1.08), aspect="equal", xlabel="signal weight", ylabel="noise weight")
    ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_title(f"norm {math.hypot(a, b):.2f}" + ("" if math.hypot(a, b) > 0.995 else ", must be 1"))


def _stack_noised(images: tuple, noises: tuple, a: float, b: float) -> np.ndarray:  # (196, 96, 3)
    """A large image above a small one, both a * image + b * noise; -1.5 is black, 1.5 white."""
    small, large = ((a * x + b * e).clamp(-1.5, 1.5) / 3 + 0.5 for x, e in zip(images, noises))
    small = small.repeat_interleave(12, 1).repeat_interleave(12, 2).expand(3, -1, -1)
    return torch.cat([large, torch.ones(3, 4, 96), small], 1).permute(1, 2, 0).numpy()


def _draw_weights(ax, kept: list[int], signal: Tensor, noise: Tensor, i: int) -> None:
    style = "." if len(kept) < 300 else "-"
    for curve, name in ((signal, "x_t"), (noise, "eps")):
        ax.plot(kept, curve, style, color=COLORS[name], lw=2)
        ax.plot(kept[i], curve[i], "o", color="black", ms=7)
    ax.axvline(kept[i], color=COLORS["gray"], lw=0.8)
    for y, name, label in ((signal[-1], "x_t", "signal"), (noise[-1], "eps", "noise")):
        ax.text(990, float(y) + (0.04 if y < 0.5 else -0.1), label, ha="right", color=COLORS[name])
    ax.set(xlim=(-10, 1009), ylim=(0, 1.08), xticks=[0, 500, 999], yticks=[0, 0.5, 1])
    ax.set(xlabel="timestep t", ylabel="weight")


def _plot_noise(
    images: tuple[Tensor, Tensor],
    noises: tuple[Tensor, Tensor],
    schedules: dict[str, Callable],
    t: int = 258,
    schedule: str = "linear",
    steps: int = 1000,
    no_roots: bool = False,
    old_betas: bool = False,
) -> Figure:
    """Show x_t for two images, its two weights on the unit circle, and the weights at all timesteps."""
    kept, signal, noise = _weights(schedules[schedule](1000), steps, no_roots, old_betas)
    i = min(range(len(kept)), key=lambda j: abs(kept[j] - t))
    a, b = float(signal[i]), float(noise[i])
    fig, (axes,) = figure(1, 3, (9, 3.3), width_ratios=[0.85, 1.7, 2.2])
    axes[0].imshow(_stack_noised(images, noises, a, b), interpolation="nearest")
    axes[0].set(xticks=[], yticks=[])
    axes[0].set_title(f"t = {kept[i]}")
    wrong = math.hypot(a, b) < 0.995 or noise[-1] < 0.98
    _draw_circle(axes[1], signal, noise, i, COLORS["wrong" if wrong else "cond"])
    _draw_weights(axes[2], kept, signal, noise, i)
    title = f"ends with {float(signal[-1]):.0%} signal" if noise[-1] < 0.98 else f"SNR {(a / b) ** 2:.3g}"
    title = "all steps kept: old betas are right" if old_betas and steps == 1000 else title
    axes[2].set_title(title, color=COLORS["wrong"] if noise[-1] < 0.98 else "black")
    fig.alt_text = (
        f"At timestep {kept[i]} of the {schedule} schedule x_t is {a:.2f} times the image plus {b:.2f} times "
        f"noise: a point {math.hypot(a, b):.2f} from the origin, where right weights lie on a circle of radius 1."
    )
    return fig


def explore_noise(image: Tensor | None = None, schedules: dict[str, Callable] = _SCHEDULES) -> Explorer:
    """Explore the forward process: where x_t lies between image and noise, and whether its variance is kept.

    Args:
        image: image (1, 1, 8, 8) in [-1, 1]; the running example by default
        schedules: functions of the number of timesteps that return betas, by name; the library's by default
    """
    generator = torch.Generator().manual_seed(0)
    image = running_example()[0] if image is None else image
    images = (image[0], sample_photo("flower.jpg", (96, 128))[0, :, :, 16:112])
    noises = tuple(torch.randn(x.shape, generator=generator) for x in images)
    return Explorer(
        partial(_plot_noise, images, noises, schedules),
        "signal and noise on the unit circle",
        """
        1. *Set t to 150, then to 400.* The digit is lost well before the flower: in large images many pixels
           carry the same information.
        2. *Choose cosine, at t = 258.* The dot is much lower on the arc: signal and noise weights are equal
           only at 495.
        3. *Keep 50 steps, then switch the second mistake on.* The points stop halfway up the arc: the last
           x_t is not pure noise.
        """,
        t=slider("timestep t", 0, 999, 258),
        schedule=choice("schedule", list(schedules), next(iter(schedules))),
        steps=stops("steps kept", [10, 50, 250, 1000], 1000),
        no_roots=mistake("weights without square roots"),
        old_betas=mistake("old betas for fewer steps"),
    )
