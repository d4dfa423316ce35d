"""Packed linear layers: the product and GELU in one pass, and which layers of a model are packed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb.model import DiT
from dit_nb.packed_linear import _can_pack, _pack_linear_layers, _PackedLinear
from dit_nb.speed import InferenceModel
from support import model_inputs, randomize, tiny_config, tiny_model

packs = pytest.mark.skipif(not _can_pack(torch.device("cpu")), reason="this processor does not pack weights")


@packs
@torch.inference_mode()
def test_a_packed_layer_computes_gelu_in_the_same_pass():
    g = torch.Generator().manual_seed(0)
    layer, x = nn.Linear(48, 96), torch.randn(3, 7, 48, generator=g).bfloat16()
    layer.bfloat16()
    want = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    for gelu, exact in ((False, want), (True, F.gelu(want, approximate="tanh"))):
        got = _PackedLinear(layer, gelu)(x)
        assert got.dtype == torch.bfloat16 and (got - exact).norm() / exact.norm() < 2**-8


@packs
def test_layers_of_other_kinds_are_not_packed():
    """Another activation than the GELU by tanh stays, and so does a subclass of Linear."""

    class Own(nn.Linear):
        pass

    model = randomize(DiT(tiny_config(hidden_size=32)), scale=0.15).eval()
    model.blocks[0].mlp.act, model.blocks[0].mlp.fc2 = nn.GELU(), Own(128, 32)
    fast, (x, t, y) = InferenceModel(model, "bf16"), model_inputs(model)
    assert type(fast.model.blocks[0].mlp.act) is nn.GELU and type(fast.model.blocks[0].mlp.fc2) is Own
    assert (fast(x, t, y) - model(x, t, y)).norm() / model(x, t, y).norm() < 0.02


@packs
@torch.inference_mode()
def test_attention_and_mlp_are_packed_and_nothing_else():
    model = tiny_model().bfloat16()
    layer, x = copy.deepcopy(model.blocks[0].attn.qkv), torch.randn(5, 16).bfloat16()
    _pack_linear_layers(model)
    packed = {name for name, part in model.named_modules() if type(part) is _PackedLinear}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert packed == {f"blocks.{i}.{name}" for i in range(2) for name in layers}
    assert type(model.blocks[0].mlp.act) is nn.Identity  # GELU is part of fc1
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    assert (model.blocks[0].attn.qkv(x) - exact).norm() / exact.norm() < 2**-8
