"""Patchify: the definition by loops, its inverse, and the embedding as one linear map."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_nb.patchify import PatchEmbed, _height_width, grid_size, patchify, unpatchify
from support import error_cases, raises_input_error, relative

some = settings(max_examples=25, deadline=None, derandomize=True, database=None)
shapes = st.tuples(*[st.integers(1, 3)] * 5)  # N, C, rows, columns, p


def random_images(n, c, rows, columns, p):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, c, rows * p, columns * p, generator=generator, dtype=torch.float64)


def patchify_loop(images, p):
    n, c, h, w = images.shape
    tokens = torch.zeros(n, (h // p) * (w // p), p * p * c, dtype=images.dtype)
    for i in range(n):
        for row in range(h):
            for column in range(w):
                for channel in range(c):
                    token = (row // p) * (w // p) + column // p
                    index = ((row % p) * p + column % p) * c + channel
                    tokens[i, token, index] = images[i, channel, row, column]
    return tokens


@some
@given(shapes)
def test_patchify_is_the_loop_and_unpatchify_its_inverse(shape):
    n, c, rows, columns, p = shape
    images = random_images(*shape)
    tokens = patchify(images, p)
    assert torch.equal(tokens, patchify_loop(images, p))
    assert torch.equal(unpatchify(tokens, (rows, columns), p), images)


@some
@given(shapes)
def test_patch_embedding_is_a_linear_map_of_patches(shape):
    n, c, rows, columns, p = shape
    embed, images = PatchEmbed(p, c, 8).double(), random_images(*shape)
    weight = torch.zeros(8, p * p * c, dtype=torch.float64)
    for channel in range(c):
        for i in range(p):
            for j in range(p):
                weight[:, (i * p + j) * c + channel] = embed.proj.weight[:, channel, i, j].detach()
    assert relative(embed(images), patchify_loop(images, p) @ weight.T + embed.proj.bias) < 1e-12


def test_sizes():
    assert _height_width(8) == (8, 8) and _height_width((4, 6)) == _height_width([4, 6]) == (4, 6)
    assert grid_size(8, 2) == (4, 4) and grid_size((96, 128), 16) == (6, 8)


@pytest.mark.parametrize("size,p", [((4, 6), 4), ((6, 4), 4), (0, 2), ((4, -2), 2), (4, 0), (4, -2)])
def test_sizes_without_a_grid(size, p):
    height, width = _height_width(size)
    with raises_input_error(f"{height}x{width}.*patch_size.*{p}"):
        grid_size(size, p)


@error_cases(
    (partial(patchify, torch.zeros(1, 1, 4, 6), 4), "4x6.*patch_size.*4"),
    (partial(unpatchify, torch.zeros(1, 5, 4), (2, 2), 2), "tokens.*5.*4.*2x2"),
)
def test_errors(call, pattern):
    with raises_input_error(pattern):
        call()
