"""Graders of the forward process: powers of signal and noise, products of new betas, and the fall of their ratio."""

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


def test_the_ratio_of_variances_crosses_the_number_at_that_step(check_identity):
    """The variances are added up backwards, from x_t to x_0, with no product of all steps so far."""

    def ratio(betas, std, t):
        signal, noise = std**2, 0.0
        for beta in betas[: t + 1].flip(0).tolist():
            noise += signal / std**2 * beta  # each step's noise is scaled down by the steps after it
            signal *= 1 - beta
        return signal / noise if noise else float("inf")

    def holds(fn, betas, std, snr):
        found = fn(betas, std, snr).tolist()
        pairs = zip(found, snr.tolist())
        return all(ratio(betas, std, t) <= r < ratio(betas, std, t - 1) for t, r in pairs)

    check_identity("timestep_of_snr", holds)
