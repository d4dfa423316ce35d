"""Time by kind of operation, peak matrix throughput, and timing of single calls."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

__all__ = ["time_by_kind"]

_KINDS = {  # an operation counts to the first kind of which a word occurs in its name
    "attention": ("attention", "softmax", "bmm"),
    "matrix products": ("mm", "linear", "convolution"),
    "GELU": ("gelu",),
    "norm": ("layer_norm",),
    "optimizer, EMA": ("adam", "lerp", "norm_", "foreach"),
    "copies": ("copy", "cat", "clone", "index", "contiguous"),
    "elementwise": ("add", "mul", "sum", "sub", "div", "exp", "fill", "where", "silu", "mean"),
}


def time_by_kind(run: Callable) -> dict[str, float]:
    """Profile one call; nested operations are not counted twice.

    Args:
        run: a function without arguments

    Returns:
        kind of operation -> milliseconds
    """
    run()  # warm-up: plans and buffers
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run()
    spent = dict.fromkeys([*_KINDS, "rest"], 0.0)
    for event in profile.key_averages():
        on_gpu = getattr(event, "self_device_time_total", 0)
        kind = next((k for k, words in _KINDS.items() if any(w in event.key.lower() for w in words)), "rest")
        spent[kind] += (on_gpu or event.self_cpu_time_total) / 1000
    return spent


def _matmul_gflops(
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    size: int = 1024,
    repeats: int = 5,
) -> float:
    """Peak throughput of matrix products on this machine, in GFLOP/s (multiplications and additions counted).

    Args:
        dtype: number format of the matrices
        device: cpu or cuda
        size: rows and columns of the matrices
        repeats: number of runs, of which the fastest counts
    """
    g = torch.Generator(device).manual_seed(0)  # the random numbers of the program stay as they are
    a, b = (torch.randn(size, size, generator=g, device=device).to(dtype) for _ in range(2))
    best = min(_time_call(lambda: F.linear(a, b), device) for _ in range(repeats + 1))
    return 2 * size**3 / best / 1e9


def _time_call(run: Callable, device: str = "cpu") -> float:
    """Seconds that one call takes.

    Args:
        run: a function without arguments
        device: cpu or cuda; on cuda it waits until the work is done
    """
    wait = torch.cuda.synchronize if str(device).startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start
