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
