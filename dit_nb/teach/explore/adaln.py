"""Explorer of lesson 10: shift and scale after LayerNorm."""

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
from dit_nb.visual import COLORS, _to_pixels, figure

__all__ = ["explore_modulate"]

_CHANNELS = ("all channels", "a stamp and a stencil")


class _PhotoTokens(NamedTuple):
    """A photograph as tokens after LayerNorm, and channel masks for shift and scale."""

    normalized: Tensor  # (1, 192, 192) 12 x 16 patches of 8x8 pixels, 3 colors, after LayerNorm
    masks: Tensor  # (2, 2, 192) channels of the shift and of the scale: all; a cross and the left half


def _photo_tokens() -> _PhotoTokens:
    raw = patchify(sample_photo(size=(96, 128)), 8)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    small = torch.stack([(i == j) | (i + j == 7), j < 4]).float()  # a cross, the left half
    masks = patchify(small[:, None].expand(2, 3, 8, 8), 8)[:, 0]  # (2, 192)
    return _PhotoTokens(F.layer_norm(raw, (192,), eps=1e-6), torch.stack([torch.ones_like(masks), masks]))


def _plot_modulate(
    modulate: Callable,
    tokens: _PhotoTokens,
    shift: float,
    scale: float,
    channels: int,
    patch: int,
    wrong: bool,
) -> Figure:
    """Show a photograph after LayerNorm and modulation, and the values of one token at each stage."""
    stamp, stencil = tokens.masks[channels]
    rule = (lambda x, shift, scale: x * scale + shift) if wrong else modulate
    out = rule(tokens.normalized, (shift * stamp).view(1, 1, -1), (scale * stencil).view(1, 1, -1))
    color = COLORS["wrong" if wrong else "cond"]
    fig, axes = figure(1, 2, (9, 3.2), width_ratios=[1.25, 1])
    left, right = axes[0]
    left.imshow(_to_pixels(unpatchify(out, (12, 16), 8)[0] / 2.5), interpolation="nearest")
    corner = (patch % 16 * 8 - 0.5, patch // 16 * 8 - 0.5)
    for rim, width in (("black", 4.5), ("white", 2)):
        left.add_patch(Rectangle(corner, 8, 8, fill=False, ec=rim, lw=width))
    left.set(xticks=[], yticks=[])
    formula = "scale" if wrong else "(1 + scale)"
    left.set_title(f"x * {formula} + shift, scale {scale:g}, shift {shift:g}", fontsize=10, color=color)
    edges, moments = np.linspace(-5, 5, 41), []
    for name, values in (("normalized", tokens.normalized), ("modulated", out)):
        v = values[0, patch]
        mean, std = round(float(v.mean()), 1) + 0, v.std(unbiased=False)  # + 0: no minus before a zero
        moments.append(f"{name}: mean {mean:.1f}, std {std:.1f}")
        counts = np.histogram(v.clamp(-4.99, 4.99), edges)[0]
        look = {"fill": True, "alpha": 0.5, "color": color} if name == "modulated" else {"color": "black"}
        right.stairs(counts, edges, lw=1.5, label=moments[-1], **look)
    right.legend(fontsize=9, loc="upper left", frameon=False)
    top = max(60, *(patch_.get_data().values.max() for patch_ in right.patches))
    right.set(xlim=(-5, 5), ylim=(0, 1.5 * top), xticks=[-4, 0, 4])
    right.set(xlabel="value", ylabel="count")
    right.set_title(f"the 192 values of token {patch}", fontsize=10)
    fig.alt_text = (
        f"A photograph of tokens after LayerNorm, scale {scale:g} and shift {shift:g} on {_CHANNELS[channels]}. "
        f"Token {patch}, {'; '.join(moments)}."
    )
    return fig


def explore_modulate(modulate: Callable = modulate) -> Explorer:
    """Explore what shift and scale do to tokens and to their statistics.

    Args:
        modulate: function (x, shift, scale) -> x, all (1, tokens or 1, 192); the library's by default
    """
    return Explorer(
        partial(_plot_modulate, modulate, _photo_tokens()),
        "shift and scale",
        """
        1. *Set the scale to -1, then move the shift.* The photograph is gone; only the shift is left, the same in
           every patch.
        2. *Set shift and scale to 0, then select sky, roof and tree.* Mean 0 and standard deviation 1 everywhere:
           LayerNorm has removed brightness and contrast, and this modulation gives nothing back.
        3. *Leave both at 0 and switch the mistake on.* Without the 1, a scale of 0 multiplies by 0: all
           values collapse to one number.
        """,
        shift=slider("shift", -2.0, 2.0, 0.0, 0.5),
        scale=slider("scale", -2.0, 2.0, 0.0, 0.5),
        channels=choice("on", [(name, i) for i, name in enumerate(_CHANNELS)], 0),
        patch=choice("token", [("sky", 8), ("roof", 69), ("tree", 163)], 8),
        wrong=mistake("x * scale + shift, without the 1"),
    )
