"""Explorer of lesson 09: cross-attention of each patch to a context of two tokens, t and y."""

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
from dit_nb.objective import Diffusion
from dit_nb.patchify import PatchEmbed, patchify
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, _PatchGrid, choice, mistake, slider, stops
from dit_nb.visual import COLORS, _to_pixels, figure

__all__ = ["explore_cross_attention"]

_TIMESTEP = 60  # of the noisy digits: a fifth of noise


class _CrossAttentionExample(NamedTuple):
    """A cross-attention whose heads select features, with noisy digits as queries and t and y as context."""

    attention: nn.Module
    images: Tensor  # (10, 1, 8, 8) a noisy digit of each class
    tokens: Tensor  # (10, 16, D) their patches
    context: Tensor  # (10, 2, D) t and y


def _least_squares(x: Tensor, wanted: Tensor) -> Tensor:  # (D, k)
    """The linear map from x (n, D) that comes closest to `wanted` (n, k)."""
    inverse = torch.linalg.pinv(x.double(), rtol=1e-3)  # tokens hardly vary in some directions
    return (inverse @ (wanted - wanted.mean(dim=0)).double()).float()


def _make_example(attention: Callable = CrossAttention, width: int = 64) -> _CrossAttentionExample:
    """Four heads: ink, row, column, random. Each attends to y where its feature is above the mean, to t below."""
    data, d = digits().train, width // 4
    noise = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = Diffusion().q_sample(data.images[:300], torch.full((300,), _TIMESTEP), noise)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        embed, time, label = PatchEmbed(2, 1, width), TimestepEmbedder(width), LabelEmbedder(10, width, 0)
        cross = attention(width, 4)
        embed.proj.weight *= 0.5  # or ink would dominate the position
        tokens = F.layer_norm(embed(images) + sincos_2d((4, 4), width).float(), (width,))  # (300, 16, D)
        both = torch.stack([time(torch.full((10,), _TIMESTEP)), label(torch.arange(10))], dim=1)
        context = F.layer_norm(both, (width,))  # (10, 2, D)
        ink = patchify(images, 2).mean(dim=-1)  # (300, 16)
        row = torch.linspace(-1, 1, 4).repeat_interleave(4).expand_as(ink)
        column = torch.linspace(-1, 1, 4).repeat(4).expand_as(ink)
        features = torch.stack([ink, row, column], dim=-1).flatten(0, 1)  # (4800, 3)
        to_query = _least_squares(tokens.flatten(0, 1), features / features.std(dim=0))
        to_key = _least_squares(
            context.flatten(0, 1), torch.tensor([[-1.0], [1.0]]).repeat(10, 1)
        )  # t: -1, y: 1
        for layer in (cross.q, cross.kv):
            nn.init.normal_(layer.weight, std=0.08)
            layer.weight[: 3 * d] = 0
            nn.init.zeros_(layer.bias)
        for head in range(3):
            cross.q.weight[head * d], cross.kv.weight[head * d] = d**0.5 * to_query[:, head], to_key[:, 0]
        first = [int((data.labels[:300] == k).nonzero()[0]) for k in range(10)]
        return _CrossAttentionExample(cross, images[first], tokens[first], context)


_HEADS = ("ink", "row", "column", "random")


def _plot_cross_attention(
    example: _CrossAttentionExample, digit: int, head: int, scale: float, patch: int, wrong: bool
) -> Figure:
    """Show a noisy digit, and the weight that each of its patches gives to y instead of t."""
    context = scale * example.context[digit : digit + 1]
    context = context.sum(dim=1, keepdim=True) if wrong else context
    with torch.no_grad():
        weights = example.attention.attention_weights(example.tokens[digit : digit + 1], context)
    weights = weights[0, head, :, -1]  # (16,)
    color, mark = COLORS["wrong" if wrong else "cond"], {"fill": False, "ec": COLORS["x_t"], "lw": 3}
    fig, axes = figure(1, 3, (9, 3.3), width_ratios=[1, 1, 1.5])
    left, middle, right = axes[0]
    left.imshow(_to_pixels(example.images[digit]), cmap="gray", vmin=0, vmax=1)
    middle.imshow(weights.view(4, 4), cmap="Greys", vmin=0, vmax=1, extent=(-0.5, 7.5, 7.5, -0.5))
    for ax in (left, middle):
        ax.add_patch(Rectangle((patch % 4 * 2 - 0.5, patch // 4 * 2 - 0.5), 2, 2, **mark))
        ax.set(xticks=[], yticks=[])
    right.hlines(range(16), 0, 1, color="#CCCCCC", lw=3)
    dots = [COLORS["x_t"] if i == patch else color for i in range(16)]
    right.scatter(weights, range(16), s=60, c=dots, zorder=3)
    ends = ["", "t + y"] if wrong else ["t", "y"]
    right.set(xlim=(-0.05, 1.05), ylim=(15.7, -0.7), xticks=[0, 1], xticklabels=ends, yticks=[0, 5, 10, 15])
    right.set(ylabel="patch")
    left.set_title(f"noisy {digit}\nits 16 patches are queries", fontsize=10)
    name = "t + y" if wrong else "y"
    middle.set_title(f"weight on {name}, head '{_HEADS[head]}'\nwhite 0, black 1", fontsize=10)
    others = "" if wrong else f", {1 - weights[patch]:.2f} to t"
    numbers = f"patch {patch}: {weights[patch]:.2f} to {name}{others}"
    headline = "one key: every weight is 1" if wrong else "each patch has its own mix of t and y"
    right.set_title(f"{headline}\n{numbers}", color=color, fontsize=10)
    fig.alt_text = (
        f"Attention weights of the sixteen patches of a noisy {digit}. Head '{_HEADS[head]}': {numbers}. "
        f"The weights range from {weights.min():.2f} to {weights.max():.2f}."
    )
    return fig


def explore_cross_attention(attention: Callable = CrossAttention) -> Explorer:
    """Explore how each patch weights t and y, and what a context of one token does.

    Args:
        attention: function (width, heads) -> module with `q`, `kv` and `attention_weights`; the library's by
            default
    """
    grid = _PatchGrid("patch", 4, 4, 5)
    grid.paint((patchify(running_example()[0], 2)[0].mean(dim=-1) / 2 + 0.5).tolist())
    return Explorer(
        partial(_plot_cross_attention, _make_example(attention)),
        "a context of two tokens",
        """
        1. *Choose the head 'row', then 'column'.* The map changes: top patches attend to t and bottom ones to
           y, then left ones and right ones.
        2. *Set the scale to 0.02.* All weights are near 0.5: with small keys no patch can prefer one token.
        3. *Switch the mistake on and change everything else.* Every weight stays 1: the softmax over one key
           is always 1.
        """,
        digit=slider("digit", 0, 9, 3),
        head=choice("head", [(name, i) for i, name in enumerate(_HEADS)], 0),
        scale=stops("scale of the context", [0.02, 0.2, 1.0, 4.0], 1.0),
        patch=grid,
        wrong=mistake("a context of one token, t + y"),
    )
