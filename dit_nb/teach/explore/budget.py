"""Eight cards as eight vessels. What training needs is poured into each, and one sees where it runs over."""

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from dit_nb.config import SIZES, DiTConfig
from dit_nb.lab.budget import CARDS, ROOM, tell_time, training_memory, training_time
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops, switch
from dit_nb.visual import COLORS, figure

PART_COLORS = {  # part of a Memory -> its colour: blue stays, green passes with each step, orange grows with images
    "weights": "#003F66",
    "gradients": "#0072B2",
    "moments": "#4C9FD1",
    "average": "#A6CDE6",
    "buckets": "#5F5F9E",
    "copies": "#009E73",
    "activations": "#E69F00",
    "workspace": "#F5D78E",
}


PALE = ("average", "workspace")  # written on in black


STEPS, TOP = 400_000, 165  # updates, as in Table 4; GB on the axis


def pour(
    ax,  # matplotlib axes
    bottom: np.ndarray,  # GB, for each card
    amounts: np.ndarray,  # GB, for each card
    width: float,
    **look,  # colours and lines
) -> None:
    "A box for each card; one artist for all, since many small ones are slow."
    half = width / 2
    boxes = [
        [(x - half, low), (x - half, low + amount), (x + half, low + amount), (x + half, low)]
        for x, (low, amount) in enumerate(zip(bottom, amounts))
    ]
    ax.add_collection(PolyCollection(boxes, **look), autolim=False)


def plot_budget(
    size: str,  # S, B, L or XL
    pixels: int,  # 256 or 512
    batch: int,  # images in one pass
    checkpointing: bool,
    wrong: bool = False,  # only the weights are counted
) -> Figure:
    "What each card must hold against what it has, and the time that 400 thousand updates of 256 images take."
    config, cards = DiTConfig.named(f"DiT-{size}/2", input_size=pixels // 8), CARDS.values()
    needs = [training_memory(config, batch, card.precision, checkpointing) for card in cards]
    times = [training_time(config, 256, STEPS, card.tflops, checkpointing=checkpointing) for card in cards]
    room, totals = (
        np.array(a) for a in ([card.memory for card in cards], [need.total / 1e9 for need in needs])
    )
    fig, axes = figure(1, 1, (9, 3.9))
    ax, level = axes[0, 0], np.zeros(len(room))
    for part in ("weights",) if wrong else PART_COLORS:
        amounts = np.array([need.parts[part] / 1e9 for need in needs])
        pour(ax, level, amounts, 0.6, facecolor=PART_COLORS[part], label=part)
        level = level + amounts
    seem, hold = level <= ROOM * room, totals <= ROOM * room
    inks = [COLORS["cond" if ok else "wrong"] for ok in seem]
    pour(ax, 0 * room, room, 0.8, facecolor="none", edgecolor=inks, lw=2, label="card")
    if wrong:
        pour(ax, 0 * room, totals, 0.6, facecolor="none", edgecolor=COLORS["wrong"], ls=":", label="in truth")
    write_labels(ax, level, inks, times, wrong)
    name = f"DiT-{size}/2 at {pixels} pixels, {batch} in a pass{', checkpointed' if checkpointing else ''}"
    fits = ", ".join(card for card, ok in zip(CARDS, hold) if ok) or "none of them"
    told = (
        f"weights alone: {seem.sum()} of 8 seem to hold it, in truth {hold.sum()}"
        if wrong
        else f"fits: {fits}"
    )
    ax.set_title(f"{name}\n{told}", fontsize=10, color=COLORS["wrong"] if wrong else "black")
    rows = zip(CARDS, totals, room, times)
    fig.words = (
        f"{name}; {told}. " + "; ".join(f"{c} {t:.1f} of {r} GB, {tell_time(s)}" for c, t, r, s in rows) + "."
    )
    return fig


def write_labels(
    ax,  # matplotlib axes
    level: np.ndarray,  # GB that were poured
    inks: list[str],
    times: list[float],  # seconds
    wrong: bool,
) -> None:
    "Gigabytes on top, name and time below, the parts at the right."
    for x, (amount, ink) in enumerate(zip(level, inks)):
        over = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}} if amount > TOP - 10 else {}
        ax.text(x, min(amount, TOP - 10) + 1.5, f"{amount:.3g}", ha="center", color=ink, fontsize=9, **over)
    names = [f"{name}\n{tell_time(seconds)}" for name, seconds in zip(CARDS, times)]
    ax.set(xlim=(-0.6, 9.2), ylim=(0, TOP), yticks=[0, 40, 80, 120, 160], ylabel="GB")
    ax.set_xticks(range(len(CARDS)), names, fontsize=9)
    ax.set_xlabel("one card, and its time for 400 thousand updates of 256 images at 40 % of its peak")
    ax.tick_params(axis="x", length=0)
    shown = ["weights"] if wrong else [part for part in PART_COLORS if part != "buckets"]
    for i, part in enumerate(shown):
        box = {"facecolor": PART_COLORS[part], "edgecolor": "none", "pad": 2}
        ink = "black" if part in PALE else "white"
        ax.text(7.75, 12 + 18 * i, part, color=ink, fontsize=9, bbox=box)


def explore_budget() -> Explorer:
    "The guide Memory and time: which card holds which training run."
    return Explorer(
        plot_budget,
        "what training takes",
        [
            (
                "Switch checkpointing on.",
                "The orange shrinks to a tenth, the cards of 24 GB hold it, and the days grow by a third.",
            ),
            (
                "Go from 256 to 512 pixels.",
                "Four times the orange, the blue stays as it is, and the days grow 4.42 times.",
            ),
            (
                "Set the batch to 256 and switch the mistake on.",
                "Every card seems to hold it easily; dotted is the truth: one of eight does.",
            ),
        ],
        size=choice("size", list(SIZES), "XL"),
        pixels=choice("pixels", [256, 512], 256),
        batch=stops("images in a pass", [1, 2, 4, 8, 16, 32, 64, 128, 256], 64),
        checkpointing=switch("checkpointing"),
        wrong=mistake("count the weights only"),
    )
