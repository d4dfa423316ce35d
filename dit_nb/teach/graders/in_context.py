"""Two tokens come in, ride along, and leave."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


class Mixer(NamedTuple):
    "A small block: each token hears the mean of all, and thinks."

    own: Tensor  # (D, D)
    all: Tensor  # (D, D)

    def __call__(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        return x + torch.tanh(x @ self.own + (x**2).mean(1, keepdim=True) @ self.all)


def mixer(draw: Draw, width: int) -> Mixer:
    "One with random weights."
    return Mixer(draw.normal(width, width) / width**0.5, draw.normal(width, width) / width**0.5)


def queue_by_hand(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    "One image at a time, the tokens in a list."
    images = []
    for tokens, told in zip(x, c):
        queue = torch.stack([*told, *tokens])[None]
        for block in blocks:
            queue = block(queue)
        images.append(torch.stack(list(queue[0])[len(told) :]))
    return torch.stack(images)


def queue_cases(draw: Draw) -> list[Case]:
    "Two and three blocks; as many tokens as images, and two tokens only."
    sizes = [(3, 3, 4, 2), (2, 5, 3, 3), (4, 2, 6, 2), (draw.pick(2, 3), draw.pick(6, 7), 5, 2)]
    return [
        Case(f"{n} x {t} tokens, D = {d}, {b} blocks", (draw.normal(n, t, d), draw.normal(n, 2, d), blocks))
        for n, t, d, b in sizes
        for blocks in [[mixer(draw, d) for _ in range(b)]]
    ]


def through(x: Tensor, blocks: list) -> Tensor:
    "One block after the other."
    for block in blocks:
        x = block(x)
    return x


def anew(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    "Fresh condition tokens for each block: a mistake."
    for block in blocks:
        x = block(torch.cat([x, c], 1))[:, : x.shape[1]]
    return x


IN_CONTEXT = Exercise(
    "in_context",
    queue_by_hand,
    queue_cases,
    (
        Mistake(
            "The two condition tokens are still there: they must leave after the last block.",
            "lesson 08, 'Leave once, at the end'.",
            lambda x, c, blocks: through(torch.cat([x, c], 1), blocks),
        ),
        Mistake(
            "The two condition tokens are still there, at the front: they must leave after the last block.",
            "lesson 08, 'Leave once, at the end'.",
            lambda x, c, blocks: through(torch.cat([c, x], 1), blocks),
        ),
        Mistake(
            "Two tokens leave, but the wrong ones: the condition's tokens went in at the other end.",
            "which end they stand at.",
            lambda x, c, blocks: through(torch.cat([x, c], 1), blocks)[:, 2:],
        ),
        Mistake(
            "Two tokens leave, but the wrong ones: the condition's tokens went in at the front.",
            "which end they stand at.",
            lambda x, c, blocks: through(torch.cat([c, x], 1), blocks)[:, :-2],
        ),
        Mistake(
            "Each block gets the two tokens fresh, so that they cannot carry anything from block to block.",
            "lesson 08, 'Leave once, at the end'.",
            anew,
        ),
        Mistake(
            "The two tokens leave after the first block; the others know nothing of the condition.",
            "lesson 08, 'Leave once, at the end'.",
            lambda x, c, blocks: through(anew(x, c, blocks[:1]), blocks[1:]),
        ),
        Mistake(
            "The condition is added to the image tokens; it should be tokens of its own.",
            "lesson 08, 'The plan'.",
            lambda x, c, blocks: through(x + c.sum(1, keepdim=True), blocks),
        ),
        Mistake(
            "Timestep and label are added up to one token; they should be two.",
            "lesson 08, 'The plan'.",
            lambda x, c, blocks: through(torch.cat([x, c.sum(1, keepdim=True)], 1), blocks)[:, :-1],
        ),
        Mistake(
            "The condition is not used at all.",
            "lesson 08, 'The plan'.",
            lambda x, c, blocks: through(x, blocks),
        ),
    ),
    "lesson 08, 'The plan'.",
    reference=lambda x, c, blocks: through(torch.cat([c, x], 1), blocks)[:, 2:],
)


def check_in_context(
    fn: Callable,  # (x (N, T, D), c (N, 2, D), blocks, a list of callables) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`in_context(x, c, blocks)`: c rides along as two more tokens through all blocks, and leaves at the end."
    return grade(IN_CONTEXT, fn, **options)
