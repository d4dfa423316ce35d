"""Adaptive layer norm: modulation by its formula, and the order of its vectors."""

import torch
import torch.nn.functional as F
from torch import nn

from dit_nb.blocks.adaln import AdaLNBlock, AdaLNModulation, modulate, modulations
from support import randomize, relative


def norm(x):
    """A layer norm with eps 1e-6 and no weights."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def test_modulate_by_hand():
    x, shift, scale = (torch.tensor([[row]]) for row in ([3.0, 5.0], [10.0, -1.0], [1.0, -0.5]))
    assert modulate(x, shift, scale).tolist() == [[[16.0, 1.5]]]


def test_modulation_vectors_belong_to_images_not_to_tokens():
    scale = torch.arange(4.0).view(4, 1, 1).expand(4, 1, 8)
    x = modulate(torch.ones(4, 4, 8), torch.zeros(4, 1, 8), scale)  # N = T
    assert torch.equal(x, (1 + scale).expand(4, 4, 8))


def test_order_of_the_vectors():
    """Shift, scale (and gate) of the attention, then of the MLP: checkpoints rely on it."""
    for fields in (4, 6):
        numbers = torch.arange(fields).view(1, fields, 1).expand(3, fields, 8)
        named = [
            field for branch in modulations(numbers) for field in branch if isinstance(field, torch.Tensor)
        ]
        assert [field.unique().tolist() for field in named] == [[i] for i in range(fields)]
        assert all(field.shape == (3, 1, 8) for field in named)
    (final,) = modulations(torch.arange(2).view(1, 2, 1), branches=1)
    assert (final.shift.item(), final.scale.item(), final.gate) == (0, 1, 1.0)


@torch.no_grad()
def test_modulation_is_silu_and_a_linear_map_of_the_condition():
    layer, c = randomize(AdaLNModulation(6, 4), scale=0.3).double(), torch.randn(4, 6).double()
    want = F.linear(F.silu(c), layer[1].weight, layer[1].bias)
    assert relative(layer(c), torch.stack(want.split(6, dim=1), dim=1)) < 1e-12
    assert isinstance(layer[1], nn.Linear) and layer.n_fields == 4


@torch.no_grad()
def test_the_block_is_its_formula():
    block = randomize(AdaLNBlock(12, 3), scale=0.3).double()
    x, c = torch.randn(4, 4, 12).double(), torch.randn(4, 12).double()  # N = T
    vectors = F.linear(F.silu(c), block.adaLN_modulation[1].weight, block.adaLN_modulation[1].bias)
    shift1, scale1, shift2, scale2 = vectors[:, None].split(12, dim=-1)
    want = x + block.attn(norm(x) * (1 + scale1) + shift1)
    want = want + block.mlp(norm(want) * (1 + scale2) + shift2)
    assert relative(block(x, c), want) < 1e-12
