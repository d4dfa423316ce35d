"""Graders of the modern blocks: identities of a rotation, and the bound on normalized scores."""

import cmath

import torch

from support import relative


def test_a_rotation_keeps_lengths_and_depends_on_offsets_alone(check_identity):
    def holds(fn, x, rows, columns, theta):
        got = fn(x, rows, columns, theta)
        a, b = (z.unflatten(-1, (-1, 2)).norm(dim=-1) for z in (x, got))  # of each pair of neighbors
        if relative(b, a) > 1e-9 or relative(got[:, :, 0], x[:, :, 0]) > 1e-9:  # the first token stays
            return False
        same = x[:, :, :1].expand_as(x)  # the same vector everywhere
        q = fn(same, rows, columns, theta).unflatten(2, (rows, columns))
        first, second = q.chunk(2, dim=-1)  # row, column
        if relative(first[:, :, :, :1].expand_as(first), first) > 1e-9:
            return False
        if relative(second[:, :, :1].expand_as(second), second) > 1e-9:
            return False
        fastest, slowest = (2 * k for k in (0, x.shape[-1] // 4 - 1))
        return _turns_as_it_should(q[:, :, 1, 1], same[:, :, 0], theta, fastest, slowest)

    check_identity("axial_rotation", holds)


def _turns_as_it_should(moved, start, theta, fastest, slowest):
    """Whether a step along both axes turns the first pair of each by 1, and the last by its frequency."""
    half = start.shape[-1] // 2
    for axis in (0, half):
        for place, angle in ((fastest, 1.0), (slowest, theta ** (-slowest / half))):
            at = axis + place
            a, b = (torch.complex(z[..., at], z[..., at + 1]) for z in (start, moved))
            if float((b - a * cmath.exp(1j * angle)).abs().max()) > 1e-9:
                return False
    return True


def test_scores_do_not_depend_on_the_length_of_queries_and_keys(check_identity):
    def holds(fn, q, k, q_scale, k_scale, eps):
        d, ones = q.shape[-1], torch.ones_like(q_scale)
        got = fn(q, k, q_scale, k_scale, 0.0)
        if relative(fn(7 * q, k / 3, q_scale, k_scale, 0.0), got) > 1e-9 or got.shape != (
            *q.shape[:3],
            k.shape[2],
        ):
            return False
        itself = fn(q, q, ones, ones, 0.0).diagonal(dim1=-2, dim2=-1)  # of each query with itself
        if float((itself - d**0.5).abs().max()) > 1e-9:
            return False
        first = torch.zeros_like(q).index_fill(
            -1, torch.tensor([0]), 2.0
        )  # mean square 4 / d, in one channel
        want = (q_scale[0] * k_scale[0] * 4 / (4 / d + eps) / d**0.5).item()
        if float((fn(first, first, q_scale, k_scale, eps) - want).abs().max()) > 1e-9:
            return False
        one = torch.full_like(q, 2.0)  # mean square 4 in every channel
        want = ((q_scale * k_scale).sum() * 4 / (4 + eps) / d**0.5).item()
        return float((fn(one, one, q_scale, k_scale, eps) - want).abs().max()) < 1e-9

    check_identity("normalized_scores", holds)
