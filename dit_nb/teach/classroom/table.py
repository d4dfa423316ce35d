"""The table of grades of an assignment: one line for each student, equal to nbgrader's gradebook."""

import csv
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from dit_nb.teach.classroom.roster import _read_rows
from dit_nb.utils import _atomic_write

__all__ = ["Grade", "add_remark", "late_by", "with_points"]

GRADED, WAITING, NOT_GRADED, MISSING = "graded", "waiting", "not graded", "missing"
NO_PAGE = "no feedback page: see nbgrader.log"  # a remark
_FIRST = ["assignment", "student", "name", "state", "raw", "penalty", "score", "max", "late"]
_LAST = ["seconds", "number", "received", "remarks"]


@dataclass(frozen=True)
class Grade:
    """Result of one student."""

    student: str  # name of the student in the course
    state: str = NOT_GRADED  # graded, waiting (for marks by hand), not graded, or missing
    exercises: dict[str, tuple[float, float]] = field(default_factory=dict)  # exercise -> points, maximum
    by_hand: tuple[str, ...] = ()  # exercises that the teacher has yet to grade
    penalty: float = 0.0  # points subtracted because it was late
    late: int = 0  # seconds after the due date
    seconds: float = 0.0  # time that it ran
    name: str = ""  # full name, from the list of the class
    number: str = ""  # number of the student on the platform
    received: str = ""  # folder or start of the file names in the platform's download
    remarks: str = ""  # what the teacher should know
    now: bool = False  # whether this call of `grade` was about this student

    @property
    def complete(self) -> bool:
        """Whether it has been graded, perhaps but for a person's marks, and has its feedback page."""
        return self.state in (GRADED, WAITING) and NO_PAGE not in self.remarks

    @property
    def raw(self) -> float:
        """Points of all exercises, before a penalty."""
        return sum(points for points, _ in self.exercises.values())

    @property
    def points(self) -> float:
        """Points that count."""
        return max(0.0, self.raw - self.penalty)

    @property
    def max_points(self) -> float:
        """Maximum points of all exercises."""
        return sum(most for _, most in self.exercises.values())


def with_points(grade: Grade, found: dict | None) -> Grade:
    """Return a line with the points that the gradebook has now."""
    if found is None:
        lost = grade.state in (GRADED, WAITING)
        again = (
            add_remark(grade.remarks, "its points have left the gradebook: grade again")
            if lost
            else grade.remarks
        )
        state = NOT_GRADED if lost else grade.state
        return replace(grade, state=state, exercises={}, by_hand=(), penalty=0.0, late=0, remarks=again)
    kept = [
        part for part in grade.remarks.split("; ") if part and not part.startswith("to be graded by hand")
    ]
    waits = [f"to be graded by hand: {', '.join(found['by_hand'])}"] if found["by_hand"] else []
    state = WAITING if found["by_hand"] else GRADED
    facts = {key: found[key] for key in ("exercises", "by_hand", "penalty", "late")}
    return replace(grade, **facts, state=state, remarks="; ".join([*kept, *waits]))


def add_remark(remarks: str, remark: str) -> str:
    """Return remarks with one more."""
    return "; ".join(part for part in (remarks, remark) if part)


def _read_table(path: Path) -> dict[str, Grade]:
    """Read a table that `_write_table` wrote: student -> line; the points come from the gradebook."""
    if not path.is_file():
        return {}
    rows = [row for row in _read_rows(path, "the table")[1] if row.get("student") and row.get("state")]
    return {
        row["student"]: Grade(
            row["student"],
            row["state"],
            seconds=_seconds(row.get("seconds", "")),
            name=row.get("name") or "",
            number=row.get("number") or "",
            received=row.get("received") or "",
            remarks=row.get("remarks") or "",
        )
        for row in rows
    }


def _points_by_student(path: Path) -> dict[str, dict[str, float | str]]:
    """Read what feedback pages show of a table: student -> state, points and time late; without empty cells."""
    if not path.is_file():
        return {}
    rows = [row for row in _read_rows(path, "the table")[1] if row.get("student")]
    hidden = {"assignment", "student", "name", "max", *_LAST}
    return {
        row["student"]: {key: _number(value) for key, value in row.items() if value and key not in hidden}
        for row in rows
    }


def _number(text: str) -> float | str:
    """Read a number that a spreadsheet may have changed; other text stays as it is."""
    plain = text.strip().replace(",", ".")
    return float(plain) if re.fullmatch(r"-?\d{1,9}(\.\d+)?(e[+-]?\d+)?", plain) else plain


def _seconds(text: str) -> float:
    """Read a time that a spreadsheet may have changed."""
    found = re.fullmatch(r"\d{1,9}([.,]\d+)?", text.strip())
    return float(found[0].replace(",", ".")) if found else 0.0


def _write_table(path: Path, name: str, grades: list[Grade]) -> None:
    """Write a row for each student and a column for each exercise, with a mark that lets Excel read names."""
    exercises = _columns(grades)
    with _atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow([*_FIRST, *exercises, *_LAST])
        for g in grades:
            total = [_n(g.raw), _n(g.penalty), _n(g.points)] if g.state == GRADED else ["", "", ""]
            most = _n(g.max_points) if g.exercises else ""
            each = [
                _n(g.exercises[e][0]) if e in g.exercises and e not in g.by_hand else "" for e in exercises
            ]
            first = [name, g.student, g.name, g.state, *total, most, late_by(g.late)]
            table.writerow(
                [*first, *each, f"{g.seconds:.1f}" if g.seconds else "", g.number, g.received, g.remarks]
            )


def late_by(seconds: int) -> str:
    """Return a time as days, hours and minutes; empty if there is none."""
    if seconds <= 0:
        return ""
    parts = {"d": seconds // 86400, "h": seconds // 3600 % 24, "min": -(-seconds % 3600 // 60)}
    return " ".join(f"{n} {unit}" for unit, n in parts.items() if n) or "1 min"


def _n(number: float) -> str:
    return f"{round(number, 4):g}"


def _columns(grades: list[Grade]) -> list[str]:
    return list(dict.fromkeys(exercise for grade in grades for exercise in grade.exercises))


def _grade_table(grades: list[Grade]) -> str:
    """Return a table of the students' points as text; below, remarks on those of this call, or on all."""
    exercises = _columns(grades)
    late = any(g.late for g in grades)
    rows = [["student", "points", *(["late"] if late else []), *exercises]]
    for g in grades:
        each = [_cell(g, e) for e in exercises]
        rows.append([g.student, _total(g), *([late_by(g.late)] if late else []), *each])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
    told = [g for g in grades if g.now] or grades
    remarks = [f"{g.student}: {g.remarks}" for g in told if g.remarks]
    return "\n".join([*lines, *[""] * bool(remarks), *remarks])


def _cell(g: Grade, exercise: str) -> str:
    if exercise not in g.exercises:
        return "-"
    points, most = g.exercises[exercise]
    return f"?/{_n(most)}" if exercise in g.by_hand else f"{_n(points)}/{_n(most)}"


def _total(g: Grade) -> str:
    if not g.exercises:
        return "missing" if g.state == MISSING else "-"
    if g.state == WAITING:
        return f"{_n(g.raw)}+?/{_n(g.max_points)}"
    penalty = f" ({_n(g.raw)} - {_n(g.penalty)})" if g.penalty else ""
    return f"{_n(g.points)}/{_n(g.max_points)}{penalty}"
