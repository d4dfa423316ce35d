"""The study of lesson 30: a run of a few updates, and the recorded results."""

import csv

import numpy as np
import torch

from dit_nb.data import emoji
from dit_nb.lab import flow_study
from dit_nb.lab.flow_study import _COLUMNS, _OBJECTIVES, _SEEDS, _STEPS, PICTURES, RESULTS, _record, _sample
from dit_nb.since.flow import RectifiedFlow


def test_a_short_run_gives_a_row_for_each_number_of_steps(monkeypatch):
    monkeypatch.setattr(flow_study, "_STEPS", (1, 2))
    split = emoji(("smileys",))
    for name in _OBJECTIVES:
        rows = list(_record(name, 0, split, 1, 8))
        assert [row[:4] for row, _ in rows] == [(name, 1, 1, 0), (name, 1, 2, 0)]
        for row, samples in rows:
            assert len(row) == len(_COLUMNS) and samples.shape == (8, 3, 32, 32)
            assert samples.abs().max() <= 1 + 1e-5 and row[4] > 0


def test_both_objectives_start_from_the_same_noise():
    starts, y = [], torch.arange(2)

    def model(x, t, y):
        starts.append(x)
        return torch.zeros_like(x)

    for objective in _OBJECTIVES.values():
        _sample(objective, model, 1, y, 3)
    assert torch.equal(*starts)
    assert {isinstance(one, RectifiedFlow) for one in _OBJECTIVES.values()} == {True, False}


def test_results_are_complete():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["objective"], int(row["steps"]), int(row["seed"])) for row in rows]
    assert sorted(found) == sorted((n, s, k) for n in _OBJECTIVES for s in _STEPS for k in range(_SEEDS))
    with np.load(PICTURES) as pictures:
        assert {name: pictures[name].shape for name in pictures} == dict.fromkeys(
            _OBJECTIVES, (12, 3, 32, 32)
        )
