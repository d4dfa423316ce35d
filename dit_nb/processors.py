"""Which settings are faster on which processor: a table of facts and of measurements, never a stopwatch."""

import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from dit_nb.utils import _cpu_has_bf16

__all__ = ["Policy", "Processor", "cpu_policy", "this_processor"]


@dataclass(frozen=True)
class Processor:
    "Facts about a processor that decide which settings are faster on it."

    vendor: str = ""  # AMD, Intel, Apple; empty: another one
    avx512: bool = False  # vectors of 512 bits (AVX-512)
    bf16: bool = False  # multiplies bfloat16 numbers natively (AVX-512 or AMX)
    amx: bool = False  # a unit for products of small matrices (AMX)


@dataclass(frozen=True)
class Policy:
    """Settings for one kind of device, and the measurement that put them there.

    Attributes:
        kind: the devices that it is for
        float32_products: float32 matmul precision; "medium" only where it is exact, and another library
        attention: kernel of attention in plain code: fused, or math (two products and a softmax, in bf16 for bf16)
        bf16_training_attention: the same in plain training in bf16, where the fused kernel's backward pass counts
        compiled_attention: the same in compiled sampling
        compiled_training_attention: the same in compiled training; both can fuse the formula with what is around it
        packed_weights: whether sampling in bf16 packs its matrices for oneDNN, with GELU in the same pass
        evidence: what was measured, where and when
        precision: what precision "auto" means: bf16 or fp32
    """

    kind: str
    float32_products: str
    attention: str
    bf16_training_attention: str
    compiled_attention: str
    compiled_training_attention: str
    evidence: str
    packed_weights: bool = False
    precision: str = "fp32"


_AMX = Policy(
    "CPU with AMX",
    "highest",  # "medium" would round float32 products to bfloat16
    "fused",
    "math",
    "fused",
    "math",
    "Intel (family 6, model 167), 2 cores, 2026-11-30: attention of 8 images with 256 tokens in bf16: 1.9 ms fused, 7.5 by "
    "the formula; with its backward pass 18.8 and 12.9, with 16 tokens and 128 images 30.3 and 3.3; in fp32 18.1 and 23.5. "
    "A plain bf16 step of digits/2 294 ms fused, 126 by the formula. Compiled sampling in bf16, fused and by the formula: "
    "S/2 1402 and 1692 ms, S/4 446 and 542, digits/1 561 and 686, digits/2 197 and 190",
    packed_weights=True,
)
_AMD_AVX512 = Policy(
    "AMD with AVX-512",
    "medium",
    "math",
    "math",
    "math",
    "math",
    "AMD Zen 5, one core, 2026-11-29: fp32 products 64 GFLOP/s by MKL, 166 by oneDNN; attention in bf16, 8 images, 256 "
    "tokens, forward and backward: 35 ms fused, 26 by the formula in float32, 17 in bf16; a step of S/2 1.15, of "
    "digits/1 1.57 times as long with the fused kernel, sampling 1.06 and 0.93 times; fc1 and GELU of S/2 14.2 ms, "
    "packed and in one pass 6.0. Zen 4, two cores, 2026-11-30: fp32 products 182 GFLOP/s by MKL, 213 by oneDNN; "
    "attention of 256 tokens in bf16, forward and backward: 31 ms fused, 15 by the formula",
    packed_weights=True,
)
_OTHER = Policy(
    "other CPU",
    "highest",
    "fused",
    "fused",
    "math",
    "math",
    "the same AMD, libraries limited to AVX2: fp32 products 51 GFLOP/s by MKL, 49 by oneDNN, bf16 14; attention of 256 "
    "tokens in fp32 96 ms fused, 210 plain. Other kinds: not measured",
)
_CUDA = Policy(
    "CUDA",
    "highest",
    "fused",
    "fused",
    "fused",
    "fused",
    "NVIDIA H200, 2026-11-28: XL/2 training in bf16 637 ms plain, 421 compiled, both with the fused kernel",
    precision="bf16",
)


def cpu_policy(processor: Processor) -> Policy:
    """Choose the settings for a processor, by its facts alone: the same ones in every run.

    Args:
        processor: facts about it; `this_processor()` gives those of this machine

    Returns:
        its row of the table, with bfloat16 as `precision` if the processor has it
    """
    if processor.amx:
        row = _AMX
    else:
        row = _AMD_AVX512 if processor.vendor == "AMD" and processor.avx512 else _OTHER
    return replace(row, precision="bf16" if processor.bf16 or processor.amx else "fp32")


def _device_policy(device: torch.device | str) -> Policy:
    """Choose the settings for a device of this machine.

    Args:
        device: cpu or cuda; others get PyTorch's defaults
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return cpu_policy(this_processor())
    return _CUDA if kind == "cuda" else replace(_CUDA, kind=kind, evidence="not measured", precision="fp32")


@lru_cache(maxsize=1)
def this_processor() -> Processor:
    "Read the facts about this machine's processor."
    info = Path("/proc/cpuinfo")
    words = info.read_text() if info.exists() else f"{platform.processor()} {platform.system()}"
    vendors = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "Darwin": "Apple"}
    return Processor(
        vendor=next((name for word, name in vendors.items() if word in words), ""),
        avx512=torch.backends.cpu.get_cpu_capability() == "AVX512",
        bf16=_cpu_has_bf16(),
        amx=bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
    )
