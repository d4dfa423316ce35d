"""The studies of the guide Study designs, by name."""

import argparse
import os

from dit_nb.lab.studies import STUDIES, fast, find_study
from dit_nb.lab.sweep import ABOUT, run_study, study_table
from dit_nb.utils import check_choice


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb study."
    add = parser.add_argument
    add("name", help=f"list, or one of {', '.join(STUDIES)}")
    add("--out", help="a CSV file (default: runs/studies/NAME.csv); what is in it is not run again")
    add(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes (default: one for each core, %(default)s)",
    )
    add("--seeds", type=int, help="runs of each arm (default: as the study says)")
    add("--fast", action="store_true", help="one seed and a fraction of the work: to see it run")
    add("--metric", help="for the table (default: the first that the study measures)")


def run(args: argparse.Namespace) -> None:
    "dit-nb study"
    if args.name == "list":
        for name, study in STUDIES.items():
            print(f"{name:<10} {len(study.arms)} arms, {study.seeds} seeds. {study.question}")
        return
    study, file = find_study(args.name), args.name
    if args.fast:
        study, file = fast(study), f"{file}_fast"
    rows = run_study(args.name, study, args.out or f"runs/studies/{file}.csv", args.jobs, args.seeds)
    measured = [key for key in rows[0] if key not in (*study.arms[0], *ABOUT)]
    metric = args.metric or measured[0]
    check_choice("metric", metric, measured)
    print(study.question)
    print(study_table(rows, study, metric))
