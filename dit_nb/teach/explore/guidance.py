"""Four pictures of the process itself: noise, the step back, the sampler, the push of a label."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import digits
from dit_nb.guidance import cfg_eps
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.teach.explore.core import Explorer, choice, stops
from dit_nb.visual import COLORS, figure

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)


SLIPS = ("none", "1 + w", "swapped", "null is 0")


known_digits = lru_cache(maxsize=1)(digits)


def margins(
    images: Tensor,  # (N, 1, 8, 8)
    label: int,
) -> Tensor:  # (N,)
    "How much nearer each image is to a real digit of this label than to any other; below 0 it reads as another."
    train = known_digits().train
    distances = torch.cdist(images.clamp(-1, 1).flatten(1), train.images.flatten(1))  # (N, M)
    own, others = (distances[:, mask].amin(1) for mask in (train.labels == label, train.labels != label))
    return others - own


def spread_of(images: Tensor) -> float:
    "The mean distance of two images."
    return float(torch.pdist(images.flatten(1)).mean())


@lru_cache(maxsize=10)
def real_point(label: int) -> tuple[float, float]:
    "How diverse and how typical real digits are, which no model has seen."
    unseen = known_digits().held_out
    images = unseen.images[unseen.labels == label]
    return spread_of(images), float(margins(images, label).mean())


def guide(
    model: Callable,  # (x, t, y) -> (N, 2C, H, W)
    combine: Callable,  # (cond, uncond, w) -> eps
    w: float,
    slip: str,  # one of SLIPS
) -> Callable:  # a guided model
    "Ask with the label and without, and combine; or get it wrong."
    null = 0 if slip == "null is 0" else model.null_class
    w = w + 1 if slip == "1 + w" else w

    def ask(x, t, y):
        labels = torch.cat([y, torch.full_like(y, null)])
        answers = model(torch.cat([x, x]), torch.cat([t, t]), labels)[:, : x.shape[1]].chunk(2)
        return combine(*(reversed(answers) if slip == "swapped" else answers), w)

    return ask


def sweep_scales(
    model: Callable,  # trained on digits
    sampling: dict,  # how, as `digit_model` says it
    combine: Callable,
    label: int,
    slip: str,
    progress: Callable | None = None,  # (done, total)
) -> tuple[
    Tensor, Tensor, list[float]
]:  # (W, 16, 1, 8, 8) samples, their (W, 16) margins, (W,) mean distances
    "The same sixteen noises at every scale, by DDIM."
    device = next(model.parameters()).device
    start = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels, options = torch.full((16,), label, device=device), {"clip_x0": True, "progress": False}
    diffusion, rows = make_diffusion(sampling).respaced("ddim20").to(device), []
    for i, w in enumerate(SCALES):
        ask = guide(model, combine, w, slip)
        rows.append(ddim_sample(diffusion, ask, start.shape, labels, x_T=start, **options).cpu())
        if progress:
            progress(i + 1, len(SCALES))
    return torch.stack(rows), torch.stack([margins(row, label) for row in rows]), list(map(spread_of, rows))


def tile_samples(
    images: Tensor,  # (16, 1, 8, 8)
    wrong: Tensor,  # (16,) which get a red frame
) -> np.ndarray:  # (40, 40, 3)
    "Four by four, with frames."
    tiles = np.ones((16, 10, 10, 3))
    tiles[wrong.numpy()] = (0.84, 0.37, 0)
    tiles[:, 1:9, 1:9] = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    return tiles.reshape(4, 4, 10, 10, 3).transpose(0, 2, 1, 3, 4).reshape(40, 40, 3)


def draw_trade(ax, sweeps: dict[str, tuple], label: int, slip: str, now: int) -> None:
    "Typical against diverse, for all scales; a cross for real digits that the model has not seen."
    real = real_point(label)
    ax.plot(*real, "x", color="black", ms=10, mew=2)
    ax.annotate("real", real, (6, 6), textcoords="offset points")
    for name, (_, margin, apart) in sweeps.items():
        color = COLORS["grey" if name != slip else "cond" if slip == "none" else "wrong"]
        ax.plot(apart, margin.mean(1), ".-", color=color)
        for w, place in ((0.0, (-14, -14)), (1.0, (-14, -14)), (8.0, (6, 8))) if name == "none" else ():
            at = apart[SCALES.index(w)], margin[SCALES.index(w)].mean()
            ax.annotate(f"w = {w:g}", at, place, textcoords="offset points")
        if name == slip:
            ax.plot(apart[now], margin.mean(1)[now], "o", color=color, ms=12)
    ax.set(xlim=(2, 7), ylim=(-4, 3), xticks=[2, 4, 6], yticks=[-3, 0, 3])
    ax.set(
        xlabel="diverse: mean distance", ylabel=f"typical: by how much nearer\nto a {label} than to others"
    )


def plot_guidance(
    sweeps: dict[str, tuple],  # slip -> result of `sweep_scales`; "none" is always there
    label: int = 3,
    w: float = 4.0,
    slip: str = "none",  # one of SLIPS
) -> Figure:
    "Samples without guidance and with it, and the trade between typical and diverse."
    fig, (axes,) = figure(1, 3, (9, 3.2), width_ratios=[1, 1, 1.1])
    plain, now = SCALES.index(1.0), SCALES.index(w)
    name = f"w = {w:g}" + ("" if slip == "none" else f", mistake: {slip}")
    for ax, key, i, title in ((axes[0], "none", plain, "w = 1: no guidance"), (axes[1], slip, now, name)):
        images, margin, _ = sweeps[key]
        ax.imshow(tile_samples(images[i], margin[i] < 0), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, color="black" if key == "none" else COLORS["wrong"])
    draw_trade(axes[2], sweeps, label, slip, now)
    count = int((sweeps[slip][1][now] > 0).sum())
    axes[2].set_title(f"{count} of 16 are nearest to a {label}")
    fig.words = (
        f"Sixteen samples of the digit {label} at guidance scale {w:g} (mistake: {slip}) beside the same noises "
        f"without guidance. {count} of 16 are nearest to a real {label}; their mean distance is "
        f"{sweeps[slip][2][now]:.1f}, that of the unguided ones {sweeps['none'][2][plain]:.1f}."
    )
    return fig


def report_part(progress: Callable, i: int, parts: int, done: int, total: int) -> None:
    "Progress of part i of several."
    progress(i * total + done, parts * total)


def explore_guidance(
    combine: Callable = cfg_eps,  # (cond, uncond, w) -> eps
) -> Explorer:
    "What does guidance give, and what does it take?"
    model, sampling = digit_model()
    known = {}

    def prepare(label, slip, progress):
        wanted = list(dict.fromkeys(("none", slip)))
        for i, name in enumerate(wanted):
            report = partial(report_part, progress, i, len(wanted))
            if (label, name) not in known:
                known[label, name] = sweep_scales(model, sampling, combine, label, name, report)
        return {name: known[label, name] for name in wanted}

    return Explorer(
        plot_guidance,
        "typical, at a price",
        [
            (
                "Lower w to 0, then climb to 8.",
                "Any digit; honest ones; then typical and alike: the dot climbs and runs left, until 8 overdoes it.",
            ),
            (
                "Choose the mistake swapped.",
                "Guidance drives the label out: not one 3 is left. Honest samples now stand at w = 0.",
            ),
            (
                "Choose digit 0 and the mistake null is 0.",
                "The scale does nothing: a 0 is guided away from itself.",
            ),
        ],
        prepare,
        label=choice("digit", list(range(10)), 3),
        w=stops("scale w", list(SCALES), 4.0),
        slip=choice("mistake", list(SLIPS), "none"),
    )
