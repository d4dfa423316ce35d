"""Grader of lesson 12: the forward pass of a DiT, put together from its parts."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from dit_nb.patchify import patchify, unpatchify
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_dit_forward"]


class _ToyPatchEmbed(NamedTuple):
    """A linear map of every patch."""

    patch_size: int
    weight: Tensor  # (p*p*C, D)

    def __call__(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, T, D)
        return patchify(x, self.patch_size) @ self.weight


class _ToyTimestepEmbedder(NamedTuple):
    """One wave for each channel."""

    frequencies: Tensor  # (D,)

    def __call__(self, t: Tensor) -> Tensor:  # (N,) -> (N, D)
        return torch.cos(t[:, None] * self.frequencies)


class _ToyLabelEmbedder(NamedTuple):
    """A table with a row for each class."""

    table: Tensor  # (K, D)

    def __call__(self, y: Tensor) -> Tensor:  # (N,) -> (N, D)
        return self.table[y]


class _ToyBlock(NamedTuple):
    """A block with a residual connection that mixes the tokens and depends on the condition."""

    own: Tensor  # (D, D)
    all: Tensor  # (D, D)
    condition: Tensor  # (D, D)

    def __call__(self, x: Tensor, c: Tensor) -> Tensor:  # (N, T, D), (N, D) -> (N, T, D)
        mixed = (x**2).mean(1, keepdim=True) @ self.all + (c @ self.condition)[:, None]
        return x + torch.tanh(x @ self.own + mixed)


class _ToyFinalLayer(NamedTuple):
    """Scale by the condition, then a linear map."""

    scale: Tensor  # (D, D)
    weight: Tensor  # (D, p*p*2C)

    def __call__(self, x: Tensor, c: Tensor) -> Tensor:  # (N, T, D), (N, D) -> (N, T, p*p*2C)
        return (x * (1 + (c @ self.scale)[:, None])) @ self.weight


class _Parts(NamedTuple):
    """The parts of a DiT, with the names that they have in the class."""

    x_embedder: _ToyPatchEmbed
    pos_embed: Tensor  # (1, T, D)
    t_embedder: _ToyTimestepEmbedder
    y_embedder: _ToyLabelEmbedder
    blocks: list[_ToyBlock]
    final_layer: _ToyFinalLayer
    grid: tuple[int, int]
    patch_size: int


def _random_parts(rng: RandomInputs, c: int, grid: tuple[int, int], p: int, d: int, depth: int) -> _Parts:
    def matrix(rows, columns):
        return rng.normal(rows, columns) / rows**0.5

    return _Parts(
        _ToyPatchEmbed(p, matrix(p * p * c, d)),
        rng.normal(1, grid[0] * grid[1], d),
        _ToyTimestepEmbedder(rng.uniform(0.2, 2.0, d)),
        _ToyLabelEmbedder(rng.normal(5, d)),
        [_ToyBlock(matrix(d, d), matrix(d, d), matrix(d, d)) for _ in range(depth)],
        _ToyFinalLayer(matrix(d, d), matrix(d, p * p * 2 * c)),
        grid,
        p,
    )


def _forward_cases(rng: RandomInputs) -> list[Case]:
    """Square, tall and wide grids, and one, two or three channels; at least two blocks."""
    sizes = [(3, 3, (2, 2), 2, 4, 3), (2, 2, (2, 3), 2, 5, 2), (2, 1, (3, 1), 3, 4, 2)]
    sizes.append((rng.choice(2, 4), 2, (rng.choice(3, 4), 2), 2, 6, rng.choice(2, 3)))
    label = "N = {}, {} channels, grid {}, p = {}, D = {}, {} blocks"
    cases = []
    for size in sizes:
        n, c, grid, p, *_ = size
        x = rng.normal(n, c, grid[0] * p, grid[1] * p)
        arguments = (_random_parts(rng, *size[1:]), x, rng.integers(1, 9, n), rng.integers(0, 5, n))
        cases.append(Case(label.format(*size), arguments))
    return cases


def _forward_loops(parts: _Parts, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    (n, channels, *_), p, columns = x.shape, parts.patch_size, parts.grid[1]
    tokens, time, label = parts.x_embedder(x), parts.t_embedder(t), parts.y_embedder(y)
    for i in range(n):
        tokens[i] += parts.pos_embed[0]
    c = torch.stack([a + b for a, b in zip(time, label)])
    for layer in parts.blocks:
        tokens = layer(tokens, c)
    out, both = parts.final_layer(tokens, c), [torch.zeros_like(x), torch.zeros_like(x)]
    for k, row, column in [(k, i, j) for k in range(2) for i in range(x.shape[2]) for j in range(x.shape[3])]:
        start = ((row % p) * p + column % p) * 2 * channels + k * channels
        both[k][:, :, row, column] = out[:, (row // p) * columns + column // p, start : start + channels]
    return both[0], both[1]


def _condition(parts: _Parts, t: Tensor, y: Tensor) -> Tensor:
    return parts.t_embedder(t) + parts.y_embedder(y)


def _embed(parts: _Parts, x: Tensor) -> Tensor:
    return parts.x_embedder(x) + parts.pos_embed


def _run_blocks(parts: _Parts, x: Tensor, c: Tensor) -> Tensor:
    for block in parts.blocks:
        x = block(x, c)
    return x


def _finish(parts: _Parts, x: Tensor, c: Tensor) -> Tensor:
    return unpatchify(parts.final_layer(x, c), parts.grid, parts.patch_size)


def _halves(image: Tensor) -> tuple[Tensor, ...]:
    return image.chunk(2, dim=1)


def _forward(
    condition: Callable = _condition,
    embed: Callable = _embed,
    run: Callable = _run_blocks,
    finish: Callable = _finish,
    split: Callable = _halves,
) -> Callable:
    """The forward pass with parameters for known mistakes."""

    def forward(parts, x, t, y):
        c = condition(parts, t, y)
        return split(finish(parts, run(parts, embed(parts, x), c), c))

    return forward


def _run_and_add(parts, x, c):
    for block in parts.blocks:
        x = x + block(x, c)
    return x


def _run_with_positions(parts, x, c):
    x = x - parts.pos_embed
    for block in parts.blocks:
        x = block(x + parts.pos_embed, c)
    return x


def _run_twice_positioned(parts, x, c):
    return _run_blocks(parts, x - parts.pos_embed, c) + parts.pos_embed


def _split_features(parts, x, t, y):
    c = _condition(parts, t, y)
    halves = parts.final_layer(_run_blocks(parts, _embed(parts, x), c), c).chunk(2, dim=-1)
    return tuple(unpatchify(half, parts.grid, parts.patch_size) for half in halves)


def _channels_first(parts, x, c):
    (h, _), p = parts.grid, parts.patch_size
    return rearrange(parts.final_layer(x, c), "n (h w) (c p q) -> n c (h p) (w q)", h=h, p=p, q=p)


def _only_reshaped(parts, x, c):
    (h, w), p = parts.grid, parts.patch_size
    return parts.final_layer(x, c).reshape(len(x), -1, h * p, w * p)


def _other_condition(of_blocks: Callable, of_final: Callable) -> Callable:
    """Blocks and final layer get something else than the sum: a function of the embeddings of t and y."""

    def forward(parts, x, t, y):
        both = parts.t_embedder(t), parts.y_embedder(y)
        tokens = _run_blocks(parts, _embed(parts, x), of_blocks(*both))
        return _halves(_finish(parts, tokens, of_final(*both)))

    return forward


def _growing(start: Callable, step: Callable) -> Callable:
    """The condition grows before every block: by a function of the embeddings of t and y."""

    def forward(parts, x, t, y):
        both, tokens = (parts.t_embedder(t), parts.y_embedder(y)), _embed(parts, x)
        c = start(*both)
        for block in parts.blocks:
            c = c + step(*both)
            tokens = block(tokens, c)
        return _halves(_finish(parts, tokens, c))

    return forward


_LAST_LAYER = "lesson 12, 'The final layer': the trap."
_CLASS = "lesson 12, 'The model': the lines of forward."

_DIT_FORWARD = Exercise(
    "dit_forward",
    _forward_loops,
    _forward_cases,
    {
        "The positions are missing: the model cannot tell where a patch is.": (
            _forward(embed=lambda parts, x: parts.x_embedder(x)),
            "lesson 12, 'Without positions, order is lost'.",
        ),
        "The positions are added before every block; the residual stream carries them, so once is enough.": (
            _forward(run=_run_with_positions),
            _CLASS,
        ),
        "The positions are added after the blocks: attention has not seen them.": (
            _forward(run=_run_twice_positioned),
            _CLASS,
        ),
        "The grid is turned around: its first number counts rows, the second columns.": _forward(
            finish=lambda parts, x, c: unpatchify(parts.final_layer(x, c), parts.grid[::-1], parts.patch_size)
        ),
        "The label is not used: c is the embedding of t alone.": (
            _forward(lambda parts, t, y: parts.t_embedder(t)),
            _CLASS,
        ),
        "The timestep is not used: c is the embedding of y alone.": (
            _forward(lambda parts, t, y: parts.y_embedder(y)),
            _CLASS,
        ),
        "The two embeddings are multiplied; c is their sum.": (
            _forward(lambda parts, t, y: parts.t_embedder(t) * parts.y_embedder(y)),
            _CLASS,
        ),
        "The two embeddings are averaged; c is their sum.": (
            _forward(lambda parts, t, y: _condition(parts, t, y) / 2),
            _CLASS,
        ),
        "The timestep is divided by 1000; the embedder takes it as it is, 0 to 999.": (
            _forward(lambda parts, t, y: parts.t_embedder(t / 1000) + parts.y_embedder(y)),
            "lesson 05, 'A timestep as waves'.",
        ),
        "The condition is added to the tokens; the blocks take it as their second argument, and that is enough.": (
            _forward(
                run=lambda parts, x, c: _run_blocks(parts, x + c[:, None], c),
            ),
            _CLASS,
        ),
        "Every block gets the tokens of the patch embedding, so only the last block counts.": (
            _forward(run=lambda parts, x, c: parts.blocks[-1](x, c)),
            "which tokens each block receives, and where its result goes.",
        ),
        "Only the first block runs: is there a return inside the loop?": (
            _forward(run=lambda parts, x, c: parts.blocks[0](x, c)),
            "which lines belong to the loop.",
        ),
        "The last block does not run.": (
            _forward(run=lambda parts, x, c: _run_blocks(parts._replace(blocks=parts.blocks[:-1]), x, c)),
            "how many blocks there are.",
        ),
        "No block runs.": (_forward(run=lambda parts, x, c: x), _CLASS),
        "The blocks run in reverse order.": _forward(
            run=lambda parts, x, c: _run_blocks(parts._replace(blocks=parts.blocks[::-1]), x, c)
        ),
        "The tokens are added to the result of a block once more: its residual connections are inside.": (
            _forward(run=_run_and_add),
            _CLASS,
        ),
        "The final layer gets t alone as its condition; it needs the same c as the blocks.": (
            lambda parts, x, t, y: _halves(
                _finish(
                    parts,
                    _run_blocks(parts, _embed(parts, x), _condition(parts, t, y)),
                    parts.t_embedder(t),
                )
            ),
            _CLASS,
        ),
        "The numbers of a token are cut in half before they are an image; in a token the channel changes fastest.": (
            _split_features,
            _LAST_LAYER,
        ),
        "The numbers of a token are read channel by channel; in a token the channel changes fastest.": (
            _forward(finish=_channels_first),
            _LAST_LAYER,
        ),
        "The tokens are reshaped to an image, but never moved: every patch must return to its place.": (
            _forward(finish=_only_reshaped),
            "lesson 03, 'Trap: reshape without permute'.",
        ),
        "Noise and variance values are exchanged: the noise comes first.": (
            _forward(split=lambda image: _halves(image)[::-1]),
            "lesson 12, 'A forward pass by hand': the second channel.",
        ),
        "Every other channel is taken; the noise is the first C channels, the variance values the rest.": (
            _forward(split=lambda image: (image[:, ::2], image[:, 1::2])),
            "lesson 12, 'A forward pass by hand': the second channel.",
        ),
        "The first block does not run.": (
            _forward(run=lambda parts, x, c: _run_blocks(parts._replace(blocks=parts.blocks[1:]), x, c)),
            "how many blocks there are.",
        ),
        "The noise is subtracted from the image; return the noise, samplers do the rest.": (
            lambda parts, x, t, y: (x - _forward()(parts, x, t, y)[0], _forward()(parts, x, t, y)[1]),
            _CLASS,
        ),
        "The image is added to the noise: the model as a whole has no residual connection.": (
            lambda parts, x, t, y: (x + _forward()(parts, x, t, y)[0], _forward()(parts, x, t, y)[1]),
            _CLASS,
        ),
        "The variance values go through an exponential; return them as they are.": (
            _forward(split=lambda image: (_halves(image)[0], _halves(image)[1].exp())),
            _CLASS,
        ),
        "The variance values go through a sigmoid; return them as they are.": (
            _forward(split=lambda image: (_halves(image)[0], _halves(image)[1].sigmoid())),
            _CLASS,
        ),
        "The final layer gets y alone as its condition; it needs the same c as the blocks.": (
            _other_condition(lambda t, y: t + y, lambda t, y: y),
            _CLASS,
        ),
        "The blocks get t alone as their condition; they need the same c as the final layer.": (
            _other_condition(lambda t, y: t, lambda t, y: t + y),
            _CLASS,
        ),
        "The blocks get y alone as their condition; they need the same c as the final layer.": (
            _other_condition(lambda t, y: y, lambda t, y: t + y),
            _CLASS,
        ),
        "The embedding of y is added again before every block; c is the same for all of them.": (
            _growing(lambda t, y: t, lambda t, y: y),
            "which lines belong to the loop.",
        ),
        "The embedding of t is added again before every block; c is the same for all of them.": (
            _growing(lambda t, y: y, lambda t, y: t),
            "which lines belong to the loop.",
        ),
        "Both embeddings are added to c again before every block; c is the same for all of them.": (
            _growing(lambda t, y: 0 * t, lambda t, y: t + y),
            "which lines belong to the loop.",
        ),
        "The condition goes through a SiLU; the blocks have that inside.": (
            _forward(lambda parts, t, y: torch.nn.functional.silu(_condition(parts, t, y))),
            _CLASS,
        ),
        "The positions multiply the tokens; they are added.": (
            _forward(embed=lambda parts, x: parts.x_embedder(x) * parts.pos_embed),
            _CLASS,
        ),
        "The first position is added to all tokens; each patch has its own.": (
            _forward(embed=lambda parts, x: parts.x_embedder(x) + parts.pos_embed[:, :1]),
            _CLASS,
        ),
        "The embedding of y is subtracted; c is the sum of both.": (
            _forward(lambda parts, t, y: parts.t_embedder(t) - parts.y_embedder(y)),
            _CLASS,
        ),
        "The sum of the embeddings is doubled; c is the sum itself.": (
            _forward(lambda parts, t, y: 2 * _condition(parts, t, y)),
            _CLASS,
        ),
        "The larger of both embeddings is taken, number by number; c is their sum.": (
            _forward(lambda parts, t, y: torch.maximum(parts.t_embedder(t), parts.y_embedder(y))),
            _CLASS,
        ),
        "The timestep is counted from 1; the embedder takes it as it is.": (
            _forward(lambda parts, t, y: parts.t_embedder(t + 1) + parts.y_embedder(y)),
            _CLASS,
        ),
        "All images get the first one's timestep; each has its own.": (
            _forward(lambda parts, t, y: parts.t_embedder(t[:1]) + parts.y_embedder(y)),
            _CLASS,
        ),
        "The condition goes through a tanh; c is the sum as it is.": (
            _forward(lambda parts, t, y: torch.tanh(_condition(parts, t, y))),
            _CLASS,
        ),
        "The positions are subtracted; they are added.": (
            _forward(embed=lambda parts, x: parts.x_embedder(x) - parts.pos_embed),
            _CLASS,
        ),
        "The positions are added twice; once is enough.": (
            _forward(embed=lambda parts, x: parts.x_embedder(x) + 2 * parts.pos_embed),
            _CLASS,
        ),
        "The image is not used: the tokens are the positions alone.": (
            _forward(embed=lambda parts, x: parts.pos_embed.expand(len(x), -1, -1)),
            _CLASS,
        ),
        "The noise is returned twice; the second half of the channels is the variance values.": (
            _forward(split=lambda image: (_halves(image)[0], _halves(image)[0])),
            _CLASS,
        ),
        "The variance values go through a tanh; return them as they are.": (
            _forward(split=lambda image: (_halves(image)[0], _halves(image)[1].tanh())),
            _CLASS,
        ),
    },
    _CLASS,
    result_names=("noise", "tensor of variance values"),
    reference=_forward(),
)


def check_dit_forward(fn: Callable, **grade_options) -> Report:
    """Check fn(parts, x (N, C, H, W), t (N,), y (N,)) -> noise and variance values, each (N, C, H, W)."""
    return grade(_DIT_FORWARD, fn, **grade_options)
