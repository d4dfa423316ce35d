"""Answers to the exercises of lesson 35: the target of the average velocity, and sampling in a few jumps."""

import torch
from torch.autograd.functional import jvp as double_backward_jvp

from . import right, wrong

# ---- average_target


def along(average, x_t, t, r, dx, dt=1.0, dr=0.0):
    """Derivative of the average velocity in one direction."""
    return torch.func.jvp(average, (x_t, t, r), (dx, torch.full_like(t, dt), torch.full_like(r, dr)))[1]


def column(t):
    """Times (N,) as (N, 1, 1, 1)."""
    return t[:, None, None, None]


@right("average_target")
def average_target_jvp(average, x_t, t, r, velocity):
    _, change = torch.func.jvp(lambda x, t: average(x, t, r), (x_t, t), (velocity, torch.ones_like(t)))
    return velocity + column(r - t) * change


@right("average_target")
def average_target_double_backward(average, x_t, t, r, velocity):
    with torch.inference_mode(False), torch.enable_grad():
        x_t, t, r, v = (a.detach().clone() for a in (x_t, t, r, velocity))
        _, change = double_backward_jvp(lambda x, s: average(x, s, r), (x_t, t), (v, torch.ones_like(t)))
    return velocity - column(t - r) * change.detach()


@wrong("average_target", "is added")
def average_target_plus(average, x_t, t, r, velocity):
    return velocity + column(t - r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "is not multiplied by the length")
def average_target_no_length(average, x_t, t, r, velocity):
    return velocity - along(average, x_t, t, r, velocity)


@wrong("average_target", "multiplied by t;")
def average_target_t(average, x_t, t, r, velocity):
    return velocity - column(t) * along(average, x_t, t, r, velocity)


@wrong("average_target", "multiplied by r;")
def average_target_r(average, x_t, t, r, velocity):
    return velocity - column(r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "half the length")
def average_target_half(average, x_t, t, r, velocity):
    return velocity - 0.5 * column(t - r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "square of the length")
def average_target_square(average, x_t, t, r, velocity):
    return velocity - column(t - r).square() * along(average, x_t, t, r, velocity)


@wrong("average_target", "that of the first")
def average_target_first(average, x_t, t, r, velocity):
    return velocity - (t[0] - r[0]) * along(average, x_t, t, r, velocity)


@wrong("average_target", "mean interval")
def average_target_mean(average, x_t, t, r, velocity):
    return velocity - (t.mean() - r.mean()) * along(average, x_t, t, r, velocity)


@wrong("average_target", "at a fixed time")
def average_target_fixed_time(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, velocity, 0.0)


@wrong("average_target", "at a fixed image")
def average_target_fixed_image(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, torch.zeros_like(velocity))


@wrong("average_target", "Both times move")
def average_target_both_times(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, velocity, 1.0, 1.0)


@wrong("average_target", "the one in r")
def average_target_r_moves(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, velocity, 0.0, 1.0)


@wrong("average_target", "moves backwards")
def average_target_backwards(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, velocity, -1.0)


@wrong("average_target", "against the velocity")
def average_target_against(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, -velocity)


@wrong("average_target", "moves by the average velocity")
def average_target_own_average(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, average(x_t, t, r))


@wrong("average_target", "moves by itself")
def average_target_itself(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(average, x_t, t, r, x_t)


@wrong("average_target", "starts at the predicted average")
def average_target_from_average(average, x_t, t, r, velocity):
    return average(x_t, t, r) - column(t - r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "This is the predicted average velocity")
def average_target_prediction(average, x_t, t, r, velocity):
    return average(x_t, t, r)


@wrong("average_target", "velocity alone")
def average_target_velocity(average, x_t, t, r, velocity):
    return velocity + 0 * x_t


@wrong("average_target", "This is the derivative")
def average_target_derivative(average, x_t, t, r, velocity):
    return along(average, x_t, t, r, velocity)


@wrong("average_target", "exchanged in the call")
def average_target_exchanged(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(lambda x, t, r: average(x, r, t), x_t, t, r, velocity)


@wrong("average_target", "length of the interval instead of r")
def average_target_span(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(lambda x, t, r: average(x, t, t - r), x_t, t, r, velocity)


def moved(words, direction):
    """Register a derivative in another direction, (average, x, t, r, v) -> three tangents."""

    def answer(average, x_t, t, r, velocity):
        _, change = torch.func.jvp(average, (x_t, t, r), direction(average, x_t, t, r, velocity))
        return velocity - column(t - r) * change

    answer.__name__ = f"average_target_{'_'.join(words.split())}"
    wrong("average_target", words)(answer)


def ones(t):
    return torch.ones_like(t)


moved("The time moves by 1000", lambda a, x, t, r, v: (v, 1000 * ones(t), 0 * r))
moved("The time moves by t", lambda a, x, t, r, v: (v, t.clone(), 0 * r))
moved("move by their own values", lambda a, x, t, r, v: (v, t.clone(), r.clone()))
moved("The time moves by the length", lambda a, x, t, r, v: (v, t - r, 0 * r))
moved("r moves backwards", lambda a, x, t, r, v: (v, ones(t), -ones(r)))
moved("moves by 1 everywhere", lambda a, x, t, r, v: (ones(x), ones(t), 0 * r))
moved(
    "times the length of the interval; it must move",
    lambda a, x, t, r, v: (v * column(t - r), ones(t), 0 * r),
)
moved("The image moves by the network's own velocity", lambda a, x, t, r, v: (a(x, t, t), ones(t), 0 * r))


@wrong("average_target", "The target starts at the network's own velocity")
def average_target_from_own(average, x_t, t, r, velocity):
    return average(x_t, t, t) - column(t - r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "the network's own stands for it")
def average_target_all_own(average, x_t, t, r, velocity):
    velocity = average(x_t, t, t)
    return velocity - column(t - r) * along(average, x_t, t, r, velocity)


@wrong("average_target", "the predicted average stands for it")
def average_target_all_average(average, x_t, t, r, velocity):
    u, change = torch.func.jvp(average, (x_t, t, r), (average(x_t, t, r), ones(t), 0 * r))
    return u - column(t - r) * change


@wrong("average_target", "a jvp returns the value first")
def average_target_value(average, x_t, t, r, velocity):
    change, _ = torch.func.jvp(average, (x_t, t, r), (velocity, ones(t), 0 * r))
    return velocity - column(t - r) * change


def quotient(words, step, divide=True):
    """Register a wrong answer with a difference quotient."""

    def answer(average, x_t, t, r, velocity):
        change = average(x_t + step * velocity, t + step, r) - average(x_t, t, r)
        return velocity - column(t - r) * (change / step if divide else change)

    answer.__name__ = f"average_target_{'_'.join(words.split())}"
    wrong("average_target", words)(answer)


quotient("over a step of 1000,", 1000.0)
quotient("over a step of 1,", 1.0)
quotient("over a step of 0.1,", 0.1)
quotient("over a step of 0.01,", 0.01)
quotient("over a step of 0.001,", 1e-3)
quotient("over a step of 0.0001,", 1e-4)
quotient("not divided by the step", 1e-3, divide=False)


@wrong("average_target", "at both ends of the interval")
def average_target_ends(average, x_t, t, r, velocity):
    x_r = x_t - column(t - r) * velocity
    return velocity - average(x_t, t, r) + average(x_r, r, r)


@wrong("average_target", "1000 times its times")
def average_target_timesteps(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(
        lambda x, t, r: average(x, t * 1000, r * 1000), x_t, t, r, velocity
    )


@wrong("average_target", "counted from the noise")
def average_target_flipped(average, x_t, t, r, velocity):
    return velocity - column(t - r) * along(lambda x, t, r: average(x, 1 - t, 1 - r), x_t, t, r, velocity)


# ---- few_jumps


def ask(average, x, t, r):
    """The average velocity for one pair of times."""
    return average(x, t.expand(len(x)), r.expand(len(x)))


@right("few_jumps")
def few_jumps_pairs(average, x_T, times):
    x = x_T
    for t, r in zip(times[:-1], times[1:]):
        x = x + (r - t) * ask(average, x, t, r)
    return x


@right("few_jumps")
def few_jumps_recursive(average, x_T, times):
    if len(times) == 1:
        return x_T
    x = x_T - (times[0] - times[1]) * ask(average, x_T, times[0], times[1])
    return few_jumps_recursive(average, x, times[1:])


def jumping(step):
    """Jumps with another step: (average, x, t, r) -> x."""

    def few_jumps(average, x_T, times):
        x = x_T
        for t, r in zip(times[:-1], times[1:]):
            x = step(average, x, t, r)
        return x

    return few_jumps


SLIPS = {
    "velocity is added": lambda a, x, t, r: x + (t - r) * ask(a, x, t, r),
    "t for both times": lambda a, x, t, r: x - (t - r) * ask(a, x, t, t),
    "r for both times": lambda a, x, t, r: x - (t - r) * ask(a, x, r, r),
    "exchanged in the call": lambda a, x, t, r: x - (t - r) * ask(a, x, r, t),
    "average down to 0": lambda a, x, t, r: x - (t - r) * ask(a, x, t, 0 * r),
    "all the way to 0": lambda a, x, t, r: x - t * ask(a, x, t, 0 * r),
    "length of the interval instead of r": lambda a, x, t, r: x - (t - r) * ask(a, x, t, t - r),
    "has the length t": lambda a, x, t, r: x - t * ask(a, x, t, r),
    "is not multiplied by the length": lambda a, x, t, r: x - ask(a, x, t, r),
    "is divided by the length": lambda a, x, t, r: x - ask(a, x, t, r) / (t - r),
}
for words, step in SLIPS.items():
    slip = jumping(step)
    slip.__name__ = f"few_jumps_{'_'.join(words.split())}"
    wrong("few_jumps", words)(slip)


@wrong("few_jumps", "All jumps have the same length")
def few_jumps_equal(average, x_T, times):
    x, step = x_T, (times[0] - times[-1]) / (len(times) - 1)
    for t, r in zip(times[:-1], times[1:]):
        x = x - step * ask(average, x, t, r)
    return x


@wrong("few_jumps", "Every jump starts at the noise")
def few_jumps_from_noise(average, x_T, times):
    for t, r in zip(times[:-1], times[1:]):
        x = x_T - (t - r) * ask(average, x_T, t, r)
    return x


@wrong("few_jumps", "always receives the noise")
def few_jumps_ask_noise(average, x_T, times):
    x = x_T
    for t, r in zip(times[:-1], times[1:]):
        x = x - (t - r) * ask(average, x_T, t, r)
    return x


@wrong("few_jumps", "called once")
def few_jumps_stale(average, x_T, times):
    x, u = x_T, ask(average, x_T, times[0], times[1])
    for t, r in zip(times[:-1], times[1:]):
        x = x - (t - r) * u
    return x


@wrong("few_jumps", "times between are ignored")
def few_jumps_one(average, x_T, times):
    return x_T - (times[0] - times[-1]) * ask(average, x_T, times[0], times[-1])


@wrong("few_jumps", "last jump is missing")
def few_jumps_no_last(average, x_T, times):
    return few_jumps_pairs(average, x_T, times[:-1])


@wrong("few_jumps", "first jump is missing")
def few_jumps_no_first(average, x_T, times):
    return few_jumps_pairs(average, x_T, times[1:])


@wrong("few_jumps", "reverse order")
def few_jumps_reversed(average, x_T, times):
    x = x_T
    for k in range(len(times) - 1, 0, -1):
        x = x - (times[k - 1] - times[k]) * ask(average, x, times[k - 1], times[k])
    return x


@wrong("few_jumps", "read as rising")
def few_jumps_rising(average, x_T, times):
    return few_jumps_pairs(average, x_T, times.flip(0))


def write_jumps(words, step=None, times=None):
    """Register jumps with another step, (average, x, t, r, x_T, times) -> x, or other times."""

    def few_jumps(average, x_T, given):
        x, used = x_T, given if times is None else times(given)
        for t, r in zip(used[:-1], used[1:]):
            x = x - (t - r) * ask(average, x, t, r) if step is None else step(average, x, t, r, x_T, given)
        return x

    few_jumps.__name__ = f"few_jumps_{'_'.join(words.split())}"
    wrong("few_jumps", words)(few_jumps)


write_jumps(
    "The network receives times that are counted from the noise",
    lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, 1 - t, 1 - r),
)
write_jumps(
    "All times are counted from the noise",
    lambda a, x, t, r, x_T, times: x + (t - r) * ask(a, x, 1 - t, 1 - r),
)
write_jumps(
    "1000 times its times", lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, 1000 * t, 1000 * r)
)
write_jumps(
    "the middle of the interval",
    lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, (t + r) / 2, (t + r) / 2),
)
write_jumps("receives r - t", lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, t, r - t))
write_jumps("the next time and 0", lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, r, 0 * r))
write_jumps("has the length r", lambda a, x, t, r, x_T, times: x - r * ask(a, x, t, r))
write_jumps("has the length 1 - t", lambda a, x, t, r, x_T, times: x - (1 - t) * ask(a, x, t, r))
write_jumps("has the length 1 - r", lambda a, x, t, r, x_T, times: x - (1 - r) * ask(a, x, t, r))
write_jumps("is multiplied by 1000", lambda a, x, t, r, x_T, times: x - 1000 * (t - r) * ask(a, x, t, r))
write_jumps(
    "of a consistency model",
    lambda a, x, t, r, x_T, times: torch.lerp(x - t * ask(a, x, t, 0 * t), x_T, r.expand_as(x)),
)
write_jumps(
    "is followed to 0",
    lambda a, x, t, r, x_T, times: torch.lerp(x - t * ask(a, x, t, r), x_T, r.expand_as(x)),
)
write_jumps(
    "taken as an image", lambda a, x, t, r, x_T, times: torch.lerp(ask(a, x, t, r), x, (r / t).expand_as(x))
)
write_jumps(
    "always receives the first time", lambda a, x, t, r, x_T, times: x - (t - r) * ask(a, x, times[0], r)
)
write_jumps(
    "has the length from the first time on",
    lambda a, x, t, r, x_T, times: x - (times[0] - r) * ask(a, x, t, r),
)
write_jumps(
    "Each jump counts from the first time",
    lambda a, x, t, r, x_T, times: x - (times[0] - r) * ask(a, x, times[0], r),
)
write_jumps(
    "with the average of its own interval",
    lambda a, x, t, r, x_T, times: x_T - (times[0] - r) * ask(a, x, t, r),
)
write_jumps("the length 1 / K", lambda a, x, t, r, x_T, times: x - ask(a, x, t, r) / (len(times) - 1))
write_jumps("to 0.", times=lambda times: torch.cat([times, times.new_zeros(1)]))
write_jumps("from 1 to the first", times=lambda times: torch.cat([times.new_ones(1), times]))
write_jumps("even, from 1 to 0", times=lambda times: torch.linspace(1, 0, len(times), dtype=times.dtype))
write_jumps(
    "even, from the first to the last",
    times=lambda times: torch.linspace(float(times[0]), float(times[-1]), len(times), dtype=times.dtype),
)


@wrong("few_jumps", "does the return stand in the loop")
def few_jumps_return_in_loop(average, x_T, times):
    x = x_T
    for t, r in zip(times[:-1], times[1:]):
        x = x - (t - r) * ask(average, x, t, r)
        return x
