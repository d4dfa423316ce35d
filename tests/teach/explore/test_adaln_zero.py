"""The explorer of lesson 11, against gradients and forward passes."""

import numpy as np
import pytest
import torch
from torch import nn

from dit_nb.blocks.adaln import AdaLNModulation
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.data import running_example
from dit_nb.teach.explore.adaln_zero import _gate_model, _gradient_norms, explore_gate
from dit_nb.visual import COLORS
from support_explorers import pixels, turn


@pytest.fixture(scope="module")
def shared():
    return explore_gate()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def nonzero(fig):
    """Which parameter groups have a gradient: (3, L+2), NaN where there is none."""
    drawn = fig.axes[1].images[0].get_array()
    is_nonzero = np.where(np.ma.getmaskarray(drawn), np.nan, np.ma.getdata(drawn) > -20)
    return np.where(np.isnan(np.ma.getdata(drawn).astype(float)), np.nan, is_nonzero)


def frames(fig):
    """The fourteen images on top."""
    strip = pixels(fig.axes[0])
    return [strip[:, 9 * i : 9 * i + 8] for i in range(14)]


def test_gradients_at_the_first_steps(explorer):
    step0, step1, step2 = (nonzero(turn(explorer, step=step)) for step in (0, 1, 2))
    assert np.isnan(step0[1, [0, -1]]).all() and np.isnan(step0).sum() == 2
    assert np.nansum(step0) == 1 and step0[0, -1] == 1  # the final linear layer
    expected = np.zeros((3, 14))
    expected[0, [0, -1]] = expected[1, 1:-1] = expected[2, -1] = 1  # patches, final layer, gates
    assert (np.nan_to_num(step1) == expected).all()
    assert np.nansum(step2) == 40


def test_blocks_start_as_the_identity(explorer):
    fig = turn(explorer, step=0)
    x0 = running_example()[0][0, 0]
    np.testing.assert_allclose(frames(fig)[0], x0, atol=1e-5)
    assert all((frame == frames(fig)[0]).all() for frame in frames(fig)[:-1])
    assert (frames(fig)[-1] == 0).all()  # the output
    rms = fig.axes[2].lines[0].get_ydata()
    assert len(rms) == 13 and (rms == rms[0]).all()
    assert "blocks are the identity" in fig.axes[0].get_title()


def test_initial_gates(explorer):
    alike, ends = [], []
    for gate in (0.0, 0.1, 0.3, 1.0):
        fig = turn(explorer, step=0, gate=gate)
        heights = fig.axes[2].patches[0].get_data().values
        np.testing.assert_allclose(heights, gate, atol=1e-6)
        assert np.nansum(nonzero(fig)) == 1
        first, *_, last = frames(fig)[:-1]
        alike.append(np.corrcoef(first.ravel(), last.ravel())[0, 1])
        rms = fig.axes[2].lines[0].get_ydata()
        ends.append(rms[-1] / rms[0])
    assert alike == sorted(alike, reverse=True) and alike[0] > 0.999 > 0.5 > alike[-1]
    assert ends == sorted(ends) and ends[0] == 1 and ends[-1] > 3
    assert rms[-1] < fig.axes[2].get_ylim()[1]


def test_xavier_last_overwrites_the_gates(explorer):
    shut = turn(explorer, step=0, wrong=True)
    open_ = turn(explorer, gate=1.0)
    assert all((a == b).all() for a, b in zip(frames(shut), frames(open_)))
    assert np.nansum(nonzero(shut)) == 40
    assert np.corrcoef(frames(shut)[0].ravel(), frames(shut)[12].ravel())[0, 1] < 0.9
    assert float(shut.axes[0].get_title().split("loss ")[1].split(";")[0]) > 1.5
    assert shut.axes[0].title.get_color() == COLORS["wrong"]
    assert shut.axes[2].patches[0].get_data().values.min() > 0.1


def test_gradient_norms_equal_autograd():
    torch.manual_seed(3)
    model = _gate_model(AdaLNZeroBlock, 0.5)
    nn.init.normal_(model.final_layer.linear.weight)
    x, y = running_example()
    model(x, torch.tensor([7]), y).square().sum().backward()
    got, block = _gradient_norms(model), model.blocks[4]
    both = torch.cat([p.grad.flatten() for part in (block.attn, block.mlp) for p in part.parameters()])
    fields = torch.cat(
        [block.adaLN_modulation[1].weight.grad, block.adaLN_modulation[1].bias.grad[:, None]], 1
    )
    gate = torch.cat([fields[96:144], fields[240:]])
    assert torch.isclose(got[0, 5], both.double().norm()) and torch.isclose(got[1, 5], gate.double().norm())
    assert torch.isclose(got[1:, 5].norm(), fields.double().norm())


def test_own_block():
    class SigmoidGates(AdaLNModulation):
        def forward(self, c):
            fields = super().forward(c).clone()
            fields[:, [2, 5]] = fields[:, [2, 5]].sigmoid()
            return fields

    class Sigmoid(AdaLNZeroBlock):
        def __init__(self, hidden_size, *sizes):
            super().__init__(hidden_size, *sizes)
            self.adaLN_modulation = SigmoidGates(hidden_size, 6)
            self.zero_init()

    fig = explore_gate(Sigmoid).set(step=0).figure
    assert fig.axes[2].patches[0].get_data().values.tolist() == [0.5] * 12
    assert "blocks are the identity" not in fig.axes[0].get_title()
