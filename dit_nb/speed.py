"""Readable code can be fast code. What takes the time of a step, which switch takes how much of it away, and how to be sure that the numbers stay the same."""

import copy
import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_nb.model import DiT
from dit_nb.utils import check_choice


@lru_cache(maxsize=1)
def _prefer_onednn_float32() -> bool:
    "Whether this is an AMD with AVX-512 whose other float32 route is as exact. One machine, one answer: no stopwatch."
    cpuinfo = Path("/proc/cpuinfo")
    words = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    if "AuthenticAMD" not in words or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(512, 512, generator=g) for _ in range(2))
    with float32_matmul_precision("medium"):
        return bool((F.linear(x, w) - F.linear(x.double(), w.double())).abs().max() < 1e-4)


@contextmanager
def float32_matmul_precision(
    name: str,  # highest, high or medium, as torch.set_float32_matmul_precision has it
) -> Iterator[None]:
    "Multiply float32 matrices another way, for a while."
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fast_float32_matmul(device: torch.device | str = "cpu") -> contextmanager:
    "The faster float32 route of this CPU, for a while. On a GPU the same words would round: there nothing changes."
    other = torch.device(device).type == "cpu" and _prefer_onednn_float32()
    return float32_matmul_precision("medium" if other else torch.get_float32_matmul_precision())


@lru_cache
def keep_freed_memory(
    device: torch.device | str = "cpu",  # elsewhere there is nothing to do
) -> bool:  # whether it was done
    "Let this process keep freed memory for the next step, in place of handing it back page by page. Linux only."
    if torch.device(device).type != "cpu":
        return False
    trim_threshold, mmap_max = -1, -4  # their numbers in glibc's malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def freezing() -> AbstractContextManager:
    "What is compiled for a CPU within may take the weights for constants, and lay them out as its kernels read them."
    from torch._inductor import config

    return config.patch(freezing=True)


class InferenceModel:
    "A copy of a model that can only draw: matrices in bfloat16, no gradients. Call it like the model."

    def __init__(
        self,
        model: DiT,
        precision: str = "bf16",  # or fp32: then the numbers are the model's own
        compiled: bool = False,  # by torch.compile, for one batch size
    ):
        check_choice("precision", precision, ("fp32", "bf16"))
        self.model, self.bf16 = copy.deepcopy(model).eval().requires_grad_(False), precision == "bf16"
        self.null_class, self.config = model.null_class, model.config
        for part in self.model.modules() if self.bf16 else ():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
        if compiled:
            self.model.compile(dynamic=False)
        self.frozen = compiled and self.model.pos_embed.device.type == "cpu"

    def ask(self, call: Callable, *args):
        "One call, in the precision of this copy."
        mixed = torch.autocast(args[0].device.type, torch.bfloat16, enabled=self.bf16)
        with torch.inference_mode(), mixed, freezing() if self.frozen else nullcontext():
            return call(*args)

    def prepare(
        self,
        timesteps: Tensor,  # all the timesteps of a sampling run
        y: Tensor | None = None,  # all its labels
    ) -> Callable:  # to be called like the model
        "See `DiT.prepare`."
        return partial(self.ask, self.ask(self.model.prepare, timesteps, y))

    def __call__(
        self,
        x: Tensor,  # (N, C, H, W)
        t: Tensor,  # (N,)
        y: Tensor | None = None,  # (N,)
    ) -> Tensor:  # (N, 2C, H, W)
        return self.ask(self.model, x, t, y)
