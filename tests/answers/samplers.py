"""Answers to the exercises of lessons 16 to 18: steps of samplers, few steps, guidance."""

import math

import numpy as np
import torch

from dit_nb.schedule import extract

from . import right, wrong
from .diffusion import cfg_eps_walk, col, ddim_step_official, ddim_step_with, ddpm_step_mask, sigma_of

# ---- ddpm_step


@wrong("ddpm_step", "t > 1")
def ddpm_step_paper_count(diffusion, prediction, x_t, t, noise):
    z = torch.where((t > 1)[:, None, None, None], noise, torch.zeros_like(noise))
    return prediction.mean + torch.exp(0.5 * prediction.log_variance) * z


@wrong("ddpm_step", "at the last step alone")
def ddpm_step_swapped_where(diffusion, prediction, x_t, t, noise):
    noisy = prediction.mean + torch.exp(0.5 * prediction.log_variance) * noise
    return torch.where((t == 0).view(-1, 1, 1, 1), noisy, prediction.mean)


@wrong("ddpm_step", "the result is 0")
def ddpm_step_mask_all(diffusion, prediction, x_t, t, noise):
    keep = (t > 0).view(-1, 1, 1, 1)
    return keep * (prediction.mean + torch.exp(0.5 * prediction.log_variance) * noise)


@wrong("ddpm_step", "New random numbers are drawn; use")
def ddpm_step_randn_like(diffusion, prediction, x_t, t, noise):
    return ddpm_step_mask(diffusion, prediction, x_t, t, torch.randn_like(x_t))


@wrong("ddpm_step", "in float32")
def ddpm_step_randn(diffusion, prediction, x_t, t, noise):
    return ddpm_step_mask(diffusion, prediction, x_t, t, torch.randn(*x_t.shape))


@wrong("ddpm_step", "subtracted from the mean")
def ddpm_step_minus(diffusion, prediction, x_t, t, noise):
    return ddpm_step_mask(diffusion, prediction, x_t, t, -noise)


@wrong("ddpm_step", "root of the logarithm")
def ddpm_step_sqrt_log(diffusion, prediction, x_t, t, noise):
    return prediction.mean + (t != 0).view(-1, 1, 1, 1) * prediction.log_variance.sqrt() * noise


@wrong("ddpm_step", "outside of exp")
def ddpm_step_half_outside(diffusion, prediction, x_t, t, noise):
    std = 0.5 * torch.exp(prediction.log_variance)
    return torch.where((t == 0)[:, None, None, None], prediction.mean, prediction.mean + std * noise)


@wrong("ddpm_step", "one over the standard deviation")
def ddpm_step_minus_half(diffusion, prediction, x_t, t, noise):
    return prediction.mean + (t != 0).view(-1, 1, 1, 1) * torch.exp(-0.5 * prediction.log_variance) * noise


@wrong("ddpm_step", "doubled instead of halved")
def ddpm_step_double(diffusion, prediction, x_t, t, noise):
    return prediction.mean + (t != 0).view(-1, 1, 1, 1) * torch.exp(prediction.log_variance) ** 2 * noise


@wrong("ddpm_step", "with variance 1")
def ddpm_step_unit_noise(diffusion, prediction, x_t, t, noise):
    return prediction.mean + (t != 0).view(-1, 1, 1, 1) * noise


@wrong("ddpm_step", "computed from eps")
def ddpm_step_algorithm_2(diffusion, prediction, x_t, t, noise):
    beta, bar = col(diffusion.betas, t), col(diffusion.alphas_cumprod, t)
    mean = (x_t - beta * prediction.eps / torch.sqrt(1 - bar)) / torch.sqrt(1 - beta)
    return ddpm_step_mask(diffusion, prediction._replace(mean=mean), x_t, t, noise)


@wrong("ddpm_step", "posterior variance of the schedule")
def ddpm_step_posterior_variance(diffusion, prediction, x_t, t, noise):
    std = extract(diffusion.posterior_variance, t, x_t).sqrt()
    return prediction.mean + (t > 0).view(-1, 1, 1, 1) * std * noise


@wrong("ddpm_step", "ambiguous")
def ddpm_step_if(diffusion, prediction, x_t, t, noise):
    if t == 0:
        return prediction.mean
    return prediction.mean + torch.exp(0.5 * prediction.log_variance) * noise


# ---- ddim_step


def ddim_levels(diffusion, t):
    return col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod_prev, t)


def ddim_from(prediction, x_t, noise, now, before, sigma):
    eps = (x_t - now.sqrt() * prediction.x0) / (1 - now).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps + sigma * noise


@right("ddim_step")
def ddim_step_without_clamp(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    sigma = eta * torch.sqrt((1 - before) / (1 - now)) * torch.sqrt(1 - now / before)
    eps = (x_t - torch.sqrt(now) * prediction.x0) / torch.sqrt(1 - now)
    return torch.sqrt(before) * prediction.x0 + torch.sqrt(1 - before - sigma**2) * eps + sigma * noise


@wrong("ddim_step", "root of a negative number")
def ddim_step_index_minus_1(diffusion, prediction, x_t, t, noise, eta):
    now, before = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod, t - 1)
    sigma = eta * torch.sqrt((1 - before) / (1 - now)) * torch.sqrt(1 - now / before)
    eps = (x_t - torch.sqrt(now) * prediction.x0) / torch.sqrt(1 - now)
    return torch.sqrt(before) * prediction.x0 + torch.sqrt(1 - before - sigma**2) * eps + sigma * noise


@wrong("ddim_step", "the last step goes nowhere")
def ddim_step_clamped_index(diffusion, prediction, x_t, t, noise, eta):
    now, before = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod, (t - 1).clamp(min=0))
    sigma = eta * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()
    return ddim_from(prediction, x_t, noise, now, before, sigma)


@wrong("ddim_step", "0 instead of 1")
def ddim_step_padded_with_0(diffusion, prediction, x_t, t, noise, eta):
    table = torch.cat([torch.full((1,), 1e-300).double(), diffusion.alphas_cumprod[:-1]])
    now, before = col(diffusion.alphas_cumprod, t), col(table, t)
    sigma = eta * ((1 - before) / (1 - now) * (1 - now / before)).clamp(min=0).sqrt()
    return ddim_from(prediction, x_t, noise, now, before, sigma)


@wrong("ddim_step", "next noisier level")
def ddim_step_wrong_way(diffusion, prediction, x_t, t, noise, eta):
    table = diffusion.alphas_cumprod
    now, before = col(table, t), col(table, (t + 1).clamp(max=len(table) - 1))
    sigma = eta * ((1 - before) / (1 - now) * (1 - now / before)).clamp(min=0).sqrt()
    return ddim_from(prediction, x_t, noise, now, before, sigma)


@wrong("ddim_step", "New random numbers are drawn; use")
def ddim_step_randn_like(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, torch.randn_like(x_t), eta)


@wrong("ddim_step", "in float32")
def ddim_step_randn(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, torch.randn(x_t.shape), eta)


@wrong("ddim_step", "with scale eta alone")
def ddim_step_eta_is_sigma(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(diffusion, prediction, x_t, t, noise, torch.tensor(eta))


@wrong("ddim_step", "eta is squared")
def ddim_step_eta_squared(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta**2 * sigma_of(diffusion, t))


@wrong("ddim_step", "The fresh noise is not added")
def ddim_step_forgot_noise(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(diffusion, prediction, x_t, t, 0, eta * sigma_of(diffusion, t))


@wrong("ddim_step", "without its square")
def ddim_step_sigma_not_squared(diffusion, prediction, x_t, t, noise, eta):
    sigma = eta * sigma_of(diffusion, t)
    left = (1 - col(diffusion.alphas_cumprod_prev, t) - sigma).clamp(min=0)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma, left=left)


@wrong("ddim_step", "old noise is scaled by a variance")
def ddim_step_no_root_of_rest(diffusion, prediction, x_t, t, noise, eta):
    sigma = eta * sigma_of(diffusion, t)
    left = (1 - col(diffusion.alphas_cumprod_prev, t) - sigma**2).clamp(min=0)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma, left=left**2)


@wrong("ddim_step", "scaled by alphas_cumprod; its root")
def ddim_step_no_root_of_signal(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    full = ddim_step_official(diffusion, prediction, x_t, t, noise, eta)
    return full + (before - before**0.5) * prediction.x0


@wrong("ddim_step", "added in full")
def ddim_step_unscaled_x0(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    full = ddim_step_official(diffusion, prediction, x_t, t, noise, eta)
    return full + (1 - before**0.5) * prediction.x0


@wrong("ddim_step", "first factor of sigma is missing")
def ddim_step_sigma_of_forward(diffusion, prediction, x_t, t, noise, eta):
    sigma = eta * col(diffusion.betas, t).sqrt()
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma)


@wrong("ddim_step", "second factor of sigma is missing")
def ddim_step_half_sigma(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    sigma = eta * torch.sqrt((1 - before) / (1 - now))
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma)


@wrong("ddim_step", "infinite at t = 0")
def ddim_step_first_factor(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    sigma = eta * ((1 - now) / (1 - before) * (1 - now / before)).sqrt()
    return ddim_from(prediction, x_t, noise, now, before, sigma)


@wrong("ddim_step", "second factor of sigma is upside down")
def ddim_step_second_factor(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    sigma = eta * ((1 - before) / (1 - now) * (1 - before / now)).sqrt()
    return ddim_from(prediction, x_t, noise, now, before, sigma)


@wrong("ddim_step", "x_t itself is used")
def ddim_step_x_t_as_noise(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=x_t)


@wrong("ddim_step", "divided by its variance")
def ddim_step_eps_over_variance(diffusion, prediction, x_t, t, noise, eta):
    now, _ = ddim_levels(diffusion, t)
    eps = (x_t - now.sqrt() * prediction.x0) / (1 - now)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("ddim_step", "not divided by its standard deviation")
def ddim_step_eps_undivided(diffusion, prediction, x_t, t, noise, eta):
    now, _ = ddim_levels(diffusion, t)
    eps = x_t - now.sqrt() * prediction.x0
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("ddim_step", "computed with the level of the step before")
def ddim_step_eps_of_before(diffusion, prediction, x_t, t, noise, eta):
    _, before = ddim_levels(diffusion, t)
    eps = (x_t - before.sqrt() * prediction.x0) / (1 - before).sqrt()
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("ddim_step", "old noise is scaled to the level of t")
def ddim_step_noise_of_now(diffusion, prediction, x_t, t, noise, eta):
    sigma = eta * sigma_of(diffusion, t)
    left = (1 - col(diffusion.alphas_cumprod, t) - sigma**2).clamp(min=0)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma, left=left)


@wrong("ddim_step", "clean image is scaled to the level of t")
def ddim_step_signal_of_now(diffusion, prediction, x_t, t, noise, eta):
    now, before = ddim_levels(diffusion, t)
    full = ddim_step_official(diffusion, prediction, x_t, t, noise, eta)
    return full - before.sqrt() * prediction.x0 + now.sqrt() * prediction.x0


# ---- keep_known


@right("keep_known")
def keep_known_where(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t)
    return torch.where(mask.bool(), bar.sqrt() * known + (1 - bar).sqrt() * noise, x_prev)


@right("keep_known")
def keep_known_index(diffusion, x_prev, t, known, mask, noise):
    result = x_prev.clone()
    for i, k in enumerate(t.tolist()):
        image = known[i]
        if k > 0:
            image = diffusion.q_sample(known[i : i + 1], t[i : i + 1] - 1, noise[i : i + 1])[0]
        place = mask[i].expand_as(image) > 0
        result[i][place] = image[place]
    return result


@right("keep_known")
def keep_known_lerp(diffusion, x_prev, t, known, mask, noise):
    bar = extract(diffusion.alphas_cumprod_prev, t, known)
    return torch.lerp(x_prev, bar**0.5 * known + (1 - bar) ** 0.5 * noise, mask.expand_as(known))


def merge(mask, image, x_prev):
    return image * mask + x_prev * (1 - mask)


@wrong("keep_known", "the step that was left")
def keep_known_level_t(diffusion, x_prev, t, known, mask, noise):
    return merge(mask, diffusion.q_sample(known, t, noise), x_prev)


@wrong("keep_known", "no step t - 1")
def keep_known_q_sample(diffusion, x_prev, t, known, mask, noise):
    return merge(mask, diffusion.q_sample(known, t - 1, noise), x_prev)


@wrong("keep_known", "wraps around")
def keep_known_index_minus_1(diffusion, x_prev, t, known, mask, noise):
    bar = diffusion.alphas_cumprod[t - 1][:, None, None, None]
    return merge(mask, bar.sqrt() * known + (1 - bar).sqrt() * noise, x_prev)


@wrong("keep_known", "there they must be clean")
def keep_known_clamped_index(diffusion, x_prev, t, known, mask, noise):
    return merge(mask, diffusion.q_sample(known, (t - 1).clamp(min=0), noise), x_prev)


@wrong("keep_known", "have no noise: the other pixels")
def keep_known_clean(diffusion, x_prev, t, known, mask, noise):
    return torch.where(mask > 0, known, x_prev)


@wrong("keep_known", "scaled, but have no noise")
def keep_known_mean(diffusion, x_prev, t, known, mask, noise):
    return merge(mask, col(diffusion.alphas_cumprod_prev, t) ** 0.5 * known, x_prev)


@wrong("keep_known", "not scaled")
def keep_known_unscaled(diffusion, x_prev, t, known, mask, noise):
    return merge(mask, known + (1 - col(diffusion.alphas_cumprod_prev, t)).sqrt() * noise, x_prev)


@wrong("keep_known", "clean at t = 0, but")
def keep_known_clean_at_the_end(diffusion, x_prev, t, known, mask, noise):
    noised = diffusion.q_sample(known, t, noise)
    return merge(mask, torch.where((t == 0).view(-1, 1, 1, 1), known, noised), x_prev)


@wrong("keep_known", "one step forward")
def keep_known_betas(diffusion, x_prev, t, known, mask, noise):
    beta = col(diffusion.betas, t)
    return merge(mask, (1 - beta).sqrt() * known + beta.sqrt() * noise, x_prev)


@wrong("keep_known", "mask is inverted")
def keep_known_inverted(diffusion, x_prev, t, known, mask, noise):
    return keep_known_where(diffusion, x_prev, t, known, 1 - mask, noise)


@wrong("keep_known", "whole image is replaced")
def keep_known_all(diffusion, x_prev, t, known, mask, noise):
    return keep_known_where(diffusion, x_prev, t, known, torch.ones_like(mask), noise)


@wrong("keep_known", "Nothing is replaced")
def keep_known_nothing(diffusion, x_prev, t, known, mask, noise):
    result = x_prev.clone()
    result[mask.expand_as(known) == 2] = 0
    return result


@wrong("keep_known", "unknown pixels are lost")
def keep_known_only(diffusion, x_prev, t, known, mask, noise):
    return mask * keep_known_all(diffusion, x_prev, t, known, mask, noise)


@wrong("keep_known", "added to the sample")
def keep_known_added(diffusion, x_prev, t, known, mask, noise):
    return x_prev + keep_known_only(diffusion, x_prev, t, known, mask, noise)


@wrong("keep_known", "square roots are missing")
def keep_known_no_roots(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t)
    return merge(mask, bar * known + (1 - bar) * noise, x_prev)


@wrong("keep_known", "scaled by its variance")
def keep_known_one_root(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t)
    return merge(mask, torch.sqrt(bar) * known + (1 - bar) * noise, x_prev)


@wrong("keep_known", "shares of signal and noise are exchanged")
def keep_known_exchanged(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t)
    return merge(mask, torch.sqrt(1 - bar) * known + torch.sqrt(bar) * noise, x_prev)


@wrong("keep_known", "it is their squares")
def keep_known_linear(diffusion, x_prev, t, known, mask, noise):
    a = col(diffusion.alphas_cumprod_prev, t).sqrt()
    return merge(mask, a * known + (1 - a) * noise, x_prev)


@wrong("keep_known", "New random numbers are drawn; use")
def keep_known_randn_like(diffusion, x_prev, t, known, mask, noise):
    return keep_known_where(diffusion, x_prev, t, known, mask, torch.randn_like(known))


@wrong("keep_known", "in float32")
def keep_known_randn(diffusion, x_prev, t, known, mask, noise):
    return keep_known_where(diffusion, x_prev, t, known, mask, torch.randn(known.shape))


@wrong("keep_known", "columns of each image")
def keep_known_flat(diffusion, x_prev, t, known, mask, noise):
    bar = diffusion.alphas_cumprod_prev[t]
    return merge(mask, torch.sqrt(bar) * known + torch.sqrt(1 - bar) * noise, x_prev)


@wrong("keep_known", "changes its input x_prev")
def keep_known_in_place(diffusion, x_prev, t, known, mask, noise):
    inside = mask.expand_as(known).bool()
    x_prev[inside] = keep_known_all(diffusion, x_prev, t, known, mask, noise)[inside]
    return x_prev


# ---- even_log_snr


@right("even_log_snr")
def timesteps_numpy(alphas_cumprod, steps):
    values = np.log(alphas_cumprod.numpy() / (1 - alphas_cumprod.numpy()))
    return torch.tensor([np.abs(values - v).argmin() for v in np.linspace(values[0], values[-1], steps)])


@right("even_log_snr")
def timesteps_lambda(alphas_cumprod, steps):
    lam = torch.log(torch.sqrt(alphas_cumprod) / torch.sqrt(1 - alphas_cumprod))
    grid = lam[0] + (lam[-1] - lam[0]) * torch.arange(steps, dtype=torch.float64) / (steps - 1)
    return torch.stack([(lam - value).abs().argmin() for value in grid])


@right("even_log_snr")
def timesteps_noise_to_signal(alphas_cumprod, steps):
    values = (1 / alphas_cumprod - 1).log()
    grid = torch.linspace(values[-1].item(), values[0].item(), steps, dtype=torch.float64).flip(0)
    return torch.cdist(grid[:, None], values[:, None]).argmin(1)


def nearest(values, steps):
    wanted = torch.linspace(values[0].item(), values[-1].item(), steps, dtype=torch.float64)
    return torch.tensor([int((values - w).abs().argmin()) for w in wanted])


def snr_logs(alphas_cumprod):
    return alphas_cumprod.log() - (1 - alphas_cumprod).log()


@wrong("even_log_snr", "even in t; they")
def timesteps_even(alphas_cumprod, steps):
    return torch.tensor([round(i * (len(alphas_cumprod) - 1) / (steps - 1)) for i in range(steps)])


@wrong("even_log_snr", "rounded down")
def timesteps_even_int(alphas_cumprod, steps):
    return torch.tensor([int(i * (len(alphas_cumprod) - 1) / (steps - 1)) for i in range(steps)])


@wrong("even_log_snr", "even in SNR; the logarithm")
def timesteps_snr(alphas_cumprod, steps):
    return nearest(alphas_cumprod / (1 - alphas_cumprod), steps)


@wrong("even_log_snr", "even in the share of signal")
def timesteps_bar(alphas_cumprod, steps):
    return nearest(alphas_cumprod, steps)


@wrong("even_log_snr", "logarithm of the share of signal")
def timesteps_log_bar(alphas_cumprod, steps):
    return nearest(torch.log(alphas_cumprod), steps)


@wrong("even_log_snr", "even in the share of noise")
def timesteps_noise(alphas_cumprod, steps):
    return nearest((1 - alphas_cumprod) ** 0.5, steps)


@wrong("even_log_snr", "logarithm of the noise")
def timesteps_log_noise(alphas_cumprod, steps):
    return nearest(torch.log((1 - alphas_cumprod) ** 0.5), steps)


@wrong("even_log_snr", "even in sigma")
def timesteps_sigma(alphas_cumprod, steps):
    return nearest(((1 - alphas_cumprod) / alphas_cumprod).sqrt(), steps)


@wrong("even_log_snr", "logarithm of t")
def timesteps_geometric(alphas_cumprod, steps):
    T = len(alphas_cumprod)
    return torch.tensor([round(T ** (i / (steps - 1))) - 1 for i in range(steps)])


@wrong("even_log_snr", "falling order")
def timesteps_falling(alphas_cumprod, steps):
    return nearest(snr_logs(alphas_cumprod).flip(0), steps).neg() + len(alphas_cumprod) - 1


@wrong("even_log_snr", "The last timestep, T - 1, is missing")
def timesteps_arange(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    wanted = values[0] + (values[-1] - values[0]) * torch.arange(steps, dtype=torch.float64) / steps
    return (values[None] - wanted[:, None]).abs().argmin(dim=1)


@wrong("even_log_snr", "The first timestep, 0, is missing")
def timesteps_arange_from_1(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    wanted = values[0] + (values[-1] - values[0]) * torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return (values[None] - wanted[:, None]).abs().argmin(dim=1)


@wrong("even_log_snr", "one timestep too many")
def timesteps_intervals(alphas_cumprod, steps):
    return nearest(snr_logs(alphas_cumprod), steps + 1)


@wrong("even_log_snr", "next timestep beyond")
def timesteps_beyond(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    wanted = torch.linspace(values[0].item(), values[-1].item(), steps, dtype=torch.float64)
    return torch.tensor([int((values > w).sum()) for w in wanted]).clamp(max=len(values) - 1)


@wrong("even_log_snr", "last timestep before")
def timesteps_before(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    wanted = torch.linspace(values[0].item(), values[-1].item(), steps, dtype=torch.float64)
    return torch.tensor([int((values >= w).sum()) - 1 for w in wanted])


@wrong("even_log_snr", "values of log SNR; return")
def timesteps_values(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    return torch.linspace(values[0].item(), values[-1].item(), steps, dtype=torch.float64)


@wrong("even_log_snr", "log SNRs of the chosen")
def timesteps_their_values(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    return values[nearest(values, steps)]


@wrong("even_log_snr", "shares of signal at the chosen")
def timesteps_their_bars(alphas_cumprod, steps):
    return alphas_cumprod[nearest(snr_logs(alphas_cumprod), steps)]


@wrong("even_log_snr", "must return a tensor, but returns a list")
def timesteps_list(alphas_cumprod, steps):
    return nearest(snr_logs(alphas_cumprod), steps).tolist()


# ---- second_order_step


def lam(bar):
    return 0.5 * torch.log(bar / (1 - bar))


def first_order(x, x0, now, after):
    a, b = torch.sqrt(after), torch.sqrt(1 - after)
    return b / torch.sqrt(1 - now) * x - a * torch.expm1(lam(now) - lam(after)) * x0


@right("second_order_step")
def second_order_paper(x, x0, last_x0, before, now, after):
    h = lam(after) - lam(now)
    r = (lam(now) - lam(before)) / h
    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last_x0
    return first_order(x, d, now, after)


@right("second_order_step")
def second_order_ddim(x, x0, last_x0, before, now, after):
    snr = [(bar / (1 - bar)).log() for bar in (before, now, after)]
    x0 = x0 + (x0 - last_x0) / (snr[1] - snr[0]) * (snr[2] - snr[1]) / 2
    eps = (x - now.sqrt() * x0) / (1 - now).sqrt()
    return after.sqrt() * x0 + (1 - after).sqrt() * eps


@right("second_order_step")
def second_order_math(x, x0, last_x0, before, now, after):
    e = [math.sqrt(bar / (1 - bar)) for bar in (before, now, after)]
    slope = (x0 - last_x0) / math.log(e[1] / e[0])
    middle = x0 + slope * math.log(e[2] / e[1]) / 2
    return math.sqrt(1 - after) * (x / math.sqrt(1 - now) + (e[2] - e[1]) * middle)


def extrapolated(x, x0, last_x0, now, after, ahead):
    return first_order(x, x0 + ahead * (x0 - last_x0), now, after)


@wrong("second_order_step", "this is DDIM")
def second_order_first(x, x0, last_x0, before, now, after):
    eps = (x - now.sqrt() * x0) / (1 - now).sqrt()
    return after.sqrt() * x0 + (1 - after).sqrt() * eps


@wrong("second_order_step", "to the end of the step")
def second_order_end(x, x0, last_x0, before, now, after):
    return extrapolated(x, x0, last_x0, now, after, (lam(after) - lam(now)) / (lam(now) - lam(before)))


@wrong("second_order_step", "a quarter of the step")
def second_order_quarter(x, x0, last_x0, before, now, after):
    h, h_last = lam(after) - lam(now), lam(now) - lam(before)
    return extrapolated(x, x0, last_x0, now, after, h / (4 * h_last))


@wrong("second_order_step", "extrapolated backwards")
def second_order_backwards(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    return first_order(x, x0 + (last_x0 - x0) / (2 * r), now, after)


@wrong("second_order_step", "lies behind")
def second_order_mean(x, x0, last_x0, before, now, after):
    return first_order(x, 0.5 * (x0 + last_x0), now, after)


@wrong("second_order_step", "used alone")
def second_order_last_alone(x, x0, last_x0, before, now, after):
    return first_order(x, last_x0, now, after)


@wrong("second_order_step", "equally long")
def second_order_adams(x, x0, last_x0, before, now, after):
    return first_order(x, 1.5 * x0 - 0.5 * last_x0, now, after)


@wrong("second_order_step", "upside down")
def second_order_ratio(x, x0, last_x0, before, now, after):
    r = (lam(after) - lam(now)) / (lam(now) - lam(before))
    return first_order(x, x0 + 1 / (2 * r) * (x0 - last_x0), now, after)


@wrong("second_order_step", "measured in the share of signal")
def second_order_bar(x, x0, last_x0, before, now, after):
    return extrapolated(x, x0, last_x0, now, after, 0.5 * (after - now) / (now - before))


@wrong("second_order_step", "measured in SNR")
def second_order_snr(x, x0, last_x0, before, now, after):
    s0, s1, s2 = (bar / (1 - bar) for bar in (before, now, after))
    return extrapolated(x, x0, last_x0, now, after, 0.5 * (s2 - s1) / (s1 - s0))


@wrong("second_order_step", "measured in signal over noise")
def second_order_ratio_of_signal(x, x0, last_x0, before, now, after):
    s0, s1, s2 = (bar.sqrt() / (1 - bar).sqrt() for bar in (before, now, after))
    return extrapolated(x, x0, last_x0, now, after, 0.5 * (s2 - s1) / (s1 - s0))


@wrong("second_order_step", "logarithm of the signal")
def second_order_log_signal(x, x0, last_x0, before, now, after):
    s0, s1, s2 = (0.5 * bar.log() for bar in (before, now, after))
    return extrapolated(x, x0, last_x0, now, after, 0.5 * (s2 - s1) / (s1 - s0))


@wrong("second_order_step", "two predictions are exchanged")
def second_order_exchanged(x, x0, last_x0, before, now, after):
    return second_order_paper(x, last_x0, x0, before, now, after)


@wrong("second_order_step", "before it was extrapolated")
def second_order_old_eps(x, x0, last_x0, before, now, after):
    eps = (x - now.sqrt() * x0) / (1 - now).sqrt()
    d = x0 + (lam(after) - lam(now)) / (2 * (lam(now) - lam(before))) * (x0 - last_x0)
    return after.sqrt() * d + (1 - after).sqrt() * eps


@wrong("second_order_step", "half of log SNR")
def second_order_full_log_snr(x, x0, last_x0, before, now, after):
    l0, l1, l2 = (torch.log(bar / (1 - bar)) for bar in (before, now, after))
    d = x0 + (l2 - l1) / (l1 - l0) / 2 * (x0 - last_x0)
    return torch.sqrt((1 - after) / (1 - now)) * x + torch.sqrt(after) * (1 - torch.exp(-(l2 - l1))) * d


@wrong("second_order_step", "A square root is missing")
def second_order_no_roots(x, x0, last_x0, before, now, after):
    snr = [(bar / (1 - bar)).log() for bar in (before, now, after)]
    d = x0 + (snr[2] - snr[1]) / (snr[1] - snr[0]) / 2 * (x0 - last_x0)
    eps = (x - now * d) / (1 - now)
    return after * d + (1 - after) * eps


@wrong("second_order_step", "noise does not shrink")
def second_order_same_noise(x, x0, last_x0, before, now, after):
    snr = [(bar / (1 - bar)).log() for bar in (before, now, after)]
    d = x0 + (snr[2] - snr[1]) / (snr[1] - snr[0]) / 2 * (x0 - last_x0)
    return after.sqrt() * d + (x - now.sqrt() * d)


@wrong("second_order_step", "in units of the noise")
def second_order_not_scaled_back(x, x0, last_x0, before, now, after):
    snr = [(bar / (1 - bar)).log() for bar in (before, now, after)]
    d = x0 + (snr[2] - snr[1]) / (snr[1] - snr[0]) / 2 * (x0 - last_x0)
    return x / (1 - now).sqrt() + ((after / (1 - after)).sqrt() - (now / (1 - now)).sqrt()) * d


@wrong("second_order_step", "noise of the old level")
def second_order_scaled_by_now(x, x0, last_x0, before, now, after):
    return (1 - now).sqrt() * second_order_not_scaled_back(x, x0, last_x0, before, now, after)


@wrong("second_order_step", "This is the extrapolated clean image")
def second_order_only_x0(x, x0, last_x0, before, now, after):
    return x0 + (lam(after) - lam(now)) / (2 * (lam(now) - lam(before))) * (x0 - last_x0)


@wrong("second_order_step", "A sign is lost")
def second_order_plus(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    return first_order(x, (1 + 1 / (2 * r)) * x0 + 1 / (2 * r) * last_x0, now, after)


@wrong("second_order_step", "sign of the second part")
def second_order_minus(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last_x0
    h = lam(after) - lam(now)
    return torch.sqrt((1 - after) / (1 - now)) * x + torch.sqrt(after) * (torch.exp(-h) - 1) * d


@wrong("second_order_step", "divided the wrong way around")
def second_order_noise_ratio(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last_x0
    h = lam(after) - lam(now)
    return torch.sqrt((1 - now) / (1 - after)) * x - torch.sqrt(after) * (torch.exp(-h) - 1) * d


@wrong("second_order_step", "signal of the level that was left")
def second_order_signal_of_now(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last_x0
    h = lam(after) - lam(now)
    return torch.sqrt((1 - after) / (1 - now)) * x - torch.sqrt(now) * (torch.exp(-h) - 1) * d


# ---- cfg_eps


@wrong("cfg_eps", "scaled and added to the one with it")
def cfg_eps_scaled_uncond(cond, uncond, cfg_scale):
    return cond + cfg_scale * uncond


@wrong("cfg_eps", "is subtracted; the line")
def cfg_eps_minus_start(cond, uncond, cfg_scale):
    return cfg_scale * (cond - uncond) - uncond


@wrong("cfg_eps", "guidance is subtracted")
def cfg_eps_minus(cond, uncond, cfg_scale):
    return uncond - cfg_scale * (cond - uncond)


@wrong("cfg_eps", "Only the prediction with the label is left")
def cfg_eps_scaled_cond(cond, uncond, cfg_scale):
    return cfg_scale * cond


@wrong("cfg_eps", "subtracted in full")
def cfg_eps_no_parentheses(cond, uncond, cfg_scale):
    return cfg_scale * cond - uncond


@wrong("cfg_eps", "Both predictions are added and scaled")
def cfg_eps_scaled_sum(cond, uncond, cfg_scale):
    return cfg_scale * (cond + uncond)


@wrong("cfg_eps", "sum of both")
def cfg_eps_from_sum(cond, uncond, cfg_scale):
    return cond + uncond + cfg_scale * (cond - uncond)


@wrong("cfg_eps", "wrong sign")
def cfg_eps_sign_of_rest(cond, uncond, cfg_scale):
    return cfg_scale * cond - (1 - cfg_scale) * uncond


@wrong("cfg_eps", "one scale further")
def cfg_eps_both_conventions(cond, uncond, cfg_scale):
    return cond + (1 + cfg_scale) * (cond - uncond)


# ---- guided_output


@wrong("guided_output", "however many there are")
def guided_output_colon_3(cond, uncond, cfg_scale):
    eps = cfg_eps_walk(cond[:, :3], uncond[:, :3], cfg_scale)
    return torch.cat([eps, cond[:, 3:]], dim=1)


@wrong("guided_output", "Only the first channel")
def guided_output_first(cond, uncond, cfg_scale):
    result = cond.clone()
    result[:, 0] = cfg_eps_walk(cond[:, 0], uncond[:, 0], cfg_scale)
    return result


@wrong("guided_output", "Nothing is guided")
def guided_output_forgot(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    return torch.cat([eps, values], dim=1)


@wrong("guided_output", "two outputs are exchanged: ")
def guided_output_exchanged(cond, uncond, cfg_scale):
    (eps, values), (bare, _) = cond.chunk(2, dim=1), uncond.chunk(2, dim=1)
    return torch.cat([eps + cfg_scale * (bare - eps), values], dim=1)


@wrong("guided_output", "exchanged everywhere")
def guided_output_exchanged_twice(cond, uncond, cfg_scale):
    (eps, _), (bare, values) = cond.chunk(2, dim=1), uncond.chunk(2, dim=1)
    return torch.cat([eps + cfg_scale * (bare - eps), values], dim=1)


@wrong("guided_output", "the mean of both")
def guided_output_mean_variance(cond, uncond, cfg_scale):
    (eps, values), (bare, others) = cond.chunk(2, dim=1), uncond.chunk(2, dim=1)
    return torch.cat([bare + cfg_scale * (eps - bare), (values + others) / 2], dim=1)


@wrong("guided_output", "variance values are 0")
def guided_output_zeros(cond, uncond, cfg_scale):
    (eps, values), (bare, _) = cond.chunk(2, dim=1), uncond.chunk(2, dim=1)
    return torch.cat([bare + cfg_scale * (eps - bare), torch.zeros_like(values)], dim=1)


@wrong("guided_output", "variance values come first")
def guided_output_order(cond, uncond, cfg_scale):
    (eps, values), (bare, _) = cond.chunk(2, dim=1), uncond.chunk(2, dim=1)
    return torch.cat([values, bare + cfg_scale * (eps - bare)], dim=1)


# ---- combine_conditions


@right("combine_conditions")
def combine_einsum(uncond, conds, weights):
    return uncond + torch.einsum("k,knchw->nchw", weights, conds - uncond)


@right("combine_conditions")
def combine_loop(uncond, conds, weights):
    result = uncond
    for cond, w in zip(conds, weights):
        result = result + w * (cond - uncond)
    return result


@right("combine_conditions")
def combine_weights(uncond, conds, weights):
    return (1 - weights.sum()) * uncond + torch.tensordot(weights, conds, dims=1)


def spread(weights):
    return weights[:, None, None, None, None]


@wrong("combine_conditions", "not subtracted from the others")
def combine_plus(uncond, conds, weights):
    result = uncond.clone()
    for cond, w in zip(conds, weights):
        result += w * cond
    return result


@wrong("combine_conditions", "where the sum starts")
def combine_no_start(uncond, conds, weights):
    return sum(w * (cond - uncond) for cond, w in zip(conds, weights))


@wrong("combine_conditions", "is missing, or it cancels")
def combine_weighted_sum(uncond, conds, weights):
    return torch.tensordot(weights, conds, dims=1)


@wrong("combine_conditions", "subtracted from the weighted sum")
def combine_minus_once(uncond, conds, weights):
    return torch.einsum("k,knchw->nchw", weights, conds) - uncond


@wrong("combine_conditions", "once for each condition")
def combine_many_starts(uncond, conds, weights):
    return sum(cfg_eps_walk(cond, uncond, w) for cond, w in zip(conds, weights))


@wrong("combine_conditions", "directions are averaged")
def combine_mean(uncond, conds, weights):
    return uncond + torch.mean(spread(weights) * (conds - uncond), dim=0)


@wrong("combine_conditions", "weights are not used")
def combine_unweighted(uncond, conds, weights):
    return uncond + (conds - uncond).sum(0)


@wrong("combine_conditions", "divided by their sum")
def combine_normalized(uncond, conds, weights):
    return combine_einsum(uncond, conds, weights / weights.sum())


@wrong("combine_conditions", "first weight is used")
def combine_first_weight(uncond, conds, weights):
    return uncond + weights[0] * (conds - uncond).sum(dim=0)


@wrong("combine_conditions", "Only the first condition")
def combine_first(uncond, conds, weights):
    for cond, w in zip(conds, weights):
        return uncond + w * (cond - uncond)


@wrong("combine_conditions", "Only the last condition")
def combine_last(uncond, conds, weights):
    for cond, w in zip(conds, weights):
        result = uncond + w * (cond - uncond)
    return result


@wrong("combine_conditions", "treated as 0")
def combine_clipped(uncond, conds, weights):
    return combine_loop(uncond, conds, torch.relu(weights))


@wrong("combine_conditions", "treated as positive")
def combine_absolute(uncond, conds, weights):
    return combine_loop(uncond, conds, weights.abs())


@wrong("combine_conditions", "sign of the directions")
def combine_sign(uncond, conds, weights):
    return uncond + (spread(weights) * (uncond - conds)).sum(0)


@wrong("combine_conditions", "0 is no guidance")
def combine_one_plus(uncond, conds, weights):
    return uncond + (spread(1 + weights) * (conds - uncond)).sum(0)


@wrong("combine_conditions", "order matters")
def combine_chain(uncond, conds, weights):
    result = uncond
    for cond, w in zip(conds, weights):
        result = cfg_eps_walk(cond, result, w)
    return result


@wrong("combine_conditions", "columns of each image")
def combine_columns(uncond, conds, weights):
    return uncond + (weights * (conds - uncond)).sum(dim=0)


@wrong("combine_conditions", "over the batch")
def combine_batch(uncond, conds, weights):
    return uncond + (spread(weights) * (conds - uncond)).sum(dim=1)


@wrong("combine_conditions", "the predictions averaged")
def combine_average(uncond, conds, weights):
    return cfg_eps_walk(conds.mean(0), uncond, weights.sum())


# ---- found in a trial


@wrong("ddim_step", "a DDPM step with less noise")
def ddim_step_of_the_mean(diffusion, prediction, x_t, t, noise, eta):
    std = torch.exp(0.5 * prediction.log_variance)
    return prediction.mean + (t != 0).view(-1, 1, 1, 1) * eta * std * noise


@wrong("ddim_step", "standard deviation of the prediction")
def ddim_step_predicted_sigma(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(
        diffusion, prediction, x_t, t, noise, eta * torch.exp(0.5 * prediction.log_variance)
    )


@wrong("ddim_step", "which must be scaled first")
def ddim_step_eps_unscaled(diffusion, prediction, x_t, t, noise, eta):
    now, _ = ddim_levels(diffusion, t)
    eps = (x_t - prediction.x0) / (1 - now).sqrt()
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("ddim_step", "In the noise, the clean image")
def ddim_step_eps_no_root(diffusion, prediction, x_t, t, noise, eta):
    now, _ = ddim_levels(diffusion, t)
    eps = (x_t - now * prediction.x0) / (1 - now).sqrt()
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("keep_known", "subtracted from the known pixels")
def keep_known_minus(diffusion, x_prev, t, known, mask, noise):
    return keep_known_where(diffusion, x_prev, t, known, mask, -noise)


@wrong("keep_known", "next noisier level")
def keep_known_t_plus_1(diffusion, x_prev, t, known, mask, noise):
    later = (t + 1).clamp(max=diffusion.num_timesteps - 1)
    return torch.where(mask > 0, diffusion.q_sample(known, later, noise), x_prev)


@wrong("keep_known", "added to all pixels")
def keep_known_noise_everywhere(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t)
    return merge(mask, bar.sqrt() * known, x_prev) + (1 - bar).sqrt() * noise


@wrong("even_log_snr", "Both ends are missing")
def timesteps_without_ends(alphas_cumprod, steps):
    return nearest(snr_logs(alphas_cumprod), steps + 2)[1:-1]


@wrong("even_log_snr", "the signal's scale")
def timesteps_signal(alphas_cumprod, steps):
    return nearest(alphas_cumprod**0.5, steps)


@wrong("second_order_step", "integrated exactly")
def second_order_exact(x, x0, last_x0, before, now, after):
    h, slope = lam(after) - lam(now), (x0 - last_x0) / (lam(now) - lam(before))
    return first_order(x, x0, now, after) + torch.sqrt(after) * (h - 1 + torch.exp(-h)) * slope


@wrong("second_order_step", "starts at the older prediction")
def second_order_from_last(x, x0, last_x0, before, now, after):
    r = (lam(now) - lam(before)) / (lam(after) - lam(now))
    return first_order(x, last_x0 + (x0 - last_x0) / (2 * r), now, after)


@wrong("second_order_step", "exponent has the wrong sign")
def second_order_exp_h(x, x0, last_x0, before, now, after):
    h = lam(after) - lam(now)
    d = x0 + h / (2 * (lam(now) - lam(before))) * (x0 - last_x0)
    return torch.sqrt((1 - after) / (1 - now)) * x + torch.sqrt(after) * torch.expm1(h) * d


@wrong("second_order_step", "added in full")
def second_order_no_minus_1(x, x0, last_x0, before, now, after):
    d = x0 + (lam(after) - lam(now)) / (2 * (lam(now) - lam(before))) * (x0 - last_x0)
    return torch.sqrt((1 - after) / (1 - now)) * x + torch.sqrt(after) * d


@wrong("cfg_eps", "subtracted once")
def cfg_eps_half_of_the_other_convention(cond, uncond, cfg_scale):
    return (1 + cfg_scale) * cond - uncond


@wrong("cfg_eps", "on the prediction without the label")
def cfg_eps_minus_scaled_uncond(cond, uncond, cfg_scale):
    return cond - cfg_scale * uncond


@wrong("guided_output", "the scale is not used")
def guided_output_uncond_eps(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    return torch.cat([uncond[:, :c], cond[:, c:]], dim=1)


@wrong("guided_output", "Only the scaled difference")
def guided_output_difference(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    return torch.cat([cfg_scale * (cond[:, :c] - uncond[:, :c]), cond[:, c:]], dim=1)


@wrong("combine_conditions", "gets all of them")
def combine_sum_of_weights(uncond, conds, weights):
    return uncond + weights.sum() * (conds - uncond).sum(0)


@wrong("ddpm_step", "comes back as it was")
def ddpm_step_keeps_last(diffusion, prediction, x_t, t, noise):
    noisy = prediction.mean + torch.exp(0.5 * prediction.log_variance) * noise
    return torch.where((t == 0).view(-1, 1, 1, 1), x_t, noisy)


@wrong("ddpm_step", "The result is clipped")
def ddpm_step_clipped(diffusion, prediction, x_t, t, noise):
    return ddpm_step_mask(diffusion, prediction, x_t, t, noise).clamp(-1, 1)


@wrong("ddpm_step", "The mean is clipped")
def ddpm_step_clipped_mean(diffusion, prediction, x_t, t, noise):
    clipped = prediction._replace(mean=prediction.mean.clamp(-1, 1))
    return ddpm_step_mask(diffusion, clipped, x_t, t, noise)


@wrong("ddim_step", "The clean image is clipped in the step")
def ddim_step_clips_again(diffusion, prediction, x_t, t, noise, eta):
    clipped = prediction._replace(x0=prediction.x0.clamp(-1, 1))
    return ddim_step_official(diffusion, clipped, x_t, t, noise, eta)


@wrong("ddim_step", "clipped where it is scaled, but not in the noise")
def ddim_step_clips_half(diffusion, prediction, x_t, t, noise, eta):
    eps = diffusion.x0_to_eps(x_t, t, prediction.x0)
    clipped = prediction._replace(x0=prediction.x0.clamp(-1, 1))
    return ddim_step_with(diffusion, clipped, x_t, t, noise, eta * sigma_of(diffusion, t), eps=eps)


@wrong("ddim_step", "The result is clipped")
def ddim_step_clipped_result(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, noise, eta).clamp(-1, 1)


@wrong("ddim_step", "The first factor of sigma has no root")
def ddim_step_first_factor_no_root(diffusion, prediction, x_t, t, noise, eta):
    bar, before = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod_prev, t)
    sigma = eta * (1 - before) / (1 - bar) * torch.sqrt(1 - bar / before)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma)


@wrong("ddim_step", "The second factor of sigma has no root")
def ddim_step_second_factor_no_root(diffusion, prediction, x_t, t, noise, eta):
    bar, before = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod_prev, t)
    sigma = eta * torch.sqrt((1 - before) / (1 - bar)) * (1 - bar / before)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma)


@wrong("keep_known", "noise of two steps before; x_prev")
def keep_known_two_back(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, (t - 1).clamp(min=0))
    return torch.where(mask > 0, bar.sqrt() * known + (1 - bar).sqrt() * noise, x_prev)


@wrong("keep_known", "two steps before, and at t = 0")
def keep_known_two_back_wraps(diffusion, x_prev, t, known, mask, noise):
    bar = col(diffusion.alphas_cumprod_prev, t - 1)
    return torch.where(mask > 0, bar.sqrt() * known + (1 - bar).sqrt() * noise, x_prev)


def _wanted(values, steps):
    return torch.linspace(values[0].item(), values[-1].item(), steps, dtype=torch.float64)


@wrong("even_log_snr", "The last timestep is chosen each time")
def timesteps_signed(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    return torch.argmin(values[None] - _wanted(values, steps)[:, None], dim=1)


@wrong("even_log_snr", "The first timestep is chosen each time")
def timesteps_signed_other_way(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    return torch.argmin(_wanted(values, steps)[:, None] - values[None], dim=1)


@wrong("even_log_snr", "farthest timestep")
def timesteps_farthest(alphas_cumprod, steps):
    values = snr_logs(alphas_cumprod)
    return torch.argmax((values[None] - _wanted(values, steps)[:, None]).abs(), dim=1)


def _middle(x0, last_x0, before, now, after):
    return x0 + (lam(after) - lam(now)) / (2 * (lam(now) - lam(before))) * (x0 - last_x0)


def _roots(bar):
    return bar**0.5, (1 - bar) ** 0.5


@wrong("second_order_step", "image is not divided by its noise")
def second_order_x_undivided(x, x0, last_x0, before, now, after):
    (a, b), (a1, b1) = _roots(now), _roots(after)
    return b1 * (x + (a1 / b1 - a / b) * _middle(x0, last_x0, before, now, after))


@wrong("second_order_step", "image is multiplied by its noise")
def second_order_x_multiplied(x, x0, last_x0, before, now, after):
    (a, b), (a1, b1) = _roots(now), _roots(after)
    return b1 * (x * b + (a1 / b1 - a / b) * _middle(x0, last_x0, before, now, after))


@wrong("second_order_step", "change of lambda stands where")
def second_order_lambda(x, x0, last_x0, before, now, after):
    b, b1 = _roots(now)[1], _roots(after)[1]
    return b1 * (x / b + (lam(after) - lam(now)) * _middle(x0, last_x0, before, now, after))


@wrong("second_order_step", "change of the signal stands where")
def second_order_signal_change(x, x0, last_x0, before, now, after):
    (a, b), (a1, b1) = _roots(now), _roots(after)
    return b1 * (x / b + (a1 - a) * _middle(x0, last_x0, before, now, after))


@wrong("second_order_step", "change of SNR stands where")
def second_order_snr_change(x, x0, last_x0, before, now, after):
    b, b1 = _roots(now)[1], _roots(after)[1]
    change = after / (1 - after) - now / (1 - now)
    return b1 * (x / b + change * _middle(x0, last_x0, before, now, after))


@wrong("guided_output", "halves are taken in the wrong order")
def guided_output_halves_misread(cond, uncond, cfg_scale):
    (values, eps), (_, bare) = cond.chunk(2, 1), uncond.chunk(2, 1)
    return torch.cat([bare + cfg_scale * (eps - bare), values], 1)


@wrong("guided_output", "noise comes twice")
def guided_output_twice(cond, uncond, cfg_scale):
    eps, bare = cond.chunk(2, 1)[0], uncond.chunk(2, 1)[0]
    guided = bare + cfg_scale * (eps - bare)
    return torch.cat([guided, guided], 1)


@wrong("guided_output", "second half is the noise with the label")
def guided_output_eps_as_values(cond, uncond, cfg_scale):
    eps, bare = cond.chunk(2, 1)[0], uncond.chunk(2, 1)[0]
    return torch.cat([bare + cfg_scale * (eps - bare), eps], 1)
