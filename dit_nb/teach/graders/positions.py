"""Waves have four classic faults, and grids have a fifth."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.positions import sincos_1d, sincos_2d
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report


def waves_by_hand(positions: Tensor, dim: int) -> Tensor:
    "One sine at a time."
    half = dim // 2
    rows = []
    for position in positions.tolist():
        angles = [position / 10000 ** (i / half) for i in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)


def position_cases(draw: Draw) -> list[Case]:
    "Few positions, as many as the width, and numbers that are not whole."
    cases = [Case(f"{n} positions, dim {d}", (torch.arange(n), d)) for n, d in [(5, 8), (8, 8), (3, 12)]]
    cases.append(Case("positions between whole numbers", (draw.uniform(-20, 90, 6), 16)))
    return cases


def waves(
    positions: Tensor,
    dim: int,
    power: Callable = lambda i, half: -i / half,  # of the period
    period: float = 10000.0,
    order: tuple = (torch.sin, torch.cos),
    stack: bool = False,  # interleaved
) -> Tensor:
    "Waves with knobs for everything that can go wrong."
    half = dim // 2
    omega = period ** power(torch.arange(half, dtype=torch.float64), half)
    parts = [f(positions.double()[:, None] * omega) for f in order]
    return torch.stack(parts, -1).flatten(1) if stack else torch.cat(parts, -1)


INTERLEAVED = (
    "The two kinds of wave alternate; all of one kind must stand in the first half, the other in the second."
)


TOO_EARLY = (
    "The slowest wave is reached one step too early: the exponents should never quite reach the end. "
    "Small inputs hide it, large ones do not."
)


TOO_FAST = (
    "The frequencies fall twice as fast per channel as they should: is the step counted in dim, or in dim/2?"
)


RISING = "The waves become faster from channel to channel; they should become slower."


SINCOS_1D = Exercise(
    "sincos_1d",
    waves_by_hand,
    position_cases,
    (
        Mistake(
            "The cosines come first; here the sines do (the timestep embedding has it the other way round).",
            "lesson 04, 'What makes a good address'.",
            lambda x, d: waves(x, d, order=(torch.cos, torch.sin)),
        ),
        Mistake(INTERLEAVED, "how the two are put together.", lambda x, d: waves(x, d, stack=True)),
        Mistake(TOO_EARLY, "the last exponent.", lambda x, d: waves(x, d, lambda i, h: -i / max(h - 1, 1))),
        Mistake(
            "The frequencies fall half as fast per channel as they should: the step is counted in dim, not in dim/2.",
            "what the exponent is divided by.",
            lambda x, d: waves(x, d, lambda i, h: -i / (2 * h)),
        ),
        Mistake(TOO_FAST, "the exponent.", lambda x, d: waves(x, d, lambda i, h: -2 * i / h)),
        Mistake(RISING, "the sign of the exponent.", lambda x, d: waves(x, d, lambda i, h: i / h)),
        Mistake(
            "The angles are taken for turns: there is a factor of 2 pi too much.",
            "the unit of the angle.",
            lambda x, d: waves(2 * math.pi * x.double(), d),
        ),
    ),
    "lesson 04, 'What makes a good address'.",
    tolerance=1e-5,
    reference=sincos_1d,
)


def check_sincos_1d(
    fn: Callable,  # (positions (T,), dim) -> (T, dim)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`sincos_1d(positions, dim)`: dim/2 sines, then dim/2 cosines; frequencies fall from 1 towards 1/10000."
    return grade(SINCOS_1D, fn, **options)


def table_by_hand(grid: tuple[int, int], dim: int) -> Tensor:
    "One patch at a time."
    lines = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            halves = [waves_by_hand(torch.tensor([place]), dim // 2)[0] for place in (column, row)]
            lines.append(torch.cat(halves))
    return torch.stack(lines)


def grid_cases(draw: Draw) -> list[Case]:
    "Square and other grids."
    grids = [((3, 3), 8), ((2, 4), 8), ((4, 1), 12), ((draw.pick(2, 3), draw.pick(5, 6)), 16)]
    return [
        Case(f"grid of {g[0]}x{g[1]}, dim {d}", (g, d), NOT_SQUARE_GRID * (g[0] != g[1])) for g, d in grids
    ]


NOT_SQUARE_GRID = (
    "It is right for square grids and wrong for all others: rows and columns are taken for one another."
)


def table(grid, dim, line: Callable, turned: bool = False) -> Tensor:
    "A table made by `line(rows, columns)`, where every patch is one entry of both."
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    rows, columns = (rows.T, columns.T) if turned else (rows, columns)
    return line(rows.flatten(), columns.flatten())


def halves(dim: int, **knobs) -> Callable:
    "The right line of a table, with the knobs of `waves`."
    return lambda r, c: torch.cat([waves(c, dim // 2, **knobs), waves(r, dim // 2, **knobs)], -1)


SINCOS_2D = Exercise(
    "sincos_2d",
    table_by_hand,
    grid_cases,
    (
        Mistake(
            "The first half tells the row; the checkpoints of DiT have the column there, whatever the variable is called.",
            "lesson 04, 'Trap: the right numbers in the wrong order'.",
            lambda g, d: table(g, d, lambda r, c: halves(d)(c, r)),
        ),
        Mistake(
            "The lines stand column by column; they must stand in the order in which patchify lays out the patches.",
            "the order of the two axes of the grid.",
            lambda g, d: table(g, d, halves(d), turned=True),
        ),
        Mistake(
            "Row and column are added up, so that patches with equal sums get one address: each needs a half of its own.",
            "how the two are put together.",
            lambda g, d: table(g, d, lambda r, c: waves(c, d) + waves(r, d)),
        ),
        Mistake(
            "Each axis got the full width, so that the table is twice as wide as it should be.",
            "the width of one half.",
            lambda g, d: table(g, d, halves(2 * d)),
        ),
        Mistake(
            "Within each half the cosines come first; here the sines do.",
            "your one-dimensional waves.",
            lambda g, d: table(g, d, halves(d, order=(torch.cos, torch.sin))),
        ),
        Mistake(
            "The patches are counted through, and the number of a patch is made a wave: nothing tells that two "
            "patches stand one above the other.",
            "lesson 04, 'Two dimensions'.",
            lambda g, d: waves(torch.arange(g[0] * g[1]), d),
        ),
    ),
    "lesson 04, 'Two dimensions'.",
    tolerance=1e-5,
    reference=sincos_2d,
)


def check_sincos_2d(
    fn: Callable,  # (grid (rows, columns), dim) -> (T, dim)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`sincos_2d(grid, dim)`: a line for each patch in the order of `patchify`; waves of the column, then of the row."
    return grade(SINCOS_2D, fn, **options)
