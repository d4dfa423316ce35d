"""The checker of error messages itself."""

import pytest

from support import raises_input_error


@pytest.mark.parametrize(
    "error", [ValueError("x is 5. It is bad. Very bad."), ValueError("x is 5"), UnicodeError("x is 5.")]
)
def test_long_unfinished_and_other_messages_do_not_pass(error):
    with pytest.raises(AssertionError), raises_input_error("x"):
        raise error


def test_other_errors_and_none_do_not_pass():
    with pytest.raises(RuntimeError), raises_input_error("x"):
        raise RuntimeError("x is 5.")
    with pytest.raises(pytest.fail.Exception), raises_input_error("x"):
        pass
