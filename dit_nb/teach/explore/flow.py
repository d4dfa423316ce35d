"""Explorer of lesson 30: densities of the training time, the times of a sampler, and where its steps lead."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import running_emoji
from dit_nb.since.flow import RectifiedFlow, flow_sample, flow_time, shift_time
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.teach.explore.objective import _full_diffusion
from dit_nb.visual import COLORS, _to_pixels, figure

__all__ = ["explore_flow"]

_SHIFTS = [("1/3", 1 / 3), ("1", 1.0), ("2", 2.0), ("3", 3.0), ("6", 6.0)]
_DENSITIES = ("logit-normal", "uniform", "diffusion")
_MODES, _WEIGHTS, _STD = (-0.8, 0.8), (1 / 3, 2 / 3), 0.12
_STARTS = (-1.7, -1.0, -0.4, 0.05, 0.4, 1.1, 1.8)
_LEVELS = range(-4, 6)  # logits at which the emoji is shown


def _two_modes(x: Tensor, time: Tensor, y: Tensor | None = None) -> Tensor:
    """The exact velocity of one pixel with two modes, for `RectifiedFlow`: x (N, 1), time 1000 t."""
    t, modes = (time / 1000).view(-1, 1), x.new_tensor(_MODES)
    off, variance = x - (1 - t) * modes, (1 - t) ** 2 * _STD**2 + t**2  # (N, 2), one column for each mode
    weights = (x.new_tensor(_WEIGHTS).log() - off**2 / (2 * variance)).softmax(1)
    return (weights * ((t - (1 - t) * _STD**2) * off / variance - modes)).sum(1, keepdim=True)


def _times(shift: Callable, steps: int, alpha: float, is_double: bool) -> Tensor:
    """The times of a sampler, (steps + 1,): shifted once, or twice by mistake."""
    times = shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), alpha)
    return shift(times, alpha) if is_double else times


def _trajectories(times: Tensor, step: str) -> Tensor:
    """x at each time, (steps + 1, starts)."""
    seen, x_T = [], torch.tensor(_STARTS, dtype=torch.float64)[:, None]
    flow = RectifiedFlow(times=times)
    end = flow_sample(flow, _two_modes, x_T.shape, step=step, x_T=x_T, callback=seen.append, progress=False)
    return torch.stack([*(one.x_t for one in seen), end])[:, :, 0]


@lru_cache(1)
def _exact() -> tuple[Tensor, Tensor]:
    """Times and trajectories of 400 steps of second order."""
    times = torch.linspace(1, 0, 401, dtype=torch.float64)
    return times, _trajectories(times, "heun")


def _density(density: str, alpha: float, logits: Tensor) -> Tensor:
    """Density of the logit of the training time."""
    if density == "diffusion":
        values = flow_time(_full_diffusion().alphas_cumprod).logit()
        counts = torch.histogram(values, 40, range=(-8.0, 8.0), density=True)
        return counts.hist[((logits + 8) / 0.4).long().clamp(0, 39)]
    away = logits - torch.tensor(alpha).log()
    if density == "uniform":
        return away.sigmoid() * (-away).sigmoid()  # the derivative of t by its logit
    return (-(away**2) / 2).exp() / (2 * torch.pi) ** 0.5


def _show_density(ax, density: str, alpha: float, times: Tensor, color: str) -> None:
    """Density over the logit of t, the steps of the sampler, and an emoji at several levels."""
    logits = torch.linspace(-4.8, 5.8, 400, dtype=torch.float64)
    ax.fill_between(logits, _density(density, alpha, logits), color=COLORS["gray"], alpha=0.3)
    at = times[1:-1].logit()
    ax.plot(at, torch.full_like(at, -0.03), "|", color=color, ms=12, mew=2)
    image, _ = running_emoji()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(4))
    for level in _LEVELS:
        t = float(torch.tensor(float(level)).sigmoid())
        pixels = _to_pixels(((1 - t) * image + t * noise)[0])
        ax.imshow(
            pixels, extent=(level - 0.45, level + 0.45, 0.49, 0.6), aspect="auto", interpolation="nearest"
        )
    ax.set(xlim=(-4.8, 5.8), ylim=(-0.08, 0.62), yticks=[], xlabel="logit of t: more noise to the right")
    ax.set_title("training times (gray), sampler's times (marks)")


def _plot_flow(shift: Callable, density: str, alpha: float, step: str, steps: int, is_double: bool) -> Figure:
    """Show where training and sampler spend their times, and the trajectories of these steps."""
    times, color = _times(shift, steps, alpha, is_double), COLORS["wrong" if is_double else "x_t"]
    fig, (axes,) = figure(1, 2, (8.6, 3.5), width_ratios=[1.5, 1])
    _show_density(axes[0], density, alpha, times, color)
    fine, exact = _exact()
    axes[1].plot(fine, exact, color=COLORS["gray"], lw=3, alpha=0.5)
    paths = _trajectories(times, step)
    axes[1].plot(times, paths, "o-", color=color, ms=3, lw=1.2)
    error = float((paths[-1] - exact[-1]).square().mean().sqrt())
    axes[1].set(
        xlim=(1, 0), yticks=[-0.8, 0.8], xlabel="t (sampling goes to the right)", ylabel="pixel value"
    )
    axes[1].set_title(f"error at t = 0: {error:.3f}")
    fig.alt_text = (
        f"Density of training times on the logit axis ({density}, shift {alpha:.3g}), the {steps} steps "
        f"of the sampler, and seven trajectories over the exact ones. The error at t = 0 is {error:.3g}; the "
        f"last step starts at t = {float(times[-2]):.3g}."
    )
    return fig


def explore_flow(shift: Callable = shift_time) -> Explorer:
    """Explore densities of the training time, the shift, and the steps of a flow sampler.

    Args:
        shift: function (t, factor) that shifts times, as `shift_time`, which is the default
    """
    return Explorer(
        partial(_plot_flow, shift),
        "training times and sampling times",
        """
        1. *Compare the densities.* Diffusion trains where the emoji can hardly be seen; logit-normal times
           lie where it appears.
        2. *Raise the shift to 6.* Density and marks move to the right together, by ln 6 = 1.8. The last step
           becomes long, and the error grows: here there is one pixel, and no need to shift.
        3. *Switch the mistake on, with shift 3.* The sampler's times move again, training's do not: the steps
           are those of shift 9. Nothing fails; the last step starts at a larger t, and the error is larger.
        """,
        density=choice("density", list(_DENSITIES), "logit-normal"),
        alpha=stops("shift", _SHIFTS, 1.0),
        step=choice("sampler", ["euler", "heun"], "euler"),
        steps=stops("steps", [2, 4, 8, 16, 32], 8),
        is_double=mistake("shift twice"),
    )
