"""dit-nb digits: its files, its metrics, and runs that repeat or fail."""

import json

import numpy as np
import pytest
from PIL import Image

import dit_nb
from dit_nb.cli import main
from dit_nb.errors import UserError


def test_output_files(digits_run):
    samples = np.load(digits_run / "samples.npz")
    assert samples["images"].shape == (1000, 1, 8, 8) and samples["images"].dtype == np.float32
    assert np.abs(samples["images"]).max() <= 1.5 and np.isfinite(samples["images"]).all()
    assert np.bincount(samples["labels"]).tolist() == [100] * 10
    for name in ("samples.png", "denoising.png", "loss.png"):
        assert Image.open(digits_run / name).size[0] > 400, name
    assert not list(digits_run.glob(".unfinished*"))


def test_metrics(digits_run):
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert metrics["steps"] == 12 and metrics["seed"] == 0
    assert abs(metrics["frechet_real"] - 0.33) < 0.03, "real digits as the README states them"
    distances = metrics["frechet_by_seed"]
    assert distances[0] == metrics["frechet"] and len(set(distances)) == 4, (
        "each sample set has its own noise"
    )
    assert abs(metrics["accuracy_real"] - 0.989) < 0.005
    assert abs(metrics["nearest_train_real"] - 16.8) < 0.1


def test_the_card_tells_how_the_model_was_trained(digits_run):
    card = (digits_run / "model" / "README.md").read_text()
    assert "not recorded" not in card and "Data: digits." in card
    assert f"    dit-nb digits --steps 12 --out {digits_run}  # dit_nb {dit_nb.__version__}, torch " in card
    parameters = json.loads((digits_run / "metrics.json").read_text())["parameters"]
    assert f"with {parameters:,} parameters" in card and "| frechet |" in card


@pytest.mark.slow
def test_same_steps_give_the_same_samples(digits_run, tmp_path):
    assert main(["digits", "--steps", "12", "--out", str(tmp_path)]) == 0
    a, b = (np.load(out / "samples.npz")["images"] for out in (digits_run, tmp_path))
    assert np.array_equal(a, b)


@pytest.mark.slow
def test_failed_run_leaves_earlier_results_unchanged(digits_run, error_of, monkeypatch):
    before = {p: p.read_bytes() for p in digits_run.rglob("*") if p.is_file()}
    fail = lambda *a: (_ for _ in ()).throw(UserError("disk full"))  # noqa: E731
    monkeypatch.setattr("dit_nb.commands.digits.save_model", fail)
    assert "disk full" in error_of("digits", "--steps", "2", "--out", digits_run)
    assert {p: p.read_bytes() for p in digits_run.rglob("*") if p.is_file()} == before


def test_output_folder_that_is_a_file(tmp_path, error_of):
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in error_of("digits", "--steps", "1", "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "not a folder"
