"""The explorer of lesson 06, against attention computed from the weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_nb.data import running_example
from dit_nb.pretrained import digit_model
from dit_nb.teach.explore.attention import explore_attention
from support_explorers import axes, is_wrong


@pytest.fixture(scope="module")
def shared():
    return explore_attention()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


@pytest.fixture(scope="module")
def scores():
    """q . k of every block and head, from the weights: (6, 4, 16, 16)."""
    model, sampling = digit_model()
    x0, y = running_example()
    bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).sub(1).neg().cumprod(0)[200]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x = (bar.sqrt() * x0 + (1 - bar).sqrt() * noise).float().to(model.pos_embed.device)
    found = []
    with torch.no_grad():
        c = model.t_embedder(torch.tensor([200], device=x.device)) + model.y_embedder(y.to(x.device))
        x = model.x_embedder(x) + model.pos_embed
        for block in model.blocks:
            linear = block.adaLN_modulation[1]
            shift, scale = F.linear(F.silu(c), linear.weight, linear.bias)[:, None].split(96, dim=-1)[:2]
            qkv = block.attn.qkv(F.layer_norm(x, (96,), eps=1e-6) * (1 + scale) + shift)
            q, k, _ = qkv.view(16, 3, 4, 24).permute(1, 2, 0, 3).cpu()
            found.append(q @ k.mT)
            x = block(x, c)
    return torch.stack(found).numpy()


def softmax(z, axis=-1):
    z = np.exp(z - z.max(axis=axis, keepdims=True))
    return z / z.sum(axis=axis, keepdims=True)


def maps(explorer):
    """Scores, scaled scores and weights, each (16,)."""
    by_place = sorted(axes(explorer)[0].images, key=lambda image: image.get_extent()[0])
    found = [np.asarray(i.get_array(), float) for i in by_place if i.get_array().shape == (4, 4)]
    return [found[i].ravel() for i in range(3)]


def all_maps(figure):
    """The weights of all heads for each patch, (6, 4, 16), as drawn in the strip below."""
    (strip,) = [i.get_array() for i in figure.axes[0].images if i.get_array().shape[1] > 16]
    return np.stack([[strip[:, 23 * b + 5 * h :][:, :4].ravel() for h in range(4)] for b in range(6)])


@pytest.mark.parametrize(
    "query, block, head, temperature", [(6, 1, 1, 1.0), (0, 6, 4, 0.25), (15, 3, 4, 10.0), (9, 4, 2, 0.1)]
)
def test_three_stages(explorer, scores, query, block, head, temperature):
    explorer.set(query=query, block=block, head=head, temperature=temperature)
    expected = scores[block - 1, head - 1, query]
    scaled = expected / math.sqrt(24) / temperature
    for found, stage in zip(maps(explorer), (expected, scaled, softmax(scaled))):
        assert np.allclose(found, stage, rtol=1e-3, atol=1e-3)
    texts = [t.get_text() for t in axes(explorer)[0].texts]
    assert "softmax: sums to 1.00" in texts and f"query: patch {query}" in texts
    assert f"{expected[query]:.1f}" in texts and f"{softmax(scaled).max():.0%}" in texts


def test_weights_of_all_heads(explorer, scores):
    explorer.controls["query"].buttons[9].click()
    expected = softmax(scores[:, :, 9] / math.sqrt(24))
    assert np.allclose(all_maps(explorer.figure), expected, atol=1e-4)


def test_heads_that_attend_to_neighbors(explorer):
    neighbors = {(1, 3): (0, 1), (2, 1): (0, -1), (3, 4): (1, 0), (4, 4): (-1, 0)}
    found = {head: [] for head in neighbors}
    for query in range(16):
        shares = all_maps(explorer.plot(**{**explorer.values(), "query": query}))
        for (block, head), (down, right) in neighbors.items():
            row, column = query // 4 + down, query % 4 + right
            if 0 <= row < 4 and 0 <= column < 4:
                found[block, head].append(shares[block - 1, head - 1].argmax() == 4 * row + column)
    assert all(len(f) == 12 and sum(f) >= 10 for f in found.values()), found


def test_temperature(explorer):
    assert round(maps(explorer.set(temperature=0.1))[2].max(), 2) == 0.92
    cool = maps(explorer.set(temperature=10.0))[2]
    assert 0.045 < cool.min() < cool.max() < 0.085


def test_softmax_over_the_queries(explorer, scores):
    sums = []
    for query in (0, 5, 6, 15):
        figure = explorer.plot(**{**explorer.values(), "wrong": True, "query": query, "block": 6})
        found = all_maps(figure)
        assert np.allclose(found, softmax(scores / math.sqrt(24), axis=-2)[:, :, query], atol=1e-4)
        sums.append(found[5, 0].sum())
        title = [t for t in figure.axes[0].texts if t.get_text() == f"softmax: sums to {sums[-1]:.2f}"]
        assert is_wrong(title[0])
    assert max(sums) - min(sums) > 0.5
    explorer.reset().set(wrong=True)
    assert abs(maps(explorer)[2].sum() - 1) > 0.005


def test_own_attention_weights(scores):
    explorer = explore_attention(attention_weights=lambda q, k: (q @ k.mT / 16**0.5).softmax(-1))
    expected = softmax(scores[0, 0, 6] / 4)  # the number of tokens instead of the width
    assert np.allclose(maps(explorer)[2], expected, atol=1e-4)
    with pytest.raises(ValueError, match="weights have shape"):
        explore_attention(attention_weights=lambda q, k: q)
