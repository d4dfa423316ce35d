"""`dit-nb assignment`: list, build, grade and preview assignments, publish grades, and hand out their solutions."""

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
from dit_nb.teach.classroom.gradescope import _write_autograder
from dit_nb.teach.classroom.grading import grade
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.publish import _publish_again
from dit_nb.teach.classroom.table import GRADED, WAITING, _grade_table
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
            _publish(action)
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
    settings = Class(
        submissions=Path(options.submissions) if options.submissions else None,
        kind=options.source,
        roster=Path(options.roster) if options.roster else None,
        students=options.student,
        jobs=options.jobs,
        limits=Limits(options.seconds, options.sandbox, options.memory),
    )
    grades = grade(
        options.name, options.course, settings, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(_grade_table(grades))
    course = Path(options.course)
    if options.source != "folder":
        _publish_again(options.name, course, options.source, settings.roster)
    print(f"\ntable in {course / f'grades-{options.name}.csv'}, page of the class in ", end="")
    print(f"{course / f'class-{options.name}.html'}, feedback pages in {course / 'feedback'}")
    now = [g for g in grades if g.now]
    failed = sum(g.state not in (GRADED, WAITING) for g in now)
    done = sum(g.state in (GRADED, WAITING) for g in grades)
    print(f"{len(now) - failed} of {len(now)} graded now, {done} of {len(grades)} in the table")
    return 0 if not failed else 3 if failed < len(now) else 4


def _publish(options: Publish) -> None:
    roster = Path(options.roster) if options.roster else None
    grades = _publish_again(options.name, options.course, options.to, roster)
    print(_grade_table(grades))
    course = Path(options.course)
    table = f"grades-{options.name}{'' if options.to == 'none' else f'-{options.to}'}.csv"
    print(f"\ntable in {course / table}, feedback in {course / f'feedback-{options.name}.zip'}")


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
