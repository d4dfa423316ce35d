"""Grader of lesson 08: condition tokens beside the image tokens."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_in_context"]


class _MixerBlock(NamedTuple):
    """A small block: each token receives the mean of all, through a nonlinearity."""

    own: Tensor  # (D, D)
    all: Tensor  # (D, D)

    def __call__(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        return x + torch.tanh(x @ self.own + (x**2).mean(1, keepdim=True) @ self.all)


def _random_mixer(rng: RandomInputs, width: int) -> _MixerBlock:
    return _MixerBlock(rng.normal(width, width) / width**0.5, rng.normal(width, width) / width**0.5)


def _in_context_loops(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    images = []
    for tokens, condition in zip(x, c):
        sequence = torch.stack([*condition, *tokens])[None]
        for block in blocks:
            sequence = block(sequence)
        images.append(torch.stack(list(sequence[0])[len(condition) :]))
    return torch.stack(images)


def _in_context_cases(rng: RandomInputs) -> list[Case]:
    sizes = [(3, 3, 4, 2), (2, 5, 3, 3), (4, 2, 6, 2), (rng.choice(2, 3), rng.choice(6, 7), 5, 2)]
    return [
        Case(f"{n} x {t} tokens, D = {d}, {b} blocks", (rng.normal(n, t, d), rng.normal(n, 2, d), blocks))
        for n, t, d, b in sizes
        for blocks in [[_random_mixer(rng, d) for _ in range(b)]]
    ]


def _run_blocks(x: Tensor, blocks: list) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _fresh_tokens(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    """Use fresh condition tokens for each block."""
    for block in blocks:
        x = block(torch.cat([x, c], 1))[:, : x.shape[1]]
    return x


_IN_CONTEXT = Exercise(
    "in_context",
    _in_context_loops,
    _in_context_cases,
    {
        "The two condition tokens are still there: remove them after the last block.": (
            lambda x, c, blocks: _run_blocks(torch.cat([x, c], 1), blocks),
            "lesson 08, 'Leave once, at the end'.",
        ),
        "The two condition tokens are still there, at the front: remove them after the last block.": (
            lambda x, c, blocks: _run_blocks(torch.cat([c, x], 1), blocks),
            "lesson 08, 'Leave once, at the end'.",
        ),
        "Two tokens are removed, but the wrong ones: the condition tokens were appended at the end.": lambda x, c, blocks: (
            _run_blocks(torch.cat([x, c], 1), blocks)[:, 2:]
        ),
        "Two tokens are removed, but the wrong ones: the condition tokens were placed at the front.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c, x], 1), blocks)[:, :-2]
        ),
        "Each block gets the two tokens fresh, so that they cannot carry anything from block to block.": (
            _fresh_tokens,
            "lesson 08, 'Leave once, at the end'.",
        ),
        "The two tokens are removed after the first block; the other blocks lack the condition.": (
            lambda x, c, blocks: _run_blocks(_fresh_tokens(x, c, blocks[:1]), blocks[1:]),
            "lesson 08, 'Leave once, at the end'.",
        ),
        "The condition is added to the image tokens; it should become tokens of its own.": lambda x, c, blocks: (
            _run_blocks(x + c.sum(1, keepdim=True), blocks)
        ),
        "Timestep and label are added up to one token; they should be two tokens.": lambda x, c, blocks: (
            _run_blocks(torch.cat([x, c.sum(1, keepdim=True)], 1), blocks)[:, :-1]
        ),
        "The condition is not used at all.": lambda x, c, blocks: _run_blocks(x, blocks),
    },
    "lesson 08, 'The plan'.",
    reference=lambda x, c, blocks: _run_blocks(torch.cat([c, x], 1), blocks)[:, 2:],
)


def check_in_context(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), c (N, 2, D), blocks: list of callables) -> (N, T, D)."""
    return grade(_IN_CONTEXT, fn, **grade_options)
