"""Training, metrics and variants of the studies."""

import numpy as np
import pytest
import torch

from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.lab.studies import (
    _BLOCKS,
    STUDIES,
    _evaluate_model,
    _fast_version,
    _loss_by_decile,
    _run_ema_study,
    _steps_at_equal_compute,
    _token_rms,
    _train,
)
from dit_nb.lab.study_models import _fold_digits, _make_model


@pytest.mark.parametrize("block", _BLOCKS)
def test_steps_at_equal_compute(block):
    same = _steps_at_equal_compute(block) * cost(_make_model({"block": block}).config).total_macs
    assert same == pytest.approx(2000 * cost(_make_model({}).config).total_macs, rel=1e-3)


def test_token_rms_at_initialization():
    assert len(set(_token_rms(_make_model({"depth": 5})))) == 1, "zero gates: all blocks are the identity"
    torch.manual_seed(0)
    rising = _token_rms(_make_model({"depth": 5, "gates": "sigmoid"}))
    assert len(rising) == 6 and rising[0] < rising[2] < rising[5], "each gate is 0.5"


@pytest.mark.parametrize("guided_channels", [3, 4])
def test_guidance_of_some_channels(guided_channels, monkeypatch):
    """`_evaluate_model` passes guided channels on, and unfolds the samples before the metrics."""
    asked = {}

    def sample_images(model, sampling, labels, *, seed, progress):
        asked.update(vars(sampling))
        return _fold_digits().held_out.images

    monkeypatch.setattr("dit_nb.lab.studies.sample_images", sample_images)
    monkeypatch.setattr("dit_nb.lab.studies._LABELS", digits().held_out.labels)
    settings = {"data": "folded", "cfg_scale": 1.5, "guided_channels": guided_channels, "steps": 1}
    found = _evaluate_model(None, 0, settings)
    assert (
        asked["guided_channels"] == guided_channels and asked["cfg_scale"] == 1.5 and asked["steps"] == "50"
    )
    assert found["frechet"] == pytest.approx(0, abs=1e-6) and found["accuracy"] > 0.95


def test_deciles_are_means_of_the_squared_error():
    trainer = _train({"steps": 23}, 0)
    history = trainer.progress.history["mse"]
    found = _loss_by_decile(trainer)
    assert len(history) == 23 and list(found) == [f"mse_{i}" for i in range(1, 11)]
    assert found["mse_1"] == pytest.approx(np.mean(history[:3])) and found["mse_10"] == pytest.approx(
        np.mean(history[-2:])
    )


def test_emas_side_by_side(monkeypatch):
    """Each is the recursion of its decay over the very same weights."""
    seen, kept = [], {}

    def evaluate(model, seed, settings):
        kept[len(kept)] = model.x_embedder.proj.weight[0, 0, 0, 0].item()
        return {"frechet": 1.0}

    monkeypatch.setattr("dit_nb.lab.studies._evaluate_model", evaluate)
    from dit_nb.ema import EMA

    update = EMA.update

    def watch(self, model):
        if self.decay == 0.5:  # the trainer's own comes first in each step
            seen.append(model.x_embedder.proj.weight[0, 0, 0, 0].item())
        update(self, model)

    monkeypatch.setattr(EMA, "update", watch)
    torch.manual_seed(0)
    start = _make_model({}).x_embedder.proj.weight[0, 0, 0, 0].item()
    names = _run_ema_study({"steps": 12, "ema_decay": 0.5}, 0)
    names = [name.removeprefix("frechet_") for name in names if name.startswith("frechet_")]
    assert len(seen) == 12 and len(names) == 9
    for name, found in zip(names, kept.values()):
        decay, mean = float(name[:-1]), start
        for i, weight in enumerate(seen):
            share = min(decay, (1 + i) / (10 + i)) if name.endswith("w") else decay
            mean = share * mean + (1 - share) * weight
        assert found == pytest.approx(mean, rel=1e-4), name


@pytest.mark.parametrize("name", STUDIES)
def test_fast_versions(name):
    study = _fast_version(STUDIES[name])
    assert study.seeds == 1 and study.run is STUDIES[name].run
    different = {str(variant) for variant in study.variants}
    assert 0 < len(different) == len(study.variants) <= len(STUDIES[name].variants)
    assert all(variant.keys() == study.variants[0].keys() for variant in study.variants)
