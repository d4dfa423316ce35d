"""The policy: which settings belong to which processor, and that none of them rounds float32 in silence."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from dit_nb import training
from dit_nb.processors import Processor, _device_policy, cpu_policy, this_processor
from dit_nb.speed import fast_cpu
from support_training import TRAIN

AMD_EPYC = Processor("AMD", avx512=True, bf16=True)
AMD_AVX2 = Processor("AMD")
INTEL_AMX = Processor("Intel", avx512=True, bf16=True, amx=True)
INTEL_AVX512 = Processor("Intel", avx512=True)
INTEL_AVX2 = Processor("Intel")
APPLE = Processor("Apple")


@pytest.mark.parametrize(
    "processor, products, kernels, precision",
    [
        (AMD_EPYC, "medium", ("math", "math", "math", "math"), "bf16"),
        (AMD_AVX2, "highest", ("fused", "fused", "math", "math"), "fp32"),
        # Forward, the fused kernel is the fastest there; its backward pass in bf16 the slowest.
        (INTEL_AMX, "highest", ("fused", "math", "fused", "math"), "bf16"),
        (INTEL_AVX512, "highest", ("fused", "fused", "math", "math"), "fp32"),
        (INTEL_AVX2, "highest", ("fused", "fused", "math", "math"), "fp32"),
        (APPLE, "highest", ("fused", "fused", "math", "math"), "fp32"),
        (Processor(), "highest", ("fused", "fused", "math", "math"), "fp32"),
    ],
)
def test_the_settings_of_each_kind_of_processor(processor, products, kernels, precision):
    policy = cpu_policy(processor)
    plain = policy.attention, policy.bf16_training_attention
    assert (*plain, policy.compiled_attention, policy.compiled_training_attention) == kernels
    assert (policy.float32_products, policy.precision) == (products, precision)
    assert policy.packed_weights == (precision == "bf16")


EVERY_KIND = [
    Processor(vendor, *flags)
    for vendor, flags in product(("AMD", "Intel", "Apple", ""), product((False, True), repeat=3))
]


def test_no_other_processor_than_an_amd_with_avx512_and_without_amx_leaves_the_highest_precision():
    """Precision medium means bfloat16 on a processor with AMX, and wherever a library has a fast path for it."""
    medium = {p for p in EVERY_KIND if cpu_policy(p).float32_products == "medium"}
    assert medium == {p for p in EVERY_KIND if p.vendor == "AMD" and p.avx512 and not p.amx}


def test_the_policy_follows_from_the_facts_alone_and_tells_its_evidence():
    for processor in EVERY_KIND:
        policy = cpu_policy(processor)
        assert policy == cpu_policy(processor) and len(policy.evidence) > 10
        assert (policy.precision == "bf16") == (processor.bf16 or processor.amx)
    kinds = {cpu_policy(p).kind: cpu_policy(p).evidence for p in EVERY_KIND}
    assert len(kinds) == len(set(kinds.values())) == 3


def test_policies_of_devices():
    assert _device_policy("cpu") == cpu_policy(this_processor())
    gpu = _device_policy(torch.device("cuda", 1))
    assert (gpu.float32_products, gpu.attention, gpu.compiled_attention) == ("highest", "fused", "fused")
    assert gpu.bf16_training_attention == gpu.compiled_training_attention == "fused"
    assert _device_policy("mps").evidence == "not measured"


def test_facts_of_this_machine():
    processor = this_processor()
    assert processor is this_processor() and processor.vendor in ("AMD", "Intel", "Apple", "")
    assert not (processor.amx and not processor.bf16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides here")
def test_training_takes_the_precision_of_the_policy():
    names = {"bf16": "bf16", "fp32": "no"}
    chosen = training._mixed_precision(replace(TRAIN, precision="auto"))
    assert chosen == names[_device_policy("cpu").precision]


def test_float32_products_stay_float32_inside_fast_cpu():
    """An error of bfloat16, 2**-9 of each factor, would be a thousand times as large."""
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(256, 256, generator=g) for _ in range(2))
    exact = F.linear(x.double(), w.double())
    with fast_cpu():
        error = (F.linear(x, w) - exact).norm() / exact.norm()
    assert error < 1e-6
