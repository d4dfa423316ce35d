"""Explorer of lesson 34: what five methods do to samples that plain guidance makes alike."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.guidance import cfg_eps
from dit_nb.pretrained import block_model, digit_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.guidance import GuidedBy, cfg_zero_star, projected_guidance, rescaled_guidance
from dit_nb.speed import InferenceModel
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.teach.explore.guidance import _held_out_point, _margins, _mean_distance, _tile
from dit_nb.visual import COLORS, figure

__all__ = ["explore_guidance_today"]

_SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
_METHODS = ("interval", "rescaled", "CFG-Zero*", "APG", "autoguidance")
_STEPS, _THRESHOLD, _INTERVAL = 12, 2.0, (100, 600)


@lru_cache(maxsize=2)
def _velocity_model(name: str) -> NoiseAsVelocity:
    """The bundled digit model, or the smaller one of lesson 11, as a velocity model."""
    model, sampling = digit_model("cpu") if name == "digits" else block_model("adaln_zero", "cpu")
    return NoiseAsVelocity(InferenceModel(model), make_diffusion(sampling))


def _wrap(method: str, w: float, project: Callable, is_exchanged: bool) -> Callable:
    """The digit model, guided by one method; `is_exchanged` swaps its two predictions."""
    combine = {
        "rescaled": partial(rescaled_guidance, cfg_scale=w),
        "CFG-Zero*": partial(cfg_zero_star, cfg_scale=w),
        "APG": lambda c, u: project(c, u, w, 0.0, _THRESHOLD),
    }.get(method, partial(cfg_eps, cfg_scale=w))
    options = {
        "interval": {"interval": _INTERVAL},
        "CFG-Zero*": {"zero_from": 1000 * (1 - 0.5 / _STEPS)},
        "APG": {"x0_of": RectifiedFlow()},
        "autoguidance": {"worse": _velocity_model("small")},
    }.get(method, {})
    rule = (lambda c, u: combine(u, c)) if is_exchanged else combine
    return GuidedBy(_velocity_model("digits"), rule, **options)


def _sweep(
    method: str, label: int, project: Callable, is_exchanged: bool
) -> tuple[Tensor, Tensor, list[float]]:
    """Sample the same sixteen noises at every scale: samples (W, 16, 1, 8, 8), margins (W, 16), mean distances (W)."""
    x_T = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, flow, rows = torch.full((16,), label), RectifiedFlow().respaced(_STEPS), []
    for w in _SCALES:
        guided = _wrap(method, w, project, is_exchanged)
        rows.append(flow_sample(flow, guided, x_T.shape, labels, x_T=x_T, progress=False))
    margins = torch.stack([_margins(row, label) for row in rows])
    return torch.stack(rows), margins, [_mean_distance(row) for row in rows]


def _draw_tradeoff(ax, sweeps: dict[str, tuple], method: str, label: int, color: str, now: int) -> None:
    """Mean margin against mean distance for all scales; a cross for held-out digits."""
    real = _held_out_point(label)
    ax.plot(*real, "x", color="black", ms=10, mew=2)
    ax.annotate("real", real, (0, 9), textcoords="offset points", ha="center")
    ax.margins(0.12)  # so that the label stays inside
    for name, (_, margins, distances) in sweeps.items():
        shown, line = (COLORS["gray"], "s--") if name == "CFG" else (color, "o-")
        ax.plot(distances, margins.mean(1), line, color=shown, ms=4, label=name)
        ax.plot(distances[now], margins.mean(1)[now], line[0], color=shown, ms=10)
    ax.set(
        xlabel="diversity: mean distance", ylabel=f"fidelity: by how much nearer\nto a {label} than to others"
    )
    ax.set_title("all scales; the large mark is w", fontsize=10)
    ax.legend(fontsize=8, loc="lower left")


def _plot_guidance_today(
    sweeps: dict[str, tuple], method: str, w: float, label: int, is_exchanged: bool
) -> Figure:
    """Show samples by plain guidance and by another method, and what both cost."""
    fig, (axes,) = figure(1, 3, (9, 3.2), width_ratios=[1, 1, 1.2])
    now, color = _SCALES.index(w), COLORS["wrong" if is_exchanged else "x_t"]
    for ax, name in zip(axes, ("CFG", method)):
        images, margins, distances = sweeps[name]
        ax.imshow(_tile(images[now], margins[now] < 0), interpolation="nearest")
        ax.set(xticks=[], yticks=[], xlabel=f"mean distance {distances[now]:.2f}")
        ax.set_title(f"{name}, w = {w:g}", color="black" if name == "CFG" else color, fontsize=10)
    _draw_tradeoff(axes[2], sweeps, method, label, color, now)
    plain, ours = (sweeps[name][2][now] for name in ("CFG", method))
    fig.alt_text = (
        f"Sixteen samples of the digit {label} at guidance scale {w:g}: by plain guidance, mean distance {plain:.2f}, "
        f"and by {method}{' with the predictions exchanged' if is_exchanged else ''}, mean distance {ours:.2f}. "
        "At the right, fidelity against diversity of both at five scales."
    )
    return fig


def explore_guidance_today(project: Callable = projected_guidance) -> Explorer:
    """Explore how five methods of guidance trade diversity for fidelity.

    Args:
        project: function with the arguments of `projected_guidance`, used as APG; that is the default
    """

    @lru_cache(maxsize=64)
    def sweep(method, label, is_exchanged):
        return _sweep(method, label, project, is_exchanged)

    def prepare(method, label, is_exchanged):
        return {"CFG": sweep("CFG", label, False), method: sweep(method, label, is_exchanged)}

    return Explorer(
        _plot_guidance_today,
        "five methods of guidance",
        """
        1. *Go through the methods at w = 3.* All but autoguidance lie between plain guidance and none;
           autoguidance alone makes the samples more different than they were without guidance.
        2. *Choose rescaled, and raise w to 5.* The digits lose the flat, saturated look of plain guidance, but not
           their likeness: the rule changes the contrast, not the direction.
        3. *Switch the mistake on.* Every method now leads away from its label, and the frames turn red: fewest with
           autoguidance, where both predictions have the label.
        """,
        prepare,
        method=choice("method", list(_METHODS), "APG"),
        w=stops("scale w", list(_SCALES), 3.0),
        label=choice("digit", list(range(10)), 3),
        is_exchanged=mistake("the two predictions are exchanged"),
    )
