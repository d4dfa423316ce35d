"""Explorer of lesson 06: attention of one patch in a trained model, from scores to weights."""

from collections.abc import Callable
from functools import partial
from math import isqrt

import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dit_nb.attention import attention_weights
from dit_nb.data import running_example
from dit_nb.errors import UserError
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.teach.explore.core import Explorer, _PatchGrid, choice, mistake, stops
from dit_nb.utils import randn
from dit_nb.visual import COLORS, _to_pixels, figure

__all__ = ["explore_attention"]


def _record_queries_keys(t: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run the digit model on the noised running example and record its queries and keys."""
    (model, sampling), (x0, y), recorded = digit_model(), running_example(), []
    noise, t = randn(x0.shape, torch.Generator().manual_seed(seed)), torch.tensor([t])
    x = make_diffusion(sampling).q_sample(x0, t, noise).float()

    def record(attention, inputs, _):
        q, k, _ = attention.qkv_heads(inputs[0])
        recorded.append(torch.stack([q, k]).cpu())  # (2, 1, h, T, d)

    hooks = [block.attn.register_forward_hook(record) for block in model.blocks]
    with torch.no_grad():
        model(*(z.to(model.pos_embed.device) for z in (x, t, y)))
    for hook in hooks:
        hook.remove()
    return x, *torch.cat(recorded, dim=1)


_STEP = 4.9  # from one map to the next, in patches


def _frame(ax, corner: tuple[float, float], side: float) -> None:
    """Mark a square: white with a black rim, to be seen on any background."""
    for color, width in (("black", 4.5), ("white", 2)):
        ax.add_patch(Rectangle(corner, side, side, fill=False, ec=color, lw=width, zorder=3, clip_on=False))


def _show_stages(ax, image: Tensor, query: int, stages: Tensor, limit: float) -> None:
    """The image, and three maps of it (3, T) with numbers: scores, scaled scores, weights."""
    side, maps = isqrt(stages.shape[1]), stages.unflatten(1, (isqrt(stages.shape[1]), -1))
    boxes = [(_STEP * i - 0.5, _STEP * i + side - 0.5, side - 0.5, -0.5) for i in range(4)]
    ax.imshow(_to_pixels(image[0]), cmap="gray", vmin=0, vmax=1, extent=boxes[0])
    for values, box in zip(maps, boxes[1:3]):
        ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=box)
    ax.imshow(maps[2], cmap="Greys", vmin=0, vmax=0.5, extent=boxes[3])
    for i in range(4):
        _frame(ax, (_STEP * i + query % side - 0.5, query // side - 0.5), 1)
    for k, (*scores, weight) in enumerate(stages.T.tolist()):
        dark = [False, *(abs(score) > 0.6 * limit for score in scores), weight > 0.25]
        texts = ["", *(f"{score:.1f}" for score in scores), f"{weight:.0%}" if weight >= 0.005 else ""]
        for i in (i for i in range(4) if texts[i]):
            xy, color = (_STEP * i + k % side, k // side), "white" if dark[i] else "black"
            ax.text(*xy, texts[i], ha="center", va="center", fontsize=9, color=color)
    ax.set(xlim=(-0.7, 3 * _STEP + side - 0.3), ylim=(side + 2.1, -1.3))
    ax.axis("off")


def _show_heads(ax, weights: Tensor, block: int, head: int) -> None:
    """Below the stages, the weights (blocks, heads, T) of all heads in a row, one of them framed."""
    blocks, heads, side = *weights.shape[:2], isqrt(weights.shape[2])
    start = [[b * (heads * (side + 1) + 3) + h * (side + 1) for h in range(heads)] for b in range(blocks)]
    strip = torch.full((side, start[-1][-1] + side), torch.nan)
    pixel, top = (3 * _STEP + side) / strip.shape[1], side + 0.45
    for b, row in enumerate(start):
        for h, x in enumerate(row):
            strip[:, x : x + side] = weights[b, h].view(side, side)
            middle = (x + side / 2) * pixel - 0.5
            ax.text(middle, top - 0.6 * pixel, f"{h + 1}", ha="center", va="bottom", fontsize=8)
        middle = (row[0] + row[-1] + side) / 2 * pixel - 0.5
        ax.text(middle, top + (side + 1.5) * pixel, f"block {b + 1}", ha="center", va="top")
    box = (-0.5, strip.shape[1] * pixel - 0.5, top + side * pixel, top)
    ax.imshow(strip, cmap="Greys", vmin=0, vmax=0.5, extent=box)
    _frame(ax, ((start[block][head] - 0.5) * pixel - 0.5, top - 0.5 * pixel), (side + 1) * pixel)


def _plot_attention(
    image: Tensor,
    queries: Tensor,
    keys: Tensor,
    query: int,
    block: int = 1,
    head: int = 1,
    temperature: float = 1.0,
    wrong: bool = False,
    attention_weights: Callable = attention_weights,
) -> Figure:
    """Show scores, scaled scores and weights of one query in one head, and the weights of all heads."""
    d, scores = queries.shape[-1], queries @ keys.mT  # (blocks, heads, T, T)
    scaled = scores / d**0.5 / temperature
    weights = scaled.softmax(dim=-2) if wrong else attention_weights(queries / temperature, keys)
    if weights.shape != scores.shape:
        raise UserError(f"weights have shape {tuple(weights.shape)}, but must be {tuple(scores.shape)}.")
    stages = torch.stack([scores, scaled, weights])[:, block - 1, head - 1, query]  # (3, T)
    total, best = float(stages[2].sum()), int(stages[2].argmax())
    fig, axes = figure(1, 1, (9, 3.2))
    _show_heads(axes[0, 0], weights[:, :, query], block - 1, head - 1)
    _show_stages(axes[0, 0], image, query, stages, limit=float(scores.abs().quantile(0.95)))
    divided = f"/ \u221a{d}" + (f" / {temperature:g}" if temperature != 1 else "")
    sums = f"softmax: sums to {total:.2f}"
    for i, title in enumerate((f"query: patch {query}", "scores: q \u00b7 k", f"scaled: {divided}", sums)):
        color = COLORS["wrong"] if i == 3 and abs(total - 1) > 1e-4 else "black"
        axes[0, 0].text(_STEP * i + 1.5, -0.7, title, ha="center", va="bottom", fontsize=11, color=color)
    most = f"patch {query} of a noisy digit attends most to patch {best}, with {stages[2, best]:.0%}"
    below = "Below, the weights of all heads for this patch, numbered within each block."
    fig.alt_text = f"Block {block}, head {head}: {most}; {sums}. {below}"
    return fig


def explore_attention(
    t: int = 200, seed: int = 0, attention_weights: Callable = attention_weights
) -> Explorer:
    """Explore what each patch of a noisy digit attends to in a trained model.

    Args:
        t: timestep of the noise, 0 to 999
        seed: seed of the noise
        attention_weights: function (q, k) -> weights to show; the library's by default
    """
    image, queries, keys = _record_queries_keys(t, seed)
    blocks, heads, side = *queries.shape[:2], isqrt(queries.shape[2])
    grid = _PatchGrid("click the query patch", side, side, 6)
    grid.paint(rearrange(_to_pixels(image[0]), "(h p) (w q) -> (h w) (p q)", h=side, w=side).mean(axis=1))
    return Explorer(
        partial(_plot_attention, image, queries, keys, attention_weights=attention_weights),
        "what one patch attends to",
        """
        1. *Choose head 3 of block 1, and click several patches.* It attends to the patch on the right,
           whatever is there. Training has also found heads for left (block 2, head 1), down (3, 4) and up (4,
           4).
        2. *Back to head 1 and patch 6: set the temperature to 0.1, then to 10.* The best match gets 92%; then
           every patch gets 5 to 8%.
        3. *Switch the mistake on.* The weights of a query no longer sum to 1: they depend on the other
           queries.
        """,
        query=grid,
        block=choice("block", list(range(1, blocks + 1)), 1),
        head=choice("head", list(range(1, heads + 1)), 1),
        temperature=stops("temperature", [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0], 1.0),
        wrong=mistake("softmax over the queries"),
    )
