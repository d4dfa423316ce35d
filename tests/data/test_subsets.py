"""Held-out images, balanced classes and fingerprints, and PyTorch's own loaders over the data sets."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

from dit_nb.batches import Batches, BatchReader
from dit_nb.data import ImageSet
from dit_nb.image_files import open_images
from dit_nb.subsets import _data_fingerprint, _data_labels, balance_classes, hold_out
from support import raises_input_error


@pytest.fixture
def pictures(folder):
    """Nine images of a, two of b, one of c; each of its own gray level."""
    for i in range(12):
        path = folder / "aaaaaaaaabbc"[i] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((10, 14), 20 * i, np.uint8)).save(path)
    return folder


def image_set(seed=0, n=12):
    rng = torch.Generator().manual_seed(seed)
    return ImageSet(torch.rand(n, 1, 4, 4, generator=rng) * 2 - 1, torch.arange(n) % 3, tuple("abc"))


def test_pytorchs_loaders_and_splits(pictures):
    """Without a collate function, as with any data set of PyTorch."""
    data = open_images(pictures, 8)
    images, labels = next(iter(DataLoader(data, batch_size=5)))
    assert images.shape == (5, 3, 8, 8) and labels.tolist() == [0] * 5
    part, rest = random_split(data, [0.75, 0.25], torch.Generator().manual_seed(0))
    assert len(part) == 9 and len(rest) == 3
    both = ConcatDataset([Subset(data, [11, 0]), rest])
    images, labels = next(iter(DataLoader(both, batch_size=5)))
    assert torch.equal(images[:2], BatchReader(data)([11, 0])[0]) and labels[:2].tolist() == [2, 0]
    reader = BatchReader(Subset(Subset(data, range(4, 12)), [7, 0]))
    assert torch.equal(reader([0, 1])[0], BatchReader(data)([11, 4])[0]), "a part of a part"
    assert _data_labels(both)[:2].tolist() == [2, 0] and len(_data_labels(both)) == 5


def test_a_part_of_each_class_is_held_out(pictures):
    data = open_images(pictures, 8)
    train, held_out = hold_out(data, 0.3, seed=1)
    assert sorted([*train.indices, *held_out.indices]) == list(range(12))
    assert torch.bincount(_data_labels(held_out), minlength=3).tolist() == [3, 1, 0], (
        "not the last image of a class"
    )
    assert (
        hold_out(data, 0.3, seed=1)[1].indices == held_out.indices != hold_out(data, 0.3, seed=2)[1].indices
    )
    plain = TensorDataset(torch.zeros(10, 1, 4, 4), torch.zeros(10).long())
    assert len(hold_out(plain, 0.2)[1]) == 2
    for fraction in (0, 1, -0.1):
        with raises_input_error("fraction is"):
            hold_out(data, fraction)
    with raises_input_error(r"^data has 1 images.* 0\.5"):
        hold_out(Subset(data, [11]), 0.5)


@pytest.mark.parametrize("folder_of", [lambda path: path, lambda path: path / "a"], ids=["classes", "none"])
def test_an_index_is_an_integer_of_any_type(pictures, folder_of):
    """As for a tensor: also counted from the end. A loop over the data set ends after its last image."""
    data = open_images(folder_of(pictures), 8)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    images, labels = BatchReader(data)(order.tolist())
    for kind in (order, order.int(), order.numpy()):
        loaders = [DataLoader(data, 99, sampler=kind), DataLoader(Subset(data, kind), 99)]
        samples = [next(iter(loader)) for loader in loaders] + [data.get_batch(kind)]
        samples += [[torch.stack(part) for part in zip(*(data[i] for i in kind))]]
        for got in samples:
            assert torch.equal(got[0], images) and torch.equal(got[1], labels)
    assert len(list(data)) == len(data)
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    with pytest.raises(IndexError, match=f"index is {len(data)}, but data has {len(data)} images"):
        data[len(data)]
    for wrong in (slice(0, 2), "a", [0, 1]):
        with raises_input_error("index is .*, but must be an integer"):
            data[wrong]
    assert _data_fingerprint(Subset(data, order)) == _data_fingerprint(Subset(data, order.tolist()))


def test_balanced_classes_have_as_many_images(pictures):
    balanced = balance_classes(open_images(pictures, 8))
    assert torch.bincount(_data_labels(balanced)).tolist() == [9, 9, 9]
    assert set(balanced.indices) == set(range(12)), "no image is lost"
    assert sorted(balanced.indices.count(i) for i in (9, 10)) == [4, 5]
    train, _ = hold_out(open_images(pictures, 8), 0.3)
    assert torch.bincount(_data_labels(balance_classes(train))).tolist() == [6, 6, 6]
    with raises_input_error("^data has no classes"):
        balance_classes(open_images(pictures / "a", 8))


def test_fingerprints(pictures, tmp_path):
    data = open_images(pictures, 8)
    other = tmp_path / "copied elsewhere"
    pictures.rename(other)
    assert _data_fingerprint(open_images(other, 8)) == data.fingerprint
    path = other / "b" / "09.png"
    same_size = path.read_bytes()
    Image.fromarray(np.full((10, 14), 181, np.uint8)).save(path)
    assert len(path.read_bytes()) == len(same_size), "the name and the size of the file are as before"
    assert _data_fingerprint(open_images(other, 8)) != data.fingerprint
    path.write_bytes(same_size)
    path.rename(other / "c" / "09.png")
    assert _data_fingerprint(open_images(other, 8)) != data.fingerprint, "another class"
    sets = [image_set(), image_set(seed=1), Subset(image_set(), [0, 1]), Subset(image_set(), [0, 2])]
    sets += [ConcatDataset([image_set()] * 2), image_set(n=9)]
    assert len({_data_fingerprint(data) for data in sets}) == len(sets)
    assert _data_fingerprint(image_set()) == _data_fingerprint(image_set())
    assert _data_fingerprint(TensorDataset(torch.zeros(2))) is None


@pytest.mark.parametrize("most", [200_000_000, 100 * 16 * 4])
def test_the_fingerprint_of_images_in_memory_depends_on_each_of_them(most, monkeypatch):
    """All images of a small set; as many as fit into the limit, evenly spread, of a large one."""
    monkeypatch.setattr("dit_nb.subsets._MOST_HASHED", most)
    images = torch.rand(1000, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    data = ImageSet(images, torch.zeros(1000).long(), ("a",))
    before, noticed = _data_fingerprint(data), 0
    for i in range(0, 1000, 37):
        changed = images.clone()
        changed[i] *= -1
        noticed += _data_fingerprint(ImageSet(changed, data.labels, ("a",))) != before
    assert noticed == 28 if most > 10**8 else noticed < 28
    mostly = -images
    mostly[torch.linspace(0, 999, 64).long()] = images[torch.linspace(0, 999, 64).long()]
    assert _data_fingerprint(ImageSet(mostly, data.labels, ("a",))) != before, "all but 64 images are others"


# Crops


def stripes(folder, height=40, width=60):
    """A photograph whose brightness is its column."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    Image.fromarray(np.tile(row, (height, 1))).save(folder / "1.png")
    return folder


def test_images_that_are_not_square(folder):
    image, _ = open_images(stripes(folder), (8, 24), channels=1)[0]
    assert image.shape == (1, 8, 24)
    assert (image[:, :1] - image).abs().max() < 0.02 and image[0, 0, 0] < -0.9 and image[0, 0, -1] > 0.9
    for wrong in ((8, 0), (8, 8, 8), [8, 8], "8"):
        with raises_input_error("size is .*(height, width)"):
            open_images(folder, wrong)


def test_random_crops_are_windows_of_the_photograph(folder):
    data = open_images(stripes(folder), 16, channels=1, crop="random")
    torch.manual_seed(0)
    rows = torch.stack([data[0][0][0, 8] for _ in range(200)])
    shown = (
        (rows[:, -1] - rows[:, 0]) / 2 * 60 / 40
    )  # part of the largest square; 15/16 of it lies between centers
    assert 0.74 < shown.min() < 0.8 < 0.9 < shown.max() < 1.0
    assert rows[:, 0].min() < -0.9 and rows[:, -1].max() > 0.9, "up to both ends"
    center = data.center_cropped()
    assert torch.equal(center[0][0], center[0][0]) and data.crop == "random"
    with raises_input_error("crop is 'middle'"):
        open_images(folder, 16, crop="middle")


def test_random_crops_are_a_function_of_seed_and_step(pictures):
    """The same for a resumed run, for workers, and for any number of processes."""
    data = open_images(pictures, 6, channels=1, crop="random")
    for path in pictures.rglob("*.png"):
        Image.fromarray(
            np.random.default_rng(len(path.name)).integers(0, 255, (20, 30), dtype=np.uint8)
        ).save(path)

    def steps(count, first=0, rank=0, world=1, workers=0):
        batches = Batches(12, 4, 7, first, rank, world)
        loader = DataLoader(BatchReader(data), batch_sampler=batches, collate_fn=_same, num_workers=workers)
        return [images for (images, _), _ in zip(loader, range(count))]

    straight = steps(6)
    assert not torch.equal(straight[0], steps(1, first=3)[0])
    assert torch.equal(steps(1, first=5)[0], straight[5])
    assert torch.equal(steps(6, workers=1)[5], straight[5])
    parts = [steps(6, rank=rank, world=2)[5] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), straight[5])


def _same(batch):
    return batch
