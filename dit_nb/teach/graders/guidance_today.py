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
        ((1, 1, 3, 5), 2.5),
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


def _combined(combine: Callable) -> Callable:
    """CFG-Zero* that combines the predictions and the factor in another way."""
    return lambda c, u, w: combine(c, u, w, _best(c, u))


def _over_axes(*axes: int) -> Callable:
    """CFG-Zero* with sums over other axes."""
    return _multiple(lambda c, u: (c * u).sum(axes, keepdim=True) / (u * u).sum(axes, keepdim=True))


_AXES = "the axes of the sums."

_OTHER_AXES = {
    "All images have the factor of the first one; each has its own.": _multiple(lambda c, u: _best(c, u)[:1]),
    "All images have the mean factor; each has its own.": _multiple(lambda c, u: _best(c, u).mean()),
    "The squared norm is that of the whole batch; each image has its own.": _multiple(
        lambda c, u: _dot(c, u) / (u * u).sum()
    ),
    "The inner product is that of the whole batch; each image has its own.": _multiple(
        lambda c, u: (c * u).sum() / _dot(u, u)
    ),
    "Each pixel has a factor of its own, from sums over the channels; an image has one.": _over_axes(1),
    "Each row of pixels has a factor of its own; an image has one.": _over_axes(3),
    "The sums run over the images; they must run over all other axes.": _over_axes(0),
    "Each column of pixels has a factor of its own; an image has one.": _over_axes(1, 2),
}

_OTHER_FACTORS = {
    "The factor is the squared ratio of the two norms; the angle between the predictions is "
    "missing.": _multiple(lambda c, u: _dot(c, c) / _dot(u, u)),
    "The inner product stands below the line of the factor; it belongs above.": _multiple(
        lambda c, u: _dot(c, c) / _dot(c, u)
    ),
    "The factor is the ratio of the two standard deviations; it must be that of the nearest "
    "multiple.": _multiple(lambda c, u: c.std((1, 2, 3), keepdim=True) / u.std((1, 2, 3), keepdim=True)),
    "The factor is a cosine over the channels, one for each pixel; an image has one, with the ratio of "
    "lengths.": (_multiple(lambda c, u: torch.cosine_similarity(c, u, dim=1)[:, None])),
    "The factor is divided by the squared norms of both predictions; it must be that of the one without "
    "the label.": (_multiple(lambda c, u: _dot(c, u) / (_dot(u, u) * _dot(c, c)))),
    "The factor has a sum above and a mean below the line.": _multiple(
        lambda c, u: _best(c, u) * math.prod(c.shape[1:])
    ),
    "The factor is the ratio of two sums; it must be that of two inner products.": _multiple(
        lambda c, u: c.sum((1, 2, 3), keepdim=True) / u.sum((1, 2, 3), keepdim=True)
    ),
    "The factor is that of the difference of the predictions, 1 less than it should be.": _multiple(
        lambda c, u: _best(c, u) - 1
    ),
    "Below the line of the factor stands the square of a sum; it must be the sum of the squares.": _multiple(
        lambda c, u: _dot(c, u) / u.sum((1, 2, 3), keepdim=True) ** 2
    ),
    "The factor has the wrong sign.": _multiple(lambda c, u: -_best(c, u)),
    "The means are removed before the inner products; they must stay.": _multiple(
        lambda c, u: _best(c - c.mean((1, 2, 3), keepdim=True), u - u.mean((1, 2, 3), keepdim=True))
    ),
}

_OTHER_SUMS = {
    "The scale is counted from 0, though the guidance starts at the prediction without the label: a "
    "scale of 1 must "
    "be the prediction with it.": _combined(lambda c, u, w, s: s * u + (w - 1) * (c - s * u)),
    "The difference has the wrong sign: it is the prediction with the label minus the multiple.": _combined(
        lambda c, u, w, s: s * u - w * (c - s * u)
    ),
    "The factor multiplies the difference of plain guidance; it belongs to the prediction without the "
    "label.": (_combined(lambda c, u, w, s: u + w * s * (c - u))),
    "The factor is used as the scale of plain guidance; it belongs to the prediction without the "
    "label.": _combined(lambda c, u, w, s: u + s * (c - u)),
    "The factor also multiplies the difference; it belongs to the prediction without the label "
    "alone.": _combined(lambda c, u, w, s: s * u + w * s * (c - s * u)),
    "The prediction with the label is divided by the factor; the one without the label must be multiplied.": (
        _combined(lambda c, u, w, s: u + w * (c / s - u))
    ),
    "The scale multiplies the prediction with the label alone; it must multiply the whole difference: "
    "are brackets "
    "missing?": _combined(lambda c, u, w, s: w * c - s * u),
    "The guidance scale is not used.": _combined(lambda c, u, w, s: s * u + c),
}

_CFG_ZERO_STAR = Exercise(
    "cfg_zero_star",
    _zero_star_loops,
    _zero_star_cases,
    {
        "This is plain guidance: the prediction without the label must be scaled first.": cfg_eps,
        "All images share one factor; each has its own.": (
            _multiple(lambda c, u: (c * u).sum() / (u * u).sum()),
            _AXES,
        ),
        "Each channel has a factor of its own; an image has one.": (
            _multiple(lambda c, u: _channel_dot(c, u) / _channel_dot(u, u)),
            _AXES,
        ),
        "Each pixel has a factor of its own, so the prediction with the label is left alone; an image has one factor.": (
            lambda c, u, w: c,
            "the sums over an image.",
        ),
        **{message: (function, _AXES) for message, function in _OTHER_AXES.items()},
        **_OTHER_FACTORS,
        **_OTHER_SUMS,
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
    tolerance=1e-6,  # a small number may be added to the squared norm, as the paper's code does
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


def _parallel_by(coefficient: Callable) -> Callable:
    """A split whose parallel part is another multiple of the prediction with the label, (d, c) -> number."""

    def split(d, c, u):
        parallel = coefficient(d, c) * c
        return parallel, d - parallel

    return _projected_by(split)


def _limited_by(size: Callable) -> Callable:
    """Projected guidance with another size instead of the norm of an image's difference."""
    return _clipped_by(lambda d, threshold: d * (threshold / size(d)).clamp(max=1))


def _axis_dot(a: Tensor, b: Tensor, axis: int) -> Tensor:
    return (a * b).sum(axis, keepdim=True)


def _parts(c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of the difference that is not limited."""
    return _split(c - u, c)


_OTHER_PROJECTIONS = {
    "The projection is divided by the squared norm of the difference; it must be that of the prediction "
    "with the "
    "label.": _parallel_by(lambda d, c: _dot(d, c) / _dot(d, d)),
    "The parallel part is not divided by the squared norm of the prediction with the label.": _parallel_by(
        _dot
    ),
    "The projection has a mean above and a sum below the line.": _parallel_by(
        lambda d, c: (d * c).mean((1, 2, 3), keepdim=True) / _dot(c, c)
    ),
    "The cosine is used as the coefficient; the lengths of the two vectors are missing.": _parallel_by(
        lambda d, c: _dot(d, c) / (_dot(d, d) * _dot(c, c)).sqrt()
    ),
    "The coefficient alone is subtracted; the parallel part is the coefficient times the prediction with "
    "the label.": (_projected_by(lambda d, c, u: (_dot(d, c) / _dot(c, c), d - _dot(d, c) / _dot(c, c)))),
    "Each pixel is projected by itself, over its channels; an image is one vector.": _parallel_by(
        lambda d, c: _axis_dot(d, c, 1) / _axis_dot(c, c, 1)
    ),
    "Each row of pixels is projected by itself; an image is one vector.": _parallel_by(
        lambda d, c: _axis_dot(d, c, 3) / _axis_dot(c, c, 3)
    ),
}

_OTHER_PARTS = {
    "The parts have weights eta and 1 - eta; the orthogonal part is kept in full, and eta of the "
    "parallel one.": (lambda p, o, eta: eta * p + (1 - eta) * o),
    "The parts have weights 1 - eta and eta; the orthogonal part is kept in full, and eta of the "
    "parallel one.": (lambda p, o, eta: (1 - eta) * p + eta * o),
    "The part eta of the parallel part is subtracted; it must be added to the orthogonal one.": (
        lambda p, o, eta: o - eta * p
    ),
    "The orthogonal part is missing: it must be kept in full.": lambda p, o, eta: eta * p,
    "The parallel part is kept alone, and in full; it is the orthogonal part that must "
    "be.": lambda p, o, eta: p,
}

_OTHER_LIMITS = {
    "The root mean square of the difference is limited; the threshold is for its norm.": _limited_by(
        lambda d: d.square().mean((1, 2, 3), keepdim=True).sqrt()
    ),
    "The sum of absolute values is limited; the threshold is for the norm.": _limited_by(
        lambda d: d.abs().sum((1, 2, 3), keepdim=True)
    ),
    "The norm of each channel is limited; the threshold is for the norm of an image.": _limited_by(
        lambda d: _channel_dot(d, d).sqrt()
    ),
    "The norm of each pixel is limited; the threshold is for the norm of an image.": _limited_by(
        lambda d: _axis_dot(d, d, 1).sqrt()
    ),
    "The norm of each row of pixels is limited; the threshold is for the norm of an image.": _limited_by(
        lambda d: _axis_dot(d, d, 3).sqrt()
    ),
    "The ratio is upside down: the factor is the threshold over the norm.": _clipped_by(
        lambda d, r: d * (_dot(d, d).sqrt() / r).clamp(max=1)
    ),
    "Numbers above the threshold are cut off; the threshold is for the norm of an image.": _clipped_by(
        lambda d, r: d.clamp(max=r)
    ),
    "A difference that is too long gets the norm 1; it must be the threshold.": _clipped_by(
        lambda d, r: torch.where(_dot(d, d).sqrt() > r, d / _dot(d, d).sqrt(), d)
    ),
    "A difference that is too long becomes 0; it must be shortened to the threshold.": _clipped_by(
        lambda d, r: torch.where(_dot(d, d).sqrt() > r, 0.0, d)
    ),
    "The difference is multiplied by the threshold; it must be shortened to it.": _clipped_by(
        lambda d, r: d * r
    ),
}

_OTHER_STEPS = {
    "This is plain guidance: the difference is neither limited nor projected.": lambda c, u, w, eta, r: (
        c + (w - 1) * (c - u)
    ),
    "The guidance scale is not used.": lambda c, u, w, eta, r: c + _kept(c, u, eta, r),
    "This is the step alone; it must be added to the prediction with the label.": lambda c, u, w, eta, r: (
        (w - 1) * _kept(c, u, eta, r)
    ),
    "The two predictions are exchanged: the guidance leads away from the label.": lambda c, u, w, eta, r: (
        u + (w - 1) * _kept(u, c, eta, r)
    ),
    "The scale is counted from -1: a scale of 1 must change nothing.": lambda c, u, w, eta, r: (
        c + (w + 1) * _kept(c, u, eta, r)
    ),
    "Only the orthogonal part is limited, after the projection; the whole difference must be, before.": (
        lambda c, u, w, eta, r: c + (w - 1) * (_clip(_parts(c, u)[1], r) + eta * _parts(c, u)[0])
    ),
    "The step is limited after it was scaled; the difference must be limited "
    "first.": lambda c, u, w, eta, r: c + _clip((w - 1) * (_parts(c, u)[1] + eta * _parts(c, u)[0]), r),
    "The difference is scaled before it is limited; it must be limited first.": lambda c, u, w, eta, r: (
        c + _kept(c, c - (w - 1) * (c - u), eta, r)
    ),
    "The parallel part is that of the difference before it was limited; it must be limited first.": (
        lambda c, u, w, eta, r: c + (w - 1) * (_clip(c - u, r) - (1 - eta) * _parts(c, u)[0])
    ),
}

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
        **_OTHER_PROJECTIONS,
        **{message: _projected_by(_to_split, keep) for message, keep in _OTHER_PARTS.items()},
        **_OTHER_LIMITS,
        **_OTHER_STEPS,
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
