"""Explorer of lesson 17: solvers of the probability-flow ODE, and where their steps lie."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.few_steps import _log_snr, dpm_solver_step, respaced_by_log_snr
from dit_nb.objective import Diffusion
from dit_nb.sampling import sample_loop
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.teach.explore.objective import _full_diffusion
from dit_nb.visual import COLORS, figure

__all__ = ["explore_few_steps"]

_COUNTS = (3, 5, 8, 12, 16, 24, 48)
_MODES, _WEIGHTS, _STD = (-0.8, 0.8), (1 / 3, 2 / 3), 0.12
_STARTS = (-1.7, -1.0, -0.55, -0.2, 0.6, 1.6)


def _two_modes(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """The exact eps model of one pixel with two modes."""
    modes, weights = (torch.tensor(v, dtype=torch.float64) for v in (_MODES, _WEIGHTS))
    bar = _full_diffusion().alphas_cumprod[t].view(-1, 1, 1, 1)
    V = bar * _STD**2 + 1 - bar
    logits = -((x[..., None] - bar.sqrt()[..., None] * modes) ** 2) / (2 * V[..., None]) + weights.log()
    return (1 - bar).sqrt() * (x - bar.sqrt() * (logits.softmax(-1) * modes).sum(-1)) / V


def _schedule(steps: int, spacing: str) -> Diffusion:
    full = _full_diffusion()
    return full.respaced(str(steps)) if spacing == "t" else respaced_by_log_snr(full, steps)


def _trajectories(
    step: Callable, steps: int, spacing: str, order: int = 2, is_backwards: bool = False
) -> Tensor:
    """x at each timestep of the schedule, from noise to t = 0, (steps, starts)."""
    seen, last = [], []

    def take_step(diffusion, prediction, x_t, t, noise):
        before = last[0] if last and order == 2 else None
        if before is not None and is_backwards:
            before = 2 * prediction.x0 - before  # the same distance, in the other direction
        last[:] = [prediction.x0]
        return step(diffusion, prediction, x_t, t, noise, before)

    x_T = torch.tensor(_STARTS, dtype=torch.float64).view(-1, 1, 1, 1)
    options = dict(x_T=x_T, posterior=False, callback=seen.append, progress=False)
    sample_loop(take_step, _schedule(steps, spacing), _two_modes, x_T.shape, **options)
    return torch.stack([one.x_t.flatten() for one in seen])


@lru_cache(1)
def _exact() -> Tensor:
    """The trajectories in 300 small steps of second order."""
    return _trajectories(dpm_solver_step, 300, "log SNR")


def _measure_errors(step: Callable, is_backwards: bool) -> dict[tuple, list[float]]:
    """Root mean square error at t = 0 of every solver and spacing, for each of `_COUNTS`."""
    found = {}
    for solver, order in (("DDIM", 1), ("DPM++", 2)):
        for spacing in ("t", "log SNR"):
            ends = [_trajectories(step, n, spacing, order, is_backwards)[-1] for n in _COUNTS]
            found[solver, spacing] = [float((end - _exact()[-1]).square().mean().sqrt()) for end in ends]
    return found


def _plot_few_steps(
    step: Callable, errors: dict, solver: str, spacing: str, steps: int, is_backwards: bool
) -> Figure:
    """Show trajectories in few steps over the exact ones, and the error of all solvers."""
    order, shown = {"DDIM": 1, "DPM++": 2}[solver], COLORS["wrong" if is_backwards else "x_t"]
    fig, (axes,) = figure(1, 2, (9, 3.5), width_ratios=[1.5, 1])
    fine, coarse = (
        _log_snr(s.alphas_cumprod).flip(0) for s in (_schedule(300, "log SNR"), _schedule(steps, spacing))
    )
    axes[0].plot(fine, _exact(), color=COLORS["gray"], lw=3, alpha=0.5)
    paths = _trajectories(step, steps, spacing, order, is_backwards)
    axes[0].plot(coarse, paths, "o-", color=shown, ms=3.5, lw=1.2)
    axes[0].set(
        xlabel="log SNR, from noise to data", ylabel="pixel value", ylim=(-1.9, 1.9), yticks=[-0.8, 0.8]
    )
    axes[0].set_title(f"{solver}, {steps} steps even in {spacing}")
    for (name, where), values in errors.items():
        is_now = (name, where) == (solver, spacing)
        marker = ("o" if name == "DDIM" else "s") + ("-" if where == "log SNR" else ":")
        label = f"{name}, {where}"
        options = dict(color=shown if is_now else COLORS["gray"], lw=2 if is_now else 1, ms=4)
        fill = "full" if where == "log SNR" else "none"
        axes[1].plot(_COUNTS, values, marker, fillstyle=fill, label=label, **options)
    axes[1].set(
        xscale="log", yscale="log", ylim=(1e-4, 2), xlabel="number of steps", title="error at t = 0 (RMS)"
    )
    axes[1].set_xticks(_COUNTS, _COUNTS)
    axes[1].minorticks_off()
    axes[1].legend(fontsize=7, loc="lower left")
    error = float((paths[-1] - _exact()[-1]).square().mean().sqrt())
    fig.alt_text = (
        f"Six trajectories of {solver} in {steps} steps even in {spacing}, over the exact ones, and the error of four "
        f"combinations of solver and spacing against the number of steps. This one's error is {error:.3g}."
    )
    return fig


def explore_few_steps(step: Callable = dpm_solver_step) -> Explorer:
    """Explore how solver and spacing of the steps determine the error of a few-step sampler.

    Args:
        step: function with the signature of `dpm_solver_step`, which is the default
    """
    return Explorer(
        partial(_plot_few_steps, step),
        "solvers and their steps",
        """
        1. *Raise the steps to 48, then choose DPM++.* DDIM's error halves when the steps double; that of DPM++
           falls to about a quarter.
        2. *With DPM++, space the steps evenly in t.* The last step is now a third of the way, and the advantage
           over DDIM is gone.
        3. *Switch the mistake on.* The trajectories still end near the modes; only the error shows that they
           are of first order again.
        """,
        partial(_measure_errors, step),
        solver=choice("solver", ["DDIM", "DPM++"], "DDIM"),
        spacing=choice("steps even in", ["log SNR", "t"], "log SNR"),
        steps=stops("steps", list(_COUNTS), 8),
        is_backwards=mistake("extrapolate backwards"),
    )
