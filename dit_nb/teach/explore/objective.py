"""Explorer of lesson 15: the variational bound of one reverse step, and its gradient."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from torch import Tensor

from dit_nb.data import digits
from dit_nb.objective import Diffusion, learned_log_variance, normal_kl
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.schedule import Schedule
from dit_nb.teach.explore.core import Explorer, mistake, slider, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_variance"]


@lru_cache(maxsize=1)
def _full_diffusion() -> Diffusion:
    """1000 steps, linear schedule."""
    return Diffusion()


@lru_cache(maxsize=1)
def _digit_model_errors() -> dict[int, tuple[float, float]]:
    """Measure the digit model on 64 held-out digits at some timesteps."""
    model, sampling = digit_model()
    diffusion, data = make_diffusion(sampling), digits().held_out
    x0, y, found = data.images[:64], data.labels[:64], {}
    for k in (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200, 400, 700, 999):
        t, noise = torch.full((64,), k), torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))
        device = next(model.parameters()).device
        with torch.no_grad():
            output = model(*(a.to(device) for a in (diffusion.q_sample(x0, t, noise), t, y))).cpu()
        error = (output[:, :1] - noise).square().mean().sqrt()
        found[k] = float(error), float(output[:, 1:].mean())
    return found


class _ReverseStep(NamedTuple):
    """Coefficients of one reverse step."""

    t: int  # timestep of the full process
    min_log: Tensor  # log of the posterior variance, the smallest sensible one
    max_log: Tensor  # log of beta, the largest
    factor: Tensor  # error of the posterior mean per error of the predicted noise


def _reverse_step(diffusion: Schedule, t: int) -> _ReverseStep:
    """Return the coefficients of a reverse step."""
    i = int((diffusion.timestep_map - t).abs()[1:].argmin()) + 1
    factor = diffusion.posterior_mean_coef1[i] * (1 / diffusion.alphas_cumprod[i] - 1).sqrt()
    low, high = diffusion.posterior_log_variance_clipped[i], diffusion.log_betas[i]
    return _ReverseStep(int(diffusion.timestep_map[i]), low, high, factor)


def _kl_bits(error: Tensor, v: Tensor, step: _ReverseStep, log_variance: Callable) -> Tensor:
    """KL divergence of a reverse step, in bits, for an error of the predicted noise and variance values v."""
    _, low, high, factor = step
    return normal_kl(torch.zeros(()), low, factor * error, log_variance(v, low, high)) / math.log(2)


def _descent(error: float, v: float, step: _ReverseStep, log_variance: Callable, no_detach: bool = False):
    """Minus the gradient of the bound with respect to error and v, as training computes it."""
    point = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (error, v)]
    _kl_bits(point[0] if no_detach else point[0].detach(), point[1], step, log_variance).backward()
    return tuple(0.0 if p.grad is None else -float(p.grad) for p in point)


_ERRORS, _VALUES = torch.linspace(-1.2, 1.2, 81).double(), torch.linspace(-1.5, 1.5, 61).double()


def _draw_gaussians(ax, error: float, v: float, step: _ReverseStep, log_variance: Callable) -> None:
    """The true posterior and the model's, in true standard deviations."""
    _, low, high, factor = step
    grid = np.linspace(-6, 6, 241)
    center = error * float(factor * (-0.5 * low).exp())
    spread = math.exp(float(log_variance(torch.tensor(v).double(), low, high) - low) / 2)
    for mean, sd, color in ((0, 1, "gray"), (center, spread, "x_t")):
        density = np.exp(-(((grid - mean) / sd) ** 2) / 2) / sd / math.sqrt(2 * math.pi)
        ax.fill_between(grid, density, color=COLORS[color], alpha=0.25)
        ax.plot(grid, density, color=COLORS[color], lw=2)
    ax.text(-5.8, 0.66, "true posterior", color=COLORS["gray"])
    ax.text(-5.8, 0.6, "model", color=COLORS["x_t"])
    ax.set(xlim=(-6, 6), ylim=(0, 0.72), xticks=[-4, 4], yticks=[])
    ax.set_xlabel("x at t - 1, in true standard deviations")


def _draw_kl(ax, step: _ReverseStep, log_variance: Callable) -> None:
    """The KL divergence by error and v, and the best v for each error."""
    bits = _kl_bits(_ERRORS, _VALUES[:, None], step, log_variance)  # (61, 81)
    options = {"cmap": "Greys", "vmin": -3, "vmax": 0.5, "aspect": "auto", "origin": "lower"}
    artist = ax.imshow(bits.clamp(min=1e-9).log10(), extent=(-1.2, 1.2, -1.5, 1.5), **options)
    best = _VALUES[bits.argmin(0)]
    best[(best.abs() > 1.45) | (bits.amax(0) - bits.amin(0) < 1e-3)] = torch.nan
    outline = [Stroke(linewidth=4, foreground="white"), Normal()]
    ax.plot(_ERRORS, best, "--", color="black", lw=2, path_effects=outline)
    bar = ax.figure.colorbar(artist, ax=ax, ticks=[-3, 0], label="KL divergence")
    bar.ax.set_yticklabels(["0.001", "1 bit"])
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.5, 1.5), xticks=[-1, 1], yticks=[-1, 1])
    ax.set(xlabel="error of the predicted noise", ylabel="variance value v")
    for y, name, color in ((-1.12, "best v: dashed", "black"), (-1.38, "digit model: star", COLORS["eps"])):
        ax.text(-1.14, y, name, color=color, fontsize=9, backgroundcolor="white")


def _draw_arrow(ax, start: tuple[float, float], direction: tuple[float, float], color: str) -> None:
    """An arrow whose length grows with the logarithm of the direction's norm."""
    size = math.hypot(*direction)
    length = min(max((math.log10(max(size, 1e-9)) + 4) / 5, 0.0), 1.0) / max(size, 1e-9)
    tip = start[0] + direction[0] * length, start[1] + direction[1] * length
    ax.annotate("", tip, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 3})
    ax.plot(*start, "o", color=color, ms=9)


def _plot_variance(
    trained: dict[int, tuple[float, float]],
    processes: dict[int, Schedule],
    log_variance: Callable,
    t: int = 1,
    v: float = -0.8,
    error: float = 0.6,
    steps: int = 1000,
    no_detach: bool = False,
) -> Figure:
    """Show a true and a predicted reverse step, their KL divergence by error and v, and minus its gradient."""
    step = _reverse_step(processes[steps], t)
    bits = float(_kl_bits(torch.tensor(error).double(), torch.tensor(v).double(), step, log_variance))
    descent = _descent(error, v, step, log_variance, no_detach)
    fig, (axes,) = figure(1, 2, (9, 3.4), width_ratios=[1, 1.35])
    _draw_gaussians(axes[0], error, v, step, log_variance)
    _draw_kl(axes[1], step, log_variance)
    color = COLORS["wrong"] if no_detach else "black"
    _draw_arrow(axes[1], (error, v), descent, color)
    near = min(trained, key=lambda k: abs(math.log(k / step.t)))
    axes[1].plot(*trained[near], "*", color=COLORS["eps"], ms=15, mec="white")
    axes[0].set_title(f"t = {step.t}: KL {bits:.3g} bits")
    axes[1].set_title(f"minus gradient: eps {descent[0]:.2g}, v {descent[1]:.2g}", color=color)
    fig.alt_text = (
        f"At timestep {step.t} of {steps} steps the KL divergence of the model's reverse step from the true one is "
        f"{bits:.3g} bits. Minus its gradient is {descent[0]:.2g} for the noise and {descent[1]:.2g} for the "
        "variance value."
    )
    return fig


def explore_variance(log_variance: Callable = learned_log_variance) -> Explorer:
    """Explore the bound of a reverse step: its value for a wrong noise and variance, and what it trains.

    Args:
        log_variance: function (values, min_log, max_log) -> log variance; the library's by default
    """
    processes = {steps: _full_diffusion().respaced(str(steps)) for steps in (10, 50, 250, 1000)}
    return Explorer(
        partial(_plot_variance, _digit_model_errors(), processes, log_variance),
        "the bound of one reverse step",
        """
        1. *Set v to -0.1.* The arrow nearly vanishes: at the minimum, v fits the error; so does the digit
           model's.
        2. *Set t to 20 and keep 50 steps.* The divergence grows faster, and the digit model leaves the
           minimum: its v was learned for 1000 steps.
        3. *Switch the mistake on, then set t to 100.* The arrow turns: the bound now trains the noise as
           well, and at t = 1 with a gradient forty times as large as at 100.
        """,
        t=slider("timestep t", 1, 999, 1),
        v=slider("v", -1.5, 1.5, -0.8, 0.1),
        error=slider("error of the noise", -1.2, 1.2, 0.6, 0.1),
        steps=stops("steps", [10, 50, 250, 1000], 1000),
        no_detach=mistake("no detach"),
    )
