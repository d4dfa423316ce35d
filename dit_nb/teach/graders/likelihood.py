"""Graders of lesson 15: KL divergence of Gaussians, and the likelihood of discrete pixels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import discretized_gaussian_nll, normal_kl
from dit_nb.teach.graders.framework.batches import _SHAPES
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_normal_kl", "check_discretized_gaussian_nll"]


def _torch_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    normals = [torch.distributions.Normal(m, (v / 2).exp()) for m, v in ((mean1, logvar1), (mean2, logvar2))]
    return torch.distributions.kl_divergence(*normals)


def _kl_cases(rng: RandomInputs) -> list[Case]:
    """The first log variance may be one number for each image."""
    shapes = [(*shape[:1], 1, 1, 1) for shape in _SHAPES[:2]] + [(2, 2, 2, 2), (7,)]
    means = [*_SHAPES[:2], (2, 2, 2, 2), (7,)]
    args = [(rng.normal(*w), rng.normal(*s), rng.normal(*w), rng.normal(*w)) for s, w in zip(shapes, means)]
    return [Case(f"means of {'x'.join(map(str, w))}", a) for w, a in zip(means, args)]


def _kl(m1, v1, m2, v2, half=0.5, one=1.0, power=2.0, by=None, log=1.0):
    """KL divergence with parameters for known mistakes."""
    v1, v2 = log * v1, log * v2
    gap = (m1 - m2).abs() ** power * (-(v2 if by is None else by(v1, v2))).exp()
    return half * (v2 - v1 + (v1 - v2).exp() - one + gap)


_NORMAL_KL = Exercise(
    "normal_kl",
    _torch_kl,
    _kl_cases,
    {
        "The two distributions are exchanged: the divergence goes from the first to the second.": lambda m1, v1, m2, v2: (
            _kl(m2, v2, m1, v1)
        ),
        "It is twice as large as it should be: a half is missing.": lambda *a: _kl(*a, half=1),
        "It is in bits; it should be in nats.": lambda *a: _kl(*a) / math.log(2),
        "A constant is missing: the divergence of a distribution from itself must be 0.": lambda *a: _kl(
            *a, one=0
        ),
        "The log variances are used as logarithms of standard deviations.": (
            lambda *a: _kl(*a, log=2.0),
            "what the second and fourth arguments are.",
        ),
        "The distance of the means is not squared.": lambda *a: _kl(*a, power=1),
        "The distance of the means is divided by the variance of the first; it must be the second's.": lambda *a: (
            _kl(*a, by=lambda v1, v2: v1)
        ),
        "It is averaged; return one number for each element.": lambda *a: _kl(*a).mean(),
        "It is summed up; return one number for each element.": lambda *a: _kl(*a).sum(),
    },
    "lesson 15, 'The KL divergence'.",
    reference=normal_kl,
)


def check_normal_kl(fn: Callable, **grade_options) -> Report:
    """Check fn(mean1, logvar1, mean2, logvar2) -> KL divergence in nats, elementwise."""
    return grade(_NORMAL_KL, fn, **grade_options)


def _nll_loops(x: Tensor, mean: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    """Compute the exact probability of each bin."""
    nats = []
    for value, middle, log in zip(*(part.flatten().tolist() for part in (x, mean, log_scale.expand_as(x)))):
        index = round((value + 1) / 2 * (bins - 1))
        z = [(middle - value - side / (bins - 1)) / math.exp(log) / math.sqrt(2) for side in (1, -1)]
        upper = 1.0 if index == bins - 1 else 0.5 * math.erfc(z[0])
        lower = 0.0 if index == 0 else 0.5 * math.erfc(z[1])
        nats.append(-math.log(upper - lower))
    return x.new_tensor(nats).reshape(x.shape)


def _bin_cases(rng: RandomInputs) -> list[Case]:
    """Several numbers of bins; the first and the last bin are always included."""
    cases = []
    sizes = [(256, (4, 3, 2)), (17, (3, 1, 4, 3)), (3, (8,)), (2, (2, 3)), (rng.choice(5, 9), (3, 5))]
    for bins, shape in sizes:
        count = rng.integers(0, bins, *shape)
        count.view(-1)[:2] = torch.tensor([0, bins - 1])
        x, width = count.double() * 2 / (bins - 1) - 1, 2 / (bins - 1)
        scale = width * rng.uniform(0.4, 1, *(shape if bins != 17 else (3, 1, 1, 1)))
        mean = x + scale * rng.uniform(-1, 1, *shape)
        cases.append(Case(f"{bins} bins, x of {'x'.join(map(str, shape))}", (x, mean, scale.log(), bins)))
    return cases


def _nll(
    half: Callable = lambda bins: 1 / (bins - 1),
    std: Callable = torch.exp,
    ends: bool = True,
    log: Callable = torch.log,
    cdf: Callable = torch.special.ndtr,
) -> Callable:
    """Negative log-likelihood of a bin, with parameters for known mistakes."""

    def nll(x, mean, log_scale, bins):
        scale = std(log_scale)
        upper, lower = (cdf((x - mean + side * half(bins)) / scale) for side in (1, -1))
        if ends:
            upper, lower = torch.where(x > 0.999, 1.0, upper), torch.where(x < -0.999, 0.0, lower)
        return -log((upper - lower).clamp(min=1e-12))

    return nll


_DISCRETIZED_GAUSSIAN_NLL = Exercise(
    "discretized_gaussian_nll",
    _nll_loops,
    _bin_cases,
    {
        "The first and the last bin end like all others; they must extend to infinity.": (
            _nll(ends=False),
            "lesson 15, 'The last step: a likelihood of pixels': the ends.",
        ),
        "The bins are twice as wide as they should be: half a step on each side of the center.": (
            _nll(lambda bins: 2 / (bins - 1)),
            "how far it is from one value to the next.",
        ),
        "The bins are a little too narrow: from -1 to 1 there is one step fewer than there are values.": (
            _nll(lambda bins: 1 / bins),
            "how far it is from one value to the next.",
        ),
        "The number of bins is given, but not used: there are always 256.": _nll(lambda bins: 1 / 255),
        "The log scale is used as a log variance; it is the logarithm of a standard deviation.": _nll(
            std=lambda log: (log / 2).exp()
        ),
        "The log scale is used as it is; it is the logarithm of the standard deviation.": _nll(
            std=lambda log: log
        ),
        "It is in bits; it should be in nats.": _nll(log=torch.log2),
        "These are log probabilities; the negative log-likelihood has the other sign.": _nll(
            log=lambda p: -p.log()
        ),
        "These are probabilities; return the negative of their logarithm.": _nll(log=lambda p: -p),
        "It uses the density of the Gaussian, not its probability in the bin, so it can be negative.": lambda x, mean, log_scale, bins: (
            -torch.distributions.Normal(mean, log_scale.exp()).log_prob(x)
        ),
        "It is averaged; return one number for each element.": lambda *a: _nll()(*a).mean(),
    },
    "lesson 15, 'The last step: a likelihood of pixels'.",
    tolerance=2e-3,  # the tanh formula is off by up to 0.0006 here
    reference=discretized_gaussian_nll,
)


def check_discretized_gaussian_nll(fn: Callable, **grade_options) -> Report:
    """Check fn(x, mean, log_scale, bins) -> negative log-likelihood in nats, elementwise."""
    return grade(_DISCRETIZED_GAUSSIAN_NLL, fn, **grade_options)
