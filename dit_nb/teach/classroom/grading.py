"""A class graded: submissions taken in, repaired and run, recorded by nbgrader, and told in one table."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _dumps
from dit_nb.teach.classroom.engine import _convert, _require_nbgrader, _settings
from dit_nb.teach.classroom.execute import _free_folders, _run_notebook
from dit_nb.teach.classroom.gradebook import (
    _clear,
    _differences,
    _extension,
    _gradebook,
    _marks_by_hand,
    _restore_marks,
    _source_cells,
    _update_penalty,
)
from dit_nb.teach.classroom.memory import _locked, _read_memory, _write_memory
from dit_nb.teach.classroom.notebooks import (
    _grade_id,
    _graded_by_hand,
    _is_check,
    _marks,
    _part,
    _read_notebook,
)
from dit_nb.teach.classroom.publish import _publish, _read_grades
from dit_nb.teach.classroom.remarks import _tree_sums
from dit_nb.teach.classroom.roster import _read_extensions, _read_roster, _Student
from dit_nb.teach.classroom.sandbox import _check_sandbox
from dit_nb.teach.classroom.table import MISSING, NOT_GRADED, Grade, add_remark
from dit_nb.teach.classroom.work import Class, _copy_files, _take_in, _Work

__all__ = ["grade"]


def grade(
    name: str,
    course: str | Path,
    options: Class | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Grade]:
    """Grade a class; return the lines of all its students, also of those graded earlier.

    Writes feedback pages, the table grades-NAME.csv, and the page class-NAME.html. Students who are graded again
    lose their earlier points first; marks given by hand stay with the text that was marked.

    Args:
        name: the assignment, such as a1
        course: folder of the course, from `build`
        options: where the submissions are, and how they are graded
        progress: called with a line for each student

    Raises:
        UserError: if the assignment was not built there, nbgrader_config.py has an error, there are no
            submissions, or another grader is at work
    """
    course, options = Path(course).absolute(), options or Class()
    release = _read_release(course, name)
    built = _part(release["metadata"], "dit_nb").get("version")
    if built not in (None, version("dit_nb")):
        progress(f"{name} was built with dit_nb {built}, but is graded with {version('dit_nb')}")
    _require_nbgrader()
    _settings(course)
    if options.limits.sandbox:
        _check_sandbox()
    with _locked(course), tempfile.TemporaryDirectory(prefix="dit") as scratch:
        students = _read_class(course, options)
        late = _read_extensions(course / "late.csv", name, students)
        with _gradebook(course) as book:
            sources = _source_cells(book, name)
        works = _take_in(name, course, options, release, sources, students, Path(scratch))
        for student in sorted({*late} - {work.student for work in works}):
            progress(f"late.csv names {student}, of whom nothing is graded now")
        folders = _free_folders(Path(scratch))
        size, done, start = max(8, 4 * options.jobs), 0, time.monotonic()
        for i in range(0, len(works), size):
            batch = works[i : i + size]

            def told(work: _Work) -> None:
                nonlocal done
                done += 1
                progress(_progress_line(work, done, len(works), time.monotonic() - start))

            asyncio.run(_run_all(batch, folders, options, told))
            _record(name, course, batch, late, students)
        grades = _publish(name, course, students, _lines_of_missing(works, students))
        now = {work.student for work in works}
        return [replace(g, now=g.student in now) for g in grades]


def _read_release(course: Path, name: str) -> dict:
    path = course / "release" / name / f"{name}.ipynb"
    if not path.exists():
        raise UserError(f"course is {course}, but there is no {path}: build the assignment first.")
    return _read_notebook(path)


def _read_class(course: Path, options: Class) -> list[_Student]:
    path = options.roster or course / "roster.csv"
    return _read_roster(path) if options.roster or path.exists() else []


async def _run_all(works: list[_Work], folders: Iterator[Path], options: Class, told) -> None:
    """Run notebooks, some at the same time."""
    turn = asyncio.Semaphore(options.jobs)

    async def run(work: _Work) -> None:
        async with turn:
            if work.nb is not None and not _graded_by_hand(work.nb):
                folder = next(folders)
                _copy_files(work, folder)
                work.run = await _run_notebook(work.nb, folder, options.limits)
                work.remarks += work.run.remarks
                shutil.rmtree(folder, ignore_errors=True)
            told(work)

    await asyncio.gather(*map(run, works))


def _progress_line(work: _Work, done: int, total: int, seconds: float) -> str:
    if work.nb is None:
        found = f"not graded: {work.reason}"
    else:
        checks = [cell for cell in work.nb["cells"] if _is_check(cell)]
        points = sum(_marks(c)["points"] * work.run.share(_grade_id(c) or "") for c in checks)
        most = sum(_marks(c)["points"] for c in checks)
        found = f"{points:g}/{most:g}, {work.run.seconds:.1f} s" if checks else "to be graded by hand"
    left = seconds / done * (total - done)
    rest = f" ({left / 60:.0f} min left)" if left > 90 else f" ({left:.0f} s left)" if left else ""
    return f"{done}/{total} {work.student}: {found}{rest}"


def _record(
    name: str, course: Path, works: list[_Work], late: dict[str, float], students: list[_Student]
) -> None:
    """Let nbgrader record a batch: earlier points go, marks by hand come back, pages and table are written."""
    memory = _read_memory(course, name)
    earlier = {g.student: g for g in _read_grades(name, course)}
    ready = [work for work in works if work.nb is not None]
    with _gradebook(course) as book:
        for work in works:
            own = memory.setdefault(work.student, {})
            own["marks"] = _marks_by_hand(book, course, name, work.student, own)
            known = _extension(book, name, work.student) or own.get("extension")
            own["extension"] = late.get(work.student, known)
            earlier[work.student] = _keep_points(own, earlier.get(work.student) or Grade(work.student))
            own["pending"] = True  # until the gradebook has the marks again
        _write_memory(course, name, memory)
        for work in works:
            _clear(book, course, name, work.student)
    run_folder = Path(tempfile.mkdtemp(prefix="run-", dir=course / ".grading"))
    try:
        for work in ready:
            _stage(work, run_folder / work.student / name, name)
        place = str(run_folder.relative_to(course))
        if ready and not _convert("Autograde", course, name, [w.student for w in ready], place):
            _settings(course)  # tells what is wrong with the settings, if it is they
    finally:
        shutil.rmtree(run_folder, ignore_errors=True)
    for work in works:
        if work.nb is None or not (course / "autograded" / work.student / name / f"{name}.ipynb").exists():
            work.nb, work.reason = None, work.reason or "nbgrader could not record it: see nbgrader.log"
            continue
        _restore(work, name, course, memory[work.student])
        _write_memory(course, name, memory)
    lines = [_line(work, earlier.get(work.student)) for work in works]
    _publish(name, course, students, lines, [w.student for w in works if w.nb is not None], earlier)


def _keep_points(own: dict, earlier: Grade) -> Grade:
    """Remember a student's points until the new ones are recorded; return those before an interrupted call."""
    if not own.get("pending"):
        own["points"] = {"exercises": earlier.exercises, "penalty": earlier.penalty}
    return replace(earlier, **own.get("points", {}))


def _stage(work: _Work, folder: Path, name: str) -> None:
    """Write what nbgrader records: the notebook that has run, and the files beside it."""
    folder.mkdir(parents=True)
    _copy_files(work, folder)
    for file in ("timestamp.txt", "submission_secret.txt"):  # written by nbgrader collect
        if (work.root / file).exists():
            shutil.copy(work.root / file, folder)
    (folder / f"{name}.ipynb").write_text(_dumps(work.nb), encoding="utf-8")


def _restore(work: _Work, name: str, course: Path, own: dict) -> None:
    """Give marks and extension back, and remember what the pages show."""
    graded = course / "autograded" / work.student / name / f"{name}.ipynb"
    nb = _read_notebook(graded)
    with _gradebook(course) as book:
        work.remarks += _differences(book, name, work.student, work.run)
        work.remarks += _restore_marks(book, name, work.student, own["marks"], nb)
        _update_penalty(book, course, name, work.student, own.get("extension"))
    own["reports"], own["notes"] = work.run.reports, work.notes
    own["trees"] = _tree_sums(nb, work.files)
    own["pending"] = False


def _line(work: _Work, earlier: Grade | None) -> Grade:
    """Return the line of a student, without points, which the gradebook has."""
    reason = [f"not graded: {work.reason}"] if work.nb is None else []
    one = work.received
    return Grade(
        work.student,
        NOT_GRADED if work.nb is None else "graded",
        seconds=work.run.seconds,
        name=work.name or (earlier.name if earlier else ""),
        number=one.number,
        received=one.origin,
        remarks="; ".join([*reason, *work.notes, *work.remarks]),
    )


def _lines_of_missing(works: list[_Work], students: list[_Student]) -> list[Grade]:
    """Return lines for those of the list who have submitted nothing; `_publish` keeps those graded earlier."""
    have = {work.student for work in works}
    absent = [s for s in students if s.id not in have]
    return [Grade(s.id, MISSING, name=s.name, remarks=add_remark("", "nothing submitted")) for s in absent]
