"""Order of the data and noise of each step: functions of seed and step, for any number of processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_nb.step_noise import Batches, sample_step_noise


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_batches_visit_each_image_once_per_epoch(n, batch_size, seed):
    batches, visits = iter(Batches(n, batch_size, seed)), []
    while len(visits) < 4 * n:
        batch = next(batches)
        assert len(batch) == batch_size
        visits += batch
    for epoch in range(4):
        assert sorted(visits[epoch * n : (epoch + 1) * n]) == list(range(n))


@pytest.mark.parametrize("world,batch_size", [(2, 6), (3, 6), (3, 12)])
@pytest.mark.parametrize("first_step", [0, 4])
def test_batches_of_all_ranks_make_the_global_batch(world, batch_size, first_step):
    ranks = [iter(Batches(7, batch_size, 5, first_step, rank, world)) for rank in range(world)]
    global_batches = iter(Batches(7, batch_size, 5))
    for _ in range(first_step):
        next(global_batches)
    for _ in range(5):
        assert sum((next(batches) for batches in ranks), []) == next(global_batches)


def test_epochs_and_seeds_have_different_orders():
    orders = [Batches(50, 10, seed).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


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
