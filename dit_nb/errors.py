"""UserError, the exception for input that a user can fix, and the checks that raise it. Imports no torch."""

import errno
import math
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["UserError"]


class UserError(ValueError):
    "Invalid input that the caller can fix. The message is one sentence: what it is, and what it must be."


def _shown(value) -> str:
    "A value for a message: its repr, or its type if that does not fit into a line; a path may be longer."
    text = repr(value)
    limit = 300 if isinstance(value, str) else 80
    return text if len(text) < limit and "\n" not in text else f"a {type(value).__name__}"


def _check_choice(name: str, value, known: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in known:  # an array would be compared element by element
        raise UserError(f"{name} is {_shown(value)}, but must be one of {', '.join(known)}.")


def _is_int(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value) -> bool:
    "Whether a value is a number that fits into a float."
    if isinstance(value, int) and abs(value) > 2**1000:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise UserError(f"{name} is {_shown(value)}, but must be True or False.")


def _check_callable(name: str, value, takes: str) -> None:
    if not callable(value) or isinstance(value, type):
        raise UserError(f"{name} is {_shown(value)}, but must be a function of {takes}.")


def _check_path(name: str, value) -> None:
    if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
        raise UserError(f"{name} is {_shown(value)}, but must be a file or a folder.")


def _check_names(name: str, value) -> None:
    "Raise a UserError unless a value is a list or tuple of strings."
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{name} is {_shown(value)}, but must be a tuple of names.")


def _check_type(name: str, value, kind: type) -> None:
    if not isinstance(value, kind):
        raise UserError(f"{name} is {_shown(value)}, but must be of the class {kind.__name__}.")


def _check_number(name: str, value, kind: type = float, positive: bool = True) -> None:
    "Raise a UserError if a value is no number, no integer although `kind` is int, or too small."
    fits = _is_int(value, -math.inf) and value < 2**63 if kind is int else _is_number(value)
    if not fits or not 0 <= value < math.inf or (positive and value == 0):
        wanted = "an integer" if kind is int else "a number"
        least = "above 0" if positive else "of at least 0"
        raise UserError(f"{name} is {_shown(value)}, but must be {wanted} {least}.")


# A disk that takes no more, or files that are not ours to read or write. A failed write names no file.
_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_DISK_ERRORS = (*_FULL_ERRORS, errno.EACCES, errno.EPERM, errno.EIO)


def _damaged_checkpoint(folder: Path, error: BaseException) -> UserError:
    "What to raise for a checkpoint whose files cannot be read."
    return UserError(
        f"Checkpoint {folder} is damaged ({type(error).__name__}): "
        "remove that folder to resume from the previous checkpoint."
    )


def _explain_os_error(error: OSError) -> str:
    "One sentence on a file that the system could not read or write."
    what = "written" if error.errno in _FULL_ERRORS else "read or written"
    return f"{error.filename or 'A file'} cannot be {what}: {error.strerror}."
