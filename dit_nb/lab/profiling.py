"""Readable code can be fast code. What takes the time of a step, which switch takes how much of it away, and how to be sure that the numbers stay the same."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

KINDS = {  # the first kind whose words occur in an operation's name gets its time
    "attention": ("attention", "softmax", "bmm"),
    "matrix products": ("mm", "linear", "convolution"),
    "GELU": ("gelu",),
    "norm": ("layer_norm",),
    "optimiser, average": ("adam", "lerp", "norm_", "foreach"),
    "copies": ("copy", "cat", "clone", "index", "contiguous"),
    "elementwise": ("add", "mul", "sum", "sub", "div", "exp", "fill", "where", "silu", "mean"),
}


def where_time_goes(
    run: Callable,  # without arguments
) -> dict[str, float]:  # kind of work -> milliseconds
    "Profile one call. What one operation calls in turn is not counted twice."
    run()  # the first call makes plans and buffers
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run()
    spent = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in profile.key_averages():
        on_gpu = getattr(event, "self_device_time_total", 0)
        kind = next((k for k, words in KINDS.items() if any(w in event.key.lower() for w in words)), "rest")
        spent[kind] += (on_gpu or event.self_cpu_time_total) / 1000
    return spent


def matmul_rate(
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    size: int = 1024,  # rows and columns of the matrices
    repeats: int = 5,
) -> float:  # GFLOP/s: billions of multiplications and additions a second, each counted
    "How fast this machine multiplies matrices, the best of a few tries: the roof for everything below."
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(timed(lambda: F.linear(a, b), device) for _ in range(repeats + 1))
    return 2 * size**3 / best / 1e9


def timed(
    run: Callable,  # without arguments
    device: str = "cpu",  # on cuda, waits until the work is done
) -> float:  # seconds
    "How long one call takes."
    wait = torch.cuda.synchronize if str(device).startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start
