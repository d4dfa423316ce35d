"""`dit-nb assignment`: list, build, grade and preview assignments."""

import argparse
from pathlib import Path

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.grading import build, grade, grade_table, preview

__all__ = []


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb assignment."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "list": "list all assignments: titles, exercises, points, minutes",
        "build": "build an nbgrader course: sources, and releases to hand out",
        "grade": "grade the submissions of a class: points, feedback pages, a table",
        "preview": "write what a student gets",
    }
    add = {
        name: actions.add_parser(name, help=text, description=text).add_argument
        for name, text in texts.items()
    }
    add["build"]("names", nargs="+", metavar="NAME", help="a1, a2, ..., or all")
    add["build"]("--out", required=True, help="output folder of the course")
    limit = "time limit of a cell in grading, in seconds (default: %(default)s)"
    add["build"]("--seconds", type=float, default=60, help=limit)
    add["grade"]("name", metavar="NAME", help="a1, a2, ...")
    add["grade"]("--course", required=True, help="folder of the course that build wrote")
    add["grade"]("--submissions", help="folder of notebooks (default: submitted/ of the course)")
    add["preview"]("name", metavar="NAME", help="a1, a2, ...")
    add["preview"]("--out", help="file to write (default: NAME.ipynb)")
    add["preview"]("--html", action="store_true", help="write an HTML page instead of a notebook")


def run(args: argparse.Namespace) -> None:
    "Run dit-nb assignment."
    {"list": _list, "build": _build, "grade": _grade, "preview": _preview}[args.action](args)


def _list(args: argparse.Namespace) -> None:
    for name, facts in assignments().items():
        print(f"{name}  {facts['title']:<36}{facts['points']:>4} points{facts['minutes']:>5} minutes")
        print(f"    {', '.join(facts['exercises']) or 'a report, graded by hand'}")


def _build(args: argparse.Namespace) -> None:
    for name in assignments() if args.names == ["all"] else args.names:
        release = build(name, args.out, args.seconds)
        print(f"{name}: hand out {release}", flush=True)


def _grade(args: argparse.Namespace) -> None:
    print(grade_table(grade(args.name, args.course, args.submissions)))
    course = Path(args.course)
    print(f"\ntable in {course / f'grades-{args.name}.csv'}, feedback pages in {course / 'feedback'}")


def _preview(args: argparse.Namespace) -> None:
    out = Path(args.out or f"{args.name}.{'html' if args.html else 'ipynb'}")
    preview(args.name, out.with_suffix(".html") if args.html else out)
    print(f"{args.name} in {out}")
