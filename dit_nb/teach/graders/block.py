"""Graders of lesson 07: the pre-norm block, and what each block contributes to the output."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_plain_block", "check_contributions"]


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


def _contributions_by_loops(states: list[Tensor], weight: Tensor, eps: float) -> Tensor:
    zero, last = torch.zeros_like(states[0]), states[-1]
    result = weight.new_zeros(len(states), *last.shape[:2], len(weight))
    for n in range(last.shape[0]):
        for t in range(last.shape[1]):
            token = last[n, t].tolist()
            mean = sum(token) / len(token)
            scale = (sum((v - mean) ** 2 for v in token) / len(token) + eps) ** 0.5
            for k, (before, after) in enumerate(zip([zero, *states], states)):
                written = (after[n, t] - before[n, t]).tolist()
                own = sum(written) / len(written)
                for o, row in enumerate(weight.tolist()):
                    result[k, n, t, o] = sum((v - own) / scale * w for v, w in zip(written, row))
    return result


def _state_cases(rng: RandomInputs) -> list[Case]:
    """Streams of several scales and depths; one weight is square, so that it can be transposed by mistake."""
    sizes = [(4, 2, 3, 5, 2, 1, 1e-6), (2, 3, 4, 6, 6, 0.02, 1e-4), (3, 1, 5, 4, 3, 3, 0.5)]
    sizes.append((rng.choice(5, 6), 2, 3, 8, 7, 1, 0.1))
    cases = []
    for blocks, n, t, d, o, std, eps in sizes:
        writes = std * (rng.normal(blocks + 1, n, t, d) + rng.uniform(0.3, 1, blocks + 1, n, t, 1))
        label = f"{blocks} blocks, {n} x {t} tokens, D = {d}, {o} outputs, eps = {eps:g}"
        cases.append(Case(label, (list(writes.cumsum(0)), rng.normal(o, d), eps)))
    return cases


def _in_one_tensor(value):
    """A list of equal tensors as one tensor; anything else as it is."""
    parts = [part for part in value if isinstance(part, Tensor)] if isinstance(value, tuple | list) else []
    same = len({part.shape for part in parts}) == 1
    return torch.stack(parts) if same and len(parts) == len(value) else value


def _writes(z: Tensor) -> Tensor:
    return torch.cat([z[:1], z[1:] - z[:-1]])


def _centered(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _std(x: Tensor, eps: float, correction: int = 0) -> Tensor:
    return (x.var(-1, keepdim=True, correction=correction) + eps).sqrt()


def _read(
    terms: Callable = lambda z: _centered(_writes(z)),
    scale: Callable = lambda z, eps: _std(z[-1], eps),
    change: Callable = lambda result: result,
    transposed: bool = False,
) -> Callable:
    """Contributions with another step in one place; `terms` and `scale` take all states in one tensor."""

    def contributions(states, weight, eps):
        z = torch.stack(states)  # (L + 1, N, T, D)
        return change(terms(z) / scale(z, eps) @ (weight if transposed else weight.T))

    return contributions


def _first_loses_the_mean(z: Tensor) -> Tensor:
    return torch.cat([z[:1] - z[-1:].mean(-1, keepdim=True), z[1:] - z[:-1]])


def _left_out(states: list[Tensor], weight: Tensor, eps: float) -> Tensor:
    z = torch.stack(states)

    def output(x):
        return _centered(x) / _std(x, eps) @ weight.T

    return output(z[-1]) - output(z[-1] - _writes(z))


def _normalized_differences(states: list[Tensor], weight: Tensor, eps: float) -> Tensor:
    z = torch.stack(states)
    return _writes(_centered(z) / _std(z, eps)) @ weight.T


_TERMS = (
    "lesson 07, 'The residual stream: add, do not replace': which terms has the last state, and which number of the norm "
    "do they share?"
)

_CONTRIBUTIONS = Exercise(
    "contributions",
    _contributions_by_loops,
    _state_cases,
    {
        "These are read-outs of the states; a block contributes only what it has added to the state before.": (
            _read(_centered)
        ),
        "These are read-outs of the states, each with its own norm; a block contributes what it has added.": (
            _read(_centered, _std)
        ),
        "The embedding is subtracted from every state; what a block wrote is the difference from the state before it.": (
            _read(lambda z: _centered(torch.cat([z[:1], z[1:] - z[:1]])))
        ),
        "The embedding is missing: it is the first term of the sum, before the blocks.": (
            _read(change=lambda result: result[1:])
        ),
        "The embedding is the last of the terms; it comes first.": (
            _read(change=lambda result: result.roll(-1, 0))
        ),
        "The blocks come in the wrong order: the last one first.": (
            _read(change=lambda result: torch.cat([result[:1], result[1:].flip(0)]))
        ),
        "The signs of the blocks are the other way round: a block wrote the state after it minus the one before.": (
            _read(change=lambda result: torch.cat([result[:1], -result[1:]]))
        ),
        "The terms are along the last axis; they must be along the first.": (
            _read(change=lambda result: result.movedim(0, -1))
        ),
        "This is their sum, the output itself; asked are its terms.": (
            _read(change=lambda result: result.sum(0))
        ),
        "Each state goes through the norm before the difference is taken; only the last state has this norm.": (
            _normalized_differences
        ),
        "What each block wrote is normalized by its own variance; the norm divides all by that of the last state.": (
            _read(scale=lambda z, eps: _std(_writes(z), eps))
        ),
        "What each block wrote is divided by the deviation of the state after it; the norm sees the last state alone.": (
            _read(scale=_std)
        ),
        "What each block wrote is divided by the deviation of the state before it; the norm sees the last state alone.": (
            _read(scale=lambda z, eps: _std(torch.cat([z[:1], z[:-1]]), eps))
        ),
        "This is what the output loses if a term is left out, and the deviation changes, too; it must be that of the "
        "whole last state.": _left_out,
        "There is one deviation for all tokens; a layer norm has one for each token.": (
            _read(scale=lambda z, eps: (z[-1].var(correction=0) + eps).sqrt())
        ),
        "There is one deviation for all tokens, with the count less 1; a layer norm has one for each token, with D.": (
            _read(scale=lambda z, eps: (z[-1].var() + eps).sqrt())
        ),
        "The deviation is that of the embedding; the norm is applied to the last state.": (
            _read(scale=lambda z, eps: _std(z[0], eps))
        ),
        "The norm is missing: nothing is centered or divided.": _read(_writes, lambda z, eps: 1),
        "The terms are centered, but not divided by the deviation of the last state.": (
            _read(scale=lambda z, eps: 1)
        ),
        "The terms are divided, but not centered: the norm subtracts the mean of the last state, a sum of means.": (
            _read(_writes)
        ),
        "The mean of the whole last state is subtracted from every term; each term has only its own part of it.": (
            _read(lambda z: _writes(z) - z[-1].mean(-1, keepdim=True))
        ),
        "The mean of the last state is shared evenly among the terms; each term has its own part of it.": (
            _read(lambda z: _writes(z) - z[-1].mean(-1, keepdim=True) / len(z))
        ),
        "The mean over all terms is subtracted; the norm takes the mean of the D numbers of each token.": (
            _read(lambda z: _writes(z) - _writes(z).mean(0))
        ),
        "One mean of all numbers is subtracted; each term has a mean for each token, of its D numbers.": (
            _read(lambda z: _writes(z) - _writes(z).mean())
        ),
        "The mean of the last state is subtracted from the embedding alone; each term has its own part of it.": (
            _read(_first_loses_the_mean)
        ),
        "The variance divides by D - 1; in a layer norm it divides by D.": (
            _read(scale=lambda z, eps: _std(z[-1], eps, 1))
        ),
        "The deviation divides by D - 1, and `eps` is added to it, not to the variance: two mistakes at once.": (
            _read(scale=lambda z, eps: _std(z[-1], 0, 1) + eps)
        ),
        "What each block wrote is normalized by its own variance, and with 1e-5 for `eps`: two mistakes at once.": (
            _read(scale=lambda z, eps: _std(_writes(z), 1e-5))
        ),
        "These are read-outs of the states, each with its own norm, and with 1e-5 for `eps`: two mistakes at once.": (
            _read(_centered, lambda z, eps: _std(z, 1e-5))
        ),
        "1e-5 is used instead of `eps`.": _read(scale=lambda z, eps: _std(z[-1], 1e-5)),
        "`eps` is not used.": _read(scale=lambda z, eps: _std(z[-1], 0)),
        "`eps` is added to the deviation; it belongs under the root, to the variance.": (
            _read(scale=lambda z, eps: _std(z[-1], 0) + eps)
        ),
        "The terms are divided by the variance; its root is missing.": (
            _read(scale=lambda z, eps: _std(z[-1], eps).square())
        ),
        "They are divided by the root of the mean square of the last state, from which no mean was subtracted.": (
            _read(scale=lambda z, eps: (z[-1].square().mean(-1, keepdim=True) + eps).sqrt())
        ),
        "Means and variances run over the tokens; a layer norm takes those of the D numbers of each token.": (
            _read(
                lambda z: _writes(z) - _writes(z).mean(2, keepdim=True),
                lambda z, eps: (z[-1].var(1, keepdim=True, correction=0) + eps).sqrt(),
            )
        ),
        "The columns of the weight are taken as outputs; it has a row for each output, so it must be transposed.": (
            _read(transposed=True),
            "the shape of the weight of nn.Linear.",
        ),
    },
    _TERMS,
    probe=lambda fn, *args: _in_one_tensor(fn(*args)),
    reference=_read(),
)


def check_contributions(fn: Callable, **grade_options) -> Report:
    """Check fn(states: L + 1 of (N, T, D), weight (O, D), eps) -> terms of the output, (L + 1, N, T, O)."""
    return grade(_CONTRIBUTIONS, fn, **grade_options)
