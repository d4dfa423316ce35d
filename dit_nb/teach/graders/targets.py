"""Graders of lesson 32: conversions among noise, image and velocity, and the velocity loss of any prediction."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_three_predictions", "check_velocity_loss"]

_KINDS = ("noise", "image", "velocity")


def _predictions_loops(
    prediction: Tensor, x_t: Tensor, t: Tensor, predicts: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the two equations of the path for one number after the other."""
    out = [torch.empty_like(x_t) for _ in range(3)]
    for i in range(x_t.shape[0]):
        time = t[i].item()
        known, mixed = prediction[i].flatten().tolist(), x_t[i].flatten().tolist()
        found = []
        for z, x in zip(known, mixed):
            if predicts == "noise":
                image, noise = (x - time * z) / (1 - time), z
            elif predicts == "image":
                image, noise = z, (x - (1 - time) * z) / time
            else:
                image, noise = x - time * z, x + (1 - time) * z
            found.append((image, noise, noise - image))
        for tensor, numbers in zip(out, zip(*found)):
            tensor[i] = torch.tensor(numbers, dtype=x_t.dtype).view_as(x_t[i])
    return out[0], out[1], out[2]


def _prediction_cases(rng: RandomInputs) -> list[Case]:
    """Every kind; as many images as columns, once as channels, which shows a wrong broadcast."""
    cases = [
        Case(
            f"{kind}, {n} images of {c} x {h} x {w}",
            (rng.normal(n, c, h, w), rng.normal(n, c, h, w), rng.uniform(0.1, 0.9, n), kind),
        )
        for kind, (n, c, h, w) in zip(_KINDS, ((3, 2, 4, 3), (4, 1, 3, 4), (2, 3, 5, 2)))
    ]
    n = rng.choice(3, 5)
    return [
        *cases,
        Case(
            f"image, {n} images",
            (*(rng.normal(n, n, 2, n) for _ in range(2)), rng.uniform(0.1, 0.9, n), "image"),
        ),
    ]


def _wide(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)


def _from_pair(image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return image, noise, noise - image


def _predictions(
    time: Callable = _wide,
    noise: Callable = lambda z, x, t: ((x - t * z) / (1 - t), z),
    image: Callable = lambda z, x, t: (z, (x - (1 - t) * z) / t),
    velocity: Callable = lambda z, x, t: (x - t * z, x + (1 - t) * z),
    end: Callable = _from_pair,
) -> Callable:
    """The conversions with another formula for one kind, another time, or other results."""
    solve = {"noise": noise, "image": image, "velocity": velocity}
    return lambda prediction, x_t, t, predicts: end(*solve[predicts](prediction, x_t, time(t)))


def _roots(x: Tensor, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (x - a.sqrt() * z) / b.sqrt()


def _velocity_first(
    noise: Callable = lambda z, x, t: (z - x) / (1 - t),
    image: Callable = lambda z, x, t: (x - z) / t,
    along: bool = False,  # whether x_t is followed along the velocity, instead of adding it to the prediction
) -> Callable:
    """Find the velocity first, by a formula for each kind, and from it what is still missing."""

    def predictions(prediction, x_t, t, predicts):
        t = _wide(t)
        if predicts == "velocity":
            return x_t - t * prediction, x_t + (1 - t) * prediction, prediction
        if predicts == "noise":
            v = noise(prediction, x_t, t)
            return x_t - t * v if along else prediction - v, prediction, v
        v = image(prediction, x_t, t)
        return prediction, x_t + (1 - t) * v if along else prediction + v, v

    return predictions


_PATH = "lesson 32, 'Three targets'."

_VELOCITIES = {
    "The velocity of a predicted image is not divided by t, the part of the way from the image to x_t; the noise, "
    "made of {}, is wrong with it.": {"image": lambda z, x, t: x - z},
    "The velocity of a predicted noise is not divided by 1 - t, the part of the way from x_t to the noise; the image, "
    "made of {}, is wrong with it.": {"noise": lambda z, x, t: z - x},
    "The velocity of a predicted image has the wrong sign: it leads from the image to x_t. The noise, made of {}, is "
    "wrong with it.": {"image": lambda z, x, t: (z - x) / t},
    "The velocity of a predicted noise has the wrong sign: it leads from x_t to the noise. The image, made of {}, is "
    "wrong with it.": {"noise": lambda z, x, t: (x - z) / (1 - t)},
}

_THREE_PREDICTIONS = Exercise(
    "three_predictions",
    _predictions_loops,
    _prediction_cases,
    {
        "The times t and 1 - t are exchanged: here t = 0 is data and t = 1 is noise.": (
            _predictions(lambda t: 1 - _wide(t), velocity=lambda z, x, t: (x - t * z, x + (1 - t) * z)),
            _PATH,
        ),
        "The velocity has the wrong sign: it points from data to noise.": (
            _predictions(
                velocity=lambda z, x, t: (x + t * z, x - (1 - t) * z),
                end=lambda image, noise: (image, noise, image - noise),
            ),
            _PATH,
        ),
        "The noise is that of x_t minus the whole image; x_t holds only the part 1 - t of it.": _predictions(
            image=lambda z, x, t: (z, (x - z) / t)
        ),
        "The noise is not divided by t: what is left of x_t without the image is t times the noise.": _predictions(
            image=lambda z, x, t: (z, x - (1 - t) * z)
        ),
        "The image is not divided by 1 - t: what is left of x_t without the noise is 1 - t times the image.": (
            _predictions(noise=lambda z, x, t: (x - t * z, z))
        ),
        "The image is that of x_t minus the whole noise; x_t holds only the part t of it.": _predictions(
            noise=lambda z, x, t: ((x - z) / (1 - t), z)
        ),
        "The two ways along the velocity are exchanged: it is t to the data and 1 - t to the noise.": _predictions(
            velocity=lambda z, x, t: (x - (1 - t) * z, x + t * z)
        ),
        "A predicted velocity is followed the wrong way: it leads from the data to the noise.": (
            _predictions(velocity=lambda z, x, t: (x + t * z, x - (1 - t) * z)),
            _PATH,
        ),
        "The velocity is followed over the whole path, whatever t is.": _predictions(
            velocity=lambda z, x, t: (x - z, x + z)
        ),
        "Signal and noise are roots, as in DDPM; on the straight path they are 1 - t and t.": _predictions(
            noise=lambda z, x, t: (_roots(x, z, t, 1 - t), z),
            image=lambda z, x, t: (z, _roots(x, z, 1 - t, t)),
        ),
        **{
            message.format(rest): (_velocity_first(**formulas, along=along), _PATH)
            for message, formulas in _VELOCITIES.items()
            for along, rest in ((False, "the prediction and the velocity"), (True, "x_t and the velocity"))
        },
        "Image and noise are returned in the wrong order: the image is the first.": _predictions(
            end=lambda image, noise: (noise, image, noise - image)
        ),
        "Each image needs its own time; here the times run along the columns.": (
            _predictions(lambda t: t),
            "how (N,) broadcasts over (N, C, H, W).",
        ),
        "Each image needs its own time; here the times run along the channels.": (
            _predictions(lambda t: t[:, None, None]),
            "how (N, 1, 1) broadcasts over (N, C, H, W).",
        ),
        "All images use the time of the first one.": _predictions(lambda t: t[0]),
        "All images use the mean time.": _predictions(lambda t: t.mean()),
        "The prediction is always taken as a velocity; `predicts` says what it is.": lambda prediction, x_t, t, predicts: (
            _predictions()(prediction, x_t, t, "velocity")
        ),
        "The prediction is always taken as noise; `predicts` says what it is.": lambda prediction, x_t, t, predicts: (
            _predictions()(prediction, x_t, t, "noise")
        ),
        "The prediction is always taken as an image; `predicts` says what it is.": lambda prediction, x_t, t, predicts: (
            _predictions()(prediction, x_t, t, "image")
        ),
        "The velocity is the sum of noise and image; it is their difference.": _predictions(
            end=lambda image, noise: (image, noise, noise + image)
        ),
        "The image is clipped to [-1, 1]; a conversion changes nothing.": _predictions(
            end=lambda image, noise: _from_pair(image.clamp(-1, 1), noise)
        ),
    },
    _PATH,
    result_names=("image", "noise", "velocity"),
)


def check_three_predictions(fn: Callable, **grade_options) -> Report:
    """Check fn(prediction, x_t (N, C, H, W), t (N,), predicts) -> image, noise, velocity."""
    return grade(_THREE_PREDICTIONS, fn, **grade_options)


def _loss_loops(
    prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor, predicts: str, least: float
) -> Tensor:
    """Add up the squared differences of one image after the other."""
    losses = []
    for i in range(x0.shape[0]):
        rows = zip(prediction[i].flatten().tolist(), x0[i].flatten().tolist(), noise[i].flatten().tolist())
        total = count = 0
        for z, image, eps in rows:
            total += (z - {"noise": eps, "image": image, "velocity": eps - image}[predicts]) ** 2
            count += 1
        time = t[i].item()
        divisor = max({"noise": 1 - time, "image": time, "velocity": 1.0}[predicts], least)
        losses.append(total / count / divisor**2)
    return torch.tensor(losses, dtype=x0.dtype)


def _loss_cases(rng: RandomInputs) -> list[Case]:
    """Every kind, with times on both sides of the smallest divisor."""
    low, cases = rng.uniform(0.02, 0.1, 1).item(), []
    for kind, n in zip(_KINDS, (3, 4, 3)):
        t = torch.tensor([low, 0.4, 1 - low, 0.7], dtype=torch.float64)[:n]
        images = [rng.normal(n, 2, 3, 2) for _ in range(3)]
        cases.append(Case(f"{kind}, {n} images, least 0.2", (*images, t, kind, 0.2)))
    images = [rng.normal(2, 1, 4, 4) for _ in range(3)]
    return [*cases, Case("image, least 0.05", (*images, rng.uniform(0.2, 0.8, 2), "image", 0.05))]


def _weight(t: Tensor, predicts: str, least: float) -> Tensor:
    divisor = {"noise": 1 - t, "image": t, "velocity": torch.ones_like(t)}[predicts]
    return divisor.clamp(min=least) ** -2


def _target(x0: Tensor, noise: Tensor, predicts: str) -> Tensor:
    return {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]


def _loss(
    weight: Callable = _weight,
    target: Callable = _target,
    error: Callable = lambda difference: difference.square().mean((1, 2, 3)),
) -> Callable:
    """The loss with another weight, target or error."""
    return lambda prediction, x0, noise, t, predicts, least: (
        error(prediction - target(x0, noise, predicts)) * weight(t, predicts, least)
    )


_WEIGHTS = "lesson 32, 'One loss for all'."

_VELOCITY_LOSS = Exercise(
    "velocity_loss",
    _loss_loops,
    _loss_cases,
    {
        "The error of the prediction is not weighted; it must become that of the velocity.": (
            _loss(lambda t, predicts, least: torch.ones_like(t)),
            _WEIGHTS,
        ),
        "The divisor is not squared, though the error is.": (
            _loss(lambda t, predicts, least: _weight(t, predicts, least).sqrt()),
            _WEIGHTS,
        ),
        "The divisors are exchanged: the error of the noise must be divided by 1 - t, that of the image by t.": (
            _loss(lambda t, predicts, least: _weight(1 - t, predicts, least)),
            _WEIGHTS,
        ),
        "The error is multiplied where it must be divided.": (
            _loss(lambda t, predicts, least: 1 / _weight(t, predicts, least)),
            _WEIGHTS,
        ),
        "The smallest divisor is not used: some times get huge losses.": (
            _loss(lambda t, predicts, least: _weight(t, predicts, 0.0)),
            _WEIGHTS,
        ),
        "The smallest divisor limits the square; it must limit the divisor itself.": (
            _loss(
                lambda t, predicts, least: (
                    1
                    / {"noise": 1 - t, "image": t, "velocity": torch.ones_like(t)}[predicts]
                    .square()
                    .clamp(min=least)
                )
            ),
            _WEIGHTS,
        ),
        "The smallest divisor is added; it must be a limit.": (
            _loss(
                lambda t, predicts, least: (
                    ({"noise": 1 - t, "image": t, "velocity": 1 - least + 0 * t}[predicts] + least) ** -2
                )
            ),
            _WEIGHTS,
        ),
        "The smallest divisor is added, to the 1 of the velocity as well; it must be a limit.": (
            _loss(
                lambda t, predicts, least: (
                    ({"noise": 1 - t, "image": t, "velocity": torch.ones_like(t)}[predicts] + least) ** -2
                )
            ),
            _WEIGHTS,
        ),
        "Only the divisor of the image is limited; that of the noise gets as small.": (
            _loss(lambda t, predicts, least: _weight(t, predicts, least if predicts == "image" else 0.0)),
            _WEIGHTS,
        ),
        "Only the divisor of the noise is limited; that of the image gets as small.": (
            _loss(lambda t, predicts, least: _weight(t, predicts, least if predicts == "noise" else 0.0)),
            _WEIGHTS,
        ),
        "The divisor is limited from above; it must be limited from below.": (
            _loss(
                lambda t, predicts, least: (
                    {"noise": 1 - t, "image": t, "velocity": torch.ones_like(t)}[predicts].clamp(max=least)
                    ** -2
                )
            ),
            _WEIGHTS,
        ),
        "The velocity is weighted as an image; its error is the loss already.": (
            _loss(lambda t, predicts, least: _weight(t, predicts.replace("velocity", "image"), least)),
            _WEIGHTS,
        ),
        "The noise is not weighted; only the image is.": (
            _loss(lambda t, predicts, least: _weight(t, predicts.replace("noise", "velocity"), least)),
            _WEIGHTS,
        ),
        "The image is not weighted; only the noise is.": (
            _loss(lambda t, predicts, least: _weight(t, predicts.replace("image", "velocity"), least)),
            _WEIGHTS,
        ),
        "The velocity has the wrong sign: it is noise minus image.": (
            _loss(
                target=lambda x0, noise, predicts: (
                    _target(x0, noise, predicts) * (-1 if predicts == "velocity" else 1)
                )
            ),
            "lesson 32, 'Three targets'.",
        ),
        "Every prediction is compared with the velocity; each has its own target.": _loss(
            target=lambda x0, noise, predicts: noise - x0
        ),
        "Every prediction is compared with the noise; each has its own target.": _loss(
            target=lambda x0, noise, predicts: noise
        ),
        "The losses of the batch are averaged; each image has its own.": lambda *args: _loss()(*args).mean(),
        "The error is averaged over the batch before it is weighted; each image has its own.": _loss(
            error=lambda difference: difference.square().mean()
        ),
        "The weights of the batch are averaged; each image has its own.": _loss(
            lambda t, predicts, least: _weight(t, predicts, least).mean()
        ),
        "The squares of an image are added up; they must be averaged.": _loss(
            error=lambda difference: difference.square().sum((1, 2, 3))
        ),
        "The differences are not squared: this is the mean absolute error.": _loss(
            error=lambda difference: difference.abs().mean((1, 2, 3))
        ),
    },
    _WEIGHTS,
)


def check_velocity_loss(fn: Callable, **grade_options) -> Report:
    """Check fn(prediction, x0, noise (N, C, H, W), t (N,), predicts, least) -> loss (N,)."""
    return grade(_VELOCITY_LOSS, fn, **grade_options)
