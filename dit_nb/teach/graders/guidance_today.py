"""Graders of lesson 34: guidance with an optimal scale (CFG-Zero*), and projected guidance (APG)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.guidance import cfg_eps
from dit_nb.since.guidance import _dot, cfg_zero_star, projected_guidance
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_cfg_zero_star", "check_projected_guidance"]


def _zero_star_loops(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    """Search the nearest multiple in closed form, image by image, number by number."""
    images = []
    for c, u in zip(cond, uncond):
        pairs = list(zip(c.flatten().tolist(), u.flatten().tolist()))
        best = sum(a * b for a, b in pairs) / sum(b * b for _, b in pairs)
        images.append(
            c.new_tensor([best * b + cfg_scale * (a - best * b) for a, b in pairs]).reshape(c.shape)
        )
    return torch.stack(images)


def _zero_star_cases(rng: RandomInputs) -> list[Case]:
    """Predictions that resemble each other, as those of a model do; images of different sizes and scales."""
    cases = []
    for (n, c, h, w), scale in (
        ((2, 3, 4, 2), 1.5),
        ((1, 1, 3, 5), 4.0),
        ((4, 2, 2, 3), 0.0),
        ((3, 2, 3, 2), 2.5),
    ):
        uncond = rng.normal(n, c, h, w) * rng.uniform(0.5, 2.0, n, 1, 1, 1)
        cond = rng.uniform(0.4, 1.8, n, 1, 1, 1) * uncond + 0.6 * rng.normal(n, c, h, w)
        cases.append(Case(f"{n} images of {c}x{h}x{w}, cfg_scale = {scale:g}", (cond, uncond, scale)))
    return cases


def _multiple(best: Callable) -> Callable:
    """CFG-Zero* with another multiple of the prediction without the label."""
    return lambda c, u, w: cfg_eps(c, best(c, u) * u, w)


def _best(c: Tensor, u: Tensor) -> Tensor:
    return _dot(c, u) / _dot(u, u)


def _channel_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)


_CFG_ZERO_STAR = Exercise(
    "cfg_zero_star",
    _zero_star_loops,
    _zero_star_cases,
    {
        "This is plain guidance: the prediction without the label must be scaled first.": cfg_eps,
        "All images share one factor; each has its own.": (
            _multiple(lambda c, u: (c * u).sum() / (u * u).sum()),
            "the axes of the sums.",
        ),
        "Each channel has a factor of its own; an image has one.": (
            _multiple(lambda c, u: _channel_dot(c, u) / _channel_dot(u, u)),
            "the axes of the sums.",
        ),
        "Each pixel has a factor of its own, so the prediction with the label is left alone; an image has one factor.": (
            lambda c, u, w: c,
            "the sums over an image.",
        ),
        "The factor is divided by the norm; it must be its square.": _multiple(
            lambda c, u: _dot(c, u) / _dot(u, u).sqrt()
        ),
        "The factor is divided by the squared norm of the wrong prediction: it scales the one without the label.": _multiple(
            lambda c, u: _dot(c, u) / _dot(c, c)
        ),
        "The factor is the cosine of the two predictions; it must also have their ratio of lengths.": _multiple(
            lambda c, u: _dot(c, u) / (_dot(u, u) * _dot(c, c)).sqrt()
        ),
        "The factor is the ratio of the two norms; the angle between the predictions is missing.": _multiple(
            lambda c, u: (_dot(c, c) / _dot(u, u)).sqrt()
        ),
        "The factor is upside down.": _multiple(lambda c, u: 1 / _best(c, u)),
        "The factor is the inner product alone; it must be divided.": _multiple(_dot),
        "The factor has a mean above and a sum below the line.": _multiple(
            lambda c, u: _best(c, u) / math.prod(c.shape[1:])
        ),
        "The factor is limited to 1; it may be larger.": _multiple(lambda c, u: _best(c, u).clamp(max=1)),
        "The factor is squared.": _multiple(lambda c, u: _best(c, u) ** 2),
        "Only the difference has the factor; the start must have it, too.": lambda c, u, w: (
            u + w * (c - _best(c, u) * u)
        ),
        "Only the start has the factor; the difference must have it, too.": lambda c, u, w: (
            _best(c, u) * u + w * (c - u)
        ),
        "The factor is on the prediction with the label.": lambda c, u, w: cfg_eps(_best(c, u) * c, u, w),
        "The guidance starts at the prediction with the label, so a scale of 1 is not that prediction.": lambda c, u, w: (
            c + w * (c - _best(c, u) * u)
        ),
        "The start is missing: only the scaled difference is returned.": lambda c, u, w: (
            w * (c - _best(c, u) * u)
        ),
        "The two predictions are exchanged: the guidance leads away from the label.": lambda c, u, w: cfg_eps(
            _best(c, u) * u, c, w
        ),
        "Both predictions are scaled by the factor.": lambda c, u, w: _best(c, u) * cfg_eps(c, u, w),
    },
    "lesson 34, 'The nearest multiple'.",
    reference=cfg_zero_star,
)


def check_cfg_zero_star(fn: Callable, **grade_options) -> Report:
    """Check fn(cond, uncond, cfg_scale) -> guided velocity, with an optimal multiple of `uncond`."""
    return grade(_CFG_ZERO_STAR, fn, **grade_options)


def _projected_loops(cond: Tensor, uncond: Tensor, cfg_scale: float, eta: float, threshold: float) -> Tensor:
    """Clip and project image by image, in lists of numbers."""
    images = []
    for c, u in zip(cond, uncond):
        ours = c.flatten().tolist()
        d = [a - b for a, b in zip(ours, u.flatten().tolist())]
        norm = math.sqrt(sum(x * x for x in d))
        d = [x * min(1.0, threshold / norm) for x in d]
        along = sum(x * a for x, a in zip(d, ours)) / sum(a * a for a in ours)
        kept = [x - along * a + eta * along * a for x, a in zip(d, ours)]
        images.append(c.new_tensor([a + (cfg_scale - 1) * k for a, k in zip(ours, kept)]).reshape(c.shape))
    return torch.stack(images)


def _projected_cases(rng: RandomInputs) -> list[Case]:
    """Differences below and above the threshold in one batch."""
    cases = []
    for (n, c, h, w), scale, eta, threshold in (
        ((4, 2, 3, 2), 4.0, 0.0, 1.5),
        ((1, 1, 4, 3), 2.5, 0.3, 9.0),
        ((3, 3, 2, 4), 1.5, 1.0, 2.0),
        ((2, 2, 2, 3), 3.0, 0.7, 0.8),
    ):
        cond = rng.normal(n, c, h, w) + 0.5
        size = torch.linspace(0.2, 1.6, n, dtype=torch.float64).view(-1, 1, 1, 1)
        uncond = cond - size * (0.4 * cond + 0.7 * rng.normal(n, c, h, w))
        label = f"{n} images, cfg_scale {scale:g}, eta {eta:g}, threshold {threshold:g}"
        cases.append(Case(label, (cond, uncond, scale, eta, threshold)))
    return cases


def _clip(d: Tensor, threshold: float) -> Tensor:
    return d * (threshold / _dot(d, d).sqrt()).clamp(max=1)


def _split(d: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a difference along an image, and the rest."""
    parallel = _dot(d, onto) / _dot(onto, onto) * onto
    return parallel, d - parallel


def _kept(c: Tensor, u: Tensor, eta: float, threshold: float) -> Tensor:
    parallel, orthogonal = _split(_clip(c - u, threshold), c)
    return orthogonal + eta * parallel


def _clipped_by(clip: Callable) -> Callable:
    """Projected guidance with another limit of the difference."""

    def guide(c, u, w, eta, threshold):
        parallel, orthogonal = _split(clip(c - u, threshold), c)
        return c + (w - 1) * (orthogonal + eta * parallel)

    return guide


def _projected_by(split: Callable, keep: Callable = lambda p, o, eta: o + eta * p) -> Callable:
    """Projected guidance with another projection, or other parts kept."""

    def guide(c, u, w, eta, threshold):
        return c + (w - 1) * keep(*split(_clip(c - u, threshold), c, u), eta)

    return guide


def _to_split(d: Tensor, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return _split(d, c)


def _batch_split(d: Tensor, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    parallel = (d * c).sum() / (c * c).sum() * c
    return parallel, d - parallel


def _channel_split(d: Tensor, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    parallel = _channel_dot(d, c) / _channel_dot(c, c) * c
    return parallel, d - parallel


def _norm_split(d: Tensor, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    parallel = _dot(d, c) / _dot(c, c).sqrt() * c
    return parallel, d - parallel


def _clip_late(c: Tensor, u: Tensor, w: float, eta: float, threshold: float) -> Tensor:
    parallel, orthogonal = _split(c - u, c)
    return c + (w - 1) * _clip(orthogonal + eta * parallel, threshold)


_PROJECTED_GUIDANCE = Exercise(
    "projected_guidance",
    _projected_loops,
    _projected_cases,
    {
        "The guidance starts at the prediction without the label; here it starts at the one with it.": (
            lambda c, u, w, eta, r: u + w * _kept(c, u, eta, r),
            "lesson 34, 'The part that changes the picture': where a scale of 1 must end.",
        ),
        "The scale is counted from 0; a scale of 1 must change nothing.": lambda c, u, w, eta, r: (
            c + w * _kept(c, u, eta, r)
        ),
        "The step is added to the prediction without the label; it belongs to the one with it.": lambda c, u, w, eta, r: (
            u + (w - 1) * _kept(c, u, eta, r)
        ),
        "The difference is projected onto the prediction without the label; it must be the one with it.": _projected_by(
            lambda d, c, u: _split(d, u)
        ),
        "The difference is projected onto itself, so that nothing but its parallel part is left.": _projected_by(
            lambda d, c, u: (d, torch.zeros_like(d))
        ),
        "The parallel part is kept in full, and the orthogonal one is reduced: they are exchanged.": _projected_by(
            _to_split, lambda p, o, eta: p + eta * o
        ),
        "Of the parallel part, 1 - eta is kept; it must be eta.": _projected_by(
            _to_split, lambda p, o, eta: o + (1 - eta) * p
        ),
        "The parallel part is dropped whatever eta is.": _projected_by(_to_split, lambda p, o, eta: o),
        "The whole difference is kept whatever eta is: the projection has no effect.": _projected_by(
            _to_split, lambda p, o, eta: o + p
        ),
        "The whole difference is kept, and eta of the parallel part is added to it.": _projected_by(
            _to_split, lambda p, o, eta: o + p + eta * p
        ),
        "The parallel part is subtracted twice.": _projected_by(_to_split, lambda p, o, eta: o - p + eta * p),
        "The projection sums over the whole batch; each image has its own.": _projected_by(_batch_split),
        "Each channel is projected by itself; an image is one vector.": _projected_by(_channel_split),
        "The projection divides by the norm; it must be its square.": _projected_by(_norm_split),
        "The threshold has no effect.": _clipped_by(lambda d, r: d),
        "The norm is always that of the threshold; shorter differences must stay as they are.": _clipped_by(
            lambda d, r: d * r / _dot(d, d).sqrt()
        ),
        "Short differences are stretched to the threshold, and long ones stay; it must be the other way around.": _clipped_by(
            lambda d, r: d * (r / _dot(d, d).sqrt()).clamp(min=1)
        ),
        "Each pixel of the difference is limited; the threshold is for the norm of an image.": _clipped_by(
            lambda d, r: d.clamp(-r, r)
        ),
        "The norm of the whole batch is limited; each image has its own.": _clipped_by(
            lambda d, r: d * (r / d.norm()).clamp(max=1)
        ),
        "The square of the norm is compared with the threshold.": _clipped_by(
            lambda d, r: d * (r / _dot(d, d)).clamp(max=1)
        ),
        "The difference is limited after the projection; it must be limited before.": _clip_late,
        "The difference has the wrong sign: the guidance leads away from the label.": lambda c, u, w, eta, r: (
            c - (w - 1) * _kept(c, u, eta, r)
        ),
    },
    "lesson 34, 'The part that changes the picture'.",
    reference=projected_guidance,
)


def check_projected_guidance(fn: Callable, **grade_options) -> Report:
    """Check fn(cond, uncond, cfg_scale, eta, threshold) -> guided clean image."""
    return grade(_PROJECTED_GUIDANCE, fn, **grade_options)
