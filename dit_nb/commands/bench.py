"""`dit-nb bench`: measure training and sampling speed, compared with diffusers and with the peak throughput."""

import json
from itertools import product

import torch

from dit_nb.commands.options import Bench
from dit_nb.errors import UserError, _check_number
from dit_nb.lab.benchmark import benchmark
from dit_nb.lab.benchmark_growth import _benchmark_growth, _loss_curves
from dit_nb.lab.benchmark_jobs import _VARIANTS
from dit_nb.lab.benchmark_report import results_table
from dit_nb.speed import fast_cpu
from dit_nb.utils import _atomic_write

__all__ = []


@fast_cpu()
def run(options: Bench) -> None:
    "Run dit-nb bench."
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but must be cpu: this machine has no CUDA device.")
    for name in ("rounds", "batch_size"):
        if getattr(options, name) is not None:
            _check_number(name, getattr(options, name), int)
    if options.what == "compare":
        _compare(options)
    else:
        rows = {"growth": _benchmark_growth, "curves": _loss_curves}[options.what](options.device)
        _save_json(rows, options.json)


def _compare(options: Bench) -> None:
    "Benchmark each model and job; print and save the rows of each as soon as it is done."
    rows, variants = [], _variants(options)
    for config, job in product(options.config, options.job):
        new = benchmark(
            config, job, variants, options.rounds, device=options.device, batch=options.batch_size
        )
        print(results_table(new), flush=True)
        rows += new
        _save_json(rows, options.json)
    if not rows:
        raise UserError("config or job is empty, but both must have an entry.")
    print(f"\n{rows[0]['device']}, torch {rows[0]['torch']}; ratio to {rows[0]['ratio_to']}")


def _variants(options: Bench) -> tuple[str, ...]:
    "The variants to benchmark. A GPU holds few at a time: only bfloat16, either all compiled or none."
    names = [name for name in _VARIANTS if options.baseline != "none" or name.startswith("ours")]
    if options.device == "cuda":
        return tuple(name for name in names if "bf16" in name and ("compiled" in name) == options.compile)
    return tuple(name for name in names if options.compile or "compiled" not in name)


def _save_json(rows: list[dict], path: str | None) -> None:
    if path:
        with _atomic_write(path) as draft:
            draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
