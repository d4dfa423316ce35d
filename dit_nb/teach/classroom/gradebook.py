"""nbgrader's gradebook: points read, submissions cleared, and marks given by hand bound to their text."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.engine import _database, _settings
from dit_nb.teach.classroom.execute import _Run
from dit_nb.teach.classroom.notebooks import _grade_id, _is_report, _marks, _read_notebook

__all__ = []


@contextmanager
def _gradebook(course: Path) -> Iterator:
    """Open the gradebook of a course.

    Raises:
        UserError: if another program has locked it, or it cannot be read
    """
    from nbgrader.api import Gradebook
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with Gradebook(_database(course)) as book:
            yield book
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error))[:100]
        raise UserError(
            f"the gradebook of {course} cannot be used ({reason}): close other programs that use it, then try again."
        ) from None


def _find(book, name: str, student: str):
    """Return a student's submission, or None."""
    from nbgrader.api import MissingEntry

    try:
        return book.find_submission(name, student)
    except MissingEntry:
        return None


def _source_cells(book, name: str) -> dict[str, tuple[str, float]]:
    """Return text and points of the marked cells of an assignment, by their names."""
    notebook = book.find_notebook(name, name)
    points = {cell.name: cell.max_score for cell in notebook.grade_cells}
    return {cell.name: (cell.source, points.get(cell.name, 0.0)) for cell in notebook.source_cells}


def _text_sums(nb: dict) -> dict[str, str]:
    """Return a checksum of the text that each graded cell's mark is about.

    For a report, that is its cell with the own cells below it; for a check, all that the student wrote.
    """
    cells, sums = nb["cells"], {}
    written = [cell["source"] for cell in cells if not _marks(cell).get("locked")]
    for i, cell in enumerate(cells):
        if not _marks(cell).get("grade"):
            continue
        text: list = written
        if _is_report(cell):
            end = next((j for j in range(i + 1, len(cells)) if _marks(cells[j])), len(cells))
            text = [[c["source"], c.get("attachments"), _shown(c)] for c in cells[i:end]]
        sums[_grade_id(cell)] = hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
    return sums


def _shown(cell: dict) -> list:
    return [[o.get("text"), o.get("data"), o.get("evalue")] for o in cell.get("outputs", [])]


def _marks_by_hand(book, course: Path, name: str, student: str, own: dict) -> dict[str, dict]:
    """Return a student's marks given by hand, with the checksum of the text that was marked.

    Earlier ones stay known, unless they were taken back: they are missing from a gradebook that had them.

    Args:
        book: the gradebook, open
        course: folder of the course
        name: the assignment
        student: name of the student
        own: what is remembered of the student; while it is "pending", the gradebook lacks earlier marks
    """
    known = own.get("marks", {})
    submission = _find(book, name, student)
    graded = course / "autograded" / student / name / f"{name}.ipynb"
    if submission is None or not graded.exists():
        return known
    sums, found = _text_sums(_read_notebook(graded)), {}
    for notebook in submission.notebooks:
        comments = {comment.name: comment.manual_comment for comment in notebook.comments}
        for grade in notebook.grades:
            given = {
                "score": grade.manual_score,
                "extra": grade.extra_credit,
                "comment": comments.get(grade.name),
            }
            if any(value is not None for value in given.values()):
                waits = grade.needs_manual_grade and grade.manual_score is not None
                found[grade.name] = {**given, "sum": "" if waits else sums.get(grade.name, "")}
    missing = {} if own.get("pending") else {cell: mark for cell, mark in known.items() if cell not in found}
    taken_back = {cell for cell, mark in missing.items() if mark["sum"] == sums.get(cell)}
    return {cell: mark for cell, mark in known.items() if cell not in taken_back} | found


def _differences(book, name: str, student: str, run: _Run) -> list[str]:
    """Say where nbgrader has recorded other points than the checks gave: there should be none."""
    submission = _find(book, name, student)
    grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
    wrong = [
        grade.name
        for grade in grades
        if grade.name in run.reports
        and abs((grade.auto_score or 0.0) - grade.max_score * run.share(grade.name)) > 1e-6
    ]
    return [f"nbgrader has recorded other points than the checks gave: {', '.join(wrong)}"] if wrong else []


def _extension(book, name: str, student: str) -> float | None:
    """Return the seconds by which a student's due date is extended, or None."""
    submission = _find(book, name, student)
    extension = submission.extension if submission is not None else None
    return extension.total_seconds() if extension is not None else None


def _clear(book, course: Path, name: str, student: str) -> None:
    """Remove a student's submission from the gradebook, autograded/ and feedback/."""
    if _find(book, name, student) is not None:
        book.remove_submission(name, student)
    for part in ("autograded", "feedback"):
        shutil.rmtree(course / part / student / name, ignore_errors=True)


def _restore_marks(book, name: str, student: str, marks: dict[str, dict], nb: dict) -> list[str]:
    """Give marks again to texts that have not changed; say which others wait for a grader."""
    sums, lost = _text_sums(nb), []
    submission = _find(book, name, student)
    for grade in [grade for notebook in submission.notebooks for grade in notebook.grades]:
        mark = marks.get(grade.name)
        if mark is None:
            continue
        if mark["sum"] == sums.get(grade.name):
            grade.manual_score, grade.extra_credit = mark["score"], mark["extra"]
            grade.needs_manual_grade = grade.needs_manual_grade and mark["score"] is None
            if mark["comment"] is not None:
                book.find_comment(grade.name, name, name, student).manual_comment = mark["comment"]
        elif mark["score"] is not None:
            was = f"{mark['score']:g}/{grade.max_score:g}"
            lost.append(f"{grade.name} was {was} by hand, the text has changed: grade again")
    book.db.commit()
    return lost


def _update_penalty(book, course: Path, name: str, student: str, extension: float | None = None) -> None:
    """Compute the late penalty of a student again, as nbgrader does, from all points; give an extension."""
    from nbgrader.preprocessors import AssignLatePenalties

    late = AssignLatePenalties(config=_settings(course))
    late.init_plugin()
    submission = _find(book, name, student)
    if extension is not None:
        submission.extension = timedelta(seconds=extension)
    if submission.assignment.duedate is None:  # nbgrader has no extension of no date
        submission.extension = None
    seconds = submission.total_seconds_late
    for notebook in submission.notebooks:
        penalty = (
            late.plugin_inst.late_submission_penalty(student, notebook.score, seconds)
            if seconds > 0
            else None
        )
        notebook.late_submission_penalty = None if penalty is None else max(0.0, min(penalty, notebook.score))
    book.db.commit()


def _read_points(book, name: str, student: str, ids: list[str]) -> dict | None:
    """Return a student's points in the order of the cells; None if the gradebook has none."""
    submission = _find(book, name, student)
    if submission is None or not submission.notebooks:
        return None
    exercises: dict[str, tuple[float, float]] = {}
    waiting: list[str] = []
    grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
    order = {grade_id: i for i, grade_id in enumerate(ids)}
    for grade in sorted(grades, key=lambda grade: order.get(grade.name, len(ids))):
        exercise = grade.name.rsplit("-", 1)[0]
        points, most = exercises.get(exercise, (0.0, 0.0))
        exercises[exercise] = (points + (grade.score or 0.0), most + grade.max_score)
        waiting += [exercise] if grade.needs_manual_grade and exercise not in waiting else []
    return {
        "exercises": exercises,
        "by_hand": tuple(waiting),
        "raw": sum(points for points, _ in exercises.values()),
        "penalty": float(sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks)),
        "late": int(submission.total_seconds_late) if submission.assignment.duedate else 0,
    }
