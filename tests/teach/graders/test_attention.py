"""Graders of attention: the weights, read off with one-hot values, and one head at a time."""

import torch
import torch.nn.functional as F

from support import relative


def test_log_weights_differ_by_scaled_dot_products(check_identity):
    def holds(fn, q, k, v):
        one_hot = torch.eye(k.shape[2], dtype=k.dtype).expand(*k.shape[:2], -1, -1)
        weights = fn(q, k, one_hot)
        gaps = torch.einsum("nhtd,nhsd->nhts", q, k - k[:, :, :1]) / q.shape[3] ** 0.5
        return (
            relative(weights.sum(-1), torch.ones(q.shape[:3])) < 1e-9
            and relative(weights.log() - weights[..., :1].log(), gaps) < 1e-7
            and relative(fn(q, k, v), weights @ v) < 1e-9
        )

    check_identity("attention", holds)


def test_each_head_has_neighboring_channels_of_its_own(check_identity):
    def holds(fn, q, k, v, num_heads):
        d = q.shape[2] // num_heads
        heads = zip(*(x.split(d, dim=2) for x in (q, k, v)))
        return relative(fn(q, k, v, num_heads), torch.cat([one_head(*head) for head in heads], 2)) < 1e-9

    def one_head(q, k, v):
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]

    check_identity("multi_head", holds)


def test_a_sum_of_scores_is_a_product_of_weights(check_identity):
    def weights(q, k):
        return F.scaled_dot_product_attention(
            q, k, torch.eye(k.shape[2], dtype=k.dtype).expand(*k.shape[:3], -1)
        )

    def holds(fn, q1, k1, q2, k2):
        product = weights(q1, k1) * weights(q2, k2)
        scores = (q1 @ k1.mT + q2 @ k2.mT) / q1.shape[-1] ** 0.5
        q, k = fn(q1, k1, q2, k2)
        return (
            relative(weights(q, k), product / product.sum(-1, keepdim=True)) < 1e-9
            and relative(q @ k.mT / q.shape[-1] ** 0.5, scores) < 1e-9
        )

    check_identity("add_scores", holds)
