"""The explorer of lesson 14, against schedules written again in numpy."""

import numpy as np
import pytest
import torch

from dit_nb.teach.explore.schedule import explore_noise
from dit_nb.visual import COLORS

noise = explore_noise()


def dot(axes):
    """Signal and noise weight that are marked on the circle."""
    return np.array([float(v[0]) for v in axes[1].lines[-1].get_data()])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("t", [0, 150, 258, 999])
def test_weights(t, schedule, abar, at):
    bar = abar(schedule)[t]
    axes = at(noise, t=t, schedule=schedule)
    assert np.allclose(dot(axes), [bar**0.5, (1 - bar) ** 0.5], atol=1e-6)
    assert np.allclose(axes[2].lines[0].get_ydata(), abar(schedule) ** 0.5, atol=1e-6)
    assert np.allclose(axes[2].lines[2].get_ydata(), (1 - abar(schedule)) ** 0.5, atol=1e-6)


def test_slider(abar):
    noise.reset().controls["t"].value = 700
    bar = abar()[700]
    assert np.allclose(dot(noise.figure.axes), [bar**0.5, (1 - bar) ** 0.5], atol=1e-6)
    assert noise.figure.axes[0].get_title() == "t = 700"


def test_images_are_q_sample(abar, at):
    def small(t):  # one value for each pixel of the digit, before it is mapped to 0..1
        return (np.asarray(at(noise, t=t)[0].images[0].get_array())[106:196:12, 6::12, 0] - 0.5) * 3

    clean, noisy, (a, b) = small(0), small(258), (abar()[258] ** 0.5, (1 - abar()[258]) ** 0.5)
    pure = small(999)
    inside = (abs(noisy) < 1.45) & (abs(pure) < 1.45)
    assert inside.sum() > 20
    assert (
        np.abs(noisy - a * clean - b * pure)[inside].max() < 0.05
    )  # t = 0 and 999 are nearly clean and nearly pure


def test_weights_without_roots(at):
    axes = at(noise, no_roots=True)
    assert np.allclose(dot(axes), [0.5, 0.5], atol=1e-3) and "must be 1" in axes[1].get_title()
    assert axes[1].lines[1].get_color() == COLORS["wrong"]
    xs, ys = axes[1].lines[1].get_data()
    assert np.allclose(np.add(xs, ys), 1) and np.hypot(*dot(at(noise))) == pytest.approx(1, abs=1e-6)


def test_old_betas_end_with_signal(abar, at):
    kept, end = [round(i * 999 / 49) for i in range(50)], {}
    for old in (False, True):
        axes = at(noise, steps=50, old_betas=old)
        assert np.allclose(axes[2].lines[0].get_xdata(), kept, atol=1)
        end[old] = axes[2].lines[0].get_ydata()[-1]
    betas = np.linspace(1e-4, 0.02, 1000)[[int(k) for k in axes[2].lines[0].get_xdata()]]
    assert end[True] == pytest.approx(np.prod(1 - betas) ** 0.5, abs=1e-6) and end[True] > 0.75
    assert end[False] == pytest.approx(abar()[-1] ** 0.5, abs=1e-6)
    assert "ends with" in axes[2].get_title() and "are right" in at(noise, old_betas=True)[2].get_title()


def test_experiments(at):
    assert dot(at(noise, t=258))[0] == pytest.approx(dot(at(noise, t=258))[1], abs=2e-3)
    low = dot(at(noise, t=258, schedule="cosine"))
    assert low[1] < 0.5 < low[0] and abs(np.diff(dot(at(noise, t=495, schedule="cosine")))) < 2e-3
    images = [np.asarray(at(noise, t=t)[0].images[0].get_array()) for t in (0, 400)]
    halves = [
        np.corrcoef(*(blur(p[part]).ravel() for p in images))[0, 1]
        for part in (slice(0, 96), slice(100, 196))
    ]
    assert halves[0] > halves[1] + 0.2  # blurred, the flower is still visible and the digit is not


def blur(image, k=12):
    """Means over squares of 12 pixels."""
    h, w, c = image.shape
    return image.reshape(h // k, k, w // k, k, c).mean((1, 3, 4))


def test_own_schedule(at):
    mine = explore_noise(schedules={"mine": lambda n: torch.full((n,), 0.01).double()})
    assert dot(at(mine, t=99))[0] == pytest.approx(0.99**50, abs=1e-6)
