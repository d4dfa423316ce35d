"""Explorer of lesson 21: Fréchet distance, precision and recall of two sets of points."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dit_nb.evaluation import frechet_distance, in_knn_manifold
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_frechet"]

_CENTERS = np.array([[-2.4, -1.5], [0.0, 0.9], [2.4, 1.6]])
_COUNTS = (10, 30, 100, 300, 1000)
_KINDS = ("same distribution", "a mode missing", "mirrored", "copies")


def _sample_points(
    n: int, seed: int, kind: str = "same distribution", spread: float = 1.0, shift: float = 0.0
) -> np.ndarray:
    """Sample points (n, 2) from a mixture of three Gaussians, or from a distribution that differs from it."""
    rng = np.random.default_rng(seed)
    mode, noise = rng.integers(6, size=max(_COUNTS))[:n], rng.normal(size=(max(_COUNTS), 2))[:n]
    mode = mode % 2 if kind == "a mode missing" else mode % 3
    points = _CENTERS[mode] + 0.5 * spread * noise
    if kind == "mirrored":  # about the mean: the same two variances, the opposite covariance
        points = points * (1, -1) + (0, 2 * _CENTERS[:, 1].mean())
    return points + (shift, 0)


def _diagonal_frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Make a common mistake: a Fréchet distance that ignores covariances between features."""
    return float(((a.mean(0) - b.mean(0)) ** 2 + (a.std(0, ddof=1) - b.std(0, ddof=1)) ** 2).sum())


def _gaussian_ellipse(points: np.ndarray, diagonal: bool = False) -> np.ndarray:
    """Return a curve (2, 60): two standard deviations of the Gaussian fitted to points (N, 2)."""
    cov = np.cov(points, rowvar=False)
    cov = np.diag(np.diag(cov)) if diagonal else cov
    turn = np.linspace(0, 2 * np.pi, 60)
    values, vectors = np.linalg.eigh(cov)
    return points.mean(0)[:, None] + 2 * vectors * np.sqrt(values) @ (np.cos(turn), np.sin(turn))


def _distance_curve(distance: Callable, kind: str, spread: float, shift: float, repeats=12) -> list[float]:
    """The mean distance from real points, by the number of points in both sets."""
    seeds = [(100 + i, 100 + i if kind == "copies" else 200 + i) for i in range(repeats)]
    largest = _COUNTS[-1]
    pairs = [(_sample_points(largest, a), _sample_points(largest, b, kind, spread, shift)) for a, b in seeds]
    return [float(np.mean([distance(a[:n], b[:n]) for a, b in pairs])) for n in _COUNTS]


def _plot_frechet(
    curves: tuple[list, list], kind: str, spread: float, shift: float, n: int, wrong: bool, frechet: Callable
) -> Figure:
    """Show two sets of points with their fitted Gaussians, and their distance by the number of points."""
    real = _sample_points(n, 0)
    fake = _sample_points(n, 0 if kind == "copies" else 1, kind, spread, shift)
    distance, color = (_diagonal_frechet_distance, COLORS["wrong"]) if wrong else (frechet, COLORS["x_t"])
    value, inside = distance(real, fake), (in_knn_manifold(fake, real), in_knn_manifold(real, fake))
    precision, recall = (float(a.mean()) for a in inside)
    shown = f"{value:.2g}" if value > 1e-6 else "0"
    fig, axes = figure(1, 2, (9, 3.7), width_ratios=(1.35, 1))
    _draw_points(axes[0, 0], real, fake, *inside, wrong)
    title = f"precision {precision:.2f} (samples, blue)   recall {recall:.2f} (real, gray)"
    axes[0, 0].set_title(title, fontsize=10, y=1.01)
    ax = axes[0, 1]
    ax.plot(_COUNTS, curves[0], "--", color=COLORS["gray"], label="same distribution, mean")
    ax.plot(_COUNTS, curves[1], color=color, label="these samples, mean")
    ax.plot(n, max(value, 0.003), "o" if value > 0.003 else "v", color=color, ms=9, label="these points")
    ax.set(xscale="log", yscale="log", xlim=(8, 1300), ylim=(0.0025, 300), xlabel="points in each set, n")
    ax.set_xticks(_COUNTS, _COUNTS)
    ax.set_yticks((0.01, 1, 100), ("0.01", "1", "100"))
    ax.minorticks_off()
    what = "standard deviations only" if wrong else "Fréchet distance"
    ax.set_title(f"{what}: {shown}", fontsize=11, y=1.01, color=COLORS["wrong"] if wrong else "black")
    ax.legend(loc="upper right", fontsize=9)
    scores = f"precision {precision:.2f}, recall {recall:.2f}"
    fig.alt_text = f"{n} real points and {n} samples ({kind}): {what} {shown}, {scores}."
    return fig


def _draw_points(
    ax, real: np.ndarray, fake: np.ndarray, fake_inside: np.ndarray, real_inside: np.ndarray, diagonal: bool
) -> None:
    """Full dots are inside the other set's k-NN manifold; rings and crosses are not."""
    size, gray, blue = 4 if len(real) < 200 else 2.5, COLORS["gray"], COLORS["x_t"]
    dots, rings = {"ls": "", "marker": "o", "ms": size, "mew": 0}, {"ls": "", "ms": size, "mew": 1}
    ax.plot(*real[real_inside].T, color=gray, alpha=0.6, **dots)
    ax.plot(*real[~real_inside].T, marker="o", mfc="none", mec=gray, **rings)
    ax.plot(*fake[fake_inside].T, color=blue, alpha=0.8, **dots)
    ax.plot(*fake[~fake_inside].T, marker="x", color=blue, **rings)
    for points, color in ((real, gray), (fake, blue)):
        ax.plot(*_gaussian_ellipse(points, diagonal), ls="--" if diagonal else "-", color=color, lw=2.2)
    ax.set(xlim=(-6, 7.5), ylim=(-4.6, 5), xticks=[], yticks=[], xlabel="feature 1", ylabel="feature 2")


def explore_frechet(frechet: Callable = frechet_distance) -> Explorer:
    """Explore what Fréchet distance, precision and recall detect.

    Args:
        frechet: function of two sets (N, F) and (M, F); the library's by default
    """
    distances = {False: frechet, True: _diagonal_frechet_distance}
    base = {wrong: _distance_curve(f, "same distribution", 1, 0, 60) for wrong, f in distances.items()}

    def prepare(kind, spread, shift, wrong):
        return base[wrong], _distance_curve(distances[wrong], kind, spread, shift)

    return Explorer(
        partial(_plot_frechet, frechet=frechet),
        "two sets of points, three numbers",
        """
        1. *Choose the same distribution and lower n to 10.* Both sets come from one distribution, yet they
           are far apart: few points, large distance.
        2. *Choose copies.* Distance 0, precision and recall 1, better than new samples of the distribution
           can be: none of the three measures novelty.
        3. *Choose mirrored samples, then switch the mistake on.* The ellipses lose their slope and the
           distance is gone, although precision and recall are as bad as before.
        """,
        prepare,
        kind=choice("samples", list(_KINDS), "a mode missing"),
        spread=slider("spread of a mode", 0.2, 2.0, 1.0, 0.1),
        shift=slider("shift", 0.0, 3.0, 0.0, 0.25),
        n=stops("n", list(_COUNTS[:-1]), 100),
        wrong=mistake("standard deviations only, no covariance"),
    )
