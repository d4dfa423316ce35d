"""The explorer of lesson 08, against attention computed from the weights."""

import numpy as np
import pytest
import torch

from dit_nb.blocks.in_context import InContextBlock
from dit_nb.conditioning import LabelEmbedder, TimestepEmbedder
from dit_nb.data import running_example
from dit_nb.patchify import PatchEmbed
from dit_nb.positions import sincos_2d
from dit_nb.teach.explore.in_context import explore_in_context
from dit_nb.visual import COLORS
from support_explorers import pixels, turn


@pytest.fixture(scope="module")
def shared():
    return explore_in_context()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def attention_by_hand(patch, block, head):
    """Attention in the sequence of the running digit, from the weights, with loops over blocks only."""
    torch.manual_seed(0)
    side, D = 8 // patch, 48
    embed, time = PatchEmbed(patch, 1, D), TimestepEmbedder(D)
    label = LabelEmbedder(10, D, 0)
    blocks = [InContextBlock(D, 4) for _ in range(8)]
    x0, y = running_example()
    with torch.no_grad():
        image = embed(x0)[0] + sincos_2d((side, side), D).float()
        x = torch.cat([image, time(torch.tensor([500])), label(y)])[None]
        for b in blocks[: block - 1]:
            b.attn.qkv.weight[:D] *= 5
            x = b(x)
        b = blocks[block - 1]
        w, bias, h = b.attn.qkv.weight, b.attn.qkv.bias, b.norm1(x)[0]
        rows = slice(head * 12, head * 12 + 12)
        q = h @ (5 * w[:D][rows]).T + bias[:D][rows]
        k = h @ w[D : 2 * D][rows].T + bias[D : 2 * D][rows]
        return (q @ k.T / 12**0.5).softmax(dim=-1)


def test_attention_is_drawn(explorer):
    for patch, block, head in ((2, 1, 1), (2, 3, 2), (4, 8, 0)):
        fig = turn(explorer, patch=patch, block=block, head=head)
        expected = attention_by_hand(patch, block, head)
        np.testing.assert_allclose(pixels(fig.axes[0]), expected, atol=2e-5)
        T = (8 // patch) ** 2
        assert f"{expected[:T, T:].sum(1).mean():.0%}" in fig.axes[0].get_title()


def test_experiments(explorer):
    shares = []
    for patch in (4, 2, 1):
        weights = pixels(turn(explorer, patch=patch).axes[0])
        shares.append(weights[:-2, -2:].sum(axis=1).mean())
    assert shares == sorted(shares, reverse=True) and shares[0] > 3 * shares[2]
    explorer.reset()
    for patch in (4, 2, 1):  # a patch is perturbed: t and y change, but new tokens never do
        right = pixels(explorer.set(patch=patch, source=2, wrong=False).figure.axes[1])
        wrong = pixels(explorer.set(wrong=True).figure.axes[1])
        assert (right[1:, -2:] > -2.5).all()
        assert (wrong[:, -2:] == -9).all() and (wrong[1:, :-2] > -3).all()
        assert explorer.figure.axes[1].title.get_color() == COLORS["wrong"]


def test_perturbation_starts_on_one_token(explorer):
    for source, token in ((0, 16), (1, 17), (2, 10)):
        before = pixels(turn(explorer, source=source).axes[1])[0]
        assert before.argmax() == token and (np.delete(before, token) == -9).all()
        assert abs(before[token]) < 1e-3  # changes by the perturbation


def test_own_block():
    class NoAttention(InContextBlock):
        def forward(self, x, c=None):
            return x + self.mlp(self.norm2(x))

    spread = pixels(explore_in_context(NoAttention).figure.axes[1])
    assert (spread[:, :17] == -9).all() and (spread[:, 17] > -1).all()  # without attention nothing spreads
