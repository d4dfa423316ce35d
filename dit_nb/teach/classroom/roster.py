"""The list of a class: one student is one student, whatever a platform calls them."""

import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from dit_nb.errors import UserError

__all__ = ["Student", "read_roster", "find_student"]

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
class Student:
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


def read_roster(path: Path) -> list[Student]:
    """Read a CSV file with a header: id or student, name, email; or an export of Moodle or Canvas.

    Raises:
        UserError: if the file has no column that names students, or one name stands twice
    """
    if not path.is_file():
        raise UserError(f"roster is {path}, but there is no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    head = text.split("\n", 1)[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count))
    students = [
        s
        for s in (
            _student({(k or "").strip().lower(): (v or "") for k, v in r.items() if not isinstance(v, list)})
            for r in rows
        )
        if s
    ]
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


def _student(row: dict[str, str]) -> Student | None:
    canvas = any(name.startswith("sis ") for name in row)
    first, last = row.get("first name", ""), row.get("last name", row.get("surname", ""))
    name = f"{first} {last}".strip() or _first(row, _NAME)
    number = row.get("identifier", row.get("id", "") if canvas else "")
    found = _first({k: v for k, v in row.items() if not canvas or k not in ("student", "id")}, _ID)
    student = found or _first(row, _EMAIL) or name
    if not student or (canvas and not number.strip().isdigit()):
        return None  # an empty line, or Canvas's line of possible points
    return Student(
        student.strip(), name, _first(row, _EMAIL), re.sub(r"\D", "", number), row.get("section", "").strip()
    )


def _first(row: dict[str, str], columns: tuple[str, ...]) -> str:
    return next((row[c].strip() for c in columns if row.get(c, "").strip()), "")


def find_student(students: list[Student], key: str, number: str) -> Student | None:
    """Return the student that a platform calls so; None if there is no one, or more than one."""
    for same in (
        [s for s in students if number and s.number == number],
        [s for s in students if s.id == key],
        [s for s in students if {_plain(key), _plain(key.removesuffix(number))} & s.names],
    ):
        if len(same) == 1:
            return same[0]
    return None
