"""Grader of lesson 00: a prediction with one label for the upper half and another for the lower."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_two_labels"]


class _ToyModel(NamedTuple):
    """A model whose every output number depends on the whole image, on t and on y, in no linear way."""

    own: Tensor  # (2C, C), weights of a pixel
    whole: Tensor  # (2C, C), weights of the whole image
    time: Tensor  # (2C,), frequencies
    label: Tensor  # (2C,), frequencies

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2C, H, W)
        rows, columns = (torch.arange(size).to(x) for size in x.shape[2:])
        place = torch.cos(0.9 * rows[:, None] + 1.7 * columns + 0.4)  # (H, W)
        whole = torch.tanh(x * place + place).mean((2, 3)) @ self.whole.T  # (N, 2C)
        time, label = torch.sin(t[:, None] / 100 * self.time), torch.sin(y[:, None] * self.label + 0.3)
        pixel = torch.einsum("kc,nchw->nkhw", self.own, x)
        return torch.tanh(pixel * (1 + label)[..., None, None] + (whole + time)[..., None, None])


_SINGLE = "It is right for several images and wrong for a single one: is the axis of the images lost?"


def _model_cases(rng: RandomInputs) -> list[Case]:
    """High and wide images, one with two rows, a single one; all labels and timesteps differ."""
    sizes = [(3, 1, 8, 10), (5, 3, 4, 7), (3, 2, 10, 7), (3, 4, 2, 5), (1, 2, 6, 5)]
    sizes.append((rng.choice(3, 5), rng.choice(2, 4), rng.choice(6, 12), rng.choice(7, 9)))
    label, cases = "N = {}, C = {}, H = {}, W = {}", []
    for n, c, h, w in sizes:
        weights = rng.normal(2 * c, c) / c**0.5, 2 * rng.normal(2 * c, c) / c**0.5
        model = _ToyModel(*weights, rng.uniform(0.3, 0.9, 2 * c), rng.uniform(0.3, 1.2, 2 * c))
        labels = torch.randperm(10, generator=rng.generator)
        inputs = rng.normal(n, c, h, w), 100 * labels[:n] + rng.integers(1, 99, n), labels[:n], labels[-n:]
        cases.append(Case(label.format(n, c, h, w), (model, *inputs), _SINGLE if n == 1 else ""))
    return cases


def _row_by_row(model: _ToyModel, x: Tensor, t: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    images = []
    for n in range(len(x)):
        labels = [top[n]] * (x.shape[2] // 2) + [bottom[n]] * (x.shape[2] // 2)
        one = [model(x[n : n + 1], t[n : n + 1], label[None])[0, :, i] for i, label in enumerate(labels)]
        images.append(torch.stack(one, 1))
    return torch.stack(images)


def _chosen(of_top: Callable) -> Callable:
    """Take the prediction for `top` where of_top(image, channel, row, column, shape) holds."""

    def two(model, x, t, top, bottom):
        a, b = model(x, t, top), model(x, t, bottom)
        indices = torch.meshgrid(*map(torch.arange, a.shape), indexing="ij")
        return torch.where(of_top(*indices, a.shape), a, b)

    return two


def _joined(join: Callable) -> Callable:
    """Make another result of the two predictions: join(with top, with bottom, H/2)."""
    return lambda model, x, t, top, bottom: join(model(x, t, top), model(x, t, bottom), x.shape[2] // 2)


def _halves(a: Tensor, b: Tensor, half: int) -> Tensor:
    return torch.cat([a[:, :, :half], b[:, :, half:]], 2)


def _asked(ask: Callable) -> Callable:
    """The right halves of two predictions that are asked for in another way: ask(model, x, t, label)."""
    return lambda model, x, t, top, bottom: _halves(
        ask(model, x, t, top), ask(model, x, t, bottom), x.shape[2] // 2
    )


def _cropped(model, x, t, top, bottom):
    upper, lower = x.chunk(2, 2)
    return torch.cat([model(upper, t, top), model(lower, t, bottom)], 2)


def _blanked(model, x, t, top, bottom):
    upper, lower = x.clone(), x.clone()
    half = x.shape[2] // 2
    upper[:, :, half:], lower[:, :, :half] = 0, 0
    return _halves(model(upper, t, top), model(lower, t, bottom), half)


def _one_after_the_other(model, x, t, top, bottom):
    half, a = x.shape[2] // 2, model(x, t, top)
    between = torch.cat([a[:, : x.shape[1], :half], x[:, :, half:]], 2)
    return _halves(a, model(between, t, bottom), half)


def _blended(a: Tensor, b: Tensor, half: int) -> Tensor:
    weight = torch.linspace(1, 0, 2 * half, dtype=a.dtype)[:, None]
    return weight * a + (1 - weight) * b


_ROWS = "rows are the third axis of (N, 2C, H, W)"
_WHICH = "lesson 00, 'Two labels for one image': which rows come from which prediction."
_SHAPE = "which axes of (N, 2C, H, W) the result must keep whole."
_CALL = "what the model receives in each of the two calls."
_EACH = "each image has a timestep and two labels of its own."

_TWO_LABELS = Exercise(
    "two_labels",
    _row_by_row,
    _model_cases,
    {
        "The halves are exchanged: `top` belongs to the upper rows, which come first.": (
            _chosen(lambda n, k, row, column, shape: row >= shape[2] // 2),
            _WHICH,
        ),
        f"The halves are left and right, cut along the columns; {_ROWS}.": (
            _chosen(lambda n, k, row, column, shape: column < shape[3] // 2),
            _WHICH,
        ),
        f"The columns are cut at H/2, as an index on the last axis does; {_ROWS}.": (
            _chosen(lambda n, k, row, column, shape: column < shape[2] // 2),
            _SHAPE,
        ),
        f"The channels are cut at H/2, as an index on the second axis does; {_ROWS}.": (
            _chosen(lambda n, k, row, column, shape: k < shape[2] // 2),
            _SHAPE,
        ),
        f"The images are cut at H/2, as an index on the first axis does; {_ROWS}.": (
            _chosen(lambda n, k, row, column, shape: n < shape[2] // 2),
            _SHAPE,
        ),
        "The first half of the images gets `top`, the rest gets `bottom`; each image needs both.": (
            _chosen(lambda n, k, row, column, shape: n < shape[0] // 2),
            _SHAPE,
        ),
        "The noise is that of `top`, the rest that of `bottom`; split the rows, not the channels.": (
            _chosen(lambda n, k, row, column, shape: k < shape[1] // 2),
            _SHAPE,
        ),
        "Only the noise has two labels; the numbers for the variance all come from `top`.": (
            _chosen(lambda n, k, row, column, shape: (row < shape[2] // 2) | (k >= shape[1] // 2)),
            _SHAPE,
        ),
        "Only the noise has two labels; the numbers for the variance all come from `bottom`.": (
            _chosen(lambda n, k, row, column, shape: (row < shape[2] // 2) & (k < shape[1] // 2)),
            _SHAPE,
        ),
        "Only the first channel has two labels; all 2C channels must.": (
            _chosen(lambda n, k, row, column, shape: (row < shape[2] // 2) | (k >= 1)),
            _SHAPE,
        ),
        "The labels alternate from row to row; the upper half is the first H/2 rows.": (
            _chosen(lambda n, k, row, column, shape: row % 2 == 0),
            _WHICH,
        ),
        "The upper half has one row too many; it ends with row H/2 - 1.": (
            _chosen(lambda n, k, row, column, shape: row < shape[2] // 2 + 1),
            _WHICH,
        ),
        "The upper half has one row too few; it ends with row H/2 - 1.": (
            _chosen(lambda n, k, row, column, shape: row < shape[2] // 2 - 1),
            _WHICH,
        ),
        "The upper half always has 4 rows, as for the digits; it must have H/2.": (
            _chosen(lambda n, k, row, column, shape: row < 4),
            _WHICH,
        ),
        "The upper half has W/2 rows: the width is taken for the height.": (
            _chosen(lambda n, k, row, column, shape: row < shape[3] // 2),
            "which number of the shape is H.",
        ),
        "The upper half has C rows: half of the channels is taken for half of the height.": (
            _chosen(lambda n, k, row, column, shape: row < shape[1] // 2),
            "which number of the shape is H.",
        ),
        "All rows come from the prediction with `top`.": (
            _chosen(lambda n, k, row, column, shape: row >= 0),
            _WHICH,
        ),
        "All rows come from the prediction with `bottom`.": (
            _chosen(lambda n, k, row, column, shape: row < 0),
            _WHICH,
        ),
        "The model gets half of the image in each call; it must see the whole image both times.": (
            _cropped,
            _CALL,
        ),
        "Half of the image is set to 0 before the model gets it; it must see the whole image both times.": (
            _blanked,
            _CALL,
        ),
        "The second call gets the first prediction as the upper rows of x; it must get x as it is.": (
            _one_after_the_other,
            _CALL,
        ),
        "The model gets t = 0 instead of the given timesteps.": (
            _asked(lambda model, x, t, y: model(x, torch.zeros_like(t), y)),
            _EACH,
        ),
        "All images get the timestep of the first one; each has its own.": (
            _asked(lambda model, x, t, y: model(x, t[:1], y)),
            _EACH,
        ),
        "All images get the labels of the first one; each has its own.": (
            _asked(lambda model, x, t, y: model(x, t, y[:1])),
            _EACH,
        ),
        "The timestep and the label are exchanged in the call: the model takes x, t, y.": (
            _asked(lambda model, x, t, y: model(x, y, t)),
            _CALL,
        ),
        "The labels are averaged; the mean of two class numbers is no mix of the two classes.": (
            lambda model, x, t, top, bottom: model(x, t, (top + bottom) / 2),
            _CALL,
        ),
        "The labels are averaged and rounded down, which gives the number of another class.": (
            lambda model, x, t, top, bottom: model(x, t, (top + bottom) // 2),
            _CALL,
        ),
        "The two predictions are averaged in all rows; each row comes from one of them.": (
            _joined(lambda a, b, half: (a + b) / 2),
            _WHICH,
        ),
        "The two predictions are added in all rows; each row comes from one of them.": (
            _joined(lambda a, b, half: a + b),
            _WHICH,
        ),
        "One prediction changes gradually into the other; each row comes from one of them.": (
            _joined(_blended),
            _WHICH,
        ),
        "Both halves are upper rows; the lower half needs the lower rows of its prediction.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, :half], b[:, :, :half]], 2)),
            _WHICH,
        ),
        "Both halves are lower rows; the upper half needs the upper rows of its prediction.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, half:], b[:, :, half:]], 2)),
            _WHICH,
        ),
        "The lower rows are 0; they come from the prediction with `bottom`.": (
            _joined(lambda a, b, half: _halves(a, 0 * b, half)),
            _WHICH,
        ),
        "The upper rows are 0; they come from the prediction with `top`.": (
            _joined(lambda a, b, half: _halves(0 * a, b, half)),
            _WHICH,
        ),
        "Only the upper rows are returned; the lower ones are missing.": (
            _joined(lambda a, b, half: a[:, :, :half]),
            _SHAPE,
        ),
        "Only the noise is returned; the model returns 2C channels, and so must you.": (
            _joined(lambda a, b, half: _halves(a, b, half)[:, : a.shape[1] // 2]),
            _SHAPE,
        ),
        f"The halves are joined along the images; {_ROWS}.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, :half], b[:, :, half:]], 0)),
            _SHAPE,
        ),
        f"The halves are joined along the channels; {_ROWS}.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, :half], b[:, :, half:]], 1)),
            _SHAPE,
        ),
        f"The halves are joined side by side, along the columns; {_ROWS}.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, :half], b[:, :, half:]], 3)),
            _SHAPE,
        ),
        "Both predictions are joined whole, which gives 2H rows; take half of each.": (
            _joined(lambda a, b, half: torch.cat([a, b], 2)),
            _SHAPE,
        ),
        "Row H/2 is missing: the lower half begins with it.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, :half], b[:, :, half + 1 :]], 2)),
            _WHICH,
        ),
        "Row H/2 is there twice: it belongs to the lower half alone.": (
            _joined(lambda a, b, half: torch.cat([a[:, :, : half + 1], b[:, :, half:]], 2)),
            _WHICH,
        ),
        "The halves are left and right, and exchanged; the upper half of an image is its first rows.": (
            _chosen(lambda n, k, row, column, shape: column >= shape[3] // 2),
            _WHICH,
        ),
        "Only the numbers for the variance have two labels; the noise all comes from `top`.": (
            _chosen(lambda n, k, row, column, shape: (row < shape[2] // 2) | (k < shape[1] // 2)),
            _SHAPE,
        ),
        "The upper part is a quarter of the rows; it must be half of them.": (
            _chosen(lambda n, k, row, column, shape: row < shape[2] // 4),
            _WHICH,
        ),
        "The labels alternate from row to row, and begin with `bottom`; the first H/2 rows get `top`.": (
            _chosen(lambda n, k, row, column, shape: row % 2 == 1),
            _WHICH,
        ),
        "The larger half of the images gets `top`, the rest gets `bottom`; each image needs both.": (
            _chosen(lambda n, k, row, column, shape: n < (shape[0] + 1) // 2),
            _SHAPE,
        ),
        "The timesteps are divided by 1000; the model takes them as they are.": (
            _asked(lambda model, x, t, y: model(x, t / 1000, y)),
            _CALL,
        ),
        "This is the difference of the two predictions; each row comes from one of them.": (
            _joined(lambda a, b, half: a - b),
            _WHICH,
        ),
        "The larger of the two predictions is taken, number by number; each row comes from one of them.": (
            _joined(lambda a, b, half: torch.maximum(a, b)),
            _WHICH,
        ),
        "The noise is subtracted from x; return the prediction, sampling does the rest.": (
            lambda model, x, t, top, bottom: (
                x - _halves(model(x, t, top), model(x, t, bottom), x.shape[2] // 2)[:, : x.shape[1]]
            ),
            _SHAPE,
        ),
    },
    "lesson 00, 'Two labels for one image': which rows are whose, and what the model receives.",
    result_names=("prediction",),
    reference=_joined(_halves),
)


def check_two_labels(fn: Callable, **grade_options) -> Report:
    """Check fn(model, x (N, C, H, W), t (N,), top (N,), bottom (N,)) -> prediction (N, 2C, H, W)."""
    return grade(_TWO_LABELS, fn, **grade_options)
