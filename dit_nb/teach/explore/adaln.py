"""Six pictures with knobs, for lessons 08 to 13: how a condition enters, what a gate does, and what it all costs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dit_nb.blocks.adaln import modulate
from dit_nb.data import sample_photo
from dit_nb.patchify import patchify, unpatchify
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.visual import COLORS, figure, to_pixels

CHANNELS = ("all channels", "a stamp and a stencil")


class Tiles(NamedTuple):
    "A photograph as tokens, before and after a layer norm, and the channels that shift and scale act on."

    raw: Tensor  # (1, 192, 192): 12 x 16 patches of 8x8 pixels, 3 colours
    normed: Tensor  # (1, 192, 192)
    masks: Tensor  # (2, 2, 192): for each of CHANNELS, where the shift acts and where the scale does


def make_tiles() -> Tiles:
    "The Chinese temple in 192 patches."
    raw = patchify(sample_photo(size=(96, 128)), 8)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    small = torch.stack([(i == j) | (i + j == 7), j < 4]).float()  # a cross, the left half
    masks = patchify(small[:, None].expand(2, 3, 8, 8), 8)[:, 0]  # (2, 192)
    return Tiles(raw, F.layer_norm(raw, (192,), eps=1e-6), torch.stack([torch.ones_like(masks), masks]))


def plot_modulate(
    modulate: Callable,  # (x, shift, scale) -> x
    tiles: Tiles,
    shift: float,
    scale: float,
    where: int,  # place in CHANNELS
    patch: int,  # the token to look at
    wrong: bool = False,  # no 1 +
) -> Figure:
    "A photograph after LayerNorm and modulation, and the numbers of one of its tokens on the way."
    stamp, stencil = tiles.masks[where]
    rule = (lambda x, shift, scale: x * scale + shift) if wrong else modulate
    out = rule(tiles.normed, (shift * stamp).view(1, 1, -1), (scale * stencil).view(1, 1, -1))
    color = COLORS["wrong" if wrong else "cond"]
    fig, axes = figure(1, 2, (9, 3.2), width_ratios=[1.25, 1])
    left, right = axes[0]
    left.imshow(to_pixels(unpatchify(out, (12, 16), 8)[0] / 2.5), interpolation="nearest")
    corner = (patch % 16 * 8 - 0.5, patch // 16 * 8 - 0.5)
    left.add_patch(Rectangle(corner, 8, 8, fill=False, ec=COLORS["wrong"], lw=2))
    left.set(xticks=[], yticks=[])
    formula = "scale" if wrong else "(1 + scale)"
    left.set_title(f"x * {formula} + shift, scale {scale:g}, shift {shift:g}", fontsize=10, color=color)
    edges, told = np.linspace(-5, 5, 41), []
    steps = ("as it is", tiles.raw, "grey"), ("normalised", tiles.normed, "x_t"), ("modulated", out, "cond")
    for name, tokens, hue in steps:
        v = tokens[0, patch]
        mean, std = round(float(v.mean()), 1) + 0, v.std(unbiased=False)  # + 0: no minus before a zero
        told.append(f"{name}: mean {mean:.1f}, std {std:.1f}")
        counts = np.histogram(v.clamp(-4.99, 4.99), edges)[0].clip(max=60)
        last = {"fill": True, "alpha": 0.6, "color": color} if hue == "cond" else {"color": COLORS[hue]}
        right.stairs(counts, edges, lw=2, label=told[-1], **last)
    right.legend(fontsize=9, loc="upper left", frameon=False)
    right.set(xlim=(-5, 5), ylim=(0, 100), xticks=[-4, 0, 4], yticks=[0, 60])
    right.set(xlabel="value", ylabel="count, cut at 60")
    right.set_title(f"the 192 numbers of token {patch}", fontsize=10)
    fig.words = (
        f"A photograph of tokens after LayerNorm, scale {scale:g} and shift {shift:g} on {CHANNELS[where]}. "
        f"Token {patch}, {'; '.join(told)}."
    )
    return fig


def explore_modulate(
    modulate: Callable = modulate,  # (x, shift, scale) -> x, all (1, tokens or 1, 192)
) -> Explorer:
    "Lesson 10: what a shift and a scale do to a photograph of tokens, and to the numbers of one token."
    spots = [("sky", 8), ("roof", 69), ("tree", 163)]
    return Explorer(
        partial(plot_modulate, modulate, make_tiles()),
        "shift and scale",
        [
            ("Choose all channels.", "With scale -1 the photograph is gone; the shift alone is left, the same on every patch."),
            ("Set shift and scale to 0, then walk from sky to roof to tree.", "The grey numbers differ; the blue and the green ones have mean 0 and standard deviation 1 everywhere."),
            ("Leave both at 0 and switch the mistake on.", "Without the 1, saying nothing means multiplying by nothing: everything collapses onto one number."),
        ],
        shift=slider("shift", -2.0, 2.0, 1.0, 0.5),
        scale=slider("scale", -2.0, 2.0, -1.0, 0.5),
        where=choice("on", [(name, i) for i, name in enumerate(CHANNELS)], 1),
        patch=choice("token", spots, 8),
        wrong=mistake("x * scale + shift, without the 1"),
    )  # fmt: skip
