"""`dit-nb bench`: measure training and sampling speed, compared with diffusers and with the peak throughput."""

import argparse
import json

import torch

from dit_nb.lab.benchmark import MODELS, VARIANTS, benchmark, benchmark_growth, loss_curves
from dit_nb.lab.benchmark_report import results_table
from dit_nb.utils import _atomic_write

__all__ = []


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb bench."
    add, default = parser.add_argument, "(default: %(default)s)"
    what = "compare: against a baseline; growth: time by model and input size; curves: loss by precision"
    choices = ("compare", "growth", "curves")
    add("what", nargs="?", choices=choices, default="compare", help=f"{what} {default}")
    models = f"models to compare, of {', '.join(MODELS)} (default: digits/2)"
    add("--config", nargs="+", default=["digits/2"], metavar="NAME", help=models)
    add("--job", nargs="+", choices=("train", "sample"), default=["train"], help="jobs (default: train)")
    add("--baseline", choices=("diffusers", "none"), default="diffusers", help=f"other code {default}")
    add("--compile", action="store_true", help="also benchmark torch.compile: adds minutes of warm-up")
    add("--device", choices=("cpu", "cuda"), default="cpu", help=f"device {default}")
    add("--batch-size", type=int, metavar="SIZE", help="images per step (default: depends on the model)")
    add("--rounds", type=int, default=5, help=f"rounds in which all configurations are timed {default}")
    add("--json", metavar="FILE", help="write all numbers to a JSON file too (default: none)")


def run(args: argparse.Namespace) -> None:
    "Run dit-nb bench."
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but must be cpu: this machine has no CUDA device.")
    if args.rounds < 1 or (args.batch_size is not None and args.batch_size < 1):
        raise ValueError(
            f"rounds is {args.rounds} and batch_size {args.batch_size}, but both must be 1 or more."
        )
    if args.what == "compare":
        _compare(args)
    else:
        _save_json({"growth": benchmark_growth, "curves": loss_curves}[args.what](args.device), args.json)


def _compare(args: argparse.Namespace) -> None:
    "Benchmark each model and job; print and save the rows of each as soon as it is done."
    rows = []
    for config in args.config:
        for job in args.job:
            new = benchmark(
                config, job, _variants(args), args.rounds, device=args.device, batch=args.batch_size
            )
            print(results_table(new), flush=True)
            rows += new
            _save_json(rows, args.json)
    print(f"\n{rows[0]['device']}, torch {rows[0]['torch']}; ratio to {rows[0]['ratio_to']}")


def _variants(args: argparse.Namespace) -> tuple[str, ...]:
    "The variants to benchmark. A GPU holds few at a time: only bfloat16, either all compiled or none."
    names = [name for name in VARIANTS if args.baseline != "none" or name.startswith("ours")]
    if args.device == "cuda":
        return tuple(name for name in names if "bf16" in name and ("compiled" in name) == args.compile)
    return tuple(name for name in names if args.compile or "compiled" not in name)


def _save_json(rows: list[dict], path: str | None) -> None:
    if path:
        with _atomic_write(path) as draft:
            draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
