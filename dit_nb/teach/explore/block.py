"""Explorer of lesson 07: tokens on their way through a stack of blocks, with and without their parts."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from dit_nb.blocks.base import PlainBlock
from dit_nb.data import running_example
from dit_nb.patchify import PatchEmbed
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.visual import COLORS, figure, show_matrix

__all__ = ["explore_block"]

_NORMS = ("before the branch", "after the sum", "none")


class _Stack(NamedTuple):
    """Tokens after 0 to L blocks, for each norm, with the residual connection and without it."""

    states: Tensor  # (3, 2, L+1, T, D)

    @property
    def rms(self) -> Tensor:  # (3, 2, L+1)
        """Root mean square of all entries."""
        return self.states.square().mean(dim=(3, 4)).sqrt()

    @property
    def spread(self) -> Tensor:  # (3, 2, L+1)
        """Share of the squared length of the tokens that differs from token to token."""
        differs = self.states - self.states.mean(dim=3, keepdim=True)
        return differs.square().sum(dim=(3, 4)) / self.states.square().sum(dim=(3, 4))


def _apply_block(block: PlainBlock, x: Tensor, norm: int, residual: bool) -> Tensor:
    """A block whose norm stands elsewhere or is missing, with or without its residual connections."""
    for branch in (block.attn, block.mlp):
        out = branch(F.layer_norm(x, x.shape[-1:], eps=1e-6) if norm == 0 else x)
        x = x + out if residual else out
        x = F.layer_norm(x, x.shape[-1:], eps=1e-6) if norm == 1 else x
    return x


def _run_stack(depth: int = 24, width: int = 64, heads: int = 4) -> _Stack:
    """Send the 16 tokens of the running digit through untrained blocks, initialized as in DiT."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        embed, blocks = PatchEmbed(2, 1, width), [PlainBlock(width, heads) for _ in range(depth)]
        for layer in nn.ModuleList(blocks).modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(embed.proj.weight.view(width, -1))
        start = embed(running_example()[0]) + sincos_2d((4, 4), width).float()
        found = []
        for norm in range(3):
            for residual in (True, False):
                states = [start]
                for block in blocks:
                    states.append(_apply_block(block, states[-1], norm, residual))
                found.append(torch.cat(states))
    return _Stack(torch.stack(found).unflatten(0, (3, 2)))


def _plot_block(stack: _Stack, blocks: int, norm: int, wrong: bool) -> Figure:
    """Show the tokens after some blocks, and how they change with depth."""
    tokens, rms = stack.states[norm, int(wrong), blocks], stack.rms[norm, int(wrong)]
    spread, color = stack.spread[norm, int(wrong)], COLORS["wrong" if wrong else "x_t"]
    fig, axes = figure(1, 3, (9, 3), width_ratios=[1.5, 1, 1])
    name, differs = f"tokens minus their mean, {blocks} blocks", tokens - tokens.mean(dim=0)
    show_matrix(axes[0, 0], differs / rms[blocks], name, "channel", "token", True, 0.5, "value / RMS")
    panels = (
        (
            "differs from token to token",
            "share of squared length",
            spread.clamp(min=1e-15),
            stack.spread[0, 0],
        ),
        ("scale of the stream", "RMS", rms, stack.rms[0, 0]),
    )
    for ax, (title, label, values, plain) in zip(axes[0, 1:], panels):
        ax.semilogy(plain, color=COLORS["gray"], lw=1, ls=":", label="plain block")
        ax.semilogy(values, color=color, lw=2)
        ax.plot(blocks, values[blocks], "o", color=color, ms=8)
        ax.set(title=title, xlabel="blocks", ylabel=label)
    axes[0, 1].set_ylim(1e-15, 1)
    axes[0, 2].set_ylim(0.1, 1e4)
    axes[0, 2].legend(fontsize=8)
    stream = "without residual connections" if wrong else "with residual connections"
    fig.alt_text = (
        f"The tokens of a digit after {blocks} untrained blocks {stream}, layer norm {_NORMS[norm]}: "
        f"{spread[blocks]:.1%} of their squared length differs from token to token; RMS {rms[blocks]:.3g}."
    )
    return fig


def explore_block(depth: int = 24) -> Explorer:
    """Explore what residual connections and layer norms do to tokens in a deep stack of untrained blocks.

    Args:
        depth: number of blocks in the stack
    """
    return Explorer(
        partial(_plot_block, _run_stack(depth)),
        "tokens in a deep stack",
        """
        1. *Move the slider from 24 to 0.* Every row keeps a pattern of its own. The scale grows slowly with depth, from
           0.8 to 3.9.
        2. *Remove the norm.* The branches now receive the stream as it is, and the scale grows to 1,850.
        3. *Back to "before the branch", and switch the mistake on.* After 2 blocks hardly anything differs between
           the 16 tokens; after 3 they are the same up to rounding: the image is gone.
        """,
        blocks=slider("blocks", 0, depth, min(24, depth)),
        norm=choice("LayerNorm", [(name, i) for i, name in enumerate(_NORMS)], 0),
        wrong=mistake("no residual connection"),
    )
