"""Moodle's grading worksheet: its columns, in whatever language Moodle wrote it."""

import re
from dataclasses import dataclass
from datetime import datetime, timezone

__all__ = []


@dataclass(frozen=True)
class _Worksheet:
    """A grading worksheet as Moodle writes it: first the number of the participant, later grade and time."""

    head: list[str]
    rows: list[list[str]]  # as long as the head
    grade: int  # column of the grade
    modified: int  # column of the time when Moodle stored the grade

    @property
    def max_points(self) -> float | None:
        """Maximum grade in Moodle, which stands after the grade; None if it has a scale."""
        texts = {row[self.grade + 1].strip() for row in self.rows}
        text = texts.pop().replace(",", ".") if len(texts) == 1 else ""
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None

    def fill(self, points: dict[str, str]) -> list[list[str]]:
        """Return the table with grades: number of a participant -> grade; other rows stay as they are."""
        rows = [list(row) for row in self.rows]
        for row in rows:
            grade = points.get(_number(row[0]))
            if grade is not None:
                row[self.grade], row[self.modified] = grade, _now()
        return [list(self.head), *rows]


def _as_worksheet(table: list[list[str]]) -> _Worksheet | None:
    """Return a table as a worksheet; None if it is none.

    In most languages the time of the grade is called like `Last modified (grade)`, where the word in brackets is
    the name of the column with the grade. The first column has `Participant 123`.
    """
    head, *rows = table or [[]]
    rows = [[*row, *[""] * len(head)][: len(head)] for row in rows]
    plain = [name.strip().casefold() for name in head]
    for modified, name in enumerate(plain):
        word = re.fullmatch(r".+[(（](.+)[)）]", name)
        grade = plain.index(word[1].strip()) if word and word[1].strip() in plain[:modified] else 0
        if grade and all(re.fullmatch(r"\D+\d+", row[0].strip()) for row in rows):
            return _Worksheet(head, rows, grade, modified)
    return None


def _in_english(table: list[list[str]]) -> list[list[str]]:
    """Return a table; of a worksheet in another language, what names students has Moodle's English names."""
    sheet = _as_worksheet(table)
    if sheet is None:
        return table
    names = {0: "Identifier", sheet.grade: "Grade", sheet.modified: "Last modified (grade)"}
    for k in range(1, sheet.grade):
        texts = [row[k] for row in sheet.rows]
        if any("@" in text for text in texts):
            names[k] = "Email address"
    texts = {row[1] for row in sheet.rows}
    if "Email address" in names.values() or 2 * len(texts) > len(sheet.rows):  # else names are hidden
        names.setdefault(1, "Full name")
    return [[names.get(k, name) for k, name in enumerate(sheet.head)], *sheet.rows]


def _number(identifier: str) -> str:
    """Return the number of `Participant 123`."""
    return re.sub(r"\D", "", identifier)


def _now() -> str:
    """Return the present time in a form that Moodle reads in every language (PHP's `strtotime`)."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
