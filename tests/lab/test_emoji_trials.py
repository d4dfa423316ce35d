"""Trials of the emoji recipe: shifted pictures, and one tiny trial."""

import torch

import emoji_trials as tool
from dit_nb.data import emoji


def test_shifts_move_by_one_pixel_and_bring_in_white():
    data = emoji(["symbols"]).train
    n, moved = len(data), tool.with_shifts(data)
    assert len(moved) == 5 * n and moved.entries[n] == moved.entries[0]
    assert torch.equal(moved.labels.view(5, n), data.labels.expand(5, n))
    still, *others = moved.images.split(n)
    assert torch.equal(still, data.images)
    down, up, right, left = others
    assert torch.equal(down[..., 1:, :], data.images[..., :-1, :]) and (down[..., 0, :] == 1).all()
    assert torch.equal(up[..., :-1, :], data.images[..., 1:, :]) and (up[..., -1, :] == 1).all()
    assert torch.equal(right[..., 1:], data.images[..., :-1]) and (right[..., 0] == 1).all()
    assert torch.equal(left[..., :-1], data.images[..., 1:]) and (left[..., -1] == 1).all()


def test_a_trial_reports_its_settings(monkeypatch):
    tiny = {"hidden_size": 16, "depth": 1, "num_heads": 2, "patch_size": 16}
    monkeypatch.setitem(tool.TRIALS, "tiny", (tiny, {"batch_size": 4}, "shifts"))
    monkeypatch.setattr(tool, "sample_images", lambda *_, **__: torch.rand(256, 3, 32, 32))
    row = tool.run_trial("tiny", 0.2)
    assert row["images"] == 4 * row["steps"] > 0 and row["trial"] == "tiny"
    assert row["frechet"] > 0 and 0 <= row["category_accuracy"] <= 1
