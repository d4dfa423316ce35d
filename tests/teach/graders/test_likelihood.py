"""Graders of the KL divergence and of the likelihood of pixels: both as integrals."""

import numpy as np
import pytest
import torch

from dit_nb.teach.graders.framework.core import all_exercises, reference_solution
from support import relative

# Exact for polynomials up to degree 39; the weights sum to sqrt(2 pi).
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(20))


def log_density(x, mean, log_variance):
    return -((x - mean) ** 2) / (2 * log_variance.exp()) - log_variance / 2 - np.log(2 * np.pi) / 2


def test_the_divergence_is_an_expected_difference_of_log_densities(check_identity):
    def holds(fn, mean1, logvar1, mean2, logvar2):
        x = mean1[..., None] + (logvar1 / 2).exp()[..., None] * NODES
        gap = log_density(x, mean1[..., None], logvar1[..., None])
        gap = gap - log_density(x, mean2[..., None], logvar2[..., None])
        expected = (gap * WEIGHTS).sum(-1) / WEIGHTS.sum()
        return relative(fn(mean1, logvar1, mean2, logvar2), expected) < 1e-9

    check_identity("normal_kl", holds)


def integral(x, mean, log_scale, bins):
    """Probability of the bin around each x: the density, summed up by the trapezoidal rule."""
    scale, half = log_scale.exp().expand_as(x), 1 / (bins - 1)
    first, last = x <= -1 + half, x >= 1 - half
    low = torch.where(first, mean - 10 * scale, x - half)
    high = torch.where(last, mean + 10 * scale, x + half)
    z = low[..., None] + (high - low)[..., None] * torch.linspace(0, 1, 10001, dtype=torch.float64)
    density = log_density(z, mean[..., None], 2 * scale.log()[..., None]).exp()
    return torch.trapezoid(density, z, dim=-1)


def test_the_likelihood_is_the_density_integrated_over_a_bin(check_identity):
    """Up to the tolerance of the exercise, because the reference has an approximate normal distribution."""

    def holds(fn, x, mean, log_scale, bins):
        expected = -integral(x, mean, log_scale, bins).clamp(min=1e-12).log()
        return relative(fn(x, mean, log_scale, bins), expected) < 2e-3

    check_identity("discretized_gaussian_nll", holds)


@pytest.mark.parametrize("bins", [2, 3, 16, 256])
def test_the_probabilities_of_all_bins_sum_to_one(bins):
    x = torch.linspace(-1, 1, bins, dtype=torch.float64)
    name = "discretized_gaussian_nll"
    for fn in (all_exercises()[name].oracle, reference_solution(name)):
        for mean in (-1.2, 0.1, 0.8):
            nats = fn(x, torch.full_like(x, mean), torch.full_like(x, 0.4).log(), bins)
            assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-8)
