"""Six pictures with knobs, for lessons 08 to 13: how a condition enters, what a gate does, and what it all costs."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from torch import Tensor, nn

from dit_nb.blocks.in_context import InContextBlock
from dit_nb.conditioning import LabelEmbedder, TimestepEmbedder
from dit_nb.data import running_example
from dit_nb.patchify import PatchEmbed
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.visual import COLORS, figure


def flow(
    ax,  # matplotlib axes
    steps: list[tuple],  # (text, colour) or (text, colour, text from the side), from the bottom up
    title: str = "",
) -> None:
    "Draw a block: boxes and arrows. A step '' forks a residual road, '+' ends it."
    black, below, fork = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}, 0, 0
    for y, (text, color, *side) in enumerate(steps):
        small = text in ("", "+", "x")
        half, tint = 0.12 if small else 0.3, COLORS["gate" if color == "gate" else "cond"]
        if y:
            ax.annotate("", (0, y - half), (0, y - 1 + below), arrowprops=black)
        for words in side:
            ax.text(1.75, y, words, va="center", color=tint, fontsize=9)
            ax.annotate("", (half if small else 1.2, y), (1.72, y), arrowprops=black | {"color": tint})
        if text == "+":
            ax.plot([0, -1.5, -1.5], [fork, fork, y], color="black", lw=1)
            ax.annotate("", (-half, y), (-1.5, y), arrowprops=black)
        fork, below = fork if text else y, half
        box = FancyBboxPatch((-1.15, y - 0.25), 2.3, 0.5, "round,pad=0.05")
        shape = ax.add_patch(Circle((0, y), half if text else 0.05) if small else box)
        shape.set(facecolor="white" if text else "black", edgecolor=COLORS[color], lw=2, zorder=3)
        ax.text(0, y - 0.02, text, ha="center", va="center", fontsize=10, zorder=4)
    top = max(len(steps) - 0.4, ax.get_ylim()[1])  # two columns may share their axis
    ax.set(xlim=(-1.8, 3.6), ylim=(-0.5, top), aspect="equal", title=title)
    ax.axis("off")


class Traffic(NamedTuple):
    "What happens in a queue of T image tokens and two condition tokens, t and y."

    maps: Tensor  # (L, h, T+2, T+2) attention
    dye: (
        Tensor  # (2, S, L+1, T+2) for each source, how far each token moves; tokens kept, or handed in afresh
    )


def spread_dye(
    run: Callable[
        [Tensor], Tensor
    ],  # (N, T+2, D) tokens -> (L+1, N, T+2, D) before block 1, after each block
    x: Tensor,  # (1, T+2, D)
    source: int,  # the token that is nudged
    delta: float = 1e-2,  # length of a nudge
) -> Tensor:  # (L+1, T+2) in lengths of the moved token, for a nudge as long as the source
    "Size of the Jacobian of every token, measured by nudging each entry of the source."
    D = x.shape[-1]
    nudged = x.repeat(D, 1, 1)
    nudged[:, source] += delta * torch.eye(D, dtype=x.dtype)
    rest, moved = run(x), run(nudged)  # (L+1, 1, T+2, D) and (L+1, D, T+2, D)
    size = (moved - rest).square().sum(dim=(1, 3)).sqrt() / delta  # (L+1, T+2)
    return size * x[0, source].norm() / D**0.5 / rest[:, 0].norm(dim=-1)


def make_traffic(
    patch: int,  # side of a patch of the 8x8 digit: 4, 2 or 1
    block: Callable = InContextBlock,  # (width, heads) -> block
    width: int = 48,
    depth: int = 8,
    heads: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Traffic:
    "The running digit, t = 500 and its label in untrained blocks; dye on t, on y, and on a patch in the middle."
    side = 8 // patch
    T, middle = side**2, side * (side // 2) + side // 2
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        embed, time, label = PatchEmbed(patch, 1, width), TimestepEmbedder(width), LabelEmbedder(10, width, 0)
        blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        for b in blocks:
            b.attn.qkv.weight[:width] *= 5  # queries with strong opinions: without training, heads have none
        x0, y = running_example()
        cond = torch.stack([time(torch.tensor([500])), label(y)], dim=1)  # (1, 2, D)
        x = torch.cat([embed(x0) + sincos_2d((side, side), width).float(), cond], dim=1)  # (1, T+2, D)

        def run(x, fresh=False):
            states = [x]
            for b in blocks:
                out = b(states[-1])
                states.append(torch.cat([out[:, :T], x[:, T:]], dim=1) if fresh else out)
            return torch.stack(states)

        maps = torch.cat([b.attn.maps(b.norm1(s)) for b, s in zip(blocks, run(x))])
        sources = (T, T + 1, middle)
        dye = []
        for i, (fresh, source) in enumerate(product((False, True), sources)):
            dye.append(spread_dye(partial(run, fresh=fresh), x, source))
            progress(i + 1, 2 * len(sources))
        return Traffic(maps, torch.stack(dye).unflatten(0, (2, len(sources))))


def plot_in_context(
    traffic: Traffic,
    patch: int,  # side of a patch
    block: int,  # 1 to L
    head: int,
    source: int,  # where the dye is: 0 on t, 1 on y, 2 on a patch
    wrong: bool = False,  # two fresh tokens for every block
) -> Figure:
    "One attention map, and how the dye spreads through queue and blocks."
    T, weights, dye = (8 // patch) ** 2, traffic.maps[block - 1, head], traffic.dye[int(wrong), source]
    fig, axes = figure(1, 2, (9, 3.5), width_ratios=[1, 1.5])
    left, right = axes[0]
    left.imshow(weights, cmap="viridis", vmin=0, vmax=0.5)
    night = dye.clamp(min=1e-9).log10()  # where nothing has arrived it is black
    artist = right.imshow(night, cmap="magma", vmin=-2.5, vmax=0, aspect="auto", origin="lower")
    for line in (left.axhline, left.axvline, right.axvline):
        line(T - 0.5, color="white", lw=2)
    right.add_patch(Rectangle((-0.5, block - 0.5), T + 2, 1, fill=False, ec=COLORS["cond"], lw=2.5))
    share, name = float(weights[:T, T:].sum(dim=1).mean()), ("t", "y", "a patch")[source]
    left.set_title(f"attention, block {block}, head {head}:\npatches give t and y {share:.0%}", fontsize=10)
    title = f"a drop of dye on {name}" + (": two fresh tokens for every block" if wrong else "")
    right.set_title(title, fontsize=10, color=COLORS["wrong" if wrong else "x_t" if source == 2 else "cond"])
    ticks = {"xticks": [0, T + 0.5], "xticklabels": ["patch 0", "t, y"]}
    left.set(
        **ticks, yticks=[0, T + 0.5], yticklabels=["patch 0", "t, y"], xlabel="looked at", ylabel="looking"
    )
    right.set(**ticks, yticks=[0, block, len(dye) - 1], xlabel="token", ylabel="blocks passed")
    bar = fig.colorbar(artist, ax=right, label="share that moves with it", ticks=[-2, -1, 0])
    bar.ax.set_yticklabels(["1 %", "10 %", "100 %"])
    others = torch.cat([dye[block, :T], dye[block, T:]])
    fig.words = (
        f"{T} image tokens and t, y. In block {block}, head {head}, patches give t and y {share:.0%} of their attention. "
        f"Dye on {name}: after block {block} it has reached {int((others > 0).sum())} of {T + 2} tokens."
    )
    return fig


def explore_in_context(
    block: Callable = InContextBlock,  # (width, heads) -> block, with norm1 and attn
) -> Explorer:
    "Lesson 08: two more tokens in the queue, who looks at them, and how far their influence spreads."
    return Explorer(
        plot_in_context,
        "two tokens in the queue",
        [
            (
                "Set the patch to 4, then 2, then 1.",
                "2 of 6, of 18, of 66 tokens are t and y, and the share that the image gives them shrinks.",
            ),
            (
                "Put the dye on a patch.",
                "The columns t and y light up too: the two tokens take notes about the image.",
            ),
            (
                "Leave the dye on the patch and switch the mistake on.",
                "The columns t and y stay black: tokens that are replaced for each block can remember nothing.",
            ),
        ],
        lambda patch, progress: make_traffic(patch, block, progress=progress),
        patch=choice("patch", [4, 2, 1], 2),
        block=slider("block", 1, 8, 1),
        head=choice("head", [0, 1, 2, 3], 0),
        source=choice("dye on", [("t", 0), ("y", 1), ("a patch", 2)], 1),
        wrong=mistake("append t and y afresh for every block"),
    )
