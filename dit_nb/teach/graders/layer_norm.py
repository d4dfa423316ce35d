"""Grader of lesson 07: layer norm without an affine part."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.isolation import _isolated
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_layer_norm"]


def _normalize_token(token: list[float], eps: float) -> list[float]:
    mean = sum(token) / len(token)
    variance = sum((value - mean) ** 2 for value in token) / len(token)
    return [(value - mean) / math.sqrt(variance + eps) for value in token]


def _layer_norm_loops(x: Tensor, eps: float) -> Tensor:
    return x.new_tensor([[_normalize_token(token, eps) for token in image] for image in x.tolist()])


def _norm_cases(rng: RandomInputs) -> list[Case]:
    """Equal and different sizes; tokens of small scale; other values of eps."""
    cases, sizes = [], [(3, 3, 3, 1, 1e-6), (2, 5, 4, 0.002, 1e-6), (4, 1, 6, 0.3, 0.01)]
    sizes.append((2, 3, rng.choice(5, 8), 3, 1e-4))
    for n, t, d, std, eps in sizes:
        label = f"{n} x {t} tokens, D = {d}, eps = {eps:g}" + ", small numbers" * (std < 0.1)
        cases.append(Case(label, (std * (rng.normal(n, t, d) + 0.5), eps)))
    return cases


def _layer_norm(x: Tensor, eps: float = 1e-6, unbiased: bool = False, axis: int | tuple = -1) -> Tensor:
    """Layer norm with parameters for known mistakes."""
    variance = x.var(axis, keepdim=True, unbiased=unbiased)
    return (x - x.mean(axis, keepdim=True)) / (variance + eps).sqrt()


_LAYER_NORM = Exercise(
    "layer_norm",
    _layer_norm_loops,
    _norm_cases,
    {
        "The norm divides by D - 1; a layer norm divides by D.": (
            lambda x, eps: _layer_norm(x, eps, unbiased=True),
            "lesson 07, 'LayerNorm by hand': the trap.",
        ),
        "The small constant is added to the standard deviation; it belongs under the root.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps)
        ),
        "The norm divides by D - 1, and the small constant is added to the standard deviation: two mistakes at once.": (
            lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps),
            "lesson 07, 'LayerNorm by hand': the trap.",
        ),
        "The norm divides by D - 1, and the small constant is not used: two mistakes at once.": (
            lambda x, eps: _layer_norm(x, 0.0, unbiased=True),
            "lesson 07, 'LayerNorm by hand': the trap.",
        ),
        "The small constant is given, but not used: small tokens are scaled up like all others.": lambda x, eps: (
            _layer_norm(x, 0.0)
        ),
        "The small constant is always 1e-5, PyTorch's own; the one that is given must be used.": lambda x, eps: (
            _layer_norm(x, 1e-5)
        ),
        "The tokens are scaled from their smallest to their largest number; a layer norm takes mean and variance.": lambda x, eps: (
            2 * (x - x.amin(-1, keepdim=True)) / (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True) + eps)
            - 1
        ),
        "The standard deviation stands under the root; the variance belongs there.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps).sqrt()
        ),
        "The squared deviations are summed; the variance is their mean.": lambda x, eps: (
            (x - (m := x.mean(-1, keepdim=True))) / ((x - m).square().sum(-1, keepdim=True) + eps).sqrt()
        ),
        "Only the mean is divided by the root: parentheses are missing.": lambda x, eps: (
            x - x.mean(-1, keepdim=True) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        ),
        "The mean of the squares is taken for the variance, which is that of the deviations.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        ),
        "The root of eps is added to the standard deviation; eps belongs under one root with the variance.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps**0.5)
        ),
        "It divides by the mean absolute deviation; it should divide by the root of the variance.": lambda x, eps: (
            (x - (m := x.mean(-1, keepdim=True))) / ((x - m).abs().mean(-1, keepdim=True) + eps)
        ),
        "It divides by the variance, and that divides by D - 1: two mistakes at once.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps)
        ),
        "It multiplies by the root of the variance; it should divide by it.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) * (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        ),
        "It divides by the variance; it should divide by its square root.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps)
        ),
        "The mean is not subtracted before the division.": lambda x, eps: (
            x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        ),
        "The mean is nowhere subtracted: that is an RMS norm, which divides by the root of the mean square.": lambda x, eps: (
            x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        ),
        "The tokens are only centered; they must also be divided by the root of variance + eps.": lambda x, eps: (
            x - x.mean(-1, keepdim=True)
        ),
        "The norm runs over the tokens; it must run over the channels of each token.": (
            lambda x, eps: _layer_norm(x, eps, axis=1),
            "lesson 07, 'Whose mean?'.",
        ),
        "The norm runs over the images of the batch, so that each depends on its neighbors.": (
            lambda x, eps: _layer_norm(x, eps, axis=0),
            "lesson 07, 'Whose mean?'.",
        ),
        "There is one mean for each image; each token needs its own.": (
            lambda x, eps: _layer_norm(x, eps, axis=(1, 2)),
            "lesson 07, 'Whose mean?'.",
        ),
        "There is one mean for all images and tokens; each token needs its own.": (
            lambda x, eps: _layer_norm(x, eps, axis=(0, 1, 2)),
            "lesson 07, 'Whose mean?'.",
        ),
        "There is one mean and one standard deviation for everything, and it divides by their number minus 1.": (
            lambda x, eps: (x - x.mean()) / (x.std() + eps),
            "lesson 07, 'Whose mean?'.",
        ),
        "Only the tokens are divided by the root, the mean is not: subtract the mean first.": lambda x, eps: (
            x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt() - x.mean(-1, keepdim=True)
        ),
        "The mean deviation is squared, and it is 0; square the deviations first, then take their mean.": lambda x, eps: (
            (x - x.mean(-1, keepdim=True)) / eps**0.5
        ),
        "The small constant is subtracted from the variance; it must be added.": lambda x, eps: _layer_norm(
            x, -eps
        ),
        "The small constant is squared: eps is added to the variance as it is.": lambda x, eps: _layer_norm(
            x, eps**2
        ),
        "The mean is that of each token, but there is one variance for each image; each token needs its own.": (
            lambda x, eps: (
                (x - x.mean(-1, keepdim=True)) / (x.var((1, 2), keepdim=True, unbiased=False) + eps).sqrt()
            ),
            "lesson 07, 'Whose mean?'.",
        ),
        "The tokens are centered one by one, but then share one variance for each image; each token needs its own.": (
            lambda x, eps: (
                (h := (x - x.mean(-1, keepdim=True)))
                / (h.var((1, 2), keepdim=True, unbiased=False) + eps).sqrt()
            ),
            "lesson 07, 'Whose mean?'.",
        ),
        "The variance is that of each token, but there is one mean for each image; each token needs its own.": (
            lambda x, eps: (
                (x - x.mean((1, 2), keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
            ),
            "lesson 07, 'Whose mean?'.",
        ),
        "The mean is that of each token, but there is one variance for all images and tokens; each token needs its own.": (
            lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.var(unbiased=False) + eps).sqrt(),
            "lesson 07, 'Whose mean?'.",
        ),
        "The tokens are centered one by one, but then share one variance for all images and tokens; each token needs its own.": (
            lambda x, eps: (h := (x - x.mean(-1, keepdim=True))) / (h.var(unbiased=False) + eps).sqrt(),
            "lesson 07, 'Whose mean?'.",
        ),
        "The variance is that of each token, but there is one mean for all images and tokens; each token needs its own.": (
            lambda x, eps: (x - x.mean()) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt(),
            "lesson 07, 'Whose mean?'.",
        ),
        "The mean runs over the tokens; it must run over the channels of each token, as the variance does.": (
            lambda x, eps: (
                (x - x.mean(1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
            ),
            "lesson 07, 'Whose mean?'.",
        ),
        "The variance runs over the tokens; it must run over the channels of each token, as the mean does.": (
            lambda x, eps: (
                (x - x.mean(-1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + eps).sqrt()
            ),
            "lesson 07, 'Whose mean?'.",
        ),
        "The mean is added; it must be subtracted.": lambda x, eps: (
            (x + x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        ),
        "The tokens are divided by their length; it should be the root of the variance around their mean.": lambda x, eps: (
            x / (x.norm(dim=-1, keepdim=True) + eps)
        ),
        "The smallest number becomes 0 and the largest 1; the mean should be 0 and the variance 1.": lambda x, eps: (
            (x - x.amin(-1, True)) / (x.amax(-1, True) - x.amin(-1, True) + eps)
        ),
    },
    "lesson 07, 'LayerNorm by hand'.",
    tolerance=1e-8,
    reference=_layer_norm,
    precisions=(torch.float32,),
)


class _Calls(TorchFunctionMode):
    """Records whether PyTorch's own layer norm is called."""

    layer_norm = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.layer_norm = self.layer_norm or "layer_norm" in getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


def check_layer_norm(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), eps) -> (N, T, D): mean 0 and variance 1 for each token, no affine part.

    A right result from PyTorch's own layer norm is refused: the exercise is to write it by hand.
    """
    report = grade(_LAYER_NORM, fn, **grade_options)
    if not report:
        return report
    cases = _isolated(lambda: _LAYER_NORM.cases(RandomInputs(_LAYER_NORM.name, 0)))
    (x, eps), calls = cases[0].args, _Calls()
    with calls:
        _isolated(lambda: fn(x, eps))
    if not calls.layer_norm:
        return report
    reason = "The numbers are right, but they come from PyTorch's own layer norm; write it by hand, from mean and root."
    return replace(report, passed=False, points=0, reason=reason, hint=_LAYER_NORM.hint)
