"""Graders of cross-attention: with two context tokens, a weight is a sigmoid; padding has no influence."""

import torch
import torch.nn.functional as F

from support import relative


def test_two_context_tokens_are_mixed_by_a_sigmoid(check_identity):
    def holds(fn, x, context, w_q, w_k, w_v):
        key_gap = (context[:, :1] - context[:, 1:]) @ w_k
        weight = ((x @ w_q * key_gap).sum(-1, keepdim=True) / x.shape[2] ** 0.5).sigmoid()
        first, second = (context @ w_v).split(1, dim=1)
        return relative(fn(x, context, w_q, w_k, w_v), second + weight * (first - second)) < 1e-9

    check_identity("cross_attention", holds)


def test_padding_has_no_influence_and_weights_sum_to_one(check_identity):
    def holds(fn, q, k, v, lengths):
        padding = (torch.arange(k.shape[1]) >= lengths[:, None])[..., None]
        other = fn(q, k + 9 * padding, v - 9 * padding, lengths)
        ones = fn(q, k, torch.ones_like(v), lengths)
        one_word = fn(q, k, v, torch.ones_like(lengths))
        words = [F.scaled_dot_product_attention(q[i], k[i, :n], v[i, :n]) for i, n in enumerate(lengths)]
        return (
            relative(other, fn(q, k, v, lengths)) < 1e-12
            and relative(other, torch.stack(words)) < 1e-12
            and relative(ones, torch.ones_like(ones)) < 1e-12
            and relative(one_word, v[:, :1].expand_as(one_word)) < 1e-12
        )

    check_identity("padded_attention", holds)
