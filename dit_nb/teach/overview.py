"""One picture of the whole DiT: large, with shapes and lesson numbers, or small, with the part of one lesson lit."""

from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from dit_nb.data import running_example
from dit_nb.errors import UserError
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model
from dit_nb.visual import COLORS, figure

__all__ = ["plot_overview"]


class _Part(NamedTuple):
    """A box of the picture: its center, size, text, the shape that leaves it, its color and its lessons."""

    x: float
    y: float
    width: float
    height: float
    text: str
    shape: str
    color: str
    lessons: tuple[int, ...]


_PARTS = (
    _Part(1.4, 4.5, 2.4, 0.9, "clean image $x_0$", "", "x_t", (1, 20)),
    _Part(1.4, 0.5, 2.4, 0.9, "noise $\\epsilon$, mixed in", "", "eps", (2, 14)),
    _Part(4.6, 2.5, 1.7, 1.0, "patchify", "(N, T, ppC)", "x_t", (3,)),
    _Part(7.0, 2.5, 2.1, 1.0, "linear map,\n+ positions", "(N, T, D)", "x_t", (3, 4)),
    _Part(5.8, 4.9, 3.0, 0.6, "timestep $t$", "", "cond", (5,)),
    _Part(5.8, 4.1, 3.0, 0.6, "label $y$", "", "cond", (5,)),
    _Part(11.05, 3.2, 3.7, 0.6, "attention", "", "gray", (6,)),
    _Part(11.05, 2.4, 3.7, 0.6, "LayerNorm, MLP", "", "gray", (7,)),
    _Part(11.05, 1.6, 3.7, 0.6, "conditioning", "", "cond", (8, 9, 10, 11)),
    _Part(14.9, 2.5, 1.8, 1.0, "final layer", "(N, T, 2ppC)", "gray", (12,)),
    _Part(17.35, 2.5, 1.8, 1.0, "unpatchify", "", "gray", (3,)),
    _Part(20.4, 4.5, 2.4, 0.9, "loss", "", "eps", (15, 19)),
    _Part(20.4, 0.5, 2.4, 0.9, "one step: $x_{t-1}$", "", "x_t", (16, 17, 18)),
)
_ALL = 24  # the lesson that builds everything lights every part
_SINCE = {  # lessons after the paper, and what they change
    "noise, mixed in": (30,),
    "+ positions": (31,),
    "timestep $t$": (35,),
    "label $y$": (33,),
    "attention": (31, 33),
    "LayerNorm, MLP": (31,),
    "conditioning": (31, 33),
    "loss": (30, 32, 35),
    "one step": (30, 34, 35),
}


def _lessons(part: _Part) -> tuple[int, ...]:
    """All lessons on a part, those after the paper too."""
    since = (number for text, numbers in _SINCE.items() if text in part.text for number in numbers)
    return (*part.lessons, *since, _ALL)


_PARTS = tuple(part._replace(lessons=_lessons(part)) for part in _PARTS)
_WHOLE = _Part(11.05, 2.45, 4.3, 2.8, "", "", "gray", (0, 12, 13, 19, 21, 22, 23, _ALL))
_NUMBERS = (*range(25), *range(30, 36))
_TARGETS = {  # what the network predicts in lessons after the paper, where it is not the noise alone
    30: "velocity",
    32: "noise, image\nor velocity",
    33: "velocity",
    34: "velocity",
    35: "velocity",
}
_LIT = "#FFF3C4"  # background of the current part
_ARROWS = (
    *((1.4, 4.0, 1.4, 3.4), (1.4, 1.0, 1.4, 1.6), (2.3, 2.5, 3.7, 2.5), (5.5, 2.5, 5.9, 2.5)),
    *((8.1, 2.5, 8.85, 2.5), (13.25, 2.5, 13.95, 2.5), (15.85, 2.5, 16.4, 2.5), (18.3, 2.5, 19.5, 2.5)),
    *((20.4, 3.4, 20.4, 4.0), (20.4, 1.6, 20.4, 1.0)),
)


def _parts(lesson: int | None) -> tuple[_Part, ...]:
    """All parts but the whole; a lesson with flow times has the next time t', not the next timestep."""
    if lesson not in _TARGETS:
        return _PARTS
    names = {"timestep $t$": "flow time $t$", "one step: $x_{t-1}$": "one step: $x_{t'}$"}
    return tuple(part._replace(text=names.get(part.text, part.text)) for part in _PARTS)


@lru_cache(1)
def _images() -> tuple[Tensor, Tensor, Tensor]:
    """The running digit at t = 200, and the noise and the velocity that the bundled model predicts, (8, 8)."""
    x0, y = running_example()
    noise, t = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([200])
    diffusion = Diffusion()
    x_t = diffusion.q_sample(x0, t, noise)
    with torch.no_grad():
        eps = digit_model()[0](x_t, t, y)[:, :1]
    velocity = eps - diffusion.eps_to_x0(x_t, t, eps)  # noise minus image, both predicted
    return x_t[0, 0], eps[0, 0], velocity[0, 0]


def _draw_part(ax, part: _Part, lesson: int | None, small: bool) -> None:
    lit = lesson in part.lessons
    corner = (part.x - part.width / 2, part.y - part.height / 2)
    box = FancyBboxPatch(corner, part.width, part.height, "round,pad=0.06", zorder=2 + bool(part.text))
    faded = lesson is not None and not lit
    edge = "#BBBBBB" if faded else COLORS[part.color]
    ax.add_patch(box).set(facecolor=_LIT if lit else "white", edgecolor=edge, lw=2.5 if lit else 1.5)
    black = "#888888" if faded else "black"
    style = {"ha": "center", "va": "center", "fontsize": 7 if small else 9, "zorder": 5}
    row = part.width > 2.9  # a wide box has its numbers at the right, others below
    up = 0 if small or row else 0.16
    ax.text(part.x - (0 if small or not row else 0.55), part.y + up, part.text, color=black, **style)
    if part.text and not small:
        at = (part.x + part.width / 2 - 0.05, part.y) if row else (part.x, part.y - 0.34)
        beside = {"fontsize": 7, "color": COLORS["gray"], "ha": "right" if row else "center"}
        ax.text(*at, _numbers(part.lessons), **(style | beside))
        ax.text(
            part.x,
            part.y - part.height / 2 - 0.2,
            part.shape,
            **(style | {"va": "top", "color": COLORS["gray"], "fontsize": 8}),
        )


def _numbers(lessons: tuple[int, ...]) -> str:
    """Lesson numbers as they stand in the folder, of the lessons on the paper: (8, 9, 24, 31) gives "08 09"."""
    return " ".join(f"{n:02d}" for n in lessons if n < _ALL)


def _draw_image(ax, x: float, image: Tensor, **colors) -> None:
    """An image in the middle row, with the colors of brightness unless others are given."""
    box = (x - 0.8, x + 0.8, 1.7, 3.3)
    ax.imshow(image.numpy(), extent=box, interpolation="nearest", zorder=2, **({"cmap": "gray"} | colors))


def _draw_flow(ax, lesson: int | None) -> None:
    """Arrows between the parts, and the two images: what enters the network, and what it predicts."""
    style = {"arrowstyle": "-|>", "color": "black", "lw": 1, "shrinkA": 0, "shrinkB": 0}
    for x0, y0, x1, y1 in _ARROWS:
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=style)
    green = style | {"color": COLORS["cond"], "connectionstyle": "angle,angleA=0,angleB=90"}
    ax.annotate("", (11.05, 3.95), (7.4, 4.5), arrowprops=green)
    x_t, eps, velocity = _images()
    _draw_image(ax, 1.4, x_t)
    _draw_image(ax, 20.4, velocity if lesson in _TARGETS else eps, cmap="RdBu_r", vmin=-3, vmax=3)
    if lesson in _TARGETS:
        ax.text(19.4, 1.85, _TARGETS[lesson], fontsize=7, color=COLORS["gray"], ha="right", va="top")


def _label(ax) -> None:
    """What the large picture says beside its boxes."""
    gray = {"fontsize": 8, "color": COLORS["gray"], "ha": "center"}
    ax.text(2.3, 1.7, "$x_t$  (N, C, H, W)", **(gray | {"ha": "left"}))
    ax.text(19.5, 1.2, "noise, variance\n(N, 2C, H, W)", **(gray | {"ha": "right"}))
    ax.text(11.3, 4.62, "$c$ = embedding of $t$ + embedding of $y$   (N, D)", **(gray | {"ha": "left"}))
    ax.text(11.05, 0.75, "depth × block", **gray)
    rest = (
        "counting 13 · training 19 · latents 20 · evaluation 21 · evidence 22 · anatomy 23 · in one file 24"
    )
    since = "since DiT: flow 30 · blocks 31 · targets 32 · words 33 · guidance 34 · few steps 35"
    ax.text(11.05, 0.2, rest, **gray)
    ax.text(11.05, -0.25, since, **gray)


def plot_overview(lesson: int | None = None) -> Figure:
    """Draw the whole DiT: from the noisy image to what is predicted, with shapes and lesson numbers.

    Args:
        lesson: number of the lesson whose part is lit, in a small picture; None for the large picture

    Raises:
        UserError: if there is no such lesson
    """
    if lesson is not None and lesson not in _NUMBERS:
        raise UserError(f"lesson is {lesson!r}, but must be the number of a lesson, 0 to 24 or 30 to 35.")
    small = lesson is not None
    fig, axes = figure(1, 1, (8.4, 2.2) if small else (12, 3.3))
    ax = axes[0, 0]
    _draw_part(ax, _WHOLE, lesson, small)
    for part in _parts(lesson):
        _draw_part(ax, part, lesson, small)
    _draw_flow(ax, lesson)
    if not small:
        _label(ax)
    ax.set(xlim=(0.05, 21.75), ylim=(-0.45, 5.35), aspect="equal")
    ax.axis("off")
    lit = [
        part.text.replace("\n", " ") or "the whole network"
        for part in (*_parts(lesson), _WHOLE)
        if lesson in part.lessons
    ]
    target = _TARGETS.get(lesson, "noise").replace("\n", " ")
    fig.alt_text = _ALT.format(target) + (f" Lit: {', '.join(lit)}." if lit else "")
    return fig


_ALT = (
    "The whole DiT: a noisy image is cut into patches, a linear map and positions make them tokens, blocks of attention, "
    "LayerNorm and MLP, conditioned on timestep and label, process them, and a final layer and unpatchify return the "
    "predicted {}; from it follow the loss in training, and one sampling step."
)
