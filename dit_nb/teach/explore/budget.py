"""Explorer of the guide Memory and time: which GPU can train which model."""

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from dit_nb.config import SIZES, DiTConfig
from dit_nb.lab.budget import _USABLE_FRACTION, GPUS, _format_duration, training_memory, training_time
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops, switch
from dit_nb.visual import COLORS, figure

__all__ = ["explore_budget"]

_MEMORY_COLORS = {  # part of a Memory -> color: gray is there before the first image, blue grows with the images
    "weights": "#333333",
    "gradients": "#5C5C5C",
    "moments": "#858585",
    "average": "#ABABAB",
    "buckets": "#C4C4C4",
    "copies": "#D9D9D9",
    "activations": COLORS["x_t"],
    "workspace": "#A6CDE6",
}
_PALE = ("average", "buckets", "copies", "workspace")  # labeled in black
_STEPS, _TOP = 400_000, 165  # updates, as in Table 4; GB on the axis


def _draw_boxes(ax, bottom: np.ndarray, amounts: np.ndarray, width: float, **look) -> None:
    """A box for each GPU, in GB; one artist for all, which is drawn faster."""
    half = width / 2
    boxes = [
        [(x - half, low), (x - half, low + amount), (x + half, low + amount), (x + half, low)]
        for x, (low, amount) in enumerate(zip(bottom, amounts))
    ]
    ax.add_collection(PolyCollection(boxes, **look), autolim=False)


def _plot_budget(size: str, pixels: int, batch: int, checkpointing: bool, wrong: bool = False) -> Figure:
    """Show the memory that training needs on each GPU, and the time of 400 thousand updates of 256 images."""
    config, gpus = DiTConfig.named(f"DiT-{size}/2", input_size=pixels // 8), GPUS.values()
    needs = [training_memory(config, batch, gpu.precision, checkpointing) for gpu in gpus]
    times = [training_time(config, 256, _STEPS, gpu.tflops, checkpointing=checkpointing) for gpu in gpus]
    memory, totals = np.array([gpu.memory for gpu in gpus]), np.array([need.total / 1e9 for need in needs])
    fig, axes = figure(1, 1, (9, 3.9))
    ax, level = axes[0, 0], np.zeros(len(memory))
    for part in ("weights",) if wrong else _MEMORY_COLORS:
        amounts = np.array([need.parts[part] / 1e9 for need in needs])
        _draw_boxes(ax, level, amounts, 0.6, facecolor=_MEMORY_COLORS[part], label=part)
        level = level + amounts
    seems_to_fit, fits = level <= _USABLE_FRACTION * memory, totals <= _USABLE_FRACTION * memory
    colors = [COLORS["gray" if ok else "wrong"] for ok in seems_to_fit]
    _draw_boxes(ax, 0 * memory, memory, 0.8, facecolor="none", edgecolor=colors, lw=2, label="GPU")
    if wrong:
        look = {"facecolor": "none", "edgecolor": COLORS["wrong"], "ls": ":", "label": "actual"}
        _draw_boxes(ax, 0 * memory, totals, 0.6, **look)
    _write_labels(ax, level, colors, times, wrong)
    name = f"DiT-{size}/2 at {pixels} pixels, batch of {batch}{', checkpointing' if checkpointing else ''}"
    verdict = "fits: " + (", ".join(gpu for gpu, ok in zip(GPUS, fits) if ok) or "none of them")
    if wrong:
        verdict = f"weights alone: seems to fit {seems_to_fit.sum()} of 8, actually {fits.sum()}"
    ax.set_title(f"{name}\n{verdict}", fontsize=10, color=COLORS["wrong"] if wrong else "black")
    rows = zip(GPUS, totals, memory, times)
    numbers = "; ".join(f"{gpu} {t:.1f} of {m} GB, {_format_duration(s)}" for gpu, t, m, s in rows)
    fig.alt_text = f"{name}; {verdict}. {numbers}."
    return fig


def _write_labels(ax, level: np.ndarray, colors: list[str], times: list[float], wrong: bool) -> None:
    """Gigabytes on top, GPU and time below, the parts at the right."""
    for x, (amount, color) in enumerate(zip(level, colors)):
        over = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}} if amount > _TOP - 10 else {}
        y = min(amount, _TOP - 10) + 1.5
        ax.text(x, y, f"{amount:.3g}", ha="center", color=color, fontsize=9, **over)
    names = [f"{name}\n{_format_duration(seconds)}" for name, seconds in zip(GPUS, times)]
    ax.set(xlim=(-0.6, 9.2), ylim=(0, _TOP), yticks=[0, 40, 80, 120, 160], ylabel="GB")
    ax.set_xticks(range(len(GPUS)), names, fontsize=9)
    ax.set_xlabel("one GPU, and its time for 400 thousand updates of 256 images at 40 % of its peak")
    ax.tick_params(axis="x", length=0)
    shown = ["weights"] if wrong else [part for part in _MEMORY_COLORS if part != "buckets"]
    for i, part in enumerate(shown):
        box = {"facecolor": _MEMORY_COLORS[part], "edgecolor": "none", "pad": 2}
        ax.text(7.75, 12 + 18 * i, part, color="black" if part in _PALE else "white", fontsize=9, bbox=box)


def explore_budget() -> Explorer:
    """Explore the memory and time of training: which GPU can train which model."""
    return Explorer(
        _plot_budget,
        "memory and time of training",
        """
        1. *Switch checkpointing on.* The dark blue part shrinks to a tenth, the GPUs of 24 GB suffice, and the
           time grows by a third.
        2. *Go from 256 to 512 pixels.* Four times the blue part, the gray ones stay as they are, and the
           time grows 4.42 times.
        3. *Set the batch to 256 and switch the mistake on.* It seems to fit every GPU easily; dotted is the
           actual need: one of eight can hold it.
        """,
        size=choice("size", list(SIZES), "XL"),
        pixels=choice("pixels", [256, 512], 256),
        batch=stops("images in a batch", [1, 2, 4, 8, 16, 32, 64, 128, 256], 64),
        checkpointing=switch("checkpointing"),
        wrong=mistake("count the weights only"),
    )
