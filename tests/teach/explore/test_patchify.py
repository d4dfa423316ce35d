"""The explorer of lesson 03, against slices of the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_nb.data import running_emoji, sample_photo
from dit_nb.teach.explore.patchify import _plot_patchify, explore_patchify
from support_explorers import axes, is_wrong, pixels


@pytest.fixture(scope="module")
def shared():
    return explore_patchify()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def highlighted(explorer, image):
    """Which values of the image are not darkened, (H, W, C)."""
    full = ((image[0].permute(1, 2, 0).numpy() + 1) / 2).clip(0, 1)
    shown = pixels(axes(explorer)[0]).reshape(full.shape)
    return np.isclose(shown, full, atol=1e-3) & (full > 0.01)


@pytest.fixture(scope="module")
def photo():
    return sample_photo("china.jpg", (48, 64))


@pytest.mark.parametrize("p, token", [(16, 5), (16, 11), (8, 10), (8, 11), (4, 9)])
def test_token_holds_its_patch(explorer, photo, p, token):
    explorer.set(p=p, token=token)
    row, column = divmod(token, 64 // p)
    inside = np.zeros((48, 64, 3), bool)
    inside[row * p : row * p + p, column * p : column * p + p] = True
    found = highlighted(explorer, photo)
    assert found[inside].mean() > 0.95 and not found[~inside].any()
    lines = pixels(axes(explorer)[1])[6 * token]  # (p*p, 3)
    square = (photo[0, :, row * p : row * p + p, column * p : column * p + p] + 1) / 2
    assert np.allclose(lines, square.flatten(1).T, atol=1e-6)
    corner = axes(explorer)[0].patches[0].get_xy()
    assert corner == (column * p - 0.5, row * p - 0.5)
    assert np.allclose(pixels(axes(explorer)[2]), (photo[0].permute(1, 2, 0) + 1) / 2, atol=1e-6)
    assert not any(is_wrong(ax.title) for ax in axes(explorer))


def test_four_tokens_make_a_row_of_the_grid(explorer):
    x, y = axes(explorer)[0].patches[0].get_xy()
    explorer.controls["token"].value = 9
    assert axes(explorer)[0].patches[0].get_xy() == (x, y + 16)


def test_swapped_rows_and_columns(explorer, photo):
    explorer.set(swapped=True)
    out = pixels(axes(explorer)[2])
    patches = (
        ((photo[0].permute(1, 2, 0) + 1) / 2)
        .numpy()
        .reshape(3, 16, 4, 16, 3)
        .swapaxes(1, 2)
        .reshape(12, 16, 16, 3)
    )
    for k in range(12):  # intact patches, three in a row
        row, column = divmod(k, 3)
        assert np.allclose(out[16 * row :, 16 * column :][:16, :16], patches[k], atol=1e-6)
    assert is_wrong(axes(explorer)[2].title) and not is_wrong(axes(explorer)[0].title)
    explorer.set(name="64 x 64")  # a square image hides it
    square = np.kron((running_emoji()[0][0].permute(1, 2, 0) + 1) / 2, np.ones((2, 2, 1)))
    assert np.allclose(pixels(axes(explorer)[2]), square) and not is_wrong(axes(explorer)[2].title)


def test_reshape_without_permute(explorer, photo):
    explorer.set(wrong=True)
    inside = np.zeros((48, 64, 3), bool)
    inside[12:24, :, 1] = True  # values 3840 to 4607 of the image: twelve rows of the green channel
    found = highlighted(explorer, photo)
    assert found[inside].mean() > 0.95 and not found[~inside].any()
    assert "(12, 768)" in axes(explorer)[1].get_title()
    assert is_wrong(axes(explorer)[0].title) and is_wrong(axes(explorer)[2].title)
    assert np.abs(pixels(axes(explorer)[2]) - (photo[0].permute(1, 2, 0).numpy() + 1) / 2).max() > 0.5


def test_token_out_of_range(explorer):
    with pytest.raises(ValueError, match="token is 20, but must be from 0 to 11"):
        explorer.set(token=20)
    with pytest.raises(ValueError, match="token is 12, but must be below 12"):
        _plot_patchify(sample_photo("china.jpg", (48, 64)), p=16, token=12)
    explorer.set(name="64 x 64", token=11)
    assert explorer.error.value == "" and axes(explorer)[2].get_title() == "reassembled as 4 x 4: the image"


def by_hand(images, p):
    """A right patchify, written differently from the library's."""
    rows = [images[:, :, i : i + p, j : j + p].movedim(1, -1).flatten(1)
            for i in range(0, images.shape[2], p) for j in range(0, images.shape[3], p)]  # fmt: skip
    return torch.stack(rows, dim=1)


def columns_first(images, p):
    rows = [images[:, :, i : i + p, j : j + p].movedim(1, -1).flatten(1)
            for j in range(0, images.shape[3], p) for i in range(0, images.shape[2], p)]  # fmt: skip
    return torch.stack(rows, dim=1)


def channels_first(images, p):
    return F.unfold(images, p, stride=p).mT


def test_own_patchify():
    wrong = {}
    for cut in (by_hand, columns_first, channels_first):
        fig = explore_patchify(patchify=cut).set(token=6).figure
        wrong[cut] = [is_wrong(ax.title) for ax in fig.axes]
    assert wrong[by_hand] == [False, False, False]
    assert wrong[columns_first] == [True, False, True]
    assert wrong[channels_first] == [False, False, True]
    own = explore_patchify(torch.rand(1, 3, 32, 32) * 2 - 1, by_hand)
    assert (
        own.controls["name"].value == "yours"
        and axes(own)[2].get_title() == "reassembled as 4 x 4: the image"
    )


def test_patchify_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"patchify returned \(1, 768, 12\), but must return"):
        explore_patchify(patchify=lambda images, p: by_hand(images, p).mT)
    with pytest.raises(ValueError, match="patchify returned NoneType"):
        explore_patchify(patchify=lambda images, p: None)
