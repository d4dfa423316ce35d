"""The explorer of lesson 19, against an average written again."""

import numpy as np
import pytest
from torch import nn

from dit_nb.teach.explore.training import _CURVATURE, _START, _UPDATES, explore_training
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def shared():
    return explore_training()


@pytest.fixture
def training(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def curves(ax) -> list[tuple]:
    """The lines of an axes: their numbers and their color."""
    return [(np.array(line.get_data(), dtype=float), line.get_color()) for line in ax.lines]


def drawn(explorer):
    """The weights and their average, as drawn, and their losses."""
    contours, loss = explorer.figure.axes
    paths = [data.T for data, _ in curves(contours) if len(data[0]) == len(loss.lines[0].get_ydata())]
    return *paths, *(line.get_ydata() for line in loss.lines)


def average_by_hand(path, decay, warmup):
    """An EMA in four lines, in float64."""
    average = [path[0]]
    for k, weights in enumerate(path[1:]):
        d = min(decay, (1 + k) / (10 + k)) if warmup else decay
        average.append(d * average[-1] + (1 - d) * weights)
    return np.array(average)


def share_in_title(explorer) -> float:
    """The share of the initial weights, from the title."""
    return float(explorer.figure.axes[0].get_title().split("%")[0]) / 100


def mean_late(losses) -> float:
    return losses[-200:].mean()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("decay", "warmup"), [(0.0, True), (0.9, False), (0.99, True), (0.9999, False)])
def test_average_is_drawn(training, schedule, decay, warmup):
    training.set(schedule=schedule, decay=decay, warmup=warmup)
    path, average, path_loss, average_loss = drawn(training)
    assert len(path) == _UPDATES + 1
    expected = average_by_hand(path, decay, warmup)
    assert np.abs(average - expected).max() < 1e-4
    for weights, losses in ((path, path_loss), (expected, average_loss)):
        by_hand = 0.5 * _CURVATURE[0] * weights[:, 0] ** 2 + 0.5 * _CURVATURE[1] * weights[:, 1] ** 2
        assert np.abs(by_hand - losses).max() < 1e-3


def test_path_is_gradient_descent_with_noise(training):
    """Backwards from the drawn path: the noise has mean 0 and standard deviation 2, and the rate is 0.3 or falls."""
    for schedule in ("constant", "cosine"):
        path = drawn(training.set(schedule=schedule))[0]
        k = np.arange(_UPDATES) / _UPDATES
        rate = 0.3 if schedule == "constant" else 0.3 * (0.02 + 0.49 * (1 + np.cos(np.pi * k)))[:, None]
        noise = (path[:-1] - path[1:]) / rate - _CURVATURE * path[:-1]
        assert np.allclose(path[0], _START)
        assert np.abs(noise.mean(0)).max() < 0.2 and np.abs(noise.std(0) - 2).max() < 0.15


def test_variance_of_the_path(training):
    """At a constant rate, the weights have the variance of an autoregressive process."""
    path = drawn(training)[0][100:]
    theory = (0.3 * 2) ** 2 / (1 - (1 - 0.3 * _CURVATURE) ** 2)
    assert np.abs(path.var(0) / theory - 1).max() < 0.25


def test_fewer_updates_cut_the_paths(training):
    everything = drawn(training)
    training.controls["updates"].value = 30
    for part, full in zip(drawn(training), everything):
        assert np.array_equal(part, full[:31])


def test_default_shows_the_gain(training):
    _, _, raw, averaged = drawn(training)
    assert mean_late(averaged) < 0.1 * mean_late(raw)
    assert abs(mean_late(raw) - 0.88) < 0.01 and abs(mean_late(averaged) - 0.06) < 0.005, "as in lesson 19"


def test_experiment_1_no_warmup(training):
    """After 1000 updates nine tenths of the average are still the initial weights."""
    training.set(decay=0.9999, warmup=False)
    assert abs(share_in_title(training) - 0.9999**1000) < 0.006
    path, average, raw, averaged = drawn(training)
    assert np.linalg.norm(average[-1] - _START) < 0.15 * np.linalg.norm(_START)
    assert mean_late(averaged) > 5 * mean_late(raw)
    assert share_in_title(training.set(warmup=True)) == 0


def test_experiment_2_cosine(training):
    """The weights converge by themselves, and the average gains less."""
    _, _, raw, averaged = drawn(training)
    gain = mean_late(raw) / mean_late(averaged)
    _, _, raw_cosine, averaged_cosine = drawn(training.set(schedule="cosine"))
    assert raw_cosine[-50:].mean() < 0.1 * raw[-50:].mean()
    assert mean_late(raw_cosine) / mean_late(averaged_cosine) < 0.3 * gain


def test_experiment_3_mistake(training):
    """The average is the weights themselves: nothing is averaged, and the figure shows it."""
    right = drawn(training)[1]
    training.controls["swapped"].value = True
    path, wrong, raw, averaged = drawn(training)
    assert np.abs(wrong - average_by_hand(path, 1 - 0.99, True)).max() < 1e-4
    assert np.abs(wrong - path).max() < 0.05 < np.abs(right - path).max()
    assert mean_late(averaged) > 0.9 * mean_late(raw)
    assert COLORS["wrong"] in [color for _, color in curves(training.figure.axes[1])]
    assert "swapped" in training.figure.axes[1].get_legend().get_texts()[1].get_text()


def test_own_ema():
    """Here one that keeps the initial weights forever."""

    class Frozen:
        def __init__(self, model: nn.Module, decay: float):
            self.model, self.updates = nn.Linear(3, 1, bias=False), 0
            self.model.weight.data = model.weight.data.clone()

        def update(self, model):
            pass

    explorer = explore_training(Frozen)
    assert np.allclose(drawn(explorer)[1], _START) and share_in_title(explorer) == 1
