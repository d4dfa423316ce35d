"""The study of prediction targets: the spiral and its plane, the limit of narrow networks, and the recorded results."""

import csv

import pytest
import torch

from dit_nb.lab.target_study import RESULTS, WIDTH, _plane, spiral
from dit_nb.since.targets import TARGETS


def test_no_narrow_network_can_carry_the_noise():
    """Any output of a last linear layer of width d leaves at least P - d of the noise's P."""
    noise = torch.randn(20_000, 24, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(torch.randn(24, 8, generator=torch.Generator().manual_seed(1)))[0]
    rest = noise - noise @ basis @ basis.T  # the best that a plane of 8 dimensions can do
    assert float(rest.square().sum(1).mean()) == pytest.approx(16, rel=0.02)  # standard error 0.2 %


def test_the_plane_and_the_spiral():
    plane = _plane(32, 1)
    torch.testing.assert_close(plane @ plane.T, torch.eye(2), atol=1e-5, rtol=0)
    points = spiral(5000, torch.Generator().manual_seed(0))
    assert 0.7 < float(points.square().mean()) < 1.3


def test_the_recorded_study():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 5
    for dimensions in (2, 8, 32, 128):
        floor = max(0, dimensions - WIDTH) / dimensions
        for name in TARGETS:
            losses = [
                float(r["v_loss"])
                for r in rows
                if r["predicts"] == name and int(r["dimensions"]) == dimensions
            ]
            assert len(losses) == 5 and (name == "image" or min(losses) > floor)
