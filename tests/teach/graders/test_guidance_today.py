"""Graders of lesson 34: orthogonality, and what a rule must give at scale 1."""

import torch

from support import relative


def inner(a, b):
    return (a * b).flatten(1).sum(1)


def test_the_difference_to_the_nearest_multiple_is_orthogonal(check_identity):
    def holds(fn, cond, uncond, w):
        start, one = (fn(cond, uncond, scale) for scale in (0.0, 1.0))
        rest = inner(one - start, uncond).abs().max() / inner(uncond, uncond).max()
        straight = relative(fn(cond, uncond, w), start + w * (one - start)) < 1e-9
        ratio = start / uncond  # one number for each image
        same = relative(ratio, ratio[:, :1, :1, :1].expand_as(ratio)) < 1e-6
        return bool(rest < 1e-7) and straight and same and relative(one, cond) < 1e-6

    check_identity("cfg_zero_star", holds)


def test_the_kept_difference_has_the_right_parts(check_identity):
    def holds(fn, cond, uncond, w, eta, threshold):
        d = cond - uncond
        d = d * torch.stack([min(torch.ones(()).double(), threshold / one.norm()) for one in d]).view(
            -1, 1, 1, 1
        )
        kept = fn(cond, uncond, 2.0, eta, threshold) - cond
        along = (inner(kept, cond) - eta * inner(d, cond)).abs().max()
        full = fn(cond, uncond, 2.0, 1.0, threshold) - cond
        linear = relative(fn(cond, uncond, w, eta, threshold), cond + (w - 1) * kept) < 1e-9
        across = kept - full - (eta - 1) * (inner(d, cond) / inner(cond, cond)).view(-1, 1, 1, 1) * cond
        return bool(along < 1e-9) and relative(full, d) < 1e-9 and linear and bool(across.abs().max() < 1e-9)

    check_identity("projected_guidance", holds)
