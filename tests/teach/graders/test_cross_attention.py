"""Grader of cross-attention: with two context tokens, the first one's weight is a sigmoid."""

from support import relative


def test_two_context_tokens_are_mixed_by_a_sigmoid(check_identity):
    def holds(fn, x, context, w_q, w_k, w_v):
        key_gap = (context[:, :1] - context[:, 1:]) @ w_k
        weight = ((x @ w_q * key_gap).sum(-1, keepdim=True) / x.shape[2] ** 0.5).sigmoid()
        first, second = (context @ w_v).split(1, dim=1)
        return relative(fn(x, context, w_q, w_k, w_v), second + weight * (first - second)) < 1e-9

    check_identity("cross_attention", holds)
