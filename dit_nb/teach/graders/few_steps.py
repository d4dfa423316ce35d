"""Graders of lesson 17: timesteps that are even in log SNR, and a solver's step of second order."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.schedule import cosine_betas
from dit_nb.teach.graders.framework.batches import _linear_alphas_cumprod
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_even_log_snr", "check_second_order_step"]


def _timesteps_loops(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Search the nearest timestep for one value after the other."""
    values = [math.log(bar) - math.log1p(-bar) for bar in alphas_cumprod.tolist()]
    kept = []
    for i in range(steps):
        wanted = values[0] + (values[-1] - values[0]) * i / (steps - 1)
        kept.append(min(range(len(values)), key=lambda t: abs(values[t] - wanted)))  # noqa: B023
    return torch.tensor(kept)


def _schedule_cases(rng: RandomInputs) -> list[Case]:
    """Linear, cosine and random schedules; few enough steps that no timestep is nearest to two values."""
    cosine = torch.cumprod(1 - cosine_betas(400), 0)[:360]
    random = torch.cumprod(1 - rng.uniform(0.01, 0.05, 300), 0)
    schedules = {"linear": (_linear_alphas_cumprod(), 12), "cosine": (cosine, 9), "random betas": (random, 7)}
    cases = [Case(f"{name}, {n} steps", (table, n)) for name, (table, n) in schedules.items()]
    return [*cases, Case("linear, 2 steps", (_linear_alphas_cumprod(200 + int(rng.integers(0, 50))), 2))]


def _log_snr(bar: Tensor) -> Tensor:
    return (bar / (1 - bar)).log()


def _choose(
    measure: Callable = _log_snr, find: Callable | None = None, ends: Callable | None = None
) -> Callable:
    """The choice with another quantity, another search, or other values."""

    def choose(alphas_cumprod, steps):
        values = measure(alphas_cumprod)
        spread = torch.linspace if ends is None else ends
        wanted = spread(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
        if find is not None:
            return find(values, wanted)
        return (values - wanted[:, None]).abs().argmin(1)

    return choose


_EVEN_LOG_SNR = Exercise(
    "even_log_snr",
    _timesteps_loops,
    _schedule_cases,
    {
        "The timesteps are even in t; they should be even in log SNR.": (
            lambda bar, steps: torch.linspace(0, len(bar) - 1, steps).round().long(),
            "what must have equal distances.",
        ),
        "The timesteps are even in t, and rounded down; they should be even in log SNR.": (
            lambda bar, steps: torch.linspace(0, len(bar) - 1, steps, dtype=torch.float64).long(),
            "what must have equal distances.",
        ),
        "The timesteps are even in SNR; the logarithm is missing.": _choose(lambda bar: bar / (1 - bar)),
        "The timesteps are even in the share of signal; it must be the log of signal over noise.": _choose(
            lambda bar: bar
        ),
        "The timesteps are even in the logarithm of the share of signal; the noise is missing.": _choose(
            torch.log
        ),
        "The timesteps are even in the share of noise; it must be the log of signal over noise.": _choose(
            lambda bar: (1 - bar).sqrt()
        ),
        "The timesteps are even in the logarithm of the noise; the signal is missing.": _choose(
            lambda bar: (1 - bar).log()
        ),
        "The timesteps are even in sigma, the noise over the signal; its logarithm is missing.": _choose(
            lambda bar: (1 / bar - 1).sqrt()
        ),
        "The timesteps are even in the logarithm of t; what counts is the log SNR.": lambda bar, steps: (
            torch.logspace(0, math.log10(len(bar)), steps, dtype=torch.float64).round().long() - 1
        ),
        "The timesteps are in falling order; they should rise.": (
            lambda bar, steps: _choose()(bar, steps).flip(0),
            "the order in which a schedule keeps its timesteps.",
        ),
        "The last timestep, T - 1, is missing: the values stop one distance before the end.": lambda bar, steps: (
            _choose()(bar, steps + 1)[:-1]
        ),
        "The first timestep, 0, is missing: the values begin one distance after the start.": lambda bar, steps: (
            _choose()(bar, steps + 1)[1:]
        ),
        "Both ends are missing: 0 and T - 1 are among the timesteps.": lambda bar, steps: _choose()(
            bar, steps + 2
        )[1:-1],
        "The timesteps are even in the signal's scale; it must be the log of signal over noise.": _choose(
            torch.sqrt
        ),
        "There is one timestep too many: this many steps have as many timesteps, not one more.": lambda bar, steps: (
            _choose()(bar, steps + 1)
        ),
        "The next timestep beyond each value is taken, not the nearest.": _choose(
            find=lambda values, wanted: torch.searchsorted(-values, -wanted).clamp(max=len(values) - 1)
        ),
        "The last timestep before each value is taken, not the nearest.": _choose(
            find=lambda values, wanted: torch.searchsorted(-values, -wanted, right=True) - 1
        ),
        "These are the values of log SNR; return the timesteps that are nearest to them.": (
            lambda bar, steps: torch.linspace(*_log_snr(bar)[[0, -1]].tolist(), steps, dtype=torch.float64),
            "what is returned.",
        ),
        "These are the log SNRs of the chosen timesteps; return the timesteps.": (
            lambda bar, steps: _log_snr(bar)[_choose()(bar, steps)],
            "what is returned.",
        ),
        "These are the shares of signal at the chosen timesteps; return the timesteps.": (
            lambda bar, steps: bar[_choose()(bar, steps)],
            "what is returned.",
        ),
        "The last timestep is chosen each time: the smallest difference is the most negative one, and nearest means the "
        "smallest in size.": (
            _choose(find=lambda values, wanted: (values - wanted[:, None]).argmin(1)),
            "the sign of a difference.",
        ),
        "The first timestep is chosen each time: the smallest difference is the most negative one, and nearest means the "
        "smallest in size.": (
            _choose(find=lambda values, wanted: (wanted[:, None] - values).argmin(1)),
            "the sign of a difference.",
        ),
        "The farthest timestep is chosen for each value, not the nearest.": _choose(
            find=lambda values, wanted: (values - wanted[:, None]).abs().argmax(1)
        ),
        "The timesteps are counted from 1; here they are counted from 0.": lambda bar, steps: (
            _choose()(bar, steps) + 1
        ),
        "The timesteps are even in noise over signal; its logarithm is missing.": _choose(
            lambda bar: (1 - bar) / bar
        ),
        "The timesteps are even in the root of SNR; its logarithm is what counts.": _choose(
            lambda bar: (bar / (1 - bar)).sqrt()
        ),
        "The timesteps are even in the angle between signal and noise; it must be the log of their ratio.": _choose(
            lambda bar: bar.sqrt().acos()
        ),
        "The root is taken of the signal alone; SNR is a ratio of two variances.": _choose(
            lambda bar: (bar.sqrt() / (1 - bar)).log()
        ),
        "The root is taken of the noise alone; SNR is a ratio of two variances.": _choose(
            lambda bar: (bar / (1 - bar).sqrt()).log()
        ),
        "The timesteps are counted from the noisy end.": lambda bar, steps: (
            len(bar) - 1 - _choose()(bar, steps).flip(0)
        ),
    },
    "lesson 17, 'The time that matters'.",
)


def check_even_log_snr(fn: Callable, **grade_options) -> Report:
    """Check fn(alphas_cumprod (T,), steps) -> (steps,) long, rising timesteps."""
    return grade(_EVEN_LOG_SNR, fn, **grade_options)


def _second_order_loops(
    x: Tensor, x0: Tensor, last_x0: Tensor, before: Tensor, now: Tensor, after: Tensor
) -> Tensor:
    """Number by number, in units of the noise."""
    ratios = [math.sqrt(float(bar) / (1 - float(bar))) for bar in (before, now, after)]  # signal over noise
    noise, noise_after = math.sqrt(1 - float(now)), math.sqrt(1 - float(after))
    ahead = math.log(ratios[2] / ratios[1]) / 2 / math.log(ratios[1] / ratios[0])
    numbers = zip(x.flatten().tolist(), x0.flatten().tolist(), last_x0.flatten().tolist())
    found = [
        noise_after * (value / noise + (ratios[2] - ratios[1]) * (new + ahead * (new - old)))
        for value, new, old in numbers
    ]
    return x.new_tensor(found).reshape(x.shape)


def _second_order_cases(rng: RandomInputs) -> list[Case]:
    """Levels as one-element tensors; the second step is shorter, longer, and much longer than the first."""
    levels = [(0.02, 0.2, 0.4), (0.3, 0.5, 0.97), (0.001, 0.01, 0.9), (0.6, 0.9, 0.95)]
    shapes, cases = [(2, 1, 3, 4), (3, 2, 2, 3), (1, 1, 2, 2), (2, 3, 4, 2)], []
    for shape, bars in zip(shapes, levels):
        bars = [float(bar) * rng.uniform(0.99, 1).item() for bar in bars]
        images = [rng.normal(*shape) for _ in range(3)]
        label = "levels {:.3g}, {:.3g}, {:.3g}".format(*bars)
        cases.append(Case(label, (*images, *(torch.tensor(bar, dtype=torch.float64) for bar in bars))))
    return cases


def _half_step(before: Tensor, now: Tensor, after: Tensor, clock: Callable = _log_snr) -> Tensor:
    """Half of the step, in units of the step before."""
    return (clock(after) - clock(now)) / (2 * (clock(now) - clock(before)))


def _integrate(x: Tensor, x0: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """A step of first order."""
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * x0


def _second_order(ahead: Callable = _half_step, step: Callable = _integrate) -> Callable:
    """The step with another extrapolation, or another integral."""

    def solve(x, x0, last_x0, before, now, after):
        return step(x, x0 + ahead(before, now, after) * (x0 - last_x0), now, after)

    return solve


def _mixed(x, x0, last_x0, before, now, after):
    middle = x0 + _half_step(before, now, after) * (x0 - last_x0)
    return after.sqrt() * middle + (1 - after).sqrt() * (x - now.sqrt() * x0) / (1 - now).sqrt()


def _exp_of_log_snr(x, x0, now, after):
    return ((1 - after) / (1 - now)).sqrt() * x + after.sqrt() * (
        1 - (_log_snr(now) - _log_snr(after)).exp()
    ) * x0


_SECOND_ORDER_STEP = Exercise(
    "second_order_step",
    _second_order_loops,
    _second_order_cases,
    {
        "The prediction of the step before is not used: this is DDIM, of first order.": _second_order(
            lambda *levels: 0.0
        ),
        "The predicted image is extrapolated to the end of the step; the value in its middle stands for it.": _second_order(
            lambda *levels: 2 * _half_step(*levels)
        ),
        "The predicted image is extrapolated a quarter of the step ahead; it should be half of it.": _second_order(
            lambda *levels: _half_step(*levels) / 2
        ),
        "The predicted image is extrapolated backwards: the change since the step before must continue.": _second_order(
            lambda *levels: -_half_step(*levels)
        ),
        "The mean of both predictions is used; it lies behind, not ahead.": _second_order(
            lambda *levels: -0.5
        ),
        "The prediction of the step before is used alone.": _second_order(lambda *levels: -1.0),
        "Both steps are treated as equally long in log SNR; use their lengths.": _second_order(
            lambda *levels: 0.5
        ),
        "The ratio of the two step lengths is upside down.": (
            _second_order(lambda *levels: 1 / (4 * _half_step(*levels))),
            "which of the two steps is divided by which.",
        ),
        "The steps are measured in the share of signal; measure them in log SNR.": _second_order(
            lambda *levels: _half_step(*levels, clock=lambda bar: bar)
        ),
        "The steps are measured in SNR; measure them in its logarithm.": _second_order(
            lambda *levels: _half_step(*levels, clock=lambda bar: bar / (1 - bar))
        ),
        "The steps are measured in signal over noise; measure them in its logarithm.": _second_order(
            lambda *levels: _half_step(*levels, clock=lambda bar: (bar / (1 - bar)).sqrt())
        ),
        "The steps are measured in the logarithm of the signal; the noise is missing.": _second_order(
            lambda *levels: _half_step(*levels, clock=torch.log)
        ),
        "The two predictions are exchanged: x0 belongs to this step, last_x0 to the one before.": (
            lambda x, x0, last, *levels: _second_order()(x, last, x0, *levels),
            "which prediction is the newer one.",
        ),
        "The noise is that of the prediction before it was extrapolated: both must belong to one clean image.": _mixed,
        "The exponent is the change of log SNR; lambda is half of log SNR.": _second_order(
            step=_exp_of_log_snr
        ),
        "A square root is missing: signal and noise are the roots of their shares.": _second_order(
            step=lambda x, x0, now, after: (
                (1 - after) / (1 - now) * x + (after - (1 - after) / (1 - now) * now) * x0
            )
        ),
        "The noise does not shrink: x must be scaled to the noise of the new level.": _second_order(
            step=lambda x, x0, now, after: x + (after.sqrt() - now.sqrt()) * x0
        ),
        "The noise in x shrinks, and the signal in it with it; the factor of the clean image counts that signal in full.": (
            _second_order(
                step=lambda x, x0, now, after: (
                    ((1 - after) / (1 - now)).sqrt() * x + (after.sqrt() - now.sqrt()) * x0
                )
            )
        ),
        "The factor of the clean image is right, but x keeps its noise: scale it to the noise of the new level.": (
            _second_order(step=lambda x, x0, now, after: x + _integrate(0 * x, x0, now, after))
        ),
        "The result is x / b, in units of the noise: multiply by the noise of the new level.": _second_order(
            step=lambda x, x0, now, after: _integrate(x, x0, now, after) / (1 - after).sqrt()
        ),
        "The result is scaled by the noise of the old level; use that of the new one.": _second_order(
            step=lambda x, x0, now, after: _integrate(x, x0, now, after) * ((1 - now) / (1 - after)).sqrt()
        ),
        "A sign is lost: both predictions are added, where the older one must be subtracted.": (
            lambda x, x0, last, *levels: _integrate(x, x0 + _half_step(*levels) * (x0 + last), *levels[1:]),
            "the line through the two predictions.",
        ),
        "The sign of the second part is wrong: the predicted image is taken away.": _second_order(
            step=lambda x, x0, now, after: (
                2 * ((1 - after) / (1 - now)).sqrt() * x - _integrate(x, x0, now, after)
            )
        ),
        "The noise of the two levels is divided the wrong way around: it must become less.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - now) / (1 - after)).sqrt() * x
                + (after.sqrt() - ((1 - after) / (1 - now)).sqrt() * now.sqrt()) * x0
            )
        ),
        "The noise of the two levels is divided the wrong way around, in both factors: it must become less.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - now) / (1 - after)).sqrt() * x
                + (after.sqrt() - ((1 - now) / (1 - after) * now).sqrt()) * x0
            )
        ),
        "The predicted image is scaled by the signal of the level that was left; use that of the new one.": _second_order(
            step=lambda x, x0, now, after: (
                _integrate(x, x0, now, after)
                + (now.sqrt() / after.sqrt() - 1)
                * (after.sqrt() - ((1 - after) / (1 - now)).sqrt() * now.sqrt())
                * x0
            )
        ),
        "The line is integrated exactly; here its value in the middle of the step stands for the whole step.": (
            lambda x, x0, last, before, now, after: (
                _integrate(x, x0, now, after)
                + after.sqrt()
                * ((_log_snr(after) - _log_snr(now)) / 2 - 1 + ((_log_snr(now) - _log_snr(after)) / 2).exp())
                * (x0 - last)
                / ((_log_snr(now) - _log_snr(before)) / 2)
            )
        ),
        "The extrapolation starts at the older prediction; it must start at the newer one.": lambda x, x0, last, *levels: (
            _integrate(x, last + _half_step(*levels) * (x0 - last), *levels[1:])
        ),
        "The exponent has the wrong sign: the noise must become less.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - after) / (1 - now)).sqrt() * x
                + after.sqrt() * (((_log_snr(after) - _log_snr(now)) / 2).exp() - 1) * x0
            )
        ),
        "The clean image is added in full: the part of it that is in x already must be taken off.": _second_order(
            step=lambda x, x0, now, after: ((1 - after) / (1 - now)).sqrt() * x + after.sqrt() * x0
        ),
        "This is the extrapolated clean image; the step must go to the level `after` only.": _second_order(
            step=lambda x, x0, now, after: x0
        ),
        "The noisy image is not divided by its noise, though the rest of the step is in units of the noise.": _second_order(
            step=lambda x, x0, now, after: _integrate(0 * x, x0, now, after) + (1 - after).sqrt() * x
        ),
        "The noisy image is multiplied by its noise; in units of the noise it is divided by it.": _second_order(
            step=lambda x, x0, now, after: (
                _integrate(0 * x, x0, now, after) + ((1 - after) * (1 - now)).sqrt() * x
            )
        ),
        "The change of lambda stands where that of its exponential belongs.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - after) / (1 - now)).sqrt() * x
                + (1 - after).sqrt() * (_log_snr(after) - _log_snr(now)) / 2 * x0
            )
        ),
        "The change of the signal stands where that of signal over noise belongs.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - after) / (1 - now)).sqrt() * x + (1 - after).sqrt() * (after.sqrt() - now.sqrt()) * x0
            )
        ),
        "The change of SNR stands where that of its root, signal over noise, belongs.": _second_order(
            step=lambda x, x0, now, after: (
                ((1 - after) / (1 - now)).sqrt() * x
                + (1 - after).sqrt() * (after / (1 - after) - now / (1 - now)) * x0
            )
        ),
        "The step is divided by the length of both steps together; the change belongs to the step before alone.": _second_order(
            lambda before, now, after: 1 - 1 / (1 + 2 * _half_step(before, now, after))
        ),
        "Half of the step is divided by the length of both steps together; the change belongs to the step before alone.": _second_order(
            lambda before, now, after: 0.5 - 0.5 / (1 + 2 * _half_step(before, now, after))
        ),
        "Half of the step is used without the length of the step before: the change must become a slope first.": _second_order(
            lambda before, now, after: (_log_snr(after) - _log_snr(now)) / 2 / 2
        ),
        "The step is used without the length of the step before, and in full: half of it over that length belongs here.": _second_order(
            lambda before, now, after: (_log_snr(after) - _log_snr(now)) / 2
        ),
        "The length of the step before is divided by that of both; it belongs below the line, alone.": _second_order(
            lambda before, now, after: 1 / (1 + 2 * _half_step(before, now, after))
        ),
        "The slope is used for half a unit of lambda, whatever the length of the step.": _second_order(
            lambda before, now, after: 1 / (_log_snr(now) - _log_snr(before))
        ),
        "Both steps are treated as equally long, and the predicted image is extrapolated to the end of the step.": _second_order(
            lambda before, now, after: 1.0
        ),
        "The ratio of the two step lengths is upside down, and the half is missing.": _second_order(
            lambda before, now, after: 1 / (2 * _half_step(before, now, after))
        ),
    },
    "lesson 17, 'A solver of second order'.",
)


def check_second_order_step(fn: Callable, **grade_options) -> Report:
    """Check fn(x, x0, last_x0 (N, C, H, W), before, now, after) -> x at the level `after`."""
    return grade(_SECOND_ORDER_STEP, fn, **grade_options)
