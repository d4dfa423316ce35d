"""The checker of error messages itself."""

import pytest

from dit_nb.errors import UserError
from support import raises_input_error


class _Other(UserError):
    """A kind of its own."""


@pytest.mark.parametrize(
    "error", [UserError("x is 5. It is bad. Very bad."), UserError("x is 5"), _Other("x is 5.")]
)
def test_long_unfinished_and_other_messages_do_not_pass(error):
    with pytest.raises(AssertionError), raises_input_error("x"):
        raise error


def test_other_errors_and_none_do_not_pass():
    for error in (RuntimeError("x is 5."), ValueError("x is 5.")):
        with pytest.raises(type(error)), raises_input_error("x"):
            raise error
    with pytest.raises(pytest.fail.Exception), raises_input_error("x"):
        pass
