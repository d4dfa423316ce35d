"""A scale, counted from the right place, for the right channels."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.guidance import cfg_eps
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def guided_by_hand(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    "One number at a time."
    pairs = zip(cond.flatten().tolist(), uncond.flatten().tolist())
    return cond.new_tensor([u + (c - u) * cfg_scale for c, u in pairs]).reshape(cond.shape)


def guidance_cases(draw: Draw) -> list[Case]:
    "Scales below, at and beyond 1."
    scales = [0.0, 0.5, 1.0, 1.5, 4.0, round(draw.uniform(2, 9).item(), 2)]
    return [Case(f"cfg_scale = {w:g}", (draw.normal(2, 4, 3, 2), draw.normal(2, 4, 3, 2), w)) for w in scales]


CFG_EPS = Exercise(
    "cfg_eps",
    guided_by_hand,
    guidance_cases,
    (
        Mistake(
            "The scale is counted from the labelled prediction: here 1 is no guidance, there 0 is.",
            "lesson 18, 'Other people's scales'.",
            lambda c, u, w: c + w * (c - u),
        ),
        Mistake(
            "The two predictions are exchanged: the label pushes away.",
            "which of the two a scale of 0 must give.",
            lambda c, u, w: c + w * (u - c),
        ),
        Mistake(
            "A scale of 0 is taken for 'no guidance'; it means 'without the label'. No guidance is 1.",
            "lesson 18, 'Push the label'.",
            lambda c, u, w: torch.lerp(u, c, w) if w else c.clone(),
        ),
        Mistake(
            "All scales below 1 are taken for 'no guidance'; they lie between the two predictions.",
            "lesson 18, 'Push the label'.",
            lambda c, u, w: torch.lerp(u, c, max(w, 1.0)),
        ),
        Mistake(
            "The scale is held at 1 at most: guidance is to go beyond.",
            "lesson 18, 'Push the label'.",
            lambda c, u, w: torch.lerp(u, c, min(w, 1.0)),
        ),
        Mistake(
            "Only the push is returned; it starts from the prediction without the label.",
            "where the walk starts.",
            lambda c, u, w: w * (c - u),
        ),
        Mistake(
            "Both predictions are added in full: at a scale of 1 the one without the label must be gone.",
            "a scale of 1.",
            lambda c, u, w: u + w * c,
        ),
    ),
    "lesson 18, 'Push the label'.",
    reference=cfg_eps,
)


def check_cfg_eps(
    fn: Callable,  # (cond, uncond, cfg_scale) -> prediction, all of one shape
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`cfg_eps(cond, uncond, cfg_scale)`: 0 is without the label, 1 is with it, more is beyond it."
    return grade(CFG_EPS, fn, **options)


def output_by_hand(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    "Channel by channel."
    half = cond.shape[1] // 2
    channels = [
        guided_by_hand(cond[:, i], uncond[:, i], cfg_scale) if i < half else cond[:, i]
        for i in range(2 * half)
    ]
    return torch.stack(channels, 1)


def output_cases(draw: Draw) -> list[Case]:
    "One, two and four channels, twice."
    drawn = [(1, 0.0), (2, 1.5), (4, 4.0), (4, 0.5)]
    label = "C = {}, cfg_scale = {:g}"
    return [
        Case(label.format(c, w), (draw.normal(2, 2 * c, 3, 2), draw.normal(2, 2 * c, 3, 2), w))
        for c, w in drawn
    ]


def guide(channels: Callable, rest: Callable = lambda c, u: c) -> Callable:
    "Guide the first channels, and take the others from elsewhere: a mistake."

    def turned(cond, uncond, w):
        k = channels(cond.shape[1] // 2)
        return torch.cat([torch.lerp(uncond, cond, w)[:, :k], rest(cond, uncond)[:, k:]], 1)

    return turned


GUIDED_OUTPUT = Exercise(
    "guided_output",
    output_by_hand,
    output_cases,
    (
        Mistake(
            "The variance values are guided too; only the noise is to be pushed.",
            "lesson 18, 'The wrapper'.",
            guide(lambda c: 2 * c),
        ),
        Mistake(
            "The variance values are those without the label.",
            "lesson 18, 'The wrapper'.",
            guide(lambda c: c, lambda cond, uncond: uncond),
        ),
        Mistake(
            "Only three channels are guided, as the official code does it; here all of eps is.",
            "lesson 18, 'Three channels of four'.",
            guide(lambda c: min(3, c)),
        ),
        Mistake(
            "The halves are exchanged: the variance values are guided, the noise is not.",
            "which half comes first.",
            lambda c, u, w: torch.cat([c.chunk(2, 1)[0], torch.lerp(u, c, w).chunk(2, 1)[1]], 1),
        ),
        Mistake(
            "The variance values are lost: the sampler needs them.",
            "the shape of the result.",
            lambda c, u, w: torch.lerp(u, c, w).chunk(2, 1)[0],
        ),
        Mistake(
            "The scale is counted from the labelled prediction: here 1 is no guidance, there 0 is.",
            "lesson 18, 'Other people's scales'.",
            lambda c, u, w: guide(lambda k: k)(c, u, w + 1),
        ),
    ),
    "lesson 18, 'The wrapper'.",
    reference=guide(lambda c: c),
)


def check_guided_output(
    fn: Callable,  # (cond (N, 2C, H, W), uncond (N, 2C, H, W), cfg_scale) -> (N, 2C, H, W)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`guided_output(cond, uncond, cfg_scale)`: guided noise, then the variance values as with the label."
    return grade(GUIDED_OUTPUT, fn, **options)
