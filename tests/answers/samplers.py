"""Answers to the exercises of lessons 16 to 18: steps of samplers, few steps, guidance."""

import math

import numpy as np
import torch
from einops import rearrange

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


# ---- found by a third trial with fresh mistakes


def table_entries(table, t):
    return rearrange(table[t], "n -> n 1 1 1")


@wrong("even_log_snr", "root is taken of the signal alone")
def timesteps_root_of_signal(alphas_cumprod, steps):
    values = torch.log(alphas_cumprod**0.5 / (1 - alphas_cumprod))
    return torch.argmin((values[None] - _wanted(values, steps)[:, None]).abs(), dim=1)


@wrong("even_log_snr", "root is taken of the noise alone")
def timesteps_root_of_noise(alphas_cumprod, steps):
    values = alphas_cumprod.log() - (1 - alphas_cumprod).sqrt().log()
    return torch.argmin((values[None] - _wanted(values, steps)[:, None]).abs(), dim=1)


@wrong("second_order_step", "and the signal in it with it")
def second_order_signal_in_full(x, x0, last_x0, before, now, after):
    (a, b), (a1, b1) = _roots(now), _roots(after)
    return x * b1 / b + _middle(x0, last_x0, before, now, after) * (a1 - a)


@wrong("second_order_step", "x keeps its noise")
def second_order_x_as_it_is(x, x0, last_x0, before, now, after):
    (a, b), (a1, b1) = _roots(now), _roots(after)
    return x + (a1 - b1 / b * a) * _middle(x0, last_x0, before, now, after)


@wrong("update_ema", "weights of the model in training are scaled")
@torch.no_grad()
def ema_scales_the_model(average, model, decay, step):
    kept = min((1 + step) / (10 + step), decay)
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.mul_(kept).add_(weight.mul_(1 - kept))
    return kept


@wrong("update_ema", "become their distance from the old average")
@torch.no_grad()
def ema_subtracts_in_the_model(average, model, decay, step):
    kept = min((1 + step) / (10 + step), decay)
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean += (1 - kept) * weight.sub_(mean)
    return kept


@wrong("update_ema", "become their scaled distance")
def ema_scaled_distance_in_the_model(average, model, decay, step):
    kept = min((1 + step) / (10 + step), decay)
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        change = weight.data
        change -= mean.data
        change *= 1 - kept
        mean.data += change
    return kept


@wrong("eps_to_x0", "or a root minus 1")
def eps_to_x0_root_minus_one(x_t, t, eps, alphas_cumprod):
    scale = table_entries(alphas_cumprod, t).rsqrt()
    return scale * x_t - (scale - 1) * eps


@wrong("eps_to_x0", "In the form with 1 / alphas_cumprod")
def eps_to_x0_no_root_of_ratio(x_t, t, eps, alphas_cumprod):
    bar = table_entries(alphas_cumprod, t)
    return (1 / bar).sqrt() * x_t - (1 / bar - 1) * eps


@wrong("eps_to_x0", "The noise's part is right")
def eps_to_x0_no_root_of_inverse(x_t, t, eps, alphas_cumprod):
    bar = table_entries(alphas_cumprod, t)
    return 1 / bar * x_t - (1 / bar - 1).sqrt() * eps


@wrong("q_sample", "channels of each image")
def q_sample_over_channels(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1)
    return bar.sqrt() * x0 + (1 - bar).sqrt() * noise


@wrong("eps_to_x0", "channels of each image")
def eps_to_x0_over_channels(x_t, t, eps, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1)
    return (x_t - (1 - bar).sqrt() * eps) / bar.sqrt()


@wrong("from_velocity", "channels of each image")
def from_velocity_over_channels(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1)
    a, b = bar.sqrt(), (1 - bar).sqrt()
    return a * x_t - b * v, -(b * x_t + a * v) / b


@wrong("flow_pair", "channels of each image")
def flow_pair_over_channels(x0, noise, logit, shift):
    time = torch.sigmoid(logit + math.log(shift))
    share = time.unsqueeze(-1).unsqueeze(-1)
    return x0 + share * (noise - x0), noise - x0, 1000 * time


@wrong("sit_step", "channels of each image")
def sit_step_over_channels(sit, x, t, t_next):
    to_data = sit(x, 1 - t).chunk(2, dim=1)[0]
    return x + to_data * rearrange(t - t_next, "n -> n 1 1")


@wrong("from_velocity", "rotation goes the wrong way")
def from_velocity_other_way(x_t, t, v, alphas_cumprod):
    bar = table_entries(alphas_cumprod, t)
    cos, sin = bar.sqrt(), (1 - bar).sqrt()
    eps = cos * v - sin * x_t
    return cos * x_t + sin * v, -eps / sin


@wrong("from_velocity", "In the score's noise x_t is subtracted")
def from_velocity_x_subtracted(x_t, t, v, alphas_cumprod):
    bar = table_entries(alphas_cumprod, t)
    cos, sin = bar.sqrt(), (1 - bar).sqrt()
    return cos * x_t - sin * v, x_t - cos / sin * v


@wrong("generate", "hold the graph of the decoder")
def generate_decodes_with_graph(step, decode, z, y, num_steps, scale, shift):
    @torch.no_grad()
    def latents():
        found = z
        for k in range(num_steps):
            found = step(found, torch.full_like(y, num_steps - 1 - k), y)
        return found

    return decode(latents() / scale + shift).clip(-1, 1)


@wrong("generate", "hold no graph, but the steps do")
def generate_steps_with_graph(step, decode, z, y, num_steps, scale, shift):
    for k in reversed(range(num_steps)):
        z = step(z, torch.full_like(y, k), y)
    with torch.no_grad():
        return decode(z / scale + shift).clip(-1, 1)


def _posterior_parts(x0, x_t, t, betas):
    after = torch.cumprod(1 - betas, 0)
    before = torch.cat([after.new_ones(1), after[:-1]])
    b, a, p = (table_entries(table, t) for table in (betas, after, before))
    mean = (p.sqrt() * b * x0 + (1 - b).sqrt() * (1 - p) * x_t) / (1 - a)
    return mean, b * (1 - p) / (1 - a)


@wrong("q_posterior", "At t = 0 the log variance is that of the second image")
def q_posterior_second_image(x0, x_t, t, betas):
    mean, variance = _posterior_parts(x0, x_t, t, betas)
    return mean, torch.where((t == 0)[:, None, None, None], variance[1:2], variance).log()


@wrong("q_posterior", "first image of the batch gets the log variance of the second")
def q_posterior_first_image(x0, x_t, t, betas):
    mean, variance = _posterior_parts(x0, x_t, t, betas)
    variance[0] = variance[1]
    return mean, variance.log()


@wrong("learned_log_variance", "values of the batch are stretched")
def log_variance_stretched(values, min_log, max_log):
    least, most = values.aminmax()
    share = (values - least) / (most - least)
    return share * max_log + (1 - share) * min_log


@wrong("learned_log_variance", "values of each image are stretched")
def log_variance_stretched_per_image(values, min_log, max_log):
    flat = values.flatten(1)
    least, most = flat.min(1).values, flat.max(1).values
    share = ((flat - least[:, None]) / (most - least)[:, None]).reshape(values.shape)
    return share * max_log + (1 - share) * min_log


@wrong("learned_log_variance", "divided by the largest of the batch")
def log_variance_by_largest(values, min_log, max_log):
    share = 0.5 + 0.5 * values / values.abs().max()
    return share * max_log + (1 - share) * min_log


@wrong("learned_log_variance", "v counts in full")
def log_variance_whole_distance(values, min_log, max_log):
    return (max_log + min_log) / 2 + (max_log - min_log) * values


@wrong("normal_kl", "stands outside of it")
def kl_distance_outside(mean1, logvar1, mean2, logvar2):
    of_variances = 0.5 * (torch.exp(logvar1 - logvar2) - 1 + logvar2 - logvar1)
    return of_variances + torch.exp(-logvar2) * (mean2 - mean1) ** 2


@wrong("normal_kl", "halved twice")
def kl_distance_quarter(mean1, logvar1, mean2, logvar2):
    distance = (mean2 - mean1) ** 2 / (2 * logvar2.exp())
    return (logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + distance - 1) / 2


@wrong("normal_kl", "but the 1 stands outside")
def kl_one_outside(mean1, logvar1, mean2, logvar2):
    var1, var2 = logvar1.exp(), logvar2.exp()
    return 0.5 * torch.log(var2 / var1) + (var1 + (mean1 - mean2) ** 2) / (2 * var2) - 1


def _density_times_width(x, mean, log_scale, bins):
    scale = log_scale.exp()
    return torch.exp(-(((x - mean) / scale) ** 2) / 2) / (math.sqrt(2 * math.pi) * scale) * 2 / (bins - 1)


def _density_with_ends(x, mean, log_scale, bins):
    scale, half = log_scale.exp(), 1 / (bins - 1)
    p = _density_times_width(x, mean, log_scale, bins)
    p = torch.where(x < half - 1, torch.special.ndtr((x + half - mean) / scale), p)
    return torch.where(x > 1 - half, torch.special.ndtr((mean - x + half) / scale), p)


@wrong("discretized_gaussian_nll", "The two ends are right, but inside")
def nll_density_inside(x, mean, log_scale, bins):
    return -_density_with_ends(x, mean, log_scale, bins).clamp(min=1e-12).log()


@wrong("discretized_gaussian_nll", "difference of two CDFs. And probabilities are not clamped")
def nll_density_inside_no_floor(x, mean, log_scale, bins):
    return -_density_with_ends(x, mean, log_scale, bins).log()


@wrong("discretized_gaussian_nll", "at both ends as well")
def nll_density_everywhere(x, mean, log_scale, bins):
    return -_density_times_width(x, mean, log_scale, bins).clamp(min=1e-12).log()


def _scores_of(q, k, q_scale, k_scale, norm):
    return torch.einsum("nhtd,nhsd->nhts", norm(q) * q_scale, norm(k) * k_scale) / math.sqrt(q.shape[-1])


@wrong("normalized_scores", "over all tokens of a head")
def scores_norm_of_a_head(q, k, q_scale, k_scale, eps):
    norm = lambda x: x * ((x**2).flatten(2).mean(2)[:, :, None, None] + eps).rsqrt()  # noqa: E731
    return _scores_of(q, k, q_scale, k_scale, norm)


@wrong("normalized_scores", "over all heads and tokens of an image")
def scores_norm_of_an_image(q, k, q_scale, k_scale, eps):
    norm = lambda x: x * ((x**2).flatten(1).mean(1)[:, None, None, None] + eps).rsqrt()  # noqa: E731
    return _scores_of(q, k, q_scale, k_scale, norm)


@wrong("normalized_scores", "over the whole batch")
def scores_norm_of_the_batch(q, k, q_scale, k_scale, eps):
    return _scores_of(q, k, q_scale, k_scale, lambda x: x / torch.sqrt((x * x).mean() + eps))


def _velocity_divisor(t, predicts, least):
    return {"noise": 1 - t, "image": t}.get(predicts, torch.ones_like(t)).clamp_min(least)


@wrong("velocity_loss", "averaged over the batch before")
def velocity_loss_one_error(prediction, x0, noise, t, predicts, least):
    wanted = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
    return ((prediction - wanted) ** 2).mean() / _velocity_divisor(t, predicts, least) ** 2


@wrong("velocity_loss", "weights of the batch are averaged")
def velocity_loss_one_weight(prediction, x0, noise, t, predicts, least):
    wanted = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
    weight = (1 / _velocity_divisor(t, predicts, least) ** 2).mean()
    return weight * ((prediction - wanted) ** 2).flatten(1).mean(1)


def _stream_update_with(act, x, attended, vectors, w_in, w_out):
    _, _, gate_a, shift, scale, gate = vectors[:, :, None].unbind(1)
    x = x + gate_a * attended
    h = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return x + gate * (act(h @ w_in) @ w_out)


@wrong("stream_update", "exact GELU")
def stream_update_erf(x, attended, vectors, w_in, w_out):
    act = lambda h: h * (1 + torch.erf(h / math.sqrt(2))) / 2  # noqa: E731
    return _stream_update_with(act, x, attended, vectors, w_in, w_out)


@wrong("stream_update", "SiLU")
def stream_update_silu(x, attended, vectors, w_in, w_out):
    return _stream_update_with(lambda h: h * h.sigmoid(), x, attended, vectors, w_in, w_out)


@wrong("ddpm_step", "channels of each image")
def ddpm_step_over_channels(diffusion, prediction, x_t, t, noise):
    keep = (t != 0).to(noise.dtype).view(-1, 1, 1)
    return prediction.mean + torch.exp(0.5 * prediction.log_variance) * (keep * noise)


@wrong("keep_known", "channels of each image")
def keep_known_over_channels(diffusion, x_prev, t, known, mask, noise):
    bar = diffusion.alphas_cumprod_prev[t].view(-1, 1, 1)
    noised = bar.sqrt() * known + (1 - bar).sqrt() * noise
    return noised * mask + x_prev * (1 - mask)


@wrong("three_predictions", "along the channels")
def three_predictions_over_channels(prediction, x_t, t, predicts):
    t = t.view(-1, 1, 1)
    if predicts == "velocity":
        return x_t - t * prediction, x_t + (1 - t) * prediction, prediction
    if predicts == "noise":
        image = (x_t - t * prediction) / (1 - t)
        return image, prediction, prediction - image
    noise = (x_t - (1 - t) * prediction) / t
    return prediction, noise, noise - prediction
