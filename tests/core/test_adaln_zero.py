"""adaLN-Zero: the identity at the start, its formula, and the order in which its weights receive a gradient."""

import torch
import torch.nn.functional as F
from torch import nn

from dit_nb import Diffusion, DiT
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock, zero_
from support import model_inputs, randomize, relative, tiny_config


def test_zero_sets_a_layer_to_zero_in_place():
    linear = nn.Linear(3, 2)
    assert zero_(linear) is linear
    assert not linear.weight.any() and not linear.bias.any() and linear.weight.requires_grad


def test_a_new_block_is_the_identity():
    block, x = AdaLNZeroBlock(8, 2), torch.randn(2, 5, 8)
    assert torch.equal(block(x, torch.randn(2, 8)), x)
    nn.init.normal_(block.adaLN_modulation[1].weight)
    assert not torch.equal(block(x, torch.randn(2, 8)), x)
    block.zero_init()
    assert torch.equal(block(x, torch.randn(2, 8)), x)


@torch.no_grad()
def test_the_block_is_its_formula():
    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()

    block = randomize(AdaLNZeroBlock(12, 3), scale=0.3).double()
    x, c = torch.randn(4, 4, 12).double(), torch.randn(4, 12).double()  # N = T
    vectors = F.linear(F.silu(c), block.adaLN_modulation[1].weight, block.adaLN_modulation[1].bias)
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors[:, None].split(12, dim=-1)
    want = x + gate1 * block.attn(norm(x) * (1 + scale1) + shift1)
    want = want + gate2 * block.mlp(norm(want) * (1 + scale2) + shift2)
    assert relative(block(x, c), want) < 1e-12


def with_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_gradients_reach_the_last_layer_first_then_gates_then_everything():
    torch.manual_seed(0)
    model = DiT(tiny_config(class_dropout_prob=0.0)).train()
    x, t, y = model_inputs(model)
    optimizer, diffusion = torch.optim.AdamW(model.parameters(), 1e-2), Diffusion()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "pos_embed" not in names
    last = {"final_layer.linear.weight", "final_layer.linear.bias"}
    modulation = {name for name in names if "adaLN_modulation" in name}
    embed = {name for name in names if name.startswith("x_embedder")}
    for step, expected in enumerate([last, last | modulation | embed, names]):
        optimizer.zero_grad()
        diffusion.training_losses(model, x, t, y, noise=x.flip(0))["loss"].mean().backward()
        assert with_gradient(model) == expected, step
        if step == 1:  # gates receive a gradient; shift and scale, behind a closed gate, do not
            shift1, scale1, gate1, shift2, scale2, gate2 = (
                model.blocks[0].adaLN_modulation[1].weight.grad.chunk(6)
            )
            assert gate1.any() and gate2.any()
            assert not any(a.any() for a in (shift1, scale1, shift2, scale2))
        optimizer.step()
    assert torch.equal(model.pos_embed, DiT(tiny_config()).pos_embed)
