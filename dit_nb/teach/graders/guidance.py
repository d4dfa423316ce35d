"""Graders of lesson 18: classifier-free guidance, its use on eps alone, and several conditions."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.guidance import cfg_eps
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_cfg_eps", "check_guided_output", "check_combine_conditions"]


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
        "The guidance is subtracted: it leads away from the label.": (
            lambda c, u, w: u - w * (c - u),
            "the sign of the difference.",
        ),
        "Only the prediction with the label is left, scaled; the one without it is missing, or cancels.": lambda c, u, w: (
            w * c
        ),
        "The prediction without the label is subtracted in full, whatever the scale.": lambda c, u, w: (
            w * c - u
        ),
        "The prediction without the label is scaled and added to the one with it.": lambda c, u, w: c + w * u,
        "The prediction without the label is subtracted; the line starts at it.": lambda c, u, w: (
            w * (c - u) - u
        ),
        "The prediction without the label is subtracted once, though the one with it grows with 1 + scale.": (
            lambda c, u, w: (1 + w) * c - u,
            "what both weights must add up to.",
        ),
        "The scale is on the prediction without the label; it belongs to the difference of the two.": (
            lambda c, u, w: c - w * u
        ),
        "Both predictions are added and scaled; it is their difference that is scaled.": lambda c, u, w: (
            w * (c + u)
        ),
        "The scaled difference is added to the sum of both; it starts at the prediction without the label.": (
            lambda c, u, w: c + u + w * (c - u)
        ),
        "The weight of the prediction without the label has the wrong sign.": (
            lambda c, u, w: w * c - (1 - w) * u,
            "what both weights must add up to.",
        ),
        "The prediction is limited to -1 to 1; that is for images, not for noise.": lambda c, u, w: (
            torch.lerp(u, c, w).clamp(-1, 1)
        ),
        "The result is scaled to the size of the prediction with the label; return the combination as it is.": lambda c, u, w: (
            (g := torch.lerp(u, c, w)) * c.std() / g.std()
        ),
        "The guidance starts at the prediction with the label, one scale further; at 1 it must be that prediction.": (
            lambda c, u, w: c + (1 + w) * (c - u),
            "lesson 18, 'Other people's scales'.",
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
    sizes = [(1, 0.0), (1, 2.0), (2, 1.5), (4, 4.0), (3, 0.0), (4, 0.5)]
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
        "The channels alternate, one of the noise and one of the variance; all of the noise come first.": (
            lambda c, u, w: torch.stack(_guided(lambda k: k)(c, u, w).chunk(2, 1), 2).flatten(1, 2)
        ),
        "The variance values are those without the label.": _guided(lambda c: c, lambda cond, uncond: uncond),
        "Only three channels are guided, as in the official code; here all channels of eps are.": (
            _guided(lambda c: min(3, c)),
            "lesson 18, 'Three channels of four'.",
        ),
        "Three channels are guided, however many there are: with fewer than three that reaches the variance values.": (
            _guided(lambda c: 3),
            "lesson 18, 'Three channels of four'.",
        ),
        "Every second channel is guided; the noise is the first half of the channels.": lambda c, u, w: (
            torch.stack([torch.lerp(u, c, w)[:, ::2], c[:, 1::2]], 2).flatten(1, 2)
        ),
        "Only the first channel is guided; here all channels of eps are.": _guided(lambda c: 1),
        "The noise is the one without the label: the scale is not used.": lambda c, u, w: torch.cat(
            [u.chunk(2, 1)[0], c.chunk(2, 1)[1]], 1
        ),
        "Only the scaled difference of the noise is returned; it starts at the one without the label.": lambda c, u, w: (
            torch.cat([(w * (c - u)).chunk(2, 1)[0], c.chunk(2, 1)[1]], 1)
        ),
        "Nothing is guided: this is the output with the label.": lambda c, u, w: c.clone(),
        "The two outputs are exchanged: the guidance leads away from the label.": (
            lambda c, u, w: torch.cat([torch.lerp(c, u, w).chunk(2, 1)[0], c.chunk(2, 1)[1]], 1),
            "which of the two a scale of 0 must give.",
        ),
        "The two outputs are exchanged everywhere, so the variance values are those without the label too.": (
            lambda c, u, w: _guided(lambda k: k)(u, c, w),
            "which of the two a scale of 0 must give.",
        ),
        "The variance values are the mean of both; they should be those with the label.": _guided(
            lambda c: c, lambda cond, uncond: (cond + uncond) / 2
        ),
        "The variance values are 0; they should be those with the label.": _guided(
            lambda c: c, lambda cond, uncond: 0 * cond
        ),
        "The variance values come first; the noise must.": (
            lambda c, u, w: torch.cat([c.chunk(2, 1)[1], torch.lerp(u, c, w).chunk(2, 1)[0]], 1),
            "the order of the channels.",
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
        "The halves are taken in the wrong order: noise is the first half of each output, and the variance values the second.": (
            lambda c, u, w: torch.cat([torch.lerp(u, c, w).chunk(2, 1)[1], c.chunk(2, 1)[0]], 1),
            "the order of the channels.",
        ),
        "The noise comes twice; the second half must be the variance values.": lambda c, u, w: torch.cat(
            [torch.lerp(u, c, w).chunk(2, 1)[0]] * 2, 1
        ),
        "The second half is the noise with the label; it must be the variance values.": lambda c, u, w: (
            torch.cat([torch.lerp(u, c, w).chunk(2, 1)[0], c.chunk(2, 1)[0]], 1)
        ),
        "The halves are taken along the batch: the first images are guided whole, the others not at all.": lambda c, u, w: (
            torch.cat([torch.lerp(u, c, w)[: len(c) // 2], c[len(c) // 2 :]])
        ),
        "The halves are joined along the batch; they are channels of one image.": lambda c, u, w: torch.cat(
            [torch.lerp(u, c, w).chunk(2, 1)[0], c.chunk(2, 1)[1]]
        ),
        "The outputs are split along the batch and joined along the channels: the halves are channels.": lambda c, u, w: (
            torch.cat([torch.lerp(u, c, w).chunk(2, 0)[0], c.chunk(2, 0)[1]], 1)
        ),
        "The variance values of both outputs are added; they should be those with the label.": _guided(
            lambda c: c, lambda cond, uncond: cond + uncond
        ),
        "The guidance is subtracted: it leads away from the label.": lambda c, u, w: _guided(lambda k: k)(
            c, u, -w
        ),
        "Both predictions of the noise are added in full: at a scale of 1 the one without the label must cancel.": lambda c, u, w: (
            torch.cat([(u + w * c).chunk(2, 1)[0], c.chunk(2, 1)[1]], 1)
        ),
        "The noise with the label is scaled; the one without it is missing.": lambda c, u, w: torch.cat(
            [(w * c).chunk(2, 1)[0], c.chunk(2, 1)[1]], 1
        ),
        "The noise is the mean of both predictions: the scale is not used.": lambda c, u, w: torch.cat(
            [((c + u) / 2).chunk(2, 1)[0], c.chunk(2, 1)[1]], 1
        ),
    },
    "lesson 18, 'The wrapper'.",
    reference=_guided(lambda c: c),
)


def check_guided_output(fn: Callable, **grade_options) -> Report:
    """Check fn(cond (N, 2C, H, W), uncond (N, 2C, H, W), cfg_scale) -> (N, 2C, H, W)."""
    return grade(_GUIDED_OUTPUT, fn, **grade_options)


def _combine_loops(uncond: Tensor, conds: Tensor, weights: Tensor) -> Tensor:
    """Start without a label, and go part of the way to each prediction with one."""
    result = uncond.clone()
    for cond, weight in zip(conds, weights.tolist()):
        result = result + cond * weight - uncond * weight
    return result


def _conditions_cases(rng: RandomInputs) -> list[Case]:
    """One to four conditions; in the second case there are as many conditions as columns."""
    cases = []
    for weights, shape in (
        ((1.5,), (2, 1, 2, 3)),
        ((2.0, -1.0, 0.5), (2, 2, 4, 3)),
        ((1.0, 1.0), (3, 1, 2, 4)),
        ((4.0, -1.5, 0.0, 1.0), (2, 3, 2, 3)),
    ):
        weights = torch.tensor(weights, dtype=torch.float64) * rng.uniform(0.9, 1.1).item()
        label = "weights " + ", ".join(f"{w:.2f}" for w in weights.tolist())
        cases.append(Case(label, (rng.normal(*shape), rng.normal(len(weights), *shape), weights)))
    return cases


def _over_conditions(weights: Tensor) -> Tensor:
    """(K, 1, 1, 1, 1)."""
    return weights.reshape(-1, 1, 1, 1, 1)


def _chain(uncond: Tensor, conds: Tensor, weights: Tensor) -> Tensor:
    """Each condition guides the result of the one before."""
    result = uncond
    for cond, weight in zip(conds, weights):
        result = result + weight * (cond - result)
    return result


def _combine(change: Callable = lambda weights: weights) -> Callable:
    """The sum with other weights."""
    return lambda u, c, w: u + (_over_conditions(change(w)) * (c - u)).sum(0)


_COMBINE_CONDITIONS = Exercise(
    "combine_conditions",
    _combine_loops,
    _conditions_cases,
    {
        "The prediction without a label is not subtracted from the others: each direction starts there.": lambda u, c, w: (
            u + (_over_conditions(w) * c).sum(0)
        ),
        "The prediction without a label is missing where the sum starts.": lambda u, c, w: (
            _over_conditions(w) * (c - u)
        ).sum(0),
        "The prediction without a label is missing, or it cancels: only the weighted predictions with labels are left. All "
        "directions start at the one without.": lambda u, c, w: (_over_conditions(w) * c).sum(0),
        "The prediction without a label is subtracted from the weighted sum; each of the directions starts there.": lambda u, c, w: (
            (_over_conditions(w) * c).sum(0) - u
        ),
        "The start is added once for each condition: add it after the sum.": lambda u, c, w: (
            u + _over_conditions(w) * (c - u)
        ).sum(0),
        "The directions are averaged; the logarithms of probabilities add up.": (
            lambda u, c, w: u + (_over_conditions(w) * (c - u)).mean(0),
            "lesson 18, 'Several conditions'.",
        ),
        "The weights are summed, so that every condition gets all of them.": lambda u, c, w: (
            u + w.sum() * (c - u).sum(0)
        ),
        "The weights are not used: every condition counts in full.": _combine(torch.ones_like),
        "The weights are divided by their sum; each is a scale of its own.": _combine(lambda w: w / w.sum()),
        "The first weight is used for every condition.": _combine(lambda w: w[:1].expand_as(w)),
        "Only the first condition is used.": _combine(lambda w: torch.cat([w[:1], 0 * w[1:]])),
        "Only the last condition is used: is the result replaced in the loop, where it should be added to?": _combine(
            lambda w: torch.cat([0 * w[:-1], w[-1:]])
        ),
        "Negative weights are treated as 0; they lead away from a label.": _combine(lambda w: w.clamp(min=0)),
        "Negative weights are treated as positive; they lead away from a label.": _combine(torch.abs),
        "The sign of the directions is wrong: positive weights lead away from a label.": _combine(torch.neg),
        "The weights are counted from the predictions with labels, so 0 is no guidance; it must be 1.": (
            _combine(lambda w: 1 + w),
            "lesson 18, 'Other people's scales'.",
        ),
        "One condition guides the result of the one before, so their order matters; all start without a label.": _chain,
        "The weights are applied to the columns of each image: if there are as many, that raises no error.": (
            lambda u, c, w: u + (w * (c - u)).sum(0),
            "the shape of the weights.",
        ),
        "The sum runs over the batch instead of the conditions.": lambda u, c, w: (
            u + (_over_conditions(w) * (c - u)).sum(1)
        ),
        "The weights are summed, and the predictions averaged: each weight belongs to one prediction.": lambda u, c, w: (
            u + w.sum() * (c.mean(0) - u)
        ),
    },
    "lesson 18, 'Several conditions'.",
)


def check_combine_conditions(fn: Callable, **grade_options) -> Report:
    """Check fn(uncond (N, C, H, W), conds (K, N, C, H, W), weights (K,)) -> (N, C, H, W)."""
    return grade(_COMBINE_CONDITIONS, fn, **grade_options)
