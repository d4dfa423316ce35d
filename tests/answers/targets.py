"""Answers to the exercises of lesson 32."""

import torch
import torch.nn.functional as F

from . import right, wrong

# ---- three_predictions


def column(t):
    return t[:, None, None, None]


def three(image, noise):
    return image, noise, noise - image


@right("three_predictions")
def predictions_by_branches(prediction, x_t, t, predicts):
    t = column(t)
    if predicts == "noise":
        return three((x_t - t * prediction) / (1 - t), prediction)
    if predicts == "image":
        return three(prediction, (x_t - (1 - t) * prediction) / t)
    return three(x_t - t * prediction, x_t + (1 - t) * prediction)


@right("three_predictions")
def predictions_through_velocity(prediction, x_t, t, predicts):
    t = t.reshape(-1, *[1] * (x_t.ndim - 1))
    v = {
        "noise": lambda: (prediction - x_t) / (1 - t),
        "image": lambda: (x_t - prediction) / t,
        "velocity": lambda: prediction,
    }[predicts]()
    return x_t - t * v, x_t + (1 - t) * v, v


@wrong("three_predictions", "The times t and 1 - t are exchanged")
def predictions_data_time(prediction, x_t, t, predicts):
    return predictions_by_branches(prediction, x_t, 1 - t, predicts)


@wrong("three_predictions", "The velocity has the wrong sign")
def predictions_to_data(prediction, x_t, t, predicts):
    s = -1 if predicts == "velocity" else 1
    image, noise, v = predictions_by_branches(s * prediction, x_t, t, predicts)
    return image, noise, -v


@wrong("three_predictions", "minus the whole image")
def predictions_whole_image(prediction, x_t, t, predicts):
    if predicts == "image":
        return three(prediction, (x_t - prediction) / column(t))
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "The noise is not divided by t")
def predictions_noise_undivided(prediction, x_t, t, predicts):
    if predicts == "image":
        return three(prediction, x_t - (1 - column(t)) * prediction)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "The image is not divided by 1 - t")
def predictions_image_undivided(prediction, x_t, t, predicts):
    if predicts == "noise":
        return three(x_t - column(t) * prediction, prediction)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "minus the whole noise")
def predictions_whole_noise(prediction, x_t, t, predicts):
    if predicts == "noise":
        return three((x_t - prediction) / (1 - column(t)), prediction)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "The two ways along the velocity are exchanged")
def predictions_ways_exchanged(prediction, x_t, t, predicts):
    if predicts == "velocity":
        return three(x_t - (1 - column(t)) * prediction, x_t + column(t) * prediction)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "followed over the whole path")
def predictions_whole_path(prediction, x_t, t, predicts):
    if predicts == "velocity":
        return three(x_t - prediction, x_t + prediction)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "Signal and noise are roots")
def predictions_ddpm(prediction, x_t, t, predicts):
    a, b = (1 - column(t)) ** 0.5, column(t) ** 0.5
    if predicts == "noise":
        return three((x_t - b * prediction) / a, prediction)
    if predicts == "image":
        return three(prediction, (x_t - a * prediction) / b)
    return predictions_by_branches(prediction, x_t, t, predicts)


@wrong("three_predictions", "returned in the wrong order")
def predictions_noise_first(prediction, x_t, t, predicts):
    image, noise, v = predictions_by_branches(prediction, x_t, t, predicts)
    return noise, image, v


@wrong("three_predictions", "the times run along the columns")
def predictions_broadcast(prediction, x_t, t, predicts):
    if predicts == "noise":
        return three((x_t - t * prediction) / (1 - t), prediction)
    if predicts == "image":
        return three(prediction, (x_t - (1 - t) * prediction) / t)
    return three(x_t - t * prediction, x_t + (1 - t) * prediction)


@wrong("three_predictions", "the time of the first one")
def predictions_first_time(prediction, x_t, t, predicts):
    return predictions_by_branches(prediction, x_t, t[0].expand_as(t), predicts)


@wrong("three_predictions", "All images use the mean time")
def predictions_mean_time(prediction, x_t, t, predicts):
    return predictions_by_branches(prediction, x_t, t.mean().expand_as(t), predicts)


@wrong("three_predictions", "always taken as a velocity")
def predictions_always_velocity(prediction, x_t, t, predicts):
    return three(x_t - column(t) * prediction, x_t + (1 - column(t)) * prediction)


@wrong("three_predictions", "always taken as noise")
def predictions_always_noise(prediction, x_t, t, predicts):
    return three((x_t - column(t) * prediction) / (1 - column(t)), prediction)


@wrong("three_predictions", "always taken as an image")
def predictions_always_image(prediction, x_t, t, predicts):
    return three(prediction, (x_t - (1 - column(t)) * prediction) / column(t))


@wrong("three_predictions", "the sum of noise and image")
def predictions_sum(prediction, x_t, t, predicts):
    image, noise, _ = predictions_by_branches(prediction, x_t, t, predicts)
    return image, noise, image + noise


@wrong("three_predictions", "clipped to [-1, 1]")
def predictions_clipped(prediction, x_t, t, predicts):
    image, noise, _ = predictions_by_branches(prediction, x_t, t, predicts)
    return three(torch.clip(image, -1, 1), noise)


def write_predictions(words, noise=None, image=None, velocity=None, result=None, time=None):
    """Register wrong conversions that differ from right ones in a formula."""

    def answer(prediction, x_t, t, predicts):
        t = column(t) if time is None else time(column(t))
        if predicts == "noise":
            x0 = (x_t - t * prediction) / (1 - t) if noise is None else noise(prediction, x_t, t)
            eps = prediction
        elif predicts == "image":
            x0 = prediction
            eps = (x_t - (1 - t) * prediction) / t if image is None else image(prediction, x_t, t)
        elif velocity is not None:
            x0, eps = velocity(prediction, x_t, t)
        else:
            x0, eps = x_t - t * prediction, x_t + (1 - t) * prediction
        v = eps - x0 if result is None else result(x0, eps, t, prediction if predicts == "velocity" else None)
        return x0, eps, v

    answer.__name__ = f"predictions_{'_'.join(words.split())}"
    wrong("three_predictions", words)(answer)


def to_data(x0, eps, t, given):
    return x0 - eps


def weighted_velocity(x0, eps, t, given):
    return (1 - t) * eps - t * x0


def given_or_weighted(x0, eps, t, given):
    return weighted_velocity(x0, eps, t, given) if given is None else given


def diffusion_pair(v, x, t):
    return (1 - t) * x - t * v, (1 - t) * v + t * x


write_predictions(
    "Everything counts from noise to data",
    noise=lambda z, x, t: (x - (1 - t) * z) / t,
    image=lambda z, x, t: (x - t * z) / (1 - t),
    velocity=lambda v, x, t: (x + (1 - t) * v, x - t * v),
    result=to_data,
)
write_predictions(
    "The times are exchanged, and the velocity returned",
    noise=lambda z, x, t: (x - (1 - t) * z) / t,
    image=lambda z, x, t: (x - t * z) / (1 - t),
    velocity=lambda v, x, t: (x - (1 - t) * v, x + t * v),
    result=to_data,
)
write_predictions("The velocity returned is image minus noise", result=to_data)
write_predictions("The velocity is that of diffusion, which weights", result=weighted_velocity)
write_predictions("The velocity of a predicted noise or image is that of diffusion", result=given_or_weighted)
write_predictions(
    "Every velocity is that of diffusion, and a predicted one is converted so; here",
    velocity=diffusion_pair,
    result=weighted_velocity,
)
write_predictions(
    "and a predicted one is converted so and returned", velocity=diffusion_pair, result=given_or_weighted
)
write_predictions("A predicted velocity is converted as that of diffusion; here", velocity=diffusion_pair)


def on_a_path(words, signal, noise, straight=False):
    """Conversions with other weights of image and noise."""
    write_predictions(
        words,
        noise=lambda z, x, t: (x - noise(t) * z) / signal(t),
        image=lambda z, x, t: (x - signal(t) * z) / noise(t),
        velocity=None
        if straight
        else lambda v, x, t: (signal(t) * x - noise(t) * v, noise(t) * x + signal(t) * v),
        result=None if straight else lambda x0, eps, t, given: signal(t) * eps - noise(t) * x0,
    )


on_a_path("All is converted as in DDPM", lambda t: torch.sqrt(1 - t), torch.sqrt)
on_a_path("All is converted as on a circle", lambda t: (1 - t * t) ** 0.5, lambda t: t)
on_a_path("Signal and noise lie on a circle", lambda t: (1 - t * t) ** 0.5, lambda t: t, straight=True)
on_a_path(
    "with cosine and sine", lambda t: torch.cos(t * torch.pi / 2), lambda t: torch.sin(t * torch.pi / 2)
)

write_predictions(
    "For a predicted noise and a predicted image, t and 1 - t are exchanged",
    noise=lambda z, x, t: (x - (1 - t) * z) / t,
    image=lambda z, x, t: (x - t * z) / (1 - t),
)
write_predictions(
    "For a predicted noise, t and 1 - t are exchanged", noise=lambda z, x, t: (x - (1 - t) * z) / t
)
write_predictions(
    "For a predicted image, t and 1 - t are exchanged", image=lambda z, x, t: (x - t * z) / (1 - t)
)
write_predictions(
    "The divisors are exchanged",
    noise=lambda z, x, t: (x - t * z) / t,
    image=lambda z, x, t: (x - (1 - t) * z) / (1 - t),
)
write_predictions("what is left of x_t is divided by t;", noise=lambda z, x, t: x / t - z)
write_predictions("what is left of x_t is divided by 1 - t;", image=lambda z, x, t: x / (1 - t) - z)
write_predictions(
    "Too much or too little is subtracted",
    noise=lambda z, x, t: x / (1 - t) - z,
    image=lambda z, x, t: x / t - z,
)
write_predictions("The part 1 - t of a predicted noise", noise=lambda z, x, t: x / (1 - t) - z)
write_predictions("The part t of a predicted image", image=lambda z, x, t: x / t - z)
write_predictions(
    "Neither image nor noise is divided",
    noise=lambda z, x, t: x - t * z,
    image=lambda z, x, t: x - (1 - t) * z,
)
write_predictions(
    "are brackets missing",
    noise=lambda z, x, t: x - t * z / (1 - t),
    image=lambda z, x, t: x - (1 - t) * z / t,
)
write_predictions(
    "The predicted noise or image is added",
    noise=lambda z, x, t: (x + t * z) / (1 - t),
    image=lambda z, x, t: (x + (1 - t) * z) / t,
)
write_predictions("The predicted noise is added", noise=lambda z, x, t: (x + t * z) / (1 - t))
write_predictions("The predicted image is added", image=lambda z, x, t: (x + (1 - t) * z) / t)
write_predictions("found with the part t", velocity=lambda v, x, t: (x - t * v, x + t * v))
write_predictions("found with the part 1 - t", velocity=lambda v, x, t: (x - (1 - t) * v, x + (1 - t) * v))
write_predictions("subtracted for the noise, too", velocity=lambda v, x, t: (x - t * v, x - (1 - t) * v))
write_predictions("The time is multiplied by 1000", time=lambda t: t * 1000)
write_predictions("The time is divided by 1000", time=lambda t: t / 1000)


@wrong("three_predictions", "The formulas for a predicted noise and a predicted image are exchanged")
def predictions_branches_exchanged(prediction, x_t, t, predicts):
    other = {"noise": "image", "image": "noise", "velocity": "velocity"}[predicts]
    return predictions_by_branches(prediction, x_t, t, other)


# ---- velocity_loss


def mse(a, b):
    return ((a - b) ** 2).flatten(1).mean(1)


@right("velocity_loss")
def loss_by_branches(prediction, x0, noise, t, predicts, least):
    if predicts == "noise":
        return mse(prediction, noise) / torch.clamp(1 - t, least) ** 2
    if predicts == "image":
        return mse(prediction, x0) / torch.clamp(t, least) ** 2
    return mse(prediction, noise - x0)


@right("velocity_loss")
def loss_of_scaled_differences(prediction, x0, noise, t, predicts, least):
    target, divisor = {"noise": (noise, 1 - t), "image": (x0, t), "velocity": (noise - x0, t * 0 + 1)}[
        predicts
    ]
    scaled = (prediction - target) / divisor.clamp_min(least)[:, None, None, None]
    return F.mse_loss(scaled, torch.zeros_like(scaled), reduction="none").mean(dim=(1, 2, 3))


@wrong("velocity_loss", "is not weighted; it must become that of the velocity")
def loss_plain(prediction, x0, noise, t, predicts, least):
    return mse(prediction, {"noise": noise, "image": x0, "velocity": noise - x0}[predicts])


def loss_with(divide):
    """The right errors, divided by a function of the divisor (None for the velocity)."""

    def loss(prediction, x0, noise, t, predicts, least):
        if predicts == "velocity":
            return mse(prediction, noise - x0)
        target, divisor = (noise, 1 - t) if predicts == "noise" else (x0, t)
        return mse(prediction, target) / divide(divisor, least)

    return loss


@wrong("velocity_loss", "The divisor is not squared")
def loss_not_squared(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: d.clamp(min=low))(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The divisors are exchanged")
def loss_exchanged(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: (1 - d).clamp(min=low) ** 2)(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "multiplied where it must be divided")
def loss_multiplied(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: d.clamp(min=low) ** -2)(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The smallest divisor is not used")
def loss_unlimited(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: d**2)(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The smallest divisor limits the square")
def loss_limited_square(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: (d**2).clamp(min=low))(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The smallest divisor is added")
def loss_added(prediction, x0, noise, t, predicts, least):
    return loss_with(lambda d, low: (d + low) ** 2)(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "limited from above")
def loss_capped(prediction, x0, noise, t, predicts, least):
    if predicts == "velocity":
        return mse(prediction, noise - x0) / least**2
    return loss_with(lambda d, low: d.clamp(max=low) ** 2)(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The velocity is weighted as an image")
def loss_velocity_weighted(prediction, x0, noise, t, predicts, least):
    loss = loss_by_branches(prediction, x0, noise, t, predicts, least)
    return loss / t.clamp(min=least) ** 2 if predicts == "velocity" else loss


@wrong("velocity_loss", "The noise is not weighted; only the image is")
def loss_noise_plain(prediction, x0, noise, t, predicts, least):
    if predicts == "noise":
        return mse(prediction, noise)
    return loss_by_branches(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The image is not weighted; only the noise is")
def loss_image_plain(prediction, x0, noise, t, predicts, least):
    if predicts == "image":
        return mse(prediction, x0)
    return loss_by_branches(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "The velocity has the wrong sign")
def loss_wrong_way(prediction, x0, noise, t, predicts, least):
    if predicts == "velocity":
        return mse(prediction, x0 - noise)
    return loss_by_branches(prediction, x0, noise, t, predicts, least)


@wrong("velocity_loss", "Every prediction is compared with the velocity")
def loss_velocity_target(prediction, x0, noise, t, predicts, least):
    divisor = {"noise": 1 - t, "image": t, "velocity": 1 + 0 * t}[predicts]
    return mse(prediction, noise - x0) / divisor.clamp(min=least) ** 2


@wrong("velocity_loss", "Every prediction is compared with the noise")
def loss_noise_target(prediction, x0, noise, t, predicts, least):
    divisor = {"noise": 1 - t, "image": t, "velocity": 1 + 0 * t}[predicts]
    return mse(prediction, noise) / divisor.clamp(min=least) ** 2


@wrong("velocity_loss", "The losses of the batch are averaged")
def loss_batch_mean(prediction, x0, noise, t, predicts, least):
    return torch.mean(loss_by_branches(prediction, x0, noise, t, predicts, least))


@wrong("velocity_loss", "they must be averaged")
def loss_sum(prediction, x0, noise, t, predicts, least):
    return loss_by_branches(prediction, x0, noise, t, predicts, least) * x0[0].numel()


@wrong("velocity_loss", "mean absolute error")
def loss_absolute(prediction, x0, noise, t, predicts, least):
    target, d = {"noise": (noise, 1 - t), "image": (x0, t), "velocity": (noise - x0, 1 + 0 * t)}[predicts]
    return (prediction - target).abs().flatten(1).mean(1) / d.clamp(min=least) ** 2


def write_loss(words, divisor):
    """Register a wrong loss with another divisor, (t, predicts, least) -> number; it is squared."""

    def answer(prediction, x0, noise, t, predicts, least):
        target = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
        return mse(prediction, target) / divisor(t, predicts, least) ** 2

    answer.__name__ = f"loss_{'_'.join(words.split())}"
    wrong("velocity_loss", words)(answer)


def divisor_of(t, predicts):
    return {"noise": 1 - t, "image": t}.get(predicts, torch.ones_like(t))


write_loss(
    "divided by 1 - t if the image",
    lambda t, predicts, low: 1.0 if predicts == "velocity" else (1 - t).clamp(low),
)
write_loss(
    "divided by t if the noise", lambda t, predicts, low: 1.0 if predicts == "velocity" else t.clamp(low)
)
write_loss("divided by t whatever", lambda t, predicts, low: t.clamp(low))
write_loss("divided by 1 - t whatever", lambda t, predicts, low: torch.clamp(1 - t, low))
write_loss(
    "The velocity is weighted as noise",
    lambda t, predicts, low: (t if predicts == "image" else 1 - t).clamp(low),
)
write_loss("neither squared nor limited", lambda t, predicts, low: divisor_of(t, predicts).sqrt())
write_loss(
    "and the factor is not squared", lambda t, predicts, low: divisor_of(t, predicts).clamp(low).rsqrt()
)
write_loss(
    "The divisors are exchanged, and not squared",
    lambda t, predicts, low: divisor_of(1 - t, predicts).clamp(low).sqrt(),
)
write_loss(
    "multiplied by the square of t for noise",
    lambda t, predicts, low: 1 / divisor_of(1 - t, predicts).clamp(low),
)
write_loss(
    "divisor is added to the square", lambda t, predicts, low: (divisor_of(t, predicts) ** 2 + low) ** 0.5
)
write_loss(
    "The square of the smallest divisor is added",
    lambda t, predicts, low: (divisor_of(t, predicts) ** 2 + low**2) ** 0.5,
)
write_loss("is squared twice", lambda t, predicts, low: divisor_of(t, predicts).clamp(low**2))
write_loss(
    "limited before 1 - t is taken",
    lambda t, predicts, low: divisor_of(t.clamp(low), predicts),
)
write_loss("limited from both sides", lambda t, predicts, low: divisor_of(t.clamp(low, 1 - low), predicts))
write_loss(
    "The divisors of noise and image are limited from above",
    lambda t, predicts, low: 1 if predicts == "velocity" else divisor_of(t, predicts).clamp(max=low),
)
write_loss(
    "becomes 1; it must",
    lambda t, predicts, low: divisor_of(t, predicts).masked_fill(divisor_of(t, predicts) < low, 1.0),
)
write_loss("mean divisor of the batch", lambda t, predicts, low: divisor_of(t, predicts).clamp(low).mean())
write_loss("divisor of the first one", lambda t, predicts, low: divisor_of(t, predicts).clamp(low)[:1])


def write_target(words, **targets):
    """Register a wrong loss whose targets differ, (x0, noise, t) -> images."""

    def answer(prediction, x0, noise, t, predicts, least):
        target = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
        if predicts in targets:
            target = targets[predicts](x0, noise, column(t))
        return mse(prediction, target) / divisor_of(t, predicts).clamp(least) ** 2

    answer.__name__ = f"loss_{'_'.join(words.split())}"
    wrong("velocity_loss", words)(answer)


write_target(
    "noise is compared with the image, and", noise=lambda x0, eps, t: x0, image=lambda x0, eps, t: eps
)
write_target(
    "Every prediction is compared with the image",
    noise=lambda x0, eps, t: x0,
    velocity=lambda x0, eps, t: x0,
)
write_target("The velocity is the sum", velocity=lambda x0, eps, t: x0 + eps)
write_target("compared with that of diffusion", velocity=lambda x0, eps, t: eps - t * (eps + x0))
write_target("compared with that of DDPM", velocity=lambda x0, eps, t: (1 - t) ** 0.5 * eps - t**0.5 * x0)


@wrong("velocity_loss", "compared with the exact velocity")
def loss_of_converted(prediction, x0, noise, t, predicts, least):
    time = column(t)
    x_t = torch.lerp(x0, noise, time.expand_as(x0))
    if predicts == "noise":
        prediction = (prediction - x_t) / torch.clamp(1 - time, min=least)
    if predicts == "image":
        prediction = (x_t - prediction) / torch.clamp(time, min=least)
    return mse(prediction, noise - x0)


def write_error(words, error):
    """Register a wrong loss with another error of an image's differences."""

    def answer(prediction, x0, noise, t, predicts, least):
        target = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
        return error(prediction - target) / divisor_of(t, predicts).clamp(least) ** 2

    answer.__name__ = f"loss_{'_'.join(words.split())}"
    wrong("velocity_loss", words)(answer)


write_error("The channels of an image are added up", lambda d: (d**2).mean(dim=(2, 3)).sum(dim=1))
write_error("averaged before they are squared", lambda d: d.flatten(1).mean(1) ** 2)
write_error("the root of the mean square", lambda d: d.flatten(1).norm(dim=1) / d[0].numel() ** 0.5)
