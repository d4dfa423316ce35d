"""Five pictures to play with, one for each of the lessons 01 to 06."""

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
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.teach.explore.core import Explorer, PatchGrid, choice, mistake, stops
from dit_nb.utils import randn
from dit_nb.visual import COLORS, figure, to_pixels


def listen(
    t: int,  # timestep of the noise
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:  # (1, 1, 8, 8) noisy digit; queries and keys (blocks, heads, T, d)
    "What the queries and keys of the digit model say of the running example."
    (model, sampling), (x0, y), heard = digit_model(), running_example(), []
    noise, t = randn(x0.shape, torch.Generator().manual_seed(seed)), torch.tensor([t])
    x = make_diffusion(sampling).q_sample(x0, t, noise).float()

    def note(attention, inputs, _):
        q, k, _ = attention.split(inputs[0])
        heard.append(torch.stack([q, k]).cpu())  # (2, 1, h, T, d)

    hooks = [block.attn.register_forward_hook(note) for block in model.blocks]
    with torch.no_grad():
        model(*(z.to(model.pos_embed.device) for z in (x, t, y)))
    for hook in hooks:
        hook.remove()
    return x, *torch.cat(heard, dim=1)


STEP = 4.9  # from one map to the next, in patches


def show_stages(
    ax,  # matplotlib axes
    image: Tensor,  # (1, 1, H, W)
    query: int,  # the patch that asks
    stages: Tensor,  # (3, T) scores, scaled scores, weights
    limit: float,  # the score with the strongest colour
) -> None:
    "An image and three maps of it, with numbers, side by side."
    side, maps = isqrt(stages.shape[1]), stages.unflatten(1, (isqrt(stages.shape[1]), -1))
    boxes = [(STEP * i - 0.5, STEP * i + side - 0.5, side - 0.5, -0.5) for i in range(4)]
    for box, brightness in zip(boxes[::3], (1, 0.5)):  # dark, where weights are laid over it
        ax.imshow(brightness * to_pixels(image[0]), cmap="gray", vmin=0, vmax=1, extent=box)
    for values, box in zip(maps, boxes[1:3]):
        ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=box)
    ax.imshow(maps[2], cmap="plasma", vmin=0, vmax=0.5, alpha=(3 * maps[2]).clamp(0, 1), extent=boxes[3])
    for i in range(4):
        corner = (STEP * i + query % side - 0.5, query // side - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=COLORS["wrong"], lw=3, zorder=3))
    for k, (*scores, share) in enumerate(stages.T.tolist()):
        dark = [False, *(abs(score) > 0.6 * limit for score in scores), share < 0.3]
        texts = ["", *(f"{score:.1f}" for score in scores), f"{share:.0%}" if share >= 0.005 else ""]
        for i in (i for i in range(4) if texts[i]):
            place, color = (STEP * i + k % side, k // side), "white" if dark[i] else "black"
            ax.text(*place, texts[i], ha="center", va="center", fontsize=9, color=color)
    ax.set(xlim=(-0.7, 3 * STEP + side - 0.3), ylim=(side + 1.6, -1.3))
    ax.axis("off")


def show_heads(
    ax,  # matplotlib axes, with `show_stages` above
    shares: Tensor,  # (blocks, heads, T) what each head gives to each patch
    block: int,  # the framed one
    head: int,
) -> None:
    "The maps of all heads in a row."
    blocks, heads, side = *shares.shape[:2], isqrt(shares.shape[2])
    start = [[b * (heads * (side + 1) + 3) + h * (side + 1) for h in range(heads)] for b in range(blocks)]
    strip = torch.full((side, start[-1][-1] + side), torch.nan)
    pixel, top = (3 * STEP + side) / strip.shape[1], side + 0.1
    for b, row in enumerate(start):
        for h, x in enumerate(row):
            strip[:, x : x + side] = shares[b, h].view(side, side)
        middle = (row[0] + row[-1] + side) / 2 * pixel - 0.5
        ax.text(middle, top + (side + 1.5) * pixel, f"block {b + 1}", ha="center", va="top")
    box = (-0.5, strip.shape[1] * pixel - 0.5, top + side * pixel, top)
    ax.imshow(strip, cmap="plasma", vmin=0, vmax=0.5, extent=box)
    corner, width = ((start[block][head] - 0.5) * pixel - 0.5, top - 0.5 * pixel), (side + 1) * pixel
    ax.add_patch(Rectangle(corner, width, width, fill=False, ec=COLORS["wrong"], lw=2.5, clip_on=False))


def plot_attention(
    image: Tensor,  # (1, 1, H, W) what the model was given
    queries: Tensor,  # (blocks, heads, T, d)
    keys: Tensor,  # (blocks, heads, T, d)
    query: int,  # number of the patch that asks
    block: int = 1,  # counted from 1, as are the heads
    head: int = 1,
    temperature: float = 1.0,  # scores are divided by it
    wrong: bool = False,  # softmax over the queries
    attention_weights: Callable = attention_weights,  # (q, k) -> (blocks, heads, T, T)
) -> Figure:
    "Compare, scale, share out, for one patch and one head; and the answers of all heads."
    d, scores = queries.shape[-1], queries @ keys.mT  # (blocks, heads, T, T)
    scaled = scores / d**0.5 / temperature
    shares = scaled.softmax(dim=-2) if wrong else attention_weights(queries / temperature, keys)
    if shares.shape != scores.shape:
        raise ValueError(f"weights have shape {tuple(shares.shape)}, but must be {tuple(scores.shape)}.")
    asked = torch.stack([scores, scaled, shares])[:, block - 1, head - 1, query]  # (3, T)
    total, best = float(asked[2].sum()), int(asked[2].argmax())
    fig, axes = figure(1, 1, (9, 3.2))
    show_heads(axes[0, 0], shares[:, :, query], block - 1, head - 1)
    show_stages(axes[0, 0], image, query, asked, limit=float(scores.abs().quantile(0.95)))
    divided = f"/ \u221a{d}" + (f" / {temperature:g}" if temperature != 1 else "")
    titles = (
        f"patch {query} asks",
        "compare: q \u00b7 k",
        f"scale: {divided}",
        f"share out: sums to {total:.2f}",
    )
    for i, title in enumerate(titles):
        color = COLORS["wrong"] if i == 3 and abs(total - 1) > 1e-4 else "black"
        axes[0, 0].text(STEP * i + 1.5, -0.7, title, ha="center", va="bottom", fontsize=11, color=color)
    says = f"patch {query} of a noisy digit looks most at patch {best}, with {asked[2, best]:.0%}"
    fig.words = (
        f"Block {block}, head {head}: {says}; {titles[3]}. Below, the maps of all heads for this patch."
    )
    return fig


def explore_attention(
    t: int = 200,  # timestep of the noise on the digit
    seed: int = 0,
    attention_weights: Callable = attention_weights,  # (q, k) -> weights
) -> Explorer:
    "Where a patch of a real digit looks, in a model that was trained."
    image, queries, keys = listen(t, seed)
    blocks, heads, side = *queries.shape[:2], isqrt(queries.shape[2])
    grid = PatchGrid("the patch that asks: click", side, side, 6)
    grid.paint(rearrange(to_pixels(image[0]), "(h p) (w q) -> (h w) (p q)", h=side, w=side).mean(axis=1))
    tries = [
        (
            "Choose head 3 of block 1, and let several patches ask.",
            "It looks one patch to the right, whatever is there. Training has also found heads for left "
            "(block 2, head 1), down (3, 4) and up (4, 4).",
        ),
        (
            "Back to head 1 and patch 6: set the temperature to 0.1, then to 10.",
            "The best answer takes 92%; then every patch gets 5 to 8%.",
        ),
        (
            "Switch the mistake on.",
            "What a patch gets no longer sums to 1: it depends on what the others ask.",
        ),
    ]
    return Explorer(
        partial(plot_attention, image, queries, keys, attention_weights=attention_weights),
        "one patch asks the others",
        tries,
        query=grid,
        block=choice("block", list(range(1, blocks + 1)), 1),
        head=choice("head", list(range(1, heads + 1)), 1),
        temperature=stops("temperature", [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0], 1.0),
        wrong=mistake("softmax over the queries"),
    )
