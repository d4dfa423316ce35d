"""Graders of adaLN-Zero: what the branch receives, and a layer of zeros that learns."""

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
        fn(linear)
        out = linear(torch.randn(3, linear.in_features, generator=torch.manual_seed(0)).double())
        (out * torch.ones_like(out)).sum().backward()
        return not out.any() and bool(linear.weight.grad.all() and linear.bias.grad.all())

    check_identity("zero_init", holds)
