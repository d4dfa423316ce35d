"""Graders of prediction targets: the path is put together again, and the loss is that of the converted velocity."""

import torch

from support import relative


def test_image_and_noise_give_the_path_again(check_identity):
    def holds(fn, prediction, x_t, t, predicts):
        image, noise, velocity = fn(prediction, x_t, t, predicts)
        given = {"image": image, "noise": noise, "velocity": velocity}[predicts]
        time = t.view(-1, 1, 1, 1)
        return (
            relative(given, prediction) < 1e-9
            and relative((1 - time) * image + time * noise, x_t) < 1e-9
            and relative(velocity, noise - image) < 1e-9
        )

    check_identity("three_predictions", holds)


def test_the_loss_is_that_of_the_velocity_away_from_the_ends(check_identity):
    def holds(fn, prediction, x0, noise, t, predicts, least):
        time = t.view(-1, 1, 1, 1)
        x_t = (1 - time) * x0 + time * noise
        divisor = {"noise": 1 - time, "image": time, "velocity": torch.ones_like(time)}[predicts].clamp(
            min=least
        )
        toward = {"noise": 1, "image": -1, "velocity": 1}[predicts]
        target = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
        # Both velocities by the same limited divisor: from x_t to what is predicted, and to what is true.
        base = {"noise": x_t, "image": x_t, "velocity": 0 * x_t}[predicts]
        a, b = (toward * (z - base) / divisor for z in (prediction, target))
        got = fn(prediction, x0, noise, t, predicts, least)
        zero = fn(target, x0, noise, t, predicts, least)
        return (
            got.shape == t.shape
            and relative(got, (a - b).pow(2).flatten(1).mean(1)) < 1e-9
            and not zero.any()
        )

    check_identity("velocity_loss", holds)
