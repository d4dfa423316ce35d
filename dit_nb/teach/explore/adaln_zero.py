"""Six pictures with knobs, for lessons 08 to 13: how a condition enters, what a gate does, and what it all costs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.config import DiTConfig
from dit_nb.data import digits, running_example
from dit_nb.model import DiT, init_weights
from dit_nb.patchify import unpatchify
from dit_nb.teach.explore.core import Explorer, mistake, stops
from dit_nb.visual import COLORS, figure

DEPTH, WIDTH = 12, 48


STEPS = (0, 1, 2, 3, 10)  # of a training run, at which we look


class Waking(NamedTuple):
    "What was seen at some steps of a training run."

    light: list[
        Tensor
    ]  # (3, L+2) norm of the gradient: weights, gates, shift and scale; nan where there is none
    frames: list[Tensor]  # (L+2, 8, 8) the running digit before block 1 and after each, then the answer
    loud: list[Tensor]  # (L+1,) root mean square of the tokens
    gates: list[Tensor]  # (L,) mean size of a block's gates
    losses: list[float]


def gate_model(
    block: Callable,  # (width, heads) -> block, with an adaLN_modulation of six fields
    gate: float,  # where the gates start
    wrong: bool = False,  # Xavier's random weights come last
) -> DiT:
    "A digit model of twelve blocks whose gates all start at one value, or from a sweep that comes too late."
    config = DiTConfig(8, 2, 1, WIDTH, DEPTH, 4, num_classes=10, class_dropout_prob=0.0, init="scaled")
    model = DiT(config)
    model.blocks = nn.ModuleList(block(WIDTH, 4) for _ in range(DEPTH))
    init_weights(model)
    for b in model.blocks:
        b.adaLN_modulation[-1].bias.data.view(6, WIDTH)[[2, 5]] = gate
    if wrong:
        for module in [m for part in (model.blocks, model.final_layer) for m in part.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return model


def light(model: DiT) -> Tensor:  # (3, L+2)
    "The gradient of every tensor, as a map: what it does by where it stands."
    squares = torch.zeros(3, DEPTH + 2, dtype=torch.float64)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        parts = name.split(".")
        column = int(parts[1]) + 1 if parts[0] == "blocks" else (DEPTH + 1) * (parts[0] == "final_layer")
        fields = p.grad.double().square()
        if "adaLN_modulation" in name and parts[0] == "blocks":
            fields = fields.view(6, -1).sum(dim=1)  # shift, scale, gate; shift, scale, gate
            squares[1, column] += fields[[2, 5]].sum()
            squares[2, column] += fields[[0, 1, 3, 4]].sum()
        else:
            listens = "adaLN" in name or parts[0] in ("t_embedder", "y_embedder")
            squares[2 if listens else 0, column] += fields.sum()
    squares[1, [0, -1]] = torch.nan  # gates are in blocks only
    return squares.sqrt()


def walk(
    model: DiT,
    x0: Tensor,  # (1, 1, 8, 8) an image
    y: Tensor,  # (1,) its label
) -> tuple[Tensor, Tensor, Tensor]:  # frames, loud, gates, as in Waking
    "Send an image through the blocks, and read the road back as pixels after each."
    t = torch.tensor([500])
    cond = model.condition(t, y)
    x = model.x_embedder(x0) + model.pos_embed  # (1, 16, D)
    loud, frames, seen = [], [], model.pos_embed + model.x_embedder.proj.bias  # seen: what is not pixels
    back = torch.linalg.pinv(model.x_embedder.proj.weight.flatten(1)).T  # (D, 4)
    for block, c in zip([None, *model.blocks], [None, *cond]):
        x = block(x, c) if block else x
        loud.append(x.square().mean().sqrt())
        frames.append(unpatchify((x - seen) @ back, (4, 4), 2)[0, 0])
    frames.append(model(x0, t, y)[0, 0])
    gates = torch.stack([c.view(6, -1)[[2, 5]].abs().mean() for c in cond[:-1]])
    return torch.stack(frames), torch.stack(loud), gates


def watch_waking(
    block: Callable,  # (width, heads) -> block
    gate: float,  # where the gates start
    wrong: bool = False,  # Xavier's random weights come last
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Waking:
    "Train on noisy digits for a few steps, and look at gradients and road before some of them."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, data, digit, seen = gate_model(block, gate, wrong), digits().train, running_example(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
        for step in range(STEPS[-1] + 1):
            i, t, eps = torch.randint(len(data), (16,)), torch.randint(1000, (16,)), torch.randn(16, 1, 8, 8)
            angle = t.view(-1, 1, 1, 1) / 999 * torch.pi / 2
            x_t = angle.cos() * data.images[i] + angle.sin() * eps  # lesson 14 does this properly
            loss = F.mse_loss(model(x_t, t, data.labels[i])[:, :1], eps)
            optimizer.zero_grad()
            loss.backward()
            if step in STEPS:
                with torch.no_grad():
                    seen.append((light(model), *walk(model, *digit), loss.item()))
            optimizer.step()
            progress(step + 1, STEPS[-1] + 1)
    return Waking(*map(list, zip(*seen)))


def told(waking: Waking, k: int) -> str:
    "One sentence on what is seen at the k-th of the steps."
    frames, loud, there = waking.frames[k], waking.loud[k], ~waking.light[k].isnan()
    same = torch.equal(waking.loud[k][1:], loud[:-1]) and torch.equal(frames[0], frames[-2])
    way = "comes out exactly as it went in" if same else f"comes out {loud[-1] / loud[0]:.2f} times as loud"
    answer = "the answer is exactly 0" if not frames[-1].any() else "there is an answer"
    awake = int((waking.light[k] > 0).sum())
    return f"step {STEPS[k]}: the digit {way}, {answer}, loss {waking.losses[k]:.2f}; {awake} of {there.sum()} lights on"


def plot_gate(
    waking: Waking,
    gate: float,  # where the gates start
    step: int,  # one of STEPS
    wrong: bool = False,
) -> Figure:
    "A digit on its way through the blocks, which tensors have a gradient, and how loud the road is."
    k, color = STEPS.index(step), COLORS["wrong" if wrong else "x_t"]
    light, frames, loud, gates = waking.light[k], waking.frames[k], waking.loud[k], waking.gates[k]
    fig, axes = figure(3, 1, (9, 3.6), height_ratios=[0.58, 1, 1])
    top, middle, bottom = axes[:, 0]
    strip = np.full((8, 9 * len(frames)), np.nan)  # one array: fourteen axes would be slow
    for i, frame in enumerate(frames):
        strip[:, 9 * i : 9 * i + 8] = frame
    ends = (-0.5, DEPTH + 1.5)
    top.imshow(strip, cmap="gray", vmin=-1, vmax=1, extent=(*ends, 0, 1), aspect="auto")
    night = plt.get_cmap("YlOrBr_r").with_extremes(under="#202028", bad="white")
    lit = light.clamp(min=1e-30).log10()  # nan stays nan: nothing is there
    artist = middle.imshow(lit, cmap=night, vmin=-5, vmax=0.5, extent=(*ends, 2.5, -0.5), aspect="auto")
    middle.vlines(np.arange(DEPTH + 1) + 0.5, -0.5, 2.5, color="white", lw=1)
    bottom.stairs(gates, np.arange(DEPTH + 1) + 0.5, fill=True, color=COLORS["gate"])
    bottom.plot(range(DEPTH + 1), loud, "o-", color=color)
    bottom.text(-0.4, 3.3, "loudness of the road (RMS)", color=color)
    bottom.text(4, 3.3, "mean size of the gates", color=COLORS["gate"])
    top.set_title(told(waking, k), fontsize=10, color=COLORS["wrong"] if wrong else "black")
    top.axis("off")
    for ax in (middle, bottom):
        ax.set(xlim=ends, xticks=[])
    middle.set(yticks=[0, 1, 2], yticklabels=["weights", "gates", "shift, scale"])
    bottom.set(ylim=(0, 3.9), yticks=[0, 3], xticks=[0, DEPTH + 1])
    bottom.set_xticklabels(["in", "out"])
    bottom.set_xlabel("in: embeddings; twelve blocks; out: final layer", labelpad=-8)
    fig.words = told(waking, k)
    bar = fig.colorbar(artist, ax=axes, ticks=[-4, 0], aspect=40, pad=0.01)
    bar.ax.set_yticklabels(["0.0001", "1"])
    bar.set_label("gradient; black is exactly 0")
    return fig


def explore_gate(
    block: Callable = AdaLNZeroBlock,  # (width, heads) -> block, with an adaLN_modulation of six fields
) -> Explorer:
    "Lesson 11: a digit walks through twelve blocks, and the lights go on in three steps."
    return Explorer(
        plot_gate,
        "gates that start at zero, and how they wake",
        [
            (
                "Move the step to 0, 1, 2.",
                "First only the final linear layer is lit. Then the gates, and what stands before and after all blocks. Then everything.",
            ),
            (
                "At step 0, start the gates at 0.1, 0.3, 1.",
                "The 3 dissolves on its way, earlier each time, and the road grows louder from block to block.",
            ),
            (
                "Switch the mistake on and turn the gates' knob.",
                "It does nothing: the sweep came last and overwrote it. The 3 arrives bent, every light is on at step 0, and the loss starts far above 1.",
            ),
        ],
        partial(watch_waking, block),
        step=stops("training step", list(STEPS), 1),
        gate=stops("gates start at", [0.0, 0.1, 0.3, 1.0], 0.0),
        wrong=mistake("zero first, then Xavier for everything"),
    )
