"""Profiles: operations are sorted by kind, and their times add up."""

import torch
import torch.nn.functional as F

from dit_nb.lab.profiling import _matmul_gflops, _time_call, time_by_kind


def test_operations_count_to_their_kind():
    """Which kinds take time, not how much of it: shares differ between machines."""
    a, b = torch.randn(400, 400), torch.randn(400, 400)
    spent = time_by_kind(lambda: a @ b)
    assert spent["matrix products"] > 0 and spent["GELU"] == spent["norm"] == spent["attention"] == 0
    spent = time_by_kind(lambda: F.layer_norm(F.gelu(a), (400,)))
    assert spent["GELU"] > 0 and spent["norm"] > 0 and spent["matrix products"] == 0


def test_throughput_is_operations_over_time(monkeypatch):
    monkeypatch.setattr("dit_nb.lab.profiling._time_call", lambda run, device: 0.5)
    assert _matmul_gflops(size=100) == 2 * 100**3 / 0.5 / 1e9


def test_a_call_is_run_once():
    calls = []
    assert _time_call(lambda: calls.append(1)) > 0 and calls == [1]
