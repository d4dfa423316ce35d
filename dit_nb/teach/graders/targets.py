"""Graders of lesson 32: conversions among noise, image and velocity, and the velocity loss of any prediction."""

import math
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


def _named_wrongly(kind: str) -> Callable:
    """The conversions that do not know one kind, and take it as a velocity."""
    return lambda prediction, x_t, t, predicts: _predictions()(
        prediction, x_t, t, "velocity" if predicts == kind else predicts
    )


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


def _weighted(
    signal: Callable,
    noise: Callable,
    convert: bool = True,  # whether a predicted noise, image or velocity is converted with these weights
    kept: bool = False,  # whether a predicted velocity is returned as it is
) -> Callable:
    """The conversions of a path that mixes image and noise with other weights, or its velocity alone."""

    def predictions(prediction, x_t, t, predicts):
        a, b = signal(_wide(t)), noise(_wide(t))
        image, eps, _ = _predictions()(prediction, x_t, t, predicts)
        if convert:
            image = {"noise": (x_t - b * prediction) / a, "velocity": a * x_t - b * prediction}.get(
                predicts, prediction
            )
            eps = {"image": (x_t - a * prediction) / b, "velocity": b * x_t + a * prediction}.get(
                predicts, prediction
            )
        return image, eps, prediction if kept and predicts == "velocity" else a * eps - b * image

    return predictions


def _as_in_diffusion(kept: bool) -> Callable:
    """Right images and noise but for a predicted velocity, and velocities with the weights of the time."""

    def predictions(prediction, x_t, t, predicts):
        a, b = 1 - _wide(t), _wide(t)
        image, noise, _ = _predictions(velocity=lambda z, x, t: (a * x - b * z, b * x + a * z))(
            prediction, x_t, t, predicts
        )
        return image, noise, prediction if kept and predicts == "velocity" else a * noise - b * image

    return predictions


def _solved_by(noise: Callable | None = None, image: Callable | None = None) -> Callable:
    """Another formula for the image of a predicted noise, the noise of a predicted image, or both."""
    made = {}
    if noise is not None:
        made["noise"] = lambda z, x, t: (noise(z, x, t), z)
    if image is not None:
        made["image"] = lambda z, x, t: (z, image(z, x, t))
    return _predictions(**made)


_LINE = {"signal": lambda t: 1 - t, "noise": lambda t: t}
_ROOTS = {"signal": lambda t: (1 - t).sqrt(), "noise": lambda t: t.sqrt()}
_CIRCLE = {"signal": lambda t: (1 - t**2).sqrt(), "noise": lambda t: t}
_ARC = {"signal": lambda t: (math.pi / 2 * t).cos(), "noise": lambda t: (math.pi / 2 * t).sin()}
_TIME = "lesson 32, 'Three targets': which of t and 1 - t belongs to the image."

_OF_DIFFUSION = {
    "The velocity is that of diffusion, which weights noise and image by the time; here it is their "
    "difference.": (_weighted(**_LINE, convert=False)),
    "The velocity of a predicted noise or image is that of diffusion, with weights; here it is the "
    "difference of "
    "noise and image.": _weighted(**_LINE, convert=False, kept=True),
    "Every velocity is that of diffusion, and a predicted one is converted so; here it is the difference "
    "of noise "
    "and image, and x_t is followed along it.": _as_in_diffusion(kept=False),
    "Every velocity is that of diffusion, and a predicted one is converted so and returned; here it is the "
    "difference of noise and image, and x_t is followed along it.": _as_in_diffusion(kept=True),
    "A predicted velocity is converted as that of diffusion; here x_t is followed along it.": _predictions(
        velocity=lambda z, x, t: ((1 - t) * x - t * z, t * x + (1 - t) * z)
    ),
    "All is converted as in DDPM, its velocity as well: signal and noise are roots. Here they are 1 - t "
    "and t.": (_weighted(**_ROOTS)),
    "Image and noise are converted as in DDPM, with roots as weights; on the straight path they are 1 - t and t.": (
        lambda *a: _from_pair(*_weighted(**_ROOTS)(*a)[:2])
    ),
    "Image and noise are converted as on a circle; on the straight path the weights are 1 - t and t.": (
        lambda *a: _from_pair(*_weighted(**_CIRCLE)(*a)[:2])
    ),
    "All is converted as on a circle: the squares of the two weights add up to 1. On the straight path "
    "the weights "
    "do.": _weighted(**_CIRCLE),
    "Signal and noise lie on a circle, as in diffusion; on the straight path they are 1 - t and t.": (
        _predictions(
            noise=lambda z, x, t: ((x - t * z) / (1 - t**2).sqrt(), z),
            image=lambda z, x, t: (z, (x - (1 - t**2).sqrt() * z) / t),
        )
    ),
    "All is converted with cosine and sine of the time; on the straight path the weights are 1 - t and t.": (
        _weighted(**_ARC)
    ),
}

_OF_ONE_KIND = {
    "For a predicted noise and a predicted image, t and 1 - t are exchanged: here t = 0 is data and t = 1 is "
    "noise.": _solved_by(lambda z, x, t: (x - (1 - t) * z) / t, lambda z, x, t: (x - t * z) / (1 - t)),
    "For a predicted noise, t and 1 - t are exchanged: here t = 0 is data and t = 1 is noise.": _solved_by(
        noise=lambda z, x, t: (x - (1 - t) * z) / t
    ),
    "For a predicted image, t and 1 - t are exchanged: here t = 0 is data and t = 1 is noise.": _solved_by(
        image=lambda z, x, t: (x - t * z) / (1 - t)
    ),
    "The divisors are exchanged: what is left is divided by the part of x_t that was subtracted.": (
        _solved_by(lambda z, x, t: (x - t * z) / t, lambda z, x, t: (x - (1 - t) * z) / (1 - t))
    ),
    "For a predicted noise, what is left of x_t is divided by t; it is 1 - t times the image.": _solved_by(
        noise=lambda z, x, t: (x - t * z) / t
    ),
    "For a predicted image, what is left of x_t is divided by 1 - t; it is t times the noise.": _solved_by(
        image=lambda z, x, t: (x - (1 - t) * z) / (1 - t)
    ),
    "Too much or too little is subtracted: x_t holds t of the noise and 1 - t of the image.": _solved_by(
        lambda z, x, t: (x - (1 - t) * z) / (1 - t), lambda z, x, t: (x - t * z) / t
    ),
    "The part 1 - t of a predicted noise is subtracted; x_t holds the part t of it.": _solved_by(
        noise=lambda z, x, t: (x - (1 - t) * z) / (1 - t)
    ),
    "The part t of a predicted image is subtracted; x_t holds the part 1 - t of it.": _solved_by(
        image=lambda z, x, t: (x - t * z) / t
    ),
    "Neither image nor noise is divided: what is left of x_t is only a part of each.": _solved_by(
        lambda z, x, t: x - t * z, lambda z, x, t: x - (1 - t) * z
    ),
    "Only the prediction is divided; the whole difference must be: are brackets missing?": _solved_by(
        lambda z, x, t: x - t * z / (1 - t), lambda z, x, t: x - (1 - t) * z / t
    ),
    "The predicted noise or image is added to x_t; it must be taken from it.": _solved_by(
        lambda z, x, t: (x + t * z) / (1 - t), lambda z, x, t: (x + (1 - t) * z) / t
    ),
    "The predicted noise is added to x_t; it must be taken from it.": _solved_by(
        noise=lambda z, x, t: (x + t * z) / (1 - t)
    ),
    "The predicted image is added to x_t; it must be taken from it.": _solved_by(
        image=lambda z, x, t: (x + (1 - t) * z) / t
    ),
    "The formulas for a predicted noise and a predicted image are exchanged.": _predictions(
        noise=lambda z, x, t: (z, (x - (1 - t) * z) / t), image=lambda z, x, t: ((x - t * z) / (1 - t), z)
    ),
    "The noise is found with the part t of a predicted velocity; from x_t to the noise it is 1 - t.": (
        _predictions(velocity=lambda z, x, t: (x - t * z, x + t * z))
    ),
    "The image is found with the part 1 - t of a predicted velocity; from x_t to the image it is t.": (
        _predictions(velocity=lambda z, x, t: (x - (1 - t) * z, x + (1 - t) * z))
    ),
    "A predicted velocity is subtracted for the noise, too; from the image to the noise it is added.": (
        _predictions(velocity=lambda z, x, t: (x - t * z, x - (1 - t) * z))
    ),
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
        "Everything counts from noise to data: here t = 0 is data, and the velocity points to the noise.": (
            _predictions(
                lambda t: 1 - _wide(t),
                velocity=lambda z, x, t: (x + t * z, x - (1 - t) * z),
                end=lambda image, noise: (image, noise, image - noise),
            ),
            _PATH,
        ),
        "The times are exchanged, and the velocity returned points to the data: here t = 0 is data, and "
        "the velocity "
        "points to the noise.": (
            _predictions(lambda t: 1 - _wide(t), end=lambda image, noise: (image, noise, image - noise)),
            _PATH,
        ),
        "The velocity returned is image minus noise; it is noise minus image.": (
            _predictions(end=lambda image, noise: (image, noise, image - noise)),
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
        **{message: (function, _PATH) for message, function in _OF_DIFFUSION.items()},
        **{message: (function, _TIME) for message, function in _OF_ONE_KIND.items()},
        "The time is multiplied by 1000; here t is a flow time in [0, 1].": _predictions(
            lambda t: 1000 * _wide(t)
        ),
        "The time is divided by 1000; here t is a flow time in [0, 1] already.": _predictions(
            lambda t: _wide(t) / 1000
        ),
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
        **{
            f"A predicted {kind} is taken as a velocity: `predicts` is '{kind}' there, by that name.": _named_wrongly(
                kind
            )
            for kind in ("noise", "image")
        },
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
    low, cases = rng.uniform(0.01, 0.03, 1).item(), []  # below 0.2, and below its square
    for kind, n in zip(_KINDS, (3, 4, 3)):
        t = torch.tensor([low, 0.4, 1 - low, 0.7], dtype=torch.float64)[:n]
        images = [rng.normal(n, 2, 3, 2) for _ in range(3)]
        cases.append(Case(f"{kind}, {n} images, least 0.2", (*images, t, kind, 0.2)))
    images = [rng.normal(2, 3, 2, 4) for _ in range(3)]
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


def _divided(divide: Callable) -> Callable:
    """The loss over the square of another divisor, (divisor, t, predicts, least) -> (N,)."""
    return _loss(
        lambda t, predicts, least: (
            divide(_weight(t, predicts, 0.0) ** -0.5, t, predicts, least).broadcast_to(t.shape) ** -2
        )
    )


def _compared_with(**targets: Callable) -> Callable:
    """The loss with other targets, (x0, noise) -> (N, C, H, W) for some kinds."""
    return _loss(
        target=lambda x0, noise, predicts: targets.get(predicts, lambda a, b: _target(a, b, predicts))(
            x0, noise
        )
    )


def _converted_loss(
    prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor, predicts: str, least: float
) -> Tensor:
    """Convert the prediction with the limited divisor, and compare with the exact velocity, a mistake."""
    time = _wide(t)
    x_t = (1 - time) * x0 + time * noise
    velocity = {
        "noise": (prediction - x_t) / (1 - time).clamp(min=least),
        "image": (x_t - prediction) / time.clamp(min=least),
        "velocity": prediction,
    }[predicts]
    return (velocity - (noise - x0)).square().mean((1, 2, 3))


def _diffusion_velocity_loss(signal: Callable, noise: Callable) -> Callable:
    """Compare a predicted velocity with the one of a path of diffusion, a mistake."""

    def loss(prediction, x0, eps, t, predicts, least):
        aim = _target(x0, eps, predicts)
        if predicts == "velocity":
            aim = signal(_wide(t)) * eps - noise(_wide(t)) * x0
        return _loss(target=lambda *_: aim)(prediction, x0, eps, t, predicts, least)

    return loss


_WEIGHTS = "lesson 32, 'One loss for all'."
_TARGETS = "lesson 32, 'Three targets'."

_OTHER_DIVISORS = {
    "The error is divided by 1 - t if the image is predicted, as if it were the noise; it must be "
    "t.": _divided(lambda d, t, predicts, least: (1 - t if predicts == "image" else d).clamp(min=least)),
    "The error is divided by t if the noise is predicted, as if it were the image; it must be 1 - "
    "t.": _divided(lambda d, t, predicts, least: (t if predicts == "noise" else d).clamp(min=least)),
    "The error is divided by t whatever is predicted; for noise it is 1 - t, for the velocity 1.": _divided(
        lambda d, t, predicts, least: t.clamp(min=least)
    ),
    "The error is divided by 1 - t whatever is predicted; for the image it is t, for the velocity "
    "1.": _divided(lambda d, t, predicts, least: (1 - t).clamp(min=least)),
    "The velocity is weighted as noise; its error is the loss already.": _divided(
        lambda d, t, predicts, least: (d if predicts != "velocity" else 1 - t).clamp(min=least)
    ),
    "The divisor is neither squared nor limited.": _divided(lambda d, t, predicts, least: d.sqrt()),
    "The error is multiplied where it must be divided, and the factor is not squared.": _divided(
        lambda d, t, predicts, least: d.clamp(min=least) ** -0.5
    ),
    "The divisors are exchanged, and not squared: the error of the noise must be divided by the square "
    "of 1 - t, "
    "that of the image by the square of t.": _divided(
        lambda d, t, predicts, least: (d if predicts == "velocity" else 1 - d).clamp(min=least).sqrt()
    ),
    "The error is multiplied by the square of t for noise and of 1 - t for the image; it must be divided "
    "by that of "
    "the other one.": _divided(
        lambda d, t, predicts, least: (d if predicts == "velocity" else 1 - d).clamp(min=least) ** -1
    ),
    "The smallest divisor is added to the square; it must be a limit.": _divided(
        lambda d, t, predicts, least: (d**2 + least).sqrt()
    ),
    "The square of the smallest divisor is added to the square; it must be a limit.": _divided(
        lambda d, t, predicts, least: (d**2 + least**2).sqrt()
    ),
    "The smallest divisor is squared twice: once before it limits, and again with the divisor.": _divided(
        lambda d, t, predicts, least: d.clamp(min=least**2)
    ),
    "The time is limited before 1 - t is taken; the divisor itself must be.": _divided(
        lambda d, t, predicts, least: {"noise": 1 - t.clamp(min=least), "image": t.clamp(min=least)}.get(
            predicts, d
        )
    ),
    "The time is limited from both sides; the divisor must be limited from below alone.": _divided(
        lambda d, t, predicts, least: d if predicts == "velocity" else d.clamp(least, 1 - least)
    ),
    "The divisors of noise and image are limited from above; they must be limited from below.": _divided(
        lambda d, t, predicts, least: d if predicts == "velocity" else d.clamp(max=least)
    ),
    "A divisor that is too small becomes 1; it must become the smallest divisor.": _divided(
        lambda d, t, predicts, least: torch.where(d < least, 1.0, d)
    ),
    "All images have the mean divisor of the batch; each has its own.": _divided(
        lambda d, t, predicts, least: d.clamp(min=least).mean()
    ),
    "All images have the divisor of the first one; each has its own.": _divided(
        lambda d, t, predicts, least: d.clamp(min=least)[0]
    ),
}

_OTHER_TARGETS = {
    "A predicted noise is compared with the image, and a predicted image with the noise.": _compared_with(
        noise=lambda x0, noise: x0, image=lambda x0, noise: noise
    ),
    "Every prediction is compared with the image; each has its own target.": _loss(
        target=lambda x0, noise, predicts: x0
    ),
    "The velocity is the sum of noise and image; it is their difference.": _compared_with(
        velocity=lambda x0, noise: noise + x0
    ),
    "A predicted velocity is compared with that of diffusion, which weights noise and image by the time; "
    "here it is "
    "their difference.": _diffusion_velocity_loss(**_LINE),
    "A predicted velocity is compared with that of DDPM, which weights noise and image by roots; here it "
    "is their "
    "difference.": _diffusion_velocity_loss(**_ROOTS),
    "The prediction is converted with the limited divisor, and compared with the exact velocity: at the "
    "limit even "
    "a right prediction has a loss. Compare it with its own target, then divide.": _converted_loss,
}

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
            _TARGETS,
        ),
        **{message: (function, _WEIGHTS) for message, function in _OTHER_DIVISORS.items()},
        **{message: (function, _TARGETS) for message, function in _OTHER_TARGETS.items()},
        "The channels of an image are added up; its numbers must all be averaged.": _loss(
            error=lambda difference: difference.square().mean((2, 3)).sum(1)
        ),
        "The differences are averaged before they are squared; it must be the other way around.": _loss(
            error=lambda difference: difference.mean((1, 2, 3)).square()
        ),
        "This has the root of the mean square; the mean square itself is asked for.": _loss(
            error=lambda difference: difference.square().mean((1, 2, 3)).sqrt()
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
