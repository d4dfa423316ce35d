"""Surprise has a unit, a sign and a direction, and all three are got wrong."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.objective import discretized_gaussian_nll, normal_kl
from dit_nb.teach.graders.framework.batches import SHAPES
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def kl_of_torch(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    "PyTorch's own, of two distributions."
    normals = [torch.distributions.Normal(m, (v / 2).exp()) for m, v in ((mean1, logvar1), (mean2, logvar2))]
    return torch.distributions.kl_divergence(*normals)


def kl_cases(draw: Draw) -> list[Case]:
    "Means and log variances, the first of which may be one for each image."
    shapes = [(*shape[:1], 1, 1, 1) for shape in SHAPES[:2]] + [(2, 2, 2, 2), (7,)]
    wholes = [*SHAPES[:2], (2, 2, 2, 2), (7,)]
    drawn = [
        (draw.normal(*w), draw.normal(*s), draw.normal(*w), draw.normal(*w)) for s, w in zip(shapes, wholes)
    ]
    return [Case(f"means of {'x'.join(map(str, w))}", args) for w, args in zip(wholes, drawn)]


def kl(m1, v1, m2, v2, half=0.5, one=1.0, power=2.0, by=None, log=1.0):
    "The divergence with knobs for everything that can go wrong."
    v1, v2 = log * v1, log * v2
    gap = (m1 - m2).abs() ** power * (-(v2 if by is None else by(v1, v2))).exp()
    return half * (v2 - v1 + (v1 - v2).exp() - one + gap)


NORMAL_KL = Exercise(
    "normal_kl",
    kl_of_torch,
    kl_cases,
    (
        Mistake(
            "The two distributions are exchanged: the divergence from the first to the second is another number.",
            "lesson 15, 'Measuring surprise: the KL divergence'.",
            lambda m1, v1, m2, v2: kl(m2, v2, m1, v1),
        ),
        Mistake(
            "It is twice as large as it should be: a half is missing.",
            "the factor.",
            lambda *a: kl(*a, half=1),
        ),
        Mistake(
            "It is counted in bits; nats were asked for.",
            "the base of the logarithm.",
            lambda *a: kl(*a) / math.log(2),
        ),
        Mistake(
            "A constant is missing: the divergence of a distribution from itself must be 0.",
            "two equal distributions.",
            lambda *a: kl(*a, one=0),
        ),
        Mistake(
            "The log variances are taken for logs of standard deviations.",
            "what the second and fourth arguments are.",
            lambda *a: kl(*a, log=2.0),
        ),
        Mistake(
            "The distance of the means is not squared.", "the term of the means.", lambda *a: kl(*a, power=1)
        ),
        Mistake(
            "The distance of the means is measured with the variance of the first; it is the second that judges.",
            "the term of the means.",
            lambda *a: kl(*a, by=lambda v1, v2: v1),
        ),
        Mistake(
            "It is averaged; one number for each element was asked for.",
            "what you return.",
            lambda *a: kl(*a).mean(),
        ),
        Mistake(
            "It is summed up; one number for each element was asked for.",
            "what you return.",
            lambda *a: kl(*a).sum(),
        ),
    ),
    "lesson 15, 'Measuring surprise: the KL divergence'.",
    reference=normal_kl,
)


def check_normal_kl(
    fn: Callable,  # (mean1, logvar1, mean2, logvar2) -> nats, elementwise
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`normal_kl(mean1, logvar1, mean2, logvar2)`: from the first normal distribution to the second, elementwise, in nats."
    return grade(NORMAL_KL, fn, **options)


def bins_by_hand(x: Tensor, mean: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    "One value at a time, with the exact share of a normal distribution."
    nats = []
    for value, middle, log in zip(*(part.flatten().tolist() for part in (x, mean, log_scale.expand_as(x)))):
        edge = round((value + 1) / 2 * (bins - 1))  # counts the bins
        below = [
            0.5 * math.erfc((middle - value - side / (bins - 1)) / math.exp(log) / math.sqrt(2))
            for side in (1, -1)
        ]
        nats.append(-math.log((1.0 if edge == bins - 1 else below[0]) - (0.0 if edge == 0 else below[1])))
    return x.new_tensor(nats).reshape(x.shape)


def bin_cases(draw: Draw) -> list[Case]:
    "Bytes, digits, three values and two; among the values always both ends."
    cases = []
    for bins, shape in [
        (256, (4, 3, 2)),
        (17, (3, 1, 4, 3)),
        (3, (8,)),
        (2, (2, 3)),
        (draw.pick(5, 9), (3, 5)),
    ]:
        count = draw.whole(0, bins, *shape)
        count.view(-1)[:2] = torch.tensor([0, bins - 1])
        x, width = count.double() * 2 / (bins - 1) - 1, 2 / (bins - 1)
        scale = width * draw.uniform(0.4, 1, *(shape if bins != 17 else (3, 1, 1, 1)))
        mean = x + scale * draw.uniform(-1, 1, *shape)
        cases.append(Case(f"{bins} bins, x of {'x'.join(map(str, shape))}", (x, mean, scale.log(), bins)))
    return cases


def binned(
    half: Callable = lambda bins: 1 / (bins - 1),
    spread: Callable = torch.exp,
    ends: bool = True,
    log: Callable = torch.log,
    share: Callable = torch.special.ndtr,
) -> Callable:
    "The surprise of a bin with knobs for everything that can go wrong."

    def turned(x, mean, log_scale, bins):
        scale = spread(log_scale)
        upper, lower = (share((x - mean + side * half(bins)) / scale) for side in (1, -1))
        if ends:
            upper, lower = torch.where(x > 0.999, 1.0, upper), torch.where(x < -0.999, 0.0, lower)
        return -log((upper - lower).clamp(min=1e-12))

    return turned


DISCRETIZED_GAUSSIAN_NLL = Exercise(
    "discretized_gaussian_nll",
    bins_by_hand,
    bin_cases,
    (
        Mistake(
            "The first and the last bin end like all others; they must take all that lies beyond them.",
            "lesson 15, 'The last step: a likelihood of pixels': the ends.",
            binned(ends=False),
        ),
        Mistake(
            "The bins are twice as wide as they should be: half a bin goes to each side of the middle.",
            "how far it is from one value to the next.",
            binned(lambda bins: 2 / (bins - 1)),
        ),
        Mistake(
            "The bins are a little too narrow: between -1 and 1 there are as many steps as values, less one.",
            "how far it is from one value to the next.",
            binned(lambda bins: 1 / bins),
        ),
        Mistake(
            "The number of bins is given, but not used: there are always 256.",
            "what bins is for.",
            binned(lambda bins: 1 / 255),
        ),
        Mistake(
            "The log scale is taken for a log variance; it is the logarithm of a standard deviation.",
            "what the third argument is.",
            binned(spread=lambda log: (log / 2).exp()),
        ),
        Mistake(
            "The log scale is used as it is; it is the logarithm of the standard deviation.",
            "what the third argument is.",
            binned(spread=lambda log: log),
        ),
        Mistake(
            "It is counted in bits; nats were asked for.",
            "the base of the logarithm.",
            binned(log=torch.log2),
        ),
        Mistake(
            "These are log probabilities; how surprising a value is has the other sign.",
            "the sign.",
            binned(log=lambda p: -p.log()),
        ),
        Mistake(
            "These are probabilities; the negative of their logarithm was asked for.",
            "the last step.",
            binned(log=lambda p: -p),
        ),
        Mistake(
            "It is the height of the bell, not its share in the bin: narrow bells come out too high, and can even be "
            "less than no surprise.",
            "lesson 15, 'The last step: a likelihood of pixels'.",
            lambda x, mean, log_scale, bins: -torch.distributions.Normal(mean, log_scale.exp()).log_prob(x),
        ),
        Mistake(
            "It is averaged; one number for each element was asked for.",
            "what you return.",
            lambda *a: binned()(*a).mean(),
        ),
    ),
    "lesson 15, 'The last step: a likelihood of pixels'.",
    tolerance=2e-3,  # the tanh formula is off by up to 0.0006 here
    reference=discretized_gaussian_nll,
)


def check_discretized_gaussian_nll(
    fn: Callable,  # (x, mean, log_scale, bins) -> nats, elementwise
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`discretized_gaussian_nll(x, mean, log_scale, bins)`: surprise of values on `bins` equal steps from -1 to 1, in nats."
    return grade(DISCRETIZED_GAUSSIAN_NLL, fn, **options)
