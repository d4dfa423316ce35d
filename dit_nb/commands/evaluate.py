"""`dit-nb evaluate`: compare samples with real images, as a table or as JSON."""

import json
import sys
import warnings

from dit_nb.commands.options import Evaluate
from dit_nb.measure import evaluate
from dit_nb.speed import fast_cpu

__all__ = []

_TITLES = {
    "frechet": "Fréchet distance",
    "spatial_frechet": "spatial Fréchet distance",
    "inception_score": "inception score",
    "precision": "precision",
    "recall": "recall",
}


def _metrics_table(result: dict) -> str:
    samples, reference = result["samples"], result["reference"]
    real = f"{reference['n']} images" if reference["n"] else "statistics"
    head = f"{samples['n']} images of {samples['name']} against {real} of {reference['name']}"
    interval = f"{100 * result['level']:.4g} % interval".rjust(24) if result["resamples"] else ""
    rows = [f"{_TITLES[k]:<26}{row['value']:>10.4g}{_interval(row)}" for k, row in result["metrics"].items()]
    return "\n".join([f"{head}, features: {result['features']}", f"{'':<26}{'value':>10}{interval}", *rows])


def _interval(row: dict) -> str:
    "A confidence interval, and the bias of a distance due to the number of samples."
    if "low" not in row:
        return ""
    ends = f"{row['low']:.4g} to {row['high']:.4g}".rjust(24)
    return ends + (f"   (bias about {row['bias']:.3g})" if "bias" in row else "")


@fast_cpu()
def run(options: Evaluate) -> None:
    "Run dit-nb evaluate."
    settings = {**vars(options), "size": options.image_size}
    del settings["image_size"], settings["json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings are among the notes
        result = evaluate(**settings)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else _metrics_table(result))
