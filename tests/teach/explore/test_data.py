"""The explorers of lesson 01, against PIL and against variances."""

import math

import numpy as np
import pytest
from PIL import Image

from dit_nb.data import _center_crop, digits, running_example
from dit_nb.objective import Diffusion
from dit_nb.teach.explore.data import _bundled_photos, explore_crop, explore_range
from support_explorers import axes, is_wrong, pixels


@pytest.fixture(scope="module")
def shared():
    return explore_crop()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


@pytest.fixture(scope="module")
def flower():
    return _bundled_photos()["flower"]


def training_image(explorer):
    return np.rint(pixels(axes(explorer)[1]) * 255)


def test_default_frame_equals_center_crop(explorer, flower):
    for size in (16, 64, 256):
        explorer.set(size=size)
        assert np.array_equal(training_image(explorer), np.asarray(_center_crop(flower, size)))
        assert axes(explorer)[2].get_title() == f"its {3 * size * size} values"


def test_moved_frame_crops_only_the_longer_side(explorer, flower):
    for place, left in ((-1.0, 0), (1.0, 640 - 427)):
        explorer.controls["place"].value = place
        frame = axes(explorer)[0].patches[0]
        assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((left, 0), 427, 427)
        gaps = []  # differences: from the photo there, and 15 pixels nearer to the middle
        for start in (left, abs(left - 15)):
            part = flower.crop((start, 0, start + 427, 427)).resize((64, 64), Image.Resampling.BOX)
            gaps.append(np.abs(training_image(explorer) - np.asarray(part)).mean())
        assert gaps[0] < 8 and gaps[0] < gaps[1] / 2  # of 255; another filter is used here
        photo = pixels(axes(explorer)[0])
        assert np.array_equal(photo[:, left : left + 427], np.asarray(flower)[:, left : left + 427])
        outside = photo[:, 427:] if place < 0 else photo[:, :213]
        assert outside.min() >= 160


def test_without_averaging_edges_are_jagged(explorer, flower):
    def roughness():
        return np.abs(np.diff(training_image(explorer), axis=1)).mean()

    smooth = roughness()
    explorer.set(average=False)
    assert roughness() > 1.2 * smooth
    pixels = np.asarray(flower)[:, 106:533].reshape(-1, 3)
    assert {*map(tuple, training_image(explorer).astype(int).reshape(-1, 3))} <= {*map(tuple, pixels)}


def test_squashing_turns_the_circle_into_an_ellipse(explorer, flower):
    circles = [ax.patches[-1] for ax in axes(explorer)[:2]]
    assert all(math.isclose(c.width, c.height) for c in circles)
    explorer.set(wrong=True)
    circles = [ax.patches[-1] for ax in axes(explorer)[:2]]
    assert math.isclose(circles[0].width, circles[0].height)
    assert math.isclose(circles[1].height / circles[1].width, 640 / 427)
    assert np.array_equal(
        training_image(explorer), np.asarray(flower.resize((64, 64), Image.Resampling.BICUBIC))
    )
    assert is_wrong(axes(explorer)[1].title) and "1.50 : 1" in axes(explorer)[1].get_title()


def test_histogram_counts_all_values(explorer):
    for name in ("flower", "china"):
        explorer.set(name=name)
        bars = axes(explorer)[2].patches[0].get_data()
        values = training_image(explorer).ravel() / 127.5 - 1
        assert math.isclose(bars.values.sum(), 100)
        assert math.isclose(bars.values[bars.edges[:-1] >= 0].sum(), 100 * (values >= 0).mean(), abs_tol=1e-6)
        assert bars.values.max() < 30  # the axis ends there


def test_own_photo():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 300), dtype=np.uint8))
    explorer = explore_crop(photo)
    for place in (-1.0, -0.3, 0.0, 1.0):
        explorer.set(place=place)
        assert training_image(explorer).shape == (64, 64, 3)
        x, y = axes(explorer)[0].patches[0].get_xy()
        assert x == 0 and abs(y - (1 + place) / 2 * (640 - 213)) <= 1


@pytest.fixture(scope="module")
def ranges():
    return explore_range()


def percent(explorer):
    """What the title says: how much of the variance is image."""
    return float(axes(explorer)[2].get_title().split(" %")[0])


@pytest.mark.parametrize(
    "t, scale, factor", [(200, "-1 to 1", 1), (0, "0 to 1", 0.5), (600, "0 to 0.1", 0.05)]
)
def test_share_of_the_variance(ranges, t, scale, factor):
    ranges.reset().set(t=t, scale=scale)
    bar = float(Diffusion().alphas_cumprod[t])
    of_image = bar * (factor * digits().train.images.numpy()).var()
    assert math.isclose(percent(ranges), 100 * of_image / (of_image + 1 - bar), abs_tol=0.051)
    clean = (running_example()[0][0, 0].numpy() + 1) / 2
    assert np.allclose(pixels(axes(ranges)[0]), clean, atol=1e-5)


def test_what_the_experiments_say(ranges):
    assert 49 < percent(ranges.reset()) < 55
    assert percent(ranges.set(t=600)) < 2
    assert percent(ranges.set(t=100, scale="0 to 0.1")) < 2
    assert not is_wrong(axes(ranges)[2].title)
    assert 24 < percent(ranges.set(t=999, wrong=True)) < 30
    assert is_wrong(axes(ranges)[2].title)
