"""Explorers of lesson 30: training times and sampling times, and trajectories of points in the plane."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import running_emoji
from dit_nb.errors import UserError, _check_type
from dit_nb.since.flow import RectifiedFlow, flow_sample, flow_time, shift_time
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.teach.explore.objective import _full_diffusion
from dit_nb.visual import COLORS, _AltTextFigure, _to_pixels, figure

__all__ = ["explore_flow", "explore_plane"]

_SHIFTS = [("1/3", 1 / 3), ("1", 1.0), ("2", 2.0), ("3", 3.0), ("6", 6.0)]
_DENSITIES = ("logit-normal", "uniform", "diffusion")
_MODES, _WEIGHTS, _STD = (-0.8, 0.8), (1 / 3, 2 / 3), 0.12
_STARTS = (-1.7, -1.0, -0.4, 0.05, 0.4, 1.1, 1.8)
_LEVELS = range(-4, 6)  # logits at which the emoji is shown
_PLANE = 2.6  # the plane is shown from -2.6 to 2.6
_LINES = 80  # trajectories that are drawn, of 200


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


def _follow(velocity: Callable, x_T: Tensor, times: Tensor, step: str) -> Tensor:
    """x at each time, (steps + 1, N, C), from x_T (N, C)."""
    seen, flow = [], RectifiedFlow(times=times)
    end = flow_sample(flow, velocity, x_T.shape, step=step, x_T=x_T, callback=seen.append, progress=False)
    return torch.stack([*(one.x_t for one in seen), end])


def _trajectories(times: Tensor, step: str) -> Tensor:
    """The pixel at each time, (steps + 1, starts)."""
    return _follow(_two_modes, torch.tensor(_STARTS, dtype=torch.float64)[:, None], times, step)[:, :, 0]


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


def _targets() -> dict[str, Tensor]:
    """Four data sets of 200 points in the plane, (200, 2) each."""
    half, turn = torch.linspace(0, torch.pi, 100).repeat(2), torch.linspace(0, 2 * torch.pi, 201)[1:]
    side = torch.tensor([1.0, -1.0]).repeat_interleave(100)
    spiral, radius = 1.5 * turn, 0.3 + 1.4 * turn / turn[-1]
    curves = {
        "two moons": (side * half.cos() + side / 2, side * half.sin() + side / 5),
        "ring": (1.5 * turn.cos(), 1.5 * turn.sin()),
        "four blobs": (side, side.roll(50)),
        "spiral": (radius * spiral.cos(), radius * spiral.sin()),
    }
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    spread = {"four blobs": 0.15}
    return {
        name: (torch.stack(xy, 1) + spread.get(name, 0.05) * noise).double() for name, xy in curves.items()
    }


def _point_velocity(points: Tensor) -> Callable:
    """The exact velocity of a data set (M, 2), for `RectifiedFlow`: x (N, 2), time 1000 t with t above 0."""

    def velocity(x: Tensor, time: Tensor, y: Tensor | None = None) -> Tensor:
        t = (time / 1000).view(-1, 1)
        # -|x - (1 - t) point|^2 / (2 t^2), without |x|^2, which is the same for all points.
        logits = (1 - t) * (x @ points.T - (1 - t) * points.square().sum(1) / 2) / t**2  # (N, M)
        return (x - logits.softmax(1) @ points) / t

    return velocity


class _Plane(NamedTuple):
    """A data set in the plane, and what a sampler does."""

    points: Tensor  # (M, 2) data
    velocity: Callable  # the velocity that the sampler follows: exact, or of the other sign by mistake
    paths: Tensor  # (steps + 1, 200, 2), from noise to the end


def _run_plane(targets: dict[str, Tensor], target: str, steps: int, step: str, is_swapped: bool) -> _Plane:
    """Follow the exact velocity of a data set from 200 points of noise."""
    exact = _point_velocity(targets[target])
    velocity = (lambda x, time, y=None: -exact(x, time)) if is_swapped else exact
    x_T = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)).double()
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return _Plane(targets[target], velocity, _follow(velocity, x_T, times, step))


def _at_time(paths: Tensor, t: float) -> Tensor:
    """The points at time t, (N, 2): on the straight lines between the times of even steps."""
    place = (1 - t) * (len(paths) - 1)
    before = min(int(place), len(paths) - 2)
    return torch.lerp(paths[before], paths[before + 1], place - before)


def _show_arrows(ax, velocity: Callable, t: float, color: str) -> None:
    """Where the sampler goes, -v, on a grid. Long arrows are cut to the distance of the grid's points."""
    line = torch.linspace(-2.4, 2.4, 13, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    moves = -0.12 * velocity(grid, torch.full((len(grid),), 1000 * t, dtype=torch.float64))
    moves = moves * (0.38 / moves.norm(dim=1, keepdim=True)).clamp(max=1)
    options = dict(angles="xy", scale_units="xy", scale=1, width=0.004, color=color)
    ax.quiver(*grid.T, *moves.T, **options)


def _distance(ends: Tensor, points: Tensor) -> float:
    """Mean distance of the ends to the nearest data point."""
    return float(torch.cdist(ends, points).min(1).values.mean())


def _start_plane(plane: _Plane) -> tuple[_AltTextFigure, list]:
    """A figure with two panels that show the data and its mean."""
    fig, (axes,) = figure(1, 2, (8.4, 4.25))
    for ax in axes:
        ax.plot(*plane.points.T, ".", color=COLORS["gray"], ms=3, alpha=0.5, label="data")
        ax.plot(*plane.points.mean(0), "+", color="black", ms=13, mew=1.2, label="mean of the data")
        limits = (-_PLANE, _PLANE)
        ax.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
    return fig, list(axes)


def _show_paths(ax, paths: Tensor, color: str) -> None:
    """Trajectories as one line with gaps, their starts and their ends."""
    some = paths[:, :_LINES]
    line = torch.cat([some, torch.full_like(some[:1], torch.nan)]).transpose(0, 1).flatten(0, 1)
    ax.plot(*line.T, color=color, lw=0.7, alpha=0.7)
    ax.plot(*some[0].T, ".", color=COLORS["eps"], ms=4, label="noise")
    ax.plot(*some[-1].T, ".", color=color, ms=5, label="end")
    ax.legend(fontsize=8, ncols=4, loc="lower center", handletextpad=0.1, columnspacing=0.8)


def _plot_plane(plane: _Plane, target: str, steps: int, step: str, t: float, is_swapped: bool) -> Figure:
    """Show trajectories from noise to the end, and the points and the velocity at one time."""
    fig, axes = _start_plane(plane)
    color, arrows = (COLORS["wrong" if is_swapped else name] for name in ("x_t", "velocity"))
    _show_paths(axes[0], plane.paths, color)
    if t > 0:  # at 0 the sampler needs no velocity
        _show_arrows(axes[1], plane.velocity, t, arrows)
    axes[1].plot(*_at_time(plane.paths, t).T, ".", color=color, ms=6)
    word = f"{steps} {step.capitalize()} step{'s' * (steps > 1)}"
    off = _distance(plane.paths[-1], plane.points)
    axes[0].set_title(f"{word}: mean distance to the data {off:.3f}", fontsize=10)
    axes[1].set_title(f"200 points at t = {t:.2f}" + ("; arrows: $-v$" if t > 0 else ""), fontsize=10)
    fig.alt_text = (
        f"Trajectories of points from noise to the target {target} by the exact velocity"
        f"{' with the wrong sign' if is_swapped else ''}, {word}; the ends are {off:.3g} from the data on average. "
        f"Beside them 200 points at t = {t:.2f}{', and the direction of the sampler as arrows' * (t > 0)}."
    )
    return fig


def explore_plane(points: Tensor | None = None) -> Explorer:
    """Explore trajectories in the plane from noise to data, by the exact velocity of the data.

    Args:
        points: your own data set, (M, 2), best between -2 and 2; it is added to the four of the explorer

    Raises:
        UserError: if `points` is not a tensor (M, 2)
    """
    targets = _targets()
    if points is not None:
        _check_type("points", points, Tensor)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise UserError(f"points has shape {tuple(points.shape)}, but must be (M, 2), M at least 1.")
        targets = {"yours": points.double(), **targets}
    return Explorer(
        _plot_plane,
        "trajectories in the plane",
        """
        1. *Set steps to 1, then raise them.* One step ends in the mean of the data, whatever the target; 64 steps
           end on the data. With four steps Heun comes nearer to the data than Euler.
        2. *Move t from 1 to 0.* At t = 1 all arrows point to the mean; near t = 0 each points to the data point
           next to it. In between they turn, so the trajectories are curved.
        3. *Switch the mistake on.* With data minus noise as the velocity the sampler runs away from the data.
           Nothing fails.
        """,
        partial(_run_plane, targets),
        target=choice("target", list(targets), next(iter(targets))),
        steps=stops("steps", [1, 2, 3, 4, 6, 8, 16, 32, 64], 64),
        step=choice("sampler", ["euler", "heun"], "euler"),
        t=slider("t", 0.0, 1.0, 0.5, 0.05),
        is_swapped=mistake("velocity as data minus noise"),
    )
