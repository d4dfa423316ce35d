"""`dit-nb study`: run a study of the guide Study designs, and print its table."""

from dit_nb.commands.options import Study
from dit_nb.errors import UserError, _check_choice
from dit_nb.lab.studies import STUDIES, _fast_version, _find_study
from dit_nb.lab.sweep import _META_COLUMNS, run_study, study_table

__all__ = []


def run(options: Study) -> None:
    "Run dit-nb study."
    if options.name == "list":
        for name, study in STUDIES.items():
            print(f"{name:<10} {len(study.variants)} configurations, {study.seeds} seeds. {study.question}")
        return
    study, file = _find_study(options.name), options.name
    if options.fast:
        study, file = _fast_version(study), f"{file}_fast"
    out = options.out or f"runs/studies/{file}.csv"
    rows = run_study(options.name, study, out, options.jobs, options.seeds)
    measured = [key for key in rows[0] if key not in (*study.variants[0], *_META_COLUMNS)]
    metric = options.metric or measured[0]
    _check_choice("metric", metric, measured)
    for row in rows:
        if not isinstance(row[metric], int | float):
            raise UserError(
                f"{metric} is {row[metric]!r} in a line of {out}, but must be a number: remove it."
            )
    print(study.question)
    print(study_table(rows, study, metric))
