"""A class in four words: list, build, grade, preview."""

import argparse
from pathlib import Path

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.classroom.grading import build, grade, grade_table, preview


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb assignment."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "list": "what there is: titles, exercises, points, minutes",
        "build": "an nbgrader course: sources, and releases to hand out",
        "grade": "grade a class: points, feedback pages, a table",
        "preview": "what a student gets",
    }
    add = {name: actions.add_parser(name, help=text, description=text) for name, text in texts.items()}
    add["build"].add_argument("names", nargs="+", metavar="NAME", help="a1, a2, ..., or all")
    add["build"].add_argument("--out", required=True, help="the course's folder; is made")
    add["build"].add_argument(
        "--seconds", type=float, default=60, help="a cell's limit in grading (default: 60)"
    )
    add["grade"].add_argument("name", metavar="NAME", help="a1, a2, ...")
    add["grade"].add_argument("--course", required=True, help="the folder that build made")
    add["grade"].add_argument("--handins", help="a folder of notebooks (default: submitted/ of the course)")
    add["preview"].add_argument("name", metavar="NAME", help="a1, a2, ...")
    add["preview"].add_argument("--out", help="the file to write (default: NAME.ipynb here)")
    add["preview"].add_argument("--html", action="store_true", help="a page in place of a notebook")
    for name in ("build", "preview"):
        text = "another convention for the graded functions: copied library code fails"
        add[name].add_argument("--variant", type=int, metavar="SEED", help=text)


def run(args: argparse.Namespace) -> None:
    "dit-nb assignment"
    {"list": show_list, "build": run_build, "grade": run_grade, "preview": run_preview}[args.action](args)


def show_list(args: argparse.Namespace) -> None:
    "Every assignment, its points and minutes, and its exercises."
    for name, facts in assignments().items():
        print(f"{name}  {facts['title']:<36}{facts['points']:>4} points{facts['minutes']:>5} minutes")
        print(f"    {', '.join(facts['exercises']) or 'a report, graded by hand'}")


def run_build(args: argparse.Namespace) -> None:
    "Build some assignments, or all."
    for name in assignments() if args.names == ["all"] else args.names:
        release = build(name, args.out, args.variant, args.seconds)
        print(f"{name}: hand out {release}", flush=True)


def run_grade(args: argparse.Namespace) -> None:
    "Grade, and print the table."
    print(grade_table(grade(args.name, args.course, args.handins)))
    course = Path(args.course)
    print(f"\ntable in {course / f'grades-{args.name}.csv'}, feedback pages in {course / 'feedback'}")


def run_preview(args: argparse.Namespace) -> None:
    "Write what a student gets."
    out = Path(args.out or f"{args.name}.{'html' if args.html else 'ipynb'}")
    preview(args.name, out.with_suffix(".html") if args.html else out, args.variant)
    print(f"{args.name} in {out}")
