"""Graders of lesson 18: classifier-free guidance, and its use on eps alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.guidance import cfg_eps
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_cfg_eps", "check_guided_output"]


def _cfg_loops(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    pairs = zip(cond.flatten().tolist(), uncond.flatten().tolist())
    return cond.new_tensor([u + (c - u) * cfg_scale for c, u in pairs]).reshape(cond.shape)


def _cfg_cases(rng: RandomInputs) -> list[Case]:
    scales = [0.0, 0.5, 1.0, 1.5, 4.0, round(rng.uniform(2, 9).item(), 2)]
    return [Case(f"cfg_scale = {w:g}", (rng.normal(2, 4, 3, 2), rng.normal(2, 4, 3, 2), w)) for w in scales]


_CFG_EPS = Exercise(
    "cfg_eps",
    _cfg_loops,
    _cfg_cases,
    {
        "The scale is counted from the prediction with the label, so 0 is no guidance; it must be 1.": (
            lambda c, u, w: c + w * (c - u),
            "lesson 18, 'Other people's scales'.",
        ),
        "The two predictions are exchanged: the guidance leads away from the label.": (
            lambda c, u, w: c + w * (u - c),
            "which of the two a scale of 0 must give.",
        ),
        "A scale of 0 is treated as 'no guidance'; it means 'without the label'. No guidance is 1.": lambda c, u, w: (
            torch.lerp(u, c, w) if w else c.clone()
        ),
        "All scales below 1 are treated as 'no guidance'; they lie between the two predictions.": lambda c, u, w: (
            torch.lerp(u, c, max(w, 1.0))
        ),
        "The scale is limited to 1; guidance needs scales above 1.": lambda c, u, w: torch.lerp(
            u, c, min(w, 1.0)
        ),
        "Only the scaled difference is returned; it must be added to the prediction without the label.": (
            lambda c, u, w: w * (c - u),
            "where the guided prediction starts.",
        ),
        "Both predictions are added in full: at a scale of 1 the one without the label must cancel.": lambda c, u, w: (
            u + w * c
        ),
    },
    "lesson 18, 'Classifier-free guidance'.",
    reference=cfg_eps,
)


def check_cfg_eps(fn: Callable, **grade_options) -> Report:
    """Check fn(cond, uncond, cfg_scale) -> prediction: scale 0 is without the label, 1 is with it."""
    return grade(_CFG_EPS, fn, **grade_options)


def _guided_output_loops(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    half = cond.shape[1] // 2
    channels = [
        _cfg_loops(cond[:, i], uncond[:, i], cfg_scale) if i < half else cond[:, i] for i in range(2 * half)
    ]
    return torch.stack(channels, 1)


def _output_cases(rng: RandomInputs) -> list[Case]:
    sizes = [(1, 0.0), (2, 1.5), (4, 4.0), (4, 0.5)]
    args = [(rng.normal(2, 2 * c, 3, 2), rng.normal(2, 2 * c, 3, 2), w) for c, w in sizes]
    return [Case("C = {}, cfg_scale = {:g}".format(*size), a) for size, a in zip(sizes, args)]


def _guided(channels: Callable, rest: Callable = lambda c, u: c) -> Callable:
    """Guide the first channels, and take the others from `rest`."""

    def guide(cond, uncond, w):
        k = channels(cond.shape[1] // 2)
        return torch.cat([torch.lerp(uncond, cond, w)[:, :k], rest(cond, uncond)[:, k:]], 1)

    return guide


_GUIDED_OUTPUT = Exercise(
    "guided_output",
    _guided_output_loops,
    _output_cases,
    {
        "The variance values are guided too; only the noise should be.": _guided(lambda c: 2 * c),
        "The variance values are those without the label.": _guided(lambda c: c, lambda cond, uncond: uncond),
        "Only three channels are guided, as in the official code; here all channels of eps are.": (
            _guided(lambda c: min(3, c)),
            "lesson 18, 'Three channels of four'.",
        ),
        "The halves are exchanged: the variance values are guided, the noise is not.": lambda c, u, w: (
            torch.cat([c.chunk(2, 1)[0], torch.lerp(u, c, w).chunk(2, 1)[1]], 1)
        ),
        "The variance values are missing: the sampler needs them.": lambda c, u, w: torch.lerp(u, c, w).chunk(
            2, 1
        )[0],
        "The scale is counted from the prediction with the label, so 0 is no guidance; it must be 1.": (
            lambda c, u, w: _guided(lambda k: k)(c, u, w + 1),
            "lesson 18, 'Other people's scales'.",
        ),
    },
    "lesson 18, 'The wrapper'.",
    reference=_guided(lambda c: c),
)


def check_guided_output(fn: Callable, **grade_options) -> Report:
    """Check fn(cond (N, 2C, H, W), uncond (N, 2C, H, W), cfg_scale) -> (N, 2C, H, W)."""
    return grade(_GUIDED_OUTPUT, fn, **grade_options)
