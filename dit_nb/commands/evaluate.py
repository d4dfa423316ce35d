"""`dit-nb evaluate`: compare samples with real images, as a table or as JSON."""

import argparse
import json
import sys
import warnings

from dit_nb.measure import evaluate

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


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb evaluate."
    add, default = parser.add_argument, "(default: %(default)s)"
    add("samples", help="folder of images, .npz file with arr_0 or images, or digits: the held-out digits")
    add("reference", help="real images in the same forms, or an .npz file with ADM's statistics")
    features = "feature extractor (default: digits for images of 1x8x8, else inception)"
    add("--features", choices=("inception", "digits"), help=features)
    add("--weights", metavar="FILE", help="local file of Inception's weights (default: downloaded once)")
    size = "side of the square to crop images in folders to (default: that of the first sample)"
    add("--image-size", type=int, dest="size", metavar="SIZE", help=size)
    add("--batch-size", type=int, default=64, help=f"images per batch of feature extraction {default}")
    kept = f"features kept for precision, recall and intervals {default}; ADM keeps 50000"
    add("--max-features", type=int, default=10_000, metavar="N", help=kept)
    add("--k", type=int, default=3, help=f"k for the k-NN radii of precision and recall {default}")
    add("--resamples", type=int, default=200, help=f"random halves for the intervals, 0 for none {default}")
    add("--level", type=float, default=0.95, help=f"confidence level of the intervals {default}")
    add("--seed", type=int, default=0, help=f"seed of the kept features and the random halves {default}")
    add("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> None:
    "Run dit-nb evaluate."
    names = ("features", "weights", "size", "batch_size", "max_features", "k", "resamples", "level", "seed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings are among the notes
        result = evaluate(args.samples, args.reference, **{name: getattr(args, name) for name in names})
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, indent=1) if args.json else _metrics_table(result))
