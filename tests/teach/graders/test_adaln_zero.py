"""Graders of adaLN-Zero: what the branch receives, a layer of zeros that learns, and two zeros that never do."""

import torch
import torch.nn.functional as F

from dit_nb.teach.graders.framework.core import all_exercises, reference_solution
from support import relative


def test_the_branch_receives_modulated_tokens_and_its_result_is_gated(check_identity):
    def holds(fn, x, branch, shift, scale, gate):
        received = []
        out = fn(x, lambda h: received.append(h) or branch(h), shift, scale, gate)
        normalized = (received[0] - shift) / (1 + scale)
        return (
            len(received) == 1
            and relative(normalized, F.layer_norm(x, x.shape[-1:], eps=1e-6)) < 1e-7
            and relative(out, x + gate * branch(received[0])) < 1e-9
        )

    check_identity("adaln_zero", holds)


def test_a_gate_of_zero_returns_the_tokens(check_identity):
    x, zero = torch.randn(2, 3, 4).double(), torch.zeros(2, 1, 4).double()
    for fn in (all_exercises()["adaln_zero"].oracle, reference_solution("adaln_zero")):
        assert torch.equal(fn(x, torch.exp, zero + 1, zero + 2, zero), x)


def test_the_layer_returns_zeros_and_receives_a_gradient(check_identity):
    def holds(fn, linear):
        before = list(linear.parameters())
        fn(linear)
        kept = [p is old for p, old in zip(linear.parameters(), before, strict=False)]
        out = linear(torch.randn(3, linear.in_features, generator=torch.manual_seed(0)).double())
        (out * torch.ones_like(out)).sum().backward()
        return kept == [True, True] and not out.any() and bool(all(p.grad.all() for p in before))

    check_identity("zero_init", holds)


def test_the_attention_is_stopped_by_two_zeros(check_identity):
    """Only numbers change: the block stays the identity, its MLP's gate opens, the attention stays as it was."""

    def holds(fn, block):
        fn(block)
        width = block.adaLN_modulation[-1].in_features
        x, c = torch.randn(3, 4, width).double(), torch.randn(3, width).double()
        before = {name: p.detach().clone() for name, p in block.named_parameters()}
        same = torch.equal(block(x, c), x)
        optimizer = torch.optim.SGD(block.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            (block(x, c) - x.roll(1, 0)).square().sum().backward()
            optimizer.step()
        after = dict(block.named_parameters())
        kept = all(torch.equal(after[name], before[name]) for name in after if name.startswith("attn"))
        gates = after["adaLN_modulation.1.bias"].view(6, width)[[2, 5]]
        learns = all(p.requires_grad for p in block.parameters())
        return same and learns and kept and not gates[0].any() and bool(gates[1].any())

    check_identity("stop_attention", holds)
