"""Noise, image or velocity: small networks on data of two dimensions that lie in a space of many (lesson 32).

`python -m dit_nb.lab.target_study` writes `results/targets.csv`, a row for each number of dimensions, target and seed,
and `results/targets.npz`, samples of the first seed in the plane of the data. All networks of one number of dimensions
are trained at once, as slices of the same tensors.
"""

import csv
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.targets import TARGETS, loss_weight, to_velocity
from dit_nb.utils import _atomic_write

__all__ = ["RESULTS", "WIDTH", "spiral"]

RESULTS = Path(__file__).parent / "results" / "targets.csv"
WIDTH = 32  # of the hidden layers
_DIMENSIONS, _SEEDS, _STEPS, _BATCH, _SAMPLES = (2, 8, 32, 128), 5, 1500, 128, 300


def spiral(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Sample n points of a spiral in the plane, (n, 2), with mean square about 1 on each axis."""
    turn = torch.rand(n, generator=generator).sqrt() * 3 * math.pi + 0.5 * math.pi
    points = turn[:, None] * torch.stack([turn.cos(), turn.sin()], 1) / 5.3
    return points + 0.03 * torch.randn(n, 2, generator=generator)


def _plane(dimensions: int, seed: int) -> Tensor:
    """Two orthonormal directions, (2, dimensions): where the data lie."""
    random = torch.randn(dimensions, 2, generator=torch.Generator().manual_seed(1000 + seed))
    return torch.linalg.qr(random)[0].T


def _time_features(t: Tensor) -> Tensor:  # (..., B) -> (..., B, 8)
    angles = t[..., None] * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])
    return torch.cat([angles.sin(), angles.cos()], -1)


class _Networks(torch.nn.Module):
    """M networks of two hidden layers side by side: (M, B, P) and times (M, B) to (M, B, P)."""

    def __init__(self, networks: int, dimensions: int):
        super().__init__()
        sizes = [(dimensions + 8, WIDTH), (WIDTH, WIDTH), (WIDTH, dimensions)]
        weights = [torch.randn(1, a, b).repeat(networks, 1, 1) / a**0.5 for a, b in sizes]
        self.weights = torch.nn.ParameterList(weights)
        self.biases = torch.nn.ParameterList([torch.zeros(networks, 1, b) for _, b in sizes])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = torch.cat([x, _time_features(t)], -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            h = torch.baddbmm(bias, h if i == 0 else F.silu(h), weight)
        return h


def _batch(dimensions: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Data, noise and times for each seed, (seeds, n, P) twice and (seeds, n)."""
    planes = [_plane(dimensions, seed) for seed in range(_SEEDS)]
    x0 = torch.stack([spiral(n, generator) @ plane for plane in planes])
    noise = torch.randn(x0.shape, generator=generator)
    return x0, noise, RectifiedFlow().sample_times(_SEEDS * n, generator).view(_SEEDS, n)


def _losses(networks: _Networks, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:  # (targets, seeds)
    """Loss of the velocity of all networks: those of each target in turn, one for each seed."""
    mixed = (1 - t)[..., None] * x0 + t[..., None] * noise
    every = len(TARGETS)
    out = networks(mixed.repeat(every, 1, 1), t.repeat(every, 1)).unflatten(0, (every, -1))
    wanted = torch.stack([noise, x0, noise - x0])
    weight = torch.stack([loss_weight(t, name) for name in TARGETS])
    return ((out - wanted).square().mean(-1) * weight).mean(-1)


def _train(dimensions: int) -> _Networks:
    torch.manual_seed(dimensions)
    networks = _Networks(len(TARGETS) * _SEEDS, dimensions)
    optimizer = torch.optim.Adam(networks.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    generator = torch.Generator().manual_seed(dimensions)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        _losses(networks, *_batch(dimensions, _BATCH, generator)).sum().backward()
        optimizer.step()
        schedule.step()
    return networks


@torch.no_grad()
def _sample(networks: _Networks, dimensions: int) -> Tensor:
    """Sample in 50 steps of Euler from the same noise for all targets, (targets, seeds, n, P)."""
    start = torch.randn(_SEEDS, _SAMPLES, dimensions, generator=torch.Generator().manual_seed(7))
    x = start.repeat(len(TARGETS), 1, 1)
    times = RectifiedFlow().respaced("50").times.tolist()
    for t, t_next in zip(times, times[1:]):
        out = networks(x, torch.full(x.shape[:2], t)).chunk(len(TARGETS))
        time = torch.full((_SEEDS,), t)
        parts = zip(out, x.chunk(len(TARGETS)), TARGETS)
        v = torch.cat([to_velocity(pred, part, time, name) for pred, part, name in parts])
        x = x + (t_next - t) * v
    return x.unflatten(0, (len(TARGETS), -1))


def _energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance of two point sets (n, 2), 0 if they have the same distribution."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def _measure(dimensions: int) -> tuple[list[tuple], np.ndarray]:
    """Train and measure all networks of one number of dimensions: rows, and the first seed's samples (targets, n, 2)."""
    networks = _train(dimensions)
    held_out = torch.Generator().manual_seed(99)
    with torch.no_grad():
        loss = _losses(networks, *_batch(dimensions, 2000, held_out))
    samples, rows, shown = _sample(networks, dimensions), [], []
    for i, name in enumerate(TARGETS):
        for seed in range(_SEEDS):
            plane = _plane(dimensions, seed)
            inside = samples[i, seed] @ plane.T  # (n, 2)
            outside = (samples[i, seed] - inside @ plane).norm(dim=1).mean()
            distance = _energy_distance(inside, spiral(1000, held_out))
            numbers = (float(loss[i, seed]), float(outside), distance)
            rows.append((dimensions, name, seed, *(round(number, 5) for number in numbers)))
            shown += [inside.numpy().astype(np.float16)] if seed == 0 else []
    return rows, np.stack(shown)


def main() -> None:
    """Record all numbers of dimensions."""
    images = {}
    with _atomic_write(RESULTS) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dimensions", "predicts", "seed", "v_loss", "outside", "energy_distance"))
        for dimensions in _DIMENSIONS:
            rows, images[str(dimensions)] = _measure(dimensions)
            writer.writerows(rows)
            file.flush()
    with _atomic_write(RESULTS.with_suffix(".npz")) as draft:
        np.savez_compressed(draft, **images)


if __name__ == "__main__":
    main()
