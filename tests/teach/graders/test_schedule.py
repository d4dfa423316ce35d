"""Graders of the forward process: powers of signal and noise, and the products of new betas."""

import torch

from support import relative


def test_signal_and_noise_have_powers_that_sum_to_one(check_identity):
    def holds(fn, x0, t, noise, alphas_cumprod):
        one, zero = torch.ones_like(x0), torch.zeros_like(x0)
        signal, rest = fn(one, t, zero, alphas_cumprod), fn(zero, t, one, alphas_cumprod)
        kept = torch.stack([alphas_cumprod[step].expand(x0.shape[1:]) for step in t])
        return (
            relative(signal**2, kept) < 1e-9
            and relative(signal**2 + rest**2, one) < 1e-9
            and bool((signal > 0).all() and (rest > 0).all())
            and relative(fn(x0, t, noise, alphas_cumprod), signal * x0 + rest * noise) < 1e-9
        )

    check_identity("q_sample", holds)


def test_new_betas_keep_the_noise_levels(check_identity):
    def holds(fn, alphas_cumprod, kept):
        return relative(torch.cumprod(1 - fn(alphas_cumprod, kept), 0), alphas_cumprod[kept]) < 1e-9

    check_identity("respaced_betas", holds)
