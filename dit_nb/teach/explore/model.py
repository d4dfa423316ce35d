"""Explorer of lesson 12: parameters, multiply-adds and memory of a DiT by its parts."""

from collections.abc import Callable
from functools import cache, partial
from math import prod

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dit_nb.config import SIZES, DiTConfig
from dit_nb.cost import cost
from dit_nb.lab.budget import training_memory
from dit_nb.lab.paper_tables import _comparable_rows
from dit_nb.model import BLOCKS
from dit_nb.teach.explore.core import Explorer, choice, mistake
from dit_nb.visual import COLORS, figure

__all__ = ["explore_model"]

_COST_LOOKS = {  # part of a model -> its look in figures: green is the condition, all else a gray
    "MLP": {"facecolor": COLORS["gray"]},
    "attention: linear": {"facecolor": "#bbbbbb"},
    "attention: pairs": {"facecolor": "white", "edgecolor": COLORS["gray"], "hatch": "////"},
    "t and y": {"facecolor": COLORS["cond"]},
    "in and out": {"facecolor": "black"},
}


def _split_cost(config: DiTConfig, cost: Callable = cost) -> dict[str, tuple[int, int]]:
    """Split the cost of one forward pass of one image by what the parts are for."""
    c, D = cost(config), config.hidden_size
    tokens = prod(config.grid) + (2 if config.block == "in_context" else 0)
    pairs = 2 * tokens**2 * D * config.depth
    adaptive = config.block.startswith("adaln")  # then the final layer is conditioned too
    names = ("timestep", "label", "modulation", "cross-attention")
    p, m = ({k: v.get(k, 0) for k in (*c.params, *names)} for v in (c.params, c.macs))
    parts = {
        "MLP": (p["mlp"], m["mlp"]),
        "attention: linear": (p["attention"], m["attention"] - pairs),
        "attention: pairs": (0, pairs),
        "t and y": (
            sum(p[k] for k in names) + adaptive * (2 * D * D + 2 * D),
            sum(m[k] for k in names) + adaptive * 2 * D * D,
        ),
    }
    rest = zip((c.total_params, c.total_macs), *parts.values())
    return {**parts, "in and out": tuple(total - sum(known) for total, *known in rest)}


@cache
def _paper_models() -> np.ndarray:  # (12, 2)
    """Log10 of million parameters and Gflops of the paper's twelve models."""
    return np.log10([(row["params_m"], row["gflops"]) for row in _comparable_rows()])


def _describe_memory(config: DiTConfig) -> str:
    """Say what training takes, as the guide Memory and time counts it: 20 bytes a weight, with the average."""
    one, two = (training_memory(config, batch, "fp32").total / 1e9 for batch in (1, 2))
    return f"training in float32: {2 * one - two:.1f} GB, and {two - one:.2f} GB for each image"


def _plot_model(
    cost: Callable, size: str, patch: int, pixels: int, block: str, wrong: bool = False
) -> Figure:
    """Show a model's multiply-adds as areas, and the model beside the paper's twelve."""
    config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=pixels // 8, block=block)
    parts, tokens = _split_cost(config, cost), prod(config.grid)
    params, macs = (sum(column) for column in zip(*parts.values()))
    fig, axes = figure(1, 2, (9, 3.7), width_ratios=[1.8, 1])
    left, right = axes[0]
    _draw_boxes(left, parts, tokens)
    counted, unit = (2 * macs, "operations") if wrong else (macs, "multiply-adds")
    color = COLORS["wrong"] if wrong else "black"
    numbers = f"{params / 1e6:.0f} M parameters, T = {tokens} tokens, {counted / 1e9:.2f} G {unit}"
    memory = _describe_memory(config)
    left.set_title(f"{numbers}\n{memory}", fontsize=10, color=color)
    right.plot(*_paper_models().T, "o", color=COLORS["gray"], mfc="none", ms=8)
    right.plot(np.log10(params / 1e6), np.log10(counted / 1e9), "*", color=color, ms=14)
    right.set(xlim=(1.3, 3.05), ylim=(-0.8, 3.3), xlabel="million parameters", ylabel=f"billion {unit}")
    right.set(xticks=np.log10([33, 458]), xticklabels=[33, 458], yticks=[0, 2], yticklabels=[1, 100])
    star = "counted twice" if wrong else "star: this model"
    right.set_title(f"rings: the paper's twelve\n{star}", fontsize=10)
    shares = ", ".join(f"{k} {m / macs:.1%}" for k, (_, m) in parts.items())
    name = f"DiT-{size}/{patch} at {pixels} pixels, {block} blocks"
    fig.alt_text = f"{name}: {numbers}; {memory}. Multiply-adds: {shares}."
    return fig


def _draw_boxes(ax, parts: dict[str, tuple[int, int]], tokens: int) -> None:
    """A box for each part of `_split_cost`: its width is parameters, its height their uses, its area multiply-adds."""
    params, macs = (sum(column) for column in zip(*parts.values()))
    x = 0.0
    for name in ("MLP", "attention: linear", "t and y", "in and out", "attention: pairs"):
        (p, m), look = parts[name], _COST_LOOKS[name]
        width, high = (p / params, m / p / tokens) if p else (m / tokens / params, 1.0)
        ax.add_patch(Rectangle((x, 0), width, high, **{"edgecolor": look["facecolor"], "lw": 2, **look}))
        share = f"{m / macs:.1%}" if m < 0.095 * macs else f"{m / macs:.0%}"
        inside, text = high > 0.5 and width > 0.12, f"{name.split(':')[0] if p else 'pairs'}\n{share} MACs"
        place = {"ha": "center", "va": "center" if inside else "bottom", "fontsize": 9}
        if width > 0.12 or not p:  # thin boxes have no label
            color = "white" if inside and name == "MLP" else "black"
            ax.text(x + width / 2, high / 2 if inside else high + 0.03, text, color=color, **place)
        x += width
    ax.axvline(1, color="black", lw=0.5, ls=":")
    ax.set(xlim=(0, 1.36), ylim=(0, 1.25), xticks=[0, 1], xticklabels=["0", "all parameters"])
    ax.set(yticks=[0, 1], yticklabels=["0", "T"], ylabel="uses per image")


def explore_model(cost: Callable = cost) -> Explorer:
    """Explore parameters, multiply-adds and memory of a DiT of your choice.

    Args:
        cost: function config -> Cost; the library's by default
    """
    return Explorer(
        partial(_plot_model, cost),
        "build your own DiT",
        """
        1. *Halve the patch size: 8, 4, 2.* Each model has as many parameters and about four times the
           multiply-adds; the green box gets lower, for t and y are processed once per image.
        2. *With patch 2, choose the blocks one by one.* in_context has hardly any green, the others a quarter
           or a third; only cross_attention spends a visible share of its multiply-adds on it.
        3. *Switch the mistake on.* The star leaves the paper's ring by a factor of 2: the paper's Gflops are
           multiply-adds.
        """,
        size=choice("size", list(SIZES), "XL"),
        patch=choice("patch", [8, 4, 2], 2),
        pixels=choice("pixels", [256, 512], 256),
        block=choice("block", list(BLOCKS), "adaln_zero"),
        wrong=mistake("count a multiply-add as two"),
    )
