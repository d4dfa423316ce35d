"""Noise of each step: a function of seed and step, for any number of processes."""

import pytest
import torch

from dit_nb.batches import Batches
from dit_nb.step_noise import NoiseSource, sample_step_noise


def test_noise_depends_on_seed_and_step_only():
    def same(a, b):
        return [torch.equal(getattr(a, f), getattr(b, f)) for f in ("t", "noise", "drop", "flip")]

    shape = (64, 1, 4, 4)
    first = sample_step_noise(3, 7, shape, 1000, 0.5)
    torch.manual_seed(99)
    torch.randn(5)
    assert same(first, sample_step_noise(3, 7, shape, 1000, 0.5)) == [True] * 4
    for seed, step in ((3, 8), (4, 7)):
        assert same(first, sample_step_noise(seed, step, shape, 1000, 0.5)) == [False] * 4


def test_noise_has_the_right_distribution():
    many = sample_step_noise(0, 0, (20000, 1, 1, 1), 10, 0.1)
    assert sorted(many.t.unique().tolist()) == list(range(10))
    assert many.drop.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert many.flip.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert abs(many.noise.mean()) < 0.03 and abs(many.noise.std() - 1) < 0.03


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_noise_of_all_ranks_and_micro_batches_is_that_of_the_batch(world, micro_batches):
    batch = sample_step_noise(3, 5, (8, 1, 4, 4), 1000, 0.5, posterior=True)
    parts = []
    for rank in range(world):
        local = batch.select(Batches(20, 8, 3, 5, rank, world).rank_slice)
        size = len(local.t) // micro_batches
        parts += [local.select(slice(i * size, (i + 1) * size)) for i in range(micro_batches)]
    for field in batch._fields:
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(batch, field))


def test_latents_do_not_change_the_other_noise():
    pixels, latents = (
        sample_step_noise(0, 4, (6, 1, 4, 4), 1000, 0.5, posterior) for posterior in (False, True)
    )
    assert pixels.posterior is None
    assert all(torch.equal(getattr(pixels, f), getattr(latents, f)) for f in pixels._fields[:-1])
    assert not torch.equal(latents.posterior, latents.noise)


def same(a, b):
    return all(x is y is None or torch.equal(x, y) for x, y in zip(a, b))


def test_a_source_gives_the_noise_of_a_step():
    for latents in (False, True):
        source = NoiseSource(3, 1000, 0.5, latents)
        wanted = sample_step_noise(3, 7, (6, 1, 4, 5), 1000, 0.5, latents)
        assert same(source(7, (6, 1, 4, 5)), wanted)
        assert not torch.equal(source(8, (6, 1, 4, 5)).noise, wanted.noise)
        assert not torch.equal(NoiseSource(4, 1000, 0.5, latents)(7, (6, 1, 4, 5)).noise, wanted.noise)
