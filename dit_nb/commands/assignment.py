"""`dit-nb assignment`: list, build, grade and preview assignments."""

from pathlib import Path

from dit_nb.commands.options import Assignment, Build, Grade, List, Preview
from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.grading import _grade_table, build, grade, preview

__all__ = []


def run(options: Assignment) -> None:
    "Run dit-nb assignment."
    match options.action:
        case List():
            _list()
        case Build() as action:
            _build(action)
        case Grade() as action:
            _grade(action)
        case Preview() as action:
            _preview(action)


def _list() -> None:
    for name, facts in assignments().items():
        print(f"{name}  {facts['title']:<36}{facts['points']:>4} points{facts['minutes']:>5} minutes")
        print(f"    {', '.join(facts['exercises']) or 'a report, graded by hand'}")


def _build(options: Build) -> None:
    if not options.names:
        raise UserError("names is empty, but must be a1, a2, ..., or all.")
    for name in assignments() if options.names == ("all",) else options.names:
        release = build(name, options.out, options.seconds)
        print(f"{name}: hand out {release}", flush=True)


def _grade(options: Grade) -> None:
    print(_grade_table(grade(options.name, options.course, options.submissions)))
    course = Path(options.course)
    print(f"\ntable in {course / f'grades-{options.name}.csv'}, feedback pages in {course / 'feedback'}")


def _preview(options: Preview) -> None:
    out = Path(options.out or f"{options.name}.{'html' if options.html else 'ipynb'}")
    preview(options.name, out.with_suffix(".html") if options.html else out)
    print(f"{options.name} in {out}")
