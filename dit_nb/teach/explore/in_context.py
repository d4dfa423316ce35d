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
from dit_nb.data import running_example
from dit_nb.objective import Diffusion
from dit_nb.pretrained import block_model
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_in_context"]

_PATCHES, _MIDDLE = 16, 10


class _InformationFlow(NamedTuple):
    """Attention and perturbations in a sequence of 16 image tokens and two condition tokens, t and y."""

    attention: Tensor  # (L, h, 18, 18) attention weights
    spread: (
        Tensor  # (2, S, L+1, 18) relative change of each token; condition tokens kept, or new for each block
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
    t: int,
    block: Callable = InContextBlock,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> _InformationFlow:
    """Send the running digit at timestep t and its label through the trained blocks; perturb t, y and a patch."""
    model, (x0, y), times = block_model("in_context")[0].cpu(), running_example(), torch.tensor([t])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    config, blocks = model.config, nn.ModuleList()
    for trained in model.blocks:
        blocks.append(block(config.hidden_size, config.num_heads))
        blocks[-1].load_state_dict(trained.state_dict())
    with torch.no_grad():
        cond = torch.stack([model.t_embedder(times), model.y_embedder(y)], dim=1)  # (1, 2, D)
        x = model.x_embedder(Diffusion().q_sample(x0, times, noise)) + model.pos_embed  # (1, 16, D)
        x = torch.cat([x, cond], dim=1)  # (1, 18, D)

        def run(x, new_tokens=False):
            states = [x]
            for b in blocks:
                out = b(states[-1])
                states.append(torch.cat([out[:, :_PATCHES], x[:, _PATCHES:]], dim=1) if new_tokens else out)
            return torch.stack(states)

        weights = torch.cat([b.attn.attention_weights(b.norm1(s)) for b, s in zip(blocks, run(x))])
        sources, spread = (_PATCHES, _PATCHES + 1, _MIDDLE), []
        for i, (new_tokens, source) in enumerate(product((False, True), sources)):
            spread.append(_spread(partial(run, new_tokens=new_tokens), x, source))
            progress(i + 1, 2 * len(sources))
        return _InformationFlow(weights, torch.stack(spread).unflatten(0, (2, len(sources))))


def _plot_in_context(
    flow: _InformationFlow, t: int, block: int, head: int, source: int, wrong: bool = False
) -> Figure:
    """Show one attention map (of a head, or the mean if head is -1), and how a perturbation spreads."""
    heads, spread, T = flow.attention[block - 1], flow.spread[int(wrong), source], _PATCHES
    weights = heads.mean(dim=0) if head < 0 else heads[head]
    fig, axes = figure(1, 2, (9, 3.5), width_ratios=[1, 1.5])
    left, right = axes[0]
    left.imshow(weights, cmap="Greys", vmin=0, vmax=0.5)
    logs = spread.clamp(min=1e-9).log10()  # white where nothing has arrived
    artist = right.imshow(logs, cmap="Greys", vmin=-2.5, vmax=0, aspect="auto", origin="lower")
    for line in (left.axhline, left.axvline, right.axvline):
        line(T - 0.5, color=COLORS["cond"], lw=1.5)
    right.add_patch(Rectangle((-0.5, block - 0.5), T + 2, 1, fill=False, ec=COLORS["cond"], lw=2.5))
    share, name = float(weights[:T, T:].sum(dim=1).mean()), ("t", "y", "a patch")[source]
    which = "mean of the heads" if head < 0 else f"head {head}"
    title = f"attention, block {block}, {which}:\nimage tokens attend to t and y with {share:.0%}"
    left.set_title(title, fontsize=10)
    title = f"effect of perturbing {name}" + (", new tokens for every block" if wrong else "")
    right.set_title(title, fontsize=10, color=COLORS["wrong" if wrong else "x_t" if source == 2 else "cond"])
    ticks = {"xticks": [0, T + 0.5], "xticklabels": ["patch 0", "t, y"]}
    left.set(**ticks, yticks=[0, T + 0.5], yticklabels=["patch 0", "t, y"], xlabel="key", ylabel="query")
    right.set(**ticks, yticks=range(len(spread)), xlabel="token", ylabel="blocks passed")
    bar = fig.colorbar(artist, ax=right, label="relative change", ticks=[-2, -1, 0])
    bar.ax.set_yticklabels(["1 %", "10 %", "100 %"])
    reached = int((spread[block] > 0).sum())
    fig.alt_text = (
        f"{T} image tokens at timestep {t}, and t, y. In block {block}, {which}, image tokens attend to t and y with {share:.0%}. "
        f"A perturbation of {name}: after block {block} it has reached {reached} of {T + 2} tokens."
    )
    return fig


def explore_in_context(block: Callable = InContextBlock) -> Explorer:
    """Explore who attends to two condition tokens of a trained model, and how far their influence spreads.

    Args:
        block: function (width, heads) -> block with `norm1` and `attn`, which gets the trained weights; the
            library's by default
    """
    return Explorer(
        _plot_in_context,
        "two condition tokens in the sequence",
        """
        1. *Choose block 2, and move t from 999 down to 50.* The attention that the image gives to t and y
           falls by about a third: the noisier the image, the more of it.
        2. *Perturb a patch.* The columns t and y are no longer white (that of t is faint): the two tokens
           collect information about the image.
        3. *Still with a perturbed patch, switch the mistake on.* The columns t and y stay white: tokens that
           are replaced for each block carry nothing on.
        """,
        lambda t, progress: _trace_information(t, block, progress=progress),
        t=stops("timestep of the image", [50, 100, 300, 500, 999], 300),
        block=slider("block", 1, 4, 1),
        head=choice("head", [("mean", -1), ("0", 0), ("1", 1), ("2", 2), ("3", 3)], -1),
        source=choice("perturb", [("t", 0), ("y", 1), ("a patch", 2)], 1),
        wrong=mistake("append new t and y tokens for every block"),
    )
