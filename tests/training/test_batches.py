"""Batches: their order, a function of seed and step for any number of processes, and how any data set is read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from dit_nb.batches import Batches, BatchReader, _find_attribute
from dit_nb.data import ImageSet, digits
from support import raises_input_error


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


# Reading


class Plain(Dataset):
    """Images and labels as a user writes them: an int for a label, no other methods."""

    def __init__(self, data: ImageSet):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data.images[i], int(self.data.labels[i])


def image_set(n: int = 6) -> ImageSet:
    images = torch.linspace(-1, 1, n * 16).view(n, 1, 4, 4)
    return ImageSet(images, torch.arange(n) % 3, tuple("abc"))


KINDS = {
    "ImageSet": lambda data: data,
    "TensorDataset": lambda data: TensorDataset(data.images, data.labels),
    "Subset": lambda data: Subset(data, range(len(data))),
    "ConcatDataset": lambda data: ConcatDataset([Subset(data, range(2)), Subset(data, range(2, len(data)))]),
    "plain Dataset": Plain,
    "list": lambda data: [data[i] for i in range(len(data))],
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_all_data_sets_are_read_alike(make):
    data = image_set()
    reader = BatchReader(make(data))
    images, labels = reader([4, 0, 5])
    assert torch.equal(images, data.images[[4, 0, 5]]) and images.dtype == torch.float32
    assert torch.equal(labels, data.labels[[4, 0, 5]]) and labels.dtype == torch.long
    assert len(reader) == 6


def test_the_fast_path_is_used_if_there_is_one():
    class Fast(ImageSet):
        def get_batch(self, indices):
            return "batch of", indices

    data = image_set()
    assert BatchReader(Fast(data.images, data.labels, data.class_names))([1, 2]) == ("batch of", [1, 2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_reads_whole_batches(workers):
    data = image_set()
    loader = DataLoader(
        BatchReader(Plain(data)),
        batch_sampler=Batches(6, 4, 0, first_step=2),
        collate_fn=_same,
        num_workers=workers,
    )
    images, labels = next(iter(loader))
    indices = next(iter(Batches(6, 4, 0, first_step=2)))
    assert torch.equal(images, data.images[indices]) and torch.equal(labels, data.labels[indices])


def _same(batch):
    return batch


@pytest.mark.parametrize("sample", [torch.zeros(1, 4, 4), (torch.zeros(1, 4, 4), 1, "name")])
def test_samples_that_are_not_an_image_and_a_label(sample):
    with raises_input_error(f"data.i. is a {type(sample).__name__}.*image and label"):
        BatchReader([sample] * 3)([0, 1, 2])


@pytest.mark.parametrize(
    "labels, pattern",
    [
        (torch.tensor([1, 10]), r"label 10.*\[0, 9\]"),  # would be the null class
        (torch.tensor([-1, 3]), r"label -1.*\[0, 9\]"),
        (torch.tensor([0.5, 3]), "labels torch.float32"),
        (torch.eye(10).long()[:2], r"labels torch.int64 \(2, 10\)"),
    ],
)
def test_labels_that_are_none(labels, pattern):
    data = TensorDataset(torch.zeros(2, 1, 8, 8), labels)
    assert torch.equal(BatchReader(data)([0, 1])[1], labels)
    with raises_input_error(pattern):
        BatchReader(data, 10)([0, 1])


def test_attributes_are_found_inside_a_subset():
    data = digits().train
    assert _find_attribute(Subset(data, [3, 4]), "class_names") == data.class_names
    assert _find_attribute(ConcatDataset([Subset(data, [1]), data]), "class_names") == data.class_names
    assert _find_attribute(TensorDataset(torch.zeros(2)), "class_names") is None
