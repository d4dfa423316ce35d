"""The explorer of lesson 07, against a stack of blocks computed with PyTorch's functions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb.attention import Attention
from dit_nb.blocks.base import PlainBlock
from dit_nb.teach.explore.block import _apply_block, _run_stack, explore_block
from support import randomize, relative
from support_explorers import axes, pixels, turn


@pytest.fixture(scope="module")
def shared():
    return explore_block()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


@torch.no_grad()
def test_the_block_with_its_parts_is_the_plain_block():
    block, x = PlainBlock(12, 3).double(), torch.randn(2, 5, 12).double()
    for layer in (block.attn, block.mlp):
        randomize(layer, scale=0.3)
    assert relative(_apply_block(block, x, norm=0, residual=True), block(x)) < 1e-12
    identity = PlainBlock(12, 3).double()
    for name in ("attn", "mlp"):
        setattr(identity, name, nn.Identity())
    x = F.layer_norm(x, (12,), eps=0)
    assert relative(_apply_block(identity, x, norm=2, residual=True), 4 * x) < 1e-12
    assert relative(_apply_block(identity, x, norm=2, residual=False), x) < 1e-12
    assert relative(_apply_block(identity, x, norm=1, residual=True), x) < 1e-5
    assert isinstance(block.attn, Attention)


def test_statements(explorer):
    stack = _run_stack()
    spread, rms = stack.spread, stack.rms
    assert [round(float(rms[0, 0, i]), 1) for i in (0, 24)] == [0.8, 3.9]
    assert (rms[0, 0].diff() > -0.1).all() and spread[0, 0].min() > 0.02
    assert 1800 < rms[2, 0, 24] < 1900
    assert spread[0, 1, 3] < 1e-12 < spread[0, 1, 2] < 1e-6 < 0.001 < spread[0, 1, 1]
    assert spread[1, 1, 3] < 1e-12 < spread[1, 1, 2] < 1e-7  # the norm after each branch
    assert abs(pixels(axes(explorer)[0])).max() > 0.3
    assert abs(pixels(turn(explorer, blocks=2, wrong=True).axes[0])).max() < 0.01


def test_curves_and_marker(explorer):
    stack = _run_stack()
    fig = turn(explorer, norm=2, blocks=5)
    for ax, values in zip(fig.axes[1:3], (stack.spread[2, 0], stack.rms[2, 0])):
        assert np.allclose(ax.lines[1].get_ydata(), values.clamp(min=1e-15))
        assert np.allclose(ax.lines[2].get_ydata(), values[5]) and ax.lines[2].get_xdata() == [5]
    tokens = stack.states[2, 0, 5]
    expected = (tokens - tokens.mean(0)) / tokens.square().mean().sqrt()
    assert np.allclose(pixels(fig.axes[0]), expected, atol=1e-6)
