"""Explorer of lesson 11: zero-initialized gates in the first training steps."""

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
from dit_nb.model import DiT, _init_weights
from dit_nb.objective import Diffusion
from dit_nb.patchify import unpatchify
from dit_nb.teach.explore.core import Explorer, mistake, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_gate"]

_DEPTH, _WIDTH = 12, 48
_STEPS = (0, 1, 2, 3, 10)  # recorded training steps


class _GateTrace(NamedTuple):
    """What was recorded at some steps of a training run of L blocks."""

    gradients: list[
        Tensor
    ]  # (3, L+2) norms: weights, gates, shift and scale; NaN where there is no such tensor
    frames: list[Tensor]  # (L+2, 8, 8) the running digit before block 1 and after each block; the output
    rms: list[Tensor]  # (L+1,) root mean square of the tokens
    gates: list[Tensor]  # (L,) mean absolute gate of each block
    losses: list[float]


def _gate_model(block: Callable, gate: float, wrong: bool = False) -> DiT:
    """A digit model whose gates all start at one value, or (wrong) from a Xavier pass that comes too late."""
    config = DiTConfig(8, 2, 1, _WIDTH, _DEPTH, 4, num_classes=10, class_dropout_prob=0.0, init="scaled")
    model = DiT(config)
    model.blocks = nn.ModuleList(block(_WIDTH, 4) for _ in range(_DEPTH))
    _init_weights(model)
    for b in model.blocks:
        b.adaLN_modulation[-1].bias.data.view(6, _WIDTH)[[2, 5]] = gate
    if wrong:
        for module in [m for part in (model.blocks, model.final_layer) for m in part.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return model


def _gradient_norms(model: DiT) -> Tensor:  # (3, L+2)
    """Gradient norms by kind of parameter (weights, gates, shift and scale) and by depth."""
    squares = torch.zeros(3, _DEPTH + 2, dtype=torch.float64)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        parts = name.split(".")
        column = int(parts[1]) + 1 if parts[0] == "blocks" else (_DEPTH + 1) * (parts[0] == "final_layer")
        fields = p.grad.double().square()
        if "adaLN_modulation" in name and parts[0] == "blocks":
            fields = fields.view(6, -1).sum(dim=1)  # shift, scale, gate; shift, scale, gate
            squares[1, column] += fields[[2, 5]].sum()
            squares[2, column] += fields[[0, 1, 3, 4]].sum()
        else:
            is_condition = "adaLN" in name or parts[0] in ("t_embedder", "y_embedder")
            squares[2 if is_condition else 0, column] += fields.sum()
    squares[1, [0, -1]] = torch.nan  # gates are in blocks only
    return squares.sqrt()


def _trace_image(model: DiT, x0: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Send an image (1, 1, 8, 8) through the blocks: frames, RMS and gates as in GateTrace."""
    t = torch.tensor([500])
    c = model.t_embedder(t) + model.y_embedder(y)  # (1, D)
    x = model.x_embedder(x0) + model.pos_embed  # (1, 16, D)
    rms, frames, constant = [], [], model.pos_embed + model.x_embedder.proj.bias  # constant: not from pixels
    back = torch.linalg.pinv(model.x_embedder.proj.weight.flatten(1)).T  # (D, 4)
    for block in [None, *model.blocks]:
        x = block(x, c) if block else x
        rms.append(x.square().mean().sqrt())
        frames.append(unpatchify((x - constant) @ back, (4, 4), 2)[0, 0])
    frames.append(model(x0, t, y)[0, 0])
    gates = torch.stack([b.adaLN_modulation(c)[:, [2, 5]].abs().mean() for b in model.blocks])
    return torch.stack(frames), torch.stack(rms), gates


def _train_and_trace(
    block: Callable,
    gate: float,
    wrong: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> _GateTrace:
    """Train on noisy digits for a few steps; record gradients and tokens before some of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, data, digit, rows = _gate_model(block, gate, wrong), digits().train, running_example(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
        diffusion = Diffusion()
        for step in range(_STEPS[-1] + 1):
            i, t, eps = torch.randint(len(data), (16,)), torch.randint(1000, (16,)), torch.randn(16, 1, 8, 8)
            x_t = diffusion.q_sample(data.images[i], t, eps)
            loss = F.mse_loss(model(x_t, t, data.labels[i])[:, :1], eps)
            optimizer.zero_grad()
            loss.backward()
            if step in _STEPS:
                with torch.no_grad():
                    rows.append((_gradient_norms(model), *_trace_image(model, *digit), loss.item()))
            optimizer.step()
            progress(step + 1, _STEPS[-1] + 1)
    return _GateTrace(*map(list, zip(*rows)))


def _describe(trace: _GateTrace, k: int) -> str:
    """One sentence on the k-th recorded step."""
    frames, rms, exists = trace.frames[k], trace.rms[k], ~trace.gradients[k].isnan()
    unchanged = torch.equal(rms[1:], rms[:-1]) and torch.equal(frames[0], frames[-2])
    stream = "blocks are the identity" if unchanged else f"token RMS times {rms[-1] / rms[0]:.2f}"
    output = "output not 0" if frames[-1].any() else "output exactly 0"
    count = int((trace.gradients[k] > 0).sum())
    gradients = f"{count} of {exists.sum()} parameter groups receive a gradient"
    return f"step {_STEPS[k]}: {stream}, {output}, loss {trace.losses[k]:.2f}; {gradients}"


def _plot_gate(trace: _GateTrace, gate: float, step: int, wrong: bool = False) -> Figure:
    """Show a digit after each block, which parameters receive a gradient, and the scale of the residual stream."""
    k, color = _STEPS.index(step), COLORS["wrong" if wrong else "x_t"]
    gradients, frames, rms, gates = trace.gradients[k], trace.frames[k], trace.rms[k], trace.gates[k]
    fig, axes = figure(3, 1, (9, 4.1), height_ratios=[0.58, 1, 1])
    top, middle, bottom = axes[:, 0]
    strip = np.full((8, 9 * len(frames)), np.nan)  # one image: fourteen axes would be slow
    for i, frame in enumerate(frames):
        strip[:, 9 * i : 9 * i + 8] = frame
    ends = (-0.5, _DEPTH + 1.5)
    top.imshow(strip, cmap="gray", vmin=-1, vmax=1, extent=(*ends, 0, 1), aspect="auto")
    cmap = plt.get_cmap("Greys").with_extremes(under="white")
    logs = gradients.clamp(min=1e-30).log10()  # NaN stays NaN
    artist = middle.imshow(logs, cmap=cmap, vmin=-5, vmax=0.5, extent=(*ends, 2.5, -0.5), aspect="auto")
    middle.patch.set(hatch="////", edgecolor="#c8c8c8")  # where there is no such parameter
    middle.vlines(np.arange(_DEPTH + 1) + 0.5, -0.5, 2.5, color="#c8c8c8", lw=1)
    for fill in (True, False):  # the outline shows gates of 0, too
        bottom.stairs(gates, np.arange(_DEPTH + 1) + 0.5, fill=fill, color=COLORS["gate"], lw=2)
    bottom.plot(range(_DEPTH + 1), rms, "o-", color=color)
    bottom.text(-0.4, 3.3, "RMS of the residual stream", color=color)
    bottom.text(4, 3.3, "mean absolute gate", color=COLORS["gate"])
    fig.alt_text = _describe(trace, k)
    top.set_title(fig.alt_text.replace("; ", ";\n"), fontsize=10, color=COLORS["wrong"] if wrong else "black")
    top.axis("off")
    for ax in (middle, bottom):
        ax.set(xlim=ends, xticks=[])
    middle.set(yticks=[0, 1, 2], yticklabels=["weights", "gates", "shift, scale"])
    bottom.set(ylim=(-0.1, 3.9), yticks=[0, 3], xticks=range(_DEPTH + 2))
    bottom.set_xticklabels(["in", *range(1, _DEPTH + 1), "out"], fontsize=9)
    bottom.set_xlabel("block (in: embeddings; out: final layer)")
    bar = fig.colorbar(artist, ax=axes, ticks=[-4, 0], aspect=40, pad=0.01)
    bar.ax.set_yticklabels(["0.0001", "1"])
    bar.set_label("gradient norm; white is exactly 0")
    return fig


def explore_gate(block: Callable = AdaLNZeroBlock) -> Explorer:
    """Explore zero-initialized gates: which parameters receive a gradient in the first training steps.

    Args:
        block: function (width, heads) -> block with an `adaLN_modulation` of six fields; the library's by default
    """
    return Explorer(
        _plot_gate,
        "zero-initialized gates in the first training steps",
        """
        1. *Press Reset, and move the step to 0, 1, 2.* First only the final linear layer receives a gradient.
           Then the gates, and what stands before and after all blocks. Then everything.
        2. *At step 0, start the gates at 0.1, 0.3, 1.* The 3 dissolves on its way, earlier each time, and the
           RMS grows from block to block.
        3. *Switch the mistake on and change the initial gates.* They have no effect: the Xavier pass came
           last and overwrote them. The 3 arrives distorted, every parameter receives a gradient at step 0,
           and the loss starts far above 1.
        """,
        partial(_train_and_trace, block),
        step=stops("training step", list(_STEPS), 1),
        gate=stops("gates start at", [0.0, 0.1, 0.3, 1.0], 0.0),
        wrong=mistake("zero first, then Xavier for everything"),
    )
