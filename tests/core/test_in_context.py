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
    assert torch.equal(block.condition(x), x)


@torch.no_grad()
def test_the_order_of_the_two_condition_tokens_does_not_matter():
    model = tiny_model("in_context")
    x, t, y = model_inputs(model)
    flipped = [None if c is None else c.flip(1) for c in model.condition(t, y)]
    assert relative(model(x, cond=flipped), model(x, t, y)) < 1e-5
