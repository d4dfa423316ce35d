"""Benchmarks beside diffusers: each variant in its own process, timed in interleaved rounds."""

import os
import resource
import sys
from contextlib import nullcontext
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from tqdm.auto import tqdm

from dit_nb.config import DiTConfig, TrainConfig
from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.errors import UserError, _check_choice
from dit_nb.lab.benchmark_jobs import _JOBS, _MODELS, _SMALL, _VARIANTS, _batch_size, _matmul_flop
from dit_nb.lab.profiling import _matmul_gflops, _time_call
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.speed import fast_cpu
from dit_nb.training import Trainer
from dit_nb.utils import _bar_visible

__all__ = ["benchmark"]


def _worker(pipe, variant: str, job: str, config: DiTConfig, n: int, device: str) -> None:
    "Main function of a worker process: build, warm up, then time a round at each request."
    try:
        code, precision, *rest = variant.split()
        if device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
        torch.manual_seed(0)
        run = _JOBS[code, job](config, n, device, precision, bool(rest))
        for _ in range(2):
            run()
        _empty_cache(device)
        pipe.send("ready")
        rates, dtype = [], {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        while seconds := pipe.recv():
            with fast_cpu():  # peak throughput on the fastest backend, for all variants
                rates.append(_matmul_gflops(dtype, device, 8192 if device == "cuda" else 2048, repeats=2))
            times = []
            with fast_cpu() if code == "ours" else nullcontext():  # as our commands run
                while sum(times) < seconds or len(times) < 3:
                    times.append(_time_call(run, device))
            _empty_cache(device)
            pipe.send(times)
        pipe.send((max(rates), _peak_memory(device)))
    except Exception as error:  # raised in the main process
        pipe.send(
            error if isinstance(error, ValueError) else ValueError(f"{variant} failed: {error!r}"[:400])
        )


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
    _check_choice("config", name, _MODELS)
    for variant in variants:
        _check_choice("variant", variant, _VARIANTS)
    config, n = _MODELS[name][0], batch or _batch_size(name, job, device)
    workers = []
    try:
        for variant in tqdm(variants, desc=f"{name} {job}: warm-up", disable=not _bar_visible(progress)):
            workers.append(_start(variant, job, config, n, device))
            _receive(*workers[-1], variant)
        times = [
            [_request(*worker, variant, seconds) for variant, worker in zip(variants, workers)]
            for _ in tqdm(range(rounds), desc=f"{name} {job}", disable=not _bar_visible(progress))
        ]
        ends = [_request(*worker, variant, 0) for variant, worker in zip(variants, workers)]
        for _, process in workers:
            process.join(10)  # a killed process leaves semaphores behind
    finally:
        for _, process in workers:
            process.kill()
    known = {"config": name, "job": job, "batch": n, "device": _device_name(device)}
    known |= {"torch": torch.__version__, "date": date.today().isoformat()}
    flop = _matmul_flop(config, n, job)
    return [known | _row(variants, i, times, ends, flop, n) for i in range(len(variants))]


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
    """Name of the GPU; or of the CPU, with its threads and instruction set.

    Args:
        device: cpu or cuda
    """
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = (
        [s.split(":", 1)[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")]
        if info.exists()
        else []
    )
    caps = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads, {caps}"


_BASE = dict(
    input_size=16, patch_size=2, in_channels=4, hidden_size=192, depth=6, num_heads=6, num_classes=10
)


_GROWTH = {  # axis -> settings; all axes share 64 tokens, width 192, 6 blocks and 16 images
    "tokens": [dict(input_size=s) for s in (8, 16, 24, 32)],
    "width": [dict(hidden_size=d) for d in (96, 192, 384, 576)],
    "depth": [dict(depth=d) for d in (3, 6, 12, 24)],
    "batch": [dict(batch=n) for n in (4, 8, 16, 32, 64)],
}


def _benchmark_growth(device: str = "cpu", precision: str = "fp32", progress: bool = True) -> list[dict]:
    """Time and memory of a training step against tokens, width, depth and batch size, one axis at a time.

    Args:
        device: cpu or cuda
        precision: fp32 or bf16
        progress: show a progress bar
    """
    rows, runs = [], [(axis, change) for axis, changes in _GROWTH.items() for change in changes]
    for axis, change in tqdm(runs, desc="growth", disable=not _bar_visible(progress)):
        settings = {**_BASE, **change}
        n = settings.pop("batch", 16)
        config = DiTConfig(**settings)
        pipe, process = _start(f"ours {precision}", "train", config, n, device)
        try:
            _receive(pipe, process, axis)
            times = _request(pipe, process, axis, 1.5)
            _, memory = _request(pipe, process, axis, 0)
        finally:
            process.kill()
        tokens = (config.input_size // config.patch_size) ** 2
        at = {"tokens": tokens, "width": config.hidden_size, "depth": config.depth, "batch": n}
        known = {"date": date.today().isoformat(), "axis": axis, "at": at[axis]}
        known |= {"ms": 1000 * min(times), "peak_gb": memory}
        known |= {"gflop": _matmul_flop(config, n, "train") / 1e9, "parameters": cost(config).total_params}
        rows.append({**known, "precision": precision, "device": _device_name(device)})
    return rows


def _loss_curves(
    device: str = "cpu",
    steps: int = 1000,
    width: int = 384,
    depth: int = 12,
    progress: bool = True,
) -> list[dict]:
    """Losses of one training run on the digits with the same seed, in float32, bfloat16, and bfloat16 compiled.

    Args:
        device: cpu or cuda
        steps: number of updates
        width: hidden size; default: DiT-S
        depth: number of blocks; default: DiT-S
        progress: show a progress bar
    """
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
    config, rows = DiTConfig(**_SMALL | dict(patch_size=1, hidden_size=width, depth=depth, num_heads=6)), []
    runs = [("fp32", False), ("bf16", False), ("bf16", True)]
    for precision, compiled in tqdm(runs, desc="curves", disable=not _bar_visible(progress)):
        torch.manual_seed(0)
        settings = TrainConfig(steps=steps, batch_size=128, precision=precision, compile=compiled)
        trainer = Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)
        batches, losses = trainer.batches(), []
        for _ in range(steps):
            losses.append(trainer.step(next(batches))["mse"].item())
        known = {"width": width, "depth": depth, "batch": 128, "seed": 0, "date": date.today().isoformat()}
        known |= {"device": _device_name(device), "torch": torch.__version__}
        rows.append(
            {"precision": precision, "compiled": compiled, "mse": [round(x, 6) for x in losses], **known}
        )
    return rows
