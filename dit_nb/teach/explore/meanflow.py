"""Explorer of lesson 35: jumps by the average velocity, and steps by the velocity at their start."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_meanflow"]

_MODES, _WEIGHTS, _STD = (-0.8, 0.8), (1 / 3, 2 / 3), 0.12
_STARTS = (-1.7, -0.9, -0.45, -0.1, 0.6, 1.5)
_COUNTS = (1, 2, 3, 4, 6, 8, 16)


def _col(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)


def _parts(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and standard deviation of the two modes of x_t, and their weights; modes on the last axis."""
    modes, weights = (torch.tensor(v, dtype=torch.float64) for v in (_MODES, _WEIGHTS))
    s = _col(t)[..., None]
    return (1 - s) * modes, ((1 - s) ** 2 * _STD**2 + s**2).sqrt(), weights


def _cdf(x: Tensor, t: Tensor) -> Tensor:
    """Probability that x_t lies below x."""
    means, std, weights = _parts(t)
    return (weights * torch.special.ndtr((x[..., None] - means) / std)).sum(-1)


def _jump(x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Where the exact trajectory through x at time t is at time r: it keeps its quantile. By bisection."""
    wanted, low, high = _cdf(x, t), torch.full_like(x, -9.0), torch.full_like(x, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        is_below = _cdf(middle, r) < wanted
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2


def _velocity(x: Tensor, t: Tensor) -> Tensor:
    """Exact velocity at x: expected noise minus expected data."""
    means, std, weights = _parts(t)
    s = _col(t)[..., None]
    logits = weights.log() - ((x[..., None] - means) / std) ** 2 / 2
    centered = x[..., None] - means
    modes = torch.tensor(_MODES, dtype=torch.float64)
    each = s * centered / std**2 - (modes + (1 - s) * _STD**2 * centered / std**2)
    return (logits.softmax(-1) * each).sum(-1)


def _average_velocity(x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Exact average velocity (N, 1, 1, 1) from t down to r; the velocity itself where r = t."""
    length = _col(t - r)
    return torch.where(length == 0, _velocity(x, t), (x - _jump(x, t, r)) / length.clamp(min=1e-9))


def _few_jumps(average: Callable, x_T: Tensor, times: Tensor) -> Tensor:
    """Jump from each time to the next."""
    x = x_T
    for t, r in zip(times[:-1], times[1:]):
        x = x - (t - r) * average(x, t.expand(len(x)), r.expand(len(x)))
    return x


def _asked(kind: str, is_wrong: bool) -> Callable:
    """What the jumps receive: the exact average velocity, or the velocity at the start; always down to 0 if wrong."""
    if kind == "velocity at t":
        return lambda x, t, r: _velocity(x, t)
    return lambda x, t, r: _average_velocity(x, t, 0 * r if is_wrong else r)


def _path(jumps: Callable, average: Callable, steps: int) -> Tensor:
    """x after 0, 1, ... jumps, (steps + 1, starts)."""
    x_T = _col(torch.tensor(_STARTS, dtype=torch.float64))
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    path = [x_T, *(jumps(average, x_T, times[: k + 1]) for k in range(1, steps + 1))]
    return torch.stack([x.flatten() for x in path])


@lru_cache(1)
def _exact() -> tuple[Tensor, Tensor]:
    """Times (60,) and the exact trajectories at them, (60, starts)."""
    times = torch.linspace(1, 0, 60, dtype=torch.float64)
    x_T = _col(torch.tensor(_STARTS, dtype=torch.float64))
    n = len(x_T)
    path = [_jump(x_T, torch.ones(n, dtype=torch.float64), t.expand(n)).flatten() for t in times]
    return times, torch.stack(path)


def _errors(jumps: Callable, is_wrong: bool) -> dict[str, list[float]]:
    """Root mean square error at t = 0 for each of `_COUNTS`, by what the jumps receive."""
    goal = _exact()[1][-1]
    return {
        kind: [
            float((_path(jumps, _asked(kind, is_wrong), n)[-1] - goal).square().mean().sqrt())
            for n in _COUNTS
        ]
        for kind in ("average velocity", "velocity at t")
    }


def _plot_meanflow(jumps: Callable, errors: dict, kind: str, steps: int, is_wrong: bool) -> Figure:
    """Show jumps over the exact trajectories, and the error against the number of jumps."""
    fig, (axes,) = figure(1, 2, (9, 3.5), width_ratios=[1.5, 1])
    colors = {"average velocity": COLORS["wrong" if is_wrong else "x_t"], "velocity at t": COLORS["velocity"]}
    axes[0].plot(*_exact(), color=COLORS["gray"], lw=5, alpha=0.3)
    path = _path(jumps, _asked(kind, is_wrong), steps)
    axes[0].plot(torch.linspace(1, 0, steps + 1), path, "o-", color=colors[kind], ms=4, lw=1.2)
    axes[0].set(xlabel="flow time t, from noise (1) to data (0)", ylabel="pixel value", yticks=[-0.8, 0.8])
    axes[0].set(xlim=(1.03, -0.03), ylim=(-1.9, 1.9))
    word = "jump" if kind == "average velocity" else "Euler step"
    axes[0].set_title(f"{steps} {word}{'s' * (steps > 1)} by the {kind}", fontsize=10)
    for name, values in errors.items():
        is_now, marker = name == kind, "o-" if name == "average velocity" else "s:"
        options = dict(color=colors[name], lw=2 if is_now else 1, ms=4, label=name)
        axes[1].plot(_COUNTS, [max(v, 1e-6) for v in values], marker, **options)
    axes[1].set(xscale="log", yscale="log", ylim=(5e-7, 3), xlabel="number of jumps or steps")
    axes[1].set_title("RMS error at t = 0 (drawn from 1e-6)", fontsize=10)
    axes[1].set_xticks(_COUNTS, _COUNTS)
    axes[1].minorticks_off()
    axes[1].legend(fontsize=8)
    error = float((path[-1] - _exact()[1][-1]).square().mean().sqrt())
    fig.alt_text = (
        f"Six trajectories of a pixel with two modes, in {steps} {word}s by the {kind}"
        f"{', always asked down to 0' if is_wrong else ''}, over the exact ones, and the error against the number of "
        f"jumps. This one's error is {error:.2g}."
    )
    return fig


def explore_meanflow(jumps: Callable = _few_jumps) -> Explorer:
    """Explore jumps by the average velocity, beside steps by the velocity at their start.

    Args:
        jumps: function (average, x_T, times) -> x at the last time, as in the exercise `few_jumps`
    """
    return Explorer(
        partial(_plot_meanflow, jumps),
        "jumps and steps",
        """
        1. *Choose the velocity at t, then raise the number of jumps.* One step lands near the mean of the data,
           between the modes; sixteen steps are still off where a trajectory bends.
        2. *Choose the average velocity.* Each jump lands on the trajectory, whether there is one jump or sixteen.
        3. *Switch the mistake on, with two jumps.* The network is asked for the average down to 0, but the jump stops
           at the next time. With one jump nothing changes; with more the dots leave the trajectories.
        """,
        partial(_errors, jumps),
        kind=choice("jump by", ["average velocity", "velocity at t"], "velocity at t"),
        steps=stops("jumps", list(_COUNTS), 2),
        is_wrong=mistake("ask for the average down to 0"),
    )
