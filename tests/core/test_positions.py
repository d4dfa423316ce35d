"""Position embeddings: the definition by loops, the official table, and dot products that depend on distance."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_nb.positions import sincos_1d, sincos_2d
from support import GOLDEN, error_cases, raises_input_error, relative

some = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def table_by_loops(rows, columns, width, max_period=10000.0):
    half, quarter = width // 2, width // 4
    table = torch.zeros(rows * columns, width, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for start, position in ((0, column), (half, row)):  # the column comes first
                for i in range(quarter):
                    angle = position / max_period ** (i / quarter)
                    table[row * columns + column, start + i] = math.sin(angle)
                    table[row * columns + column, start + quarter + i] = math.cos(angle)
    return table


@some
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([4, 8, 12]))
def test_positions_are_the_loop(rows, columns, width):
    table = table_by_loops(rows, columns, width)
    assert relative(sincos_2d((rows, columns), width), table) < 1e-12
    assert relative(sincos_1d(torch.arange(columns), width // 2), table[:columns, : width // 2]) < 1e-12


def test_max_period():
    assert relative(sincos_2d((3, 5), 16, max_period=100.0), table_by_loops(3, 5, 16, 100.0)) < 1e-12


def test_official_tables():
    recorded = np.load(GOLDEN / "embeddings.npz")
    assert relative(sincos_2d((16, 16), 64), recorded["sincos_16x64"]) < 1e-5  # recorded in float32
    assert relative(sincos_2d((4, 4), 1152), recorded["sincos_4x1152"]) < 1e-5


def test_dot_products_depend_on_the_distance_alone():
    positions = torch.tensor([-3.5, 0.0, 2.0, 7.25])
    shifted = sincos_1d(positions + 11.5, 32)
    table = sincos_1d(positions, 32)
    assert relative(shifted @ shifted.T, table @ table.T) < 1e-12
    assert relative(table.square().sum(1), torch.full((4,), 16.0)) < 1e-12  # sin^2 + cos^2, 16 times


@pytest.mark.parametrize("positions", [torch.arange(5), torch.arange(5).float(), torch.arange(5).bfloat16()])
def test_tables_are_float64_whatever_the_positions_are(positions):
    assert torch.equal(sincos_1d(positions, 8), sincos_1d(torch.arange(5).double(), 8))
    assert sincos_1d(positions, 8).dtype == sincos_2d((2, 3), 8).dtype == torch.float64


@error_cases(
    (partial(sincos_1d, torch.arange(3), 5), "dim.*5"),
    (partial(sincos_2d, (2, 2), 6), "dim.*6.*multiple of 4"),
)
def test_errors(call, pattern):
    with raises_input_error(pattern):
        call()
