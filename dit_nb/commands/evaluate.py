"""Samples against real images: five numbers, each with its interval, as a table or as JSON."""

import argparse
import json
import sys
import warnings

from dit_nb.measure import evaluate

TITLES = {
    "frechet": "Fréchet distance",
    "spatial_frechet": "spatial Fréchet distance",
    "inception_score": "inception score",
    "precision": "precision",
    "recall": "recall",
}


def table(
    result: dict,  # what `evaluate` returns
) -> str:
    "The numbers as a person reads them."
    samples, reference = result["samples"], result["reference"]
    real = f"{reference['n']} images" if reference["n"] else "statistics"
    head = f"{samples['n']} images of {samples['name']} against {real} of {reference['name']}"
    columns = f"{'':<26}{'value':>10}" + (
        f"{result['level']:.4g} interval".rjust(24) if result["resamples"] else ""
    )
    rows = [f"{TITLES[name]:<26}{row['value']:>10.4g}{span(row)}" for name, row in result["metrics"].items()]
    return "\n".join([f"{head}, judged by {result['features']}", columns, *rows])


def span(row: dict) -> str:
    "An interval, and what the number of samples adds to a distance."
    if "low" not in row:
        return ""
    ends = f"{row['low']:.4g} to {row['high']:.4g}".rjust(24)
    return ends + (f"   (bias about {row['bias']:.3g})" if "bias" in row else "")


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb evaluate."
    add, default = parser.add_argument, "(default: %(default)s)"
    add("samples", help="a folder of images, an .npz file (arr_0 or images), or digits: the held-out ones")
    add("reference", help="real images, in the same forms; or an .npz with ADM's statistics")
    add(
        "--features",
        choices=("inception", "digits"),
        help="who judges (default: digits for 1x8x8, else inception)",
    )
    add("--weights", help="a local file of Inception's weights (default: downloaded once)")
    add(
        "--size", type=int, help="side that pictures in folders are cropped to (default: of the first sample)"
    )
    add("--batch-size", type=int, default=64, help=f"images judged at once {default}")
    add(
        "--keep",
        type=int,
        default=10_000,
        help=f"images kept for balls and intervals {default}; ADM keeps 50000",
    )
    add(
        "--k", type=int, default=3, help=f"neighbour that a ball of precision and recall reaches to {default}"
    )
    add("--resamples", type=int, default=200, help=f"random halves for the intervals, 0 for none {default}")
    add("--level", type=float, default=0.95, help=f"of the intervals {default}")
    add("--seed", type=int, default=0, help=f"of which images are kept, and of the halves {default}")
    add("--json", action="store_true", help="print JSON in place of a table")


def run(args: argparse.Namespace) -> None:
    "dit-nb evaluate"
    names = ("features", "weights", "size", "batch_size", "keep", "k", "resamples", "level", "seed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are among the notes
        result = evaluate(args.samples, args.reference, **{name: getattr(args, name) for name in names})
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, indent=1) if args.json else table(result))
