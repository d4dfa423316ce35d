"""Explorer of lesson 33: joint attention of the text-to-emoji model, and padding that is attended or not."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import emoji
from dit_nb.patchify import unpatchify
from dit_nb.pretrained import text_emoji_model
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.mmdit import JointBlock, MMDiT, joint_attention
from dit_nb.since.text import Vocabulary, caption
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.visual import COLORS, figure, show_image

__all__ = ["explore_mmdit"]

_PROMPTS = (
    "3d green apple",
    "flat dog face",
    "3d smiling face with sunglasses",
    "flat hamburger",
    "3d red apple",
)


@lru_cache(1)
def _model() -> MMDiT:
    return text_emoji_model(device="cpu")[0]


@lru_cache
def _picture(prompt: str) -> Tensor:
    """The emoji of a caption, (1, 3, 32, 32)."""
    for part in emoji(["smileys", "animals", "food"]):
        for i, entry in enumerate(part.entries):
            if caption(entry) == prompt:
                return part.images[i : i + 1]
    raise KeyError(prompt)


def _forward_block(
    block: JointBlock, attend: Callable, x: Tensor, context: Tensor, c: Tensor, keep: Tensor
) -> tuple:
    """A joint block with another attention; also the attention weights of the image's queries, (N, h, T, T+S)."""
    for_image, for_text = block.image.modulations(c), block.text.modulations(c)
    image, text = block.image.qkv(x, for_image[0]), block.text.qkv(context, for_text[0])
    attended_x, attended_text = attend(image, text, keep)
    scores = image[0] @ torch.cat([image[1], text[1]], 2).mT / image[0].shape[-1] ** 0.5
    mask = torch.cat([keep.new_ones(len(keep), x.shape[1]), keep], 1)
    weights = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    x = block.image.update(x, attended_x, *for_image)
    if not block.context_pre_only:
        context = block.text.update(context, attended_text, *for_text)
    return x, context, weights


class _State(NamedTuple):
    """What is computed for a prompt, a time and a number of padding columns."""

    noisy: Tensor  # (3, 32, 32)
    predicted: Tensor  # (3, 32, 32) predicted clean picture
    change: Tensor  # (3, 32, 32) what padding changes in it
    attention: Tensor  # (S,) mean weight of each text token, over image tokens, heads and blocks
    names: list[str]  # of the S text tokens


@torch.no_grad()
def _predict(attend: Callable, prompt: str, time: float, padding: int, is_attended: bool) -> tuple:
    """Predicted clean picture and noisy picture, (3, 32, 32) each, attention to each text token, (S,), and the ids."""
    model, flow = _model(), RectifiedFlow()
    words = len(prompt.split())
    y = model.encode_text([prompt])[:, : words + padding]
    text = model.y_embedder(y)
    if is_attended:
        text = text._replace(keep=torch.ones_like(text.keep))
    t = torch.tensor([time])
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x_t = flow.interpolate(_picture(prompt), t, noise)
    c = model.t_embedder(1000 * t) + model.pooled_embedder(text.pooled)
    x, context, seen = model.x_embedder(x_t) + model.pos_embed, model.context_embedder(text.tokens), []
    tokens = x.shape[1]
    for block in model.blocks:
        x, context, weights = _forward_block(block, attend, x, context, c, text.keep)
        seen.append(weights[0, :, :, tokens:].mean((0, 1)))
    v = unpatchify(model.final_layer(x, c), model.grid, model.config.patch_size)
    return flow.to_x0(x_t, t, v)[0].clamp(-1, 1), x_t[0], torch.stack(seen).mean(0), y


def _compute(attend: Callable, prompt: str, time: float, padding: int, is_attended: bool) -> _State:
    """All that the figure shows."""
    predicted, noisy, attention, y = _predict(attend, prompt, time, padding, is_attended)
    without = _predict(attend, prompt, time, 0, is_attended)[0]
    words = Vocabulary(_model().config.vocabulary).decode(y)[0].split()
    names = ["(start)", *words, *(["(padding)"] * (y.shape[1] - len(words)))]
    return _State(noisy, predicted, predicted - without, attention, names)


def _plot_mmdit(state: _State, prompt: str, time: float, padding: int, is_attended: bool) -> Figure:
    """Show noisy and predicted picture, what padding changes, and the attention to each text token."""
    fig, (axes,) = figure(1, 4, (9, 2.7), width_ratios=[1, 1, 1, 1.7])
    largest = float(state.change.abs().max())
    show_image(axes[0], state.noisy, f"noisy, t = {time:g}")
    show_image(axes[1], state.predicted, "predicted picture")
    show_image(
        axes[2],
        1 - 2 * state.change.abs().amax(0, keepdim=True).clamp(max=1),  # zero is white
        f"what padding changes:\nat most {largest:.2g}",
    )
    colors = [COLORS["wrong" if name == "(padding)" else "cond"] for name in state.names]
    axes[3].barh(range(len(state.names)), state.attention, color=colors)
    axes[3].set_yticks(range(len(state.names)), state.names, fontsize=8)
    axes[3].invert_yaxis()
    axes[3].set(
        xlabel="weight per image token", title=f"attention to the text: {float(state.attention.sum()):.0%}"
    )
    fig.alt_text = (
        f"The noisy and the predicted picture of {prompt!r}; with {padding} columns of padding, "
        f"{'attended' if is_attended else 'masked'}, the prediction changes by at most {largest:.2g}. Bars: mean "
        "attention weight of the image's tokens for each text token."
    )
    return fig


def explore_mmdit(attend: Callable = joint_attention) -> Explorer:
    """Explore what the image attends to in the text, and what padding does.

    Args:
        attend: function with the signature of `joint_attention`, which is the default
    """
    return Explorer(
        _plot_mmdit,
        "joint attention and padding",
        """
        1. *Raise the time.* The more noise, the more the predicted picture comes from the text; at t = 0.95 nearly
           nothing of the picture is left in its input.
        2. *Move the number of padding columns.* Nothing changes: a masked key has weight 0.
        3. *Switch the mistake on, and move it again.* Padding takes weight from the words and the image, and the
           predicted picture now depends on how long the longest prompt of the batch is.
        """,
        partial(_compute, attend),
        prompt=choice("prompt", list(_PROMPTS), _PROMPTS[0]),
        time=stops("flow time t", [0.3, 0.5, 0.7, 0.85, 0.95], 0.85),
        padding=stops("columns of padding", [0, 1, 2, 4, 6], 6),
        is_attended=mistake("attend to padding"),
    )
