"""Growth of time and memory, and loss curves: the settings that change, and the runs of a curve."""

import pytest

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.lab.benchmark_growth import _BASE, _GROWTH, _loss_curves
from dit_nb.lab.benchmark_report import load_results


@pytest.mark.parametrize("axis", _GROWTH)
def test_one_size_grows_from_setting_to_setting(axis):
    base = {**_BASE, "batch": 16}
    settings = [{**base, **change} for change in _GROWTH[axis]]
    assert settings.count(base) == 1, "all axes share it"
    work = [s.pop("batch") * cost(DiTConfig(**s)).total_macs for s in settings]
    assert work == sorted(set(work))


def test_recorded_growth_has_the_parameters_of_its_models():
    for row in load_results("growth"):
        field = {"tokens": "input_size", "width": "hidden_size", "depth": "depth"}.get(row["axis"])
        value = 2 * round(row["at"] ** 0.5) if row["axis"] == "tokens" else row["at"]  # patches of 2 pixels
        config = DiTConfig(**{**_BASE, **({field: value} if field else {})})
        assert row["parameters"] == cost(config).total_params, row


def test_curves_of_a_short_run_start_alike(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # what the function sets is undone
    full, half = _loss_curves(steps=3, width=48, depth=1, progress=False, compiled=False)
    assert (full["precision"], half["precision"]) == ("fp32", "bf16") and full["width"] == 48
    assert len(full["mse"]) == len(half["mse"]) == 3
    # Noise and weights are the same: the first losses differ by the rounding of bfloat16, 2^-8, alone.
    assert half["mse"][0] == pytest.approx(full["mse"][0], rel=2**-6)
