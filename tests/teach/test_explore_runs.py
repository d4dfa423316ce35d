"""The explorers of lessons 19 and 21: what they draw is right, their mistakes are wrong, their experiments are true."""

import re

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from dit_nb.evaluation import frechet_distance, precision_recall
from dit_nb.teach.explore.core import settings
from dit_nb.teach.explore.evaluation import COUNTS, KINDS, draw_cloud, explore_frechet, std_distance
from dit_nb.teach.explore.training import BOWL, START, UPDATES, explore_training
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def training():
    return explore_training()


@pytest.fixture(scope="module")
def frechet():
    return explore_frechet()


@pytest.fixture(autouse=True)
def from_the_start(request):
    """Every test turns the knobs from their defaults."""
    for name in ("training", "frechet"):
        if name in request.fixturenames:
            request.getfixturevalue(name).reset()


def turn_everything(explorer):
    """Every value of every control: each gives a picture, and no complaint."""
    for name, control in explorer.controls.items():
        for value in settings(control):
            explorer.set(**{name: value})
            assert explorer.problem.value == "", (name, value)
            assert explorer.figure.words
        explorer.reset()


def curves(ax) -> list[tuple]:
    """The lines of an axes: their numbers and their colour."""
    return [(np.array(line.get_data(), dtype=float), line.get_color()) for line in ax.lines]


# Lesson 19: weights and their average ---------------------------------------------------------------------------


def drawn(explorer):
    """The weights and their average, as they lie in the bowl, and the two losses."""
    bowl, loss = explorer.figure.axes
    paths = [data.T for data, _ in curves(bowl) if len(data[0]) == len(loss.lines[0].get_ydata())]
    return *paths, *(line.get_ydata() for line in loss.lines)


def average_by_hand(walk, decay, warmup):
    """An EMA in four lines, in float64."""
    average = [walk[0]]
    for k, weights in enumerate(walk[1:]):
        d = min(decay, (1 + k) / (10 + k)) if warmup else decay
        average.append(d * average[-1] + (1 - d) * weights)
    return np.array(average)


def share_in_title(explorer) -> float:
    """The share of the start that the picture tells."""
    return float(explorer.figure.axes[0].get_title().split("%")[0]) / 100


def mean_late(losses) -> float:
    return losses[-200:].mean()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("decay", "warmup"), [(0.0, True), (0.9, False), (0.99, True), (0.9999, False)])
def test_average_is_drawn(training, schedule, decay, warmup):
    training.set(schedule=schedule, decay=decay, warmup=warmup)
    walk, average, walk_loss, average_loss = drawn(training)
    assert len(walk) == UPDATES + 1
    expected = average_by_hand(walk, decay, warmup)
    assert np.abs(average - expected).max() < 1e-4
    for path, losses in ((walk, walk_loss), (expected, average_loss)):
        by_hand = 0.5 * BOWL[0] * path[:, 0] ** 2 + 0.5 * BOWL[1] * path[:, 1] ** 2
        assert np.abs(by_hand - losses).max() < 1e-3


def test_walk_is_gradient_descent_with_noise(training):
    """Backwards from the drawn path: the noise has mean 0 and standard deviation 2, and the rate is 0.3 or falls."""
    for schedule in ("constant", "cosine"):
        walk = drawn(training.set(schedule=schedule))[0]
        k = np.arange(UPDATES) / UPDATES
        rate = 0.3 if schedule == "constant" else 0.3 * (0.02 + 0.49 * (1 + np.cos(np.pi * k)))[:, None]
        noise = (walk[:-1] - walk[1:]) / rate - BOWL * walk[:-1]
        assert np.allclose(walk[0], START)
        assert np.abs(noise.mean(0)).max() < 0.2 and np.abs(noise.std(0) - 2).max() < 0.15


def test_walk_buzzes_as_theory_says(training):
    """At a constant rate, the weights keep the variance of an autoregressive process."""
    walk = drawn(training)[0][100:]
    theory = (0.3 * 2) ** 2 / (1 - (1 - 0.3 * BOWL) ** 2)
    assert np.abs(walk.var(0) / theory - 1).max() < 0.25


def test_updates_cut_the_paths(training):
    whole = drawn(training)
    training.controls["upto"].value = 30
    for part, all_of_it in zip(drawn(training), whole):
        assert np.array_equal(part, all_of_it[:31])


def test_training_default_makes_the_point(training):
    _, _, raw, averaged = drawn(training)
    assert mean_late(averaged) < 0.1 * mean_late(raw)
    assert abs(mean_late(raw) - 0.88) < 0.01 and abs(mean_late(averaged) - 0.06) < 0.005, "as lesson 19 says"


def test_training_try_1_no_warmup(training):
    """After 1000 updates nine tenths of the average are still its random start."""
    training.set(decay=0.9999, warmup=False)
    assert abs(share_in_title(training) - 0.9999**1000) < 0.006
    walk, average, raw, averaged = drawn(training)
    assert np.linalg.norm(average[-1] - START) < 0.15 * np.linalg.norm(START)
    assert mean_late(averaged) > 5 * mean_late(raw)
    assert share_in_title(training.set(warmup=True)) == 0


def test_training_try_2_cosine(training):
    """The weights come to rest by themselves, and the average has less left to do."""
    _, _, raw, averaged = drawn(training)
    gain = mean_late(raw) / mean_late(averaged)
    _, _, raw_cosine, averaged_cosine = drawn(training.set(schedule="cosine"))
    assert raw_cosine[-50:].mean() < 0.1 * raw[-50:].mean()
    assert mean_late(raw_cosine) / mean_late(averaged_cosine) < 0.3 * gain


def test_training_try_3_mistake(training):
    """The average is the weights themselves: nothing is averaged, and the picture says so."""
    right = drawn(training)[1]
    training.controls["swapped"].value = True
    walk, wrong, raw, averaged = drawn(training)
    assert np.abs(wrong - average_by_hand(walk, 1 - 0.99, True)).max() < 1e-4
    assert np.abs(wrong - walk).max() < 0.05 < np.abs(right - walk).max()
    assert mean_late(averaged) > 0.9 * mean_late(raw)
    assert COLORS["wrong"] in [color for _, color in curves(training.figure.axes[1])]
    assert "swapped" in training.figure.axes[1].get_legend().get_texts()[1].get_text()


def test_a_students_average_drives_the_picture():
    """A class of one's own is what is drawn: here one that keeps the first weights for ever."""

    class Frozen:
        def __init__(self, model: nn.Module, decay: float):
            self.model, self.updates = nn.Linear(3, 1, bias=False), 0
            self.model.weight.data = model.weight.data.clone()

        def update(self, model):
            pass

    explorer = explore_training(Frozen)
    assert np.allclose(drawn(explorer)[1], START) and share_in_title(explorer) == 1


def test_training_takes_every_setting(training):
    turn_everything(training)


# Lesson 21: two clouds and three numbers --------------------------------------------------------------------------


def told(explorer) -> tuple[float, float, float]:
    """The distance, precision and recall that the titles tell."""
    clouds, curve = explorer.figure.axes
    precision, recall = map(float, re.findall(r"\d\.\d+", clouds.get_title()))
    return float(curve.get_title().split(": ")[1]), precision, recall


def clouds_drawn(explorer):
    """The points that were drawn: real and covered, real and missed, samples covered, samples outside."""
    return [data.T for data, _ in curves(explorer.figure.axes[0])[:4]]


def ellipses_drawn(explorer):
    return [data for data, _ in curves(explorer.figure.axes[0])[4:]]


def oracle(a, b):
    """The Fréchet distance by SciPy's general matrix root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(cov_a @ cov_b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def covered(points, crowd, k=3):
    """Balls around a crowd, by loops."""
    radii = [sorted(np.linalg.norm(crowd - c, axis=1))[k] for c in crowd]
    return np.array([any(np.linalg.norm(p - c) <= r for c, r in zip(crowd, radii)) for p in points])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [10, 30, 100])
def test_numbers_and_marks(frechet, kind, n):
    frechet.set(kind=kind, n=n, spread=1.2, shift=0.5)
    real_ok, real_missed, fake_ok, fake_outside = clouds_drawn(frechet)
    real, fake = np.concatenate([real_ok, real_missed]), np.concatenate([fake_ok, fake_outside])
    assert len(real) == len(fake) == n
    assert covered(real_ok, fake).all() and not covered(real_missed, fake).any()
    assert covered(fake_ok, real).all() and not covered(fake_outside, real).any()
    distance, precision, recall = told(frechet)
    assert abs(precision - len(fake_ok) / n) < 0.006 and abs(recall - len(real_ok) / n) < 0.006
    assert abs(distance - oracle(real, fake)) < 0.06 * distance + 1e-3


def test_ellipses_are_two_standard_deviations(frechet):
    real_ok, real_missed, fake_ok, fake_outside = clouds_drawn(frechet)
    pairs = (np.concatenate([real_ok, real_missed]), np.concatenate([fake_ok, fake_outside]))
    for points, line in zip(pairs, ellipses_drawn(frechet)):
        away = line.T - points.mean(0)
        mahalanobis = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(points, rowvar=False)), away)
        assert np.allclose(mahalanobis, 4)


def test_shift_moves_and_spread_spreads(frechet):
    frechet.set(kind="honest", n=300)
    before = ellipses_drawn(frechet)
    moved = ellipses_drawn(frechet.set(shift=2.0))
    assert np.allclose(moved[1] - before[1], [[2], [0]]) and np.array_equal(moved[0], before[0])
    wide, narrow = (draw_cloud(300, 1, spread=s) for s in (2.0, 0.5))
    modes = np.random.default_rng(1).integers(6, size=1000)[:300] % 3
    for k in range(3):
        assert np.allclose(wide[modes == k].std(0), 4 * narrow[modes == k].std(0))


def test_curves(frechet):
    """The dashed line is the average over honest draws, which goes as 1/n; a missing mode has an end of its own."""
    floor, these, dot = (line.get_ydata() for line in frechet.figure.axes[1].lines)
    assert 5 < min(floor * COUNTS) and max(floor * COUNTS) < 25, "n times the distance hardly changes"
    assert (np.diff(floor) < 0).all()
    modes = np.array([[-2.4, -1.5], [0.0, 0.9], [2.4, 1.6]])

    def moments(centres):  # of equally likely modes with standard deviation 0.5
        return centres.mean(0), np.cov(centres, rowvar=False, bias=True) + 0.25 * np.eye(2)

    (mean_a, cov_a), (mean_b, cov_b) = moments(modes), moments(modes[:2])
    exact = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert abs(these[-1] / exact - 1) < 0.1
    assert abs(dot[0] - told(frechet)[0]) < 0.06 * dot[0]


def test_frechet_default_makes_the_point(frechet):
    _, precision, recall = told(frechet)
    assert precision > 0.9 and recall < 0.75
    _, missed, _, _ = clouds_drawn(frechet)
    assert np.mean(missed[:, 0] > 1.0) > 0.8, "rings lie where the missing mode is"


def test_frechet_try_1_few_points(frechet):
    """Both clouds come from one source, yet they are far apart."""
    few = told(frechet.set(kind="honest", n=10))[0]
    many = told(frechet.set(n=300))[0]
    floor = frechet.figure.axes[1].lines[0].get_ydata()
    assert few > 0.5 and few > 20 * many and floor[0] > 10 * floor[3]


def test_frechet_try_2_copies(frechet):
    """Distance 0, precision and recall 1, better than honest samples can be."""
    distance, precision, recall = told(frechet.set(kind="copies"))
    assert (distance, precision, recall) == (pytest.approx(0, abs=1e-9), 1, 1)
    honest = told(frechet.set(kind="honest"))
    assert distance < 0.01 * honest[0] and honest[1] < 1 and honest[2] < 1
    frechet.set(kind="copies")
    assert (
        frechet.figure.axes[1].lines[2].get_ydata()[0] < 0.1 * frechet.figure.axes[1].lines[0].get_ydata()[2]
    )


def test_frechet_try_3_mistake(frechet):
    """Without covariances the mirrored cloud is at no distance, and the ellipses have lost their slope."""
    right = told(frechet.set(kind="mirrored"))
    tilted = ellipses_drawn(frechet)
    frechet.controls["wrong"].value = True
    wrong, level = told(frechet), ellipses_drawn(frechet)
    assert wrong[0] < 0.02 * right[0] and wrong[1:] == right[1:] and max(right[1:]) < 0.5

    def slope(line):
        return np.corrcoef(line[:, :-1])[0, 1]

    assert slope(tilted[0]) > 0.8 and slope(tilted[1]) < -0.8
    assert max(abs(slope(line)) for line in level) < 1e-6
    title = frechet.figure.axes[1].title
    assert title.get_color() == COLORS["wrong"] and "standard deviations only" in title.get_text()


def test_standard_deviations_are_the_distance_without_covariances():
    """The mistake is exactly the distance of clouds whose features are told apart."""
    a, b = draw_cloud(100, 0), draw_cloud(80, 1, "mirrored", 0.7, 0.4)
    alone = sum(frechet_distance(a[:, i : i + 1], b[:, i : i + 1]) for i in (0, 1))
    assert abs(std_distance(a, b) - alone) < 1e-9 < 1 < frechet_distance(a, b) - alone


def test_lesson_18_predict_first(frechet):
    """A spread of 0.4: the distance stays small, precision goes to 1, recall falls."""
    before = told(frechet.set(kind="honest"))
    distance, precision, recall = told(frechet.set(spread=0.4))
    assert distance < 0.1 and precision == 1 and recall < 0.6 < before[2]


def test_a_students_distance_drives_the_picture():
    explorer = explore_frechet(lambda a, b: 7.0)
    assert told(explorer)[0] == 7
    assert all((data[1] == 7).all() for data, _ in curves(explorer.figure.axes[1]))


def test_frechet_takes_every_setting(frechet):
    turn_everything(frechet)


# The numbers themselves, beyond two dimensions --------------------------------------------------------------------


def test_precision_recall_in_many_dimensions():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 9)), rng.normal(size=(45, 9)) * 0.8 + 0.2
    for k in (1, 3, 7):
        assert precision_recall(real, fake, k) == (
            covered(fake, real, k).mean(),
            covered(real, fake, k).mean(),
        )
    tensors = torch.from_numpy(real), torch.from_numpy(fake)
    assert precision_recall(*tensors) == precision_recall(real, fake)


@pytest.mark.parametrize(
    ("real", "fake", "k", "pattern"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), 3, r"\(4, 2\).*3"),
        (np.zeros((3, 2)), np.zeros((9, 2)), 3, r"k is 3.*below the 3"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, r"k is 0.*at least 1"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), 3, "NaN"),
        (np.zeros(9), np.zeros((9, 2)), 3, r"\(9,\).*\(N, F\)"),
    ],
)
def test_precision_recall_refuses(real, fake, k, pattern):
    with pytest.raises(ValueError, match=pattern):
        precision_recall(real, fake, k)
