"""The explorer of lesson 08, against attention computed from the weights of the trained model."""

import numpy as np
import pytest
import torch

from dit_nb import Diffusion
from dit_nb.blocks.in_context import InContextBlock
from dit_nb.data import running_example
from dit_nb.pretrained import block_model
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


def attention_by_hand(t, block, head):
    """Attention in the sequence of the running digit, from the weights, with loops over blocks only."""
    model, (x0, y), d = block_model("in_context")[0].cpu(), running_example(), 16
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alpha_bar = Diffusion().alphas_cumprod[t]
        x_t = (alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise).float()
        image = (model.x_embedder(x_t) + model.pos_embed)[0]
        x = torch.cat([image, model.t_embedder(torch.tensor([t])), model.y_embedder(y)])[None]
        for b in model.blocks[: block - 1]:
            x = b(x)
        b = model.blocks[block - 1]
        w, bias, h = b.attn.qkv.weight, b.attn.qkv.bias, b.norm1(x)[0]
        rows = slice(head * d, head * d + d)
        q = h @ w[:64][rows].T + bias[:64][rows]
        k = h @ w[64:128][rows].T + bias[64:128][rows]
        return (q @ k.T / d**0.5).softmax(dim=-1)


def test_attention_is_drawn(explorer):
    for t, block, head in ((300, 1, 1), (999, 3, 2), (50, 4, 0)):
        fig = turn(explorer, t=t, block=block, head=head)
        expected = attention_by_hand(t, block, head)
        np.testing.assert_allclose(pixels(fig.axes[0]), expected, atol=2e-5)
        assert f"{expected[:16, 16:].sum(1).mean():.0%}" in fig.axes[0].get_title()
    mean = np.mean([attention_by_hand(50, 4, head).numpy() for head in range(4)], axis=0)
    np.testing.assert_allclose(pixels(turn(explorer, t=50, block=4, head=-1).axes[0]), mean, atol=2e-5)


def test_experiments(explorer):
    shares = []
    for t in (999, 500, 300, 100, 50):
        weights = pixels(turn(explorer, t=t, block=2).axes[0])
        shares.append(weights[:-2, -2:].sum(axis=1).mean())
    assert shares == sorted(shares, reverse=True) and 0.55 < shares[-1] / shares[0] < 0.75, shares
    explorer.reset()
    for t in (50, 300, 999):  # a patch is perturbed: t and y change, but new tokens never do
        right = pixels(explorer.set(t=t, source=2, wrong=False).figure.axes[1])
        wrong = pixels(explorer.set(wrong=True).figure.axes[1])
        assert (right[1:, -2:] > -3).all()
        assert (wrong[:, -2:] == -9).all() and (wrong[1:, :-2] > -4).all()
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
