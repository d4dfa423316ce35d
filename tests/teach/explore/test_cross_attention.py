"""The explorer of lesson 09, against softmax computed from the weights."""

import numpy as np
import pytest
import torch

from dit_nb.attention import CrossAttention
from dit_nb.teach.explore.cross_attention import _make_example, explore_cross_attention
from support_explorers import pixels, turn


@pytest.fixture(scope="module")
def shared():
    return explore_cross_attention()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def test_dots_are_the_softmax(explorer):
    example = _make_example()
    for digit, head, scale in ((3, 0, 1.0), (8, 2, 4.0), (0, 3, 0.2)):
        fig = turn(explorer, digit=digit, head=head, scale=scale)
        x, c, one = example.tokens[digit], scale * example.context[digit], slice(16 * head, 16 * head + 16)
        cross = example.attention
        with torch.no_grad():
            q = x @ cross.q.weight[one].T
            score = q @ (cross.kv.weight[:64][one] @ c.T) / 4  # (16, 2)
            expected = score[:, 1].exp() / score.exp().sum(dim=1)
        dots = fig.axes[2].collections[1].get_offsets()
        np.testing.assert_allclose(dots[:, 0], expected, atol=1e-5)
        np.testing.assert_allclose(pixels(fig.axes[1]).ravel(), expected, atol=1e-5)


def test_experiments(explorer):
    for head, axis in ((1, 1), (2, 0)):
        for digit in (3, 7):
            means = pixels(explorer.set(head=head, digit=digit).figure.axes[1]).mean(axis=axis)
            assert (np.diff(means) > 0).all() and means[0] < 0.4 < 0.6 < means[-1]
    for head in range(4):
        assert abs(pixels(explorer.set(head=head, scale=0.02).figure.axes[1]) - 0.5).max() < 0.03
    explorer.reset()
    for values in ({"digit": 8}, {"head": 3, "scale": 4.0}, {"patch": 15}):
        fig = explorer.set(wrong=True, **values).figure
        assert (fig.axes[2].collections[1].get_offsets()[:, 0] == 1).all()
        assert "every weight is 1" in fig.axes[2].get_title()


def test_ink_attends_to_y(explorer):
    for digit in (0, 3, 8):
        fig = turn(explorer, digit=digit)
        ink = pixels(fig.axes[0]).reshape(4, 2, 4, 2).mean(axis=(1, 3))
        assert np.corrcoef(ink.ravel(), pixels(fig.axes[1]).ravel())[0, 1] > 0.85


def test_clicking_a_patch(explorer):
    explorer.controls["patch"].buttons[7].click()
    assert explorer.figure.axes[2].get_title().split("\n")[1].startswith("patch 7:")
    box = explorer.figure.axes[0].patches[0]
    assert (box.get_x(), box.get_y()) == (5.5, 1.5)


def test_own_attention():
    class Hard(CrossAttention):
        def attention_weights(self, x, context):
            return (super().attention_weights(x, context) > 0.5).float()

    dots = explore_cross_attention(Hard).figure.axes[2].collections[1].get_offsets()[:, 0]
    assert set(np.unique(dots)) == {0, 1}
