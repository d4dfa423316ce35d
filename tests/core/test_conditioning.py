"""Embeddings of timesteps and labels: the exact formula, the official numbers, and label dropout."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_nb.conditioning import LabelEmbedder, TimestepEmbedder, timestep_embedding
from support import DEVICES, GOLDEN, error_cases, raises_input_error, relative

# The official code multiplies timesteps up to 999 with frequencies up to 1 in float32: each rounding is at most
# 2**-24 of the phase, and there are two (frequency, product). Cosine and sine pass a phase error on undiminished.
FLOAT32_PHASE_ERROR = 2 * 999 * 2**-24


def exact_embedding(times, dim=256, max_period=10000.0):
    half = dim // 2
    phases = [[t * math.exp(-math.log(max_period) * i / half) for i in range(half)] for t in times]
    return torch.tensor([[*map(math.cos, row), *map(math.sin, row)] for row in phases], dtype=torch.float64)


# Timesteps


def test_official_embeddings():
    arrays = np.load(GOLDEN / "embeddings.npz")
    got = timestep_embedding(torch.from_numpy(arrays["timesteps"]))
    assert (got - torch.from_numpy(arrays["timestep_256"])).abs().max() < FLOAT32_PHASE_ERROR


@pytest.mark.parametrize("dim,max_period", [(256, 10000.0), (6, 100.0)])
def test_timestep_embedding_is_exact_to_float32(dim, max_period):
    got = timestep_embedding(torch.arange(1000), dim, max_period)
    assert got.dtype == torch.float32
    exact = exact_embedding(range(1000), dim, max_period)
    assert (got.double() - exact).abs().max() < 2**-24  # one rounding to float32


@torch.no_grad()
def test_timestep_embedder_is_its_formula():
    embedder, t = TimestepEmbedder(12, frequency_dim=8).double(), torch.tensor([0, 1, 999])
    first, _, last = embedder.mlp
    hidden = timestep_embedding(t, 8).double() @ first.weight.T + first.bias
    want = hidden * torch.sigmoid(hidden) @ last.weight.T + last.bias
    assert relative(embedder(t), want) < 1e-12


@torch.no_grad()
def test_in_bfloat16_only_the_mlp_is_rounded():
    """999 itself would become 1000 in bfloat16; the output may differ by a few of its roundings only."""
    torch.manual_seed(0)
    embedder = TimestepEmbedder(32)
    want, other = embedder(torch.tensor([999, 1000])).split(1)
    got = embedder.bfloat16()(torch.tensor([999]))
    assert got.dtype == torch.bfloat16 and relative(got, want) < 0.05 < relative(other, want)


@pytest.mark.parametrize("device", DEVICES)
def test_timestep_embedding_is_the_same_on_every_device(device):
    t = torch.arange(1000)
    got = timestep_embedding(t.to(device))
    assert got.device.type == device and (got.cpu() - timestep_embedding(t)).abs().max() <= 2**-23


# Labels


def labels_of(embedder, embedded):
    """The row of the table that each embedding is."""
    return torch.tensor([int((embedder.embedding_table.weight == row).all(1).nonzero()) for row in embedded])


def test_labels_are_rows_of_a_table_and_the_null_class_is_its_last():
    embedder, y = LabelEmbedder(5, 8, 0.1).eval(), torch.tensor([4, 0, 5, 4])
    assert embedder.null_class == 5 and embedder.embedding_table.weight.shape == (6, 8)
    assert torch.equal(labels_of(embedder, embedder(y)), y)
    plain = LabelEmbedder(5, 8, 0.0)
    assert plain.null_class is None and plain.embedding_table.weight.shape == (5, 8)
    assert torch.equal(plain.train()(y[:2]), F.embedding(y[:2], plain.embedding_table.weight))


@pytest.mark.parametrize("training", [True, False])
def test_an_explicit_mask_drops_exactly_these_labels(training):
    embedder, y = LabelEmbedder(5, 8, 0.5).train(training), torch.arange(5)
    drop = torch.tensor([True, False, False, True, False])
    assert labels_of(embedder, embedder(y, drop)).tolist() == [5, 1, 2, 5, 4]
    assert torch.equal(y, torch.arange(5))


def test_label_dropout_is_random_in_training_and_independent_for_each_image():
    torch.manual_seed(0)
    embedder, y = LabelEmbedder(3, 8, 0.25), torch.arange(4000) % 3
    dropped = (embedder.train()(y) == embedder.embedding_table.weight[3]).all(1)
    deviation = 0.25 * 0.75 * 4000  # variance of a binomial count
    assert abs(int(dropped.sum()) - 1000) < 4 * deviation**0.5
    both = int((dropped[::2] & dropped[1::2]).sum())  # neighbors: 1/16 of 2000 pairs
    assert abs(both - 125) < 4 * (2000 / 16 * 15 / 16) ** 0.5
    assert torch.equal(labels_of(embedder, embedder.eval()(y[:100])), y[:100])


def test_the_null_class_learns_from_dropped_labels_only():
    embedder = LabelEmbedder(5, 8, 0.1)
    embedder(torch.tensor([3, 3, 1]), torch.tensor([True, False, False])).sum().backward()
    assert embedder.embedding_table.weight.grad.any(1).nonzero().flatten().tolist() == [1, 3, 5]


Y = torch.tensor([0, 1, 4])


@error_cases(
    (partial(timestep_embedding, Y, 7), "dim.*7"),
    (lambda: LabelEmbedder(5, 8, 0.0)(Y, drop=Y > 0), "drop.*null class"),
    (lambda: LabelEmbedder(5, 8, 0.1)(Y, drop=Y[:1] > 0), r"drop.*\(1,\).*\(3,\)"),
)
def test_errors(call, pattern):
    with raises_input_error(pattern):
        call()
