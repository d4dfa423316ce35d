"""Answers to the exercises of lesson 30: a training pair of flow matching, and a step with a SiT."""

import math

import torch
from einops import rearrange

from . import right, wrong


def per_image(t):
    return t[:, None, None, None]


# ---- flow_pair


@right("flow_pair")
def flow_pair_logit(x0, noise, logit, shift):
    t = torch.sigmoid(logit + math.log(shift))
    x_t = torch.lerp(x0, noise, per_image(t).expand_as(x0))
    return x_t, noise - x0, 1000 * t


@right("flow_pair")
def flow_pair_formula(x0, noise, logit, shift):
    u = 1 / (1 + torch.exp(-logit))
    t = shift * u / (1 + (shift - 1) * u)
    v = -(x0 - noise)
    return x0 + rearrange(t, "n -> n 1 1 1") * v, v, t * 1e3


def write_pair(name, words, t=None, weights=None, target=None, time=None):
    """Register a wrong answer that differs from a right one in a few lines."""

    def answer(x0, noise, logit, shift):
        at = (logit + math.log(shift)).sigmoid() if t is None else t(logit, shift)
        w = per_image(at)
        of_x0, of_noise = (1 - w, w) if weights is None else weights(w)
        x_t = of_x0 * x0 + of_noise * noise
        v = noise - x0 if target is None else target(x0, noise, x_t)
        return x_t, v, 1000 * at if time is None else time(at, logit)

    answer.__name__ = f"flow_pair_{name}"
    wrong("flow_pair", words)(answer)


write_pair("exchanged", "exchanged in the mixture", weights=lambda w: (w, 1 - w))
write_pair("sit", "as SiT does", weights=lambda w: (w, 1 - w), target=lambda x0, noise, x_t: x0.sub(noise))
write_pair("sign", "wrong sign", target=lambda x0, noise, x_t: -(noise - x0))
write_pair("noise", "The target is the noise", target=lambda x0, noise, x_t: noise * 1.0)
write_pair("image", "The target is the clean image", target=lambda x0, noise, x_t: x0 * 1.0)
write_pair("to_noise", "from the mixture to the noise", target=lambda x0, noise, x_t: -x_t + noise)
write_pair("from_image", "from the image to the mixture", target=lambda x0, noise, x_t: x_t.sub(x0))
write_pair("circle", "on a circle", weights=lambda w: (torch.sqrt(1 - w * w), w))
write_pair("roots", "square roots", weights=lambda w: (torch.sqrt(1 - w), torch.sqrt(w)))
write_pair("added", "added to the full image", weights=lambda w: (torch.ones_like(w), w))
write_pair("plus_shift", "The shift itself is added", t=lambda logit, shift: (shift + logit).sigmoid())
write_pair("times_shift", "The logit is multiplied", t=lambda logit, shift: (shift * logit).sigmoid())
write_pair("no_shift", "The shift is missing", t=lambda logit, shift: logit.sigmoid())
write_pair("wrong_side", "wrong side", t=lambda logit, shift: (logit + math.log(1 / shift)).sigmoid())
write_pair("twice", "applied twice", t=lambda logit, shift: (logit + math.log(shift**2)).sigmoid())
write_pair("time_shifted", "time itself is multiplied", t=lambda logit, shift: logit.sigmoid() * shift)
write_pair("base_ten", "base 10", t=lambda logit, shift: (logit + math.log(shift, 10)).sigmoid())
write_pair("unscaled", "receives the time in [0, 1]", time=lambda t, logit: t * 1.0)
write_pair("flipped", "counted from the noise", time=lambda t, logit: 1000 - 1000 * t)
write_pair("old_time", "before the shift", time=lambda t, logit: torch.sigmoid(logit) * 1000)
write_pair("logit", "receives the logit", time=lambda t, logit: logit * 1.0)
write_pair("rounded", "rounded to a timestep", time=lambda t, logit: torch.round(t * 1000))
write_pair("scale_999", "multiplied by 999", time=lambda t, logit: t * 999)


@wrong("flow_pair", "columns of each image")
def flow_pair_columns(x0, noise, logit, shift):
    t = torch.sigmoid(logit + math.log(shift))
    return x0 + t * (noise - x0), noise - x0, 1000 * t


@wrong("flow_pair", "first image's time")
def flow_pair_first(x0, noise, logit, shift):
    t = torch.sigmoid(logit + math.log(shift))
    return x0 + t[0] * (noise - x0), noise - x0, 1000 * t


@wrong("flow_pair", "The velocity is that of diffusion")
def flow_pair_diffusion_velocity(x0, noise, logit, shift):
    t = torch.sigmoid(logit + math.log(shift))
    w = per_image(t)
    return (1 - w) * x0 + w * noise, (1 - w) * noise - w * x0, 1000 * t


write_pair("whole_noise", "The noise is added in full", weights=lambda w: (1 - w, torch.ones_like(w)))
write_pair("sum", "the sum of noise and image", target=lambda x0, noise, x_t: x0 + noise)
write_pair(
    "flipped_time", "have the time 1 - t", t=lambda logit, shift: 1 - (logit + math.log(shift)).sigmoid()
)
write_pair(
    "all_sit",
    "the network's time as well",
    weights=lambda w: (w, 1 - w),
    target=lambda x0, noise, x_t: x0 - noise,
    time=lambda t, logit: 1000 - 1000 * t,
)
write_pair(
    "minus_logit", "The logit has the wrong sign", t=lambda logit, shift: (math.log(shift) - logit).sigmoid()
)
write_pair(
    "log_of_time", "is added to the time", t=lambda logit, shift: torch.sigmoid(logit) + math.log(shift)
)
write_pair("over_shift", "The logit is divided", t=lambda logit, shift: torch.sigmoid(logit / shift))
write_pair("base_two", "base 2", t=lambda logit, shift: torch.sigmoid(logit + math.log(shift, 2)))
write_pair("cut_off", "cut off at 1", t=lambda logit, shift: torch.clamp(shift * logit.sigmoid(), max=1))
write_pair(
    "divisor",
    "has a wrong divisor",
    t=lambda logit, shift: shift * logit.sigmoid() / (1 + shift * logit.sigmoid()),
)
write_pair("bare_logit", "The logit is used as the time", t=lambda logit, shift: logit + math.log(shift))
write_pair("floor", "rounded down", time=lambda t, logit: torch.floor(t * 1000))


def write_path(name, words, weights):
    """Register the pair of diffusion with these weights, (t) -> signal and noise."""

    @wrong("flow_pair", words)
    def answer(x0, noise, logit, shift):
        t = torch.sigmoid(logit + math.log(shift))
        a, b = weights(per_image(t))
        return a * x0 + b * noise, a * noise - b * x0, 1000 * t

    answer.__name__ = f"flow_pair_{name}"


write_path("all_circle", "with weights on a circle", lambda t: ((1 - t * t) ** 0.5, t))
write_path("all_roots", "with roots as weights", lambda t: ((1 - t) ** 0.5, t**0.5))
write_path(
    "all_cosine", "cosine and sine", lambda t: (torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2))
)


@wrong("flow_pair", "The mixture has the time before the shift")
def flow_pair_shift_for_network(x0, noise, logit, shift):
    t = torch.sigmoid(logit)
    shifted = shift * t / (1 + (shift - 1) * t)
    return torch.lerp(x0, noise, per_image(t).expand_as(x0)), noise - x0, 1000 * shifted


# ---- sit_step


@right("sit_step")
def sit_step_signs(sit, x, t, t_next):
    v = -sit(x, 1 - t)[:, : x.shape[1]]
    return x + per_image(t_next - t) * v


@right("sit_step")
def sit_step_mixture(sit, x, t, t_next):
    to_data, _ = sit(x, 1.0 - t).chunk(2, dim=1)
    a, b = per_image(t), per_image(t_next)
    clean, noise = x + a * to_data, x - (1 - a) * to_data
    return (1 - b) * clean + b * noise


def write_step(name, words, time=None, length=None, part=None):
    """Register a wrong answer that differs from a right one in a few words."""

    def answer(sit, x, t, t_next):
        output = sit(x, 1 - t if time is None else time(t, t_next))
        v = output.chunk(2, 1)[0] if part is None else part(output, x.shape[1])
        return x + per_image(t - t_next if length is None else length(t, t_next)) * v

    answer.__name__ = f"sit_step_{name}"
    wrong("sit_step", words)(answer)


write_step("our_time", "receives our time", time=lambda t, t_next: t * 1.0)
write_step("away", "away from the data", length=lambda t, t_next: -t + t_next)
write_step(
    "as_it_is", "Nothing is converted", time=lambda t, t_next: t * 1.0, length=lambda t, t_next: -t + t_next
)
write_step("scaled", "SiT's time is multiplied by 1000", time=lambda t, t_next: 1000 - 1000 * t)
write_step("our_scaled", "1000 times our time", time=lambda t, t_next: t * 1000)
write_step("negative", "The sign of the time", time=lambda t, t_next: 0 - t)
write_step("end", "that of the end", time=lambda t, t_next: 1.0 - t_next)
write_step("middle", "that of the middle", time=lambda t, t_next: 1 - t / 2 - t_next / 2)
write_step("second_half", "second half", part=lambda output, c: output.chunk(2, 1)[1])
write_step("averaged", "averaged", part=lambda output, c: sum(output.chunk(2, 1)) / 2)
write_step(
    "every_second", "Every second channel", part=lambda output, c: output.unflatten(1, (c, 2))[:, :, 0]
)
write_step("full", "added in full", length=lambda t, t_next: t * 0 + 1)
write_step("all_the_way", "all the way", length=lambda t, t_next: t * 1.0)
write_step("times_t_next", "multiplied by t_next", length=lambda t, t_next: t_next * 1.0)
write_step("their_end", "SiT's time at the end", length=lambda t, t_next: 1.0 - t_next)


@wrong("sit_step", "the change alone")
def sit_step_change(sit, x, t, t_next):
    return per_image(t - t_next) * sit(x, 1 - t)[:, : x.shape[1]]


@wrong("sit_step", "noise is missing")
def sit_step_no_noise(sit, x, t, t_next):
    clean = x + per_image(t) * sit(x, 1 - t).chunk(2, 1)[0]
    return clean * per_image(1 - t_next)


@wrong("sit_step", "columns of each image")
def sit_step_columns(sit, x, t, t_next):
    return x + (t - t_next) * sit(x, 1 - t)[:, : x.shape[1]]


@wrong("sit_step", "first image's step length")
def sit_step_first_length(sit, x, t, t_next):
    return x + (t - t_next)[:1] * sit(x, 1 - t).chunk(2, 1)[0]


@wrong("sit_step", "first image's time for the whole batch")
def sit_step_first_time(sit, x, t, t_next):
    return x + per_image(t - t_next) * sit(x, torch.full_like(t, float(1 - t[0]))).chunk(2, 1)[0]


write_step(
    "scaled_away",
    "and the step goes away from the data",
    time=lambda t, t_next: 1000 * (1 - t),
    length=lambda t, t_next: t_next - t,
)
write_step(
    "all_ours",
    "and the time is multiplied by 1000",
    time=lambda t, t_next: 1000 * t,
    length=lambda t, t_next: t_next - t,
)
write_step("below_zero", "a negative time", time=lambda t, t_next: t - 1)
write_step("our_end", "our time of the end", time=lambda t, t_next: t_next * 1.0)
write_step("time_length", "SiT receives the length", time=lambda t, t_next: t - t_next)
write_step("mean_time", "All images have the mean time", time=lambda t, t_next: 1 - t * 0 - t.mean())
write_step("their_start", "SiT's time at the start", length=lambda t, t_next: 1.0 - t)
write_step(
    "length_scaled",
    "The length of the step is multiplied by 1000",
    length=lambda t, t_next: (t - t_next) * 1e3,
)
write_step("relative", "is relative", length=lambda t, t_next: 1 - t_next / t)
write_step(
    "mean_length", "All steps have the mean length", length=lambda t, t_next: 0 * t + (t - t_next).mean()
)
write_step("odd", "beginning with the second", part=lambda output, c: output.unflatten(1, (c, 2))[:, :, 1])
write_step(
    "difference", "is subtracted from the velocity", part=lambda output, c: output[:, :c] - output[:, c:]
)


def write_remix(name, words, mix):
    """Register a wrong answer that returns something of x, SiT's velocity, t and t_next."""

    @wrong("sit_step", words)
    def answer(sit, x, t, t_next):
        return mix(x, sit(x, 1 - t).chunk(2, 1)[0], per_image(t), per_image(t_next))

    answer.__name__ = f"sit_step_{name}"


write_remix("velocity", "This is SiT's velocity", lambda x, v, t, s: v)
write_remix("noise", "This is the predicted noise", lambda x, v, t, s: x + (t - 1) * v)
write_remix("image_and_x", "is mixed with x", lambda x, v, t, s: torch.lerp(x + t * v, x, s.expand_as(x)))
write_remix(
    "wrong_side", "on the wrong side of x", lambda x, v, t, s: (1 - s) * (x + t * v) + s * (x + (1 - t) * v)
)
write_remix("velocity_as_noise", "taken as the noise", lambda x, v, t, s: (1 - s) * (x + t * v) + s * v)
write_remix(
    "weights", "each other's weight", lambda x, v, t, s: s * (x + t * v) + (1 - s) * (x - (1 - t) * v)
)


@wrong("sit_step", "that is Heun's step")
def sit_step_heun(sit, x, t, t_next):
    step, v = per_image(t - t_next), sit(x, 1 - t).chunk(2, 1)[0]
    return x + step / 2 * (v + sit(x + step * v, 1 - t_next).chunk(2, 1)[0])


@wrong("sit_step", "that is the midpoint step")
def sit_step_midpoint(sit, x, t, t_next):
    step, v = per_image(t - t_next), sit(x, 1 - t).chunk(2, 1)[0]
    return x + step * sit(x + step / 2 * v, 1 - (t + t_next) / 2).chunk(2, 1)[0]
