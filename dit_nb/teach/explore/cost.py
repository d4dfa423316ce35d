"""Explorer of lesson 13: multiply-adds by part, from small images to large ones."""

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np
from matplotlib.figure import Figure

from dit_nb.config import SIZES, DiTConfig
from dit_nb.cost import cost
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.teach.explore.model import _COST_LOOKS, _split_cost
from dit_nb.visual import COLORS, figure

__all__ = ["explore_cost"]

_PIXELS = (64, 128, 256, 512, 1024, 2048, 4096)


def _plot_cost(cost: Callable, size: str, patch: int, pixels: int, wrong: bool = False) -> Figure:
    """Show each part's share of the multiply-adds, and their number, against the size of the image."""
    sides = sorted({64 * round(2 ** (k / 2)) for k in range(13)})
    configs = [DiTConfig.named(f"DiT-{size}/{patch}", input_size=side // 8) for side in sides]
    macs = [{k: m / 1e9 for k, (_, m) in _split_cost(c, cost).items()} for c in configs]
    right_total = np.array([sum(w.values()) for w in macs])
    if wrong:
        macs = [w | {"attention: pairs": 0.0} for w in macs]
    total, at = np.array([sum(w.values()) for w in macs]), sides.index(pixels)
    x, color = np.log2(sides), COLORS["wrong"] if wrong else "black"
    fig, axes = figure(1, 2, (9, 3.6), width_ratios=[1.5, 1])
    left, right = axes[0]
    below = np.zeros(len(sides))
    for name, look in _COST_LOOKS.items():
        above = below + 100 * np.array([w[name] for w in macs]) / total
        share = above[at] - below[at]
        left.fill_between(x, below, above, **{"lw": 0, **look}, label=f"{name} {share:.1f} %")
        below = above
    right.plot(x, np.log10(right_total), color=COLORS["gray"], ls=":", lw=2, label="with the pairs")
    right.plot(x, np.log10(total), color=color, lw=2, label="without" if wrong else None)
    right.plot(x[at], np.log10(total[at]), "o", color=color, ms=9)
    squared = right_total[sides.index(256)] * 4.0 ** (x - 8)  # twice the side, four times the work
    slope = right.plot(x, np.log10(squared), color=COLORS["gray"], lw=1, label="slope 2")
    right.legend(handles=slope, fontsize=9, loc="lower right", frameon=False)
    tokens = prod(configs[at].grid)
    for ax in axes[0]:
        ax.axvline(np.log2(pixels), color="black", lw=1, ls="--")
        ax.set(xlim=(6, 12), xticks=[6, 9, 12], xticklabels=[64, 512, 4096], xlabel="pixels")
    left.set(ylim=(0, 100), yticks=[0, 100], ylabel="share of the multiply-adds, %")
    left.legend(fontsize=9, loc="lower left", framealpha=1)
    right.set(ylim=(-2.5, 5.5), yticks=[0, 4], yticklabels=["1", "10000"])
    right.set_ylabel("billion multiply-adds", labelpad=-12)
    missing = f", {1 - total[at] / right_total[at]:.0%} missing" if wrong else ""
    left.set_title(f"DiT-{size}/{patch}, {pixels} pixels: T = {tokens}", fontsize=10)
    right.set_title(f"{total[at]:,.2f} billion multiply-adds{missing}", fontsize=10, color=color)
    shares = ", ".join(f"{k} {100 * w / total[at]:.1f} %" for k, w in macs[at].items())
    count = f"{total[at]:,.2f} billion multiply-adds{missing}"
    fig.alt_text = f"DiT-{size}/{patch} at {pixels} pixels, {tokens} tokens: {count}: {shares}."
    return fig


def explore_cost(cost: Callable = cost) -> Explorer:
    """Explore where the multiply-adds go as images grow.

    Args:
        cost: function config -> Cost; the library's by default
    """
    return Explorer(
        partial(_plot_cost, cost),
        "where the multiply-adds go",
        """
        1. *Go from 256 to 512 pixels with DiT-XL/2.* 118.62 becomes 524.54, 4.42 times as much: parameters
           are used four times as often, and there are sixteen times as many token pairs.
        2. *Choose size S, patch 8 and 64 pixels.* A single token: now t and y, negligible elsewhere, take a
           third of the multiply-adds.
        3. *At 2048 pixels, switch the mistake on.* The hatched area is gone, and with it most of the count:
           the red line stays straight.
        """,
        size=choice("size", list(SIZES), "XL"),
        patch=choice("patch", [8, 4, 2], 2),
        pixels=stops("pixels", list(_PIXELS), 512),
        wrong=mistake("leave out the token pairs"),
    )
