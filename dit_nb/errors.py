"""UserError, the exception for input that a user can fix, and the checks that raise it. Imports no torch."""

import errno
import math
from collections.abc import Iterable

__all__ = ["UserError"]


class UserError(ValueError):
    "Invalid input that the caller can fix. The message is one sentence: what it is, and what it must be."


def _check_choice(name: str, value, known: Iterable[str]) -> None:
    if value not in known:
        raise UserError(f"{name} is {value!r}, but must be one of {', '.join(known)}.")


def _is_int(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_number(name: str, value, kind: type = float, positive: bool = True) -> None:
    "Raise a UserError if a value is no number, no integer although `kind` is int, or too small."
    fits = _is_int(value, -math.inf) if kind is int else _is_number(value)
    if not fits or not 0 <= value < math.inf or (positive and value == 0):
        wanted = "an integer" if kind is int else "a number"
        least = "above 0" if positive else "of at least 0"
        raise UserError(f"{name} is {value!r}, but must be {wanted} {least}.")


def _explain_os_error(error: OSError) -> str:
    "One sentence on a file that the system could not read or write."
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    what = "written" if full else "read or written"
    return f"{error.filename or 'A file'} cannot be {what}: {error.strerror}."
