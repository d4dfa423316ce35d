"""The study of few-step emoji: the teacher's labels, the order of the samples, and the recorded results."""

import csv

import numpy as np
import pytest
import torch

from dit_nb.lab import few_step_study
from dit_nb.lab.few_step_study import _COLUMNS, _SEEDS, _STEPS, PICTURES, RESULTS, _guided_teacher, _samples
from dit_nb.pretrained import emoji_model


@pytest.fixture(scope="module")
def names():
    return emoji_model(device="cpu")[1].class_names


def test_the_teacher_counts_the_labels_of_its_caller(names):
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([300.0, 900.0])
    forward, backward = _guided_teacher(names), _guided_teacher(names[::-1])
    y = torch.tensor([0, 2])
    velocity = forward(x, t, y)
    assert torch.equal(backward(x, t, len(names) - 1 - y), velocity)
    assert not torch.equal(forward(x, t, y + 1), velocity)


def test_samplers_take_turns_from_the_same_noise(monkeypatch, names):
    """The most steps of the teacher come first: all others are compared with them."""
    starts = []

    def euler(flow, model, shape, y, x_T, **options):
        starts.append(x_T)
        return torch.full(shape, float(len(flow.times) - 1))

    def jumps(model, shape, y, steps, x_T):
        starts.append(x_T)
        return torch.full(shape, float(steps))

    monkeypatch.setattr(few_step_study, "flow_sample", euler)
    monkeypatch.setattr(few_step_study, "mean_flow_sample", jumps)
    found = list(_samples(torch.arange(2), 1, names))
    assert [row[:2] for row in found] == [(s, n) for n in reversed(_STEPS) for s in ("Euler", "jumps")]
    assert all((images == steps).all() for _, steps, images in found)
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert torch.equal(starts[0], torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1001)))


def test_results_are_complete():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == _COLUMNS
    found = [(row["sampler"], int(row["steps"]), int(row["seed"])) for row in rows]
    wanted = [(s, n, k) for s in ("Euler", "jumps") for n in _STEPS for k in range(_SEEDS)]
    assert sorted(found) == sorted(wanted)
    for row in rows:
        same = (row["sampler"], int(row["steps"])) == ("Euler", max(_STEPS))
        assert (float(row["rms_to_50"]) == 0) == same, "what all others are compared with"
    with np.load(PICTURES) as pictures:
        kept = {name: (pictures[name].shape, pictures[name].dtype) for name in pictures}
    assert kept == {f"{s} {n}": ((12, 3, 32, 32), np.uint8) for s in ("Euler", "jumps") for n in _STEPS}
