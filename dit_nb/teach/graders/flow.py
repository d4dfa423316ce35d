"""Graders of lesson 30: a training pair of flow matching, and a step with a model that counts time the other way."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.batches import _SHAPES
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_flow_pair", "check_sit_step"]

_SHIFT = "lesson 30, 'Which times to train on'."
_LINE, _OTHERS = "lesson 30, 'A straight line'.", "lesson 30, 'Conventions of other models'."
_OVER_COLUMNS = "The times of the batch are applied to the columns of each image: if N equals the width, that raises no error."
_OVER_CHANNELS = "The times of the batch are applied to the channels of each image: if N equals their number, that raises no error."
_SHAPE_HINT = "which shape broadcasts a number for each image over its pixels."


def _column(t: Tensor) -> Tensor:
    """One number for each image, (N, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)


def _flow_pair_loops(x0: Tensor, noise: Tensor, logit: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """Image by image; the shift multiplies noise over signal."""
    x_t, velocity, time = torch.empty_like(x0), torch.empty_like(x0), torch.empty_like(logit)
    for i, value in enumerate(logit.tolist()):
        ratio = shift * math.exp(value)  # noise over signal
        x_t[i] = (x0[i] + ratio * noise[i]) / (1 + ratio)
        velocity[i] = noise[i] - x0[i]
        time[i] = 1000 * ratio / (1 + ratio)
    return x_t, velocity, time


def _flow_pair_cases(rng: RandomInputs) -> list[Case]:
    """Shifts above, below and at 1; N equals the width once."""
    cases = []
    for shape, shift in zip([*_SHAPES, (3, 2, 4, 3)], (3.0, 1.0, 0.4, rng.uniform(1.5, 6).item())):
        args = (rng.normal(*shape), rng.normal(*shape), rng.normal(shape[0]), round(shift, 3))
        cases.append(Case(f"{shape[0]} images, shift {args[3]:g}", args))
    return cases


def _pair(
    mix: Callable = lambda x0, noise, t: (1 - t) * x0 + t * noise,
    target: Callable = lambda x0, noise, t, x_t: noise - x0,
    time: Callable = lambda t, logit: 1000 * t,
    shifted: Callable = lambda logit, shift: logit + math.log(shift),
    column: Callable = _column,
    squash: Callable = torch.sigmoid,
) -> Callable:
    """The pair with one of its parts replaced."""

    def pair(x0, noise, logit, shift):
        t = squash(shifted(logit, shift))
        x_t = mix(x0, noise, column(t))
        return x_t, target(x0, noise, column(t), x_t), time(t, logit)

    return pair


def _shifted_time(x0: Tensor, noise: Tensor, logit: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """The shift as a factor of the time, a mistake."""
    return _pair(shifted=lambda value, _: value, squash=lambda value: shift * value.sigmoid())(
        x0, noise, logit, shift
    )


def _on_weights(signal: Callable, noise: Callable) -> Callable:
    """A mixture with other weights, and the velocity that diffusion has for them."""
    return _pair(
        mix=lambda x0, eps, t: signal(t) * x0 + noise(t) * eps,
        target=lambda x0, eps, t, x_t: signal(t) * eps - noise(t) * x0,
    )


def _straight_time(time: Callable) -> Callable:
    """The pair with another time, (logit, shift) -> (N,), which all its parts have."""

    def pair(x0, noise, logit, shift):
        return _pair(shifted=lambda value, _: value, squash=lambda value: time(value, shift))(
            x0, noise, logit, shift
        )

    return pair


def _mixture_before_the_shift(
    x0: Tensor, noise: Tensor, logit: Tensor, shift: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The shift for the network's time alone, a mistake."""
    x_t, velocity, _ = _flow_pair_loops(x0, noise, logit, 1.0)
    return x_t, velocity, _flow_pair_loops(x0, noise, logit, shift)[2]


_OTHER_PATHS = {
    "The velocity is that of diffusion, which weights noise and image by the time; on a straight line it "
    "is their "
    "difference.": _pair(target=lambda x0, noise, t, x_t: (1 - t) * noise - t * x0),
    "Mixture and velocity are those of diffusion, with weights on a circle; here the path is a straight "
    "line.": (_on_weights(lambda t: (1 - t**2).sqrt(), lambda t: t)),
    "Mixture and velocity are those of diffusion, with roots as weights; here the path is a straight line.": (
        _on_weights(lambda t: (1 - t).sqrt(), lambda t: t.sqrt())
    ),
    "Mixture and velocity have cosine and sine as weights; here the path is a straight line.": (
        _on_weights(lambda t: (math.pi / 2 * t).cos(), lambda t: (math.pi / 2 * t).sin())
    ),
    "The noise is added in full; its weight must grow from 0 to 1.": _pair(
        mix=lambda x0, noise, t: (1 - t) * x0 + noise
    ),
    "The velocity is the sum of noise and image; it is their difference.": _pair(
        target=lambda x0, noise, t, x_t: noise + x0
    ),
}

_OTHER_DIRECTIONS = {
    "Mixture and network have the time 1 - t: t is the weight of the noise, and the network receives "
    "1000 times t.": (_straight_time(lambda logit, shift: 1 - (logit + math.log(shift)).sigmoid())),
    "Everything counts from noise to data, as SiT does, the network's time as well: here t = 0 is data, "
    "and the "
    "velocity points to the noise.": _pair(
        mix=lambda x0, noise, t: t * x0 + (1 - t) * noise,
        target=lambda x0, noise, t, x_t: x0 - noise,
        time=lambda t, logit: 1000 * (1 - t),
    ),
    "The logit has the wrong sign: a large one means much noise.": _straight_time(
        lambda logit, shift: (math.log(shift) - logit).sigmoid()
    ),
}

_OTHER_SHIFTS = {
    "The logarithm of the shift is added to the time; it must be added to the logit.": _straight_time(
        lambda logit, shift: logit.sigmoid() + math.log(shift)
    ),
    "The logit is divided by the shift; the shift multiplies noise over signal, whose logarithm the "
    "logit is.": (_straight_time(lambda logit, shift: (logit / shift).sigmoid())),
    "The logarithm of the shift has base 2; it must be the natural one.": _straight_time(
        lambda logit, shift: (logit + math.log2(shift)).sigmoid()
    ),
    "The time itself is multiplied by the shift and cut off at 1; the shift multiplies noise over signal.": (
        _straight_time(lambda logit, shift: (shift * logit.sigmoid()).clamp(max=1))
    ),
    "The shifted time has a wrong divisor: noise and signal after the shift must add up to "
    "it.": _straight_time(lambda logit, shift: shift * logit.sigmoid() / (1 + shift * logit.sigmoid())),
    "The logit is used as the time, and shifted as one; a sigmoid makes a time of it first.": _straight_time(
        lambda logit, shift: shift * logit / (1 + (shift - 1) * logit)
    ),
    "The mixture has the time before the shift, the network the one after it.": _mixture_before_the_shift,
    "The logit is used as the time; a sigmoid makes a time of it.": _straight_time(
        lambda logit, shift: logit + math.log(shift)
    ),
}

_FLOW_PAIR = Exercise(
    "flow_pair",
    _flow_pair_loops,
    _flow_pair_cases,
    {
        "Image and noise are exchanged in the mixture: here t = 0 is data and t = 1 is noise.": (
            _pair(mix=lambda x0, noise, t: t * x0 + (1 - t) * noise),
            _LINE,
        ),
        "Everything counts from noise to data, as SiT does: here t = 0 is data, and the velocity points to the noise.": (
            _pair(
                mix=lambda x0, noise, t: t * x0 + (1 - t) * noise, target=lambda x0, noise, t, x_t: x0 - noise
            ),
            _OTHERS,
        ),
        "The velocity has the wrong sign: it is the change of the image as t grows, so it points to the noise.": (
            _pair(target=lambda x0, noise, t, x_t: x0 - noise),
            _LINE,
        ),
        "The target is the noise, as in diffusion; here it is the velocity.": (
            _pair(target=lambda x0, noise, t, x_t: noise.clone()),
            _LINE,
        ),
        "The target is the clean image; here it is the velocity.": (
            _pair(target=lambda x0, noise, t, x_t: x0.clone()),
            _LINE,
        ),
        "The velocity is the way from the mixture to the noise; it must be that of the whole line, in unit time.": (
            _pair(target=lambda x0, noise, t, x_t: noise - x_t),
            _LINE,
        ),
        "The velocity is the way from the image to the mixture; it must be that of the whole line, in unit time.": (
            _pair(target=lambda x0, noise, t, x_t: x_t - x0),
            _LINE,
        ),
        "The weights lie on a circle, as in diffusion; here they lie on a line and add up to 1.": (
            _pair(mix=lambda x0, noise, t: (1 - t**2).sqrt() * x0 + t * noise),
            _LINE,
        ),
        "The weights are square roots of 1 - t and t; on a straight line there is no root.": (
            _pair(mix=lambda x0, noise, t: (1 - t).sqrt() * x0 + t.sqrt() * noise),
            _LINE,
        ),
        "The noise is added to the full image; its weight must shrink.": (
            _pair(mix=lambda x0, noise, t: x0 + t * noise),
            _LINE,
        ),
        "The shift itself is added to the logit; its logarithm belongs there.": (
            _pair(shifted=lambda logit, shift: logit + shift),
            _SHIFT,
        ),
        "The logit is multiplied by the shift; the shift multiplies noise over signal, whose logarithm the logit is.": (
            _pair(shifted=lambda logit, shift: logit * shift),
            _SHIFT,
        ),
        "The shift is missing.": (_pair(shifted=lambda logit, shift: logit), _SHIFT),
        "The shift goes to the wrong side: a factor above 1 means more noise.": (
            _pair(shifted=lambda logit, shift: logit - math.log(shift)),
            _SHIFT,
        ),
        "The shift is applied twice.": (
            _pair(shifted=lambda logit, shift: logit + 2 * math.log(shift)),
            _SHIFT,
        ),
        "The time itself is multiplied by the shift, so it can leave [0, 1].": (_shifted_time, _SHIFT),
        "The logarithm of the shift has base 10; the natural one belongs in the logit.": (
            _pair(shifted=lambda logit, shift: logit + math.log10(shift)),
            _SHIFT,
        ),
        **{message: (function, _LINE) for message, function in _OTHER_PATHS.items()},
        **{message: (function, _OTHERS) for message, function in _OTHER_DIRECTIONS.items()},
        **{message: (function, _SHIFT) for message, function in _OTHER_SHIFTS.items()},
        "The time is rounded down to a timestep; here it may be any number.": (
            _pair(time=lambda t, logit: (1000 * t).floor()),
            "lesson 30, 'The class'.",
        ),
        "The network receives the time in [0, 1]; it must receive 1000 times that.": (
            _pair(time=lambda t, logit: t),
            "lesson 30, 'The class'.",
        ),
        "The network receives the time counted from the noise.": (
            _pair(time=lambda t, logit: 1000 * (1 - t)),
            "lesson 30, 'The class'.",
        ),
        "The network receives the time before the shift, the mixture the one after it.": (
            _pair(time=lambda t, logit: 1000 * logit.sigmoid()),
            _SHIFT,
        ),
        "The network receives the logit; it must receive the time, times 1000.": (
            _pair(time=lambda t, logit: logit.clone()),
            "lesson 30, 'The class'.",
        ),
        "The time is rounded to a timestep; here it may be any number.": (
            _pair(time=lambda t, logit: (1000 * t).round()),
            "lesson 30, 'The class'.",
        ),
        "The time is multiplied by 999, the last timestep; the scale of this network is 1000.": (
            _pair(time=lambda t, logit: 999 * t),
            "lesson 30, 'The class'.",
        ),
        _OVER_COLUMNS: (_pair(column=lambda t: t), _SHAPE_HINT),
        _OVER_CHANNELS: (_pair(column=lambda t: t[:, None, None]), _SHAPE_HINT),
        "The first image's time is used for the whole batch.": (_pair(column=lambda t: t[:1]), _SHAPE_HINT),
    },
    _SHIFT,
    result_names=("x_t", "velocity", "time"),
)


def check_flow_pair(fn: Callable, **grade_options) -> Report:
    """Check fn(x0, noise (N, C, H, W), logit (N,), shift) -> x_t, velocity (N, C, H, W), time (N,)."""
    return grade(_FLOW_PAIR, fn, **grade_options)


def _sit_step_loops(sit: Callable, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Image by image, in SiT's own time, in which a step goes forward."""
    results = []
    for i in range(len(x)):
        start, end = 1 - t[i : i + 1], 1 - t_next[i : i + 1]
        to_data = sit(x[i : i + 1], start)[0, : x.shape[1]]
        results.append(x[i] + float(end - start) * to_data)
    return torch.stack(results)


@dataclass(frozen=True)
class _Sit:
    """A model in SiT's convention: the velocity to the data, then as many channels that mean nothing."""

    scale: float

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        t = time.reshape(-1, *[1] * (x.ndim - 1))
        return torch.cat([torch.tanh(self.scale * x) * (1 + t) + 3 * t**2, x - 2 * t], dim=1)


def _sit_step_cases(rng: RandomInputs) -> list[Case]:
    """Each image has its own times; the last case ends at the data."""
    cases = []
    for i, shape in enumerate([*_SHAPES, (3, 2, 4, 3)]):
        t = rng.uniform(0.5, 1, shape[0])
        t_next = t * rng.uniform(0.2, 0.9, shape[0]) * (i < 3)
        label = f"{shape[0]} images, " + ("steps of different lengths" if i < 3 else "steps to the data")
        cases.append(Case(label, (_Sit(rng.uniform(0.5, 2).item()), rng.normal(*shape), t, t_next)))
    return cases


def _sit(
    time: Callable = lambda t, t_next: 1 - t,
    length: Callable = lambda t, t_next: t - t_next,
    part: Callable = lambda out, c: out[:, :c],
    column: Callable = _column,
) -> Callable:
    """The step with one of its parts replaced."""

    def step(sit, x, t, t_next):
        return x + column(length(t, t_next)) * part(sit(x, time(t, t_next)), x.shape[1])

    return step


def _mixed_again(image: Callable, noise: Callable) -> Callable:
    """Predict image and noise, (x, velocity to the data, t) -> (N, C, H, W), and mix them at t_next."""

    def step(sit, x, t, t_next):
        v, a, b = sit(x, 1 - t)[:, : x.shape[1]], _column(t), _column(t_next)
        return (1 - b) * image(x, v, a) + b * noise(x, v, a)

    return step


def _second_call(share: float, far: Callable) -> Callable:
    """A step with two calls, the second at the time far(t, t_next), whose velocity has some share."""

    def step(sit, x, t, t_next):
        first = sit(x, 1 - t)[:, : x.shape[1]]
        there = x + _column(t - far(t, t_next)) * first
        second = sit(there, 1 - far(t, t_next))[:, : x.shape[1]]
        return x + _column(t - t_next) * ((1 - share) * first + share * second)

    return step


def _denoised(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    return x + t * v


_STEPS = "lesson 30, 'Samplers'."

_OTHER_CONVERSIONS = {
    "SiT's time is multiplied by 1000, and the step goes away from the data: its network receives a time "
    "in [0, 1], "
    "and its velocity is data minus noise.": _sit(
        time=lambda t, t_next: 1000 * (1 - t), length=lambda t, t_next: t_next - t
    ),
    "Nothing is converted, and the time is multiplied by 1000: SiT receives a time in [0, 1], counted "
    "from the noise, "
    "and its velocity has the other sign.": _sit(
        time=lambda t, t_next: 1000 * t, length=lambda t, t_next: t_next - t
    ),
    "SiT receives t - 1, a negative time: from the noise, it is counted upwards from 0.": _sit(
        time=lambda t, t_next: t - 1
    ),
    "SiT receives our time of the end of the step; it must be that of the start, counted from the "
    "noise.": _sit(time=lambda t, t_next: t_next),
    "SiT receives the length of the step; it must be the time at its start, counted from the noise.": _sit(
        time=lambda t, t_next: t - t_next
    ),
    "All images have the mean time; each has its own.": _sit(
        time=lambda t, t_next: (1 - t).mean().expand_as(t)
    ),
}

_OTHER_STEPS = {
    "The velocity is multiplied by SiT's time at the start; it must be the length of the step.": _sit(
        length=lambda t, t_next: 1 - t
    ),
    "The length of the step is multiplied by 1000; here times are in [0, 1].": _sit(
        length=lambda t, t_next: 1000 * (t - t_next)
    ),
    "The length of the step is relative, divided by t; it must be the difference of the times.": _sit(
        length=lambda t, t_next: (t - t_next) / t
    ),
    "All steps have the mean length; each image has its own.": _sit(
        length=lambda t, t_next: (t - t_next).mean().expand_as(t)
    ),
    "This is SiT's velocity; a step of it must be added to x.": (
        lambda sit, x, t, t_next: sit(x, 1 - t)[:, : x.shape[1]]
    ),
    "This is the predicted noise, the other end of the path; the step goes toward the data.": (
        lambda sit, x, t, t_next: x - _column(1 - t) * sit(x, 1 - t)[:, : x.shape[1]]
    ),
    "The predicted image is mixed with x; it must be mixed with the predicted noise.": _mixed_again(
        _denoised, lambda x, v, t: x
    ),
    "The predicted noise is taken on the wrong side of x: SiT's velocity leads away from the "
    "noise.": _mixed_again(_denoised, lambda x, v, t: x + (1 - t) * v),
    "SiT's velocity is taken as the noise; it is data minus noise.": _mixed_again(
        _denoised, lambda x, v, t: v
    ),
    "Image and noise have each other's weight: at t_next the weight of the noise is t_next.": (
        lambda sit, x, t, t_next: _mixed_again(_denoised, lambda x, v, t: x - (1 - t) * v)(
            sit, x, t, 1 - t_next
        )
    ),
    "The mean of two velocities is used, at both ends of the step: that is Heun's step. Euler's has one.": (
        _second_call(0.5, lambda t, t_next: t_next)
    ),
    "A second velocity is used, at the middle of the step: that is the midpoint step. Euler's has one, "
    "at its start.": (_second_call(1.0, lambda t, t_next: (t + t_next) / 2)),
}

_SIT_STEP = Exercise(
    "sit_step",
    _sit_step_loops,
    _sit_step_cases,
    {
        "SiT receives our time; for it 0 is noise and 1 is data.": (_sit(time=lambda t, t_next: t), _OTHERS),
        "The step goes away from the data: SiT's velocity is data minus noise.": (
            _sit(length=lambda t, t_next: t_next - t),
            _OTHERS,
        ),
        "Nothing is converted: SiT counts time from noise to data, and its velocity has the other sign.": (
            _sit(time=lambda t, t_next: t, length=lambda t, t_next: t_next - t),
            _OTHERS,
        ),
        "SiT's time is multiplied by 1000; its network receives a time in [0, 1].": (
            _sit(time=lambda t, t_next: 1000 * (1 - t)),
            _OTHERS,
        ),
        "SiT receives 1000 times our time; it must be a time in [0, 1], counted from the noise.": (
            _sit(time=lambda t, t_next: 1000 * t),
            _OTHERS,
        ),
        "The sign of the time is changed; its direction must be: 0 becomes 1.": (
            _sit(time=lambda t, t_next: -t),
            _OTHERS,
        ),
        "The velocity is that of the end of the step; Euler's step uses the one at its start.": (
            _sit(time=lambda t, t_next: 1 - t_next),
            "lesson 30, 'Samplers'.",
        ),
        "The velocity is that of the middle of the step; Euler's step uses the one at its start.": (
            _sit(time=lambda t, t_next: 1 - (t + t_next) / 2),
            "lesson 30, 'Samplers'.",
        ),
        "The second half of the channels is used; the first half is the velocity.": (
            _sit(part=lambda out, c: out[:, c:]),
            "what SiT's code drops.",
        ),
        "Both halves of the channels are averaged; the first half is the velocity.": (
            _sit(part=lambda out, c: (out[:, :c] + out[:, c:]) / 2),
            "what SiT's code drops.",
        ),
        "The second half of the channels is added to the velocity; it means nothing.": (
            _sit(part=lambda out, c: out[:, :c] + out[:, c:]),
            "what SiT's code drops.",
        ),
        "Every second channel is taken; the velocity is the first half.": (
            _sit(part=lambda out, c: out[:, ::2]),
            "what SiT's code drops.",
        ),
        "Every second channel is taken, beginning with the second; the velocity is the first half.": (
            _sit(part=lambda out, c: out[:, 1::2]),
            "what SiT's code drops.",
        ),
        "The second half of the channels is subtracted from the velocity; it means nothing.": (
            _sit(part=lambda out, c: out[:, :c] - out[:, c:]),
            "what SiT's code drops.",
        ),
        **{message: (function, _OTHERS) for message, function in _OTHER_CONVERSIONS.items()},
        **{message: (function, _STEPS) for message, function in _OTHER_STEPS.items()},
        "The velocity is added in full, whatever the length of the step.": (
            _sit(length=lambda t, t_next: torch.ones_like(t)),
            "lesson 30, 'Samplers'.",
        ),
        "The step goes all the way to the data, not to t_next.": (
            _sit(length=lambda t, t_next: t),
            "lesson 30, 'Samplers'.",
        ),
        "The velocity is multiplied by t_next; it must be the length of the step.": (
            _sit(length=lambda t, t_next: t_next),
            "lesson 30, 'Samplers'.",
        ),
        "The velocity is multiplied by SiT's time at the end; it must be the length of the step.": (
            _sit(length=lambda t, t_next: 1 - t_next),
            "lesson 30, 'Samplers'.",
        ),
        "This is the change alone; it must be added to x.": (
            lambda sit, x, t, t_next: _sit()(sit, x, t, t_next) - x,
            "lesson 30, 'Samplers'.",
        ),
        "The predicted image is returned as if it were the end of a step: noise is missing at t_next.": (
            lambda sit, x, t, t_next: (1 - _column(t_next)) * _sit(length=lambda a, b: a)(sit, x, t, t_next),
            "lesson 30, 'Samplers'.",
        ),
        _OVER_COLUMNS: (_sit(column=lambda t: t), _SHAPE_HINT),
        _OVER_CHANNELS: (_sit(column=lambda t: t[:, None, None]), _SHAPE_HINT),
        "The first image's step length is used for the whole batch.": (
            _sit(column=lambda t: t[0]),
            _SHAPE_HINT,
        ),
        "SiT receives the first image's time for the whole batch.": (
            _sit(time=lambda t, t_next: (1 - t[:1]).expand(len(t))),
            "which times SiT receives.",
        ),
    },
    _OTHERS,
)


def check_sit_step(fn: Callable, **grade_options) -> Report:
    """Check fn(sit, x (N, C, H, W), t, t_next (N,)) -> x at t_next; sit(x, time) returns 2C channels."""
    return grade(_SIT_STEP, fn, **grade_options)
