"""Four pictures of the process itself: noise, the step back, the sampler, the push of a label."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.objective import Diffusion, Prediction
from dit_nb.sampling import ddim_step, ddpm_step
from dit_nb.teach.explore.core import Explorer, choice, stops
from dit_nb.teach.explore.objective import full_process
from dit_nb.visual import COLORS, figure

BUGS = ("none", "old betas", "index for timestep", "variance as std", "noise at the end")


MEAN, WALKERS = 0.5, 3000


def oracle(
    s: float,  # standard deviation of the data
    v: Tensor | None = None,  # (1000,) variance values by original timestep
) -> Callable:  # (x, t, y) -> (N, 2, 1, 1)
    "The perfect model of one pixel drawn from N(0.5, s^2)."
    bars = full_process().alphas_cumprod

    def model(x, t, y=None):
        bar = bars[t].view(-1, 1, 1, 1)
        eps = (1 - bar).sqrt() * (x - bar.sqrt() * MEAN) / (bar * s**2 + 1 - bar)
        return eps if v is None else torch.cat([eps, v[t].view(-1, 1, 1, 1).expand_as(x)], dim=1)

    return model


def right_values(
    process: Diffusion,
    s: float,  # standard deviation of the data
) -> Tensor:  # (1000,) by original timestep
    "The variance values that are exactly right for these data: var(x_{t-1} | x_t) = beta V_{t-1} / V_t."
    V, V_prev = (bar * s**2 + 1 - bar for bar in (process.alphas_cumprod, process.alphas_cumprod_prev))
    low, high = process.posterior_log_variance_clipped, process.log_betas
    table = torch.zeros(1000, dtype=torch.float64)
    right = (process.betas * V_prev.clamp(min=1e-12) / V).log()
    table[process.timestep_map] = 2 * (right - low) / (high - low).clamp(min=1e-12) - 1
    return table


def old_betas(process: Diffusion) -> Diffusion:
    "The mistake: a respaced process whose steps are as short as before."
    wrong, beta = process.respaced(str(process.num_timesteps)), full_process().betas[process.timestep_map]
    bar, prev = wrong.alphas_cumprod, wrong.alphas_cumprod_prev
    wrong.posterior_mean_coef1 = beta * prev.sqrt() / (1 - bar)
    wrong.posterior_mean_coef2 = (1 - prev) * (1 - beta).sqrt() / (1 - bar)
    wrong.posterior_log_variance_clipped = (beta * (1 - prev) / (1 - bar)).clamp(min=1e-9).log()
    wrong.log_betas = beta.log()
    return wrong


def buggy(
    step: Callable,  # ddpm_step, ddim_step, or your own
    bug: str,  # one of BUGS
) -> Callable:
    "A step with one of the mistakes that can be made in a step."

    def wrong(diffusion, prediction: Prediction, x_t, t, noise):
        if bug == "variance as std":
            prediction = prediction._replace(log_variance=2 * prediction.log_variance)
        x_prev = step(diffusion, prediction, x_t, t, noise)
        late = (t == 0).view(-1, 1, 1, 1) & (bug == "noise at the end")
        return x_prev + late * torch.exp(0.5 * prediction.log_variance) * noise

    return wrong


def chain_lines(
    process: Diffusion,
    model: Callable,
    step: Callable,
    variance: str,
) -> np.ndarray:  # (steps, 3) slope, offset and noise of each step, in the order in which they are taken
    "Each step of a chain as a straight line plus noise, read off the sampler's own step."
    t = torch.arange(process.num_timesteps)
    zero = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)

    def move(x, noise):
        prediction = process.p_mean_variance(model, x, t, variance=variance)
        return step(process, prediction, x, t, noise).flatten()

    offset = move(zero, zero)
    slope, push = move(zero + 1, zero) - offset, move(zero, zero + 1) - offset
    if not torch.allclose(move(zero + 2, zero - 1), 2 * slope + offset - push, atol=1e-6):
        raise ValueError("the step is not a straight line plus noise, as that of a Gaussian must be.")
    return torch.stack([slope, offset, push], dim=1).flip(0).numpy()


def walk_chain(
    lines: np.ndarray,  # (steps, 3) from `chain_lines`
    moments: int = 50,  # at most so many are kept
) -> tuple[
    list[int], np.ndarray, tuple[float, float]
]:  # steps done, (moments, walkers), exact mean and std at the end
    "A crowd of walkers from noise to data; steps in between are taken together."
    rng, x = np.random.default_rng(0), np.random.default_rng(1).standard_normal(WALKERS)
    stops = sorted({round(k) for k in np.linspace(0, len(lines), min(moments, len(lines)) + 1)})
    paths, mean, var = [x], 0.0, 1.0
    for start, stop in zip(stops, stops[1:]):
        slope, offset, spread = 1.0, 0.0, 0.0
        for a, b, c in lines[start:stop].tolist():
            slope, offset, spread = a * slope, a * offset + b, a * a * spread + c * c
        mean, var = slope * mean + offset, slope**2 * var + spread
        paths.append(slope * paths[-1] + offset + spread**0.5 * rng.standard_normal(WALKERS))
    return stops, np.stack(paths), (mean, var**0.5)


def run_lab(
    step: Callable,
    steps: int,
    variance: str,
    s: float,
    bug: str,
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:  # timesteps, (moments, walkers), mean and std
    "Sample the oracle's data."
    process = full_process().respaced(str(steps))
    model = oracle(s, right_values(process, s) if variance == "learned" else None)
    times = np.append(process.timestep_map.numpy()[::-1], 0)
    if bug == "old betas":
        process = old_betas(process)
    if bug == "index for timestep":
        process = Diffusion(process.betas)
    done, paths, moments = walk_chain(chain_lines(process, model, buggy(step, bug), variance))
    return times[done], paths, moments


def draw_ends(ax, samples: np.ndarray, s: float, color: str) -> None:
    "Samples as a histogram that lies on its side, over the truth; heights in units of the truth's."
    half = 2.2 if s else 0.05
    width, edges = max(s, 0.0005), np.linspace(MEAN - half, MEAN + half, 81)
    grid = np.linspace(MEAN - half, MEAN + half, 401)
    ax.fill_betweenx(grid, np.exp(-(((grid - MEAN) / width) ** 2) / 2), color="#bbbbbb")
    counts = np.histogram(samples, edges)[0] / len(samples) / np.diff(edges) * width * math.sqrt(2 * math.pi)
    ax.stairs(counts, edges, orientation="horizontal", color=color, lw=2)
    ax.set(xlim=(0, 2.6), ylim=(MEAN - half, MEAN + half), xticks=[], xlabel="density")
    ax.set_yticks([-1, 0.5, 2] if s else [0.46, 0.5, 0.54])


def plot_sampler(
    samplers: dict[str, Callable],  # name -> step
    steps: int = 10,
    variance: str = "fixed_small",
    sampler: str = "DDPM",
    s: float = 0.3,  # standard deviation of the data
    bug: str = "none",
) -> Figure:
    "Walkers on their way from noise to data, and where they end, over the truth."
    times, paths, (mean, std) = run_lab(samplers[sampler], steps, variance, s, bug)
    bar = full_process().alphas_cumprod
    center, spread = bar.sqrt() * MEAN, (bar * s**2 + 1 - bar).sqrt()
    fig, (axes,) = figure(1, 2, (9, 3.6), width_ratios=[2.3, 1])
    axes[0].fill_between(range(1000), center - 2 * spread, center + 2 * spread, color="#dddddd")
    color = COLORS["x_t" if bug == "none" else "wrong"]
    gap = np.full((1, 30), np.nan)  # thirty walkers as one broken line: drawn much faster than thirty lines
    walkers = np.concatenate([paths[:, :30], gap]).T.ravel()
    axes[0].plot(np.tile(np.append(times, np.nan), 30), walkers, color=color, lw=0.9)
    axes[0].set(xlim=(1000, -1), ylim=(-3, 3), xticks=[999, 500, 0], yticks=[-2, 0, 2])
    axes[0].set(xlabel="timestep t, from noise to data", ylabel="pixel value")
    axes[0].set_title(f"{sampler}, {steps} steps" + ("" if bug == "none" else f", bug: {bug}"))
    draw_ends(axes[1], paths[-1], s, color)
    axes[1].set_title(f"std {std:.4f}, true {s:g}", color=color)
    fig.words = (
        f"Thirty walkers from noise to data and a histogram of {WALKERS} ends over the true density: {sampler}, "
        f"{steps} steps, bug {bug}. The samples have standard deviation {std:.4f}, the data {s:g}."
    )
    return fig


SAMPLERS = {"DDPM": ddpm_step, "DDIM": ddim_step}


def explore_sampler(
    samplers: dict[str, Callable] = SAMPLERS,  # name -> step: add your own
) -> Explorer:
    "Does the crowd end where the data are?"
    return Explorer(
        partial(plot_sampler, samplers),
        "the oracle lab",
        [
            (
                "Set the variance to fixed_large, then to learned.",
                "Too narrow becomes too wide, then right: the truth lies between, and v can say it.",
            ),
            ("Choose DDIM.", "Smooth paths that never cross, and too narrow again; 250 steps mend it."),
            (
                "Go through the bugs; then set the data to a point, 0.",
                "Each has its own shape. Noise at the end shows for a point only.",
            ),
        ],
        steps=stops("steps", [2, 5, 10, 25, 50, 100, 250, 1000], 10),
        variance=choice("variance", ["fixed_small", "learned", "fixed_large"], "fixed_small"),
        sampler=choice("sampler", list(samplers), next(iter(samplers))),
        s=stops("std of the data", [0.0, 0.05, 0.3, 1.0], 0.3),
        bug=choice("mistake", list(BUGS), "none"),
    )
