"""Graders of lesson 35: the target of MeanFlow's training, and sampling in a few jumps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_average_target", "check_few_jumps"]


def _col(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)


class _Average(NamedTuple):
    """A smooth function that stands for a network: (x, t, r) -> average velocity (N, C, H, W)."""

    weights: Tensor  # (5,)

    def __call__(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        a, b, c, d, e = self.weights
        return (
            torch.sin(a * x + b * _col(t))
            + c * x * _col(t) ** 2
            + d * torch.cos(2 * _col(r)) * x
            + e * _col(t * r)
        )


class _AverageOfBatch(_Average):
    """The same, for times of shape (N,) only."""

    def __call__(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        for name, time in (("t", t), ("r", r)):
            shape = tuple(time.shape) if isinstance(time, Tensor) else type(time).__name__
            if shape != (len(x),):
                raise ValueError(f"average takes {name} of shape (N,), here {(len(x),)}, but got {shape}")
        return super().__call__(x, t, r)


def _target_differences(average: Callable, x_t: Tensor, t: Tensor, r: Tensor, velocity: Tensor) -> Tensor:
    """Differentiate along the trajectory by central differences of fourth order."""
    h, along = 1e-3, 0
    for steps, weight in ((1, 8.0), (2, -1.0)):
        s = steps * h
        ahead, behind = (average(x_t + k * velocity, t + k, r) for k in (s, -s))
        along = along + weight * (ahead - behind)
    return velocity - _col(t - r) * along / (12 * h)


def _target_cases(rng: RandomInputs) -> list[Case]:
    cases = []
    for n, c, h, w in ((3, 2, 2, 4), (1, 1, 3, 2), (4, 3, 2, 2)):
        t = rng.uniform(0.3, 1.0, n)
        args = (
            _Average(rng.normal(5)),
            rng.normal(n, c, h, w),
            t,
            t * rng.uniform(0.1, 0.8, n),
            rng.normal(n, c, h, w),
        )
        cases.append(Case(f"{n} images of {c}x{h}x{w}", args))
    average, x, t, _, v = cases[0].args
    _jvp(average, x, t, t, v, 1, 0)  # the first call imports code (seconds) that replaces torch.manual_seed
    return [*cases, Case("r = t for the first image", (average, x, t, t * t.new_tensor([1.0, 0.3, 0.0]), v))]


def _jvp(average: Callable, x: Tensor, t: Tensor, r: Tensor, dx: Tensor, dt: float, dr: float) -> Tensor:
    """Derivative of the average velocity in one direction."""
    return torch.func.jvp(average, (x, t, r), (dx, torch.full_like(t, dt), torch.full_like(r, dr)))[1]


def _with_direction(direction: Callable) -> Callable:
    """The target with another direction of the derivative."""
    return lambda a, x, t, r, v: v - _col(t - r) * _jvp(a, x, t, r, *direction(a, x, t, r, v))


def _with_factor(factor: Callable, sign: int = -1) -> Callable:
    """The target with another factor before the derivative."""
    return lambda a, x, t, r, v: v + sign * factor(t, r) * _jvp(a, x, t, r, v, 1, 0)


def _difference(step: float) -> Callable:
    """The target with a difference quotient along the trajectory."""
    return lambda a, x, t, r, v: v - _col(t - r) * (a(x + step * v, t + step, r) - a(x, t, r)) / step


def _from_other_velocity(start: Callable, along: Callable = lambda a, x, t, r, v: v) -> Callable:
    """The target with another velocity to start at, or to move along."""
    return lambda a, x, t, r, v: (
        start(a, x, t, r, v) - _col(t - r) * _jvp(a, x, t, r, along(a, x, t, r, v), 1, 0)
    )


def _with_tangents(dt: Callable, dr: Callable) -> Callable:
    """The target with another direction of the two times, one for each image."""
    return lambda a, x, t, r, v: v - _col(t - r) * torch.func.jvp(a, (x, t, r), (v, dt(t, r), dr(t, r)))[1]


def _in_other_times(convert: Callable) -> Callable:
    """The target with other times for the network."""
    return lambda a, x, t, r, v: (
        v - _col(t - r) * _jvp(lambda x, t, r: a(x, convert(t), convert(r)), x, t, r, v, 1, 0)
    )


_IDENTITY = "lesson 35, 'The identity'."

_OTHER_TANGENTS = {
    "The time moves by 1000; here times are in [0, 1], and it moves by 1.": _with_direction(
        lambda a, x, t, r, v: (v, 1000, 0)
    ),
    "The time moves by t; it must move by 1, as fast for every image.": _with_tangents(
        lambda t, r: t, lambda t, r: 0 * r
    ),
    "The two times move by their own values; t must move by 1, and r not at all.": _with_tangents(
        lambda t, r: t, lambda t, r: r
    ),
    "The time moves by the length of the interval; it must move by 1.": _with_tangents(
        lambda t, r: t - r, lambda t, r: 0 * r
    ),
    "The time r moves backwards; it must be held fixed.": _with_direction(lambda a, x, t, r, v: (v, 1, -1)),
    "The image moves by 1 everywhere; it must move by the velocity.": _with_direction(
        lambda a, x, t, r, v: (torch.ones_like(x), 1, 0)
    ),
    "The image moves by the velocity times the length of the interval; it must move by the velocity.": (
        _with_direction(lambda a, x, t, r, v: (_col(t - r) * v, 1, 0))
    ),
}

_OTHER_VELOCITIES = {
    "The image moves by the network's own velocity, its average from t to t; it must move by the "
    "velocity given.": (_with_direction(lambda a, x, t, r, v: (a(x, t, t), 1, 0))),
    "The target starts at the network's own velocity, its average from t to t; it must start at the "
    "velocity given.": (_from_other_velocity(lambda a, x, t, r, v: a(x, t, t))),
    "The velocity given is not used: the network's own stands for it, its average from t to t.": (
        _from_other_velocity(lambda a, x, t, r, v: a(x, t, t), lambda a, x, t, r, v: a(x, t, t))
    ),
    "The velocity given is not used: the predicted average stands for it.": _from_other_velocity(
        lambda a, x, t, r, v: a(x, t, r), lambda a, x, t, r, v: a(x, t, r)
    ),
    "The average velocity is used where its derivative belongs: a jvp returns the value first.": (
        lambda a, x, t, r, v: v - _col(t - r) * a(x, t, r)
    ),
}

_DIFFERENCES = {
    f"The derivative is a difference over a step of {step:g}, which is not exact; a jvp is.": _difference(
        step
    )
    for step in (1000.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
} | {
    "The derivative is the difference of the averages at both ends of the interval; it must be the one "
    "at t.": (lambda a, x, t, r, v: v - (a(x, t, r) - a(x - _col(t - r) * v, r, r))),
    "The difference over a small step is not divided by the step.": (
        lambda a, x, t, r, v: v - _col(t - r) * (a(x + 1e-3 * v, t + 1e-3, r) - a(x, t, r))
    ),
}

_OTHER_TIMES = {
    "The network receives 1000 times its times; this one takes times in [0, 1].": _in_other_times(
        lambda t: 1000 * t
    ),
    "The network receives times that are counted from the noise; here 0 is data.": _in_other_times(
        lambda t: 1 - t
    ),
}

_AVERAGE_TARGET = Exercise(
    "average_target",
    _target_differences,
    _target_cases,
    {
        "The derivative is added; it must be subtracted.": (
            _with_factor(lambda t, r: _col(t - r), sign=1),
            "the sign of the identity.",
        ),
        "The derivative is not multiplied by the length of the interval.": _with_factor(lambda t, r: 1.0),
        "The derivative is multiplied by t; it must be the length of the interval.": _with_factor(
            lambda t, r: _col(t)
        ),
        "The derivative is multiplied by r; it must be the length of the interval.": _with_factor(
            lambda t, r: _col(r)
        ),
        "The derivative is multiplied by half the length of the interval.": _with_factor(
            lambda t, r: _col(t - r) / 2
        ),
        "The derivative is multiplied by the square of the length of the interval.": _with_factor(
            lambda t, r: _col(t - r) ** 2
        ),
        "All images have the same interval, that of the first; each has its own.": _with_factor(
            lambda t, r: (t - r)[0]
        ),
        "All images have the mean interval; each has its own.": _with_factor(lambda t, r: (t - r).mean()),
        "The derivative is the one at a fixed time: t must move along.": _with_direction(
            lambda a, x, t, r, v: (v, 0, 0)
        ),
        "The derivative is the one at a fixed image: x must move along.": _with_direction(
            lambda a, x, t, r, v: (torch.zeros_like(x), 1, 0)
        ),
        "Both times move; r must be held fixed.": _with_direction(lambda a, x, t, r, v: (v, 1, 1)),
        "The derivative is the one in r, at a fixed t; it must be the other way around.": _with_direction(
            lambda a, x, t, r, v: (v, 0, 1)
        ),
        "The time moves backwards; along the trajectory it rises.": _with_direction(
            lambda a, x, t, r, v: (v, -1, 0)
        ),
        "The image moves against the velocity; it must move along it.": _with_direction(
            lambda a, x, t, r, v: (-v, 1, 0)
        ),
        "The image moves by the average velocity; along the trajectory it moves by the velocity at t.": _with_direction(
            lambda a, x, t, r, v: (a(x, t, r), 1, 0)
        ),
        "The image moves by itself; it must move by the velocity.": _with_direction(
            lambda a, x, t, r, v: (x, 1, 0)
        ),
        **_OTHER_TANGENTS,
        **_OTHER_VELOCITIES,
        **_DIFFERENCES,
        **_OTHER_TIMES,
        "The target starts at the predicted average; it must start at the velocity.": lambda a, x, t, r, v: (
            a(x, t, r) - _col(t - r) * _jvp(a, x, t, r, v, 1, 0)
        ),
        "This is the predicted average velocity; return what it should be.": lambda a, x, t, r, v: a(x, t, r),
        "This is the velocity alone, the target of flow matching; the derivative is missing.": lambda a, x, t, r, v: (
            v.clone()
        ),
        "This is the derivative; the target also has the velocity.": lambda a, x, t, r, v: _jvp(
            a, x, t, r, v, 1, 0
        ),
        "The two times are exchanged in the call of the network.": lambda a, x, t, r, v: (
            v - _col(t - r) * _jvp(lambda x, t, r: a(x, r, t), x, t, r, v, 1, 0)
        ),
        "The network receives the length of the interval instead of r.": lambda a, x, t, r, v: (
            v - _col(t - r) * _jvp(lambda x, t, r: a(x, t, t - r), x, t, r, v, 1, 0)
        ),
    },
    _IDENTITY,
    tolerance=1e-7,
    reference=lambda average, x_t, t, r, velocity: (
        velocity - _col(t - r) * _jvp(average, x_t, t, r, velocity, 1, 0)
    ),
)


def check_average_target(fn: Callable, **grade_options) -> Report:
    """Check fn(average, x_t, t, r, velocity) -> target of the average velocity."""
    return grade(_AVERAGE_TARGET, fn, **grade_options)


def _jumps_loops(average: Callable, x_T: Tensor, times: Tensor) -> Tensor:
    """Jump with one image at a time."""
    images = []
    for image in x_T:
        x, values = image[None], times.tolist()
        for k in range(1, len(values)):
            t, r = (x.new_tensor([value]) for value in values[k - 1 : k + 1])
            x = x - (values[k - 1] - values[k]) * average(x, t, r)
        images.append(x[0])
    return torch.stack(images)


def _jump_cases(rng: RandomInputs) -> list[Case]:
    times = ([1.0, 0.0], [1.0, 0.55, 0.0], [1.0, 0.8, 0.5, 0.35, 0.0], [0.9, 0.3, 0.1])
    shapes = ((2, 1, 3, 2), (3, 2, 2, 2), (1, 3, 2, 4), (4, 2, 2, 2))
    return [
        Case(
            f"times {' '.join(map(str, some))}",
            (
                _AverageOfBatch(0.5 * rng.normal(5)),
                rng.normal(*shape),
                torch.tensor(some, dtype=torch.float64),
            ),
        )
        for some, shape in zip(times, shapes)
    ]


def _jumps(
    step: Callable = lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, r), pairs: Callable | None = None
) -> Callable:
    """Jumps with another step, or other pairs of times."""

    def sample(average, x_T, times):
        values, x = times.tolist(), x_T
        for t, r in list(zip(values, values[1:])) if pairs is None else pairs(values):
            x = step(average, x, t, r, x_T)
        return x

    return sample


def _at(average: Callable, x: Tensor, t: float, r: float) -> Tensor:
    return average(x, x.new_full((len(x),), t), x.new_full((len(x),), r))


def _from_the_first(step: Callable) -> Callable:
    """Jumps whose step also receives the first of the times."""
    return lambda average, x_T, times: _jumps(lambda a, x, t, r, x_T: step(a, x, t, r, x_T, float(times[0])))(
        average, x_T, times
    )


def _with_times(times: Callable) -> Callable:
    """Jumps with other times, (list of times) -> list."""
    return _jumps(pairs=lambda values: list(zip(times(values), times(values)[1:])))


def _even(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * k / (count - 1) for k in range(count)]


def _stale(average: Callable, x_T: Tensor, times: Tensor) -> Tensor:
    u = _at(average, x_T, *times[:2].tolist())
    return x_T - (times[0] - times[-1]) * u


_CALLS = {
    "The network receives times that are counted from the noise; here 0 is data.": (
        lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, 1 - t, 1 - r)
    ),
    "All times are counted from the noise, and the velocity is added; here 0 is data, and it is "
    "subtracted.": (lambda a, x, t, r, x_T: x + (t - r) * _at(a, x, 1 - t, 1 - r)),
    "The network receives 1000 times its times; this one takes times in [0, 1].": (
        lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, 1000 * t, 1000 * r)
    ),
    "The network receives the middle of the interval for both times; it takes t and r themselves.": (
        lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, (t + r) / 2, (t + r) / 2)
    ),
    "The network receives r - t instead of r.": lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, r - t),
    "The network receives the next time and 0; it must receive t and the next time.": (
        lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, r, 0.0)
    ),
}

_LENGTHS = {
    "Each jump has the length r; it must be the length of the interval.": (
        lambda a, x, t, r, x_T: x - r * _at(a, x, t, r)
    ),
    "Each jump has the length 1 - t; it must be the length of the interval.": (
        lambda a, x, t, r, x_T: x - (1 - t) * _at(a, x, t, r)
    ),
    "Each jump has the length 1 - r, from the noise on; it must be the length of the interval.": (
        lambda a, x, t, r, x_T: x - (1 - r) * _at(a, x, t, r)
    ),
    "The length of the jump is multiplied by 1000; here times are in [0, 1].": (
        lambda a, x, t, r, x_T: x - 1000 * (t - r) * _at(a, x, t, r)
    ),
}

_AS_IMAGES = {
    "The image at 0 is predicted, and mixed with the noise again: that is sampling of a consistency "
    "model. A jump "
    "goes straight to the next time.": lambda a, x, t, r, x_T: (
        (1 - r) * (x - t * _at(a, x, t, 0.0)) + r * x_T
    ),
    "The average down to the next time is followed to 0, and the noise is mixed in again; a jump goes "
    "straight to "
    "the next time.": lambda a, x, t, r, x_T: (1 - r) * (x - t * _at(a, x, t, r)) + r * x_T,
    "The average velocity is taken as an image, and mixed with x; a jump subtracts it, times the length.": (
        lambda a, x, t, r, x_T: x * (r / t) + (1 - r / t) * _at(a, x, t, r)
    ),
}

_FROM_THE_FIRST = {
    "The network always receives the first time as t; it must receive the time where the jump starts.": (
        lambda a, x, t, r, x_T, first: x - (t - r) * _at(a, x, first, r)
    ),
    "Each jump has the length from the first time on; it must be the length of the interval.": (
        lambda a, x, t, r, x_T, first: x - (first - r) * _at(a, x, t, r)
    ),
    "Each jump counts from the first time, though it starts where the last one ended.": (
        lambda a, x, t, r, x_T, first: x - (first - r) * _at(a, x, first, r)
    ),
    "Each jump starts at the noise, with the average of its own interval; it must start where the last "
    "one ended.": (lambda a, x, t, r, x_T, first: x_T - (first - r) * _at(a, x, t, r)),
}

_OTHER_TIMES_OF_JUMPS = {
    "A jump from the last of the times back to the first is made before all others: index -1 is the last.": (
        lambda times: [times[-1], *times]
    ),
    "One more jump is made, from the last of the times to 0.": lambda times: [*times, 0.0],
    "One more jump is made, from 1 to the first of the times.": lambda times: [1.0, *times],
    "The times are even, from 1 to 0; the times given must be used.": lambda times: _even(
        1.0, 0.0, len(times)
    ),
    "The times are even, from the first to the last; the times between must be used as well.": lambda times: (
        _even(times[0], times[-1], len(times))
    ),
}

_FEW_JUMPS = Exercise(
    "few_jumps",
    _jumps_loops,
    _jump_cases,
    {
        "The velocity is added; towards the data it must be subtracted.": _jumps(
            lambda a, x, t, r, x_T: x + (t - r) * _at(a, x, t, r)
        ),
        "The network receives t for both times: this is Euler's method with the velocity at t.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, t)
        ),
        "The network receives r for both times.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, r, r)
        ),
        "The two times are exchanged in the call of the network.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, r, t)
        ),
        "The network is always asked for the average down to 0; it must be down to the next time.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, 0.0)
        ),
        "The network is always asked for the average down to the last time; it must be down to the next.": (
            lambda a, x_T, times: _jumps(
                lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, float(times[-1]))
            )(a, x_T, times)
        ),
        "Each jump goes all the way to 0; it must stop at the next time.": _jumps(
            lambda a, x, t, r, x_T: x - t * _at(a, x, t, 0.0)
        ),
        "The network receives the length of the interval instead of r.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x, t, t - r)
        ),
        "Each jump has the length t; it must be the length of the interval.": _jumps(
            lambda a, x, t, r, x_T: x - t * _at(a, x, t, r)
        ),
        "The average velocity is not multiplied by the length of the interval.": _jumps(
            lambda a, x, t, r, x_T: x - _at(a, x, t, r)
        ),
        "The average velocity is divided by the length of the interval.": _jumps(
            lambda a, x, t, r, x_T: x - _at(a, x, t, r) / (t - r)
        ),
        "All jumps have the same length; the times say how long each is.": lambda a, x_T, times: _jumps(
            lambda a, x, t, r, x_T: x - float(times[0] - times[-1]) / (len(times) - 1) * _at(a, x, t, r)
        )(a, x_T, times),
        "All jumps have the length 1 / K, as if from 1 to 0; the times say how long each is.": (
            lambda a, x_T, times: _jumps(lambda a, x, t, r, x_T: x - _at(a, x, t, r) / (len(times) - 1))(
                a, x_T, times
            )
        ),
        "Only the first jump is made: does the return stand in the loop?": _jumps(
            pairs=lambda values: [(values[0], values[1])]
        ),
        **{message: _jumps(step) for message, step in (_CALLS | _LENGTHS | _AS_IMAGES).items()},
        **{message: _from_the_first(step) for message, step in _FROM_THE_FIRST.items()},
        **{message: _with_times(times) for message, times in _OTHER_TIMES_OF_JUMPS.items()},
        "Every jump starts at the noise; it must start where the last one ended.": _jumps(
            lambda a, x, t, r, x_T: x_T - (t - r) * _at(a, x_T, t, r)
        ),
        "The network always receives the noise; it must receive where the last jump ended.": _jumps(
            lambda a, x, t, r, x_T: x - (t - r) * _at(a, x_T, t, r)
        ),
        "The network is called once, and its first answer is used for all jumps.": _stale,
        "One jump from the first time to the last is made; the times between are ignored.": _jumps(
            pairs=lambda values: [(values[0], values[-1])]
        ),
        "The last jump is missing.": _jumps(pairs=lambda values: list(zip(values, values[1:]))[:-1]),
        "The first jump is missing.": _jumps(pairs=lambda values: list(zip(values, values[1:]))[1:]),
        "The loop begins at index 0, before which stands the last of the times, at index -1; and t and r are exchanged.": (
            _jumps(pairs=lambda values: [(values[i], values[i - 1]) for i in range(len(values))])
        ),
        "The jumps are made in reverse order: they must begin at the noise.": _jumps(
            pairs=lambda values: list(zip(values, values[1:]))[::-1]
        ),
        "The times are read as rising; they fall.": _jumps(
            pairs=lambda values: list(zip(values[::-1], values[::-1][1:]))
        ),
    },
    "lesson 35, 'Sampling in jumps'.",
)


def check_few_jumps(fn: Callable, **grade_options) -> Report:
    """Check fn(average, x_T, times) -> images at the last time."""
    return grade(_FEW_JUMPS, fn, **grade_options)
