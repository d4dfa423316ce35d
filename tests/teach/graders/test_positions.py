"""Graders of the position embeddings: imaginary and real parts of rotations."""

import numpy as np
import torch

from support import relative


def rotations(positions, dim):
    """Imaginary parts, then real parts, of exp(i position frequency); frequencies fall from 1 to 1/10000."""
    z = np.exp(1j * np.outer(positions, np.logspace(0, -4, dim // 2, endpoint=False)))
    return torch.from_numpy(np.concatenate([z.imag, z.real], axis=1))


def test_channels_are_parts_of_rotations(check_identity):
    check_identity("sincos_1d", lambda fn, p, dim: relative(fn(p, dim), rotations(p, dim)) < 1e-9)


def test_the_first_half_is_the_column_and_the_second_the_row(check_identity):
    def holds(fn, grid, dim):
        table = fn(grid, dim).reshape(*grid, 2, dim // 2)
        by_row, by_column = (rotations(torch.arange(n), dim // 2) for n in grid)
        return (
            relative(table[:, :, 0], by_column.expand(*grid, -1)) < 1e-9
            and relative(table[:, :, 1], by_row[:, None].expand(*grid, -1)) < 1e-9
        )

    check_identity("sincos_2d", holds)
