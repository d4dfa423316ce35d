"""Benchmarks beside diffusers: each variant in its own process, timed in interleaved rounds."""

import os
import resource
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from tqdm.auto import tqdm

from dit_nb.config import DiTConfig
from dit_nb.errors import UserError, _check_choice
from dit_nb.lab.benchmark_jobs import _JOBS, _MODELS, _VARIANTS, _batch_size, _matmul_flop
from dit_nb.lab.profiling import _matmul_gflops, _time_call
from dit_nb.speed import fast_cpu
from dit_nb.utils import _bar_visible

__all__ = ["benchmark"]


def _worker(pipe, variant: str, job: str, config: DiTConfig, n: int, device: str) -> None:
    "Main function of a worker process: build, warm up, then time a round at each request."
    try:
        code, precision, *rest = variant.split()
        if device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
        torch.manual_seed(0)
        ours = code == "ours"
        with fast_cpu() if ours else nullcontext():  # as our commands run
            run = _JOBS[code, job](config, n, device, precision, bool(rest))
            for _ in range(2):
                run()
            _empty_cache(device)
            pipe.send("ready")
            rates = []
            while seconds := pipe.recv():
                with nullcontext() if ours else fast_cpu():  # peak throughput on the fastest backend
                    rates.append(_peak_rate(precision, device))
                pipe.send(_time_round(run, device, seconds))
        pipe.send((max(rates), _peak_memory(device)))
    except Exception as error:  # raised in the main process
        pipe.send(
            error if isinstance(error, ValueError) else ValueError(f"{variant} failed: {error!r}"[:400])
        )


def _peak_rate(precision: str, device: str) -> float:  # GFLOP/s
    "Matrix throughput now, of large matrices."
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return _matmul_gflops(dtype, device, 8192 if device == "cuda" else 2048, repeats=2)


def _time_round(run: Callable, device: str, seconds: float) -> list[float]:
    "Times of calls, in seconds: as many as fit, but three if that takes at most three times as long."
    times = []
    while sum(times) < seconds or (len(times) < 3 and sum(times) < 3 * seconds):
        times.append(_time_call(run, device))
    _empty_cache(device)
    return times


def _empty_cache(device: str) -> None:
    "Release cached GPU memory between rounds, for the other workers."
    if device == "cuda":
        torch.cuda.empty_cache()


def _peak_memory(device: str) -> float:  # GB
    "Peak memory of this process: on the GPU, or in RAM."
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def benchmark(
    name: str,
    job: str = "train",
    variants: tuple[str, ...] = _VARIANTS[:2] + _VARIANTS[4:5],
    rounds: int = 5,
    seconds: float = 1.0,
    device: str = "cpu",
    batch: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Time variants in interleaved rounds, each in its own process, so that a busy machine disturbs all alike.

    Args:
        name: digits/1, digits/2, S/4, S/2, B/2 or XL/2
        job: train or sample
        variants: ours or diffusers, fp32 or bf16, and compiled or not, such as "ours bf16 compiled"; ratios are to the
            first one of diffusers, or else to the first
        rounds: how often each variant is timed
        seconds: length of one variant's part of a round
        device: cpu or cuda
        batch: images per call; default: the model's own number
        progress: show a progress bar

    Returns:
        one row per variant: milliseconds, ratios by round, utilization, peak memory, device

    Raises:
        UserError: if a name is unknown, or a worker fails
    """
    return _run_rounds(name, (job,), variants, rounds, seconds, device, batch, progress)


def _run_rounds(
    name: str,
    jobs: tuple[str, ...],
    variants: tuple[str, ...],
    rounds: int,
    seconds: float,
    device: str,
    batch: int | None = None,
    progress: bool = False,
    at_once: bool = False,
) -> list[dict]:
    """Rows of `benchmark` for one job after the other.

    Args:
        name, variants, rounds, seconds, device, batch, progress: as for `benchmark`
        jobs: train, sample, or both
        at_once: let all workers warm up at the same time: compilers use other cores, but memory must hold all
    """
    _check_choice("config", name, _MODELS)
    for variant in variants:
        _check_choice("variant", variant, _VARIANTS)
    config, keys = _MODELS[name][0], [(job, variant) for job in jobs for variant in variants]
    sizes = {job: batch or _batch_size(name, job, device) for job in jobs}
    workers = {}
    try:
        for job, variant in tqdm(keys, desc=f"{name}: warm-up", disable=not _bar_visible(progress)):
            workers[job, variant] = _start(variant, job, config, sizes[job], device)
            if not at_once:
                _receive(*workers[job, variant], variant)
        for job, variant in keys if at_once else ():
            _receive(*workers[job, variant], variant)
        times = {
            job: [
                [_request(*workers[job, variant], variant, seconds) for variant in variants]
                for _ in tqdm(range(rounds), desc=f"{name} {job}", disable=not _bar_visible(progress))
            ]
            for job in jobs
        }
        ends = {key: _request(*workers[key], key[1], 0) for key in keys}
        for _, process in workers.values():
            process.join(10)  # a killed process leaves semaphores behind
    finally:
        for _, process in workers.values():
            process.kill()
    known = {"device": _device_name(device), "torch": torch.__version__, "date": date.today().isoformat()}
    rows = []
    for job in jobs:
        flop, own = _matmul_flop(config, sizes[job], job), [ends[job, variant] for variant in variants]
        first = {"config": name, "job": job, "batch": sizes[job], **known}
        rows += [first | _row(variants, i, times[job], own, flop, sizes[job]) for i in range(len(variants))]
    return rows


def _start(*arguments) -> tuple:
    "Start a worker: (pipe, process). It sends a message when it is warm."
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_worker, args=(other, *arguments), daemon=True)
    process.start()
    return pipe, process


def _request(pipe, process, variant: str, seconds: float):
    "Ask a worker for a round, and wait for its times; 0 seconds ends it."
    pipe.send(seconds)
    return _receive(pipe, process, variant)


def _receive(pipe, process, variant: str):
    "The next message of a worker; an error in it is raised here."
    while not pipe.poll(1):
        if not process.is_alive():
            code = process.exitcode
            raise UserError(f"{variant} ended with exit code {code}: it may have run out of memory.")
    message = pipe.recv()
    if isinstance(message, ValueError):
        raise message
    return message


def _row(variants: tuple, i: int, times: list, ends: list, flop: float, n: int) -> dict:
    "Figures of variant i: `times` by round and variant, `ends` with peak throughput and memory."
    precision = variants[i].split()[1]
    peak = max(rate for variant, (rate, _) in zip(variants, ends) if precision in variant)
    base = next((k for k, variant in enumerate(variants) if variant.startswith("diffusers")), 0)
    own = [1000 * median(each[i]) for each in times]
    ratios = [median(each[base]) / median(each[i]) for each in times]
    ms = median(own)
    gflops = flop / ms / 1e6
    row = {"variant": variants[i], "ms": ms, "ms_rounds": own, "images_per_s": 1000 * n / ms}
    row |= {"ratio_to": variants[base], "ratio": median(ratios), "ratio_rounds": ratios}
    row |= {"gflops": gflops, "matmul_gflops": peak, "utilization": gflops / peak}
    return {**row, "peak_gb": ends[i][1]}


def _device_name(device: str) -> str:
    """Name of the GPU; or of the CPU, with its family, threads and instruction set.

    Args:
        device: cpu or cuda
    """
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    facts = {
        key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon
    }
    name = facts.get("model name", "CPU")
    if "cpu family" in facts and "model" in facts:  # the name alone may be that of several generations
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
