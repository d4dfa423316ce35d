"""Graders of the plain block and of contributions: what each branch writes, and what becomes of it in the output."""

import torch
import torch.nn.functional as F

from support import relative


def test_the_branches_write_one_after_the_other(check_identity):
    """Without branches it is the identity; with one it adds that; with both, the MLP comes after the attention."""

    def holds(fn, x, norm1, attn, norm2, mlp):
        alone = fn(x, norm1, attn, norm2, torch.zeros_like)
        return (
            torch.equal(fn(x, norm1, torch.zeros_like, norm2, torch.zeros_like), x)
            and relative(alone - x, attn(norm1(x))) < 1e-9
            and relative(fn(x, norm1, torch.zeros_like, norm2, mlp) - x, mlp(norm2(x))) < 1e-9
            and relative(fn(x, norm1, attn, norm2, mlp), fn(alone, norm1, torch.zeros_like, norm2, mlp))
            < 1e-9
        )

    check_identity("plain_block", holds)


def test_contributions_add_up_to_the_output_and_follow_what_is_written(check_identity):
    """Their sum is the output; writes in another order give terms in that order; a block that writes nothing gives 0."""

    def holds(fn, states, weight, eps):
        terms = fn(states, weight, eps)
        output = F.linear(F.layer_norm(states[-1], states[-1].shape[-1:], eps=eps), weight)
        z = torch.stack(states)
        writes = torch.cat([z[:1], z.diff(dim=0)])
        idle = fn([*states, states[-1]], weight, eps)
        return (
            relative(terms.sum(0), output) < 1e-9
            and relative(fn(list(writes.flip(0).cumsum(0)), weight, eps), terms.flip(0)) < 1e-9
            and relative(idle[:-1], terms) < 1e-9
            and idle[-1].abs().max() < 1e-12
        )

    check_identity("contributions", holds)
