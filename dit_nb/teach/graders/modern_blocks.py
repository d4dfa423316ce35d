"""Graders of lesson 31: rotary positions on two axes, and attention scores of normalized queries and keys."""

import cmath
import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_axial_rotation", "check_normalized_scores"]


def _rotation_loops(x: Tensor, rows: int, columns: int, theta: float) -> Tensor:
    """Multiply one pair of channels after the other, as a complex number, by one of length 1."""
    out, half = torch.empty_like(x), x.shape[3] // 2
    for token in range(rows * columns):
        for pair in range(half):
            place = (token // columns, token % columns)[pair >= half // 2]
            turn = cmath.exp(1j * place * theta ** (-2 * (pair % (half // 2)) / half))
            both = torch.complex(x[:, :, token, 2 * pair], x[:, :, token, 2 * pair + 1]) * turn
            out[:, :, token, 2 * pair], out[:, :, token, 2 * pair + 1] = both.real, both.imag
    return out


def _rotation_cases(rng: RandomInputs) -> list[Case]:
    """Grids that are not square, heads of several widths, and two thetas."""
    sizes = [(2, 3, 2, 4, 16, 10000.0), (1, 2, 4, 3, 8, 100.0), (2, 1, 3, 5, 12, rng.choice(50.0, 300.0))]
    label = "{2} x {3} patches, d = {4}, theta = {5:g}"
    return [Case(label.format(*s), (rng.normal(*s[:2], s[2] * s[3], s[4]), *s[2:4], s[5])) for s in sizes]


def _places(rows: int, columns: int) -> list[Tensor]:
    """Row and column of each token."""
    token = torch.arange(rows * columns)
    return [(token // columns).double(), (token % columns).double()]


def _angles(places: list[Tensor], omega: Tensor) -> Tensor:  # (T, d/2)
    return torch.cat([place[:, None] * omega for place in places], 1)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs of neighboring channels."""
    a, b = x[..., ::2], x[..., 1::2]
    c, s = angles.cos(), angles.sin()
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)


def _frequencies(d: int, theta: float) -> Tensor:  # (d/4,)
    return theta ** (-torch.arange(0, d // 2, 2).double() / (d // 2))


def _rotation(
    places: Callable = _places,
    omega: Callable = _frequencies,
    turn: Callable = _turn,
    join: Callable = _angles,
) -> Callable:
    """The rotation with other places, frequencies, angles, or another way to rotate."""
    return lambda x, rows, columns, theta: turn(x, join(places(rows, columns), omega(x.shape[-1], theta)))


def _turn_halves(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def _turn_halves_of_axes(x: Tensor, angles: Tensor) -> Tensor:
    parts = zip(x.chunk(2, -1), angles.chunk(2, -1))
    return torch.cat([_turn_halves(part, angle) for part, angle in parts], -1)


def _turn_and_separate(x: Tensor, angles: Tensor) -> Tensor:
    turned = _turn(x, angles)
    return torch.cat([turned[..., ::2], turned[..., 1::2]], -1)


def _reflect(x: Tensor, angles: Tensor) -> Tensor:
    return _turn(torch.stack([x[..., ::2], -x[..., 1::2]], -1).flatten(-2), angles)


def _turn_in_place(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    a = a * angles.cos() - b * angles.sin()
    return torch.stack([a, a * angles.sin() + b * angles.cos()], -1).flatten(-2)


def _add_waves(x: Tensor, angles: Tensor) -> Tensor:
    return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def _by_number(x: Tensor, rows: int, columns: int, theta: float) -> Tensor:
    omega = theta ** (-torch.arange(0, x.shape[-1], 2).double() / x.shape[-1])
    return _turn(x, torch.arange(rows * columns).double()[:, None] * omega)


def _one_list(places: list[Tensor], omega: Tensor) -> Tensor:
    first, second = omega.chunk(2)
    return torch.cat([places[0][:, None] * first, places[1][:, None] * second], 1)


def _by_division(row: Callable, column: Callable) -> Callable:
    """The rotation with places computed from the token's number in another way."""

    def places(rows, columns):
        token = torch.arange(rows * columns)
        return [found(token, rows, columns).double() for found in (row, column)]

    return _rotation(places)


def _with_exponent(exponent: Callable, join: Callable = _angles) -> Callable:
    """The rotation with frequencies theta to another power, (k, d) -> (d/4,)."""
    return _rotation(omega=lambda d, theta: theta ** exponent(torch.arange(d // 4).double(), d), join=join)


def _with_lines(first: Callable, second: Callable) -> Callable:
    """The rotation with other lines, (a, b, cos, sin) -> the first and the second channel of a pair."""

    def turn(x, angles):
        parts = x[..., ::2], x[..., 1::2], angles.cos(), angles.sin()
        return torch.stack([first(*parts), second(*parts)], -1).flatten(-2)

    return _rotation(turn=turn)


def _turn_halves_and_interleave(x: Tensor, angles: Tensor) -> Tensor:
    return torch.stack(_turn_halves(x, angles).chunk(2, -1), -1).flatten(-2)


def _turn_and_separate_axes(x: Tensor, angles: Tensor) -> Tensor:
    parts = zip(x.chunk(2, -1), angles.chunk(2, -1))
    return torch.cat([_turn_and_separate(part, angle) for part, angle in parts], -1)


def _halves_with_angles_of_neighbors(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    twice = angles.repeat_interleave(2, -1)
    return x * twice.cos() + torch.cat([-b, a], -1) * twice.sin()


def _neighbors_with_angles_of_halves(x: Tensor, angles: Tensor) -> Tensor:
    twice = angles.repeat(1, 2)
    return x * twice.cos() + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * twice.sin()


def _kept(*axes: int) -> Callable:
    """Angles that are 0 for the axes which are not kept."""
    return lambda places, omega: _angles([p * (i in axes) for i, p in enumerate(places)], omega)


_AXES = "lesson 31, 'Rotary positions': two axes."
_PAIRS = "lesson 31, 'Rotary positions': which two channels are a pair."
_FREQUENCIES = "lesson 31, 'Rotary positions': the frequencies."

_OTHER_PLACES = {
    "The token's number is divided by the number of rows; its row is the number over the "
    "columns.": _by_division(lambda i, rows, columns: i // rows, lambda i, rows, columns: i % columns),
    "The column is the remainder over the rows; it must be that over the columns.": _by_division(
        lambda i, rows, columns: i // columns, lambda i, rows, columns: i % rows
    ),
    "Row and column are exchanged, and the token's number is divided by the number of rows.": _by_division(
        lambda i, rows, columns: i % columns, lambda i, rows, columns: i // rows
    ),
    "Row and column are exchanged, and the remainder is that over the rows.": _by_division(
        lambda i, rows, columns: i % rows, lambda i, rows, columns: i // columns
    ),
    "The row has fractions; the division must be rounded down.": _by_division(
        lambda i, rows, columns: i / columns, lambda i, rows, columns: i % columns
    ),
    "Rows and columns are counted from the center of the grid; here they are counted from 0.": _rotation(
        lambda rows, columns: [p - (n - 1) / 2 for p, n in zip(_places(rows, columns), (rows, columns))]
    ),
    "Rows and columns run from 0 to 1; here they are whole numbers.": _rotation(
        lambda rows, columns: [p / (n - 1) for p, n in zip(_places(rows, columns), (rows, columns))]
    ),
    "Row and column are added: each half of the channels must have one of them.": _rotation(
        join=lambda places, omega: _angles([sum(places)] * 2, omega)
    ),
    "The second half of the channels is not rotated; the column rotates it.": _rotation(join=_kept(0)),
    "The first half of the channels is not rotated; the row rotates it.": _rotation(join=_kept(1)),
}

_OTHER_FREQUENCIES = {
    "The frequencies fall twice as fast as they should: the exponent is -2k over half of the width.": (
        _with_exponent(lambda k, d: -4 * k / (d // 2))
    ),
    "The last frequency is 1 over theta; the exponents end before -1.": _with_exponent(
        lambda k, d: -k / (d // 4 - 1)
    ),
    "The frequencies are counted from k = 1; the first must be 1.": _with_exponent(
        lambda k, d: -2 * (k + 1) / (d // 2)
    ),
    "The frequencies stand in reverse order: the first pair of each axis is the fastest.": _rotation(
        omega=lambda d, theta: _frequencies(d, theta).flip(0)
    ),
    "Theta is always 10000; it must be the argument.": _rotation(
        omega=lambda d, theta: _frequencies(d, 10000.0)
    ),
    "The angles are multiplied by 2 pi; here they are place times frequency.": _rotation(
        omega=lambda d, theta: 2 * math.pi * _frequencies(d, theta)
    ),
}

_OTHER_PAIRS = {
    "Channel k is paired with channel k + d/2, and the results stand next to each other; neighbors are a "
    "pair.": (_turn_halves_and_interleave),
    "In each half, the rotated channels are in another order: all first ones of a pair, then all second "
    "ones.": (_turn_and_separate_axes),
    "Channel k is paired with channel k + d/2, but the angles are those of pairs of neighbors.": (
        _halves_with_angles_of_neighbors
    ),
    "Neighbors are paired, but the angles are those of the pairs k and k + d/2: both of a pair need the "
    "same.": (_neighbors_with_angles_of_halves),
}

_OTHER_LINES = {
    "Sine and cosine are exchanged: an angle of 0 must change nothing.": _with_lines(
        lambda a, b, c, s: a * s - b * c, lambda a, b, c, s: a * c + b * s
    ),
    "Both lines of the rotation have a plus; the first needs a minus.": _with_lines(
        lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: a * s + b * c
    ),
    "Both lines of the rotation have a minus, the second before the cosine; it needs a plus.": _with_lines(
        lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: a * s - b * c
    ),
    "Both lines of the rotation have a minus, the second before the sine; it needs a plus.": _with_lines(
        lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c - a * s
    ),
    "The two channels of each pair are returned in the wrong order.": _with_lines(
        lambda a, b, c, s: a * s + b * c, lambda a, b, c, s: a * c - b * s
    ),
}

_AXIAL_ROTATION = Exercise(
    "axial_rotation",
    _rotation_loops,
    _rotation_cases,
    {
        "Row and column are exchanged: the first half of the channels belongs to the row.": (
            _rotation(lambda rows, columns: _places(rows, columns)[::-1]),
            _AXES,
        ),
        "The tokens are read column by column; patchify numbers them row by row.": (
            _rotation(
                lambda rows, columns: [
                    torch.arange(rows * columns).double() % rows,
                    (torch.arange(rows * columns) // rows).double(),
                ]
            ),
            _AXES,
        ),
        "The token's number is divided by the number of rows; a row has as many tokens as there are columns.": (
            _rotation(
                lambda rows, columns: [
                    (torch.arange(rows * columns) // rows).double(),
                    torch.arange(rows * columns).double() % rows,
                ]
            ),
            _AXES,
        ),
        "All channels are rotated by the row; the second half belongs to the column.": (
            _rotation(lambda rows, columns: [_places(rows, columns)[0]] * 2),
            _AXES,
        ),
        "All channels are rotated by the column; the first half belongs to the row.": (
            _rotation(lambda rows, columns: [_places(rows, columns)[1]] * 2),
            _AXES,
        ),
        "The place is the token's number in the sequence: that is RoPE with one axis.": (_by_number, _AXES),
        "The pairs of the two axes alternate; the row has the whole first half, the column the second.": (
            _rotation(
                join=lambda places, omega: torch.stack([p[:, None] * omega for p in places], -1).flatten(-2)
            ),
            _AXES,
        ),
        "Channel k is paired with channel k + d/2; neighbors are a pair.": (
            _rotation(turn=_turn_halves),
            _PAIRS,
        ),
        "In each half, channel k is paired with channel k + d/4; neighbors are a pair.": (
            _rotation(turn=_turn_halves_of_axes),
            _PAIRS,
        ),
        "The rotated channels are in another order: first all first ones of a pair, then all second ones.": (
            _rotation(turn=_turn_and_separate),
            _PAIRS,
        ),
        "The pairs are rotated backwards: the sign of the angle is wrong.": _rotation(
            turn=lambda x, angles: _turn(x, -angles)
        ),
        **{message: (function, _AXES) for message, function in _OTHER_PLACES.items()},
        **{message: (function, _FREQUENCIES) for message, function in _OTHER_FREQUENCIES.items()},
        **{message: (_rotation(turn=turn), _PAIRS) for message, turn in _OTHER_PAIRS.items()},
        **_OTHER_LINES,
        "The pairs are reflected, not rotated: both lines of the rotation have a wrong sign.": _rotation(
            turn=_reflect
        ),
        "The second channel of a pair is computed from the first one after it was rotated.": _rotation(
            turn=_turn_in_place
        ),
        "Sine and cosine of the positions are added, as in lesson 04; here they rotate.": _rotation(
            turn=_add_waves
        ),
        "The exponent of the frequencies is divided by the width of the head, where each axis has half of it, "
        "or the 2 of the exponent is missing.": (
            _rotation(omega=lambda d, theta: theta ** (-torch.arange(0, d // 2, 2).double() / d)),
            _FREQUENCIES,
        ),
        "The frequencies fall half as fast as they should: the factor 2 of the exponent is missing.": (
            _rotation(omega=lambda d, theta: theta ** (-torch.arange(d // 4).double() / d)),
            _FREQUENCIES,
        ),
        "One list of frequencies is divided among the axes: both must start at 1.": (
            _rotation(omega=lambda d, theta: theta ** (-torch.arange(0, d, 2).double() / d), join=_one_list),
            _FREQUENCIES,
        ),
        "All pairs have frequency 1; theta is not used.": (
            _rotation(omega=lambda d, theta: torch.ones(d // 4).double()),
            _FREQUENCIES,
        ),
        "The frequencies rise from 1 to theta; they must fall.": (
            _rotation(omega=lambda d, theta: 1 / _frequencies(d, theta)),
            _FREQUENCIES,
        ),
        "Rows and columns are counted from 1; here they are counted from 0.": _rotation(
            lambda rows, columns: [place + 1 for place in _places(rows, columns)]
        ),
        "Rows and columns are divided by the size of the grid; here they are whole numbers.": _rotation(
            lambda rows, columns: [p / n for p, n in zip(_places(rows, columns), (rows, columns))]
        ),
    },
    "lesson 31, 'Rotary positions'.",
)


def check_axial_rotation(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, h, T, d), rows, columns, theta) -> rotated x."""
    return grade(_AXIAL_ROTATION, fn, **grade_options)


def _scores_loops(q: Tensor, k: Tensor, q_scale: Tensor, k_scale: Tensor, eps: float) -> Tensor:
    """Normalize one vector after the other, and multiply channel by channel."""

    def normalize(vector: list, scale: list) -> list:
        root = math.sqrt(sum(a * a for a in vector) / len(vector) + eps)
        return [a / root * s for a, s in zip(vector, scale)]

    out = torch.empty(*q.shape[:3], k.shape[2], dtype=q.dtype)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            queries = [normalize(v, q_scale.tolist()) for v in q[n, h].tolist()]
            keys = [normalize(v, k_scale.tolist()) for v in k[n, h].tolist()]
            for i, a in enumerate(queries):
                for j, b in enumerate(keys):
                    out[n, h, i, j] = sum(u * v for u, v in zip(a, b)) / math.sqrt(q.shape[3])
    return out


def _score_cases(rng: RandomInputs) -> list[Case]:
    """As many keys as queries, more, and fewer; an eps that counts."""
    sizes = [(2, 3, 4, 4, 4, 0.05), (1, 2, 3, 5, 8, 0.3), (2, 3, 5, 2, 6, rng.choice(0.1, 0.2))]
    return [
        Case(
            f"h = {h}, {t} queries, {s} keys, d = {d}, eps = {eps:g}",
            (
                *(0.7 * rng.normal(n, h, m, d) + 0.4 for m in (t, s)),
                *(rng.uniform(0.5, 2.0, d) for _ in range(2)),
                eps,
            ),
        )
        for n, h, t, s, d, eps in sizes
    ]


def _rms(x: Tensor, eps: float, dim: int | tuple = -1) -> Tensor:
    return x / (x.square().mean(dim, keepdim=True) + eps).sqrt()


def _scores(norm: Callable = _rms, score: Callable | None = None) -> Callable:
    """The scores with another norm, or another product of the normalized queries and keys."""

    def scores(q, k, q_scale, k_scale, eps):
        if score is not None:
            return score(norm(q, eps), norm(k, eps), q_scale, k_scale)
        return (norm(q, eps) * q_scale) @ (norm(k, eps) * k_scale).mT / q.shape[-1] ** 0.5

    return scores


_NORM = "lesson 31, 'RMSNorm'."
_WHERE = "lesson 31, 'QK-norm'."


def _deviation(x: Tensor, eps: float, centered: bool, outside: bool, unbiased: bool) -> Tensor:
    """The vectors over their standard deviation."""
    variance = x.var(-1, keepdim=True, unbiased=unbiased)
    divisor = variance.sqrt() + eps if outside else (variance + eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) / divisor if centered else x / divisor


_START = {
    False: "The vectors are divided by their standard deviation, ",
    True: "The mean is removed, and the vectors are divided by their standard deviation, ",
}
_VARIANT = {
    (True, False): "with eps outside the root; ",
    (False, True): "with d - 1; ",
    (True, True): "with d - 1, and eps outside the root; ",
}
_DEVIATIONS = {
    f"{start}{variant}it must be the root of the mean square plus eps.": _scores(
        lambda x, eps, kind=(centered, *kind): _deviation(x, eps, *kind)
    )
    for centered, start in _START.items()
    for kind, variant in _VARIANT.items()
}


def _length(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt()


def _length_and_eps(x: Tensor, eps: float) -> Tensor:
    return x / (x.norm(dim=-1, keepdim=True) + eps)


def _length_at_least_eps(x: Tensor, eps: float) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=eps)


def _over(size: Callable) -> Callable:
    """The scores over the root of another number, (queries, keys) -> number."""
    return _scores(score=lambda q, k, a, b: (q * a) @ (k * b).mT / size(q, k) ** 0.5)


def _cosines(norm: Callable) -> Callable:
    return _scores(norm, lambda q, k, a, b: (q * a) @ (k * b).mT)


_OTHER_NORMS = {
    "The vectors have length 1, and eps is added to the length; divided by their root mean square they "
    "have length "
    "sqrt(d).": _scores(_length_and_eps),
    "The vectors have length 1, and eps only limits the length; divided by their root mean square they "
    "have length "
    "sqrt(d).": _scores(_length_at_least_eps),
    "These are cosines: the vectors have length 1, and the scores are not divided. Queries and keys are "
    "divided by "
    "their root mean square, the scores by sqrt(d).": _cosines(_length),
    "These are cosines, with eps added to the lengths. Queries and keys are divided by their root mean "
    "square, the "
    "scores by sqrt(d).": _cosines(_length_and_eps),
    "These are cosines, with eps as the smallest length. Queries and keys are divided by their root mean "
    "square, the "
    "scores by sqrt(d).": _cosines(_length_at_least_eps),
    "The vectors are multiplied by their root mean square; they must be divided.": _scores(
        lambda x, eps: x * (x.square().mean(-1, keepdim=True) + eps).sqrt()
    ),
    "The square of the mean is taken; it must be the mean of the squares.": _scores(
        lambda x, eps: x / (x.mean(-1, keepdim=True).square() + eps).sqrt()
    ),
    "The number eps is added to each channel; it is added to the mean square.": _scores(
        lambda x, eps: x / (x + eps).square().mean(-1, keepdim=True).sqrt()
    ),
    "The mean runs over the heads; it must run over the channels of a head.": _scores(
        lambda x, eps: _rms(x, eps, 1)
    ),
    "The mean runs over the images; it must run over the channels of a head.": _scores(
        lambda x, eps: _rms(x, eps, 0)
    ),
    "Queries and keys are normalized twice.": _scores(lambda x, eps: _rms(_rms(x, eps), eps)),
    "Neither queries nor keys are normalized.": _scores(lambda x, eps: x),
    "These are the scores of plain attention: neither norms nor learned scales are used.": _scores(
        lambda x, eps: x, lambda q, k, a, b: q @ k.mT / q.shape[-1] ** 0.5
    ),
    "The scores are normalized; queries and keys must be, before they meet.": (
        lambda q, k, q_scale, k_scale, eps: _rms((q * q_scale) @ (k * k_scale).mT / q.shape[-1] ** 0.5, eps)
    ),
}

_OTHER_SCORES = {
    "The scores are divided by the square root of the number of queries; it must be the width of a "
    "head.": _over(lambda q, k: q.shape[-2]),
    "The scores are divided by the square root of the number of keys; it must be the width of a head.": _over(
        lambda q, k: k.shape[-2]
    ),
    "The scores are divided by the square root of the width of all heads; it must be that of one.": _over(
        lambda q, k: q.shape[1] * q.shape[-1]
    ),
    "The scores are multiplied by the square root of the width of a head; they must be divided.": _over(
        lambda q, k: 1 / q.shape[-1]
    ),
    "The learned scales are added; they must be multiplied.": _scores(
        score=lambda q, k, a, b: (q + a) @ (k + b).mT / q.shape[-1] ** 0.5
    ),
    "The vectors are divided by the learned scales; they must be multiplied.": _scores(
        score=lambda q, k, a, b: (q / a) @ (k / b).mT / q.shape[-1] ** 0.5
    ),
    "The scores are multiplied by the mean of the learned scales; each channel has its own scale.": _scores(
        score=lambda q, k, a, b: q @ k.mT * (a * b).mean() / q.shape[-1] ** 0.5
    ),
    "The learned scales are used twice: before the norm and after it.": (
        lambda q, k, q_scale, k_scale, eps: (
            (_rms(q * q_scale, eps) * q_scale) @ (_rms(k * k_scale, eps) * k_scale).mT / q.shape[-1] ** 0.5
        )
    ),
    "The scores are those of each key with each query; it must be the other way around.": _scores(
        score=lambda q, k, a, b: (k * b) @ (q * a).mT / q.shape[-1] ** 0.5
    ),
}

_NORMALIZED_SCORES = Exercise(
    "normalized_scores",
    _scores_loops,
    _score_cases,
    {
        "The mean is removed first: that is a layer norm; an RMS norm keeps the mean.": (
            _scores(lambda x, eps: _rms(x - x.mean(-1, keepdim=True), eps)),
            _NORM,
        ),
        "The vectors are divided by their standard deviation; it must be the root of the mean square.": (
            _scores(lambda x, eps: x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()),
            _NORM,
        ),
        "The vectors have length 1; divided by their root mean square they have length sqrt(d).": (
            _scores(lambda x, eps: x / (x.square().sum(-1, keepdim=True) + eps).sqrt()),
            _NORM,
        ),
        "The square root is missing: the vectors are divided by their mean square.": (
            _scores(lambda x, eps: x / (x.square().mean(-1, keepdim=True) + eps)),
            _NORM,
        ),
        "The number eps is added to the root; it is added to the mean square, below the root.": (
            _scores(lambda x, eps: x / (x.square().mean(-1, keepdim=True).sqrt() + eps)),
            _NORM,
        ),
        **{message: (function, _NORM) for message, function in (_DEVIATIONS | _OTHER_NORMS).items()},
        **{message: (function, _WHERE) for message, function in _OTHER_SCORES.items()},
        "The number eps is not used.": (_scores(lambda x, eps: _rms(x, 0)), _NORM),
        "The vectors are divided by their mean absolute value; it must be the root of the mean square.": (
            _scores(lambda x, eps: x / (x.abs().mean(-1, keepdim=True) + eps)),
            _NORM,
        ),
        "All heads of a token share one norm; each head has its own.": (
            _scores(lambda x, eps: _rms(x, eps, (1, 3))),
            _WHERE,
        ),
        "The mean runs over the tokens; it must run over the channels of a head.": (
            _scores(lambda x, eps: _rms(x, eps, 2)),
            _WHERE,
        ),
        "The mean runs over all tokens of a head; each token has its own.": (
            _scores(lambda x, eps: _rms(x, eps, (2, 3))),
            _WHERE,
        ),
        "The mean runs over all heads and tokens of an image; each token has its own in each head.": (
            _scores(lambda x, eps: _rms(x, eps, (1, 2, 3))),
            _WHERE,
        ),
        "The mean runs over the whole batch; each token has its own in each head.": (
            _scores(lambda x, eps: _rms(x, eps, (0, 1, 2, 3))),
            _WHERE,
        ),
        "The keys are not normalized.": (
            lambda q, k, q_scale, k_scale, eps: (
                (_rms(q, eps) * q_scale) @ (k * k_scale).mT / q.shape[-1] ** 0.5
            ),
            _WHERE,
        ),
        "The queries are not normalized.": (
            lambda q, k, q_scale, k_scale, eps: (
                (q * q_scale) @ (_rms(k, eps) * k_scale).mT / q.shape[-1] ** 0.5
            ),
            _WHERE,
        ),
        "The learned scales are not used.": _scores(score=lambda q, k, a, b: q @ k.mT / q.shape[-1] ** 0.5),
        "The scale of the keys is not used.": _scores(
            score=lambda q, k, a, b: (q * a) @ k.mT / q.shape[-1] ** 0.5
        ),
        "The scale of the queries is not used.": _scores(
            score=lambda q, k, a, b: q @ (k * b).mT / q.shape[-1] ** 0.5
        ),
        "The keys have the scale of the queries; they have one of their own.": _scores(
            score=lambda q, k, a, b: (q * a) @ (k * a).mT / q.shape[-1] ** 0.5
        ),
        "The queries have the scale of the keys; they have one of their own.": _scores(
            score=lambda q, k, a, b: (q * b) @ (k * b).mT / q.shape[-1] ** 0.5
        ),
        "The learned scale is 1 + w, as in a modulation; here it is the factor itself.": _scores(
            score=lambda q, k, a, b: (q * (1 + a)) @ (k * (1 + b)).mT / q.shape[-1] ** 0.5
        ),
        "The learned scales come before the norm, where most of them is lost; they belong after it.": (
            lambda q, k, q_scale, k_scale, eps: (
                _rms(q * q_scale, eps) @ _rms(k * k_scale, eps).mT / q.shape[-1] ** 0.5
            ),
            _WHERE,
        ),
        "The scores are not divided by the square root of the width of a head.": _scores(
            score=lambda q, k, a, b: (q * a) @ (k * b).mT
        ),
        "The scores are divided by the width of a head; it must be its square root.": _scores(
            score=lambda q, k, a, b: (q * a) @ (k * b).mT / q.shape[-1]
        ),
        "These are the weights after the softmax; return the scores.": _scores(
            score=lambda q, k, a, b: ((q * a) @ (k * b).mT / q.shape[-1] ** 0.5).softmax(-1)
        ),
    },
    "lesson 31, 'RMSNorm' and 'QK-norm'.",
)


def check_normalized_scores(fn: Callable, **grade_options) -> Report:
    """Check fn(q (N, h, T, d), k (N, h, S, d), q_scale (d,), k_scale (d,), eps) -> scores (N, h, T, S)."""
    return grade(_NORMALIZED_SCORES, fn, **grade_options)
