"""Graders of lesson 04: sine-cosine embeddings in one and two dimensions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.positions import sincos_1d, sincos_2d
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_sincos_1d", "check_sincos_2d", "check_shift_positions"]


def _waves_loops(positions: Tensor, dim: int) -> Tensor:
    half = dim // 2
    rows = []
    for position in positions.tolist():
        angles = [position / 10000 ** (i / half) for i in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)


def _position_cases(rng: RandomInputs) -> list[Case]:
    """Few positions, as many as dim, and fractions."""
    cases = [Case(f"{n} positions, dim {d}", (torch.arange(n), d)) for n, d in [(5, 8), (8, 8), (3, 12)]]
    cases.append(Case("fractional positions", (rng.uniform(-20, 90, 6), 16)))
    return cases


def _large_positions(rng: RandomInputs) -> list[Case]:
    """Positions at which float32 is off by a hundredth and more."""
    return [Case("positions up to a million", (rng.uniform(3e5, 1e6, 4), 8), _SINGLE)]


_SINGLE = (
    "It is right for small positions and wrong for large ones: some of it is computed in float32, which knows "
    "seven digits. Positions, frequencies and angles must be float64."
)


def _waves(
    positions: Tensor,
    dim: int,
    power: Callable = lambda i, half: -i / half,  # exponent of the period
    period: float = 10000.0,
    order: tuple = (torch.sin, torch.cos),
    interleave: bool = False,
) -> Tensor:
    """Sine-cosine embedding with parameters for known mistakes."""
    half = dim // 2
    omega = period ** power(torch.arange(half, dtype=torch.float64), half)
    parts = [f(positions.double()[:, None] * omega) for f in order]
    return torch.stack(parts, -1).flatten(1) if interleave else torch.cat(parts, -1)


_INTERLEAVED = "Sines and cosines alternate; all of one kind must come first, then all of the other."
_TOO_EARLY = "The lowest frequency is reached one frequency too early: the exponent is divided by one less than it should be."
_TOO_SLOW = "The frequencies fall half as fast as they should: the exponent is divided by dim, not by dim/2."
_TOO_FAST = "The frequencies fall twice as fast as they should: is the exponent divided by dim, or by dim/2?"
_RISING = "The frequencies become higher from channel to channel; they should become lower."

_FROM_ONE = "The channels are counted from 1, so that the first frequency is not 1; they are counted from 0."
_EACH_ITS_OWN = (
    "Each of the dim channels has its own frequency; a sine and its cosine share one, so there are dim/2."
)

_LOG_10 = "The exponent has the logarithm to the base 10; exp needs the natural one."
_NO_LOG = (
    "All frequencies but the first are 0 or nearly 0: exp needs the logarithm of the period, and frequencies need "
    "fractions, which integers have not."
)
_LOG_10_HINT = "the difference between log and log10."
_OF_LOG_10 = {"period": math.exp(math.log10(10000))}
_OF_NO_LOG = {"period": math.e, "power": lambda i, half: -10000 * i / half}


def _other_cosines(power: Callable) -> Callable:
    """Right sines; the exponents of the cosines' frequencies are another function of i and dim/2."""
    return lambda x, d: torch.cat([_waves(x, d).chunk(2, -1)[0], _waves(x, d, power).chunk(2, -1)[1]], -1)


def _waves_of_all(positions: Tensor, dim: int, period: float, order: tuple) -> Tensor:
    """A frequency for each channel: the first kind for the high ones, the second for the low ones."""
    omega = period ** (-torch.arange(dim, dtype=torch.float64) / dim)
    angles = (positions.double()[:, None] * omega).chunk(2, -1)
    return torch.cat([f(a) for f, a in zip(order, angles)], -1)


_SINCOS_1D = Exercise(
    "sincos_1d",
    _waves_loops,
    _position_cases,
    {
        "The cosines come first; the sines must (only the timestep embedding starts with cosines).": lambda x, d: (
            _waves(x, d, order=(torch.cos, torch.sin))
        ),
        _INTERLEAVED: lambda x, d: _waves(x, d, interleave=True),
        _TOO_EARLY: lambda x, d: _waves(x, d, lambda i, h: -i / max(h - 1, 1)),
        _TOO_SLOW: (
            lambda x, d: _waves(x, d, lambda i, h: -i / (2 * h)),
            "what the exponent is divided by.",
        ),
        _TOO_FAST: lambda x, d: _waves(x, d, lambda i, h: -2 * i / h),
        _RISING: (lambda x, d: _waves(x, d, lambda i, h: i / h), "the sign of the exponent."),
        "The positions are treated as full turns: there is a factor of 2 pi too much.": lambda x, d: _waves(
            2 * math.pi * x.double(), d
        ),
        _FROM_ONE: lambda x, d: _waves(x, d, lambda i, h: -(i + 1) / h),
        _EACH_ITS_OWN: lambda x, d: _waves_of_all(x, d, 10000.0, (torch.sin, torch.cos)),
        _LOG_10: (lambda x, d: _waves(x, d, **_OF_LOG_10), _LOG_10_HINT),
        _NO_LOG: lambda x, d: _waves(x, d, **_OF_NO_LOG),
        "The positions that are given are not used: it counts the rows, 0, 1, 2 and so on.": lambda x, d: (
            _waves(torch.arange(len(x)), d)
        ),
        "The frequencies come in reverse order, the lowest first; the first is 1.": lambda x, d: _waves(
            x, d, lambda i, h: -(h - 1 - i) / h
        ),
        "The positions are rounded to whole numbers; any real number is a position.": lambda x, d: _waves(
            x.long(), d
        ),
        "The positions are converted as if they were degrees; they are angles of the first wave already.": lambda x, d: (
            _waves(x.double() * math.pi / 180, d)
        ),
        "The longest wave belongs to a period of 1000; another number is asked for.": lambda x, d: _waves(
            x, d, period=1000.0
        ),
        "The longest wave belongs to a period of 100000; another number is asked for.": lambda x, d: _waves(
            x, d, period=100000.0
        ),
        "The positions are treated as half turns: there is a factor of pi too much.": lambda x, d: _waves(
            math.pi * x.double(), d
        ),
        "The positions are divided by their number, so that they lie between 0 and 1: use them as they are.": lambda x, d: (
            _waves(x.double() / len(x), d)
        ),
        "The positions are divided by the largest of them, so that they end at 1: use them as they are.": lambda x, d: (
            _waves(x.double() / x.max(), d)
        ),
        "The positions are counted from 1: use them as they are given.": lambda x, d: _waves(x + 1, d),
        "The cosines go on counting where the sines stop, so their frequencies are lower; a sine and its cosine share one.": (
            _other_cosines(lambda i, h: -(h + i) / h)
        ),
        "The frequencies of the cosines lie between those of the sines; a sine and its cosine share one.": (
            _other_cosines(lambda i, h: -(2 * i + 1) / (2 * h))
        ),
        "The cosines are counted from 1, and the sines from 0; a sine and its cosine share a frequency.": (
            _other_cosines(lambda i, h: -(i + 1) / h)
        ),
    },
    "lesson 04, 'What makes a good position embedding'.",
    tolerance=1e-5,
    edge_cases=_large_positions,
    reference=sincos_1d,
)


def check_sincos_1d(fn: Callable, **grade_options) -> Report:
    """Check fn(positions (T,), dim) -> (T, dim): dim/2 sines, then dim/2 cosines."""
    return grade(_SINCOS_1D, fn, **grade_options)


def _table_loops(grid: tuple[int, int], dim: int) -> Tensor:
    table = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            halves = [_waves_loops(torch.tensor([position]), dim // 2)[0] for position in (column, row)]
            table.append(torch.cat(halves))
    return torch.stack(table)


def _grid_cases(rng: RandomInputs) -> list[Case]:
    grids = [((3, 3), 8), ((2, 4), 8), ((4, 1), 12), ((rng.choice(2, 3), rng.choice(5, 6)), 16)]
    return [
        Case(f"grid of {g[0]}x{g[1]}, dim {d}", (g, d), _NOT_SQUARE_GRID * (g[0] != g[1])) for g, d in grids
    ]


_NOT_SQUARE_GRID = "It is right for square grids, but not if the numbers of rows and columns differ: are they exchanged somewhere?"


def _table(grid, dim, row: Callable, by_column: bool = False) -> Tensor:
    """Apply row(rows, columns) to the coordinates of all patches."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    rows, columns = (rows.T, columns.T) if by_column else (rows, columns)
    return row(rows.flatten(), columns.flatten())


def _halves(dim: int, **options) -> Callable:
    """Embed the column in the first half and the row in the second."""
    return lambda r, c: torch.cat([_waves(c, dim // 2, **options), _waves(r, dim // 2, **options)], -1)


def _kinds(dim: int) -> Callable:
    """Sines of column and row, then cosines of both: sin, sin, cos, cos."""

    def row(r: Tensor, c: Tensor) -> Tensor:
        sines, cosines = zip(*(_waves(axis, dim // 2).chunk(2, -1) for axis in (c, r)))
        return torch.cat([*sines, *cosines], -1)

    return row


_SINCOS_2D = Exercise(
    "sincos_2d",
    _table_loops,
    _grid_cases,
    {
        "The first half encodes the row; in DiT's checkpoints it encodes the column.": (
            lambda g, d: _table(g, d, lambda r, c: _halves(d)(c, r)),
            "lesson 04, 'Trap: the right numbers in the wrong order'.",
        ),
        "The table goes through the grid column by column; it must have the order of patchify.": (
            lambda g, d: _table(g, d, _halves(d), by_column=True),
            "the order of the two axes of the grid.",
        ),
        "The embeddings of row and column are added up; each axis needs a half of its own.": lambda g, d: (
            _table(g, d, lambda r, c: _waves(c, d) + _waves(r, d))
        ),
        "Each axis has the full width, so that the table is twice as wide as it should be.": lambda g, d: (
            _table(g, d, _halves(2 * d))
        ),
        "Within each half the cosines come first; here the sines do.": lambda g, d: _table(
            g, d, _halves(d, order=(torch.cos, torch.sin))
        ),
        "Each half has sines and cosines in turn; all sines of a half come first, then its cosines.": lambda g, d: (
            _table(g, d, _halves(d, interleave=True))
        ),
        "All sines come first, then all cosines; each half has its own sines and cosines.": (
            lambda g, d: _table(g, d, _kinds(d)),
            "what the first half of the channels encodes.",
        ),
        "The frequencies are those of the whole width; a half of the width has its own, dim/4 of them.": (
            lambda g, d: _table(g, d, _halves(d, power=lambda i, h: -i / (2 * h))),
            "lesson 04, 'Two dimensions': which width each half has.",
        ),
        "The lowest frequency is reached one frequency too early: the exponent is divided by one less than it should be.": lambda g, d: (
            _table(g, d, _halves(d, power=lambda i, h: -i / max(h - 1, 1)))
        ),
        "The positions are counted from 1; the first row and the first column are 0.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(r + 1, c + 1)
        ),
        "The index of the patch is embedded; the table must encode its row and its column.": lambda g, d: (
            _waves(torch.arange(g[0] * g[1]), d)
        ),
        _FROM_ONE: lambda g, d: _table(g, d, _halves(d, power=lambda i, h: -(i + 1) / h)),
        _LOG_10: (lambda g, d: _table(g, d, _halves(d, **_OF_LOG_10)), _LOG_10_HINT),
        _NO_LOG: lambda g, d: _table(g, d, _halves(d, **_OF_NO_LOG)),
        "The second half encodes the index of the patch in reading order; it must encode its row.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r * g[1] + c, c))
        ),
        "The first half encodes the index of the patch in reading order; it must encode its column.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r, r * g[1] + c))
        ),
        "The row is counted from the bottom; the first row of patches is 0.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(g[0] - 1 - r, c)
        ),
        "The rows are fractions: the index is divided with /, so that the row grows along a line of the grid.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r + c / g[1], c))
        ),
        "The positions are counted from the middle of the grid; the first row and the first column are 0.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r - (g[0] - 1) / 2, c - (g[1] - 1) / 2))
        ),
        "Half of the grid is subtracted from the positions; the first row and the first column are 0.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r - g[0] / 2, c - g[1] / 2))
        ),
        "The positions are counted from the patch in the middle; the first row and the first column are 0.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r - g[0] // 2, c - g[1] // 2))
        ),
        "The positions run from 0 to 1; they count patches.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(r / max(g[0] - 1, 1), c / max(g[1] - 1, 1))
        ),
        "The positions run from -1 to 1; they count patches.": lambda g, d: _table(
            g,
            d,
            lambda r, c: _halves(d)(
                torch.linspace(-1, 1, g[0]).double()[r], torch.linspace(-1, 1, g[1]).double()[c]
            ),
        ),
        "The positions are divided by the size of the grid; they count patches.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(r / g[0], c / g[1])
        ),
        "The positions are the centers of the patches, half a patch too far: the first is 0.": lambda g, d: (
            _table(g, d, lambda r, c: _halves(d)(r + 0.5, c + 0.5))
        ),
        "Both halves encode the row; the column is lost.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(r, r)
        ),
        "Both halves encode the column; the row is lost.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(c, c)
        ),
        "The column is counted from the right; the first column of patches is 0.": lambda g, d: _table(
            g, d, lambda r, c: _halves(d)(r, g[1] - 1 - c)
        ),
    },
    "lesson 04, 'Two dimensions'.",
    tolerance=1e-5,
    half_points=(_NOT_SQUARE_GRID,),
    reference=sincos_2d,
)


def check_sincos_2d(fn: Callable, **grade_options) -> Report:
    """Check fn(grid (rows, columns), dim) -> (T, dim): for each patch, column first, then row."""
    return grade(_SINCOS_2D, fn, **grade_options)


def _shift_loops(codes: Tensor, steps: float) -> Tensor:
    half = codes.shape[1] // 2
    moved = []
    for row in codes.tolist():
        angles = [
            math.atan2(row[i], row[half + i]) + steps / 10000 ** (i / half) for i in range(half)
        ]  # of unit length
        moved.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(moved, dtype=torch.float64)


def _shift_cases(rng: RandomInputs) -> list[Case]:
    """As many positions as frequencies, more, and fewer; steps ahead, back, and fractions."""
    sizes = [(5, 8, 3), (4, 8, -2), (3, 12, 2.5), (6, 6, rng.choice(5, 7, 40))]
    return [
        Case(f"{n} positions, dim {d}, steps {s:g}", (_waves_loops(rng.uniform(-20, 90, n), d), s))
        for n, d, s in sizes
    ]


def _shifted(codes: Tensor, steps: float, **options) -> Tensor:
    """Turn each pair of sine and cosine; the options are those of `_waves`."""
    sin_s, cos_s = _waves(torch.tensor([steps], dtype=torch.float64), codes.shape[1], **options).chunk(2, -1)
    sines, cosines = codes.chunk(2, -1)
    return torch.cat([sines * cos_s + cosines * sin_s, cosines * cos_s - sines * sin_s], -1)


def _combined(sines: Callable, cosines: Callable) -> Callable:
    """Shift with other sums: of sine and cosine of the positions, then of the steps."""

    def shift(codes: Tensor, steps: float) -> Tensor:
        parts = (*codes.chunk(2, -1), *_waves(torch.tensor([steps]), codes.shape[1]).chunk(2, -1))
        return torch.cat([sines(*parts), cosines(*parts)], -1)

    return shift


_SIGNS = "the sine and the cosine of a sum of two angles: which one has a minus?"


def _shifted_one_after_the_other(codes: Tensor, steps: float) -> Tensor:
    sin_s, cos_s = _waves(torch.tensor([steps]), codes.shape[1]).chunk(2, -1)
    sines, cosines = codes.chunk(2, -1)
    sines = sines * cos_s + cosines * sin_s
    return torch.cat([sines, cosines * cos_s - sines * sin_s], -1)


def _shifted_interleaved(codes: Tensor, steps: float) -> Tensor:
    order = torch.arange(codes.shape[1]).view(-1, 2).T.flatten()  # even columns, then odd ones
    return _shifted(codes[:, order], steps)[:, order.argsort()]


def _shifted_position(codes: Tensor, steps: float) -> Tensor:
    half = codes.shape[1] // 2
    return _waves(torch.atan2(codes[:, 0], codes[:, half]) + steps, codes.shape[1])


def _far_positions(rng: RandomInputs) -> list[Case]:
    """Positions at which every wave has repeated many times."""
    positions = torch.cat([rng.uniform(-6e4, -4e4, 2), rng.uniform(4e4, 6e4, 3)])
    cases = [(12, 4), (16, rng.choice(-3, 1.5))]
    return [
        Case(f"positions around 50000, dim {d}, steps {s:g}", (_waves_loops(positions, d), s), _FAR)
        for d, s in cases
    ]


_FAR = (
    "It is right for small positions and wrong for large ones: is a position recovered from its waves? Even the slowest "
    "repeats."
)


def _recovered(angle: Callable, slowest: bool = False) -> Callable:
    """Shift the position that one wave seems to have: its angle is a function of sine and cosine."""

    def shift(codes: Tensor, steps: float) -> Tensor:
        half = codes.shape[1] // 2
        i = half - 1 if slowest else 0
        return _waves(angle(codes[:, i], codes[:, half + i]) * 10000 ** (i / half) + steps, codes.shape[1])

    return shift


def _recovered_angles(angle: Callable) -> Callable:
    """Turn the angle of each wave, recovered from sine and cosine."""

    def shift(codes: Tensor, steps: float) -> Tensor:
        half = codes.shape[1] // 2
        turns = steps * 10000 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = angle(*codes.clamp(-1, 1).chunk(2, -1)) + turns
        return torch.cat([angles.sin(), angles.cos()], -1)

    return shift


_HALF_A_TURN = "which angles asin, acos, atan and atan2 return."

_SHIFT_POSITIONS = Exercise(
    "shift_positions",
    _shift_loops,
    _shift_cases,
    {
        "The positions move the other way: a sign, or which half holds the sines.": (
            lambda codes, steps: _shifted(codes, -steps),
            "the signs of the two sums, and which half of a row comes first.",
        ),
        "The embedding of the steps is added; the sine of a sum is not the sum of the sines.": lambda codes, steps: (
            codes + _waves(torch.tensor([steps]), codes.shape[1])
        ),
        "The embedding of the steps is multiplied entry by entry; sine and cosine of an angle mix.": lambda codes, steps: (
            codes * _waves(torch.tensor([steps]), codes.shape[1])
        ),
        "All frequencies turn by the same angle; each turns by the steps times its own frequency.": lambda codes, steps: (
            _shifted(codes, steps, power=lambda i, half: 0 * i)
        ),
        "The sine of an angle is taken to be next to its cosine; all sines come first.": (
            _shifted_interleaved,
            "lesson 04, 'What makes a good position embedding': the order of the channels.",
        ),
        "The new sines are used for the cosines; both need the old ones.": (
            _shifted_one_after_the_other,
            "what a name stands for when the second line uses it.",
        ),
        "Only the sines are moved; the cosines are the old ones.": lambda codes, steps: torch.cat(
            [_shifted(codes, steps).chunk(2, -1)[0], codes.chunk(2, -1)[1]], -1
        ),
        "Sines and cosines are exchanged in the result.": lambda codes, steps: _shifted(codes, steps).roll(
            codes.shape[1] // 2, -1
        ),
        "The position is recovered from one wave, which does not know how often it has repeated.": (
            _shifted_position,
            "the sine and the cosine of a sum of two angles.",
        ),
        "The position is recovered from the first sine, which does not know how often it has repeated.": (
            _recovered(lambda s, c: s.clamp(-1, 1).asin()),
            _HALF_A_TURN,
        ),
        "The position is recovered from the first cosine, which does not know how often it has repeated.": (
            _recovered(lambda s, c: c.clamp(-1, 1).acos()),
            _HALF_A_TURN,
        ),
        "The position is recovered from the slowest cosine, which is the same for positions below 0.": (
            _recovered(lambda s, c: c.clamp(-1, 1).acos(), slowest=True),
            _HALF_A_TURN,
        ),
        "The position is recovered from the slowest wave, as if none were below 0; a wave repeats.": (
            _recovered(lambda s, c: torch.atan2(s, c) % (2 * math.pi), slowest=True),
            _HALF_A_TURN,
        ),
        "The angles are recovered from the sines alone: asin knows only those of half a turn.": (
            _recovered_angles(lambda s, c: s.asin()),
            _HALF_A_TURN,
        ),
        "The angles are recovered from the cosines alone: acos knows only those of half a turn.": (
            _recovered_angles(lambda s, c: c.acos()),
            _HALF_A_TURN,
        ),
        "The angles are recovered with the arc tangent of a quotient, which knows only those of half a turn.": (
            _recovered_angles(lambda s, c: (s / c).atan()),
            _HALF_A_TURN,
        ),
        "The first half of a row is taken for the cosines; the sines come first.": (
            lambda codes, steps: _shifted(codes.roll(codes.shape[1] // 2, -1), steps),
            "lesson 04, 'What makes a good position embedding': the order of the channels.",
        ),
        "The rows are moved along the axis of the positions, and forward; each row must move by itself.": (
            lambda codes, steps: codes.roll(int(steps), 0)
        ),
        "The lowest frequency is reached one frequency too early: the exponent is divided by one less than it should be.": lambda codes, steps: (
            _shifted(codes, steps, power=lambda i, half: -i / max(half - 1, 1))
        ),
        "Nothing has moved: this is the input.": lambda codes, steps: codes.clone(),
        "The new cosines have a plus where the cosine of a sum has a minus.": (
            _combined(lambda s, c, a, b: s * b + c * a, lambda s, c, a, b: c * b + s * a),
            _SIGNS,
        ),
        "The new sines have a minus where the sine of a sum has a plus.": (
            _combined(lambda s, c, a, b: s * b - c * a, lambda s, c, a, b: c * b - s * a),
            _SIGNS,
        ),
        "The sine and the cosine of the steps' angle have changed places.": (
            _combined(lambda s, c, a, b: s * a + c * b, lambda s, c, a, b: c * a - s * b),
            "the sine and the cosine of a sum of two angles: with 0 steps nothing may change.",
        ),
        "The rows are moved along the axis of the positions; each row must move by itself, to positions in between too.": (
            lambda codes, steps: codes.roll(-int(steps), 0)
        ),
        _TOO_SLOW: (
            lambda codes, steps: _shifted(codes, steps, power=lambda i, half: -i / (2 * half)),
            "what the exponent is divided by.",
        ),
        _TOO_FAST: lambda codes, steps: _shifted(codes, steps, power=lambda i, half: -2 * i / half),
        _LOG_10: (lambda codes, steps: _shifted(codes, steps, **_OF_LOG_10), _LOG_10_HINT),
        _NO_LOG: lambda codes, steps: _shifted(codes, steps, **_OF_NO_LOG),
        "The steps are rounded to a whole number; they may be fractional.": lambda codes, steps: _shifted(
            codes, int(steps)
        ),
        "The steps are converted as if they were degrees.": lambda codes, steps: _shifted(
            codes, steps * math.pi / 180
        ),
        "The steps are treated as full turns: there is a factor of 2 pi too much.": lambda codes, steps: (
            _shifted(codes, 2 * math.pi * steps)
        ),
        "The longest wave belongs to a period of 1000; the codes have another.": lambda codes, steps: (
            _shifted(codes, steps, period=1000.0)
        ),
        "The positions are moved by twice the steps.": lambda codes, steps: _shifted(codes, 2 * steps),
        "The positions are moved by one step, whatever is asked for.": lambda codes, steps: _shifted(
            codes, 1
        ),
        "The sign of the steps is lost: negative steps go back.": lambda codes, steps: _shifted(
            codes, abs(steps)
        ),
    },
    "lesson 04, 'What makes a good position embedding': two facts.",
    tolerance=1e-8,
    edge_cases=_far_positions,
    reference=_shifted,
)


def check_shift_positions(fn: Callable, **grade_options) -> Report:
    """Check fn(codes (T, dim), steps) -> (T, dim): the embeddings of positions moved by steps."""
    return grade(_SHIFT_POSITIONS, fn, **grade_options)
