"""The training of the bundled MeanFlow model of digits: it repeats, what it writes opens, and the digits are digits."""

import torch

from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.lab import meanflow_study
from dit_nb.lab.meanflow_study import _save, _train_mean_flow, as_velocity_model, mean_flow_digit_model
from dit_nb.pretrained import load_model, sample_images
from dit_nb.since.meanflow import MeanFlowDiT
from support import same_weights


def test_the_few_step_digits_are_digits():
    model, sampling = load_model(meanflow_study._MODEL, device="cpu")
    assert type(model) is MeanFlowDiT and sampling == meanflow_study._SAMPLING
    assert same_weights(model, mean_flow_digit_model())
    y = torch.arange(50) % 10
    images = sample_images(model, sampling, y, seed=1, progress=False)
    assert DigitClassifier(digits()).accuracy(images, y) > 0.9


def test_training_repeats_for_a_seed_and_what_is_written_opens(tmp_path, monkeypatch):
    split, lines = digits(), []
    first, again, other = (_train_mean_flow(split, 2, seed, report=lines.append) for seed in (0, 0, 1))
    assert same_weights(first, again) and not same_weights(first, other) and lines == []
    monkeypatch.setattr(meanflow_study, "_MODEL", tmp_path / "model")
    _save(first, updates=2, cpu_seconds=1.0)
    loaded, sampling = load_model(tmp_path / "model", device="cpu")
    assert sampling == meanflow_study._SAMPLING
    for ours, theirs in zip(loaded.parameters(), first.parameters()):
        # float16: half a unit in the last of 11 bits, and half of the smallest number
        torch.testing.assert_close(ours, theirs, rtol=2**-11, atol=2**-25)
    count = sum(v.numel() for k, v in first.state_dict().items() if k != "pos_embed")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{count:,} weights" in card and "1 CPU seconds: 2 updates" in card


def test_the_velocity_is_the_average_over_no_time():
    seen = []
    velocity = as_velocity_model(lambda x, t, r, y: seen.append((t, r)) or x + y)
    t = torch.tensor([0.0, 250.0, 1000.0])
    assert torch.equal(velocity(torch.ones(3), t, torch.arange(3)), torch.tensor([1.0, 2.0, 3.0]))
    assert all(torch.equal(time, torch.tensor([0.0, 0.25, 1.0])) for time in seen[0])
