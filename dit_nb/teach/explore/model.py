"""Six pictures with knobs, for lessons 08 to 13: how a condition enters, what a gate does, and what it all costs."""

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dit_nb.config import SIZES, DiTConfig
from dit_nb.cost import cost
from dit_nb.model import BLOCKS
from dit_nb.teach.explore.core import Explorer, choice, mistake
from dit_nb.visual import COLORS, figure

PARTS = {  # part -> its colour in the pictures
    "MLP": "grey",
    "attention: linear": "x_t",
    "attention: pairs": "gate",
    "t and y": "cond",
    "in and out": "eps",
}


TABLE_4 = {  # of the paper: Gflops, parameters in millions, FID-50K at 400K steps
    "DiT-S/8": (0.36, 33, 153.60), "DiT-S/4": (1.41, 33, 100.41), "DiT-S/2": (6.06, 33, 68.40),
    "DiT-B/8": (1.42, 131, 122.74), "DiT-B/4": (5.56, 130, 68.38), "DiT-B/2": (23.01, 130, 43.47),
    "DiT-L/8": (5.01, 459, 118.87), "DiT-L/4": (19.70, 458, 45.64), "DiT-L/2": (80.71, 458, 23.33),
    "DiT-XL/8": (7.39, 676, 106.41), "DiT-XL/4": (29.05, 675, 43.01), "DiT-XL/2": (118.64, 675, 19.47),
}  # fmt: skip


def split_cost(
    config: DiTConfig,
    cost: Callable = cost,  # config -> Cost
) -> dict[str, tuple[int, int]]:  # part -> (parameters, multiply-adds)
    "The cost by what the parts are for; `t and y` is all that listens to the condition."
    c, D = cost(config), config.hidden_size
    tokens = prod(config.grid) + (2 if config.block == "in_context" else 0)
    pairs = 2 * tokens**2 * D * config.depth
    adaptive = config.block.startswith("adaln")  # then the final layer listens too
    listens = ("timestep", "label", "modulation", "cross-attention")
    p, m = ({k: v.get(k, 0) for k in (*c.params, *listens)} for v in (c.params, c.macs))
    parts = {
        "MLP": (p["mlp"], m["mlp"]),
        "attention: linear": (p["attention"], m["attention"] - pairs),
        "attention: pairs": (0, pairs),
        "t and y": (
            sum(p[k] for k in listens) + adaptive * (2 * D * D + 2 * D),
            sum(m[k] for k in listens) + adaptive * 2 * D * D,
        ),
    }
    rest = zip((c.total_params, c.total_macs), *parts.values())
    return {**parts, "in and out": tuple(total - sum(known) for total, *known in rest)}


KEPT = {
    "in_context": 16,
    "cross_attention": 20,
    "adaln": 18,
    "adaln_zero": 20,
}  # numbers per token, in widths


def training_memory(
    config: DiTConfig, params: int
) -> tuple[float, float]:  # bytes: for the weights, per image
    "What a training step keeps in memory: weights, gradients, Adam's averages; and activations of each image."
    return 16 * params, 4 * KEPT[config.block] * prod(config.grid) * config.hidden_size * config.depth


def plot_model(
    cost: Callable,  # config -> Cost
    size: str,  # S, B, L or XL
    patch: int,  # 2, 4 or 8
    pixels: int,  # side of the image
    block: str,  # one of BLOCKS
    wrong: bool = False,  # two operations for each multiply-add
) -> Figure:
    "A model as boxes whose area is work, beside the paper's twelve; and what it costs in memory."
    config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=pixels // 8, block=block)
    parts, tokens = split_cost(config, cost), prod(config.grid)
    params, macs = (sum(column) for column in zip(*parts.values()))
    fig, axes = figure(1, 2, (9, 3.7), width_ratios=[1.8, 1])
    left, right = axes[0]
    draw_boxes(left, parts, tokens)
    state, each = training_memory(config, params)
    counted, unit = (2 * macs, "operations") if wrong else (macs, "multiply-adds")
    color = COLORS["wrong" if wrong else "x_t"]
    told = f"{params / 1e6:.0f} M weights, T = {tokens} tokens, {counted / 1e9:.2f} G {unit}"
    memory = f"training: {state / 1e9:.1f} GB for the weights, {each / 1e9:.2f} GB more for each image"
    left.set_title(f"{told}\n{memory}", fontsize=10, color=color if wrong else "black")
    gflops, millions, _ = np.log10(list(TABLE_4.values())).T
    right.plot(millions, gflops, "o", color=COLORS["grey"], mfc="none", ms=8)
    right.plot(np.log10(params / 1e6), np.log10(counted / 1e9), "*", color=color, ms=14)
    right.set(xlim=(1.3, 3.05), ylim=(-0.8, 3.3), xlabel="million weights", ylabel=f"billion {unit}")
    right.set(xticks=np.log10([33, 458]), xticklabels=[33, 458])
    right.set(yticks=[0, 2], yticklabels=[1, 100])
    right.set_title(
        "rings: the paper's twelve\n" + ("counted twice" if wrong else "star: this model"), fontsize=10
    )
    fig.words = f"DiT-{size}/{patch} at {pixels} pixels, {block} blocks: {told}; {memory}. "
    fig.words += "Work: " + ", ".join(f"{k} {m / macs:.1%}" for k, (_, m) in parts.items()) + "."
    return fig


def draw_boxes(
    ax,  # matplotlib axes
    parts: dict[str, tuple[int, int]],  # from `split_cost`
    tokens: int,
) -> None:
    "A box for each part: as wide as its weights, as high as their uses; its area is its work."
    params, macs = (sum(column) for column in zip(*parts.values()))
    x = 0.0
    for name in ("MLP", "attention: linear", "t and y", "in and out", "attention: pairs"):
        (p, m), color = parts[name], COLORS[PARTS[name]]
        width, high = (p / params, m / p / tokens) if p else (m / tokens / params, 1.0)
        look = {"fc": color, "alpha": 0.8} if p else {"fill": False, "hatch": "////"}
        ax.add_patch(Rectangle((x, 0), width, high, ec=color, lw=2, **look))
        share = f"{m / macs:.1%}" if m < 0.095 * macs else f"{m / macs:.0%}"
        inside, text = high > 0.5 and width > 0.12, f"{name.split(':')[0] if p else 'pairs'}\n{share} of work"
        place = {"ha": "center", "va": "center" if inside else "bottom", "fontsize": 9}
        if width > 0.12 or not p:  # thin boxes are not named
            color = "white" if inside and p else "black"
            ax.text(x + width / 2, high / 2 if inside else high + 0.03, text, color=color, **place)
        x += width
    ax.axvline(1, color="black", lw=0.5, ls=":")
    ax.set(xlim=(0, 1.36), ylim=(0, 1.25), xticks=[0, 1], xticklabels=["0", "all weights"])
    ax.set(yticks=[0, 1], yticklabels=["0", "T"], ylabel="uses for one image")


def explore_model(
    cost: Callable = cost,  # config -> Cost
) -> Explorer:
    "Lesson 12: choose a model, and see what its parts weigh and work."
    return Explorer(
        partial(plot_model, cost),
        "build your own DiT",
        [
            (
                "Halve the patch: 8, 4, 2.",
                "Each has as many weights and about four times the work; the green box sinks, for t and y are heard once for an image.",
            ),
            (
                "With patch 2, choose the blocks one by one.",
                "in_context has hardly any green, the others a quarter or a third; only cross_attention works visibly for it.",
            ),
            (
                "Switch the mistake on.",
                "The star leaves the paper's ring by a factor of 2: the paper's Gflops are multiply-adds.",
            ),
        ],
        size=choice("size", list(SIZES), "XL"),
        patch=choice("patch", [8, 4, 2], 2),
        pixels=choice("pixels", [256, 512], 256),
        block=choice("block", list(BLOCKS), "adaln_zero"),
        wrong=mistake("count a multiply-add as two"),
    )
