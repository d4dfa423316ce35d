"""Measure all that a GPU must show, in parts that can be resumed: JSON files and a table.

Usage: python tools/gpu_report.py FOLDER [--minutes 8] [--parts races-S-2 ...] [--miniature]

Each part is a process with a time limit of its own, and writes FOLDER/PART.json. A part whose file is there is skipped,
so call it again with the same folder until nothing is missing. report.json and report.md are written after each part.
Parts in which nothing is timed run first, all at once: tests, loss curves, training of emoji, and the compilation that
fills the compiler's cache for the races. `--miniature` runs everything on a CPU, with tiny models, within a minute.
What does not fit into the time is left to the next call.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import product
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("XL/2", "S/2", "B/2", "digits/2")
TOGETHER = ("tests", "curves", "emoji", "compile")  # nothing in them is timed
LIMITS = {"tests": 200, "compile": 260, "curves": 150, "emoji": 150}  # seconds; 120 for others
JOBS = ("train", "sample")


def part_names(miniature: bool) -> list[str]:
    """All parts, the most wanted first. Training and sampling of XL/2 are raced apart: memory holds one pair."""
    if miniature:
        return [*TOGETHER, "machine", "races-digits-2", "profile", "growth"]
    races = [f"races-{name.replace('/', '-')}{how}" for name in MODELS for how in ("", "-compiled")]
    races = [f"{race}-{job}" for race in races[:2] for job in JOBS] + races[2:]
    return [*TOGETHER, "machine", *races, "profile", "growth"]


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def variants(how: str) -> tuple[str, ...]:
    """Ours and the peer's, in bfloat16; ours alone where diffusers is not installed."""
    codes = ("ours", "diffusers") if importlib.util.find_spec("diffusers") else ("ours",)
    return tuple(f"{code} bf16{how}" for code in codes)


# Parts: each returns what its file holds


def machine(miniature: bool) -> dict:
    """Names and versions, and the measured rate of large matrix products, which utilization refers to."""
    import torch

    from dit_nb.lab.benchmark import _device_name
    from dit_nb.lab.profiling import _matmul_gflops

    where, size = device(), 256 if miniature else 8192
    dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    rates = {name: _matmul_gflops(kind, where, size) / 1000 for name, kind in dtypes.items()}
    gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9 if where == "cuda" else None
    known = {"device": _device_name(where), "torch": torch.__version__, "date": date.today().isoformat()}
    return {**known, "cuda": torch.version.cuda, "memory_gb": gigabytes, "matmul_tflops": rates}


def tests(miniature: bool) -> dict:
    """The tests that need a GPU; without one they are skipped."""
    which = ["tests/core/test_speed.py"] if miniature else ["tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda and not hard", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *which], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    return {
        "status": done.returncode,
        "summary": lines[-1] if lines else done.stderr[-400:],
        "output": lines[-60:],
    }


def curves(miniature: bool) -> dict:
    """Loss curves of one run in float32, bfloat16, and bfloat16 compiled."""
    from dit_nb.lab.benchmark_growth import _loss_curves

    small = {"steps": 3, "width": 24, "depth": 1, "compiled": False} if miniature else {"steps": 400}
    return {"rows": _loss_curves(device(), progress=False, **small)}


def emoji(miniature: bool) -> dict:
    """The recipe of `dit-nb emoji`, trained for a minute."""
    from tempfile import TemporaryDirectory

    from dit_nb.commands.emoji import _run_emoji
    from dit_nb.config import DiTConfig

    tiny = DiTConfig(input_size=32, patch_size=8, in_channels=3, hidden_size=24, depth=1, num_heads=2)
    length = {"steps": 2, "config": tiny, "batch_size": 8} if miniature else {"seconds": 60.0}
    with TemporaryDirectory() as out:
        return _run_emoji(out, progress=False, **length)


def compile_all(miniature: bool) -> dict:
    """Compile what the races will use: the compiler keeps the code in its cache. As many at once as memory holds."""
    from concurrent.futures import ThreadPoolExecutor

    jobs = [] if miniature else [*product(MODELS, JOBS, variants(" compiled"))]
    memory = Memory(0.9 * machine(True)["memory_gb"] if jobs else 0)
    with ThreadPoolExecutor(6) as pool:
        rows = pool.map(lambda job: (" ".join(job), compile_one(*job, memory)), jobs)
        return {"seconds": dict(rows)}


def compile_one(name: str, job: str, variant: str, memory: "Memory") -> float:
    """Seconds until a worker of the races is warm."""
    from dit_nb.lab.benchmark import _receive, _start
    from dit_nb.lab.benchmark_jobs import _MODELS, _batch_size
    from dit_nb.lab.budget import training_memory

    config, n = _MODELS[name][0], _batch_size(name, job, device())
    gigabytes = 8.0 if job == "sample" else training_memory(config, n, "bf16").peak / 1e9
    with memory.held(gigabytes):
        begin = time.perf_counter()
        pipe, process = _start(variant, job, config, n, device())
        try:
            _receive(pipe, process, variant)
        finally:
            process.kill()
        return time.perf_counter() - begin


class Memory:
    """Gigabytes that threads share: who wants more than is left waits; who wants more than there is waits for all."""

    def __init__(self, gigabytes: float):
        self.whole = self.left = gigabytes
        self.changed = threading.Condition()

    @contextmanager
    def held(self, gigabytes: float) -> Iterator[None]:
        wanted = min(gigabytes, self.whole)
        with self.changed:
            self.changed.wait_for(lambda: self.left >= wanted)
            self.left -= wanted
        try:
            yield
        finally:
            with self.changed:
                self.left += wanted
                self.changed.notify_all()


def races(miniature: bool, what: str) -> dict:
    """Training and sampling of one model, ours beside the peer: `races-XL-2-compiled-train`."""
    from dit_nb.lab.benchmark import _run_rounds

    name = next(name for name in MODELS if what.startswith(f"races-{name.replace('/', '-')}"))
    jobs = tuple(job for job in JOBS if what.endswith(job)) or JOBS
    length = (1, 0.01, device(), 2) if miniature else (3, 1.0, device())
    at_once = what != "races-XL-2-train" and what != "races-XL-2-compiled-train"
    return {
        "rows": _run_rounds(
            name, jobs, variants(" compiled" if "compiled" in what else ""), *length, at_once=at_once
        )
    }


def profile(miniature: bool) -> dict:
    """Milliseconds of one plain training step by kind of operation."""
    from dit_nb.lab.benchmark_jobs import _MODELS, _batch_size, _our_training
    from dit_nb.lab.profiling import time_by_kind

    found = {}
    for name in ("digits/2",) if miniature else ("XL/2", "S/2", "digits/2"):
        n = 2 if miniature else _batch_size(name, "train", device())
        found[name] = {
            "batch": n,
            "ms": time_by_kind(_our_training(_MODELS[name][0], n, device(), "bf16", False)),
        }
    return found


def growth(miniature: bool) -> dict:
    """Time and memory of a training step against the size of the model, and memory over the steps of a run."""
    from dit_nb.config import DiTConfig
    from dit_nb.lab.benchmark_growth import _BASE, _GROWTH
    from dit_nb.lab.benchmark_jobs import _matmul_flop, _our_training
    from dit_nb.lab.profiling import _time_call

    where, rows, repeats = device(), [], 1 if miniature else 20
    for axis, changes in _GROWTH.items():
        for change in changes[:1] if miniature else changes:
            settings = {**_BASE, **change}
            n = 2 if miniature else 16 * settings.pop("batch", 16)  # a card wants more than 16 images
            settings.pop("batch", None)
            config = DiTConfig(**settings)
            _reset_memory(where)
            run = _our_training(config, n, where, "bf16", False)
            times = [_time_call(run, where) for _ in range(repeats)]
            at = {"batch": n, "tokens": (config.input_size // config.patch_size) ** 2}
            at |= {"width": config.hidden_size, "depth": config.depth}
            row = {
                "axis": axis,
                "at": at[axis],
                "ms": 1000 * min(times),
                "peak_gb": _memory(where, peak=True),
            }
            rows.append(row | {"gflop": _matmul_flop(config, n, "train") / 1e9})
    run, held = _our_training(DiTConfig(**_BASE), 16, where, "bf16", False), {}
    for step in range(1, 1 + (4 if miniature else 400)):
        run()
        if step & (step - 1) == 0 or step == 400:
            held[step] = _memory(where)
    return {"rows": rows, "gb_by_step": held}


def _reset_memory(where: str) -> None:
    import torch

    if where == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(where: str, peak: bool = False) -> float:  # GB
    import torch

    from dit_nb.lab.benchmark import _peak_memory

    if where == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 1e9
    return _peak_memory(where)


PARTS = {
    "machine": machine,
    "tests": tests,
    "curves": curves,
    "emoji": emoji,
    "compile": compile_all,
    "profile": profile,
    "growth": growth,
}


def run_part(name: str, folder: Path, miniature: bool) -> None:
    """Run one part in this process, and write its file."""
    found = races(miniature, name) if name.startswith("races") else PARTS[name](miniature)
    draft = folder / f".{name}.json"
    draft.write_text(json.dumps(found, indent=1) + "\n")
    draft.rename(folder / f"{name}.json")


# The report


def read_parts(folder: Path, names: list[str]) -> dict[str, dict]:
    return {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in names
        if (folder / f"{name}.json").exists()
    }


def cells(rows: list[dict]) -> list[str]:
    """One line for each race: ours against the peer's same switches, and the share of the measured rate."""
    lines = [
        "| model | job | compiled | ours / peer (rounds) | of the measured rate |",
        "|---|---|---|---:|---:|",
    ]
    for r in rows:
        if r["variant"].startswith("ours"):
            ratio = f"{r['ratio']:.2f} ({min(r['ratio_rounds']):.2f} to {max(r['ratio_rounds']):.2f})"
            peer = ratio if r["ratio_to"].startswith("diffusers") else "no peer"
            style = "yes" if "compiled" in r["variant"] else "no"
            lines.append(f"| {r['config']} | {r['job']} | {style} | {peer} | {r['utilization']:.0%} |")
    return lines


def memory(rows: list[dict]) -> list[str]:
    """Peak memory of our training steps beside the forecast, which is for code that is not compiled."""
    from dit_nb.lab.benchmark_jobs import _MODELS
    from dit_nb.lab.budget import training_memory

    lines = ["| model | batch | compiled | peak GB | forecast GB |", "|---|---:|---|---:|---:|"]
    for r in rows:
        if r["job"] == "train" and r["variant"].startswith("ours"):
            forecast = training_memory(_MODELS[r["config"]][0], r["batch"], "bf16").peak / 1e9
            style = "yes" if "compiled" in r["variant"] else "no"
            lines.append(f"| {r['config']} | {r['batch']} | {style} | {r['peak_gb']:.1f} | {forecast:.1f} |")
    return lines


def report(folder: Path, names: list[str]) -> str:
    """Write report.json and report.md from the parts that are there, and return the text."""
    from dit_nb.lab.benchmark_report import results_table

    parts, text = read_parts(folder, names), ["# GPU report"]
    errors = {
        name: (folder / f"{name}.error").read_text().strip().splitlines()[-1:]
        for name in names
        if name not in parts and (folder / f"{name}.error").exists()
    }
    if "machine" in parts:
        m = parts["machine"]
        rates = ", ".join(f"{name} {rate:.3g} TFLOP/s" for name, rate in m["matmul_tflops"].items())
        text.append(f"{m['device']}, torch {m['torch']}, CUDA {m['cuda']}, {m['date']}; measured: {rates}.")
    if "tests" in parts:
        text.append(f"CUDA tests: {parts['tests']['summary']}")
    rows = [row for name, part in parts.items() if name.startswith("races") for row in part["rows"]]
    if rows:
        for title, lines in (("Races", cells(rows)), ("Memory", memory(rows))):
            text.append(f"## {title}\n\n" + "\n".join(lines))
        text.append(results_table(rows))
    if "profile" in parts:
        lines = [
            f"- {name}, batch {p['batch']}: " + ", ".join(f"{kind} {ms:.1f}" for kind, ms in p["ms"].items())
            for name, p in parts["profile"].items()
        ]
        text.append("## A plain training step, milliseconds by kind\n\n" + "\n".join(lines))
    if "growth" in parts:
        lines = ["| axis | at | ms | peak GB | GFLOP |", "|---|---:|---:|---:|---:|"]
        for r in parts["growth"]["rows"]:
            lines.append(
                f"| {r['axis']} | {r['at']} | {r['ms']:.1f} | {r['peak_gb']:.2f} | {r['gflop']:.0f} |"
            )
        held = ", ".join(f"{step}: {gb:.3f}" for step, gb in parts["growth"]["gb_by_step"].items())
        text.append("## Growth\n\n" + "\n".join(lines) + f"\n\nGB held after each step: {held}.")
    if "curves" in parts:
        ends = [
            f"{r['precision']}{' compiled' if r['compiled'] else ''} {fmean(r['mse'][-100:]):.4f}"
            for r in parts["curves"]["rows"]
        ]
        text.append("## Loss curves\n\nSquared error, mean of the last 100 steps: " + ", ".join(ends) + ".")
    if "emoji" in parts:
        e = parts["emoji"]
        text.append(
            f"## Emoji\n\n{e['steps']} steps in {e['seconds']:.0f} s: Fréchet distance {e['frechet']:.3f} (real "
            f"{e['frechet_real']:.3f}), category {e['category_accuracy']:.1%}, style {e['style_accuracy']:.1%}."
        )
    missing = [name for name in names if name not in parts]
    why = [f"{name} ({errors[name][0]})" if errors.get(name) else name for name in missing]
    text.append("Missing: " + "; ".join(why) if missing else "Nothing is missing.")
    if not any(r["variant"].startswith("diffusers") for r in rows):
        text.append("No peer was measured: diffusers is not installed, or no race has run.")
    (folder / "report.json").write_text(
        json.dumps({"parts": parts, "missing": missing, "errors": errors}, indent=1) + "\n"
    )
    (folder / "report.md").write_text("\n\n".join(text) + "\n")
    return "\n\n".join(text)


# All parts


def start(name: str, folder: Path, miniature: bool) -> subprocess.Popen:
    """Start a part, in a process group of its own."""
    words = [sys.executable, __file__, str(folder), "--part", name, *(["--miniature"] if miniature else [])]
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    if miniature:
        cache |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.error").open("w") as log:
        return subprocess.Popen(
            words, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **cache}
        )


def wait(process: subprocess.Popen, name: str, folder: Path, seconds: float) -> None:
    """Wait until a part ends; kill it and its children after its time."""
    log = folder / f"{name}.error"
    try:
        process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        with log.open("a") as file:
            file.write(f"\nstopped after {seconds:.0f} s\n")
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
    except ProcessLookupError:
        pass
    process.wait()
    if (folder / f"{name}.json").exists():
        log.unlink(missing_ok=True)
    print(f"{name}: {'done' if not log.exists() else log.read_text().strip()[-300:]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--parts", nargs="*", help="parts to run; all by default")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--miniature", action="store_true", help="tiny models, on a CPU")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    if options.part:
        run_part(options.part, folder, options.miniature)
        return 0
    end = time.monotonic() + 60 * options.minutes - 10  # the report takes a few seconds
    names = part_names(options.miniature)
    if unknown := set(options.parts or ()) - set(names):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; the parts are {', '.join(names)}")
    todo = [n for n in options.parts or names if not (folder / f"{n}.json").exists()]
    together = [n for n in todo if n in TOGETHER]
    begin, running = time.monotonic(), {name: start(name, folder, options.miniature) for name in together}
    for name, process in running.items():
        wait(process, name, folder, min(begin + LIMITS[name], end) - time.monotonic())
    for name in todo:
        if name not in together and end - time.monotonic() > 5:
            process = start(name, folder, options.miniature)
            wait(process, name, folder, min(120, end - time.monotonic()))
            report(folder, names)
    print(report(folder, names))
    return 0 if all((folder / f"{name}.json").exists() for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
