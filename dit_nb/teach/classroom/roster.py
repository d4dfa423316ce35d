"""The list of a class: one student is one student, whatever a platform calls them; and who has more time."""

import csv
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.moodle import _in_english

__all__ = []

_ID = (
    "sis login id",
    "sis user id",
    "id number",
    "student id",
    "login",
    "username",
    "user name",
    "id",
    "student",
)
_NAME = ("full name", "name", "student name", "student")
_NUMBER = ("identifier", "id")
_EMAIL = ("email address", "email", "e-mail")


@dataclass(frozen=True)
class _Student:
    """A line of the list."""

    id: str  # name in tables, folders and the gradebook
    name: str = ""
    email: str = ""
    number: str = ""  # number on the platform
    section: str = ""

    @property
    def names(self) -> set[str]:
        """All that a file of this student may be called, in small letters and digits."""
        parts = [part for part in re.split(r"[\s,]+", self.name) if part]
        turned = " ".join([*parts[1:], *parts[:1]]), " ".join([*parts[-1:], *parts[:-1]])
        all_names = (self.id, self.name, *turned, self.email, self.email.split("@")[0])
        return {_plain(name) for name in all_names} - {""}


def _plain(text: str) -> str:
    """Return letters and digits alone, small and without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in letters if c.isalnum())


def _read_roster(path: Path) -> list[_Student]:
    """Read a CSV file with a header: id or student, name, email; or an export of Moodle or Canvas.

    Raises:
        UserError: if the file has no column that names students, or one name stands twice
    """
    students = [s for s in map(_student, _by_column(_in_english(_read_lists(path, "roster")))[1]) if s]
    if not students:
        raise UserError(
            f"roster is {path}, but must have a header with one of id, student or name, and students."
        )
    ids = [student.id for student in students]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UserError(
            f"roster is {path}, but {', '.join(twice)[:80]} stands there twice: give each student an id."
        )
    return students


def _read_rows(path: Path, what: str) -> tuple[set[str], list[dict[str, str]]]:
    """Read a CSV file with a header, as `_read_lists` does.

    Returns:
        the names of the columns in small letters, and the rows
    """
    return _by_column(_read_lists(path, what))


def _read_lists(path: Path, what: str) -> list[list[str]]:
    """Read a CSV file, also as Excel saves it: with another encoding, or other separators.

    Args:
        path: the file
        what: what it is called in an error

    Raises:
        UserError: if there is no such file, or it is no table
    """
    if not path.is_file():
        raise UserError(f"{what} is {path}, but there is no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    head = text.split("\n", 1)[0]
    table = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        return [row for row in table if row]
    except csv.Error as error:
        raise UserError(f"{what} is {path}, but cannot be read as a table ({error}).") from None


def _by_column(table: list[list[str]]) -> tuple[set[str], list[dict[str, str]]]:
    head, *rows = table or [[]]
    columns = [name.strip().lower() for name in head]
    return {*columns}, [dict.fromkeys(columns, "") | dict(zip(columns, row)) for row in rows]


def _student(row: dict[str, str]) -> _Student | None:
    canvas = any(name.startswith("sis ") for name in row)
    first, last = row.get("first name", ""), row.get("last name", row.get("surname", ""))
    name = f"{first} {last}".strip() or _first(row, _NAME)
    number = row.get("identifier", row.get("id", "") if canvas else "")
    found = _first({k: v for k, v in row.items() if not canvas or k not in ("student", "id")}, _ID)
    student = found or _first(row, _EMAIL) or name
    if not student or (canvas and not number.strip().isdigit()):
        return None  # an empty line, or Canvas's line of possible points
    return _Student(
        student.strip(), name, _first(row, _EMAIL), re.sub(r"\D", "", number), row.get("section", "").strip()
    )


def _first(row: dict[str, str], columns: tuple[str, ...]) -> str:
    return next((row[c].strip() for c in columns if row.get(c, "").strip()), "")


def _read_extensions(path: Path, assignment: str, students: list[_Student]) -> dict[str, float]:
    """Read who may submit later: a CSV file with the columns student, days and hours, perhaps assignment.

    Args:
        path: the file; if there is none, nobody has more time
        assignment: its lines count, and those that name none
        students: list of the class, whose names the file may use; empty if there is none

    Returns:
        student -> seconds after the due date; the lines of one student add up

    Raises:
        UserError: if the file has other columns, a time is no number, or the list does not have a student
    """
    extensions: dict[str, float] = {}
    columns, rows = _read_rows(path, "late.csv") if path.exists() else ({"student", "days"}, [])
    named = all(row.get("student", "").strip() for row in rows)
    if not named or "student" not in columns or not {"days", "hours"} & columns:
        raise UserError(f"late.csv is {path}, but each line must have a student, and days or hours.")
    for row in rows:
        key = row["student"].strip()
        if row.get("assignment", "").strip() not in ("", assignment):
            continue
        found = _find_student(students, key, "")
        if students and not found:
            raise UserError(f"late.csv is {path}, but its student {key!r} is not in the list of the class.")
        seconds = 86400 * _time(path, row, "days") + 3600 * _time(path, row, "hours")
        student = found.id if found else key
        extensions[student] = extensions.get(student, 0.0) + seconds
    return extensions


def _time(path: Path, row: dict[str, str], column: str) -> float:
    text = row.get(column, "").strip().replace(",", ".") or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e5:
        who = row["student"].strip()
        raise UserError(f"late.csv is {path}, but {column} of {who} is {text!r}: it must be a number from 0.")
    return value


def _find_student(students: list[_Student], key: str, number: str) -> _Student | None:
    """Return the student that a platform calls so; None if there is no one, or more than one."""
    for same in (
        [s for s in students if number and s.number == number],
        [s for s in students if s.id == key],
        [s for s in students if {_plain(key), _plain(key.removesuffix(number))} & s.names],
    ):
        if len(same) == 1:
            return same[0]
    return None
