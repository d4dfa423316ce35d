"""The plain block: its formula, PyTorch's own encoder layer, and what the residual stream guarantees."""

import math

import pytest
import torch
from torch import nn

from dit_nb.blocks.base import Block, Mlp, PlainBlock
from support import DEVICES, randomize, relative


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_mlp_is_its_formula():
    mlp, x = Mlp(8, 1.5).double(), randn(2, 3, 8)
    z = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    assert z.shape[-1] == 12
    assert relative(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias) < 1e-12


def norm(x, layer):
    """A layer norm with eps 1e-6 and learned weights."""
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


@torch.no_grad()
def test_plain_block_is_its_formula():
    block, x = randomize(PlainBlock(12, 3), scale=0.3).double(), randn(4, 4, 12)
    want = x + block.attn(norm(x, block.norm1))
    want = want + block.mlp(norm(want, block.norm2))
    assert relative(block(x), want) < 1e-12
    assert torch.equal(block(x, randn(4, 12)), block(x)), "the condition is not used"


@torch.no_grad()
def test_plain_block_is_pytorchs_encoder_layer():
    block, x = randomize(PlainBlock(16, 4), scale=0.3).double(), randn(2, 7, 16)
    options = dict(norm_first=True, batch_first=True, dropout=0.0, layer_norm_eps=1e-6, dtype=torch.float64)
    twin = nn.TransformerEncoderLayer(16, 4, 64, activation=nn.GELU("tanh"), **options)
    twin.self_attn.in_proj_weight.data, twin.self_attn.in_proj_bias.data = block.attn.qkv.parameters()
    theirs = (twin.self_attn.out_proj, twin.linear1, twin.linear2, twin.norm1, twin.norm2)
    for their, our in zip(theirs, (block.attn.proj, block.mlp.fc1, block.mlp.fc2, block.norm1, block.norm2)):
        their.load_state_dict(our.state_dict())
    assert relative(block(x), twin(x)) < 1e-12


@torch.no_grad()
def test_a_block_whose_branches_write_nothing_is_the_identity():
    block, x = randomize(PlainBlock(12, 3)), randn(2, 5, 12).float()
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)


def test_names_of_the_parameters():
    """Checkpoints rely on them."""
    modules = dict(PlainBlock(12, 3).named_children())
    assert list(modules) == ["norm1", "attn", "norm2", "mlp"]
    assert [p.numel() for p in modules["norm1"].parameters()] == [12, 12]
    assert sum(p.numel() for p in PlainBlock(12, 3).parameters()) == 12 * 12**2 + 13 * 12


def test_a_block_declares_how_it_is_conditioned():
    assert (Block.takes_tokens, Block.joins_sequence, Block.final_layer) == (False, False, "plain")
    assert Block().zero_init() is None and issubclass(PlainBlock, Block)


@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward_are_the_same_on_every_device(device):
    torch.manual_seed(0)
    block, results = PlainBlock(64, 4), []
    for place in ("cpu", device):
        block = block.to(place)
        block.zero_grad()
        out = block(randn(2, 50, 64).float().to(place))
        out.square().mean().backward()
        results.append((out, block.mlp.fc1.weight.grad.clone()))
    for want, got in zip(*results):
        assert got.device.type == device and relative(got, want) < 1e-2  # TF32 has 11 significant bits
