"""What a class and its teacher read, written from the gradebook: table, feedback pages, class page, exports."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.engine import _convert
from dit_nb.teach.classroom.exports import _canvas_column, _write_canvas, _write_feedback_zip, _write_moodle
from dit_nb.teach.classroom.gradebook import _gradebook, _read_points, _update_penalty
from dit_nb.teach.classroom.memory import _locked, _read_memory
from dit_nb.teach.classroom.nbgrader_source import source_notebook
from dit_nb.teach.classroom.notebooks import _grade_id, _read_notebook
from dit_nb.teach.classroom.pages import _write_class_page, _write_feedback_head
from dit_nb.teach.classroom.remarks import _tree_sums
from dit_nb.teach.classroom.roster import _read_extensions, _read_roster, _Student
from dit_nb.teach.classroom.table import (
    MISSING,
    NO_PAGE,
    Grade,
    _points_by_student,
    _read_table,
    _write_table,
    add_remark,
    with_points,
)

__all__ = []


def _read_grades(name: str, course: Path, new: list[Grade] | None = None) -> list[Grade]:
    """Return the lines of a table with the points that the gradebook has now, in the students' order."""
    lines = _read_table(course / f"grades-{name}.csv")
    for line in new or []:
        if line.state != MISSING or line.student not in lines:
            lines[line.student] = line
    release = course / "release" / name / f"{name}.ipynb"
    ids = [_grade_id(cell) or "" for cell in _read_notebook(release)["cells"]]
    with _gradebook(course) as book:
        recorded = [submission.student.id for submission in book.assignment_submissions(name)]
        for student in recorded:
            lines.setdefault(student, Grade(student, "graded"))
        found = {student: _read_points(book, name, student, ids) for student in lines}
    return [with_points(lines[student], found[student]) for student in sorted(lines)]


def _publish(
    name: str,
    course: Path,
    students: list[_Student],
    lines: list[Grade],
    changed: list[str] | None = None,
    earlier: dict[str, Grade] | None = None,
) -> list[Grade]:
    """Merge lines into the table, and write all that shows it; return the whole table.

    Args:
        name: the assignment
        course: folder of the course, absolute
        students: the list of the class, empty if there is none
        lines: new lines, without points
        changed: students whose feedback pages are written again, as are those whose points have changed
        earlier: lines before these students were graded again
    """
    grades = [
        _compared(grade, (earlier or {}).get(grade.student)) for grade in _read_grades(name, course, lines)
    ]
    table = course / f"grades-{name}.csv"
    earlier_rows = _points_by_student(table)
    _write_table(table, name, grades)
    now = _points_by_student(table)
    other = [g.student for g in grades if g.exercises and now[g.student] != earlier_rows.get(g.student)]
    changed = {*(changed or []), *(student for student in other if student in earlier_rows)}
    without = _write_feedback(name, course, [g for g in grades if g.student in changed])
    grades = [_with_page(g, g.student not in without) if g.student in changed else g for g in grades]
    _write_table(table, name, grades)
    memory, known = _read_memory(course, name), _tree_sums(source_notebook(name))
    _write_class_page(course / f"class-{name}.html", name, grades, memory, known)
    return grades


def _compared(grade: Grade, earlier: Grade | None) -> Grade:
    """Say so if a student has fewer points than before."""
    if earlier is None or not earlier.exercises or grade.points >= earlier.points:
        return grade
    return replace(grade, remarks=add_remark(grade.remarks, f"was {earlier.points:g}"))


def _with_page(grade: Grade, page: bool) -> Grade:
    """Say so if a student has no feedback page."""
    kept = "; ".join(part for part in grade.remarks.split("; ") if part != NO_PAGE)
    return replace(grade, remarks=kept if page else add_remark(kept, NO_PAGE))


def _write_feedback(name: str, course: Path, grades: list[Grade]) -> list[str]:
    """Write the feedback pages of some students; return those of whom nbgrader could not write one."""
    with_notebook = [g for g in grades if (course / "autograded" / g.student / name).exists()]
    for g in with_notebook:
        shutil.rmtree(course / "feedback" / g.student / name, ignore_errors=True)
    if with_notebook:
        _convert("GenerateFeedback", course, name, [g.student for g in with_notebook])
    memory = _read_memory(course, name)
    pages = {g.student: course / "feedback" / g.student / name / f"{name}.html" for g in with_notebook}
    for g in with_notebook:
        own = memory.get(g.student, {})
        _write_feedback_head(pages[g.student], g, own.get("reports", {}), own.get("notes", []))
    return [student for student, page in pages.items() if not page.exists()]


def _publish_again(
    name: str,
    course: str | Path,
    platform: str = "none",
    roster: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Grade]:
    """Write table and pages again, as after grading by hand, and the files that a platform takes back.

    Args:
        name: the assignment, such as a1
        course: folder of the course
        platform: moodle, canvas or none
        roster: list of the class; None: roster.csv of the course, if there is one
        progress: called with a line for each student whom the platform's file leaves out

    Raises:
        UserError: if nothing has been graded, or Moodle's worksheet has another maximum grade
    """
    course = Path(course).absolute()
    if not (course / f"grades-{name}.csv").exists():
        raise UserError(f"course is {course}, but has no grades-{name}.csv: grade the assignment first.")
    path = roster or course / "roster.csv"
    students = _read_roster(path) if roster or path.exists() else []
    with _locked(course):
        before = _read_grades(name, course)
        late = _read_extensions(course / "late.csv", name, students)
        with _gradebook(course) as book:
            for g in before:
                if g.exercises:
                    _update_penalty(book, course, name, g.student, late.get(g.student))
        grades = _publish(name, course, students, [], [g.student for g in before if g.exercises])
        _write_feedback_zip(course / f"feedback-{name}.zip", course, name, grades)
        by_id, left_out = {student.id: student for student in students}, []
        if platform == "moodle":
            left_out = _write_moodle(course / f"grades-{name}-moodle.csv", grades, by_id, path)
        elif platform == "canvas":
            column = _canvas_column(path, name)
            left_out = _write_canvas(course / f"grades-{name}-canvas.csv", name, grades, by_id, column)
    for student in left_out:
        progress(f"grades-{name}-{platform}.csv leaves out {student}, whose number there is not known")
    return grades
