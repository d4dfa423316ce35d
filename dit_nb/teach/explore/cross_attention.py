"""Six pictures with knobs, for lessons 08 to 13: how a condition enters, what a gate does, and what it all costs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from dit_nb.attention import CrossAttention
from dit_nb.conditioning import LabelEmbedder, TimestepEmbedder
from dit_nb.data import digits, running_example
from dit_nb.patchify import PatchEmbed, patchify
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, PatchGrid, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, to_pixels


class Desk(NamedTuple):
    "A cross-attention whose heads ask something, the digits that ask, and what they ask."

    attention: nn.Module
    images: Tensor  # (10, 1, 8, 8) a noisy digit of each class
    tokens: Tensor  # (10, 16, D)
    context: Tensor  # (10, 2, D) t and y


def solve(x: Tensor, wanted: Tensor) -> Tensor:  # (D, k)
    "The linear map from x (n, D) that comes closest to what is wanted (n, k)."
    inverse = torch.linalg.pinv(x.double(), rtol=1e-3)  # cautious: tokens hardly vary in some directions
    return (inverse @ (wanted - wanted.mean(dim=0)).double()).float()


def make_desk(
    attention: Callable = CrossAttention,  # (width, heads) -> module with q, kv and maps
    width: int = 64,
) -> Desk:
    "Four heads: ink, row, column, random. Each asks y where its feature is above the mean, t where below."
    data, d = digits().train, width // 4
    images = data.images[:300] + 0.2 * torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        embed, time, label = PatchEmbed(2, 1, width), TimestepEmbedder(width), LabelEmbedder(10, width, 0)
        cross = attention(width, 4)
        embed.proj.weight *= 0.5  # else ink drowns the position
        tokens = F.layer_norm(embed(images) + sincos_2d((4, 4), width).float(), (width,))  # (300, 16, D)
        both = torch.stack([time(torch.full((10,), 250)), label(torch.arange(10))], dim=1)
        context = F.layer_norm(both, (width,))  # (10, 2, D)
        ink = patchify(images, 2).mean(dim=-1)  # (300, 16)
        row = torch.linspace(-1, 1, 4).repeat_interleave(4).expand_as(ink)
        column = torch.linspace(-1, 1, 4).repeat(4).expand_as(ink)
        features = torch.stack([ink, row, column], dim=-1).flatten(0, 1)  # (4800, 3)
        ask = solve(tokens.flatten(0, 1), features / features.std(dim=0))
        tell = solve(context.flatten(0, 1), torch.tensor([[-1.0], [1.0]]).repeat(10, 1))  # t is -1, y is 1
        for layer in (cross.q, cross.kv):
            nn.init.normal_(layer.weight, std=0.08)
            layer.weight[: 3 * d] = 0
            nn.init.zeros_(layer.bias)
        for head in range(3):
            cross.q.weight[head * d], cross.kv.weight[head * d] = d**0.5 * ask[:, head], tell[:, 0]
        first = [int((data.labels[:300] == k).nonzero()[0]) for k in range(10)]
        return Desk(cross, images[first], tokens[first], context)


HEADS = ("ink", "row", "column", "random")


def plot_cross_attention(
    desk: Desk,
    digit: int,  # 0 to 9: the image, and the label that is asked
    head: int,  # place in HEADS
    loud: float,  # the context is multiplied by this
    patch: int,  # the patch to look at
    wrong: bool = False,  # a context of one: t + y
) -> Figure:
    "A noisy digit, where its patches look, and the slider of each patch."
    context = loud * desk.context[digit : digit + 1]
    context = context.sum(dim=1, keepdim=True) if wrong else context
    with torch.no_grad():
        weights = desk.attention.maps(desk.tokens[digit : digit + 1], context)[0, head, :, -1]  # (16,)
    color, mark = COLORS["wrong" if wrong else "cond"], {"fill": False, "ec": COLORS["wrong"], "lw": 3}
    fig, axes = figure(1, 3, (9, 3.3), width_ratios=[1, 1, 1.5])
    left, middle, right = axes[0]
    left.imshow(to_pixels(desk.images[digit]), cmap="gray", vmin=0, vmax=1)
    middle.imshow(weights.view(4, 4), cmap="PiYG", vmin=0, vmax=1, extent=(-0.5, 7.5, 7.5, -0.5))
    for ax in (left, middle):
        ax.add_patch(Rectangle((patch % 4 * 2 - 0.5, patch // 4 * 2 - 0.5), 2, 2, **mark))
        ax.set(xticks=[], yticks=[])
    right.hlines(range(16), 0, 1, color="#CCCCCC", lw=3)
    knobs = [COLORS["wrong"] if i == patch else color for i in range(16)]
    right.scatter(weights, range(16), s=60, c=knobs, zorder=3)
    ends = ["", "t + y"] if wrong else ["t", "y"]
    right.set(xlim=(-0.05, 1.05), ylim=(15.7, -0.7), xticks=[0, 1], xticklabels=ends, yticks=[0, 5, 10, 15])
    right.set(ylabel="patch")
    left.set_title(f"noisy {digit}\nits 16 patches ask", fontsize=10)
    name = "t + y" if wrong else "y"
    middle.set_title(f"weight on {name}, head '{HEADS[head]}'\npink 0, white 0.5, green 1", fontsize=10)
    told = f"patch {patch}: {weights[patch]:.2f} to {name}" + (
        "" if wrong else f", {1 - weights[patch]:.2f} to t"
    )
    head_line = "one key: every knob is stuck at 1" if wrong else "each patch mixes t and y by itself"
    right.set_title(f"{head_line}\n{told}", color=color, fontsize=10)
    fig.words = f"Sixteen sliders, one for each patch of a noisy {digit}. Head '{HEADS[head]}': {told}. "
    fig.words += f"The weights run from {weights.min():.2f} to {weights.max():.2f}."
    return fig


def explore_cross_attention(
    attention: Callable = CrossAttention,  # (width, heads) -> module with q, kv and maps
) -> Explorer:
    "Lesson 09: each patch mixes t and y by one slider; with a context of one, the slider is stuck."
    grid = PatchGrid("patch", 4, 4, 5)
    grid.paint((patchify(running_example()[0], 2)[0].mean(dim=-1) / 2 + 0.5).tolist())
    return Explorer(
        partial(plot_cross_attention, make_desk(attention)),
        "a context of two",
        [
            ("Choose the head 'row', then 'column'.", "The map turns: top patches ask t and bottom ones y, then left ones and right ones."),
            ("Set the loudness to 0.02.", "All knobs meet in the middle: a quiet context lets no patch choose."),
            ("Switch the mistake on and turn everything else.", "Every knob stays at 1: with one key there is nothing to choose."),
        ],
        digit=slider("digit", 0, 9, 3),
        head=choice("head", [(name, i) for i, name in enumerate(HEADS)], 0),
        loud=stops("loudness of the context", [0.02, 0.2, 1.0, 4.0], 1.0),
        patch=grid,
        wrong=mistake("a context of one, t + y"),
    )  # fmt: skip
