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


def _kl(
    m1: Tensor,
    v1: Tensor,
    m2: Tensor,
    v2: Tensor,
    half: float = 0.5,
    one: float = 1.0,
    gap: Callable = lambda m1, m2: (m1 - m2) ** 2,
    by: Callable = lambda v1, v2: v2,
    log: Callable = lambda v1, v2: v2 - v1,
    ratio: Callable = lambda v1, v2: (v1 - v2).exp(),
) -> Tensor:
    """KL divergence with parameters for known mistakes."""
    return half * (log(v1, v2) + ratio(v1, v2) - one + gap(m1, m2) * (-by(v1, v2)).exp())


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
            lambda m1, v1, m2, v2: _kl(m1, 2 * v1, m2, 2 * v2),
            "what the second and fourth arguments are.",
        ),
        "The distance of the means is not squared.": lambda *a: _kl(*a, gap=lambda m1, m2: (m1 - m2).abs()),
        "The distance of the means is divided by the variance of the first; it must be the second's.": lambda *a: (
            _kl(*a, by=lambda v1, v2: v1)
        ),
        "The distance of the means is not squared, so its sign counts.": lambda *a: _kl(
            *a, gap=lambda m1, m2: m1 - m2
        ),
        "The distance of the means is not squared, so its sign counts, and it is taken the other way round.": lambda *a: (
            _kl(*a, gap=lambda m1, m2: m2 - m1)
        ),
        "The log of the ratio has the wrong sign: the second variance is on top.": (
            lambda *a: _kl(*a, log=lambda v1, v2: v1 - v2),
            "what the divergence does if the second variance grows without limit.",
        ),
        "The ratio of the variances is upside down: the first variance is on top.": lambda *a: _kl(
            *a, ratio=lambda v1, v2: (v2 - v1).exp()
        ),
        "The ratio of the variances is missing.": lambda *a: _kl(*a, ratio=lambda v1, v2: 0 * v1),
        "The log of the ratio is missing.": lambda *a: _kl(*a, log=lambda v1, v2: 0 * v1),
        "The ratio of the log variances is used; it must be the ratio of the variances.": lambda *a: _kl(
            *a, ratio=lambda v1, v2: v1 / v2
        ),
        "The means are added; it is their distance that counts.": lambda *a: _kl(
            *a, gap=lambda m1, m2: (m1 + m2) ** 2
        ),
        "The distance of the means is divided by the log variance itself, which can be negative.": lambda m1, v1, m2, v2: (
            _kl(m1, v1, m1, v2) + 0.5 * (m1 - m2) ** 2 / v2
        ),
        "The log variances are used as if they were variances: their ratio has a logarithm of its own.": lambda m1, v1, m2, v2: (
            0.5 * ((v2 / v1).log() + v1 / v2 - 1 + (m1 - m2) ** 2 / v2)
        ),
        "The distance of the means is missing.": lambda *a: _kl(*a, gap=lambda m1, m2: 0 * (m1 - m2)),
        "The distance of the means is divided by a standard deviation; it must be a variance.": lambda *a: (
            _kl(*a, by=lambda v1, v2: v2 / 2)
        ),
        "The distance of the means is not divided by a variance.": lambda *a: _kl(
            *a, by=lambda v1, v2: 0 * v2
        ),
        "The distance of the means is multiplied by the variance; it must be divided by it.": lambda *a: _kl(
            *a, by=lambda v1, v2: -v2
        ),
        "The 1 is added; it is subtracted, so that the divergence of a distribution from itself is 0.": lambda *a: (
            _kl(*a, one=-1)
        ),
        "The half belongs to all terms, but stands at the first alone.": lambda *a: _kl(
            *a, half=1.0, log=lambda v1, v2: (v2 - v1) / 2
        ),
        "The half belongs to all terms, but the distance of the means stands outside of it.": lambda *a: _kl(
            *a, gap=lambda m1, m2: 2 * (m1 - m2) ** 2
        ),
        "The distance of the means is halved twice.": lambda *a: _kl(
            *a, gap=lambda m1, m2: (m1 - m2) ** 2 / 2
        ),
        "The half belongs to all terms, but the 1 stands outside of it.": lambda *a: _kl(*a, one=2),
        "The sign of the whole is wrong: a divergence is never negative.": lambda *a: -_kl(*a),
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
    for value, middle, log in zip(*(part.expand_as(x).flatten().tolist() for part in (x, mean, log_scale))):
        index = round((value + 1) / 2 * (bins - 1))
        z = [(middle - value - side / (bins - 1)) / math.exp(log) / math.sqrt(2) for side in (1, -1)]
        upper = 1.0 if index == bins - 1 else 0.5 * math.erfc(z[0])
        lower = 0.0 if index == 0 else 0.5 * math.erfc(z[1])
        nats.append(-math.log(max(upper - lower, 1e-12)))
    return x.new_tensor(nats).reshape(x.shape)


_NO_FLOOR = "Only pixels far from the mean are wrong: clamp the probability at 1e-12, so that its logarithm stays finite."


def _bin_cases(rng: RandomInputs) -> list[Case]:
    """Several numbers of bins; the first and the last bin are always included. And pixels far from the mean."""
    cases = []
    sizes = [(256, (4, 3, 2)), (17, (3, 1, 4, 3)), (3, (8,)), (2, (2, 3)), (rng.choice(5, 9), (3, 5))]
    for bins, shape in sizes:
        count = rng.integers(0, bins, *shape)
        count.view(-1)[:2] = torch.tensor([0, bins - 1])
        x, width = count.double() * 2 / (bins - 1) - 1, 2 / (bins - 1)
        scale = width * rng.uniform(0.4, 1, *(shape if bins != 17 else (3, 1, 1, 1)))
        mean = x + scale * rng.uniform(-1, 1, *shape)
        cases.append(Case(f"{bins} bins, x of {'x'.join(map(str, shape))}", (x, mean, scale.log(), bins)))
    x = rng.integers(1, 16, 2, 5).double() / 8 - 1
    mean = x - torch.where(x > 0, 1, -1) * rng.uniform(1.3, 1.6, 2, 5)
    scale = rng.uniform(0.01, 0.02, 2, 5)
    return [*cases, Case("17 bins, far from the mean", (x, mean, scale.log(), 17), _NO_FLOOR)]


_SMALL = (
    "It is right until a probability is above 0 and below 1e-12: clamp it there as well; "
    "adding 1e-12, or replacing zeros alone, gives another number."
)


def _small_case(rng: RandomInputs) -> Case:
    """Probabilities of 2e-13 to 8e-13: the upper edge of each bin is 7.06 to 7.25 deviations below the mean."""
    x, scale = rng.integers(1, 16, 2, 5).double() / 8 - 1, rng.uniform(0.04, 0.05, 2, 5)
    mean = x + 1 / 16 + scale * rng.uniform(7.08, 7.22, 2, 5)
    return Case("17 bins, probabilities just below 1e-12", (x, mean, scale.log(), 17), _SMALL)


def _more_nll_cases(rng: RandomInputs) -> list[Case]:
    """One mean and one scale for all pixels, and one for each image; and very small probabilities."""
    cases = []
    for shape, words in ((), "all pixels"), ((3, 1, 1), "each image"):
        x = rng.integers(0, 3, 3, 2, 4).double() - 1
        mean, scale = rng.uniform(-0.1, 0.1, *shape), rng.uniform(0.5, 0.7, *shape)
        cases.append(Case(f"3 bins, one mean for {words}", (x, mean, scale.log(), 3), _NO_BROADCAST))
    return [*cases, _small_case(rng)]


_NO_BROADCAST = "It is right if `mean` has the shape of `x`, and wrong if there are fewer means: they need only broadcast with `x`."


def _nll(
    half: Callable = lambda bins: 1 / (bins - 1),
    std: Callable = torch.exp,
    ends: tuple[bool, bool] = (True, True),
    log: Callable = torch.log,
    sign: float = -1.0,
    floor: float = 1e-12,
    center: Callable = lambda x, mean: x - mean,
    divided: Callable = lambda gap, edge, scale: (gap + edge) / scale,
) -> Callable:
    """Negative log-likelihood of a bin, with parameters for known mistakes."""

    def nll(x, mean, log_scale, bins):
        scale, gap = std(log_scale), center(x, mean)
        upper, lower = (torch.special.ndtr(divided(gap, side * half(bins), scale)) for side in (1, -1))
        upper = torch.where(x > 0.999, 1.0, upper) if ends[1] else upper
        lower = torch.where(x < -0.999, 0.0, lower) if ends[0] else lower
        return sign * log((upper - lower).clamp(min=floor))

    return nll


def _density_nll(ends: bool, floor: float) -> Callable:
    """The density at the center times the width of a bin; at both ends perhaps the right probability."""

    def nll(x, mean, log_scale, bins):
        p = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x).exp() * 2 / (bins - 1)
        if ends:
            p = torch.where(x.abs() > 0.999, _nll(log=lambda p: p, sign=1.0)(x, mean, log_scale, bins), p)
        return -p.clamp(min=floor).log()

    return nll


_ENDS_HINT = "lesson 15, 'The last step: a likelihood of pixels': the ends."
_STEP_HINT = "how far it is from one value to the next."
_BIN_MISTAKES = {  # message -> (options of _nll, hint)
    "The first and the last bin end like all others; they must extend to infinity.": (
        {"ends": (False, False)},
        _ENDS_HINT,
    ),
    "The last bin ends like all others; it must extend to infinity, as the first does.": (
        {"ends": (True, False)},
        _ENDS_HINT,
    ),
    "The first bin ends like all others; it must extend to minus infinity.": (
        {"ends": (False, True)},
        _ENDS_HINT,
    ),
    "The bins are twice as wide as they should be: half a step on each side of the center.": (
        {"half": lambda bins: 2 / (bins - 1)},
        _STEP_HINT,
    ),
    "The bins are half as wide as they should be: half a step on each side of the center.": (
        {"half": lambda bins: 0.5 / (bins - 1)},
        _STEP_HINT,
    ),
    "The bins are a little too narrow: from -1 to 1 there is one step fewer than there are values.": (
        {"half": lambda bins: 1 / bins},
        _STEP_HINT,
    ),
    "The number of bins is given, but not used: there are always 256.": ({"half": lambda bins: 1 / 255}, ""),
    "The log scale is used as a log variance; it is the logarithm of a standard deviation.": (
        {"std": lambda log: (log / 2).exp()},
        "",
    ),
    "The log scale is doubled, or the scale squared: the edges are divided by a standard deviation.": (
        {"std": lambda log: (2 * log).exp()},
        "",
    ),
    "The half step is not divided by the standard deviation; the whole distance from the mean to an edge is.": (
        {"divided": lambda gap, edge, scale: gap / scale + edge},
        "",
    ),
    "The outermost bins are exchanged: the sign of the distance from the mean, or which end gets 0 and which 1.": (
        {"center": lambda x, mean: mean - x},
        "",
    ),
    "It is in bits; it should be in nats.": ({"log": torch.log2}, ""),
    "These are log probabilities; the negative log-likelihood has the other sign.": ({"sign": 1.0}, ""),
}

_DISCRETIZED_GAUSSIAN_NLL = Exercise(
    "discretized_gaussian_nll",
    _nll_loops,
    _bin_cases,
    {
        **{message: (_nll(**options), hint) for message, (options, hint) in _BIN_MISTAKES.items()},
        **{
            f"{message} And probabilities are not clamped at 1e-12.": (_nll(**options, floor=0.0), hint)
            for message, (options, hint) in _BIN_MISTAKES.items()
        },
        "Only the half step is divided by the standard deviation; the whole distance from the mean to an edge is.": _nll(
            divided=lambda gap, edge, scale: gap + edge / scale
        ),
        "The edges are multiplied by the standard deviation; they are measured in standard deviations.": _nll(
            std=lambda log: (-log).exp()
        ),
        "The log scale is used as it is; it is the logarithm of the standard deviation.": _nll(
            std=lambda log: log
        ),
        "These are probabilities; return the negative of their logarithm.": _nll(log=lambda p: p, sign=1.0),
        "These are negative probabilities; return the negative of their logarithm.": _nll(log=lambda p: p),
        "It is the CDF at the value itself; a bin has two edges, and its probability is a difference.": lambda x, mean, log_scale, bins: (
            -torch.special.ndtr((x - mean) / log_scale.exp()).clamp(min=1e-12).log()
        ),
        "It is the CDF at the upper edge; the CDF at the lower edge is not subtracted.": lambda x, mean, log_scale, bins: (
            -torch.special.ndtr((x - mean + 1 / (bins - 1)) / log_scale.exp()).clamp(min=1e-12).log()
        ),
        "The logarithm has base 10; it must be the natural one.": _nll(log=torch.log10),
        "The mean is added; each edge is measured from the mean.": _nll(center=lambda x, mean: x + mean),
        "The mean is not used: each edge is measured from the mean.": _nll(
            center=lambda x, mean: x + 0 * mean
        ),
        "It uses the density of the Gaussian, not its probability in the bin, so it can be negative.": lambda x, mean, log_scale, bins: (
            -torch.distributions.Normal(mean, log_scale.exp()).log_prob(x)
        ),
        "It uses the density of the Gaussian times the width of a bin; a probability is a difference of two CDFs.": lambda x, mean, log_scale, bins: (
            -torch.distributions.Normal(mean, log_scale.exp()).log_prob(x) - math.log(2 / (bins - 1))
        ),
        "The two ends are right, but inside it is the density of the Gaussian times the width of a bin; a probability is a "
        "difference of two CDFs.": _density_nll(True, 1e-12),
        "The two ends are right, but inside it is the density of the Gaussian times the width of a bin; a probability is a "
        "difference of two CDFs. And probabilities are not clamped at 1e-12.": _density_nll(True, 0.0),
        "It uses the density of the Gaussian times the width of a bin, at both ends as well; a probability is a difference "
        "of two CDFs.": _density_nll(False, 1e-12),
        "It is averaged; return one number for each element.": lambda *a: _nll()(*a).mean(),
        "It is summed up; return one number for each element.": lambda *a: _nll()(*a).sum(),
    },
    "lesson 15, 'The last step: a likelihood of pixels'.",
    tolerance=2e-3,  # the tanh formula is off by up to 0.0006 here
    reference=discretized_gaussian_nll,
    edge_cases=_more_nll_cases,
)


def check_discretized_gaussian_nll(fn: Callable, **grade_options) -> Report:
    """Check fn(x, mean, log_scale, bins) -> negative log-likelihood in nats, elementwise."""
    return grade(_DISCRETIZED_GAUSSIAN_NLL, fn, **grade_options)
