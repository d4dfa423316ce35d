"""Benchmarks: rows of a run, errors of workers."""

import pytest
import torch

from dit_nb.lab.benchmark import benchmark
from dit_nb.lab.benchmark_jobs import _MODELS, _matmul_flop
from dit_nb.lab.benchmark_report import results_table


@pytest.mark.slow
def test_rows_of_a_benchmark():
    rows = benchmark("digits/2", "sample", ("diffusers fp32", "ours bf16"), 2, 0.01, batch=2, progress=False)
    for r in rows:
        assert len(r["ms_rounds"]) == len(r["ratio_rounds"]) == 2 and r["ratio_to"] == "diffusers fp32"
        assert abs(r["gflops"] * r["ms"] * 1e6 / _matmul_flop(_MODELS["digits/2"][0], 2, "sample") - 1) < 1e-9
        assert r["peak_gb"] > 0.05  # torch alone takes more
    ratios = [a / b for a, b in zip(rows[0]["ms_rounds"], rows[1]["ms_rounds"])]
    assert rows[1]["ratio_rounds"] == pytest.approx(ratios) and rows[0]["ratio"] == 1
    assert "ours bf16" in results_table(rows)


def test_errors_of_a_worker_are_raised():
    with pytest.raises(ValueError, match="variant is 'ours fp8'"):
        benchmark("digits/2", variants=("ours fp8",))
    with pytest.raises(ValueError, match="batch_size is -3"):
        benchmark("digits/2", variants=("ours fp32",), batch=-3, progress=False)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_benchmark_on_cuda():
    rows = benchmark("S/2", "train", ("ours bf16",), 1, 0.5, device="cuda", batch=8, progress=False)
    assert 0 < rows[0]["utilization"] < 1
