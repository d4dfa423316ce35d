"""The in-context block: PyTorch's own encoder layer, and a model in which the order of the condition does not matter."""

import torch
from torch import nn

from dit_nb.blocks.in_context import InContextBlock
from support import model_inputs, randomize, relative, tiny_model


@torch.no_grad()
def test_the_block_is_pytorchs_encoder_layer():
    block, x = randomize(InContextBlock(12, 3), scale=0.3).double(), torch.randn(2, 7, 12).double()
    options = dict(norm_first=True, batch_first=True, dropout=0.0, layer_norm_eps=1e-6, dtype=torch.float64)
    layer = nn.TransformerEncoderLayer(12, 3, 48, activation=nn.GELU("tanh"), **options).eval()
    layer.self_attn.in_proj_weight.copy_(block.attn.qkv.weight)
    layer.self_attn.in_proj_bias.copy_(block.attn.qkv.bias)
    theirs = (layer.self_attn.out_proj, layer.linear1, layer.linear2, layer.norm1, layer.norm2)
    for their, our in zip(theirs, (block.attn.proj, block.mlp.fc1, block.mlp.fc2, block.norm1, block.norm2)):
        their.load_state_dict(our.state_dict())
    assert relative(block(x), layer(x)) < 1e-12
    assert torch.equal(block(x, torch.randn(2, 2, 12)), block(x))  # the condition is in the sequence


@torch.no_grad()
def test_the_order_of_the_two_condition_tokens_does_not_matter():
    model = tiny_model("in_context")
    x, t, y = model_inputs(model)
    c = torch.stack([model.t_embedder(t), model.y_embedder(y)], dim=1)  # (N, 2, D)
    want = model(x, t, y)
    assert relative(model._denoise(x, c), want) < 1e-6
    assert relative(model._denoise(x, c.flip(1)), want) < 1e-5
