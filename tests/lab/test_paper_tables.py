"""The paper's tables as files, and the arithmetic on them."""

import math

import numpy as np
import pytest
from scipy import stats

from dit_nb.lab.paper_tables import (
    _TABLES,
    _comparable_rows,
    _correlation,
    _fit_line,
    _parse_number,
    _row_config,
    _row_gflops,
    _row_params,
    _sampling_compute,
    _training_compute,
    read_paper_table,
)

TABLE = read_paper_table("table4")


@pytest.mark.parametrize(
    "row", TABLE, ids=lambda r: f"{r['model']} {r['block']} {r['pixels']} {r['steps_k']}"
)
def test_printed_costs_are_ours(row):
    tolerance = 0.001 if row["gflops"] > 5 else 0.01
    assert _row_gflops(row) == pytest.approx(row["gflops"], rel=tolerance)
    assert round(_row_params(row)) == row["params_m"]
    assert _row_config(row).block == row["block"] and _row_config(row).input_size * 8 == row["pixels"]


def test_every_row_has_a_source_and_is_complete():
    for table in _TABLES:
        rows = read_paper_table(table)
        assert rows and all(row["source"] for row in rows)
        for row in rows:
            assert set(row) == set(rows[0]) and "" not in row.values() and None not in row
        keys = [tuple(v for k, v in row.items() if k not in ("fid", "source")) for row in rows]
        assert len(keys) == len(set(keys)), table


def test_recorded_numbers():
    fids = {(r["model"], r["block"], r["pixels"], r["steps_k"]): r["fid"] for r in TABLE}
    assert len(fids) == 19
    assert fids["DiT-XL/2", "in_context", 256, 400] == 35.24
    assert fids["DiT-XL/2", "cross_attention", 256, 400] == 26.14
    assert fids["DiT-XL/2", "adaln", 256, 400] == 25.21
    assert fids["DiT-XL/2", "adaln_zero", 256, 400] == 19.47
    assert fids["DiT-XL/2", "adaln_zero", 512, 3000] == 11.93
    assert [r["fid"] for r in read_paper_table("headline")] == [9.62, 3.22, 2.27, 12.03, 4.64, 3.04]


def test_correlations_of_the_comparable_rows():
    gflops, fid = ([row[key] for row in _comparable_rows()] for key in ("gflops", "fid"))
    assert _correlation(np.log(gflops), fid) == pytest.approx(-0.930, abs=5e-4)
    assert _correlation(gflops, fid) == pytest.approx(-0.725, abs=5e-4)
    assert _correlation(np.log(gflops), np.log(fid)) == pytest.approx(-0.936, abs=5e-4)


def test_correlation_and_line_against_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 3 * x + rng.normal(size=40)
    oracle = stats.linregress(x, y)
    line = _fit_line(x, y)
    assert _correlation(x, y) == pytest.approx(oracle.rvalue)
    assert (line.slope, line.intercept) == pytest.approx((oracle.slope, oracle.intercept))
    assert line.error == pytest.approx(oracle.stderr, rel=0.3)  # two estimates of one thing
    assert line.half == pytest.approx(stats.t.ppf(0.975, len(x) - 2) * oracle.stderr)


def test_error_of_a_line_covers_the_truth():
    """Of 200 lines, about 95 % lie within two standard errors of the true slope."""
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 12)
    lines = [_fit_line(x, 5 * x + rng.normal(size=12)) for _ in range(200)]
    inside = np.mean([abs(line.slope - 5) < 2 * line.error for line in lines])
    assert 0.87 < inside < 0.99


def test_leave_one_out_error_by_the_leverage():
    """Leaving a point out has a closed form: its residual over one minus its leverage."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=9), rng.normal(size=9)
    design = np.stack([x, np.ones(9)], 1)
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    missed = (y - hat @ y) / (1 - np.diag(hat))
    assert _fit_line(x, y).loo_rmse == pytest.approx(math.sqrt((missed**2).mean()))
    straight = _fit_line([0, 1, 2, 3], [1, 3, 5, 7])
    assert straight.at(10) == pytest.approx(21) and straight.error < 1e-9


def test_compute():
    assert _training_compute(118.64, 400_000) == pytest.approx(118.64 * 256 * 400_000 * 3)
    assert _training_compute(1, 10, batch=2) == 60
    for row in read_paper_table("sampling"):
        gflops = next(r["gflops"] for r in _comparable_rows() if r["model"] == row["model"])
        assert _sampling_compute(gflops, row["steps"]) / 1000 == pytest.approx(row["tflops"], abs=0.05)
        assert _sampling_compute(gflops, 5, guided=True) == 10 * gflops


def test_parse_number():
    assert _parse_number("400") == 400 and isinstance(_parse_number("400"), int)
    assert _parse_number("0.36") == 0.36 and _parse_number("DiT-S/8") == "DiT-S/8"


def test_bad_input():
    with pytest.raises(ValueError, match="table is 'table5'"):
        read_paper_table("table5")
    with pytest.raises(ValueError, match=r"^x and y have shapes \(2,\) and \(2,\), .* 3 "):
        _correlation([1, 2], [1, 2])
    with pytest.raises(ValueError, match=r"^x and y have shapes \(3,\) and \(4,\)"):
        _correlation([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="^x is 1 "):
        _correlation([1, 1, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="^y is 0.1 "):
        _correlation([1, 2, 3], [0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match=r"^x and y have shapes \(3,\) and \(3,\), .* 4 "):
        _fit_line([1, 2, 3], [1, 2, 3])
