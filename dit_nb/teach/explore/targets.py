"""Explorer of lesson 32: what a network of small width can predict, and the error of its velocity."""

from collections.abc import Callable
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.since.targets import TARGETS, to_velocity
from dit_nb.teach.explore.core import Explorer, mistake, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_targets"]

_SHOWN = {"noise": ("eps", "s-"), "image": ("x_t", "o-"), "velocity": ("velocity", "^-")}  # color, marker
_TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
_WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256)


def _predict(x_t: Tensor, t: float, predicts: str, width: int) -> Tensor:
    """The best linear prediction of `width` dimensions, for standard normal data on the first two axes."""
    plane = torch.arange(x_t.shape[1]) < 2
    signal = torch.where(plane, 1.0 - t, 0.0).double()
    power = signal**2 + t**2  # of x_t, along each axis
    from_noise, from_image = t / power, signal / power  # E[noise | x_t] = from_noise x_t, and so on
    factor = {"noise": from_noise, "image": from_image, "velocity": from_noise - from_image}[predicts]
    explained = factor**2 * power
    kept = torch.zeros_like(power)
    kept[explained.argsort(descending=True, stable=True)[:width]] = 1
    return factor * kept * x_t


def _errors(to_velocity: Callable, dimensions: int, width: int, is_swapped: bool) -> dict[str, Tensor]:
    """Mean squared error of the velocity at each of `_TIMES`, for each target."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 200, dimensions, generator=generator, dtype=torch.float64).unbind(0)
    x0 = x0 * (torch.arange(dimensions) < 2)
    found = {name: [] for name in TARGETS}
    for t in _TIMES.tolist():
        x_t = (1 - t) * x0 + t * noise
        time = torch.full((len(x0),), 1 - t if is_swapped else t, dtype=torch.float64)
        for name in TARGETS:
            v = to_velocity(_predict(x_t, t, name, width), x_t, time, name)
            found[name].append((v - (noise - x0)).square().mean())
    return {name: torch.stack(values) for name, values in found.items()}


def _plot_targets(to_velocity: Callable, dimensions: int, width: int, is_swapped: bool) -> Figure:
    """Show the error of the velocity against flow time, and its mean against the width."""
    fig, (axes,) = figure(1, 2, (9, 3.3), width_ratios=[1.3, 1])
    now = _errors(to_velocity, dimensions, width, is_swapped)
    widths = [w for w in _WIDTHS if w <= 2 * dimensions]
    means = [_errors(to_velocity, dimensions, w, is_swapped) for w in widths]
    for name, (color, style) in _SHOWN.items():
        options = dict(color=COLORS["wrong" if is_swapped else color], ms=4, label=name)
        axes[0].plot(_TIMES, now[name], style, **options)
        axes[1].plot(widths, [float(mean[name].mean()) for mean in means], style, **options)
    axes[0].set(
        xlabel="flow time t (0 is data, 1 is noise)", ylabel="squared error of the velocity", yscale="log"
    )
    axes[0].set_title(f"{dimensions} dimensions, width {width}", fontsize=10)
    axes[1].set(xscale="log", yscale="log", xlabel="width of the network")
    axes[1].set_title("mean over all times", fontsize=10)
    axes[1].set_xticks(widths, widths)
    axes[1].minorticks_off()
    axes[1].axvline(width, color=COLORS["gray"], lw=0.8, ls=":")
    for ax in axes:
        ax.set_ylim(1e-3, 1e3)
    axes[0].legend(fontsize=8)
    mean = ", ".join(f"{float(now[name].mean()):.3g} if it predicts the {name}" for name in TARGETS)
    fig.alt_text = (
        f"Squared error of the velocity for data on a plane in {dimensions} dimensions and a linear network "
        f"of width {width}, against flow time and against the width. Its mean is {mean}."
    )
    return fig


def explore_targets(to_velocity: Callable = to_velocity) -> Explorer:
    """Explore how the width of a network limits what it can predict.

    Args:
        to_velocity: function with the signature of `dit_nb.since.targets.to_velocity`, which is the default
    """
    return Explorer(
        partial(_plot_targets, to_velocity),
        "what a narrow network can predict",
        """
        1. *Raise the width to 128.* As soon as the width is that of the space, all three are the same.
        2. *Lower it to 2.* The image needs no more than the two dimensions of its plane.
        3. *Switch the mistake on.* Noise and image go wrong at every width, the velocity is not touched: it
           needs no conversion.
        """,
        dimensions=stops("dimensions", [2, 8, 32, 128], 128),
        width=stops("width", list(_WIDTHS), 32),
        is_swapped=mistake("exchange t and 1 - t in the conversion"),
    )
