"""How fast is this machine, beside a peer and beside what it could do?"""

import argparse
import json

import torch

from dit_nb.lab.benchmark import ARMS, SUBJECTS, curves, growth, race, results_table
from dit_nb.utils import whole_file


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb bench."
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        choices=("race", "growth", "curves", "widgets"),
        default="race",
        help="default: %(default)s",
    )
    add(
        "--config",
        nargs="+",
        default=["digits/2"],
        metavar="NAME",
        help=f"of {', '.join(SUBJECTS)} (default: digits/2)",
    )
    add("--job", nargs="+", choices=("train", "sample"), default=["train"], help="default: train")
    add("--peer", choices=("diffusers", "none"), default="diffusers", help="default: %(default)s")
    add("--compile", action="store_true", help="let torch.compile take part: minutes to warm up")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--batch", type=int, help="images in a step (default: it depends on the config)")
    add("--rounds", type=int, default=5, help="default: %(default)s")
    add("--json", metavar="FILE", help="write all numbers there too")


def run(args: argparse.Namespace) -> None:
    "dit-nb bench"
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but there is no CUDA device here.")
    if args.rounds < 1 or (args.batch is not None and args.batch < 1):
        raise ValueError(f"rounds is {args.rounds} and batch {args.batch}, but both must be 1 or more.")
    if args.what == "widgets":
        from dit_nb.teach.explore.core import bench_widgets

        for line in bench_widgets():
            print(line, flush=True)
        return
    if args.what == "race":
        races(args)
    else:
        keep({"growth": growth, "curves": curves}[args.what](args.device), args.json)


def keep(rows: list[dict], path: str | None) -> None:
    "Write all numbers, if they are wanted."
    if path:
        with whole_file(path) as draft:
            draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def arms(args: argparse.Namespace) -> tuple[str, ...]:
    "Who takes part. A GPU has room for few at a time: there all are in bfloat16, and compiled or not."
    chosen = [arm for arm in ARMS if args.peer != "none" or arm.startswith("ours")]
    if args.device == "cuda":
        return tuple(arm for arm in chosen if "bf16" in arm and ("compiled" in arm) == args.compile)
    return tuple(arm for arm in chosen if args.compile or "compiled" not in arm)


def races(args: argparse.Namespace) -> None:
    "Every config with every job; tables and numbers are given as they come, whatever happens to the next."
    rows = []
    for config in args.config:
        for job in args.job:
            new = race(config, job, arms(args), args.rounds, device=args.device, batch=args.batch)
            print(results_table(new), flush=True)
            rows += new
            keep(rows, args.json)
    print(f"\n{rows[0]['device']}, torch {rows[0]['torch']}; ratio to {rows[0]['ratio_to']}")
