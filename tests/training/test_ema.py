"""EMA: closed forms of the average."""

import math

import pytest
import torch
from torch import nn

from dit_nb.ema import EMA
from support import relative


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_average_of_a_jump_from_0_to_1(k):
    """Update i keeps (1+i)/(10+i) of the average, so that after k updates 1 / C(k+9, 9) of the start remains."""
    model = nn.Linear(2, 2).double()
    for p in model.parameters():
        nn.init.zeros_(p)
    average = EMA(model, decay=0.9999)
    for p in model.parameters():
        nn.init.ones_(p)
    for _ in range(k):
        average.update(model)
    for p in average.model.parameters():
        assert p.dtype == torch.float32 and not p.requires_grad
        assert relative(p, torch.full_like(p, 1 - 1 / math.comb(k + 9, 9))) < 1e-6


def test_average_is_a_weighted_sum_of_all_weights():
    model, decay, k = nn.Linear(1, 1, bias=False), 0.5, 20
    nn.init.constant_(model.weight, 100.0)
    average, seen = EMA(model, decay), [100.0]
    for i in range(k):
        nn.init.constant_(model.weight, float(i**2))
        average.update(model)
        seen.append(float(i**2))
    decays = [min(decay, (1 + i) / (10 + i)) for i in range(k)]
    shares = [1.0] + [1 - d for d in decays]
    want = sum(w * share * math.prod(decays[i:]) for i, (w, share) in enumerate(zip(seen, shares)))
    assert average.model.weight.item() == pytest.approx(want, rel=1e-6)


def test_frozen_weights_are_left_alone():
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    average = EMA(model, decay=0.5)
    start = average.model.bias.clone()
    model.bias.data += 1
    model.weight.data += 1
    average.update(model)
    assert torch.equal(average.model.bias, start)
    assert not average.model.training and model.weight.requires_grad
