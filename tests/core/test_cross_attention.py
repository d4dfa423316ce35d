"""The cross-attention block: PyTorch's own decoder layer, and dependence on the context."""

import torch
from torch import nn

from dit_nb.blocks.cross_attention import CrossAttentionBlock
from support import randomize, relative


@torch.no_grad()
def test_the_block_is_pytorchs_decoder_layer():
    block = randomize(CrossAttentionBlock(12, 3), scale=0.3).double()
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 2, 12).double()
    options = dict(norm_first=True, batch_first=True, dropout=0.0, layer_norm_eps=1e-6, dtype=torch.float64)
    layer = nn.TransformerDecoderLayer(12, 3, 48, activation=nn.GELU("tanh"), **options).eval()
    for their, ours in (
        (layer.self_attn, (block.attn.qkv,)),
        (layer.multihead_attn, (block.cross_attn.q, block.cross_attn.kv)),
    ):
        their.in_proj_weight.copy_(torch.cat([our.weight for our in ours]))
        their.in_proj_bias.copy_(torch.cat([our.bias for our in ours]))
    theirs = (layer.self_attn.out_proj, layer.multihead_attn.out_proj, layer.linear1, layer.linear2)
    for their, our in zip(theirs, (block.attn.proj, block.cross_attn.proj, block.mlp.fc1, block.mlp.fc2)):
        their.load_state_dict(our.state_dict())
    for their, our in zip(
        (layer.norm1, layer.norm2, layer.norm3), (block.norm1, block.norm_cross, block.norm2)
    ):
        their.load_state_dict(our.state_dict())
    assert relative(block(x, context), layer(x, context)) < 1e-12


@torch.no_grad()
def test_every_token_reads_both_tokens_of_its_own_context():
    block, x = randomize(CrossAttentionBlock(12, 3), scale=0.3), torch.randn(2, 2, 12)  # N = T = S
    context = torch.randn(2, 2, 12)
    for token in (0, 1):
        changed = context.clone()
        changed[1, token] += 1
        moved = (block(x, changed) - block(x, context)).abs().amax(-1)
        assert (moved[0] < 1e-6).all() and (moved[1] > 1e-3).all()
