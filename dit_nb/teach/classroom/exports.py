"""Grades and feedback in the forms that Moodle and Canvas take back."""

import csv
import re
import zipfile
from pathlib import Path

from dit_nb.teach.classroom.roster import _Student
from dit_nb.teach.classroom.table import GRADED, Grade, _n
from dit_nb.utils import _atomic_write

__all__ = []


def _write_moodle(path: Path, grades: list[Grade], students: dict[str, _Student]) -> None:
    """Write Moodle's grading worksheet: a row for each student whose number on Moodle is known."""
    rows = []
    for g in grades:
        student = students.get(g.student, _Student(g.student))
        number = g.number or student.number
        if number and g.state == GRADED:
            rows.append(
                [f"Participant {number}", g.name or g.student, student.email, _n(g.points), _n(g.max_points)]
            )
    _write_rows(path, ["Identifier", "Full name", "Email address", "Grade", "Maximum Grade"], rows)


def _write_canvas(
    path: Path, name: str, grades: list[Grade], students: dict[str, _Student], column: str
) -> None:
    """Write Canvas's gradebook: a column of points, after a line with the possible points."""
    most = max((g.max_points for g in grades), default=0.0)
    rows = [["    Points Possible", "", "", "", "", _n(most)]]
    for g in grades:
        student = students.get(g.student, _Student(g.student))
        number = g.number or student.number
        if number and g.state == GRADED:
            login = g.student if g.student in students else ""
            rows.append([student.name or g.student, number, "", login, student.section, _n(g.points)])
    _write_rows(path, ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", column or name], rows)


def _canvas_column(roster: Path | None, name: str) -> str:
    """Return the column of an assignment in an export of Canvas, such as `a1 (87568490)`."""
    if roster is None or not roster.is_file():
        return name
    with roster.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        head = next(csv.reader(file), [])
    own = [c for c in head if re.fullmatch(rf"(.*\W)?{re.escape(name)}(\W.*)? \(\d+\)", c, re.IGNORECASE)]
    return own[0] if len(own) == 1 else name


def _write_rows(path: Path, head: list[str], rows: list[list[str]]) -> None:
    with _atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerows([head, *rows])


def _write_feedback_zip(path: Path, course: Path, name: str, grades: list[Grade]) -> None:
    """Write a zip file with the feedback pages, named as Moodle's own download names them."""
    with _atomic_write(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for g in grades:
            page = course / "feedback" / g.student / name / f"{name}.html"
            if page.exists():
                folder = g.received or g.student
                archive.write(page, f"{folder.rstrip('/')}/{name}-feedback.html")
