"""What the benchmarks time: counts of operations, and the work of a job."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.lab.benchmark_jobs import _JOBS, _MODELS, _batch_size, _matmul_flop


def test_operations_follow_the_papers_convention():
    config, n = _MODELS["XL/2"][0], 256
    assert _matmul_flop(config, n, "train") == 6 * cost(config).total_macs * 256
    assert abs(_matmul_flop(config, n, "train") / 182.2e12 - 1) < 0.001


SMALL = DiTConfig(
    input_size=8, patch_size=2, in_channels=3, hidden_size=64, depth=2, num_heads=4, num_classes=10
)


@pytest.mark.parametrize("job, n", [("train", 5), ("sample", 3)])
@pytest.mark.parametrize("code", ["ours", "diffusers"])
def test_jobs_do_the_work_that_is_counted(code, job, n):
    """By PyTorch's counter; within 5 %, as ours embeds t and y once per run, and diffusers in every block."""
    torch.manual_seed(0)
    run = _JOBS[code, job](SMALL, n, "cpu", "fp32", False)
    run()
    # FlopCounterMode does not see the fused attention of a CPU: use the plain one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    assert counter.get_total_flops() == pytest.approx(_matmul_flop(SMALL, n, job), rel=0.05)


def test_default_batch_sizes():
    for name, (_, for_training, for_sampling) in _MODELS.items():
        assert _batch_size(name, "train", "cpu") == for_training
        assert (
            _batch_size(name, "sample", "cuda")
            == 16 * for_sampling
            == 16 * _batch_size(name, "sample", "cpu")
        )
        assert _batch_size(name, "train", "cuda") > for_training
