"""Submissions on their way: whose they are, repaired, and with the checks of the source."""

import shutil
import sys
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.choice import _choose
from dit_nb.teach.classroom.execute import _Run
from dit_nb.teach.classroom.intake import _receive, _Received
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.notebooks import _grade_id, _marks, _part, _read_submission
from dit_nb.teach.classroom.remarks import _code_remarks, _syntax_remark
from dit_nb.teach.classroom.repair import repair
from dit_nb.teach.classroom.roster import _find_student, _Student

__all__ = ["Class"]


@dataclass(frozen=True)
class Class:
    """Where a class's submissions are, and how they are graded."""

    submissions: Path | None = None  # folder or zip file; None: submitted/ of the course
    kind: str = "folder"  # folder, moodle or canvas: how the files are named
    roster: Path | None = (
        None  # list of the class, a CSV file; None: roster.csv of the course, if there is one
    )
    students: tuple[str, ...] = ()  # grade these alone; empty: all
    jobs: int = 1  # notebooks that run at the same time
    limits: Limits = Limits()


@dataclass
class _Work:
    """A student's submission on its way."""

    student: str
    received: _Received
    nb: dict | None = None  # repaired; None: cannot be graded
    files: list[Path] = field(default_factory=list)  # that the notebook may use
    reason: str = ""  # why it cannot be graded
    notes: list[str] = field(default_factory=list)  # what student and teacher should know
    remarks: list[str] = field(default_factory=list)  # what the teacher should know
    name: str = ""
    run: _Run = field(default_factory=_Run)
    root: Path = Path(".")


def _take_in(name, course, options, release, sources, students, scratch) -> list[_Work]:
    """Return the work of each student, repaired."""
    source = Path(options.submissions or course / "submitted")
    received = _receive(source, options.kind, name, scratch)
    works = [_identify(one, students) for one in received]
    wanted = [w for w in works if not options.students or {w.student, w.name} & {*options.students}]
    if not wanted:
        whom = f" of {', '.join(options.students)}" if options.students else ""
        raise UserError(f"submissions is {source}, but it has no submissions{whom} for {name}.")
    _merge_twice(wanted)
    for work in wanted:
        _prepare(work, name, release, sources)
    return wanted


def _identify(one: _Received, students: list[_Student]) -> _Work:
    found = _find_student(students, one.key, one.number) if students else None
    work = _Work(found.id if found else one.key, one, name=found.name if found else "")
    if students and found is None:
        work.remarks.append("not in the list of the class")
    if one.late:
        work.notes.append("late, as the platform says")
    return work


def _merge_twice(works: list[_Work]) -> None:
    """Put submissions that belong to one student together."""
    first: dict[str, _Work] = {}
    for work in list(works):
        kept = first.setdefault(work.student, work)
        if kept is not work:
            kept.received.files += work.received.files
            kept.received.attempts |= work.received.attempts
            kept.received.root = Path(*_common(kept.received.root.parts, work.received.root.parts))
            works.remove(work)


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> list[str]:
    return [x for x, _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b))]


def _prepare(work: _Work, name: str, release: dict, sources: dict[str, tuple[str, float]]) -> None:
    """Choose and repair the notebook, and put the checks of the source into it."""
    path, remarks, work.files = _choose(work.received, name, release)
    if path is None:
        work.reason = remarks[0]
        return
    work.remarks += remarks
    try:
        nb, notes = repair(path, release)
    except UserError as error:
        work.reason = str(error)
        return
    work.notes += notes
    work.remarks += _code_remarks(nb, release, work.files)
    work.nb, work.root = _with_sources(nb, sources), path.parent
    syntax = _syntax_remark(nb, _version_of(path), ".".join(map(str, sys.version_info[:3])))
    work.notes += [syntax] if syntax else []


def _version_of(path: Path) -> str:
    return str(_part(_read_submission(path)["metadata"], "language_info").get("version", ""))


def _with_sources(nb: dict, sources: dict[str, tuple[str, float]]) -> dict:
    """Return a notebook whose graded cells have text and points of the gradebook: with hidden checks."""
    cells = []
    for cell in nb["cells"]:
        text, points = sources.get(_grade_id(cell) or "", (cell["source"], 0.0))
        if _marks(cell).get("grade"):
            cell = {**cell, "metadata": {**cell["metadata"], "nbgrader": {**_marks(cell), "points": points}}}
        cells.append({**cell, "source": text} if _marks(cell).get("locked") else dict(cell))
    return {**nb, "cells": cells}


def _copy_files(work: _Work, folder: Path) -> None:
    """Copy the files that lie beside a notebook, and below."""
    for path in work.files:
        if path.is_relative_to(work.root):
            target = folder / path.relative_to(work.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
