"""Grader of the plain block: what each branch writes, with the other one switched off."""

import torch

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
