"""Grades and feedback in the forms that Moodle and Canvas take back."""

import csv
import re
import zipfile
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.moodle import _as_worksheet, _now, _number
from dit_nb.teach.classroom.roster import _read_lists, _Student
from dit_nb.teach.classroom.table import GRADED, Grade, _n
from dit_nb.utils import _atomic_write

__all__ = []


def _write_moodle(
    path: Path, grades: list[Grade], students: dict[str, _Student], roster: Path | None = None
) -> list[str]:
    """Write Moodle's grading worksheet, which its page *Upload grading worksheet* takes.

    If the list of the class is the worksheet that Moodle wrote for this assignment, its grades are filled in;
    otherwise it has Moodle's English columns and a row for each student whose number on Moodle is known.

    Args:
        path: file to write
        grades: lines of the table
        students: id -> line of the list of the class
        roster: list of the class, perhaps a worksheet of Moodle

    Returns:
        graded students who are not in the file

    Raises:
        UserError: if the maximum grade in Moodle is another than that of the assignment
    """
    ready, left_out = _with_number(grades, students)
    sheet = _as_worksheet(_read_lists(roster, "roster")) if roster and roster.is_file() else None
    theirs = {_number(row[0]) for row in sheet.rows} if sheet else set()
    if sheet and theirs & {*ready}:
        _check_maximum(roster, sheet.max_points, max(g.max_points for g in ready.values()))
        _write_rows(path, *sheet.fill({number: _n(g.points) for number, g in ready.items()}))
        return left_out + [g.student for number, g in ready.items() if number not in theirs]
    head = ["Identifier", "Full name", "Email address", "Grade", "Maximum grade", "Last modified (grade)"]
    rows = []
    for number, g in ready.items():
        student = students.get(g.student, _Student(g.student))
        first = [f"Participant {number}", g.name or g.student, student.email]
        rows.append([*first, _n(g.points), _n(g.max_points), _now()])
    _write_rows(path, head, *rows)
    return left_out


def _with_number(grades: list[Grade], students: dict[str, _Student]) -> tuple[dict[str, Grade], list[str]]:
    """Return number on the platform -> line of a graded student, and the graded students without a number."""
    graded = [g for g in grades if g.state == GRADED]
    numbers = [g.number or students.get(g.student, _Student(g.student)).number for g in graded]
    ready = {number: g for number, g in zip(numbers, graded) if number}
    return ready, [g.student for number, g in zip(numbers, graded) if not number]


def _check_maximum(roster: Path | None, theirs: float | None, ours: float) -> None:
    """Raise a UserError if Moodle would take the points for a part of another maximum."""
    if theirs not in (None, ours):
        raise UserError(
            f"roster is {roster}, whose maximum grade is {theirs:g}, but the assignment has {ours:g} points: "
            f"set the maximum grade to {ours:g} in Moodle, and download the worksheet again."
        )


def _write_canvas(
    path: Path, name: str, grades: list[Grade], students: dict[str, _Student], column: str
) -> list[str]:
    """Write Canvas's gradebook: a column of points, after a line with the possible points.

    Returns:
        graded students who are not in the file
    """
    ready, left_out = _with_number(grades, students)
    most = max((g.max_points for g in grades), default=0.0)
    rows = [["    Points Possible", "", "", "", "", _n(most)]]
    for number, g in ready.items():
        student = students.get(g.student, _Student(g.student))
        login = g.student if g.student in students else ""
        rows.append([student.name or g.student, number, "", login, student.section, _n(g.points)])
    _write_rows(path, ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", column or name], *rows)
    return left_out


def _canvas_column(roster: Path | None, name: str) -> str:
    """Return the column of an assignment in an export of Canvas, such as `a1 (87568490)`."""
    if roster is None or not roster.is_file():
        return name
    try:
        with roster.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            head = next(csv.reader(file), [])
    except csv.Error:
        return name
    own = [c for c in head if re.fullmatch(rf"(.*\W)?{re.escape(name)}(\W.*)? \(\d+\)", c, re.IGNORECASE)]
    return own[0] if len(own) == 1 else name


def _write_rows(path: Path, *rows: list[str]) -> None:
    with _atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_feedback_zip(path: Path, course: Path, name: str, grades: list[Grade]) -> None:
    """Write a zip file with the feedback pages, named as Moodle's own download names them."""
    with _atomic_write(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for g in grades:
            page = course / "feedback" / g.student / name / f"{name}.html"
            if page.exists():
                folder = g.received or g.student
                archive.write(page, f"{folder.rstrip('/')}/{name}-feedback.html")
