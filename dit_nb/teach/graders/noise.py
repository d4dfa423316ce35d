"""Graders of lesson 02: the posterior over a set of images, and over their classes."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_label_posterior", "check_posterior_weights"]

_POSTERIOR = "lesson 02, 'Which image is behind the noise?'"
_LITTLE_NOISE = "with little noise"
_UNDERFLOW = (
    "It is right until there is little noise: then exponentials round to 0 or become infinite, and the rows no longer "
    "sum to 1. Subtract the largest exponent first."
)


def _posterior_weights_loops(x_t: Tensor, alpha_bar: Tensor, images: Tensor) -> Tensor:
    """Bayes' rule with log densities of the noise, one image at a time."""
    rows = []
    for noisy, bar in zip(x_t, alpha_bar.tolist()):
        logs = []
        for image in images:
            noise = ((noisy - math.sqrt(bar) * image) / math.sqrt(1 - bar)).flatten().tolist()
            logs.append(-sum(e * e for e in noise) / 2)
        top = max(logs)
        odds = [math.exp(log - top) for log in logs]
        rows.append([value / sum(odds) for value in odds])
    return x_t.new_tensor(rows)


def _noisy_set(rng: RandomInputs, n: int, m: int, shape: tuple, low: float, high: float) -> tuple:
    """N noisy images of a set of M; the sets are so close that several images stay possible."""
    images = 0.5 * rng.normal(m, *shape)
    bar = rng.uniform(low, high, n)
    scale = bar.reshape(-1, 1, 1, 1)
    clean = images[rng.integers(0, m, n)]
    return scale.sqrt() * clean + 0.7 * (1 - scale).sqrt() * rng.normal(n, *shape), bar, images


def _weights_cases(rng: RandomInputs) -> list[Case]:
    """N equal to the width and to the number of images; then others, and hardly any noise."""
    cases = [
        ((4, 4, (2, 3, 4), 0.2, 0.6), "4 noisy images, 4 known ones"),
        ((3, 5, (1, 2, 2), 0.1, 0.5), "3 noisy images, 5 known ones"),
        ((2, rng.choice(6, 7), (3, 1, 2), 0.3, 0.8), "images of 3x1x2"),
    ]
    found = [Case(label, _noisy_set(rng, *args)) for args, label in cases]
    x_t, _, images = _noisy_set(rng, 3, 5, (1, 2, 3), 0.9, 0.95)
    gap = 40 + rng.uniform(0, 1, 3)  # far from all images: every exponential underflows
    far = x_t + gap.reshape(-1, 1, 1, 1)
    return [*found, Case(_LITTLE_NOISE, (far, 1 - rng.uniform(0.001, 0.002, 3), images), _UNDERFLOW)]


def _weights(
    x_t: Tensor,
    alpha_bar: Tensor,
    images: Tensor,
    signal: Callable = torch.sqrt,  # what multiplies the clean images
    variance: Callable = lambda bar: 2 * (1 - bar),  # what divides the distances
    distance: Callable = lambda gaps: gaps.square().sum((2, 3, 4)),
    normalize: Callable = lambda logits: logits.softmax(1),
    axes: tuple = (-1, 1, 1, 1, 1),  # shape of alpha_bar beside the differences
) -> Tensor:
    """Posterior weights with parameters for known mistakes."""
    gaps = x_t[:, None] - signal(alpha_bar).reshape(axes) * images
    return normalize(-distance(gaps) / variance(alpha_bar)[:, None])


def _wrong(**options) -> Callable:
    return partial(_weights, **options)


def _exp_over_sum(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def _guarded(least: float) -> Callable:
    """Exponentials over their sum, to which a small number is added."""
    return lambda logits: logits.exp() / (logits.exp().sum(1, keepdim=True) + least)


_NO_ROOT = "The clean images are multiplied by alpha_bar; inside x_t they have its square root."
_NOT_SCALED = "The clean images are compared at full strength; inside x_t they are smaller."
_NO_TWO = "The exponents are twice as large as they should be: a 2 is missing in the density of a Gaussian."
_DEVIATION = "The squared distances are divided by a standard deviation; a Gaussian has the variance there."
_NO_VARIANCE = "The squared distances are not divided by the variance of the noise."
_SIGNAL_VARIANCE = (
    "The squared distances are divided by the variance of the signal, not by that of the noise."
)
_HALVED = "The squared distances are halved, but not divided by the variance of the noise."
_VARIANCE_SQUARED = "1 - alpha_bar is taken for the standard deviation of the noise; it is the variance."
_TIMES_VARIANCE = "The squared distances are multiplied by the variance of the noise: / 2 * (1 - ...) divides by the 2 only."
_ONE_MINUS_ROOT = "The variance of the noise is taken as 1 minus the root of alpha_bar."
_RESCALED = (
    "The noisy images are divided by the root of alpha_bar, which makes their noise larger too: "
    "the variance changes."
)
_EXCHANGED = "The clean images have the coefficient of the noise."
_NOT_SQUARED = "The distances are not squared."
_ABSOLUTE = "Absolute differences are added up; a Gaussian needs the squared ones."
_PIXEL_MEAN = (
    "The squared differences are averaged over the pixels; the noise of all pixels counts, so add them up."
)
_CHANNEL_MEAN = "The squared differences are averaged over the channels; the noise of all channels counts, so add them up."
_PLANE_MEAN = (
    "The squared differences are added over the channels, but averaged over the places of the image; "
    "the noise of all counts, so add them up."
)
_GUARDED = (
    "A small number is added to the sum of the exponentials, which changes the weights; with little noise all "
    "exponentials round to 0: subtract the largest exponent first."
)
_FARTHEST = "The farthest image gets the largest probability: a sign is wrong."
_NAN = "With little noise exponentials round to 0 or become infinite, and 0 / 0 is nan: subtract the largest exponent first."
_COLUMNS = (
    "The coefficients of the batch are applied to the columns of each image: if N equals the width, "
    "that raises no error."
)
_FIRST = "The first alpha_bar is used for all noisy images; each has its own."

_IN_WEIGHTS = {
    _NO_ROOT: (_wrong(signal=lambda bar: bar), "lesson 02, 'A noisy image'."),
    _NOT_SCALED: (_wrong(signal=torch.ones_like), "lesson 02, 'A noisy image'."),
    _NO_TWO: _wrong(variance=lambda bar: 1 - bar),
    _DEVIATION: _wrong(variance=lambda bar: 2 * (1 - bar).sqrt()),
    _NO_VARIANCE: _wrong(variance=torch.ones_like),
    _HALVED: _wrong(variance=lambda bar: torch.full_like(bar, 2)),
    _SIGNAL_VARIANCE: _wrong(variance=lambda bar: 2 * bar),
    _VARIANCE_SQUARED: (_wrong(variance=lambda bar: 2 * (1 - bar) ** 2), f"{_POSTERIOR}."),
    _TIMES_VARIANCE: (
        _wrong(variance=lambda bar: 2 / (1 - bar)),
        "the order of * and / without parentheses.",
    ),
    _ONE_MINUS_ROOT: (_wrong(variance=lambda bar: 2 * (1 - bar.sqrt())), "lesson 02, 'A noisy image'."),
    _RESCALED: _wrong(variance=lambda bar: 2 * (1 - bar) * bar),
    _EXCHANGED: (_wrong(signal=lambda bar: (1 - bar).sqrt()), "lesson 02, 'A noisy image'."),
    _NOT_SQUARED: _wrong(distance=lambda gaps: gaps.square().sum((2, 3, 4)).sqrt()),
    _ABSOLUTE: _wrong(distance=lambda gaps: gaps.abs().sum((2, 3, 4))),
    _PIXEL_MEAN: _wrong(distance=lambda gaps: gaps.square().mean((2, 3, 4))),
    _CHANNEL_MEAN: _wrong(distance=lambda gaps: gaps.square().mean(2).sum((2, 3))),
    _PLANE_MEAN: _wrong(distance=lambda gaps: gaps.square().mean((3, 4)).sum(2)),
    _UNDERFLOW: _wrong(normalize=_guarded(1e-10)),
    _GUARDED: _wrong(normalize=_guarded(1e-8)),
    _FARTHEST: _wrong(normalize=lambda logits: (-logits).softmax(1)),
    _NAN: _wrong(normalize=_exp_over_sum),
    _FIRST: lambda x_t, alpha_bar, images: _weights(x_t, alpha_bar[:1].expand_as(alpha_bar), images),
}


def _one_hot_of_largest(weights: Tensor) -> Tensor:
    return F.one_hot(weights.argmax(1), weights.shape[1]).to(weights.dtype)


_POSTERIOR_WEIGHTS = Exercise(
    "posterior_weights",
    _posterior_weights_loops,
    _weights_cases,
    {
        **_IN_WEIGHTS,
        _COLUMNS: (_wrong(axes=(-1,)), "the shape of alpha_bar in the product."),
        "Each column sums to 1; each row must: the images compete for one noisy image.": (
            _wrong(normalize=lambda logits: logits.softmax(0)),
            "the axis of the softmax.",
        ),
        "The weights are not divided by their sum.": _wrong(normalize=torch.exp),
        "These are logarithms of probabilities.": _wrong(normalize=lambda logits: logits.log_softmax(1)),
        "These are exponents; a softmax is missing.": _wrong(normalize=lambda logits: logits),
        "All is on the nearest image; the others are possible too.": _wrong(
            normalize=lambda logits: _one_hot_of_largest(logits)
        ),
        "The weights are divided by the largest one; they must be divided by their sum.": _wrong(
            normalize=lambda logits: (logits - logits.amax(1, keepdim=True)).exp()
        ),
        "All images get the same weight, whatever the noisy image shows.": _wrong(
            normalize=lambda logits: torch.full_like(logits, 1 / logits.shape[1])
        ),
        "The exponents are divided by their sum; a softmax takes their exponentials first.": _wrong(
            normalize=lambda logits: logits / logits.sum(1, keepdim=True)
        ),
        "The softmax comes twice: probabilities are no exponents.": _wrong(
            normalize=lambda logits: logits.softmax(1).softmax(1)
        ),
        "The exponents are half as large as they should be: the 2 of the density is there twice.": _wrong(
            variance=lambda bar: 4 * (1 - bar)
        ),
        "The 2 of the density multiplies the distances; it must divide them.": _wrong(
            variance=lambda bar: (1 - bar) / 2
        ),
    },
    f"{_POSTERIOR}.",
    tolerance=1e-7,
)


def check_posterior_weights(fn: Callable, **grade_options) -> Report:
    """Check fn(x_t (N, C, H, W), alpha_bar (N,), images (M, C, H, W)) -> (N, M)."""
    return grade(_POSTERIOR_WEIGHTS, fn, **grade_options)


def _label_posterior_loops(
    x_t: Tensor, alpha_bar: Tensor, images: Tensor, labels: Tensor, num_classes: int
) -> Tensor:
    weights = _posterior_weights_loops(x_t, alpha_bar, images).tolist()
    rows = [[0.0] * num_classes for _ in weights]
    for row, of_images in zip(rows, weights):
        for label, weight in zip(labels.tolist(), of_images):
            row[label] += weight
    return x_t.new_tensor(rows)


def _many_against_one(rng: RandomInputs) -> tuple:
    """The nearest image is alone in its class; four of the other class are a little farther, and win together."""
    near, direction, bar = 0.5 * rng.normal(1, 2, 2, 3), rng.normal(1, 2, 2, 3), rng.uniform(0.4, 0.6, 2)
    far = near + direction * math.sqrt(12) / direction.norm()
    x_t = bar.sqrt().reshape(-1, 1, 1, 1) * (0.54 * near + 0.46 * far)
    images = torch.cat([far + 0.01 * rng.normal(2, 2, 2, 3), near, far + 0.01 * rng.normal(2, 2, 2, 3)])
    return x_t, bar, images, torch.tensor([1, 1, 0, 1, 1]), 2


def _label_cases(rng: RandomInputs) -> list[Case]:
    """Classes of different sizes; classes without images, also the last one; hardly any noise."""
    sets = [
        ((4, 7, (2, 3, 4), 0.2, 0.6), [0, 0, 0, 1, 1, 2, 2], 3, "7 images, 3 classes"),
        ((3, 6, (1, 2, 2), 0.1, 0.5), [0, 0, 2, 2, 2, 2], 4, "a class without images"),
        ((2, 8, (3, 1, 2), 0.3, 0.8), [0, 0, 0, 0, 0, 1, 1, 2], 3, "classes of different sizes"),
    ]
    found = []
    for args, labels, k, name in sets:
        order = torch.randperm(len(labels), generator=rng.generator)
        found.append(Case(name, (*_noisy_set(rng, *args), torch.tensor(labels)[order], k)))
    little = _weights_cases(rng)[-1].args
    return [
        *found,
        Case("one image against four", _many_against_one(rng)),
        Case(_LITTLE_NOISE, (*little, torch.tensor([1, 0, 1, 2, 0]), 3), _UNDERFLOW),
    ]


def _per_class(weights: Tensor, labels: Tensor, k: int, of: Callable) -> Tensor:
    """Apply a function to the weights (N, images of the class) of each class."""
    return torch.stack([of(weights[:, labels == c]) for c in range(k)], 1)


def _sums(weights: Tensor, labels: Tensor, k: int) -> Tensor:
    return _per_class(weights, labels, k, lambda w: w.sum(1))


def _means(weights: Tensor, labels: Tensor, k: int) -> Tensor:
    return _per_class(weights, labels, k, lambda w: w.sum(1) / max(w.shape[1], 1))


def _largest(weights: Tensor, labels: Tensor, k: int) -> Tensor:
    return _per_class(weights, labels, k, lambda w: F.pad(w, (0, 1)).amax(1))


def _last_only(weights: Tensor, labels: Tensor, k: int) -> Tensor:
    return _per_class(weights, labels, k, lambda w: F.pad(w, (1, 0))[:, -1])


def _divided(classes: Callable) -> Callable:
    """Normalize the rows of a result."""

    def normalized(weights, labels, k):
        rows = classes(weights, labels, k)
        return rows / rows.sum(1, keepdim=True)

    return normalized


def _divided_in_class(weights: Tensor, labels: Tensor, k: int) -> Tensor:
    return _per_class(weights, labels, k, lambda w: w.new_full((len(w),), float(w.shape[1] > 0)))


def _label_posterior(weights: Callable = _weights, classes: Callable = _sums) -> Callable:
    """label_posterior with parameters for known mistakes."""
    return lambda x_t, bar, images, labels, k: classes(weights(x_t, bar, images), labels, k)


def _of_class_means(x_t: Tensor, alpha_bar: Tensor, images: Tensor, labels: Tensor, num_classes: int):
    """Compare with the mean image of each class."""
    found = labels.unique()
    means = torch.stack([images[labels == c].mean(0) for c in found])
    result = x_t.new_zeros(len(x_t), num_classes)
    result[:, found] = _weights(x_t, alpha_bar, means)
    return result


def _renumbered(labels: Tensor) -> tuple[Tensor, int]:
    """Number the classes that occur, and count them."""
    found, numbers = labels.unique(return_inverse=True)
    return numbers, len(found)


def _by_appearance(labels: Tensor) -> Tensor:
    """Number the classes in the order in which they appear."""
    order = list(dict.fromkeys(labels.tolist()))
    return torch.tensor([order.index(label) for label in labels.tolist()])


def _of_all_class_means(x_t: Tensor, alpha_bar: Tensor, images: Tensor, labels: Tensor, num_classes: int):
    """Compare with the mean image of each class; without images it is nan."""
    means = torch.stack([images[labels == c].mean(0) for c in range(num_classes)])
    return _weights(x_t, alpha_bar, means)


_LABEL_POSTERIOR = Exercise(
    "label_posterior",
    _label_posterior_loops,
    _label_cases,
    {
        **{
            message: (_label_posterior(made[0] if isinstance(made, tuple) else made), f"{_POSTERIOR}.")
            for message, made in _IN_WEIGHTS.items()
        },
        "The probabilities of a class are averaged, and a class without images gets nan; add them up.": (
            _label_posterior(classes=lambda w, labels, k: _per_class(w, labels, k, lambda part: part.mean(1)))
        ),
        "The probabilities of a class are averaged; add them up.": _label_posterior(classes=_means),
        "The probabilities of a class are averaged and divided by their sum: a class with many images "
        "loses what it has by their number.": _label_posterior(classes=_divided(_means)),
        "Each class gets the probability of its most probable image only.": _label_posterior(
            classes=_largest
        ),
        "Each class gets the probability of its most probable image only, divided by the sum.": (
            _label_posterior(classes=_divided(_largest))
        ),
        "All is on the class of the most probable image; the others are possible too.": _label_posterior(
            classes=lambda w, labels, k: _sums(_one_hot_of_largest(w), labels, k)
        ),
        "All is on the most probable class; return the probabilities.": _label_posterior(
            classes=lambda w, labels, k: _one_hot_of_largest(_sums(w, labels, k))
        ),
        "Each class keeps one of its images: with an index that repeats, += adds only one value.": (
            _label_posterior(classes=_last_only),
            "the last hint of the exercise.",
        ),
        "Each class is normalized by itself, so that each has all the probability.": _label_posterior(
            classes=lambda w, labels, k: _divided_in_class(w, labels, k)
        ),
        "The probabilities go through a softmax once more: they sum to 1 already.": _label_posterior(
            classes=lambda w, labels, k: _sums(w, labels, k).softmax(1)
        ),
        "Each noisy image is compared with the mean image of each class; compare it with all images.": (
            _of_class_means
        ),
        "This is how frequent each class is, whatever the noisy image shows.": (
            lambda x_t, bar, images, labels, k: (F.one_hot(labels, k).to(x_t.dtype).mean(0)).expand(
                len(x_t), k
            )
        ),
        "Each noisy image is compared with the mean image of each class, which is nan for a class without images.": (
            _of_all_class_means
        ),
        "The number of classes is taken from the labels: a last class without images is lost.": (
            _label_posterior(classes=lambda w, labels, k: _sums(w, labels, int(labels.max()) + 1)),
            "the argument num_classes.",
        ),
        "Only classes with images get a column; each of the num_classes classes needs one.": (
            lambda x_t, bar, images, labels, k: _sums(_weights(x_t, bar, images), *_renumbered(labels)),
            "the argument num_classes.",
        ),
        "Columns are numbered over the classes that occur; a class without images keeps its column.": (
            _label_posterior(classes=lambda w, labels, k: _sums(w, _renumbered(labels)[0], k)),
            "the argument num_classes.",
        ),
        "Columns are numbered in the order in which the classes appear; each class has the column of its number.": (
            _label_posterior(classes=lambda w, labels, k: _sums(w, _by_appearance(labels), k)),
            "the argument num_classes.",
        ),
        "The sums are divided by the number of classes; they sum to 1 already.": _label_posterior(
            classes=lambda w, labels, k: _sums(w, labels, k) / k
        ),
        "The sums are divided by the number of all images; they sum to 1 already.": _label_posterior(
            classes=lambda w, labels, k: _sums(w, labels, k) / w.shape[1]
        ),
        "The sums are multiplied by how frequent a class is; the number of its images has counted already.": _label_posterior(
            classes=lambda w, labels, k: _sums(w, labels, k) * F.one_hot(labels, k).to(w.dtype).mean(0)
        ),
        "These are logarithms of the probabilities of the classes.": _label_posterior(
            classes=lambda w, labels, k: _sums(w, labels, k).log()
        ),
        "The probabilities of a class are multiplied; it is one of its images or another, so add them up.": _label_posterior(
            classes=lambda w, labels, k: _per_class(w, labels, k, lambda each: each.prod(1))
        ),
        "This is the probability that it is another class.": _label_posterior(
            classes=lambda w, labels, k: 1 - _sums(w, labels, k)
        ),
    },
    "lesson 02, 'Which image is behind the noise?', and what the probability of 'this or that' is.",
    tolerance=1e-7,
)


def check_label_posterior(fn: Callable, **grade_options) -> Report:
    """Check fn(x_t (N, C, H, W), alpha_bar (N,), images (M, C, H, W), labels (M,), num_classes) -> (N, K)."""
    return grade(_LABEL_POSTERIOR, fn, **grade_options)
