"""Faster inference and float32 matrix products: a bfloat16 copy of a model, and switches for the CPU."""

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
from dit_nb.utils import _check_choice

__all__ = ["InferenceModel", "fast_float32_matmul", "float32_matmul_precision", "keep_freed_memory"]


@lru_cache(maxsize=1)
def _prefer_onednn_float32() -> bool:
    "Whether oneDNN's float32 products are as exact as MKL's, on an AMD with AVX-512. Decided from the CPU model, not by timing."
    cpuinfo = Path("/proc/cpuinfo")
    words = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    if "AuthenticAMD" not in words or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(512, 512, generator=g) for _ in range(2))
    with float32_matmul_precision("medium"):
        return bool((F.linear(x, w) - F.linear(x.double(), w.double())).abs().max() < 1e-4)


@contextmanager
def float32_matmul_precision(name: str) -> Iterator[None]:
    """Set torch's float32 matmul precision inside a `with` block, and restore it afterwards.

    Args:
        name: highest, high or medium (`torch.set_float32_matmul_precision`)
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fast_float32_matmul(device: torch.device | str = "cpu") -> AbstractContextManager:
    """Use the faster float32 backend of this CPU inside a `with` block.

    Args:
        device: on a GPU nothing changes, because there the same setting would round to TF32
    """
    other = torch.device(device).type == "cpu" and _prefer_onednn_float32()
    return float32_matmul_precision("medium" if other else torch.get_float32_matmul_precision())


@lru_cache
def keep_freed_memory(device: torch.device | str = "cpu") -> bool:
    """Make malloc keep freed memory for the next step instead of returning it to the system (glibc only).

    Args:
        device: only a CPU has an effect

    Returns:
        whether the setting was changed
    """
    if torch.device(device).type != "cpu":
        return False
    trim_threshold, mmap_max = -1, -4  # constants of glibc's malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def _freeze_weights() -> AbstractContextManager:
    "Let Inductor constant-fold and pre-pack weights in what is compiled inside (CPU)."
    from torch._inductor import config

    return config.patch(freezing=True)


class InferenceModel:
    """A copy of a model for inference: matrices in bfloat16, no gradients. Call it like the model.

    Args:
        model: the model to copy
        precision: bf16, or fp32 for the model's own numbers
        compiled: use torch.compile, for one batch size
    """

    def __init__(
        self,
        model: DiT,
        precision: str = "bf16",
        compiled: bool = False,
    ):
        _check_choice("precision", precision, ("fp32", "bf16"))
        self.model, self.bf16 = copy.deepcopy(model).eval().requires_grad_(False), precision == "bf16"
        self.null_class, self.config = model.null_class, model.config
        for part in self.model.modules() if self.bf16 else ():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
        if compiled:
            self.model.compile(dynamic=False)
        self.frozen = compiled and self.model.pos_embed.device.type == "cpu"

    def _call(self, call: Callable, *args):
        "One call, in the precision of this copy."
        mixed = torch.autocast(args[0].device.type, torch.bfloat16, enabled=self.bf16)
        with torch.inference_mode(), mixed, _freeze_weights() if self.frozen else nullcontext():
            return call(*args)

    def precompute_conditioning(
        self,
        timesteps: Tensor,
        y: Tensor | None = None,
    ) -> Callable:
        """As `DiT.precompute_conditioning`.

        Args:
            timesteps: all timesteps of a sampling run
            y: all its labels
        """
        return partial(self._call, self._call(self.model.precompute_conditioning, timesteps, y))

    def __call__(
        self,
        x: Tensor,  # (N, C, H, W)
        t: Tensor,  # (N,)
        y: Tensor | None = None,  # (N,)
    ) -> Tensor:  # (N, 2C, H, W)
        return self._call(self.model, x, t, y)
