"""`dit-nb assignment`: list, build, grade and preview assignments, publish grades, and hand out their solutions."""

import os
import sys
from pathlib import Path

from dit_nb.commands.options import (
    Assignment,
    Build,
    Grade,
    Gradescope,
    List,
    Preview,
    Publish,
    Release,
    Solution,
)
from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.course import _preview, _solution, build, release_source
from dit_nb.teach.classroom.engine import _database
from dit_nb.teach.classroom.gradescope import _write_autograder
from dit_nb.teach.classroom.grading import grade
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.publish import _publish_again
from dit_nb.teach.classroom.sandbox import _INSIDE, _check_sandbox, _run_in_sandbox
from dit_nb.teach.classroom.table import GRADED, NO_PAGE, WAITING, _grade_table
from dit_nb.teach.classroom.table import Grade as Line
from dit_nb.teach.classroom.work import Class

__all__ = []


def run(options: Assignment) -> int:
    "Run dit-nb assignment; return the exit status."
    match options.action:
        case List():
            _list()
        case Build() as action:
            _build(action)
        case Release() as action:
            print(f"{action.name}: hand out {release_source(action.name, action.course)}")
        case Grade() as action:
            return _grade(action)
        case Publish() as action:
            return _publish(action)
        case Preview() as action:
            _write(_preview, action, action.name)
        case Solution() as action:
            _write(_solution, action, f"{action.name}-solution")
        case Gradescope() as action:
            _gradescope(action)
    return 0


def _list() -> None:
    for name, facts in assignments().items():
        print(f"{name}  {facts['title']:<36}{facts['points']:>4} points{facts['minutes']:>5} minutes")
        print(f"    {', '.join(facts['exercises']) or 'a report, graded by hand'}")


def _build(options: Build) -> None:
    if not options.names:
        raise UserError("names is empty, but must be a1, a2, ..., or all.")
    for name in assignments() if options.names == ("all",) else options.names:
        release = build(name, options.out, options.install, options.colab)
        print(f"{name}: hand out {release}", flush=True)


def _grade(options: Grade) -> int:
    "Grade a class; return 0 if all could be graded, 3 if some could not, 4 if none could."
    for field in ("seconds", "jobs", "memory"):
        if not getattr(options, field) > 0:
            raise UserError(f"{field} is {getattr(options, field):g}, but must be more than 0.")
    if options.sandbox and _INSIDE not in os.environ:
        status = _grade_in_sandbox(options)
        if status is not None:
            return status
    settings = Class(
        submissions=Path(options.submissions) if options.submissions else None,
        kind=options.source,
        roster=Path(options.roster) if options.roster else None,
        students=options.student,
        jobs=options.jobs,
        limits=Limits(options.seconds, options.sandbox, options.memory),
    )
    grades = grade(options.name, options.course, settings, _tell)
    print(_grade_table(grades))
    course = Path(options.course)
    if options.source != "folder":
        _publish_again(options.name, course, options.source, settings.roster, _tell)
    print(f"\ntable in {course / f'grades-{options.name}.csv'}, page of the class in ", end="")
    print(f"{course / f'class-{options.name}.html'}, feedback pages in {course / 'feedback'}")
    return _tell_how_many(grades)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell_how_many(grades: list[Line]) -> int:
    "Print how many students were graded, and return the exit status."
    now = [g for g in grades if g.now]
    graded = [g for g in now if g.state in (GRADED, WAITING)]
    done = sum(g.state in (GRADED, WAITING) for g in grades)
    print(f"{len(graded)} of {len(now)} graded now, {done} of {len(grades)} in the table")
    _tell_without_page(now)
    return 0 if all(g.complete for g in now) else 3 if graded else 4


def _tell_without_page(grades: list[Line]) -> int:
    "Print who has no feedback page, and return how many."
    without = [g.student for g in grades if NO_PAGE in g.remarks]
    if without:
        print(f"no feedback page of {', '.join(without)}: see nbgrader.log in the course")
    return len(without)


def _grade_in_sandbox(options: Grade) -> int | None:
    "Run this command again, in a sandbox; return its exit status, or None if it must run outside."
    course = Path(options.course)
    if not (course / "release" / options.name).is_dir():
        return None  # `grade` says what is wrong
    _check_sandbox()
    address = _database(course.absolute())
    if not address.startswith("sqlite:///"):
        _tell(f"the gradebook is at {address}: the command runs outside of the sandbox, each notebook within")
        return None
    gradebook = Path(address.removeprefix("sqlite:///")).parent
    read = [Path(path) for path in (options.submissions, options.roster) if path]
    keep = [course / part for part in ("source", "release", "nbgrader_config.py")]
    status = _run_in_sandbox(_words(options), read, [gradebook, course], keep)
    if status is None:
        _tell(
            "the command runs outside of the sandbox, each notebook within: bubblewrap cannot be nested here"
        )
    return status


def _words(options: Grade) -> list[str]:
    "Return the arguments of dit-nb that give these options."
    words = ["assignment", "grade", options.name, "--course", options.course, "--from", options.source]
    words += ["--jobs", str(options.jobs), "--seconds", str(options.seconds), "--memory", str(options.memory)]
    words += ["--sandbox"] if options.sandbox else []
    words += ["--submissions", options.submissions] if options.submissions else []
    words += ["--roster", options.roster] if options.roster else []
    return [*words, *(["--student", *options.student] if options.student else [])]


def _publish(options: Publish) -> int:
    "Publish grades; return 0, or 3 if some have no feedback page."
    roster = Path(options.roster) if options.roster else None
    grades = _publish_again(options.name, options.course, options.to, roster, _tell)
    print(_grade_table(grades))
    course = Path(options.course)
    table = f"grades-{options.name}{'' if options.to == 'none' else f'-{options.to}'}.csv"
    print(f"\ntable in {course / table}, feedback in {course / f'feedback-{options.name}.zip'}")
    return 3 if _tell_without_page(grades) else 0


def _write(write, options: Preview | Solution, name: str) -> None:
    out = Path(options.out or f"{name}.ipynb")
    out = out.with_suffix(".html") if options.html else out
    write(options.name, out)
    print(f"{options.name} in {out}")


def _gradescope(options: Gradescope) -> None:
    out = Path(options.out or f"{options.name}-gradescope.zip")
    source = None
    if options.course is not None:
        source = Path(options.course) / "source" / options.name / f"{options.name}.ipynb"
        if not source.exists():
            raise UserError(
                f"course is {options.course}, but there is no {source}: build the assignment first."
            )
    _write_autograder(options.name, out, options.seconds, source)
    print(f"autograder of {options.name} in {out}")
