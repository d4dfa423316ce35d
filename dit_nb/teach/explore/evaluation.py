"""A weight that never rests and its average that does; two clouds, and three numbers that say how alike they are."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dit_nb.evaluation import frechet_distance, in_knn_manifold
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure

CENTRES = np.array([[-2.4, -1.5], [0.0, 0.9], [2.4, 1.6]])


COUNTS = (10, 30, 100, 300, 1000)


KINDS = ("honest", "a mode missing", "mirrored", "copies")


def draw_cloud(
    n: int,
    seed: int,
    kind: str = "honest",  # see KINDS
    spread: float = 1.0,  # of each mode
    shift: float = 0.0,  # to the right
) -> np.ndarray:  # (n, 2)
    "Points from three modes on a slope, or from something that is wrong in a known way."
    rng = np.random.default_rng(seed)
    mode, noise = rng.integers(6, size=max(COUNTS))[:n], rng.normal(size=(max(COUNTS), 2))[:n]
    mode = mode % 2 if kind == "a mode missing" else mode % 3
    points = CENTRES[mode] + 0.5 * spread * noise
    if kind == "mirrored":  # mirrored about the mean: the same two variances, the opposite slope
        points = points * (1, -1) + (0, 2 * CENTRES[:, 1].mean())
    return points + (shift, 0)


def std_distance(
    a: np.ndarray,  # (N, F)
    b: np.ndarray,  # (M, F)
) -> float:
    "The mistake: means and standard deviations of each feature, as if features had nothing to do with each other."
    return float(((a.mean(0) - b.mean(0)) ** 2 + (a.std(0, ddof=1) - b.std(0, ddof=1)) ** 2).sum())


def ellipse(
    points: np.ndarray,  # (N, 2)
    alone: bool = False,  # drop the covariance, as `std_distance` does
) -> np.ndarray:  # (2, 60)
    "Two standard deviations of the Gaussian that is fitted to a cloud."
    cov = np.cov(points, rowvar=False)
    cov = np.diag(np.diag(cov)) if alone else cov
    turn = np.linspace(0, 2 * np.pi, 60)
    values, vectors = np.linalg.eigh(cov)
    return points.mean(0)[:, None] + 2 * vectors * np.sqrt(values) @ (np.cos(turn), np.sin(turn))


def distance_curve(
    distance: Callable,
    kind: str,
    spread: float,
    shift: float,
    repeats: int = 12,
) -> list[float]:
    "The distance from real points, by how many there are of both, on average."
    seeds = [(100 + i, 100 + i if kind == "copies" else 200 + i) for i in range(repeats)]
    pairs = [(draw_cloud(COUNTS[-1], a), draw_cloud(COUNTS[-1], b, kind, spread, shift)) for a, b in seeds]
    return [float(np.mean([distance(a[:n], b[:n]) for a, b in pairs])) for n in COUNTS]


def plot_frechet(
    curves: tuple,  # `distance_curve` of honest samples, and of these
    kind: str,
    spread: float,
    shift: float,
    n: int,  # points in each cloud
    wrong: bool,  # standard deviations only
    frechet: Callable = frechet_distance,
) -> Figure:
    "Two clouds with their fitted Gaussians, and their distance by the number of points."
    real = draw_cloud(n, 0)
    fake = draw_cloud(n, 0 if kind == "copies" else 1, kind, spread, shift)
    distance, color = (std_distance, COLORS["wrong"]) if wrong else (frechet, COLORS["eps"])
    value, ok = distance(real, fake), (in_knn_manifold(fake, real), in_knn_manifold(real, fake))
    precision, recall = (float(a.mean()) for a in ok)
    shown = f"{value:.2g}" if value > 1e-6 else "0"
    fig, axes = figure(1, 2, (9, 3.7), width_ratios=(1.35, 1))
    draw_clouds(axes[0, 0], real, fake, *ok, wrong)
    axes[0, 0].set_title(
        f"precision {precision:.2f} (samples, orange)   recall {recall:.2f} (real, blue)", fontsize=10, y=1.01
    )
    ax = axes[0, 1]
    ax.plot(COUNTS, curves[0], "--", color=COLORS["grey"], label="honest samples, on average")
    ax.plot(COUNTS, curves[1], color=color, label="these, on average")
    ax.plot(n, max(value, 0.003), "o" if value > 0.003 else "v", color=color, ms=9, label="this draw")
    ax.set(xscale="log", yscale="log", xlim=(8, 1300), ylim=(0.0025, 300), xlabel="points in each cloud, n")
    ax.set_xticks(COUNTS, COUNTS)
    ax.set_yticks((0.01, 1, 100), ("0.01", "1", "100"))
    ax.minorticks_off()
    what = "standard deviations only" if wrong else "Fréchet distance"
    ax.set_title(f"{what}: {shown}", fontsize=11, y=1.01, color=COLORS["wrong"] if wrong else "black")
    ax.legend(loc="upper right", fontsize=9)
    fig.words = (
        f"{n} real points and {n} samples ({kind}): {what} {shown}, "
        f"precision {precision:.2f}, recall {recall:.2f}."
    )
    return fig


def draw_clouds(
    ax,
    real: np.ndarray,
    fake: np.ndarray,
    fake_ok: np.ndarray,
    real_ok: np.ndarray,
    alone: bool,  # ellipses without the covariance
) -> None:
    "Full dots are covered by the other cloud; rings and crosses are not."
    size, blue, orange = 4 if len(real) < 200 else 2.5, COLORS["x_t"], COLORS["eps"]
    dots, rings = {"ls": "", "marker": "o", "ms": size, "mew": 0}, {"ls": "", "ms": size, "mew": 1}
    ax.plot(*real[real_ok].T, color=blue, alpha=0.6, **dots)
    ax.plot(*real[~real_ok].T, marker="o", mfc="none", mec=blue, **rings)
    ax.plot(*fake[fake_ok].T, color=orange, alpha=0.8, **dots)
    ax.plot(*fake[~fake_ok].T, marker="x", color=orange, **rings)
    for points, color in ((real, blue), (fake, orange)):
        ax.plot(*ellipse(points, alone), ls="--" if alone else "-", color=color, lw=2.2)
    ax.set(xlim=(-6, 7.5), ylim=(-4.6, 5), xticks=[], yticks=[], xlabel="feature 1", ylabel="feature 2")


def explore_frechet(
    frechet: Callable = frechet_distance,  # your own: (N, F), (M, F) -> number
) -> Explorer:
    "Two clouds: what Fréchet distance, precision and recall say of them."
    distances = {False: frechet, True: std_distance}
    floors = {wrong: distance_curve(distance, "honest", 1, 0, 60) for wrong, distance in distances.items()}

    def prepare(kind, spread, shift, wrong):
        return floors[wrong], distance_curve(distances[wrong], kind, spread, shift)

    return Explorer(
        partial(plot_frechet, frechet=frechet),
        "two clouds, three numbers",
        [
            (
                "Choose honest samples and turn n down to 10.",
                "Both clouds come from one source, yet they are far apart: few points, large distance.",
            ),
            (
                "Choose copies.",
                "Distance 0, precision and recall 1, better than honest samples can be: "
                "none of the three asks whether anything is new.",
            ),
            (
                "Choose mirrored samples, then switch the mistake on.",
                "The ellipses lose their slope and the distance is gone, although precision and recall are as bad as before.",
            ),
        ],
        prepare,
        kind=choice("samples", list(KINDS), "a mode missing"),
        spread=slider("spread of a mode", 0.2, 2.0, 1.0, 0.1),
        shift=slider("shift", 0.0, 3.0, 0.0, 0.25),
        n=stops("n", list(COUNTS[:-1]), 100),
        wrong=mistake("standard deviations only, no covariance"),
    )
