"""Values of images: which are refused, and by which number and range an image is named."""

import math

import pytest
import torch

from dit_nb.image_range import _check_float_images, _check_no_bytes, _check_range, _check_values, _RangeCheck
from support import error_cases, raises_input_error


def images(*values):
    """Images (N, 1, 2, 2) of zeros, each with one value."""
    x = torch.zeros(len(values), 1, 2, 2)
    x[:, 0, 1, 0] = torch.tensor(values)
    return x


@error_cases(
    (lambda: _check_range(images(-0.5, math.nan)), "^images .* image 1[.]$"),
    (lambda: _check_range(images(0.5, -0.5, -math.inf), "real"), "^real .* image 2[.]$"),
    (lambda: _check_range(images(-1.0, 255.0)), r"^images has values from 0 to 255 in image 1, .*127\.5"),
    (lambda: _check_range(images(-11.0)), r"^images has values from -11 to 0, but must be in \[-1, 1\][.]$"),
    (lambda: _check_range(images(0.1, 0.9)), r"^images has values from 0 to 0\.9, .*2 \* x - 1"),
    (lambda: _check_range(images(1.0).byte()), r"^images is torch.uint8 \(1, 1, 2, 2\), .*127\.5"),
    (lambda: _check_float_images([0.0], "x"), "^x is list, "),
    (lambda: _check_float_images(torch.zeros(1, 2, 2), "x"), r"^x is torch.float32 \(1, 2, 2\), "),
    (lambda: _check_no_bytes(images(2.0).byte(), "x"), "^x has values from 0 to 2 of torch.uint8, "),
    (lambda: _check_no_bytes(images(200.0), "x"), "^x has values from 0 to 200 of torch.float32, "),
)
def test_values_that_do_not_fit_are_named(call, pattern):
    with raises_input_error(pattern):
        call()


def test_values_that_fit_pass():
    _check_range(images(-1.0, 1.0))
    _check_range(images(0.2, 0.4))  # dark, but no brighter than gray
    _check_range(images(-9.0))  # latents
    _check_no_bytes(images(-300.0, 300.0), "a sample that has diverged")
    assert _check_values(images(-0.5, 2.0), "x", range(2)) == (-0.5, 2.0)
    assert _check_values(torch.zeros(0, 1, 2, 2), "x", []) == (math.inf, -math.inf)


def test_batches_are_checked_together():
    """Images of a later batch decide whether those of the first are in [0, 1], and are counted on."""
    check = _RangeCheck("images")
    check.add(images(0.2, 0.9))
    check.add(images(-0.5))
    check.finish()
    with raises_input_error("^images .* image 4[.]$"):
        check.add(images(0.0, math.nan))
    unit = _RangeCheck("images")
    for value in (0.2, 0.9):
        unit.add(images(value))
    with raises_input_error("^images has values from 0 to 0.9, "):
        unit.finish()


@pytest.mark.parametrize("numbers, named", [((7, 3), 3), ((0, 12), 12)])
def test_a_batch_names_its_images_by_their_own_numbers(numbers, named):
    with raises_input_error(f"^x .* image {named}[.]$"):
        _check_values(images(0.5, math.inf), "x", numbers)
