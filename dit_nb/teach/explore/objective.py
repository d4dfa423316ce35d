"""Four pictures of the process itself: noise, the step back, the sampler, the push of a label."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import digits
from dit_nb.objective import Diffusion, learned_log_variance, normal_kl
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.schedule import Schedule
from dit_nb.teach.explore.core import Explorer, mistake, slider, stops
from dit_nb.visual import COLORS, figure


@lru_cache(maxsize=1)
def full_process() -> Diffusion:
    "1000 linear steps."
    return Diffusion()


@lru_cache(maxsize=1)
def trained_answers() -> dict[int, tuple[float, float]]:  # t -> (error, v)
    "The digit model on unseen digits: root mean square error of its noise, and its mean v, at some timesteps."
    model, process = digit_model()
    diffusion, images = make_diffusion(process), digits().held_out
    x0, y, found = images.images[:64], images.labels[:64], {}
    for k in (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200, 400, 700, 999):
        t, noise = torch.full((64,), k), torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))
        device = next(model.parameters()).device
        with torch.no_grad():
            output = model(*(a.to(device) for a in (diffusion.q_sample(x0, t, noise), t, y))).cpu()
        error = (output[:, :1] - noise).square().mean().sqrt()
        found[k] = float(error), float(output[:, 1:].mean())
    return found


def step_tables(
    process: Schedule,
    t: int,  # of the full process; the nearest step that is kept, but never the last
) -> tuple[
    int, Tensor, Tensor, Tensor
]:  # timestep, log of both extreme variances, error of the mean per error of eps
    "What the step back at t looks like."
    i = int((process.timestep_map - t).abs()[1:].argmin()) + 1
    factor = process.posterior_mean_coef1[i] * (1 / process.alphas_cumprod[i] - 1).sqrt()
    return (
        int(process.timestep_map[i]),
        process.posterior_log_variance_clipped[i],
        process.log_betas[i],
        factor,
    )


def step_bits(
    error: Tensor,  # of eps
    v: Tensor,  # variance values
    tables: tuple,  # from `step_tables`
    log_variance: Callable,  # (values, min_log, max_log) -> log variance
) -> Tensor:  # bits
    "The KL divergence of one step back, for a noise that is off by `error`."
    _, low, high, factor = tables
    return normal_kl(torch.zeros(()), low, factor * error, log_variance(v, low, high)) / math.log(2)


def pulls(
    error: float,
    v: float,
    tables: tuple,
    log_variance: Callable,
    leak: bool = False,  # the mistake: no detach
) -> tuple[float, float]:
    "Where the bound pulls the error and v: minus its gradient, as training sees it."
    point = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (error, v)]
    step_bits(point[0] if leak else point[0].detach(), point[1], tables, log_variance).backward()
    return tuple(0.0 if p.grad is None else -float(p.grad) for p in point)


ERRORS, VALUES = torch.linspace(-1.2, 1.2, 81).double(), torch.linspace(-1.5, 1.5, 61).double()


def draw_bells(ax, error: float, v: float, tables: tuple, log_variance: Callable) -> None:
    "The true step and the model's, in true standard deviations."
    _, low, high, factor = tables
    grid = np.linspace(-6, 6, 241)
    center = error * float(factor * (-0.5 * low).exp())
    spread = math.exp(float(log_variance(torch.tensor(v).double(), low, high) - low) / 2)
    for mean, sd, color in ((0, 1, "x_t"), (center, spread, "gate")):
        density = np.exp(-(((grid - mean) / sd) ** 2) / 2) / sd / math.sqrt(2 * math.pi)
        ax.fill_between(grid, density, color=COLORS[color], alpha=0.25)
        ax.plot(grid, density, color=COLORS[color], lw=2)
    ax.text(-5.8, 0.66, "true step", color=COLORS["x_t"])
    ax.text(-5.8, 0.6, "model's", color=COLORS["gate"])
    ax.set(xlim=(-6, 6), ylim=(0, 0.72), xticks=[-4, 4], yticks=[])
    ax.set_xlabel("x at t - 1, in true standard deviations")


def draw_cost(ax, tables: tuple, log_variance: Callable) -> None:
    "What each error and each v cost, and the valley: the best v for each error."
    bits = step_bits(ERRORS, VALUES[:, None], tables, log_variance)  # (61, 81)
    options = {"cmap": "Greys", "vmin": -3, "vmax": 0.5, "aspect": "auto", "origin": "lower"}
    artist = ax.imshow(bits.clamp(min=1e-9).log10(), extent=(-1.2, 1.2, -1.5, 1.5), **options)
    best = VALUES[bits.argmin(0)]
    best[(best.abs() > 1.45) | (bits.amax(0) - bits.amin(0) < 1e-3)] = torch.nan
    ax.plot(ERRORS, best, color=COLORS["cond"], lw=2)
    bar = ax.figure.colorbar(artist, ax=ax, ticks=[-3, 0], label="KL divergence")
    bar.ax.set_yticklabels(["0.001", "1 bit"])
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.5, 1.5), xticks=[-1, 1], yticks=[-1, 1])
    ax.set(xlabel="error of the predicted noise", ylabel="variance value v")
    for y, name, color in ((-1.12, "best v", "cond"), (-1.38, "digit model", "x_t")):
        ax.text(-1.14, y, name, color=COLORS[color], fontsize=9, backgroundcolor="white")


def draw_pull(ax, start: tuple[float, float], pull: tuple[float, float], color: str) -> None:
    "An arrow: its length grows with the order of magnitude of the pull."
    size = math.hypot(*pull)
    length = min(max((math.log10(max(size, 1e-9)) + 4) / 5, 0.0), 1.0) / max(size, 1e-9)
    tip = start[0] + pull[0] * length, start[1] + pull[1] * length
    ax.annotate("", tip, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 3})
    ax.plot(*start, "o", color=color, ms=9)


def plot_variance(
    trained: dict[int, tuple[float, float]],  # t -> (error, v) of a trained model
    processes: dict[int, Schedule],  # steps -> process
    log_variance: Callable,  # (values, min_log, max_log) -> log variance
    t: int = 1,  # timestep; the nearest that is kept is shown
    v: float = -0.8,
    error: float = 0.6,  # of the noise
    steps: int = 1000,
    leak: bool = False,  # the mistake: no detach
) -> Figure:
    "True step and model's step; and the price of every error and every v, with the pull of the bound."
    tables = step_tables(processes[steps], t)
    bits = float(step_bits(torch.tensor(error).double(), torch.tensor(v).double(), tables, log_variance))
    pull = pulls(error, v, tables, log_variance, leak)
    fig, (axes,) = figure(1, 2, (9, 3.4), width_ratios=[1, 1.35])
    draw_bells(axes[0], error, v, tables, log_variance)
    draw_cost(axes[1], tables, log_variance)
    color = COLORS["wrong" if leak else "gate"]
    draw_pull(axes[1], (error, v), pull, color)
    near = min(trained, key=lambda k: abs(math.log(k / tables[0])))
    axes[1].plot(*trained[near], "*", color=COLORS["x_t"], ms=15, mec="white")
    axes[0].set_title(f"t = {tables[0]}: {bits:.3g} bits")
    axes[1].set_title(f"the bound pulls eps by {pull[0]:.2g}, v by {pull[1]:.2g}", color=color)
    fig.words = (
        f"At timestep {tables[0]} of {steps} steps the model's step back costs {bits:.3g} bits more than the true "
        f"one. The bound pulls the noise by {pull[0]:.2g} and the variance value by {pull[1]:.2g}."
    )
    return fig


def explore_variance(
    log_variance: Callable = learned_log_variance,  # (values, min_log, max_log) -> log variance
) -> Explorer:
    "What does the bound charge for a wrong noise and a wrong variance, and whom does it pull?"
    processes = {steps: full_process().respaced(str(steps)) for steps in (10, 50, 250, 1000)}
    return Explorer(
        partial(plot_variance, trained_answers(), processes, log_variance),
        "the price of a step back",
        [
            (
                "Set v to -0.1.",
                "The arrow all but vanishes: you are in the valley, where v fits the error; so is the digit model.",
            ),
            (
                "Set t to 20 and keep 50 steps.",
                "The walls grow steep and the digit model leaves the valley: its v was learned for 1000 steps.",
            ),
            (
                "Switch the mistake on, then set t to 100.",
                "The arrow turns: the bound now trains the noise as well, and at t = 1 forty times harder than at 100.",
            ),
        ],
        t=slider("timestep t", 1, 999, 1),
        v=slider("v", -1.5, 1.5, -0.8, 0.1),
        error=slider("error of the noise", -1.2, 1.2, 0.6, 0.1),
        steps=stops("steps", [10, 50, 250, 1000], 1000),
        leak=mistake("no detach"),
    )
