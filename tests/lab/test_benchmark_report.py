"""Recorded benchmarks: their rows, tables and figures."""

import pytest

from dit_nb.lab.benchmark_growth import _GROWTH
from dit_nb.lab.benchmark_jobs import _MODELS, _VARIANTS, _matmul_flop
from dit_nb.lab.benchmark_report import load_results, plot_bench, plot_growth, results_table


@pytest.mark.parametrize("name", ["bench", "bench_eager", "bench_h200", "bench_zen4", "bench_amx"])
def test_recorded_rows_match_the_cost_of_their_models(name):
    for r in load_results(name):
        assert r["variant"] in _VARIANTS and r["ratio_to"] in _VARIANTS and r["device"] and r["date"]
        flop = _matmul_flop(_MODELS[r["config"]][0], r["batch"], r["job"])
        assert r["gflops"] == pytest.approx(flop / r["ms"] / 1e6, rel=1e-6)
        assert r["utilization"] == pytest.approx(r["gflops"] / r["matmul_gflops"])


@pytest.mark.parametrize("name", ["bench", "bench_eager", "bench_h200", "bench_zen4", "bench_amx"])
def test_table_and_bars_show_every_row(name):
    rows = load_results(name)
    table, axes = results_table(rows).splitlines(), plot_bench(rows).axes
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1
    bars = [(ax.get_title(), bar.get_width()) for ax in axes for bar in ax.patches]
    assert sorted(bars) == sorted((f"{r['config']} {r['job']}", r["ratio"]) for r in rows)
    labels = [text.get_text() for ax in axes if ax.patches for text in ax.get_yticklabels()]
    assert sorted(labels) == sorted(r["variant"] for r in rows)


def test_growth_has_a_point_for_every_setting():
    fig = plot_growth(load_results("growth"))
    for (axis, settings), time, memory in zip(
        _GROWTH.items(), fig.axes[: len(_GROWTH)], fig.axes[len(_GROWTH) :]
    ):
        measured, expected = time.lines
        assert time.get_title() == axis and len(measured.get_xdata()) == len(settings)
        equal = sum(a == pytest.approx(b) for a, b in zip(measured.get_ydata(), expected.get_ydata()))
        assert equal == 1, "both lines meet in the setting that all axes share"
        assert len(memory.lines[0].get_xdata()) == len(settings)
