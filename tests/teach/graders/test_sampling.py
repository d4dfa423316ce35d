"""Graders of the samplers' steps: mean and variance, read off with opposite noise."""

import torch

from support import relative


def test_a_ddpm_step_has_the_predicted_mean_and_variance(check_identity):
    def holds(fn, diffusion, prediction, x_t, t, noise):
        plus, minus = (fn(diffusion, prediction, x_t, t, sign * noise) for sign in (1, -1))
        added, later = (plus - minus) / 2, t > 0
        variance = prediction.log_variance.exp().expand_as(noise)
        return (
            relative((plus + minus) / 2, prediction.mean) < 1e-9
            and not added[~later].any()
            and bool((added[later] * noise[later] > 0).all())
            and (not later.any() or relative((added / noise)[later] ** 2, variance[later]) < 1e-9)
        )

    check_identity("ddpm_step", holds)


def test_a_ddim_step_ends_at_the_noise_level_of_the_step_before(check_identity):
    """Old and fresh noise add up to its variance; at eta = 1 the fresh part is the posterior's variance."""

    def holds(fn, diffusion, prediction, x_t, t, noise, eta):
        bar = torch.cat([torch.ones(1).double(), torch.cumprod(1 - diffusion.betas, 0)])
        before, after = (bar[s].reshape(-1, 1, 1, 1) for s in (t, t + 1))
        old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
        noiseless = fn(diffusion, prediction, x_t, t, 0 * noise, eta)
        fresh = (fn(diffusion, prediction, x_t, t, noise, eta) - noiseless) / noise
        rest = (noiseless - before.sqrt() * prediction.x0) / old
        posterior = 1 / (1 / (1 - before) + 1 / (before / after - 1))  # 0 at t = 0
        return (
            relative(fresh, (eta * posterior.sqrt()).expand_as(fresh)) < 1e-6
            and relative(rest.square() + fresh.square(), (1 - before).expand_as(rest)) < 1e-6
            and bool((rest >= -1e-9).all())
        )

    check_identity("ddim_step", holds)


def test_known_pixels_have_the_level_of_the_step_before(check_identity):
    """Opposite noises separate signal and noise; their squares add up to 1, and the other pixels stay."""

    def holds(fn, diffusion, x_prev, t, known, mask, noise):
        inside = mask.expand_as(known) > 0.5
        plus, minus = (fn(diffusion, x_prev, t, known, mask, sign * noise) for sign in (1, -1))
        signal, fresh = ((plus + minus) / 2 / known), ((plus - minus) / 2 / noise)
        bar = torch.cat([torch.ones(1).double(), torch.cumprod(1 - diffusion.betas, 0)])
        before = bar[t].reshape(-1, 1, 1, 1).expand_as(known)
        return (
            torch.equal(plus[~inside], x_prev[~inside])
            and relative(signal[inside] ** 2, before[inside]) < 1e-9
            and relative((signal**2 + fresh**2)[inside], torch.ones_like(before[inside])) < 1e-9
            and bool((signal[inside] > 0).all() and (fresh[inside] >= 0).all())
        )

    check_identity("keep_known", holds)
