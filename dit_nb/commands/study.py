"""`dit-nb study`: run a study of the guide Study designs, and print its table."""

import argparse
import os

from dit_nb.lab.studies import STUDIES, fast_version, find_study
from dit_nb.lab.sweep import META_COLUMNS, run_study, study_table
from dit_nb.utils import _check_choice

__all__ = []


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb study."
    add, cores = parser.add_argument, os.cpu_count() or 1
    add("name", help=f"list, or one of {', '.join(STUDIES)}")
    add("--out", help="CSV file; runs that it has already are not repeated (default: runs/studies/NAME.csv)")
    add("--jobs", type=int, default=cores, help="processes (default: one per core, %(default)s)")
    add("--seeds", type=int, help="seeds of each configuration (default: as the study defines)")
    add("--fast", action="store_true", help="smoke test: one seed, few steps")
    add("--metric", help="metric of the table (default: the first of the study)")


def run(args: argparse.Namespace) -> None:
    "Run dit-nb study."
    if args.name == "list":
        for name, study in STUDIES.items():
            print(f"{name:<10} {len(study.variants)} configurations, {study.seeds} seeds. {study.question}")
        return
    study, file = find_study(args.name), args.name
    if args.fast:
        study, file = fast_version(study), f"{file}_fast"
    rows = run_study(args.name, study, args.out or f"runs/studies/{file}.csv", args.jobs, args.seeds)
    measured = [key for key in rows[0] if key not in (*study.variants[0], *META_COLUMNS)]
    metric = args.metric or measured[0]
    _check_choice("metric", metric, measured)
    print(study.question)
    print(study_table(rows, study, metric))
