"""The challenge: entries are measured from their files, and the leaderboard is kept over calls."""

import csv
import json

import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.config import SamplingConfig
from dit_nb.errors import UserError
from dit_nb.pretrained import save_model
from dit_nb.teach.classroom.challenge import (
    _MAX_PARAMETERS,
    _MAX_STEPS,
    _Entry,
    _main,
    _measure,
    _update_leaderboard,
)


@pytest.fixture
def run(tmp_path):
    """A run of a tiny model."""
    torch.manual_seed(0)
    folder = tmp_path / "anna"
    model = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=10))
    save_model(model, folder / "model", SamplingConfig(steps="2", bins=17))
    (folder / "metrics.json").write_text(json.dumps({"steps": 3, "parameters": 1}))
    return folder, sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_an_entry_is_measured_not_believed(run):
    folder, parameters = run
    entry = _measure(folder, sets=2, per_class=5)
    assert (entry.name, entry.steps, entry.parameters) == ("anna", 3, parameters)
    assert entry.distance > 1 and entry.spread > 0 and 0 <= entry.recognized < 0.6
    assert entry == _measure(folder, sets=2, per_class=5) != _measure(folder, seed=5, sets=2, per_class=5)


def test_folders_that_are_no_runs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="metrics.json"):
        _measure(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(UserError, match="metrics"):
        _measure(tmp_path)


def test_the_leaderboard_ranks_and_replaces(tmp_path):
    path = tmp_path / "leaderboard.csv"
    entry = lambda name, d, p=100, s=10: _Entry(name, d, 0.5, 0.9, p, s)  # noqa: E731
    _update_leaderboard(
        path, [entry("anna", 3.0), entry("ben", 2.0), entry("cara", 1.0, _MAX_PARAMETERS + 1)]
    )
    ranked = _update_leaderboard(path, [entry("anna", 1.5), entry("dan", 0.5, s=_MAX_STEPS + 1)])
    assert [e.name for e in ranked] == ["anna", "ben", "dan", "cara"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["rank"], r["name"]) for r in rows] == [
        ("1", "anna"),
        ("2", "ben"),
        ("over budget", "dan"),
        ("over budget", "cara"),
    ]


def test_the_command_measures_ranks_and_names_what_is_wrong(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    board = tmp_path / "board.csv"
    monkeypatch.setattr("sys.argv", ["challenge", str(folder), "--leaderboard", str(board)])
    _main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("1.") and "anna" in shown[0] and str(board) in shown[-1]
    monkeypatch.setattr("sys.argv", ["challenge", str(tmp_path / "nobody")])
    with pytest.raises(SystemExit, match="challenge: .*metrics.json does not exist"):
        _main()
