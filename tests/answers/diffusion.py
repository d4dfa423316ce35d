"""Answers to the exercises of lessons 14 to 18."""

import math

import torch
from einops import rearrange

from dit_nb.schedule import extract

from . import right, wrong


def col(table, t):
    return table[t][:, None, None, None]


# ---- q_sample


@right("q_sample")
def q_sample_view(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return bar.sqrt() * x0 + (1 - bar).sqrt() * noise


@right("q_sample")
def q_sample_einsum(x0, t, noise, alphas_cumprod):
    signal, rest = alphas_cumprod[t] ** 0.5, (1 - alphas_cumprod[t]) ** 0.5
    return torch.einsum("n,nchw->nchw", signal, x0) + torch.einsum("n,nchw->nchw", rest, noise)


@right("q_sample")
def q_sample_loop(x0, t, noise, alphas_cumprod):
    x_t = torch.empty_like(x0)
    for i, step in enumerate(t):
        x_t[i] = x0[i] * alphas_cumprod[step].sqrt() + noise[i] * (1 - alphas_cumprod[step]).sqrt()
    return x_t


@wrong("q_sample", "Both coefficients lack their square roots")
def q_sample_no_roots(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t) * x0 + (1 - col(alphas_cumprod, t)) * noise


@wrong("q_sample", "noise's coefficient lacks")
def q_sample_no_noise_root(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t).sqrt() * x0 + (1 - col(alphas_cumprod, t)) * noise


@wrong("q_sample", "signal's coefficient lacks")
def q_sample_no_signal_root(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t) * x0 + (1 - col(alphas_cumprod, t)).sqrt() * noise


@wrong("q_sample", "each other's coefficients")
def q_sample_exchanged(x0, t, noise, alphas_cumprod):
    return q_sample_view(noise, t, x0, alphas_cumprod)


@wrong("q_sample", "columns of each image")
def q_sample_not_spread(x0, t, noise, alphas_cumprod):
    return alphas_cumprod[t].sqrt() * x0 + (1 - alphas_cumprod[t]).sqrt() * noise


@wrong("q_sample", "timestep of the first")
def q_sample_first_t(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t[0]].item()
    return math.sqrt(bar) * x0 + math.sqrt(1 - bar) * noise


@wrong("q_sample", "one step early")
def q_sample_paper_index(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t - 1, noise, alphas_cumprod)


@wrong("q_sample", "noise of the first")
def q_sample_one_noise(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, noise[0].expand_as(x0), alphas_cumprod)


@wrong("q_sample", "1 minus a root")
def q_sample_one_minus_root(x0, t, noise, alphas_cumprod):
    a = col(alphas_cumprod, t).sqrt()
    return a * x0 + (1 - a) * noise


@wrong("q_sample", "The noise is subtracted")
def q_sample_minus(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t).sqrt() * x0 - (1 - col(alphas_cumprod, t)).sqrt() * noise


@wrong("q_sample", "squared, not rooted")
def q_sample_squares(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t) ** 2 * x0 + (1 - col(alphas_cumprod, t)) ** 2 * noise


@wrong("q_sample", "one step late")
def q_sample_late(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, (t + 1).clamp(max=len(alphas_cumprod) - 1), noise, alphas_cumprod)


@wrong("q_sample", "multiplied up again")
def q_sample_cumprod_again(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, noise, torch.cumprod(alphas_cumprod, 0))


@wrong("q_sample", "taken for the betas")
def q_sample_table_of_betas(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, noise, torch.cumprod(1 - alphas_cumprod, 0))


@wrong("q_sample", "noise of its own; use")
def q_sample_own_noise(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, torch.randn_like(x0), alphas_cumprod)


@wrong("q_sample", "noise of its own, in float32")
def q_sample_own_float32_noise(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, torch.randn(*x0.shape), alphas_cumprod)


@wrong("q_sample", "The noise has no coefficient")
def q_sample_whole_noise(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t).sqrt() * x0 + noise


@wrong("q_sample", "The image has no coefficient")
def q_sample_whole_image(x0, t, noise, alphas_cumprod):
    return x0 + (1 - col(alphas_cumprod, t)).sqrt() * noise


@wrong("q_sample", "the same coefficient")
def q_sample_one_coefficient(x0, t, noise, alphas_cumprod):
    return col(alphas_cumprod, t).sqrt() * (x0 + noise)


@wrong("q_sample", "clipped to [-1, 1]")
def q_sample_clipped(x0, t, noise, alphas_cumprod):
    return q_sample_view(x0, t, noise, alphas_cumprod).clip(-1, 1)


# ---- q_posterior


@right("q_posterior")
def q_posterior_tables(x0, x_t, t, betas):
    alphas = 1 - betas
    bar = torch.cumprod(alphas, 0)
    bar_prev = torch.cat([torch.ones(1, dtype=bar.dtype), bar[:-1]])
    coef1 = betas * bar_prev.sqrt() / (1 - bar)
    coef2 = alphas.sqrt() * (1 - bar_prev) / (1 - bar)
    variance = betas * (1 - bar_prev) / (1 - bar)
    log = torch.log(torch.cat([variance[1:2], variance[1:]]))
    return col(coef1, t) * x0 + col(coef2, t) * x_t, col(log, t)


@right("q_posterior")
def q_posterior_loop(x0, x_t, t, betas):
    bar = (1 - betas).cumprod(0)

    def small(s):
        return betas[s] * (1 - bar[s - 1]) / (1 - bar[s])

    means, logs = [], []
    for x, xt, s in zip(x0, x_t, t.tolist()):
        before = bar[s - 1] if s > 0 else 1.0
        clean, noisy = betas[s] * before**0.5, (1 - betas[s]) ** 0.5 * (1 - before)
        means.append((clean * x + noisy * xt) / (1 - bar[s]))
        logs.append(small(max(s, 1)).log())
    return torch.stack(means), torch.stack(logs)[:, None, None, None]


def q_posterior_with(x0, x_t, t, betas, before=None, variance=None, log=torch.log):
    bar = torch.cumprod(1 - betas, 0)
    first = torch.ones(1, dtype=bar.dtype)
    before = torch.cat([first, bar[:-1]]) if before is None else before(bar)
    mean = col(betas * before.sqrt() / (1 - bar), t) * x0
    mean = mean + col((1 - betas).sqrt() * (1 - before) / (1 - bar), t) * x_t
    small = betas * (1 - before) / (1 - bar)
    small = torch.cat([small[1:2], small[1:]]) if variance is None else variance(small)
    return mean, col(log(small), t)


@wrong("q_posterior", "each other's weights")
def q_posterior_swapped(x0, x_t, t, betas):
    return q_posterior_tables(x_t, x0, t, betas)


@wrong("q_posterior", "is 1 there, not 0")
def q_posterior_zero_first(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, lambda bar: torch.nn.functional.pad(bar[:-1], (1, 0)))


@wrong("q_posterior", "wraps around")
def q_posterior_index_minus_one(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, lambda bar: bar[torch.arange(len(bar)) - 1])


@wrong("q_posterior", "a step forward")
def q_posterior_large(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, variance=lambda small: betas)


@wrong("q_posterior", "minus infinity")
def q_posterior_unclipped(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, variance=lambda small: small)


@wrong("q_posterior", "The second result is the variance")
def q_posterior_variance(x0, x_t, t, betas):
    mean, log = q_posterior_tables(x0, x_t, t, betas)
    return mean, log.exp()


@wrong("q_posterior", "half the log variance")
def q_posterior_log_std(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, log=lambda v: v.sqrt().log())


@wrong("q_posterior", "alphas_cumprod after the step")
def q_posterior_late_share(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1).double(), bar[:-1]])
    mean = col(betas * bar.sqrt() / (1 - bar), t) * x0
    mean = mean + col((1 - betas).sqrt() * (1 - before) / (1 - bar), t) * x_t
    return mean, q_posterior_tables(x0, x_t, t, betas)[1]


@wrong("q_posterior", "2 tensors: mean, log variance")
def q_posterior_mean_only(x0, x_t, t, betas):
    return q_posterior_tables(x0, x_t, t, betas)[0]


@wrong("q_posterior", "log variance has shape")
def q_posterior_flat(x0, x_t, t, betas):
    mean, log = q_posterior_tables(x0, x_t, t, betas)
    return mean, log.flatten()


@wrong("q_posterior", "stands for its own predecessor")
def q_posterior_first_repeated(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, lambda bar: bar[(torch.arange(len(bar)) - 1).clamp(min=0)])


@wrong("q_posterior", "shifted the wrong way")
def q_posterior_next(x0, x_t, t, betas):
    return q_posterior_with(
        x0, x_t, t, betas, lambda bar: bar[(torch.arange(len(bar)) + 1).clamp(max=len(bar) - 1)]
    )


def clamped_posterior(least):
    def q_posterior_clamped(x0, x_t, t, betas):
        return q_posterior_with(x0, x_t, t, betas, variance=lambda small: torch.clamp(small, min=least))

    q_posterior_clamped.__name__ += f"_{least:g}"
    return q_posterior_clamped


for least in (1e-20, 1e-12, 1e-10, 1e-8):
    wrong("q_posterior", f"clamped to {least:g}, an arbitrary number")(clamped_posterior(least))


@wrong("q_posterior", "log variance is that of beta")
def q_posterior_first_beta(x0, x_t, t, betas):
    return q_posterior_with(
        x0, x_t, t, betas, variance=lambda small: torch.where(torch.arange(len(small)) == 0, betas, small)
    )


@wrong("q_posterior", "set to 0, which is a variance of 1")
def q_posterior_log_zero(x0, x_t, t, betas):
    mean, log = q_posterior_with(x0, x_t, t, betas, variance=lambda small: small)
    return mean, torch.where(torch.isinf(log), 0.0, log)


def q_posterior_mean(x0, x_t, t, of_x0, of_xt, betas):
    """A mean with given weights; the log variance is right."""
    return col(of_x0, t) * x0 + col(of_xt, t) * x_t, q_posterior_tables(x0, x_t, t, betas)[1]


def posterior_tables(betas):
    alphas = 1 - betas
    bar = torch.cumprod(alphas, 0)
    return alphas, bar, torch.nn.functional.pad(bar[:-1], (1, 0), value=1.0)


@wrong("q_posterior", "The weight of x_t uses alphas_cumprod after")
def q_posterior_late_noise(x0, x_t, t, betas):
    alphas, bar, before = posterior_tables(betas)
    coef2 = alphas.sqrt() * (1 - bar) / (1 - bar)
    return q_posterior_mean(x0, x_t, t, before.sqrt() * betas / (1 - bar), coef2, betas)


@wrong("q_posterior", "after the step stands everywhere")
def q_posterior_one_bar(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, lambda bar: bar, lambda small: small)


@wrong("q_posterior", "after the step stands in the mean")
def q_posterior_one_bar_in_the_mean(x0, x_t, t, betas):
    alphas, bar, _ = posterior_tables(betas)
    return q_posterior_mean(x0, x_t, t, bar.sqrt() * betas / (1 - bar), alphas.sqrt(), betas)


@wrong("q_posterior", "the root of alphas_cumprod; it needs")
def q_posterior_bar_for_alpha(x0, x_t, t, betas):
    _, bar, before = posterior_tables(betas)
    coef1, coef2 = before.sqrt() * betas / (1 - bar), bar.sqrt() * (1 - before) / (1 - bar)
    return q_posterior_mean(x0, x_t, t, coef1, coef2, betas)


@wrong("q_posterior", "The weight of x_0 lacks its square root")
def q_posterior_no_root_of_x0(x0, x_t, t, betas):
    alphas, bar, before = posterior_tables(betas)
    coef1, coef2 = before * betas / (1 - bar), alphas.sqrt() * (1 - before) / (1 - bar)
    return q_posterior_mean(x0, x_t, t, coef1, coef2, betas)


@wrong("q_posterior", "The weight of x_t lacks its square root")
def q_posterior_no_root_of_xt(x0, x_t, t, betas):
    alphas, bar, before = posterior_tables(betas)
    coef1, coef2 = before.sqrt() * betas / (1 - bar), alphas * (1 - before) / (1 - bar)
    return q_posterior_mean(x0, x_t, t, coef1, coef2, betas)


@wrong("q_posterior", "Both weights lack")
def q_posterior_no_roots(x0, x_t, t, betas):
    alphas, bar, before = posterior_tables(betas)
    coef1, coef2 = before * betas / (1 - bar), alphas * (1 - before) / (1 - bar)
    return q_posterior_mean(x0, x_t, t, coef1, coef2, betas)


@wrong("q_posterior", "not divided by the noise")
def q_posterior_undivided(x0, x_t, t, betas):
    alphas, _, before = posterior_tables(betas)
    return q_posterior_mean(x0, x_t, t, before.sqrt() * betas, alphas.sqrt() * (1 - before), betas)


@wrong("q_posterior", "if only x_0 is known")
def q_posterior_prior_variance(x0, x_t, t, betas):
    _, _, before = posterior_tables(betas)
    variance = (1 - before)[[1, *range(1, len(betas))]]
    return q_posterior_tables(x0, x_t, t, betas)[0], col(variance.log(), t)


@wrong("q_posterior", "logarithm of the precision")
def q_posterior_precision(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, log=lambda v: (1 / v).log())


@wrong("q_posterior", "The betas are multiplied")
def q_posterior_product_of_betas(x0, x_t, t, betas):
    bar = torch.cumprod(betas, 0)
    before = torch.cat([torch.ones(1).double(), bar[:-1]])
    mean = col(betas * before.sqrt() / (1 - bar), t) * x0
    mean = mean + col((1 - betas).sqrt() * (1 - before) / (1 - bar), t) * x_t
    variance = betas * (1 - before) / (1 - bar)
    return mean, col(torch.cat([variance[1:2], variance[1:]]).log(), t)


@wrong("q_posterior", "The timesteps are shifted by one: in code")
def q_posterior_paper_count(x0, x_t, t, betas):
    return q_posterior_tables(x0, x_t, torch.where(t > 0, t - 1, t), betas)


@wrong("q_posterior", "so that t = 0 wraps around")
def q_posterior_paper_count_wraps(x0, x_t, t, betas):
    return q_posterior_tables(x0, x_t, (t - 1) % len(betas), betas)


@wrong("q_posterior", "is the standard deviation")
def q_posterior_std(x0, x_t, t, betas):
    mean, log = q_posterior_tables(x0, x_t, t, betas)
    return mean, (0.5 * log).exp()


@wrong("q_posterior", "base 10")
def q_posterior_log10(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, log=lambda v: v.log() / math.log(10))


@wrong("q_posterior", "base 2")
def q_posterior_log2(x0, x_t, t, betas):
    return q_posterior_with(x0, x_t, t, betas, log=lambda v: v.log() / math.log(2))


@wrong("q_posterior", "is a sample, with noise")
def q_posterior_sample(x0, x_t, t, betas):
    mean, log = q_posterior_tables(x0, x_t, t, betas)
    return mean + torch.exp(0.5 * log) * torch.randn_like(x_t), log


# ---- eps_to_x0


@right("eps_to_x0")
def eps_to_x0_solve(x_t, t, eps, alphas_cumprod):
    bar = rearrange(alphas_cumprod[t], "n -> n 1 1 1")
    return (x_t - (1 - bar).sqrt() * eps) / bar.sqrt()


@right("eps_to_x0")
def eps_to_x0_official(x_t, t, eps, alphas_cumprod):
    a, b = (1 / alphas_cumprod).sqrt(), (1 / alphas_cumprod - 1).sqrt()
    return extract(a, t, x_t) * x_t - extract(b, t, x_t) * eps


@wrong("eps_to_x0", "still faded")
def eps_to_x0_undivided(x_t, t, eps, alphas_cumprod):
    return x_t - col((1 - alphas_cumprod).sqrt(), t) * eps


@wrong("eps_to_x0", "Only the noise is divided")
def eps_to_x0_noise_divided(x_t, t, eps, alphas_cumprod):
    return x_t - col(((1 - alphas_cumprod) / alphas_cumprod).sqrt(), t) * eps


@wrong("eps_to_x0", "Only x_t is divided")
def eps_to_x0_image_divided(x_t, t, eps, alphas_cumprod):
    return x_t / col(alphas_cumprod.sqrt(), t) - col((1 - alphas_cumprod).sqrt(), t) * eps


@wrong("eps_to_x0", "The noise is added")
def eps_to_x0_plus(x_t, t, eps, alphas_cumprod):
    return eps_to_x0_solve(x_t, t, -eps, alphas_cumprod)


@wrong("eps_to_x0", "lack their square roots")
def eps_to_x0_no_roots(x_t, t, eps, alphas_cumprod):
    bar = col(alphas_cumprod, t)
    return (x_t - (1 - bar) * eps) / bar


@wrong("eps_to_x0", "two coefficients are exchanged")
def eps_to_x0_exchanged(x_t, t, eps, alphas_cumprod):
    return eps_to_x0_solve(x_t, t, eps, 1 - alphas_cumprod)


@wrong("eps_to_x0", "columns of each image")
def eps_to_x0_not_spread(x_t, t, eps, alphas_cumprod):
    bar = alphas_cumprod[t]
    return (x_t - (1 - bar).sqrt() * eps) / bar.sqrt()


@wrong("eps_to_x0", "one step early")
def eps_to_x0_early(x_t, t, eps, alphas_cumprod):
    return eps_to_x0_official(x_t, (t - 1) % len(alphas_cumprod), eps, alphas_cumprod)


@wrong("eps_to_x0", "timestep of the first")
def eps_to_x0_first_t(x_t, t, eps, alphas_cumprod):
    return eps_to_x0_solve(x_t, t[:1].expand(len(t)), eps, alphas_cumprod)


@wrong("eps_to_x0", "divided by its square root")
def eps_to_x0_no_signal_root(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return (x_t - torch.sqrt(1 - a) * eps) / a


@wrong("eps_to_x0", "The noise's coefficient lacks")
def eps_to_x0_no_noise_root(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return (x_t - (1 - a) * eps) / a.sqrt()


@wrong("eps_to_x0", "1 minus a root")
def eps_to_x0_one_minus_root(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t).sqrt()
    return (x_t - (1 - a) * eps) / a


@wrong("eps_to_x0", "The noise has no coefficient")
def eps_to_x0_whole_noise(x_t, t, eps, alphas_cumprod):
    return (x_t - eps) / col(alphas_cumprod, t) ** 0.5


@wrong("eps_to_x0", "multiplied by the image's coefficient")
def eps_to_x0_times(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return a.sqrt() * (x_t - (1 - a).sqrt() * eps)


@wrong("eps_to_x0", "clipped to [-1, 1]")
def eps_to_x0_clipped(x_t, t, eps, alphas_cumprod):
    return torch.clip(eps_to_x0_solve(x_t, t, eps, alphas_cumprod), -1, 1)


@wrong("eps_to_x0", "noise minus x_t")
def eps_to_x0_negative(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return ((1 - a).sqrt() * eps - x_t) / a.sqrt()


@wrong("eps_to_x0", "Neither coefficient is used")
def eps_to_x0_plain(x_t, t, eps, alphas_cumprod):
    return x_t - eps


@wrong("eps_to_x0", "whole difference must be divided by it")
def eps_to_x0_like_velocity(x_t, t, eps, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return a.sqrt() * x_t - (1 - a).sqrt() * eps


# ---- from_velocity


@right("from_velocity")
def from_velocity_rotate(x_t, t, v, alphas_cumprod):
    a = rearrange(alphas_cumprod[t], "n -> n 1 1 1")
    cos, sin = a.sqrt(), (1 - a).sqrt()
    return cos * x_t - sin * v, -x_t - cos / sin * v


@right("from_velocity")
def from_velocity_by_tweedie(x_t, t, v, alphas_cumprod):
    a = col(alphas_cumprod, t)
    x0 = a.sqrt() * x_t - (1 - a).sqrt() * v
    return x0, (a.sqrt() * x0 - x_t) / (1 - a)


@right("from_velocity")
def from_velocity_loop(x_t, t, v, alphas_cumprod):
    images, scores = [], []
    for x, velocity, step in zip(x_t, v, t.tolist()):
        angle = math.acos(alphas_cumprod[step] ** 0.5)
        images.append(math.cos(angle) * x - math.sin(angle) * velocity)
        scores.append(-(math.sin(angle) * x + math.cos(angle) * velocity) / math.sin(angle))
    return torch.stack(images), torch.stack(scores)


def velocity_parts(x_t, t, v, alphas_cumprod):
    """Coefficients, image and noise."""
    cos, sin = col(alphas_cumprod, t).sqrt(), (1 - col(alphas_cumprod, t)).sqrt()
    return cos, sin, cos * x_t - sin * v, sin * x_t + cos * v


@wrong("from_velocity", "The velocity is added in the image")
def from_velocity_plus(x_t, t, v, alphas_cumprod):
    cos, sin, _, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return cos * x_t + sin * v, -eps / sin


@wrong("from_velocity", "In the image x_t and the velocity")
def from_velocity_image_swapped(x_t, t, v, alphas_cumprod):
    cos, sin, _, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return sin * x_t - cos * v, -eps / sin


@wrong("from_velocity", "as if it were the noise: v is a mix")
def from_velocity_is_noise(x_t, t, v, alphas_cumprod):
    return eps_to_x0_solve(x_t, t, v, alphas_cumprod), -v / col((1 - alphas_cumprod).sqrt(), t)


@wrong("from_velocity", "the score is right")
def from_velocity_is_noise_in_the_image(x_t, t, v, alphas_cumprod):
    cos, sin, _, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return (x_t - sin * v) / cos, -eps / sin


@wrong("from_velocity", "the image is right")
def from_velocity_is_noise_in_the_score(x_t, t, v, alphas_cumprod):
    _, sin, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -v / sin


@wrong("from_velocity", "subtracted in the score's noise")
def from_velocity_score_minus(x_t, t, v, alphas_cumprod):
    cos, sin, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, (cos * v - sin * x_t) / sin


@wrong("from_velocity", "In the score's noise x_t and the velocity")
def from_velocity_score_swapped(x_t, t, v, alphas_cumprod):
    cos, sin, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -(cos * x_t + sin * v) / sin


@wrong("from_velocity", "subtracted from x_t without its coefficient")
def from_velocity_whole_image(x_t, t, v, alphas_cumprod):
    _, sin, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -(x_t - x0) / sin**2


@wrong("from_velocity", "The second result is the noise; the score")
def from_velocity_noise(x_t, t, v, alphas_cumprod):
    _, _, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, eps


@wrong("from_velocity", "The second result is minus the noise")
def from_velocity_minus_noise(x_t, t, v, alphas_cumprod):
    _, _, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -eps


@wrong("from_velocity", "points away from the noise")
def from_velocity_score_sign(x_t, t, v, alphas_cumprod):
    _, sin, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, eps / sin


@wrong("from_velocity", "the noise is divided by its variance")
def from_velocity_score_variance(x_t, t, v, alphas_cumprod):
    _, sin, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -eps / sin**2


@wrong("from_velocity", "multiplied by the scale of the noise")
def from_velocity_score_times(x_t, t, v, alphas_cumprod):
    _, sin, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -sin * eps


@wrong("from_velocity", "lack their square roots")
def from_velocity_no_roots(x_t, t, v, alphas_cumprod):
    a = col(alphas_cumprod, t)
    return a * x_t - (1 - a) * v, -((1 - a) * x_t + a * v) / (1 - a)


@wrong("from_velocity", "exchanged everywhere")
def from_velocity_exchanged(x_t, t, v, alphas_cumprod):
    return from_velocity_rotate(x_t, t, v, 1 - alphas_cumprod)


@wrong("from_velocity", "1 minus a root")
def from_velocity_one_minus_root(x_t, t, v, alphas_cumprod):
    a = col(alphas_cumprod, t).sqrt()
    return a * x_t - (1 - a) * v, -x_t - a / (1 - a) * v


@wrong("from_velocity", "wrong order")
def from_velocity_order(x_t, t, v, alphas_cumprod):
    return from_velocity_rotate(x_t, t, v, alphas_cumprod)[::-1]


@wrong("from_velocity", "the noise's part of x_t")
def from_velocity_noise_part(x_t, t, v, alphas_cumprod):
    _, sin, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, sin * eps


@wrong("from_velocity", "columns of each image")
def from_velocity_not_spread(x_t, t, v, alphas_cumprod):
    cos, sin = alphas_cumprod[t].sqrt(), (1 - alphas_cumprod[t]).sqrt()
    return cos * x_t - sin * v, -x_t - cos / sin * v


@wrong("from_velocity", "one step early")
def from_velocity_early(x_t, t, v, alphas_cumprod):
    return from_velocity_rotate(x_t, t - 1, v, alphas_cumprod)


@wrong("from_velocity", "2 tensors: image, score")
def from_velocity_image_only(x_t, t, v, alphas_cumprod):
    return from_velocity_rotate(x_t, t, v, alphas_cumprod)[0]


@wrong("from_velocity", "has the wrong sign in the image, and so in the score")
def from_velocity_rotate_on(x_t, t, v, alphas_cumprod):
    cos, sin, _, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return cos * x_t + sin * v, -(sin * x_t - cos * v) / sin


@wrong("from_velocity", "x_t minus the velocity")
def from_velocity_difference(x_t, t, v, alphas_cumprod):
    return x_t - v, from_velocity_rotate(x_t, t, v, alphas_cumprod)[1]


@wrong("from_velocity", "clipped to [-1, 1]")
def from_velocity_clipped(x_t, t, v, alphas_cumprod):
    x0, score = from_velocity_rotate(x_t, t, v, alphas_cumprod)
    return x0.clip(-1, 1), score


@wrong("from_velocity", "The score is that of pure noise")
def from_velocity_score_at_zero(x_t, t, v, alphas_cumprod):
    _, _, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -x_t / (1 - col(alphas_cumprod, t))


@wrong("from_velocity", "uses the image where it needs the noise")
def from_velocity_score_of_image(x_t, t, v, alphas_cumprod):
    _, sin, x0, _ = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -x0 / sin


@wrong("from_velocity", "divided by the signal's coefficient")
def from_velocity_score_by_signal(x_t, t, v, alphas_cumprod):
    cos, _, x0, eps = velocity_parts(x_t, t, v, alphas_cumprod)
    return x0, -eps / cos


# ---- learned_log_variance


@right("learned_log_variance")
def learned_log_variance_share(values, min_log, max_log):
    share = (values + 1) / 2
    return share * max_log + (1 - share) * min_log


@right("learned_log_variance")
def learned_log_variance_middle(values, min_log, max_log):
    return (min_log + max_log) / 2 + values * (max_log - min_log) / 2


@wrong("learned_log_variance", "used as the fraction itself")
def learned_log_variance_raw(values, min_log, max_log):
    return values * max_log + (1 - values) * min_log


@wrong("learned_log_variance", "two ends are exchanged")
def learned_log_variance_swapped(values, min_log, max_log):
    return learned_log_variance_share(values, max_log, min_log)


@wrong("learned_log_variance", "The variances are interpolated")
def learned_log_variance_linear(values, min_log, max_log):
    share = (values + 1) / 2
    return (share * max_log.exp() + (1 - share) * min_log.exp()).log()


@wrong("learned_log_variance", "clamped to [-1, 1]")
def learned_log_variance_clamped(values, min_log, max_log):
    return learned_log_variance_share(values.clamp(-1, 1), min_log, max_log)


@wrong("learned_log_variance", "sigmoid")
def learned_log_variance_sigmoid(values, min_log, max_log):
    return min_log + values.sigmoid() * (max_log - min_log)


@wrong("learned_log_variance", "tanh")
def learned_log_variance_tanh(values, min_log, max_log):
    return learned_log_variance_share(torch.tanh(values), min_log, max_log)


@wrong("learned_log_variance", "The result is the variance")
def learned_log_variance_exp(values, min_log, max_log):
    return learned_log_variance_share(values, min_log, max_log).exp()


@wrong("learned_log_variance", "v + 1/2")
def learned_log_variance_parentheses(values, min_log, max_log):
    share = values + 1 / 2
    return share * max_log + (1 - share) * min_log


@wrong("learned_log_variance", "v + 1, which runs from 0 to 2")
def learned_log_variance_unhalved(values, min_log, max_log):
    return min_log + (values + 1) * (max_log - min_log)


@wrong("learned_log_variance", "v / 2")
def learned_log_variance_unshifted(values, min_log, max_log):
    return min_log + 0.5 * values * (max_log - min_log)


@wrong("learned_log_variance", "the larger end alone")
def learned_log_variance_one_end(values, min_log, max_log):
    return max_log * (values + 1) / 2


@wrong("learned_log_variance", "added with one fraction")
def learned_log_variance_sum(values, min_log, max_log):
    return (values + 1) / 2 * (max_log + min_log)


@wrong("learned_log_variance", "made positive")
def learned_log_variance_abs(values, min_log, max_log):
    return torch.lerp(min_log.expand_as(values), max_log.expand_as(values), values.abs())


@wrong("learned_log_variance", "values below 0 are lost")
def learned_log_variance_clamped_early(values, min_log, max_log):
    return learned_log_variance_share(values.clamp(0, 1), min_log, max_log)


@wrong("learned_log_variance", "logarithm of the standard deviation")
def learned_log_variance_std(values, min_log, max_log):
    return 0.5 * learned_log_variance_middle(values, min_log, max_log)


@wrong("learned_log_variance", "(v - 1)/2")
def learned_log_variance_minus(values, min_log, max_log):
    return min_log + (values - 1) / 2 * (max_log - min_log)


@wrong("learned_log_variance", "both must stay logarithms")
def learned_log_variance_of_variances(values, min_log, max_log):
    share = (values + 1) / 2
    return share * max_log.exp() + (1 - share) * min_log.exp()


@wrong("learned_log_variance", "smaller end is missing")
def learned_log_variance_no_start(values, min_log, max_log):
    return 0.5 * (values + 1) * (max_log - min_log)


@wrong("learned_log_variance", "larger end is added to the smaller")
def learned_log_variance_end_added(values, min_log, max_log):
    return min_log + 0.5 * (values + 1) * max_log


@wrong("learned_log_variance", "starts at the larger end")
def learned_log_variance_from_larger(values, min_log, max_log):
    return max_log + 0.5 * (values + 1) * (max_log - min_log)


def _clamped_mix(values, min_log, max_log, least):
    fraction = 0.5 * (values + 1)
    variance = fraction * max_log.exp() + (1 - fraction) * min_log.exp()
    return torch.log(torch.clamp(variance, min=least))


@wrong("learned_log_variance", "clamped at 1e-20")
def learned_log_variance_clamped_20(values, min_log, max_log):
    return _clamped_mix(values, min_log, max_log, 1e-20)


@wrong("learned_log_variance", "clamped at 1e-12")
def learned_log_variance_clamped_12(values, min_log, max_log):
    return _clamped_mix(values, min_log, max_log, 1e-12)


@wrong("learned_log_variance", "clamped at 1e-10")
def learned_log_variance_clamped_10(values, min_log, max_log):
    return _clamped_mix(values, min_log, max_log, 1e-10)


@wrong("learned_log_variance", "clamped at 1e-08")
def learned_log_variance_clamped_8(values, min_log, max_log):
    return _clamped_mix(values, min_log, max_log, 1e-8)


# ---- normal_kl


@right("normal_kl")
def normal_kl_formula(mean1, logvar1, mean2, logvar2):
    return 0.5 * (
        -1.0 + logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2)
    )


@right("normal_kl")
def normal_kl_stds(mean1, logvar1, mean2, logvar2):
    s1, s2 = (logvar1 / 2).exp(), (logvar2 / 2).exp()
    return torch.log(s2 / s1) + (s1**2 + (mean1 - mean2) ** 2) / (2 * s2**2) - 0.5


@wrong("normal_kl", "two distributions are exchanged")
def normal_kl_swapped(mean1, logvar1, mean2, logvar2):
    return normal_kl_stds(mean2, logvar2, mean1, logvar1)


@wrong("normal_kl", "a half is missing")
def normal_kl_doubled(mean1, logvar1, mean2, logvar2):
    return logvar2 - logvar1 - 1 + (logvar1.exp() + (mean1 - mean2) ** 2) / logvar2.exp()


@wrong("normal_kl", "in bits")
def normal_kl_bits(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(mean1, logvar1, mean2, logvar2) / math.log(2.0)


@wrong("normal_kl", "A constant is missing")
def normal_kl_no_one(mean1, logvar1, mean2, logvar2):
    return 0.5 * (logvar2 - logvar1 + (logvar1.exp() + (mean1 - mean2) ** 2) / logvar2.exp())


@wrong("normal_kl", "logarithms of standard deviations")
def normal_kl_log_std(mean1, logvar1, mean2, logvar2):
    s1, s2 = logvar1.exp(), logvar2.exp()
    return torch.log(s2 / s1) + (s1**2 + (mean1 - mean2) ** 2) / (2 * s2**2) - 0.5


@wrong("normal_kl", "not squared")
def normal_kl_abs(mean1, logvar1, mean2, logvar2):
    ratio = logvar1 - logvar2
    return 0.5 * (ratio.exp() - ratio - 1 + (mean1 - mean2).abs() / logvar2.exp())


@wrong("normal_kl", "the variance of the first")
def normal_kl_first_variance(mean1, logvar1, mean2, logvar2):
    ratio = logvar1 - logvar2
    return 0.5 * (ratio.exp() - ratio - 1 + (mean1 - mean2) ** 2 / logvar1.exp())


@wrong("normal_kl", "averaged")
def normal_kl_mean(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(mean1, logvar1, mean2, logvar2).mean()


@wrong("normal_kl", "summed up")
def normal_kl_sum(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(mean1, logvar1, mean2, logvar2).sum()


@wrong("normal_kl", "so its sign counts.")
def normal_kl_signed(mean1, logvar1, mean2, logvar2):
    ratio = logvar1 - logvar2
    return 0.5 * (ratio.exp() - ratio - 1 + (mean1 - mean2) / logvar2.exp())


@wrong("normal_kl", "the other way round")
def normal_kl_signed_back(mean1, logvar1, mean2, logvar2):
    ratio = logvar1 - logvar2
    return 0.5 * (ratio.exp() - ratio - 1 + (mean2 - mean1) / logvar2.exp())


@wrong("normal_kl", "The log of the ratio has the wrong sign")
def normal_kl_log_sign(mean1, logvar1, mean2, logvar2):
    v1, v2 = logvar1.exp(), logvar2.exp()
    return 0.5 * (torch.log(v1 / v2) - 1 + v1 / v2 + (mean1 - mean2) ** 2 / v2)


@wrong("normal_kl", "upside down")
def normal_kl_ratio_upside_down(mean1, logvar1, mean2, logvar2):
    v1, v2 = logvar1.exp(), logvar2.exp()
    return 0.5 * (torch.log(v2 / v1) - 1 + v2 / v1 + (mean1 - mean2) ** 2 / v2)


@wrong("normal_kl", "The ratio of the variances is missing")
def normal_kl_no_ratio(mean1, logvar1, mean2, logvar2):
    return 0.5 * (logvar2 - logvar1 - 1 + (mean1 - mean2) ** 2 / logvar2.exp())


@wrong("normal_kl", "The log of the ratio is missing")
def normal_kl_no_log(mean1, logvar1, mean2, logvar2):
    return 0.5 * ((logvar1 - logvar2).exp() - 1 + (mean1 - mean2) ** 2 / logvar2.exp())


@wrong("normal_kl", "ratio of the log variances")
def normal_kl_ratio_of_logs(mean1, logvar1, mean2, logvar2):
    return 0.5 * (logvar2 - logvar1 - 1 + logvar1 / logvar2 + (mean1 - mean2) ** 2 / logvar2.exp())


@wrong("normal_kl", "The distance of the means is missing")
def normal_kl_no_means(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(0 * mean1, logvar1, 0 * mean2, logvar2)


@wrong("normal_kl", "divided by a standard deviation")
def normal_kl_by_std(mean1, logvar1, mean2, logvar2):
    s1, s2 = (logvar1 / 2).exp(), (logvar2 / 2).exp()
    return torch.log(s2 / s1) + s1**2 / (2 * s2**2) + (mean1 - mean2) ** 2 / (2 * s2) - 0.5


@wrong("normal_kl", "not divided by a variance")
def normal_kl_undivided(mean1, logvar1, mean2, logvar2):
    return 0.5 * (logvar2 - logvar1 - 1 + (logvar1 - logvar2).exp() + (mean1 - mean2) ** 2)


@wrong("normal_kl", "multiplied by the variance")
def normal_kl_times_variance(mean1, logvar1, mean2, logvar2):
    return 0.5 * (
        logvar2 - logvar1 - 1 + (logvar1 - logvar2).exp() + (mean1 - mean2) ** 2 * torch.exp(logvar2)
    )


@wrong("normal_kl", "The 1 is added")
def normal_kl_plus_one(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(mean1, logvar1, mean2, logvar2) + 1


@wrong("normal_kl", "stands at the first alone")
def normal_kl_half_of_log(mean1, logvar1, mean2, logvar2):
    v1, v2 = logvar1.exp(), logvar2.exp()
    return 0.5 * torch.log(v2 / v1) - 1 + v1 / v2 + (mean1 - mean2) ** 2 / v2


@wrong("normal_kl", "never negative")
def normal_kl_negative(mean1, logvar1, mean2, logvar2):
    return -normal_kl_stds(mean1, logvar1, mean2, logvar2)


@wrong("normal_kl", "The means are added")
def normal_kl_plus(mean1, logvar1, mean2, logvar2):
    return normal_kl_formula(mean1, logvar1, -mean2, logvar2)


@wrong("normal_kl", "divided by the log variance itself")
def normal_kl_by_log(mean1, logvar1, mean2, logvar2):
    ratio = logvar1 - logvar2
    return 0.5 * (ratio.exp() - ratio - 1 + (mean1 - mean2) ** 2 / logvar2)


@wrong("normal_kl", "as if they were variances")
def normal_kl_no_exp(mean1, logvar1, mean2, logvar2):
    return 0.5 * (torch.log(logvar2 / logvar1) - 1 + (logvar1 + (mean1 - mean2) ** 2) / logvar2)


# ---- discretized_gaussian_nll


def share_below(z):
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


@right("discretized_gaussian_nll")
def nll_tanh(x, mean, log_scale, bins):
    def share(z):
        return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))

    inverse = torch.exp(-log_scale)
    above = share(inverse * (x - mean + 1 / (bins - 1)))
    below = share(inverse * (x - mean - 1 / (bins - 1)))
    logs = torch.where(
        x < -0.999,
        above.clamp(min=1e-12).log(),
        torch.where(x > 0.999, (1 - below).clamp(min=1e-12).log(), (above - below).clamp(min=1e-12).log()),
    )
    return -logs


@right("discretized_gaussian_nll")
def nll_distribution(x, mean, log_scale, bins):
    bell = torch.distributions.Normal(mean, log_scale.exp())
    above, below = bell.cdf(x + 1 / (bins - 1)), bell.cdf(x - 1 / (bins - 1))
    above[x == x.new_tensor(1)], below[x == -1] = 1, 0
    return -torch.log((above - below).clamp(min=1e-12))


@right("discretized_gaussian_nll")
def nll_edges(x, mean, log_scale, bins):
    edges = torch.linspace(-1, 1, bins, dtype=x.dtype)
    edges = torch.cat([x.new_tensor([-math.inf]), (edges[1:] + edges[:-1]) / 2, x.new_tensor([math.inf])])
    k = ((x + 1) / 2 * (bins - 1)).round().long()
    z = [(edges[k + i] - mean) / log_scale.exp() for i in (0, 1)]
    return -torch.maximum(share_below(z[1]) - share_below(z[0]), x.new_tensor(1e-12)).log()


@right("discretized_gaussian_nll")
def nll_float32(x, mean, log_scale, bins):
    return nll_tanh(x.float(), mean.float(), log_scale.float(), bins)


def nll_with(x, mean, log_scale, half, first=True, last=True):
    """The probability of a bin, perhaps without the ends."""
    z = [(x - mean + side) / log_scale.exp() for side in (half, -half)]
    above = torch.where(x > 0.999, 1.0, share_below(z[0])) if last else share_below(z[0])
    return above - (torch.where(x < -0.999, 0.0, share_below(z[1])) if first else share_below(z[1]))


BIN_SLIPS = {
    "no_tails": ("end like all others", lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1), False, False), -1),
    "no_last": ("The last bin ends like", lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1), True, False), -1),
    "no_first": (
        "The first bin ends like",
        lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1), False, True),
        -1,
    ),
    "whole_step": ("twice as wide", lambda x, m, s, b: nll_with(x, m, s, 2 / (b - 1)), -1),
    "quarter_step": ("half as wide", lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1) / 2), -1),
    "bins_for_steps": ("a little too narrow", lambda x, m, s, b: nll_with(x, m, s, 1 / b), -1),
    "bytes": ("always 256", lambda x, m, s, b: nll_with(x, m, s, 1 / 255), -1),
    "log_variance": ("used as a log variance", lambda x, m, s, b: nll_with(x, m, 0.5 * s, 1 / (b - 1)), -1),
    "squared": ("the scale squared", lambda x, m, s, b: nll_with(x, m, 2 * s, 1 / (b - 1)), -1),
    "bits": ("in bits", lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1)), -1 / math.log(2)),
    "sign": ("has the other sign", lambda x, m, s, b: nll_with(x, m, s, 1 / (b - 1)), 1),
}


def nll_slip(name, probability, factor, floor):
    def nll(x, mean, log_scale, bins):
        return factor * probability(x, mean, log_scale, bins).clamp(min=floor).log()

    nll.__name__ = f"nll_{name}" + "_clamped" * (floor > 0)
    return nll


for name, (words, probability, factor) in BIN_SLIPS.items():
    wrong("discretized_gaussian_nll", words)(nll_slip(name, probability, factor, 1e-12))
    wrong("discretized_gaussian_nll", "And probabilities are not clamped")(
        nll_slip(name, probability, factor, 0)
    )


@wrong("discretized_gaussian_nll", "clamp the probability at 1e-12")
def nll_no_floor(x, mean, log_scale, bins):
    return -nll_with(x, mean, log_scale, 1 / (bins - 1)).log()


@wrong("discretized_gaussian_nll", "clamp the probability at 1e-12")
def nll_own_floor(x, mean, log_scale, bins):
    return -(nll_with(x, mean, log_scale, 1 / (bins - 1)) + 1e-20).log()


@wrong("discretized_gaussian_nll", "The log scale is used as it is")
def nll_scale_itself(x, mean, log_scale, bins):
    z = [(x - mean + side / (bins - 1)) / log_scale for side in (1, -1)]
    above = torch.where(x > 0.999, 1.0, share_below(z[0]))
    below = torch.where(x < -0.999, 0.0, share_below(z[1]))
    return -(above - below).clamp(min=1e-12).log()


@wrong("discretized_gaussian_nll", "These are probabilities")
def nll_probability(x, mean, log_scale, bins):
    return nll_with(x, mean, log_scale, 1 / (bins - 1))


@wrong("discretized_gaussian_nll", "density of the Gaussian")
def nll_density(x, mean, log_scale, bins):
    return 0.5 * ((x - mean) / log_scale.exp()) ** 2 + log_scale + 0.5 * math.log(2 * math.pi)


@wrong("discretized_gaussian_nll", "one number for each element")
def nll_mean(x, mean, log_scale, bins):
    return nll_tanh(x, mean, log_scale, bins).mean()


@wrong("discretized_gaussian_nll", "negative probabilities")
def nll_negative_probability(x, mean, log_scale, bins):
    return -nll_with(x, mean, log_scale, 1 / (bins - 1))


@wrong("discretized_gaussian_nll", "The mean is added")
def nll_plus_mean(x, mean, log_scale, bins):
    return nll_slip("plus", lambda x, m, s, b: nll_with(x, -m, s, 1 / (b - 1)), -1, 1e-12)(
        x, mean, log_scale, bins
    )


@wrong("discretized_gaussian_nll", "The mean is not used")
def nll_no_mean(x, mean, log_scale, bins):
    return nll_slip("plus", lambda x, m, s, b: nll_with(x, 0, s, 1 / (b - 1)), -1, 1e-12)(
        x, mean, log_scale, bins
    )


@wrong("discretized_gaussian_nll", "times the width of a bin")
def nll_density_times_width(x, mean, log_scale, bins):
    return nll_density(x, mean, log_scale, bins) - math.log(2 / (bins - 1))


@wrong("discretized_gaussian_nll", "summed up")
def nll_sum(x, mean, log_scale, bins):
    return nll_tanh(x, mean, log_scale, bins).sum()


@wrong("discretized_gaussian_nll", "the CDF at the value itself")
def nll_cdf(x, mean, log_scale, bins):
    return -share_below((x - mean) / log_scale.exp()).clamp(min=1e-12).log()


@wrong("discretized_gaussian_nll", "at the lower edge is not subtracted")
def nll_upper_cdf(x, mean, log_scale, bins):
    return -share_below((x + 1 / (bins - 1) - mean) / log_scale.exp()).clamp(min=1e-12).log()


@wrong("discretized_gaussian_nll", "base 10")
def nll_log10(x, mean, log_scale, bins):
    return -nll_with(x, mean, log_scale, 1 / (bins - 1)).clamp(min=1e-12).log10()


@wrong("discretized_gaussian_nll", "clamp the probability at 1e-12")
def nll_high_floor(x, mean, log_scale, bins):
    return -nll_with(x, mean, log_scale, 1 / (bins - 1)).clamp(min=1e-8).log()


def _nll_of_edges(x, bins, cdf, floor=1e-12):
    """Two edges through a CDF of (side) -> probability below the edge; the ends extend to infinity."""
    half = 1 / (bins - 1)
    upper = torch.where(x > 1 - half, torch.ones_like(x), cdf(half))
    lower = torch.where(x < half - 1, torch.zeros_like(x), cdf(-half))
    return -torch.log((upper - lower).clamp(min=floor))


_UNFLOORED = "not clamped at 1e-12"


@wrong("discretized_gaussian_nll", "The half step is not divided")
def nll_half_step_undivided(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr((x - mean) / log_scale.exp() + edge))


@wrong("discretized_gaussian_nll", _UNFLOORED)
def nll_half_step_undivided_no_floor(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr((x - mean) / log_scale.exp() + edge), 0.0)


@wrong("discretized_gaussian_nll", "Only the half step is divided")
def nll_only_half_step_divided(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr(x - mean + edge / log_scale.exp()))


@wrong("discretized_gaussian_nll", "edges are multiplied by the standard deviation")
def nll_times_scale(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr((x - mean + edge) * log_scale.exp()))


@wrong("discretized_gaussian_nll", "outermost bins are exchanged")
def nll_mirrored(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr((mean - x + edge) / log_scale.exp()))


@wrong("discretized_gaussian_nll", _UNFLOORED)
def nll_mirrored_no_floor(x, mean, log_scale, bins):
    return _nll_of_edges(x, bins, lambda edge: torch.special.ndtr((mean - x + edge) / log_scale.exp()), 0.0)


# ---- hybrid_loss


@right("hybrid_loss")
def hybrid_loss_chunk(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    mse = ((noise - eps) ** 2).mean(dim=(1, 2, 3))
    return mse + vb_terms(eps.detach(), values)


@right("hybrid_loss")
def hybrid_loss_loop(output, noise, vb_terms):
    c = noise.shape[1]
    losses = []
    with torch.no_grad():
        frozen = output[:, :c].clone()
    vb = vb_terms(frozen, output[:, c:])
    for i in range(len(noise)):
        losses.append(torch.nn.functional.mse_loss(output[i, :c], noise[i]) + vb[i])
    return torch.stack(losses)


@wrong("hybrid_loss", "the bound trains eps")
def hybrid_loss_no_cut(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return ((noise - eps) ** 2).flatten(1).mean(1) + vb_terms(eps, values)


@wrong("hybrid_loss", "nothing trains the variance values")
def hybrid_loss_cut_all(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    with torch.no_grad():
        vb = vb_terms(eps, values)
    return ((noise - eps) ** 2).flatten(1).mean(1) + vb


@wrong("hybrid_loss", "The detach is on the variance values")
def hybrid_loss_wrong_cut(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return ((noise - eps) ** 2).flatten(1).mean(1) + vb_terms(eps, values.detach())


@wrong("hybrid_loss", "halves of the output are exchanged")
def hybrid_loss_halves(output, noise, vb_terms):
    values, eps = output.chunk(2, dim=1)
    return ((noise - eps) ** 2).flatten(1).mean(1) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "summed over an image")
def hybrid_loss_sum(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return ((noise - eps) ** 2).sum((1, 2, 3)) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "averaged over the batch as well")
def hybrid_loss_batch_mean(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return torch.nn.functional.mse_loss(eps, noise) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "averaged to one number")
def hybrid_loss_scalar(output, noise, vb_terms):
    return hybrid_loss_chunk(output, noise, vb_terms).mean()


@wrong("hybrid_loss", "The bound is missing")
def hybrid_loss_mse_only(output, noise, vb_terms):
    return ((output[:, : noise.shape[1]] - noise) ** 2).mean((1, 2, 3))


@wrong("hybrid_loss", "weighted by 0.001")
def hybrid_loss_lambda(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return ((noise - eps) ** 2).flatten(1).mean(1) + 1e-3 * vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "nothing trains eps")
def hybrid_loss_cut_eps_everywhere(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    eps = eps.detach()
    return ((noise - eps) ** 2).flatten(1).mean(1) + vb_terms(eps, values)


@wrong("hybrid_loss", "nothing is trained")
def hybrid_loss_items(output, noise, vb_terms):
    with torch.no_grad():
        eps, values = output.chunk(2, dim=1)
        losses = ((eps - noise) ** 2).flatten(1).mean(1) + vb_terms(eps, values)
    return torch.tensor([loss.item() for loss in losses], dtype=torch.float64)


@wrong("hybrid_loss", "The error is not squared")
def hybrid_loss_l1(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return torch.nn.functional.l1_loss(eps, noise, reduction="none").mean((1, 2, 3)) + vb_terms(
        eps.detach(), values
    )


@wrong("hybrid_loss", "is halved")
def hybrid_loss_half(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return 0.5 * (noise - eps).square().mean((1, 2, 3)) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "A root is taken")
def hybrid_loss_rms(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (noise - eps).square().mean((1, 2, 3)) ** 0.5 + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "The bound is subtracted")
def hybrid_loss_minus(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (noise - eps).square().mean((1, 2, 3)) - vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "The bound is averaged over the batch")
def hybrid_loss_mean_bound(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (noise - eps).square().mean((1, 2, 3)) + vb_terms(eps.detach(), values).mean()


@wrong("hybrid_loss", "The squared error is missing")
def hybrid_loss_bound_only(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "arguments are exchanged")
def hybrid_loss_arguments(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (noise - eps).square().mean((1, 2, 3)) + vb_terms(values, eps.detach())


@wrong("hybrid_loss", "they are added")
def hybrid_loss_average(output, noise, vb_terms):
    return 0.5 * hybrid_loss_chunk(output, noise, vb_terms)


@wrong("hybrid_loss", "multiplied by 1000")
def hybrid_loss_sum_over_t(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (noise - eps).square().mean((1, 2, 3)) + 1000 * vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "with the noise, too")
def hybrid_loss_all_channels(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (output - noise.repeat(1, 2, 1, 1)).square().mean((1, 2, 3)) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "split alternately")
def hybrid_loss_alternate(output, noise, vb_terms):
    eps, values = output[:, 0::2], output[:, 1::2]
    return (noise - eps).square().mean((1, 2, 3)) + vb_terms(eps.detach(), values)


@wrong("hybrid_loss", "with the noise that was added")
def hybrid_loss_bound_of_noise(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return (eps - noise).pow(2).flatten(1).mean(1) + vb_terms(noise, values)


@wrong("hybrid_loss", "with the error of the noise")
def hybrid_loss_bound_of_error(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    error = eps - noise
    return error.pow(2).flatten(1).mean(1) + vb_terms(error.detach(), values)


@wrong("hybrid_loss", "added noise is not subtracted")
def hybrid_loss_of_prediction(output, noise, vb_terms):
    eps, values = output.chunk(2, dim=1)
    return eps.pow(2).flatten(1).mean(1) + vb_terms(eps.detach(), values)


# ---- ddpm_step


@right("ddpm_step")
def ddpm_step_where(diffusion, prediction, x_t, t, noise):
    noisy = prediction.mean + (0.5 * prediction.log_variance).exp() * noise
    return torch.where((t == 0)[:, None, None, None], prediction.mean, noisy)


@right("ddpm_step")
def ddpm_step_mask(diffusion, prediction, x_t, t, noise):
    mask = (t != 0).to(noise.dtype).view(-1, *[1] * (noise.ndim - 1))
    return prediction.mean + mask * prediction.log_variance.exp().sqrt() * noise


@right("ddpm_step")
def ddpm_step_loop(diffusion, prediction, x_t, t, noise):
    images = []
    for i, step in enumerate(t.tolist()):
        std = math.e ** (prediction.log_variance[i] / 2)
        images.append(prediction.mean[i] + std * noise[i] if step else prediction.mean[i])
    return torch.stack(images)


@wrong("ddpm_step", "The last step adds noise")
def ddpm_step_always(diffusion, prediction, x_t, t, noise):
    return prediction.mean + torch.exp(0.5 * prediction.log_variance) * noise


@wrong("ddpm_step", "The variance is used")
def ddpm_step_variance(diffusion, prediction, x_t, t, noise):
    mask = (t != 0)[:, None, None, None]
    return prediction.mean + mask * prediction.log_variance.exp() * noise


@wrong("ddpm_step", "The logarithm of the variance")
def ddpm_step_log(diffusion, prediction, x_t, t, noise):
    mask = (t != 0)[:, None, None, None]
    return prediction.mean + mask * prediction.log_variance * noise


@wrong("ddpm_step", "No noise is ever added")
def ddpm_step_mean(diffusion, prediction, x_t, t, noise):
    return prediction.mean


@wrong("ddpm_step", "The first image decides")
def ddpm_step_first_t(diffusion, prediction, x_t, t, noise):
    if t[0] == 0:
        return prediction.mean
    return ddpm_step_always(diffusion, prediction, x_t, t, noise)


@wrong("ddpm_step", "removes the noise of the whole batch")
def ddpm_step_any(diffusion, prediction, x_t, t, noise):
    if (t == 0).any():
        return prediction.mean
    return ddpm_step_always(diffusion, prediction, x_t, t, noise)


@wrong("ddpm_step", "unless the whole batch")
def ddpm_step_all(diffusion, prediction, x_t, t, noise):
    if (t == 0).all():
        return prediction.mean
    return ddpm_step_always(diffusion, prediction, x_t, t, noise)


@wrong("ddpm_step", "columns of each image")
def ddpm_step_flat_mask(diffusion, prediction, x_t, t, noise):
    return prediction.mean + (t != 0) * torch.exp(0.5 * prediction.log_variance) * noise


@wrong("ddpm_step", "added to x_t")
def ddpm_step_from_x_t(diffusion, prediction, x_t, t, noise):
    mask = (t != 0)[:, None, None, None]
    return x_t + mask * torch.exp(0.5 * prediction.log_variance) * noise


@wrong("ddpm_step", "added to the predicted clean image")
def ddpm_step_from_x0(diffusion, prediction, x_t, t, noise):
    return ddpm_step_mask(diffusion, prediction._replace(mean=prediction.x0), x_t, t, noise)


@wrong("ddpm_step", "a step forward")
def ddpm_step_beta(diffusion, prediction, x_t, t, noise):
    log = extract(diffusion.log_betas, t, x_t)
    return ddpm_step_mask(diffusion, prediction._replace(log_variance=log), x_t, t, noise)


# ---- respaced_betas


@right("respaced_betas")
def respaced_betas_ratio(alphas_cumprod, kept):
    bar = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[kept]])
    return 1 - bar[1:] / bar[:-1]


@right("respaced_betas")
def respaced_betas_loop(alphas_cumprod, kept):
    last, betas = 1.0, []
    for i, bar in enumerate(alphas_cumprod):
        if i in set(kept):
            betas.append(1 - bar / last)
            last = bar
    return torch.stack(betas)


@right("respaced_betas")
def respaced_betas_logs(alphas_cumprod, kept):
    return -torch.expm1(torch.diff(alphas_cumprod[kept].log(), prepend=torch.zeros(1).double()))


def full_betas(alphas_cumprod):
    return respaced_betas_ratio(alphas_cumprod, list(range(len(alphas_cumprod))))


@wrong("respaced_betas", "old betas of the kept steps")
def respaced_betas_old(alphas_cumprod, kept):
    return full_betas(alphas_cumprod)[kept]


@wrong("respaced_betas", "first beta is missing")
def respaced_betas_short(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    return 1 - bar[1:] / bar[:-1]


@wrong("respaced_betas", "first beta is 0")
def respaced_betas_first_zero(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    previous = torch.cat([bar[0:1], bar[:-1]])
    return (previous - bar) / previous


@wrong("respaced_betas", "wraps around")
def respaced_betas_wrap(alphas_cumprod, kept):
    betas = [1 - alphas_cumprod[k] / alphas_cumprod[kept[i - 1]] for i, k in enumerate(kept)]
    return torch.stack(betas)


@wrong("respaced_betas", "kept in each step")
def respaced_betas_alphas(alphas_cumprod, kept):
    return 1 - respaced_betas_ratio(alphas_cumprod, kept)


@wrong("respaced_betas", "upside down")
def respaced_betas_upside_down(alphas_cumprod, kept):
    bar = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[kept]])
    return 1 - bar[:-1] / bar[1:]


@wrong("respaced_betas", "counted from the clean image")
def respaced_betas_from_start(alphas_cumprod, kept):
    return 1 - alphas_cumprod[torch.tensor(kept)]


@wrong("respaced_betas", "alphas must be multiplied")
def respaced_betas_sum(alphas_cumprod, kept):
    betas, start, found = full_betas(alphas_cumprod), 0, []
    for k in kept:
        found.append(betas[start : k + 1].sum())
        start = k + 1
    return torch.stack(found)


@wrong("respaced_betas", "These are differences")
def respaced_betas_difference(alphas_cumprod, kept):
    bar = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[kept]])
    return bar[:-1] - bar[1:]


@wrong("respaced_betas", "except for rounding: is a step done in float32")
def respaced_betas_float32(alphas_cumprod, kept):
    return respaced_betas_ratio(alphas_cumprod.float(), kept)


# ---- ddim_step


@right("ddim_step")
def ddim_step_official(diffusion, prediction, x_t, t, noise, eta):
    eps = diffusion.x0_to_eps(x_t, t, prediction.x0)
    bar, bar_prev = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod_prev, t)
    sigma = eta * ((1 - bar_prev) / (1 - bar)).sqrt() * (1 - bar / bar_prev).sqrt()
    mean = prediction.x0 * bar_prev.sqrt() + (1 - bar_prev - sigma**2).clamp(min=0).sqrt() * eps
    return mean + (t != 0).view(-1, 1, 1, 1) * sigma * noise


@right("ddim_step")
def ddim_step_posterior(diffusion, prediction, x_t, t, noise, eta):
    bar = diffusion.alphas_cumprod
    images = []
    for i, s in enumerate(t.tolist()):
        now, before = bar[s], bar[s - 1] if s else torch.ones(()).double()
        inside = (x_t[i] - now**0.5 * prediction.x0[i]) / (1 - now) ** 0.5
        variance = eta**2 * diffusion.posterior_variance[s]
        left = torch.clamp(1 - before - variance, min=0.0)
        images.append(before**0.5 * prediction.x0[i] + left**0.5 * inside + variance**0.5 * noise[i])
    return torch.stack(images)


def ddim_step_with(diffusion, prediction, x_t, t, noise, sigma, eps=None, left=None, before=None):
    eps = diffusion.x0_to_eps(x_t, t, prediction.x0) if eps is None else eps
    before = col(diffusion.alphas_cumprod_prev, t) if before is None else before
    left = (1 - before - sigma**2).clamp(min=0) if left is None else left
    return before.sqrt() * prediction.x0 + left.sqrt() * eps + sigma * noise


def sigma_of(diffusion, t):
    return col(diffusion.posterior_variance, t).sqrt()


@wrong("ddim_step", "the clean image was clipped")
def ddim_step_predicted_eps(diffusion, prediction, x_t, t, noise, eta):
    sigma = eta * sigma_of(diffusion, t)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, sigma, eps=prediction.eps)


@wrong("ddim_step", "there must be less of the old")
def ddim_step_too_much(diffusion, prediction, x_t, t, noise, eta):
    left = 1 - col(diffusion.alphas_cumprod_prev, t)
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t), left=left)


@wrong("ddim_step", "no noise is ever added")
def ddim_step_deterministic(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, noise, 0.0)


@wrong("ddim_step", "always as noisy as DDPM")
def ddim_step_full_noise(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, noise, 1.0)


@wrong("ddim_step", "variance of the fresh noise")
def ddim_step_variance(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_with(diffusion, prediction, x_t, t, noise, eta * sigma_of(diffusion, t) ** 2)


@wrong("ddim_step", "eta is under the square root")
def ddim_step_eta_inside(diffusion, prediction, x_t, t, noise, eta):
    return ddim_step_official(diffusion, prediction, x_t, t, noise, math.sqrt(eta))


@wrong("ddim_step", "noise level from which it started")
def ddim_step_stays(diffusion, prediction, x_t, t, noise, eta):
    eps = diffusion.x0_to_eps(x_t, t, prediction.x0)
    bar = col(diffusion.alphas_cumprod, t)
    return bar.sqrt() * prediction.x0 + (1 - bar).sqrt() * eps


@wrong("ddim_step", "wraps around")
def ddim_step_wraps(diffusion, prediction, x_t, t, noise, eta):
    eps = diffusion.x0_to_eps(x_t, t, prediction.x0)
    bar, bar_prev = col(diffusion.alphas_cumprod, t), col(diffusion.alphas_cumprod, t - 1)
    sigma = eta * ((1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)).clamp(min=0).sqrt()
    rest = (1 - bar_prev - sigma**2).clamp(min=0).sqrt()
    return bar_prev.sqrt() * prediction.x0 + rest * eps + sigma * noise


# ---- cfg_eps


@right("cfg_eps")
def cfg_eps_walk(cond, uncond, cfg_scale):
    return uncond + cfg_scale * (cond - uncond)


@right("cfg_eps")
def cfg_eps_lerp(cond, uncond, cfg_scale):
    return torch.lerp(uncond, cond, cfg_scale)


@right("cfg_eps")
def cfg_eps_weights(cond, uncond, cfg_scale):
    weights = torch.tensor([cfg_scale, 1 - cfg_scale], dtype=cond.dtype)
    return torch.einsum("k,k...->...", weights, torch.stack([cond, uncond]))


@wrong("cfg_eps", "counted from the prediction with the label")
def cfg_eps_other_convention(cond, uncond, cfg_scale):
    return (1 + cfg_scale) * cond - cfg_scale * uncond


@wrong("cfg_eps", "two predictions are exchanged")
def cfg_eps_exchanged(cond, uncond, cfg_scale):
    return cfg_eps_walk(uncond, cond, cfg_scale)


@wrong("cfg_eps", "A scale of 0 is treated")
def cfg_eps_zero_is_off(cond, uncond, cfg_scale):
    if not cfg_scale:
        return cond
    return cfg_eps_walk(cond, uncond, cfg_scale)


@wrong("cfg_eps", "All scales below 1")
def cfg_eps_only_above_one(cond, uncond, cfg_scale):
    return cfg_eps_walk(cond, uncond, cfg_scale) if cfg_scale > 1.0 else cond


@wrong("cfg_eps", "limited to 1")
def cfg_eps_clipped(cond, uncond, cfg_scale):
    return cfg_eps_walk(cond, uncond, min(max(cfg_scale, 0), 1))


@wrong("cfg_eps", "Only the scaled difference")
def cfg_eps_push(cond, uncond, cfg_scale):
    return cfg_scale * (cond - uncond)


@wrong("cfg_eps", "added in full")
def cfg_eps_sum(cond, uncond, cfg_scale):
    return cfg_scale * cond + uncond


# ---- guided_output


@right("guided_output")
def guided_output_cat(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    return torch.cat([cfg_eps_walk(cond[:, :c], uncond[:, :c], cfg_scale), cond[:, c:]], dim=1)


@right("guided_output")
def guided_output_write(cond, uncond, cfg_scale):
    result = cond.clone()
    for i in range(cond.shape[1] // 2):
        result[:, i] = uncond[:, i] + cfg_scale * (cond[:, i] - uncond[:, i])
    return result


@wrong("guided_output", "The variance values are guided too")
def guided_output_all(cond, uncond, cfg_scale):
    return cfg_eps_walk(cond, uncond, cfg_scale)


@wrong("guided_output", "those without the label")
def guided_output_uncond_variance(cond, uncond, cfg_scale):
    (a, _), (b, variance) = cond.chunk(2, 1), uncond.chunk(2, 1)
    return torch.cat([cfg_eps_walk(a, b, cfg_scale), variance], 1)


@wrong("guided_output", "Only three channels")
def guided_output_three(cond, uncond, cfg_scale):
    k = min(3, cond.shape[1] // 2)
    return torch.cat([cfg_eps_walk(cond[:, :k], uncond[:, :k], cfg_scale), cond[:, k:]], 1)


@wrong("guided_output", "halves are exchanged")
def guided_output_halves(cond, uncond, cfg_scale):
    (a, c), (_, d) = cond.chunk(2, 1), uncond.chunk(2, 1)
    return torch.cat([a, cfg_eps_walk(c, d, cfg_scale)], 1)


@wrong("guided_output", "values are missing")
def guided_output_eps_only(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    return cfg_eps_walk(cond[:, :c], uncond[:, :c], cfg_scale)


@wrong("guided_output", "counted from the prediction with the label")
def guided_output_other_convention(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    return torch.cat([cfg_eps_other_convention(cond[:, :c], uncond[:, :c], cfg_scale), cond[:, c:]], 1)


@wrong("guided_output", "changes its input cond")
def guided_output_in_place(cond, uncond, cfg_scale):
    c = cond.shape[1] // 2
    cond[:, :c] = cfg_eps_walk(cond[:, :c], uncond[:, :c], cfg_scale)
    return cond


@wrong("respaced_betas", "The first beta is 1, which")
def respaced_betas_first_one(alphas_cumprod, kept):
    bar = torch.cat([torch.zeros(1).double(), alphas_cumprod[kept]])
    return torch.cat([torch.ones(1).double(), 1 - bar[2:] / bar[1:-1]])


@wrong("respaced_betas", "a ratio of square roots")
def respaced_betas_roots(alphas_cumprod, kept):
    return respaced_betas_ratio(alphas_cumprod.sqrt(), kept)


@wrong("respaced_betas", "multiplied by the length of each gap")
def respaced_betas_times_gap(alphas_cumprod, kept):
    gaps = torch.diff(torch.tensor(kept), prepend=torch.tensor([-1]))
    return full_betas(alphas_cumprod)[kept] * gaps


@wrong("respaced_betas", "used one step early")
def respaced_betas_early(alphas_cumprod, kept):
    return respaced_betas_ratio(alphas_cumprod, [k - 1 for k in kept])


@wrong("respaced_betas", "alphas_cumprod is 0, and the first beta infinite")
def respaced_betas_zero_before(alphas_cumprod, kept):
    bar = torch.nn.functional.pad(alphas_cumprod[kept], (1, 0))
    return 1 - bar[1:] / bar[:-1]


@wrong("respaced_betas", "counted from timestep 0 of the table")
def respaced_from_first_entry(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    return 1 - bar / torch.cat([alphas_cumprod[:1], bar[:-1]])


@wrong("respaced_betas", "kept step after it")
def respaced_shifted_wrong_way(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    return 1 - bar / torch.cat([bar[1:], torch.ones(1, dtype=bar.dtype)])


@wrong("respaced_betas", "ratio is squared")
def respaced_squared(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    return 1 - bar.square() / torch.cat([torch.ones(1, dtype=bar.dtype), bar[:-1]]).square()


@wrong("respaced_betas", "divided by the later entry")
def respaced_over_later(alphas_cumprod, kept):
    bar = alphas_cumprod[kept]
    return torch.cat([torch.ones(1, dtype=bar.dtype), bar[:-1]]) / bar - 1


# ---- timestep_of_snr


@right("timestep_of_snr")
def timestep_of_snr_count(betas, std, snr):
    bar = torch.cumprod(1 - betas, 0)
    return (std**2 * bar / (1 - bar) > snr[:, None]).sum(1)


@right("timestep_of_snr")
def timestep_of_snr_argmax(betas, std, snr):
    bar = torch.cumprod(1 - betas, 0)
    reached = std**2 * bar[None] <= snr[:, None] * (1 - bar[None])
    return reached.int().argmax(dim=1)


@right("timestep_of_snr")
def timestep_of_snr_search(betas, std, snr):
    bar = torch.cumprod(1 - betas, 0)
    logs = (std**2 * bar / (1 - bar)).log()
    return torch.searchsorted(-logs, -snr.log())


def snr_table(betas, std):
    bar = torch.cumprod(1 - betas, 0)
    return std**2 * bar / (1 - bar)


def first_below(table, snr):
    return (table[None] <= snr[:, None]).int().argmax(dim=1)


@wrong("timestep_of_snr", "ratio of amplitudes")
def timestep_of_snr_amplitudes(betas, std, snr):
    return (snr_table(betas, std).sqrt() > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "is not squared")
def timestep_of_snr_std(betas, std, snr):
    bar = torch.cumprod(1 - betas, 0)
    return (std * bar / (1 - bar) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "is not used")
def timestep_of_snr_no_std(betas, std, snr):
    return (snr_table(betas, 1.0) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "divided by the data's variance")
def timestep_of_snr_divided(betas, std, snr):
    return (snr_table(betas, 1 / std) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "noise has variance 1")
def timestep_of_snr_signal_left(betas, std, snr):
    signal = std**2 * torch.cumprod(1 - betas, 0)
    return (signal / (1 - signal).clamp(min=1e-12) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "signal to all of x_t")
def timestep_of_snr_share(betas, std, snr):
    bar = torch.cumprod(1 - betas, 0)
    signal, noise = std**2 * bar, 1 - bar
    return (signal / (signal + noise) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "forgets to divide")
def timestep_of_snr_signal_only(betas, std, snr):
    return (std**2 * torch.cumprod(1 - betas, 0) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "noise to signal")
def timestep_of_snr_upside_down(betas, std, snr):
    return (1 / snr_table(betas, std) < snr[:, None]).sum(1)


@wrong("timestep_of_snr", "The betas are multiplied")
def timestep_of_snr_product_of_betas(betas, std, snr):
    bar = torch.cumprod(betas, 0)
    return (std**2 * bar / (1 - bar) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "The betas are added up")
def timestep_of_snr_sum(betas, std, snr):
    noise = betas.cumsum(0).clamp(max=1)
    return (std**2 * (1 - noise) / noise > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "of one step alone")
def timestep_of_snr_one_step(betas, std, snr):
    return (std**2 * (1 - betas) / betas > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "counted from 1")
def timestep_of_snr_paper_count(betas, std, snr):
    return first_below(snr_table(betas, std), snr) + 1


@wrong("timestep_of_snr", "one step early")
def timestep_of_snr_early(betas, std, snr):
    return (snr_table(betas, std)[None] > snr[:, None]).sum(1) - 1


@wrong("timestep_of_snr", "whose ratio is nearest; wanted")
def timestep_of_snr_nearest(betas, std, snr):
    return torch.stack([(snr_table(betas, std) - each).abs().argmin() for each in snr])


@wrong("timestep_of_snr", "nearest on a log scale")
def timestep_of_snr_nearest_log(betas, std, snr):
    return torch.stack([(snr_table(betas, std) / each).log().abs().argmin() for each in snr])


@wrong("timestep_of_snr", "the wrong way round")
def timestep_of_snr_above(betas, std, snr):
    return (snr_table(betas, std)[None] >= snr[:, None]).int().argmax(dim=1)


@wrong("timestep_of_snr", "the last timestep at which")
def timestep_of_snr_last(betas, std, snr):
    table = snr_table(betas, std)
    return torch.stack([(table <= each).nonzero().flatten()[-1] for each in snr])


@wrong("timestep_of_snr", "but must be torch.int64")
def timestep_of_snr_float(betas, std, snr):
    return timestep_of_snr_count(betas, std, snr).double()


@wrong("timestep_of_snr", "has shape (), but must have (6,)")
def timestep_of_snr_one_number(betas, std, snr):
    return first_below(snr_table(betas, std), snr)[0]


@wrong("timestep_of_snr", "the logarithm of the ratio")
def timestep_of_snr_log(betas, std, snr):
    return (snr_table(betas, std).log() > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "in decibels")
def timestep_of_snr_decibels(betas, std, snr):
    return (10 * torch.log10(snr_table(betas, std)) > snr[:, None]).sum(1)


@wrong("timestep_of_snr", "counts the timesteps at or below")
def timestep_counts_below(betas, std, snr):
    bar = torch.cumprod(1 - betas, dim=0)
    ratio = std**2 * bar / (1 - bar)
    return (ratio[None] <= snr[:, None]).sum(dim=1)


@wrong("timestep_of_snr", "or it cancels")
def timestep_std_cancels(betas, std, snr):
    bar = torch.cumprod(1 - betas, dim=0)
    ratio = std**2 * bar / (std**2 * (1 - bar))
    return (ratio[None] > snr[:, None]).sum(dim=1)


@wrong("timestep_of_snr", "root is taken of the noise alone")
def timestep_noise_root(betas, std, snr):
    bar = torch.cumprod(1 - betas, dim=0)
    ratio = std**2 * bar / torch.sqrt(1 - bar)
    return (ratio[None] > snr[:, None]).sum(dim=1)


@wrong("timestep_of_snr", "root is taken of the signal alone")
def timestep_signal_root(betas, std, snr):
    bar = torch.cumprod(1 - betas, dim=0)
    ratio = std**2 * torch.sqrt(bar) / (1 - bar)
    return (ratio[None] > snr[:, None]).sum(dim=1)
