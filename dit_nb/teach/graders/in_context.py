"""Graders of lesson 08: condition tokens beside the image tokens, and a mask that cuts one of them off."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_in_context", "check_label_mask"]


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


def _growing(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    """Append the condition before each block, and remove all of it at the end."""
    tokens = x
    for block in blocks:
        tokens = block(torch.cat([tokens, c], 1))
    return tokens[:, : x.shape[1]]


def _added_each_time(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    """Add the condition to the image tokens before each block."""
    for block in blocks:
        x = block(x + c.sum(1, keepdim=True))
    return x


def _appended(x: Tensor, c: Tensor, blocks: list) -> Tensor:
    """Image tokens after the blocks; c may have any number of tokens."""
    return _run_blocks(torch.cat([x, c], 1), blocks)[:, : x.shape[1]]


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
        "The two tokens are removed before the last block; that block must have them, too.": (
            lambda x, c, blocks: _run_blocks(_appended(x, c, blocks[:-1]), blocks[-1:]),
            "lesson 08, 'Leave once, at the end'.",
        ),
        "The two tokens are appended again before each block: the sequence grows.": (
            _growing,
            "lesson 08, 'Leave once, at the end'.",
        ),
        "The image tokens come out as they went in: is what a block returns kept?": lambda x, c, blocks: (
            x.clone()
        ),
        "Only the last block has an effect: each block must get what the one before it returned.": (
            lambda x, c, blocks: _appended(x, c, blocks[-1:])
        ),
        "Only the first block has an effect: is there a return inside the loop?": (
            lambda x, c, blocks: _appended(x, c, blocks[:1])
        ),
        "The blocks run in reverse order.": lambda x, c, blocks: _appended(x, c, blocks[::-1]),
        "The condition is added to the image tokens; it should become tokens of its own.": lambda x, c, blocks: (
            _run_blocks(x + c.sum(1, keepdim=True), blocks)
        ),
        "The condition is added to the image tokens before each block; it should become tokens of its own.": (
            _added_each_time
        ),
        "Timestep and label are added up to one token; they should be two tokens.": lambda x, c, blocks: (
            _appended(x, c.sum(1, keepdim=True), blocks)
        ),
        "Timestep and label are averaged to one token; they should be two tokens.": lambda x, c, blocks: (
            _appended(x, c.mean(1, keepdim=True), blocks)
        ),
        "The label is missing: only the first of the two tokens is in the sequence.": lambda x, c, blocks: (
            _appended(x, c[:, :1], blocks)
        ),
        "The timestep is missing: only the second of the two tokens is in the sequence.": lambda x, c, blocks: (
            _appended(x, c[:, 1:], blocks)
        ),
        "The image tokens that came in are added to the result; the blocks have residuals of their own.": (
            lambda x, c, blocks: x + _appended(x, c, blocks)
        ),
        "The condition is not used at all.": lambda x, c, blocks: _run_blocks(x, blocks),
        "The tokens are added to the result of each block once more: its residual connections are inside.": (
            lambda x, c, blocks: _appended(x, c, [lambda z, block=block: z + block(z) for block in blocks])
        ),
        "Each block gets the image and condition that came in; the results are added up.": (
            lambda x, c, blocks: sum(_appended(x, c, [block]) for block in blocks)
        ),
        "Three tokens are removed at the end, and the last image token is one of them.": lambda x, c, blocks: (
            _run_blocks(torch.cat([x, c], 1), blocks)[:, :-3]
        ),
        "One token is removed at the end; one condition token is left.": lambda x, c, blocks: _run_blocks(
            torch.cat([x, c], 1), blocks
        )[:, :-1],
        "Three tokens are removed at the front, and the first image token is one of them.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c, x], 1), blocks)[:, 3:]
        ),
        "One token is removed at the front; one condition token is left.": lambda x, c, blocks: _run_blocks(
            torch.cat([c, x], 1), blocks
        )[:, 1:],
        "One token is removed at each end: an image token is lost, and the first of the appended condition tokens stays.": lambda x, c, blocks: (
            _run_blocks(torch.cat([x, c], 1), blocks)[:, 1:-1]
        ),
        "One token is removed at each end: an image token is lost, and the second of the condition tokens at the front stays.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c, x], 1), blocks)[:, 1:-1]
        ),
        "One token is removed at the front, an image token; both appended condition tokens stay.": lambda x, c, blocks: (
            _run_blocks(torch.cat([x, c], 1), blocks)[:, 1:]
        ),
        "One token is removed at the end, an image token; both condition tokens at the front stay.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c, x], 1), blocks)[:, :-1]
        ),
        "The two condition tokens are returned; return the image tokens.": lambda x, c, blocks: _run_blocks(
            torch.cat([x, c], 1), blocks
        )[:, -2:],
        "The condition tokens stand around the image tokens, but both are removed at the front.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c[:, :1], x, c[:, 1:]], 1), blocks)[:, 2:]
        ),
        "The condition tokens stand around the image tokens, but both are removed at the end.": lambda x, c, blocks: (
            _run_blocks(torch.cat([c[:, :1], x, c[:, 1:]], 1), blocks)[:, :-2]
        ),
    },
    "lesson 08, 'The plan'.",
    reference=lambda x, c, blocks: _run_blocks(torch.cat([c, x], 1), blocks)[:, 2:],
)


def check_in_context(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), c (N, 2, D), blocks: list of callables) -> (N, T, D)."""
    return grade(_IN_CONTEXT, fn, **grade_options)


def _label_mask_loops(T: int) -> Tensor:
    mask = torch.zeros(T + 2, T + 2, dtype=torch.bool)
    for query in range(T + 2):
        for key in range(T + 2):
            mask[query, key] = key != T + 1 or query == T + 1
    return mask


def _token_cases(rng: RandomInputs) -> list[Case]:
    counts = [4, 1, 16, *(int(rng.integers(5, 40)) for _ in range(2))]
    return [Case(f"{T} image tokens{', again' * (T in counts[:i])}", (T,)) for i, T in enumerate(counts)]


def _closed(*entries: Callable) -> Callable:
    """A mask in which some entries (functions of T -> index) are closed."""

    def mask(T: int) -> Tensor:
        allowed = torch.ones(T + 2, T + 2, dtype=torch.bool)
        for entry in entries:
            allowed[entry(T)] = False
        return allowed

    return mask


def _only_own(token: Callable) -> Callable:
    """A token that nobody but itself attends to, and that attends to nobody else."""

    def mask(T: int) -> Tensor:
        allowed = _closed(lambda T: (token(T),), lambda T: (slice(None), token(T)))(T)
        allowed[token(T), token(T)] = True
        return allowed

    return mask


def _others_than(token: Callable) -> Callable:
    """A token that only it itself attends to."""

    def mask(T: int) -> Tensor:
        allowed = _closed(lambda T: (slice(None), token(T)))(T)
        allowed[token(T), token(T)] = True
        return allowed

    return mask


def _last(T: int) -> int:
    return T + 1


_LEAK = "lesson 08, 'One attention map, four parts': which tokens can carry something on?"

_LABEL_MASK = Exercise(
    "label_mask",
    _label_mask_loops,
    _token_cases,
    {
        "The label still arrives, by a detour: t may attend to y, and the image attends to t.": (
            _closed(lambda T: (slice(T), T + 1)),
            _LEAK,
        ),
        "Only t is kept from y; the image still attends to y directly.": (
            _closed(lambda T: (T, T + 1)),
            "lesson 08, 'One attention map, four parts'.",
        ),
        "Nothing is closed: the image attends to y.": _closed(),
        "The row of y is closed: then y attends to nothing, but all others still attend to y.": (
            _closed(lambda T: (T + 1,)),
            "which axis is the query, and which is the key.",
        ),
        "The row of y is closed but for y itself: all others still attend to y.": (
            _closed(lambda T: (T + 1, slice(T + 1))),
            "which axis is the query, and which is the key.",
        ),
        "The column of y is closed even for y itself: that is more than needed.": _closed(
            lambda T: (slice(None), T + 1)
        ),
        "Row and column of y are closed; what y itself attends to does no harm.": _only_own(_last),
        "Row and column of y are closed, so that y attends to nothing at all.": _closed(
            lambda T: (T + 1,), lambda T: (slice(None), T + 1)
        ),
        "True and False are exchanged: True means that a query may attend to a key.": lambda T: (
            ~_label_mask_loops(T)
        ),
        "This cuts off t; the label is the last token.": _others_than(lambda T: T),
        "The image loses t, not y; the label is the last token.": _closed(lambda T: (slice(T), T)),
        "The image and t itself lose t, not y; the label is the last token.": _closed(
            lambda T: (slice(T + 1), T)
        ),
        "The image loses t as well as y.": _closed(lambda T: (slice(T), slice(T, T + 2))),
        "This is a causal mask; image tokens must attend to all image tokens and to t.": lambda T: torch.ones(
            T + 2, T + 2, dtype=torch.bool
        ).tril(),
        "This cuts off the first patch; y is the last token.": lambda T: _others_than(lambda T: 0)(T),
        "What y attends to is closed; it is the image that must not attend to y.": _closed(
            lambda T: (T + 1, slice(T))
        ),
        "The image loses its last patch, not y; y is the last token.": _closed(lambda T: (slice(T), T - 1)),
        "The last patch may still attend to y: an index is off by one.": _closed(
            lambda T: (slice(max(T - 1, 0)), T + 1), lambda T: (T, T + 1)
        ),
        "All but y lose y, but y loses the image too; what y itself attends to does no harm.": _closed(
            lambda T: (slice(T + 1), T + 1), lambda T: (T + 1, slice(T))
        ),
        "Only y is kept from t; the image and t still attend to y.": _closed(lambda T: (T + 1, T)),
        "Both t and the image lose both condition tokens; only y must be cut off.": _closed(
            lambda T: (slice(T + 1), slice(T, T + 2))
        ),
        "The image is kept from y, but t and y are exchanged: y is kept from t, and t still attends to y.": (
            _closed(lambda T: (slice(T), T + 1), lambda T: (T + 1, T)),
            _LEAK,
        ),
        "Only t is kept from y; image and y are exchanged: y is kept from the image, and the image still attends to y.": (
            _closed(lambda T: (T, T + 1), lambda T: (T + 1, slice(T))),
            "which axis is the query, and which is the key.",
        ),
        "Image and y are kept from each other, but t may attend to y, so that the label arrives by a detour.": (
            _closed(lambda T: (slice(T), T + 1), lambda T: (T + 1, slice(T))),
            _LEAK,
        ),
        "The column of t is closed, even for t itself; the label is the last token.": _closed(
            lambda T: (slice(None), T)
        ),
        "The row of t is closed: t attends to nothing, and the image still attends to y.": _closed(
            lambda T: (T, slice(None))
        ),
        "This is a causal mask turned around: a token attends only to those behind it, and y is behind all.": lambda T: (
            torch.ones(T + 2, T + 2, dtype=torch.bool).triu()
        ),
    },
    "lesson 08, 'One attention map, four parts'.",
    same_dtype=True,
    reference=_others_than(_last),
)


def check_label_mask(fn: Callable, **grade_options) -> Report:
    """Check fn(T: int) -> (T + 2, T + 2) of bool, True where a query (row) may attend to a key (column)."""
    return grade(_LABEL_MASK, fn, **grade_options)
