"""Grader of lesson 07: the pre-norm block."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_plain_block"]


class _Norm(NamedTuple):
    """A layer norm with an affine part of its own."""

    factor: Tensor  # (D,)
    offset: Tensor  # (D,)

    def __call__(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        centered = x - x.mean(-1, keepdim=True)
        return (
            centered * (centered.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.factor + self.offset
        )


class _Mix(NamedTuple):
    """A branch that moves information between tokens: each receives the mean of all."""

    own: Tensor  # (D, D)
    all: Tensor  # (D, D)

    def __call__(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        return torch.tanh(x @ self.own + x.square().mean(1, keepdim=True) @ self.all)


class _Each(NamedTuple):
    """A branch that computes within each token."""

    first: Tensor  # (D, 2D)
    second: Tensor  # (2D, D)

    def __call__(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        return (x @ self.first).relu() @ self.second


def _block_loops(x: Tensor, norm1: Callable, attn: Callable, norm2: Callable, mlp: Callable) -> Tensor:
    images = []
    for image in x[:, None].unbind(0):
        written = attn(torch.stack([norm1(token[None, None])[0, 0] for token in image[0]])[None])[0]
        tokens = [a + b for a, b in zip(image[0], written)]
        images.append(torch.stack([z + mlp(norm2(z[None, None]))[0, 0] for z in tokens]))
    return torch.stack(images)


def _block_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as images, more, and fewer; a stream of small and of large scale."""
    sizes = [(3, 3, 4, 1), (2, 5, 3, 5), (4, 2, 6, 0.3), (rng.choice(2, 3), rng.choice(6, 7), 5, 2)]
    cases = []
    for n, t, d, std in sizes:
        norms = [_Norm(rng.uniform(0.5, 2, d), rng.normal(d) / 2) for _ in range(2)]
        attn = _Mix(rng.normal(d, d) / d**0.5, rng.normal(d, d) / d**0.5)
        mlp = _Each(rng.normal(d, 2 * d) / d**0.5, rng.normal(2 * d, d) / d**0.5)
        label = f"{n} x {t} tokens, D = {d}, a stream of scale {std:g}"
        cases.append(Case(label, (std * rng.normal(n, t, d) + std / 2, norms[0], attn, norms[1], mlp)))
    return cases


def _plain_block(x: Tensor, norm1: Callable, attn: Callable, norm2: Callable, mlp: Callable) -> Tensor:
    x = x + attn(norm1(x))
    return x + mlp(norm2(x))


def _identity(x: Tensor) -> Tensor:
    return x


def _on_stream(x, norm1, attn, norm2, mlp):
    """Residual connections that start at the normalized tokens."""
    h = norm1(x)
    h = norm2(h + attn(h))
    return h + mlp(h)


_PLACE, _STREAM = "lesson 07, 'Pre-norm'.", "lesson 07, 'The residual stream: add, do not replace'."

_PLAIN_BLOCK = Exercise(
    "plain_block",
    _block_loops,
    _block_cases,
    {
        "The norms come after the sums (post-norm), so the stream itself is normalized in the result.": (
            lambda x, n1, a, n2, m: n2((y := n1(x + a(x))) + m(y)),
            _PLACE,
        ),
        "Each norm is on the result of its branch; it must be on what the branch receives.": (
            lambda x, n1, a, n2, m: (y := x + n1(a(x))) + n2(m(y)),
            _PLACE,
        ),
        "The stream is overwritten with its normalized copy, so the tokens are normalized in the result.": (
            _on_stream,
            _PLACE,
        ),
        "There are no residual connections: each branch replaces the stream.": (
            lambda x, n1, a, n2, m: m(n2(a(n1(x)))),
            _STREAM,
        ),
        "The attention replaces the stream; its result must be added.": (
            lambda x, n1, a, n2, m: (y := a(n1(x))) + m(n2(y)),
            _STREAM,
        ),
        "Only the MLP's result is returned; it must be added to the stream.": (
            lambda x, n1, a, n2, m: m(n2(x + a(n1(x)))),
            _STREAM,
        ),
        "The second sum starts at the block's input again, so what the attention wrote is lost.": (
            lambda x, n1, a, n2, m: x + m(n2(x + a(n1(x)))),
            _STREAM,
        ),
        "The MLP reads the attention's result alone; it must read the stream, to which that was added.": (
            lambda x, n1, a, n2, m: x + (y := a(n1(x))) + m(n2(y)),
            _STREAM,
        ),
        "The two branches are parallel: the MLP does not read what the attention has written.": (
            lambda x, n1, a, n2, m: x + a(n1(x)) + m(n2(x)),
            _STREAM,
        ),
        "The MLP reads the attention's normalized input again: what the attention wrote is not in it.": (
            lambda x, n1, a, n2, m: x + a(y := n1(x)) + m(y),
            _STREAM,
        ),
        "The attention is pre-norm, the MLP post-norm: both norms belong inside their branches.": (
            lambda x, n1, a, n2, m: n2((y := x + a(n1(x))) + m(y)),
            _PLACE,
        ),
        "The second sum starts at the normalized tokens; it must start at the stream.": (
            lambda x, n1, a, n2, m: (y := n2(x + a(n1(x)))) + m(y),
            _PLACE,
        ),
        "The first sum starts at the normalized tokens; it must start at the stream.": (
            lambda x, n1, a, n2, m: (y := (z := n1(x)) + a(z)) + m(n2(y)),
            _PLACE,
        ),
        "What the attention wrote is not added; it only reaches the MLP.": (
            lambda x, n1, a, n2, m: x + m(n2(a(n1(x)))),
            _STREAM,
        ),
        "The input is missing in the result, which must be the input plus what both branches wrote.": (
            lambda x, n1, a, n2, m: (y := a(n1(x))) + m(n2(x + y)),
            _STREAM,
        ),
        "The first norm is on the attention's result, not on its input.": (
            lambda x, n1, a, n2, m: (y := x + n1(a(x))) + m(n2(y)),
            _PLACE,
        ),
        "The branches multiply the stream; they must be added to it.": (
            lambda x, n1, a, n2, m: (y := x * a(n1(x))) * m(n2(y)),
            _STREAM,
        ),
        "What the branches write is subtracted; it must be added.": (
            lambda x, n1, a, n2, m: (y := x - a(n1(x))) - m(n2(y)),
            _STREAM,
        ),
        "The second norm is used for both branches; the attention has its own.": (
            lambda x, n1, a, n2, m: _plain_block(x, n2, a, n2, m),
            _PLACE,
        ),
        "The result is normalized once more: the block leaves the stream as the sum that it is.": (
            lambda x, n1, a, n2, m: n2(_plain_block(x, n1, a, n2, m)),
            _PLACE,
        ),
        "The first norm is used for both branches; the MLP has its own.": (
            lambda x, n1, a, n2, m: _plain_block(x, n1, a, n1, m),
            _PLACE,
        ),
        "The two norms are exchanged.": (lambda x, n1, a, n2, m: _plain_block(x, n2, a, n1, m), _PLACE),
        "The norms are not used.": (
            lambda x, n1, a, n2, m: _plain_block(x, _identity, a, _identity, m),
            _PLACE,
        ),
        "The MLP receives the stream as it is; its norm is missing.": (
            lambda x, n1, a, n2, m: _plain_block(x, n1, a, _identity, m),
            _PLACE,
        ),
        "The attention receives the stream as it is; its norm is missing.": (
            lambda x, n1, a, n2, m: _plain_block(x, _identity, a, n2, m),
            _PLACE,
        ),
        "The MLP comes before the attention.": (
            lambda x, n1, a, n2, m: _plain_block(x, n2, m, n1, a),
            "the diagram of lesson 07, 'The block'.",
        ),
        "The MLP is missing: only the attention writes to the stream.": (
            lambda x, n1, a, n2, m: x + a(n1(x)),
            "the diagram of lesson 07, 'The block'.",
        ),
        "The input is added once more at the end; each branch has its own residual connection already.": (
            lambda x, n1, a, n2, m: x + _plain_block(x, n1, a, n2, m),
            _STREAM,
        ),
        "What the branches write is halved; it is added in full.": (
            lambda x, n1, a, n2, m: (y := x + a(n1(x)) / 2) + m(n2(y)) / 2,
            _STREAM,
        ),
        "Stream and branch are averaged; they are added.": (
            lambda x, n1, a, n2, m: ((y := (x + a(n1(x))) / 2) + m(n2(y))) / 2,
            _STREAM,
        ),
        "What the MLP writes is halved; it is added in full.": (
            lambda x, n1, a, n2, m: (y := x + a(n1(x))) + m(n2(y)) / 2,
            _STREAM,
        ),
        "The MLP reads the attention's normalized input, normalized once more: what the attention wrote is not in it.": (
            lambda x, n1, a, n2, m: x + a(y := n1(x)) + m(n2(y)),
            _STREAM,
        ),
        "The MLP reads the block's input as it is: what the attention wrote is not in it, and the norm is missing.": (
            lambda x, n1, a, n2, m: x + a(n1(x)) + m(x),
            _STREAM,
        ),
        "The stream is counted twice: the first sum adds it once too often.": (
            lambda x, n1, a, n2, m: (y := 2 * x + a(n1(x))) + m(n2(y)),
            _STREAM,
        ),
        "The stream is counted twice: the second sum adds it once too often.": (
            lambda x, n1, a, n2, m: 2 * (y := x + a(n1(x))) + m(n2(y)),
            _STREAM,
        ),
        "The two branches are parallel, and the input is not added.": (
            lambda x, n1, a, n2, m: a(n1(x)) + m(n2(x)),
            _STREAM,
        ),
        "There is one residual connection around both branches, and the second norm is missing: each branch has its own.": (
            lambda x, n1, a, n2, m: x + m(a(n1(x))),
            _STREAM,
        ),
        "The attention runs twice, and the MLP never.": (
            lambda x, n1, a, n2, m: (y := x + a(n1(x))) + a(n2(y)),
            "the diagram of lesson 07, 'The block'.",
        ),
    },
    _PLACE,
    reference=_plain_block,
    precisions=(torch.float32,),
)


def check_plain_block(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), norm1, attn, norm2, mlp: functions of (N, T, D)) -> (N, T, D)."""
    return grade(_PLAIN_BLOCK, fn, **grade_options)
