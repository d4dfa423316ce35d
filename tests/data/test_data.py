"""Data sets in memory: digits, photographs, cropping, and conversion to bytes and back."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from dit_nb.data import (
    ImageSet,
    _center_crop,
    _to_tensor,
    _to_uint8,
    digits,
    image_grid,
    running_example,
    sample_photo,
    save_image,
)
from support import error_cases, raises_input_error

X, Y = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 4])


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_to_tensor_and_back():
    array = noise(5, 7, 3)
    x = _to_tensor(Image.fromarray(array))
    assert x.shape == (3, 5, 7)
    assert np.array_equal(((x + 1) * 127.5).round().permute(1, 2, 0).numpy(), array)


def test_to_uint8_rounds_to_the_nearest_and_clips():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = levels / 127.5 - 1
    jitter = 0.003 * torch.sin(torch.arange(256.0)).view_as(x)  # below half a step of 1 / 127.5
    assert torch.equal(_to_uint8(x + jitter), levels)
    assert _to_uint8(torch.tensor([[[[-9.0, 9.0]]]])).tolist() == [[[[0, 255]]]]


def image_set(images=X, labels=Y, names=tuple("abcde")):
    return ImageSet(images, labels, names)


def with_value(value):
    images = X.clone()
    images[1, 0, 2, 2] = value
    return images


@error_cases(
    (lambda: image_set(with_value(float("nan"))), "images.*NaN.*image 1"),
    (lambda: image_set(with_value(float("inf"))), "images.*infinity.*image 1"),
    (lambda: image_set(X.byte()), r"images is torch.uint8 \(3, 3, 4, 4\)"),
    (lambda: image_set(X.numpy()), "images is ndarray.*tensor"),
    (lambda: image_set(X[0]), r"images is torch.float32 \(3, 4, 4\)"),
    (lambda: image_set(with_value(200.0)), r"images.*from 0 to 200.*127.5 - 1"),
    (lambda: image_set(with_value(0.9)), r"images.*from 0 to 0.9.*2 \* x - 1"),
    (lambda: image_set(labels=Y + 1), r"labels.*5.*\[0, 4\]"),
    (lambda: image_set(labels=Y - 1), r"labels.*-1.*\[0, 4\]"),
    (lambda: image_set(labels=Y[:2]), r"labels.*\(2,\).*\(3,\)"),
    (lambda: image_set(labels=Y.float()), "labels.*float32"),
)
def test_image_sets_that_would_spoil_training(call, pattern):
    with raises_input_error(pattern):
        call()


def test_a_batch_is_one_indexing_operation():
    data = image_set(torch.linspace(-1, 1, 48).view(3, 1, 4, 4))
    images, labels = data.get_batch([2, 0])
    assert torch.equal(images, data.images[[2, 0]]) and labels.tolist() == [4, 0] and len(data) == 3
    assert torch.equal(data[1][0], data.images[1]) and data[1][1] == 1


def test_pytorchs_own_loader_reads_an_image_set():
    train = digits().train
    images, labels = next(iter(DataLoader(train, batch_size=16)))
    assert torch.equal(images, train.images[:16]) and torch.equal(labels, train.labels[:16])
    part = Subset(train, range(5, 9))
    images, labels = next(iter(DataLoader(part, batch_size=4, shuffle=False)))
    assert torch.equal(images, train.images[5:9]) and torch.equal(labels, train.labels[5:9])


def test_digits_are_split_once_and_for_all():
    split = digits()
    assert (len(split.train), len(split.held_out)) == (1437, 360)
    assert split.train.images.shape[1:] == (1, 8, 8) and split.train.class_names == tuple("0123456789")
    image, label = running_example()
    first = (split.train.labels == 3).nonzero()[0, 0]
    assert torch.equal(image[0], split.train.images[first]) and label.tolist() == [3]


@pytest.mark.parametrize("size,shape", [((20, 30), (20, 30)), (16, (16, 16))])
def test_sample_photo(size, shape):
    photo = sample_photo("flower.jpg", size)
    assert photo.shape == (1, 3, *shape) and -1 <= photo.min() < photo.max() <= 1


def test_center_crop_keeps_the_middle():
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    middle = np.asarray(_center_crop(ramp, 100))
    assert middle.shape == (100, 100) and middle[0].tolist() == list(range(50, 150))


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (7, 100)])
def test_a_crop_that_is_not_square(size):
    """The middle of a photograph whose brightness is its column, at the largest scale that fits."""
    photo = Image.fromarray(np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1)))
    crop = np.asarray(_center_crop(photo, size), dtype=float)
    assert crop.shape == size
    shown = size[1] / max(size[0] / 200, size[1] / 300) / 300  # part of the width that stays
    row = crop[size[0] // 2]
    assert abs(row.mean() - 127) < 3 and abs((row[-1] - row[0]) / 255 - shown) < 0.05


def test_a_grid_of_bytes_is_refused():
    with raises_input_error(r"images has values from 0 to 255 .*must be in \[-1, 1\]"):
        image_grid(torch.from_numpy(noise(3, 1, 40, 40)).float().clamp(0, 255), 2)
    image_grid(torch.linspace(-300, 300, 48).view(1, 3, 4, 4), 1)  # a sample that has diverged


def test_image_grid_and_file(tmp_path):
    images = torch.from_numpy(noise(3, 3, 4, 5)) / 127.5 - 1
    grid = image_grid(images, columns=2, zoom=2)
    assert grid.shape == (2 * (4 * 2 + 2), 2 * (5 * 2 + 2), 3)
    assert np.array_equal(grid[1:9:2, 1:11:2], _to_uint8(images)[0].permute(1, 2, 0).numpy())
    assert not grid[10:, 12:].any(), "the last place is empty"
    save_image(grid, tmp_path / "grid.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), grid)
