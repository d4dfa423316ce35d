"""Whose mean, over which axis, divided by what, and where does the small constant go?"""

import math
from collections.abc import Callable

from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def normal_by_hand(token: list[float], eps: float) -> list[float]:
    "One token, number by number."
    mean = sum(token) / len(token)
    variance = sum((value - mean) ** 2 for value in token) / len(token)
    return [(value - mean) / math.sqrt(variance + eps) for value in token]


def norm_by_hand(x: Tensor, eps: float) -> Tensor:
    "One token at a time."
    return x.new_tensor([[normal_by_hand(token, eps) for token in image] for image in x.tolist()])


def norm_cases(draw: Draw) -> list[Case]:
    "Sizes that are all alike, and others; quiet tokens; another constant."
    cases = []
    for n, t, d, loud, eps in [
        (3, 3, 3, 1, 1e-6),
        (2, 5, 4, 0.002, 1e-6),
        (4, 1, 6, 0.3, 0.01),
        (2, 3, draw.pick(5, 8), 3, 1e-4),
    ]:
        x = loud * (draw.normal(n, t, d) + 0.5)
        cases.append(Case(f"{n} x {t} tokens, D = {d}, eps = {eps:g}" + ", quiet" * (loud < 0.1), (x, eps)))
    return cases


def normed(x: Tensor, eps: float = 1e-6, unbiased: bool = False, axis: int | tuple = -1) -> Tensor:
    "LayerNorm with knobs."
    variance = x.var(axis, keepdim=True, unbiased=unbiased)
    return (x - x.mean(axis, keepdim=True)) / (variance + eps).sqrt()


LAYER_NORM = Exercise(
    "layer_norm",
    norm_by_hand,
    norm_cases,
    (
        Mistake(
            "The norm divides by D - 1; a layer norm divides by D.",
            "lesson 10, 'LayerNorm by hand': the trap.",
            lambda x, eps: normed(x, eps, unbiased=True),
        ),
        Mistake(
            "The small constant is added to the standard deviation; it belongs under the root.",
            "lesson 10, 'LayerNorm by hand'.",
            lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps),
        ),
        Mistake(
            "The small constant is given, but not used: quiet tokens become as loud as all others.",
            "what eps is for.",
            lambda x, eps: normed(x, 0.0),
        ),
        Mistake(
            "The small constant is always 1e-5, PyTorch's own; the one that is given must be used.",
            "what eps is for.",
            lambda x, eps: normed(x, 1e-5),
        ),
        Mistake(
            "It divides by the variance; by its root it should.",
            "lesson 10, 'LayerNorm by hand'.",
            lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps),
        ),
        Mistake(
            "The mean is not taken away.",
            "lesson 10, 'LayerNorm by hand'.",
            lambda x, eps: x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt(),
        ),
        Mistake(
            "The norm runs over the tokens; it must run over the channels of each token.",
            "lesson 10, 'Whose mean?'.",
            lambda x, eps: normed(x, eps, axis=1),
        ),
        Mistake(
            "The norm runs over the images of the batch, so that each depends on its neighbours.",
            "lesson 10, 'Whose mean?'.",
            lambda x, eps: normed(x, eps, axis=0),
        ),
        Mistake(
            "One mean for a whole image; each token needs its own.",
            "lesson 10, 'Whose mean?'.",
            lambda x, eps: normed(x, eps, axis=(1, 2)),
        ),
        Mistake(
            "One mean for everything: all images and tokens are stirred together.",
            "lesson 10, 'Whose mean?'.",
            lambda x, eps: normed(x, eps, axis=(0, 1, 2)),
        ),
    ),
    "lesson 10, 'LayerNorm by hand'.",
    tolerance=1e-8,
    reference=normed,
)


def check_layer_norm(
    fn: Callable,  # (x (N, T, D), eps) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`layer_norm(x, eps)`: every token with mean 0 and variance 1; eps under the root, no affine part."
    return grade(LAYER_NORM, fn, **options)
