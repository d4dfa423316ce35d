"""Explorer of lesson 18: classifier-free guidance, fidelity against diversity."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.config import SamplingConfig
from dit_nb.data import digits
from dit_nb.guidance import cfg_eps
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.teach.explore.core import Explorer, choice, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_guidance"]

_SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
_BUGS = ("none", "1 + w", "swapped", "null is 0")
_cached_digits = lru_cache(maxsize=1)(digits)


def _margins(images: Tensor, label: int) -> Tensor:  # (N,)
    """By how much each image is nearer to a real digit of this label than to any other; below 0: another label."""
    train = _cached_digits().train
    distances = torch.cdist(images.clamp(-1, 1).flatten(1), train.images.flatten(1))  # (N, M)
    own, others = (distances[:, mask].amin(1) for mask in (train.labels == label, train.labels != label))
    return others - own


def _mean_distance(images: Tensor) -> float:
    return float(torch.pdist(images.flatten(1)).mean())


@lru_cache(maxsize=10)
def _held_out_point(label: int) -> tuple[float, float]:
    """Mean distance and mean margin of held-out digits."""
    held_out = _cached_digits().held_out
    images = held_out.images[held_out.labels == label]
    return _mean_distance(images), float(_margins(images, label).mean())


def _guide(model: Callable, combine: Callable, w: float, bug: str) -> Callable:
    """A guided eps model, possibly with a bug."""
    null = 0 if bug == "null is 0" else model.null_class
    w = w + 1 if bug == "1 + w" else w

    def guided(x, t, y):
        labels = torch.cat([y, torch.full_like(y, null)])
        halves = model(torch.cat([x, x]), torch.cat([t, t]), labels)[:, : x.shape[1]].chunk(2)
        return combine(*(reversed(halves) if bug == "swapped" else halves), w)

    return guided


def _sweep_scales(
    model: Callable,
    sampling: SamplingConfig,
    combine: Callable,
    label: int,
    bug: str,
    progress: Callable | None = None,
) -> tuple[Tensor, Tensor, list[float]]:
    """Sample the same sixteen noises at every scale, by DDIM.

    Returns samples (W, 16, 1, 8, 8), their margins (W, 16), their mean distances (W).
    """
    device = next(model.parameters()).device
    start = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels, options = torch.full((16,), label, device=device), {"clip_x0": True, "progress": False}
    diffusion, rows = make_diffusion(sampling).respaced("ddim20").to(device), []
    for i, w in enumerate(_SCALES):
        guided = _guide(model, combine, w, bug)
        rows.append(ddim_sample(diffusion, guided, start.shape, labels, x_T=start, **options).cpu())
        if progress:
            progress(i + 1, len(_SCALES))
    margins = torch.stack([_margins(row, label) for row in rows])
    return torch.stack(rows), margins, [_mean_distance(row) for row in rows]


def _tile(images: Tensor, is_wrong: Tensor) -> np.ndarray:  # (40, 40, 3)
    """Sixteen images (16, 1, 8, 8), four by four, the wrong ones in a red frame."""
    tiles = np.ones((16, 10, 10, 3))
    tiles[is_wrong.numpy()] = (0.84, 0.37, 0)
    tiles[:, 1:9, 1:9] = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    return tiles.reshape(4, 4, 10, 10, 3).transpose(0, 2, 1, 3, 4).reshape(40, 40, 3)


def _draw_tradeoff(ax, sweeps: dict[str, tuple], label: int, bug: str, now: int) -> None:
    """Mean margin against mean distance, for all scales; a cross for held-out digits."""
    real = _held_out_point(label)
    ax.plot(*real, "x", color="black", ms=10, mew=2)
    ax.annotate("real", real, (6, 6), textcoords="offset points")
    for name, (_, margin, distance) in sweeps.items():
        color = COLORS["gray" if name != bug else "x_t" if bug == "none" else "wrong"]
        ax.plot(distance, margin.mean(1), ".-", color=color)
        for w, offset in ((0.0, (-14, -14)), (1.0, (-32, -14)), (8.0, (12, 14))) if name == "none" else ():
            at = distance[_SCALES.index(w)], margin[_SCALES.index(w)].mean()
            line = {"arrowstyle": "-", "color": COLORS["gray"], "shrinkA": 0, "shrinkB": 0}
            ax.annotate(f"w = {w:g}", at, offset, textcoords="offset points", arrowprops=line)
        if name == bug:
            ax.plot(distance[now], margin.mean(1)[now], "o", color=color, ms=12)
    ax.set(xlim=(2, 7), ylim=(-4, 3), xticks=[2, 4, 6], yticks=[-3, 0, 3])
    ax.set(
        xlabel="diversity: mean distance", ylabel=f"fidelity: by how much nearer\nto a {label} than to others"
    )


def _plot_guidance(sweeps: dict[str, tuple], label: int = 3, w: float = 4.0, bug: str = "none") -> Figure:
    """Show samples without guidance and with it, and fidelity against diversity at all scales."""
    fig, (axes,) = figure(1, 3, (9, 3.2), width_ratios=[1, 1, 1.1])
    plain, now = _SCALES.index(1.0), _SCALES.index(w)
    name = f"w = {w:g}" + ("" if bug == "none" else f", mistake: {bug}")
    for ax, key, i, title in ((axes[0], "none", plain, "w = 1: no guidance"), (axes[1], bug, now, name)):
        images, margin, _ = sweeps[key]
        ax.imshow(_tile(images[i], margin[i] < 0), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, color="black" if key == "none" else COLORS["wrong"])
    _draw_tradeoff(axes[2], sweeps, label, bug, now)
    count = int((sweeps[bug][1][now] > 0).sum())
    axes[2].set_title(f"{count} of 16 are nearest to a {label}")
    fig.alt_text = (
        f"Sixteen samples of the digit {label} at guidance scale {w:g} (mistake: {bug}) beside the same noises "
        f"without guidance. {count} of 16 are nearest to a real {label}; their mean distance is "
        f"{sweeps[bug][2][now]:.1f}, that of the unguided ones {sweeps['none'][2][plain]:.1f}."
    )
    return fig


def _report_part(progress: Callable, i: int, parts: int, done: int, total: int) -> None:
    progress(i * total + done, parts * total)


def explore_guidance(combine: Callable = cfg_eps) -> Explorer:
    """Explore what guidance gains in fidelity and loses in diversity.

    Args:
        combine: function (cond, uncond, w) -> eps; the library's by default
    """
    model, sampling = digit_model()
    cached = {}

    def prepare(label, bug, progress):
        wanted = list(dict.fromkeys(("none", bug)))
        for i, name in enumerate(wanted):
            report = partial(_report_part, progress, i, len(wanted))
            if (label, name) not in cached:
                cached[label, name] = _sweep_scales(model, sampling, combine, label, name, report)
        return {name: cached[label, name] for name in wanted}

    return Explorer(
        _plot_guidance,
        "fidelity against diversity",
        """
        1. *Lower w to 0, then raise it to 8.* Any digit; plain conditional samples; then typical and similar
           ones: the dot moves up and left, until it turns back: 8 is too much.
        2. *Choose the mistake swapped.* Guidance removes the label: not one 3 is left. Plain conditional
           samples are now at w = 0.
        3. *Choose digit 0 and the mistake null is 0.* The scale has no effect: both predictions are for the
           label 0.
        """,
        prepare,
        label=choice("digit", list(range(10)), 3),
        w=stops("scale w", list(_SCALES), 4.0),
        bug=choice("mistake", list(_BUGS), "none"),
    )
