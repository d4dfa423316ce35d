"""Gaussian data, for which the ideal model, every sampler and the variational bound have a closed form."""

import math

import numpy as np
import torch

from dit_nb import Diffusion
from dit_nb.schedule import space_timesteps

MEAN, VAR = 0.7, 0.3**2  # of the data
SPECS = ("10", "50", "ddim50", "1000")  # schedules that the samplers are tested with


def normal(*shape, seed=0):
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class GaussianChain:
    """The schedule, from its definition, at the timesteps that `spec` keeps; methods take a step k."""

    def __init__(self, spec):
        full = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
        self.kept = space_timesteps(1000, spec)
        self.bar = full[self.kept]
        self.prev = np.append(1.0, self.bar[:-1])
        self.alpha = self.bar / self.prev
        self.marginal = self.bar * VAR + 1 - self.bar  # variance of x_t
        self.marginal_prev = self.prev * VAR + 1 - self.prev

    def true_variance(self, k):
        """The variance of x_{t-1} given x_t, by conditioning one of two jointly normal numbers on the other."""
        covariance = math.sqrt(self.alpha[k]) * self.marginal_prev[k]
        return self.marginal_prev[k] - covariance**2 / self.marginal[k]

    def posterior(self, k):
        """Weights of x_0 and x_t, and variance, of x_{t-1} given both: the product of two normal densities."""
        if k == 0:
            return 1.0, 0.0, 0.0
        beta = 1 - self.alpha[k]
        precision = 1 / (1 - self.prev[k]) + self.alpha[k] / beta
        of_x0 = math.sqrt(self.prev[k]) / (1 - self.prev[k]) / precision
        return of_x0, math.sqrt(self.alpha[k]) / beta / precision, 1 / precision

    def fraction(self, k):
        """Where the true variance lies between its two bounds, on a log scale."""
        large = math.log(1 - self.alpha[k])
        small = math.log(self.posterior(max(k, 1))[2]) if len(self.kept) > 1 else large
        return (math.log(self.true_variance(k)) - small) / (large - small) if large > small else 0.0

    def expected_x0(self, k):
        """Intercept and slope of E[x_0 | x_t] as a function of x_t."""
        slope = math.sqrt(self.bar[k]) * VAR / self.marginal[k]
        return MEAN - slope * math.sqrt(self.bar[k]) * MEAN, slope

    def model(self, x, t, y=None):
        """The ideal eps, and the variance values that make the learned variance the true one."""
        k = self.kept.index(int(t[0]))  # fails unless t is an original timestep
        a, b = self.expected_x0(k)
        eps = (x - math.sqrt(self.bar[k]) * (a + b * x)) / math.sqrt(1 - self.bar[k])
        return torch.cat([eps, torch.full_like(eps, 2 * self.fraction(k) - 1)], dim=1)

    def ddpm_moments(self, step_variance, mean=0.0, variance=1.0):
        """Mean and variance of ancestral samples, propagated step by step from those of x_T."""
        for k in reversed(range(len(self.kept))):
            a, b = self.expected_x0(k)
            of_x0, of_xt, _ = self.posterior(k)
            mean = of_x0 * (a + b * mean) + of_xt * mean
            variance = (of_x0 * b + of_xt) ** 2 * variance + (step_variance(k) if k else 0.0)
        return mean, variance

    def ddim_moments(self, eta, mean=0.0, variance=1.0):
        """Mean and variance of DDIM's samples, propagated step by step from those of x_T."""
        for k in reversed(range(len(self.kept))):
            a, b = self.expected_x0(k)
            bar, prev = self.bar[k], self.prev[k]
            sigma2 = eta**2 * (1 - prev) / (1 - bar) * (1 - bar / prev)
            direction = math.sqrt(max(1 - prev - sigma2, 0)) / math.sqrt(1 - bar)
            slope = math.sqrt(prev) * b + direction * (1 - math.sqrt(bar) * b)
            mean = slope * mean + (math.sqrt(prev) - direction * math.sqrt(bar)) * a
            variance = slope**2 * variance + sigma2
        return mean, variance


def affine_map(sample, spec, **options):
    """Samples are affine in x_T and the noise of each step: measure intercept and weights with one call."""
    diffusion, steps = Diffusion().respaced(spec), len(space_timesteps(1000, spec))
    shape = (steps + 2, 1, 1, 1)  # image 0: all noise is 0; 1: x_T is 1; 2 + i: the noise of step i is 1
    probes = torch.eye(steps + 2, dtype=torch.float64)
    x_T, step_noise = probes[:, 1].view(shape), probes[2:].view(steps, *shape)
    model = GaussianChain(spec).model
    end = sample(diffusion, model, shape, x_T=x_T, step_noise=step_noise, progress=False, **options)
    end = end.flatten().numpy()
    return end[0], end[1] - end[0], end[2:] - end[0]


def gaussian_velocity(x, time, y=None):
    """The exact velocity for Gaussian data, by regression of noise - x0 on x_t."""
    t = time.view(-1, *[1] * (x.ndim - 1)) / 1000
    slope = (t - (1 - t) * VAR) / ((1 - t) ** 2 * VAR + t**2)
    return slope * (x - (1 - t) * MEAN) - MEAN
