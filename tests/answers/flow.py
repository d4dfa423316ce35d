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
