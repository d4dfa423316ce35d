"""Graders of lesson 05: timestep embedding and label dropout."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.conditioning import timestep_embedding
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.positions import _INTERLEAVED, _RISING, _TOO_EARLY, _waves

__all__ = ["check_timestep_embedding", "check_label_dropout"]


def _timestep_embedding_loops(t: Tensor, dim: int, max_period: float) -> Tensor:
    half = dim // 2
    rows = []
    for step in t.tolist():
        angles = [step * math.exp(-math.log(max_period) * i / half) for i in range(half)]
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)


def _timestep_cases(rng: RandomInputs) -> list[Case]:
    """Early and late timesteps, as many as dim, another period."""
    t = torch.tensor([0, 1, 500, 999])
    cases = [Case("t = 0, 1, 500, 999", (t, 8, 10000.0)), Case("as many timesteps as dim", (t, 4, 10000.0))]
    cases.append(Case("random t, dim 16", (rng.integers(0, 1000, 5), 16, 10000.0)))
    cases.append(Case("max_period = 100", (rng.integers(1, 1000, 3), 12, 100.0), _PERIOD_UNUSED))
    return cases


_PERIOD_UNUSED = "It is right for the default period only: max_period is given, but not used."
_COS_SIN = (torch.cos, torch.sin)


def _embedding(power: Callable = lambda i, half: -i / half, scale: float = 1.0, **options) -> Callable:
    """Timestep embedding with the parameters of `_waves`."""
    return lambda t, d, period: _waves(t * scale, d, power, period, **{"order": _COS_SIN, **options})


_TIMESTEP_EMBEDDING = Exercise(
    "timestep_embedding",
    _timestep_embedding_loops,
    _timestep_cases,
    {
        "The sines come first; the cosines must (only the position table starts with sines).": _embedding(
            order=_COS_SIN[::-1]
        ),
        _TOO_EARLY: (_embedding(lambda i, h: -i / max(h - 1, 1)), "lesson 05, 'Trap: 127 instead of 128'."),
        "The timesteps are squeezed into [0, 1]: all embeddings are nearly equal.": (
            _embedding(scale=1 / 1000),
            "lesson 05, 'Trap: t between 0 and 1'.",
        ),
        _INTERLEAVED: _embedding(interleave=True),
        "The frequencies fall half as fast as they should: the step is counted in dim, not in dim/2.": (
            _embedding(lambda i, h: -i / (2 * h)),
            "what the exponent is divided by.",
        ),
        _RISING: (_embedding(lambda i, h: i / h), "the sign of the exponent."),
        "The timesteps are counted from 1; they must be counted from 0, so t = 0 gives cosines of 1.": (
            lambda t, d, period: _embedding()(t + 1, d, period),
            "what happens to t before the waves.",
        ),
    },
    "lesson 05, 'A timestep as waves'.",
    tolerance=2e-4,  # float32 is fine: at t = 999 it costs about 6e-5
    reference=timestep_embedding,
)


def check_timestep_embedding(fn: Callable, **grade_options) -> Report:
    """Check fn(t (N,) long, dim, max_period) -> (N, dim): dim/2 cosines, then dim/2 sines."""
    return grade(_TIMESTEP_EMBEDDING, fn, **grade_options)


def _label_dropout_loops(
    y: Tensor, uniform: Tensor, dropout_prob: float, num_classes: int, training: bool
) -> Tensor:
    hidden = [training and u < dropout_prob for u in uniform.tolist()]
    return torch.tensor([num_classes if hide else label for hide, label in zip(hidden, y.tolist())])


def _label_cases(rng: RandomInputs) -> list[Case]:
    """Training with high and low dropout, and eval mode; the first number drops its label, the second does not."""
    cases = []
    for n, k, p, training in [(12, 3, 0.3, True), (6, 10, 0.1, True), (9, 5, 0.6, True), (8, 4, 0.3, False)]:
        uniform = rng.uniform(0, 1, n)
        uniform[:2] = torch.tensor([p / 2, (1 + p) / 2], dtype=uniform.dtype)
        where = "in training" if training else "in eval mode"
        y = 1 + rng.integers(0, k - 2, n)  # not the first or the last class, which hide known mistakes
        cases.append(Case(f"{n} labels, K = {k}, p = {p}, {where}", (y, uniform, p, k, training)))
    return cases


def _label_dropout(null: Callable = lambda k: k, which: Callable = lambda u, p, on: (u < p) & on) -> Callable:
    return lambda y, u, p, k, on: torch.where(which(u, p, on), null(k), y)


_NULL_CLASS = "The null class must be a class of its own, after all the others: "

_LABEL_DROPOUT = Exercise(
    "label_dropout",
    _label_dropout_loops,
    _label_cases,
    {
        _NULL_CLASS + "0 is a real class.": _label_dropout(lambda k: 0),
        _NULL_CLASS + "this one is the last real class.": (
            _label_dropout(lambda k: k - 1),
            "how many rows the table has.",
        ),
        _NULL_CLASS + "a table has no row -1.": (
            _label_dropout(lambda k: -1),
            "how many rows the table has.",
        ),
        _NULL_CLASS + "1000 is right for ImageNet only.": _label_dropout(lambda k: 1000),
        "One coin decides for the whole batch; each image needs its own.": (
            _label_dropout(which=lambda u, p, on: (u[:1] < p) & on),
            "which random numbers are compared.",
        ),
        "Labels are hidden in eval mode too: a sampler would lose its labels.": _label_dropout(
            which=lambda u, p, on: u < p
        ),
        "It hides the labels that it should keep, and keeps those that it should hide.": (
            _label_dropout(which=lambda u, p, on: (u >= p) & on),
            "the direction of the comparison.",
        ),
        "Labels are hidden in eval mode and kept in training: that is the wrong way round.": _label_dropout(
            which=lambda u, p, on: (u < p) & (not on)
        ),
        "No label is ever hidden.": lambda y, u, p, k, on: y.clone(),
    },
    "lesson 05, 'Labels, and no label'.",
    reference=_label_dropout(),
)


def check_label_dropout(fn: Callable, **grade_options) -> Report:
    """Check fn(y (N,), uniform (N,), dropout_prob, num_classes, training) -> labels (N,)."""
    return grade(_LABEL_DROPOUT, fn, **grade_options)
