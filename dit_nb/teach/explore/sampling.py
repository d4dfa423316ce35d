"""Explorer of lesson 16: samplers on Gaussian data, with an exact model."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.errors import UserError
from dit_nb.objective import Diffusion, Prediction
from dit_nb.sampling import ddim_step, ddpm_step
from dit_nb.teach.explore.core import Explorer, choice, stops
from dit_nb.teach.explore.objective import _full_diffusion
from dit_nb.visual import COLORS, figure

__all__ = ["explore_sampler"]

_BUGS = ("none", "old betas", "index for timestep", "variance as std", "noise at the end")
_MEAN, _PATHS = 0.5, 3000


def _gaussian_model(s: float, v: Tensor | None = None) -> Callable:
    """The exact eps model of one pixel from N(0.5, s^2); v: (1000,) variance values by timestep."""
    bars = _full_diffusion().alphas_cumprod

    def model(x, t, y=None):
        bar = bars[t].view(-1, 1, 1, 1)
        eps = (1 - bar).sqrt() * (x - bar.sqrt() * _MEAN) / (bar * s**2 + 1 - bar)
        return eps if v is None else torch.cat([eps, v[t].view(-1, 1, 1, 1).expand_as(x)], dim=1)

    return model


def _exact_v(diffusion: Diffusion, s: float) -> Tensor:  # (1000,) by timestep of the full process
    """The variance values that are exact for these data: var(x_{t-1} | x_t) = beta V_{t-1} / V_t."""
    V, V_prev = (bar * s**2 + 1 - bar for bar in (diffusion.alphas_cumprod, diffusion.alphas_cumprod_prev))
    low, high = diffusion.posterior_log_variance_clipped, diffusion.log_betas
    table = torch.zeros(1000, dtype=torch.float64)
    right = (diffusion.betas * V_prev.clamp(min=1e-12) / V).log()
    table[diffusion.timestep_map] = 2 * (right - low) / (high - low).clamp(min=1e-12) - 1
    return table


def _with_old_betas(diffusion: Diffusion) -> Diffusion:
    """Make a common mistake: a respaced process whose posterior uses the betas of the full process."""
    wrong = diffusion.respaced(str(diffusion.num_timesteps))
    beta = _full_diffusion().betas[diffusion.timestep_map]
    bar, prev = wrong.alphas_cumprod, wrong.alphas_cumprod_prev
    wrong.posterior_mean_coef1 = beta * prev.sqrt() / (1 - bar)
    wrong.posterior_mean_coef2 = (1 - prev) * (1 - beta).sqrt() / (1 - bar)
    wrong.posterior_log_variance_clipped = (beta * (1 - prev) / (1 - bar)).clamp(min=1e-9).log()
    wrong.log_betas = beta.log()
    return wrong


def _add_bug(step: Callable, bug: str) -> Callable:
    """A sampler's step with one of the mistakes that can be made in a step."""

    def wrong(diffusion, prediction: Prediction, x_t, t, noise):
        if bug == "variance as std":
            prediction = prediction._replace(log_variance=2 * prediction.log_variance)
        x_prev = step(diffusion, prediction, x_t, t, noise)
        last = (t == 0).view(-1, 1, 1, 1) & (bug == "noise at the end")
        return x_prev + last * torch.exp(0.5 * prediction.log_variance) * noise

    return wrong


def _affine_steps(diffusion: Diffusion, model: Callable, step: Callable, variance: str) -> np.ndarray:
    """Slope, offset and noise of every step, (steps, 3), measured on the sampler's own step."""
    t = torch.arange(diffusion.num_timesteps)
    zero = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)

    def move(x, noise):
        prediction = diffusion.p_mean_variance(model, x, t, variance=variance)
        return step(diffusion, prediction, x, t, noise).flatten()

    offset = move(zero, zero)
    slope, push = move(zero + 1, zero) - offset, move(zero, zero + 1) - offset
    if not torch.allclose(move(zero + 2, zero - 1), 2 * slope + offset - push, atol=1e-6):
        raise UserError("step is not affine in x and noise, but must be for Gaussian data.")
    return torch.stack([slope, offset, push], dim=1).flip(0).numpy()


def _run_chain(steps: np.ndarray, moments: int = 50) -> tuple[list[int], np.ndarray, tuple[float, float]]:
    """Sample paths from noise to data: steps done, (moments, paths), exact mean and std at the end.

    Steps between two moments are composed into one.
    """
    rng, x = np.random.default_rng(0), np.random.default_rng(1).standard_normal(_PATHS)
    stops = sorted({round(k) for k in np.linspace(0, len(steps), min(moments, len(steps)) + 1)})
    paths, mean, var = [x], 0.0, 1.0
    for start, stop in zip(stops, stops[1:]):
        slope, offset, spread = 1.0, 0.0, 0.0
        for a, b, c in steps[start:stop].tolist():
            slope, offset, spread = a * slope, a * offset + b, a * a * spread + c * c
        mean, var = slope * mean + offset, slope**2 * var + spread
        paths.append(slope * paths[-1] + offset + spread**0.5 * rng.standard_normal(_PATHS))
    return stops, np.stack(paths), (mean, var**0.5)


def _sample_gaussian(step: Callable, steps: int, variance: str, s: float, bug: str):
    """Timesteps, paths (moments, paths), and exact (mean, std) of the samples."""
    diffusion = _full_diffusion().respaced(str(steps))
    model = _gaussian_model(s, _exact_v(diffusion, s) if variance == "learned" else None)
    times = np.append(diffusion.timestep_map.numpy()[::-1], 0)
    if bug == "old betas":
        diffusion = _with_old_betas(diffusion)
    if bug == "index for timestep":
        diffusion = Diffusion(diffusion.betas)
    done, paths, moments = _run_chain(_affine_steps(diffusion, model, _add_bug(step, bug), variance))
    return times[done], paths, moments


def _draw_samples(ax, samples: np.ndarray, s: float, color: str) -> None:
    """A horizontal histogram of samples over the true density; heights in units of its maximum."""
    half = 2.2 if s else 0.05
    width, edges = max(s, 0.0005), np.linspace(_MEAN - half, _MEAN + half, 81)
    grid = np.linspace(_MEAN - half, _MEAN + half, 401)
    ax.fill_betweenx(grid, np.exp(-(((grid - _MEAN) / width) ** 2) / 2), color="#bbbbbb")
    counts = np.histogram(samples, edges)[0] / len(samples) / np.diff(edges) * width * math.sqrt(2 * math.pi)
    ax.stairs(counts, edges, orientation="horizontal", color=color, lw=2)
    ax.set(xlim=(0, 2.6), ylim=(_MEAN - half, _MEAN + half), xticks=[], xlabel="density")
    ax.set_yticks([-1, 0.5, 2] if s else [0.46, 0.5, 0.54])


def _plot_sampler(
    samplers: dict[str, Callable], steps: int, variance: str, sampler: str, s: float, bug: str
) -> Figure:
    """Show sample paths from noise to data, and a histogram of the samples over the true density."""
    times, paths, (mean, std) = _sample_gaussian(samplers[sampler], steps, variance, s, bug)
    bar = _full_diffusion().alphas_cumprod
    center, spread = bar.sqrt() * _MEAN, (bar * s**2 + 1 - bar).sqrt()
    fig, (axes,) = figure(1, 2, (9, 3.6), width_ratios=[2.3, 1])
    axes[0].fill_between(range(1000), center - 2 * spread, center + 2 * spread, color="#dddddd")
    color = COLORS["x_t" if bug == "none" else "wrong"]
    gap = np.full((1, 30), np.nan)  # thirty paths as one broken line are drawn much faster than thirty lines
    line = np.concatenate([paths[:, :30], gap]).T.ravel()
    axes[0].plot(np.tile(np.append(times, np.nan), 30), line, color=color, lw=0.9)
    axes[0].set(xlim=(1000, -1), ylim=(-3, 3), xticks=[999, 500, 0], yticks=[-2, 0, 2])
    axes[0].set(xlabel="timestep t, from noise to data", ylabel="pixel value")
    axes[0].set_title(f"{sampler}, {steps} steps" + ("" if bug == "none" else f", bug: {bug}"))
    _draw_samples(axes[1], paths[-1], s, color)
    axes[1].set_title(f"std {std:.4f}, true {s:g}", color=color)
    fig.alt_text = (
        f"Thirty sample paths from noise to data and a histogram of {_PATHS} samples over the true density: {sampler}, "
        f"{steps} steps, bug {bug}. The samples have standard deviation {std:.4f}, the data {s:g}."
    )
    return fig


_SAMPLERS = {"DDPM": ddpm_step, "DDIM": ddim_step}


def explore_sampler(samplers: dict[str, Callable] = _SAMPLERS) -> Explorer:
    """Explore whether samples have the distribution of the data, with an exact model of Gaussian data.

    Args:
        samplers: step functions by name; `ddpm_step` and `ddim_step` by default
    """
    return Explorer(
        partial(_plot_sampler, samplers),
        "samplers with an exact model",
        """
        1. *Set the variance to fixed_large, then to learned.* Too narrow becomes too wide, then right: the
           true variance lies between, and v can represent it.
        2. *Choose DDIM.* Smooth paths that never cross, and again too narrow; with 250 steps the width is
           nearly right.
        3. *Go through the bugs; then set the data to a point, 0.* Each leaves its own trace. Noise at the end
           shows only for a point.
        """,
        steps=stops("steps", [2, 5, 10, 25, 50, 100, 250, 1000], 10),
        variance=choice("variance", ["fixed_small", "learned", "fixed_large"], "fixed_small"),
        sampler=choice("sampler", list(samplers), next(iter(samplers))),
        s=stops("std of the data", [0.0, 0.05, 0.3, 1.0], 0.3),
        bug=choice("mistake", list(_BUGS), "none"),
    )
