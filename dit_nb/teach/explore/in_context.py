"""Explorer of lesson 08: two condition tokens in the sequence, and how far a perturbation spreads."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from dit_nb.blocks.in_context import InContextBlock
from dit_nb.conditioning import LabelEmbedder, TimestepEmbedder
from dit_nb.data import running_example
from dit_nb.patchify import PatchEmbed
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.visual import COLORS, figure

__all__ = ["explore_in_context"]


class _InformationFlow(NamedTuple):
    """Attention and perturbations in a sequence of T image tokens and two condition tokens, t and y."""

    attention: Tensor  # (L, h, T+2, T+2) attention weights
    spread: (
        Tensor  # (2, S, L+1, T+2) relative change of each token; condition tokens kept, or new for each block
    )


def _spread(run: Callable, x: Tensor, source: int, delta: float = 1e-2) -> Tensor:  # (L+1, T+2)
    """Size of each token's Jacobian with respect to the source token, by perturbing each of its entries.

    `run` maps tokens (N, T+2, D) to (L+1, N, T+2, D); x is (1, T+2, D). In units of the perturbed token's norm,
    for a perturbation as long as the source.
    """
    D = x.shape[-1]
    perturbed = x.repeat(D, 1, 1)
    perturbed[:, source] += delta * torch.eye(D, dtype=x.dtype)
    base, moved = run(x), run(perturbed)  # (L+1, 1, T+2, D) and (L+1, D, T+2, D)
    size = (moved - base).square().sum(dim=(1, 3)).sqrt() / delta  # (L+1, T+2)
    return size * x[0, source].norm() / D**0.5 / base[:, 0].norm(dim=-1)


def _trace_information(
    patch: int,  # side of a patch of the 8x8 digit: 4, 2 or 1
    block: Callable = InContextBlock,
    width: int = 48,
    depth: int = 8,
    heads: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> _InformationFlow:
    """Send the running digit, t = 500 and its label through untrained blocks; perturb t, y, and a middle patch."""
    side = 8 // patch
    T, middle = side**2, side * (side // 2) + side // 2
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        embed, time, label = PatchEmbed(patch, 1, width), TimestepEmbedder(width), LabelEmbedder(10, width, 0)
        blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        for b in blocks:
            b.attn.qkv.weight[:width] *= 5  # larger queries: untrained heads would attend nearly uniformly
        x0, y = running_example()
        cond = torch.stack([time(torch.tensor([500])), label(y)], dim=1)  # (1, 2, D)
        x = torch.cat([embed(x0) + sincos_2d((side, side), width).float(), cond], dim=1)  # (1, T+2, D)

        def run(x, new_tokens=False):
            states = [x]
            for b in blocks:
                out = b(states[-1])
                states.append(torch.cat([out[:, :T], x[:, T:]], dim=1) if new_tokens else out)
            return torch.stack(states)

        weights = torch.cat([b.attn.attention_weights(b.norm1(s)) for b, s in zip(blocks, run(x))])
        sources, spread = (T, T + 1, middle), []
        for i, (new_tokens, source) in enumerate(product((False, True), sources)):
            spread.append(_spread(partial(run, new_tokens=new_tokens), x, source))
            progress(i + 1, 2 * len(sources))
        return _InformationFlow(weights, torch.stack(spread).unflatten(0, (2, len(sources))))


def _plot_in_context(
    flow: _InformationFlow, patch: int, block: int, head: int, source: int, wrong: bool = False
) -> Figure:
    """Show one attention map, and how a perturbation spreads over tokens and blocks."""
    T, weights, spread = (8 // patch) ** 2, flow.attention[block - 1, head], flow.spread[int(wrong), source]
    fig, axes = figure(1, 2, (9, 3.5), width_ratios=[1, 1.5])
    left, right = axes[0]
    left.imshow(weights, cmap="viridis", vmin=0, vmax=0.5)
    logs = spread.clamp(min=1e-9).log10()  # black where nothing has arrived
    artist = right.imshow(logs, cmap="magma", vmin=-2.5, vmax=0, aspect="auto", origin="lower")
    for line in (left.axhline, left.axvline, right.axvline):
        line(T - 0.5, color="white", lw=2)
    right.add_patch(Rectangle((-0.5, block - 0.5), T + 2, 1, fill=False, ec=COLORS["cond"], lw=2.5))
    share, name = float(weights[:T, T:].sum(dim=1).mean()), ("t", "y", "a patch")[source]
    title = f"attention, block {block}, head {head}:\nimage tokens attend to t and y with {share:.0%}"
    left.set_title(title, fontsize=10)
    title = f"effect of perturbing {name}" + (", new tokens for every block" if wrong else "")
    right.set_title(title, fontsize=10, color=COLORS["wrong" if wrong else "x_t" if source == 2 else "cond"])
    ticks = {"xticks": [0, T + 0.5], "xticklabels": ["patch 0", "t, y"]}
    left.set(**ticks, yticks=[0, T + 0.5], yticklabels=["patch 0", "t, y"], xlabel="key", ylabel="query")
    right.set(**ticks, yticks=[0, block, len(spread) - 1], xlabel="token", ylabel="blocks passed")
    bar = fig.colorbar(artist, ax=right, label="relative change", ticks=[-2, -1, 0])
    bar.ax.set_yticklabels(["1 %", "10 %", "100 %"])
    reached = int((spread[block] > 0).sum())
    fig.alt_text = (
        f"{T} image tokens and t, y. In block {block}, head {head}, image tokens attend to t and y with {share:.0%}. "
        f"A perturbation of {name}: after block {block} it has reached {reached} of {T + 2} tokens."
    )
    return fig


def explore_in_context(block: Callable = InContextBlock) -> Explorer:
    """Explore who attends to two condition tokens, and how far their influence spreads.

    Args:
        block: function (width, heads) -> block with `norm1` and `attn`; the library's by default
    """
    return Explorer(
        _plot_in_context,
        "two condition tokens in the sequence",
        """
        1. *Set the patch to 4, then 2, then 1.* t and y are 2 of 6, of 18, of 66 tokens, and the attention
           that they get from the image shrinks.
        2. *Perturb a patch.* The columns t and y light up too: the two tokens collect information about the
           image.
        3. *Still with a perturbed patch, switch the mistake on.* The columns t and y stay black: tokens that
           are replaced for each block carry nothing on.
        """,
        lambda patch, progress: _trace_information(patch, block, progress=progress),
        patch=choice("patch", [4, 2, 1], 2),
        block=slider("block", 1, 8, 1),
        head=choice("head", [0, 1, 2, 3], 0),
        source=choice("perturb", [("t", 0), ("y", 1), ("a patch", 2)], 1),
        wrong=mistake("append new t and y tokens for every block"),
    )
