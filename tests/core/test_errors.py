"""The checks of arguments: what passes, and a message that names the argument and what it got."""

import errno
import math
import os
from pathlib import Path

import pytest
import torch

from dit_nb.errors import (
    UserError,
    _check_callable,
    _check_choice,
    _check_flag,
    _check_names,
    _check_number,
    _check_path,
    _check_type,
    _explain_os_error,
    _shown,
)
from support import error_cases, raises_input_error


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError) and str(UserError("x is 1.")) == "x is 1."


@error_cases(
    (lambda: _check_choice("color", "red", ("blue", "green")), "^color is 'red', .* blue, green[.]$"),
    (lambda: _check_choice("color", torch.zeros(2), ("blue",)), r"^color is tensor\(.* blue[.]$"),
    (lambda: _check_choice("color", None, ("blue",)), "^color is None, .* blue[.]$"),
    (lambda: _check_flag("flip", 1), "^flip is 1, .*True or False"),
    (lambda: _check_flag("flip", torch.tensor(True)), r"^flip is tensor\(True\), .*True or False"),
    (lambda: _check_callable("model", 3, "x and t"), "^model is 3, .* x and t[.]$"),
    (lambda: _check_callable("model", dict, "x and t"), "^model is <class 'dict'>, .* x and t[.]$"),
    (lambda: _check_path("out", ""), "^out is '', "),
    (lambda: _check_path("out", "a\0b"), r"^out is 'a.x00b', "),
    (lambda: _check_path("out", b"runs"), "^out is b'runs', "),
    (lambda: _check_names("targets", "attn"), "^targets is 'attn', "),
    (lambda: _check_names("targets", ["attn", 3]), r"^targets is \['attn', 3\], "),
    (lambda: _check_type("model", {}, torch.nn.Module), "^model is {}, .* Module[.]$"),
    (lambda: _check_number("steps", True, int), "^steps is True, .* integer above 0[.]$"),
    (lambda: _check_number("steps", 2.0, int), "^steps is 2[.]0, .* integer above 0[.]$"),
    (lambda: _check_number("steps", 2**63, int), "^steps is 9223372036854775808, "),
    (lambda: _check_number("steps", 0, int), "^steps is 0, "),
    (lambda: _check_number("lr", 0), "^lr is 0, .* number above 0[.]$"),
    (lambda: _check_number("lr", "1"), "^lr is '1', "),
    (lambda: _check_number("lr", math.nan), "^lr is nan, "),
    (lambda: _check_number("lr", math.inf), "^lr is inf, "),
    (lambda: _check_number("lr", 10**400), "^lr is a int, "),
    (lambda: _check_number("decay", -1, positive=False), "^decay is -1, .* at least 0[.]$"),
)
def test_what_does_not_fit_is_named(call, pattern):
    with raises_input_error(pattern):
        call()


def test_what_fits_passes():
    _check_choice("color", "blue", {"blue": 1})
    _check_flag("flip", False)
    _check_callable("model", torch.nn.Identity(), "x")
    _check_path("out", Path("runs"))
    _check_path("out", "runs")
    _check_names("targets", ("attn", "mlp"))
    _check_type("model", torch.nn.Identity(), torch.nn.Module)
    _check_number("steps", 2**63 - 1, int)
    _check_number("steps", 0, int, positive=False)
    _check_number("lr", 1)


def test_a_value_is_shown_in_a_line():
    assert _shown([1, 2]) == "[1, 2]" and _shown("x" * 200) == repr("x" * 200)
    assert _shown("x" * 300) == "a str" and _shown(list(range(80))) == "a list"
    assert _shown(torch.zeros(2, 2)) == "a Tensor", "two lines"


@pytest.mark.parametrize(
    "number, verb", [(errno.ENOSPC, "written"), (errno.EROFS, "written"), (errno.EACCES, "read or written")]
)
def test_an_error_of_the_disk_is_a_sentence(number, verb):
    why = os.strerror(number)
    assert _explain_os_error(OSError(number, why, "a.txt")) == f"a.txt cannot be {verb}: {why}."
    assert _explain_os_error(OSError(number, why)) == f"A file cannot be {verb}: {why}."
