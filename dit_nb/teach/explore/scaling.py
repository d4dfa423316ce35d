"""Explorer of lesson 22: the paper's models and trainings against compute, and plots of the paper's tables."""

import numpy as np
from matplotlib.figure import Figure

from dit_nb.config import _MODEL_NAMES, SIZES
from dit_nb.errors import _check_choice
from dit_nb.lab.comparisons import Comparison
from dit_nb.lab.paper_tables import (
    _comparable_rows,
    _correlation,
    _fit_line,
    _sampling_compute,
    _training_compute,
    read_paper_table,
)
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.visual import COLORS, figure

__all__ = ["explore_compute"]

_AXES = {  # panel -> column of Table 4, label, logarithmic
    "gflops": ("gflops", "Gflops (each grid line ten times the last)", True),
    "plain": ("gflops", "Gflops, linear axis", False),
    "params_m": ("params_m", "million parameters (logarithmic)", True),
}
_LABEL_OFFSETS = {  # points
    "S/2": (8, 2),
    "B/4": (-25, -6),
    "L/4": (-25, -4),
    "XL/4": (9, -2),
    "B/2": (-6, -14),
    "L/8": (-22, 8),
}


def _draw_models(ax, panel: str, named: bool = True) -> float:
    """The twelve models on one axis, with a fitted line; returns the correlation."""
    column, label, log = _AXES[panel]
    rows = _comparable_rows()
    x, fid = (np.array([row[key] for row in rows], dtype=float) for key in (column, "fid"))
    areas = [row["params_m"] * 0.6 for row in rows]
    ax.scatter(x, fid, areas, color=COLORS["gray"], alpha=0.6, edgecolor="white", label="models")
    across = np.log10(x) if log else x
    line, r = _fit_line(across, fid), _correlation(across, fid)
    ends = np.array([across.min(), across.max()])
    ax.plot(10**ends if log else ends, [line.at(end) for end in ends], color="black", lw=1)
    ax.set(xlabel=label, ylabel="FID-50K at 400K steps", ylim=(0, 170), xscale="log" if log else "linear")
    ax.grid(alpha=0.3)
    if log:
        ax.set_xlim(x.min() / 1.6, x.max() * 2)
        ax.minorticks_off()  # they take most of the time to draw
        ticks = (1, 10, 100) if column == "gflops" else (30, 100, 300, 1000)
        ax.set_xticks(ticks, map(str, ticks))
    for row, *xy in zip(rows, x, fid) if named else ():
        name = row["model"][4:]
        offset = _LABEL_OFFSETS.get(name, (8, 3))
        ax.annotate(name, xy, offset, textcoords="offset points", fontsize=8)
    return r


def _plot_scaling(panels: tuple[str, ...] = ("plain", "gflops")) -> Figure:
    """Plot the FID of Table 4's twelve models against their size; the area of a dot shows parameters."""
    fig, axes = figure(1, len(panels), (4.9 * len(panels), 3.9), sharey=True)
    parts = []
    for ax, panel in zip(axes.flat, panels):
        r = _draw_models(ax, panel, panel != "plain")
        ax.set_title(f"correlation {r:.3f}", fontsize=10)
        parts.append(f"{_AXES[panel][1]}: correlation {r:.3f}")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    fig.alt_text = f"Twelve models, FID-50K at 400 thousand steps against {'; against '.join(parts)}."
    return fig


def _plot_bars(names: list[str], columns: dict[str, list], title: str) -> Figure:
    """Plot a small table as bars with their numbers."""
    fig, axes = figure(1, len(columns), (9.5, 1.1 + 0.36 * len(names)), sharey=True)
    colors = ("0.75", "0.6", "0.45")[-len(columns) :]
    for ax, (label, values), color in zip(axes.flat, columns.items(), colors):
        bars = ax.barh(range(len(names)), values, color=color)
        ax.bar_label(bars, [f"{value:.4g}" for value in values], padding=3, fontsize=9)
        ax.set(xlabel=label, xlim=(0, 1.25 * max(values)), yticks=range(len(names)), yticklabels=names)
    axes[0, 0].invert_yaxis()
    fig.suptitle(title, fontsize=11)
    parts = [f"{k}: " + ", ".join(f"{n} {v:.4g}" for n, v in zip(names, vs)) for k, vs in columns.items()]
    fig.alt_text = f"{title}. {'. '.join(parts)}."
    return fig


def _long_runs() -> list[dict]:
    """The three trainings of XL/2 at 256 pixels, shortest first."""
    same = {"model": "DiT-XL/2", "block": "adaln_zero", "pixels": 256}
    return [
        row for row in read_paper_table("table4") if all(row[key] == value for key, value in same.items())
    ]


def _draw_trainings(ax) -> None:
    """Training compute against FID, for all trainings of Table 4 at 256 pixels."""
    rows, long = _comparable_rows(), _long_runs()
    compute, compute_long = (
        [_training_compute(row["gflops"], 1000 * row["steps_k"]) for row in some] for some in (rows, long)
    )
    ax.plot(compute, [row["fid"] for row in rows], "o", color=COLORS["gray"], alpha=0.6)
    ax.plot(compute_long, [row["fid"] for row in long], "s-", color="black", lw=1, ms=5)
    ax.text(compute_long[-1], 18, "XL/2 to\n7M steps", fontsize=8, ha="center")
    ax.set(xlabel="training compute, Gflops", xscale="log", xlim=(2e7, 2e12), ylim=(0, 170))
    ax.minorticks_off()
    ax.set_xticks([1e8, 1e9, 1e10, 1e11, 1e12], ["10⁸", "10⁹", "10¹⁰", "10¹¹", "10¹²"])
    ax.grid(alpha=0.3)


def _plot_differences(panels: dict[str, list[Comparison]], xlabel: str = "difference") -> Figure:
    """Plot differences with their confidence intervals: a row for each comparison, a dot for each seed.

    A hollow marker was chosen after the results were seen. The word counts all comparisons of the figure.
    """
    count = sum(map(len, panels.values()))
    widest = max(len(rows) for rows in panels.values())
    fig, axes = figure(1, len(panels), (9.8 if len(panels) > 1 else 7, 1.3 + 0.34 * widest))
    parts, labels = [], []
    for ax, (title, rows) in zip(axes.flat, panels.items()):
        names = [row.label for row in rows]
        parts.append(_draw_differences(ax, rows, count))
        ax.set(title=title, xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(range(len(rows)), names if names != labels else [""] * len(rows), fontsize=8)
        labels = names
    fig.alt_text = " ".join(f"{title}: {part}." for title, part in zip(panels, parts))
    return fig


def _draw_differences(ax, rows: list[Comparison], count: int) -> str:
    """Draw the comparisons of one panel; returns them in words."""
    words = []
    ax.axvline(0, color="black", lw=1)
    for place, row in enumerate(rows):
        found = row.difference
        gaps, word = row.second - row.first, found.word(count)
        ends = [[found.mean - found.low], [found.high - found.mean]]
        face = COLORS["gray"] if row.planned else "white"
        ax.plot(gaps, [place + 0.22] * len(gaps), "o", color=COLORS["gray"], ms=3, alpha=0.6)
        ax.errorbar(found.mean, place, xerr=ends, fmt="o", color="black", mfc=face, capsize=3, ms=6)
        ax.text(1.02, place, word, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        words.append(f"{row.label} {found}, {word}{'' if row.planned else ', chosen afterwards'}")
    ax.tick_params(axis="y", length=0)
    return "; ".join(words)


_SAMPLING_STEPS = 250  # of Table 4


def _look_up(size: str, patch: int, steps_k: int, sampling: int) -> tuple[float | None, str]:
    """The FID that the paper prints for a choice, or None; and a sentence."""
    model = f"DiT-{size}/{patch}"
    if sampling != _SAMPLING_STEPS:
        for row in read_paper_table("sampling"):
            if (row["model"], row["steps"], 400) == (model, sampling, steps_k):
                return row["fid_10k"], f"FID-10K {row['fid_10k']} ({row['source']})"
        return None, f"no number printed for {sampling} sampling steps here"
    known = {
        row["steps_k"]: row["fid"] for row in [*_comparable_rows(), *_long_runs()] if row["model"] == model
    }
    if steps_k in known:
        return known[steps_k], f"FID-50K {known[steps_k]:.2f} (Table 4)"
    before, after = [k for k in known if k < steps_k], [k for k in known if k > steps_k]
    if before and after:
        low, high = known[max(before)], known[min(after)]
        return None, f"between {low:.2f} and {high:.2f} (Table 4), no number printed"
    where = f"later than {max(before)}K" if before else f"earlier than {min(after)}K"
    return None, f"outside the data: {model} has no number printed {where} steps"


def _plot_compute(
    size: str = "XL", patch: int = 2, steps_k: int = 400, sampling: int = 250, wrong: bool = False
) -> Figure:
    """Show a choice among the paper's models and trainings, what it costs, and its printed FID."""
    model = f"DiT-{size}/{patch}"
    _check_choice("model", model, _MODEL_NAMES)
    row = next(row for row in _comparable_rows() if row["model"] == model)
    fid, known = _look_up(size, patch, steps_k, sampling)
    train, image = (
        _training_compute(row["gflops"], 1000 * steps_k),
        _sampling_compute(row["gflops"], sampling),
    )
    panel = "params_m" if wrong else "gflops"
    fig, axes = figure(1, 2, (9, 3.9), sharey=True)
    r = _draw_models(axes[0, 0], panel, named=False)
    _draw_trainings(axes[0, 1])
    for ax, x in ((axes[0, 0], row[panel]), (axes[0, 1], train)):
        ax.axvline(x, color=COLORS["wrong"] if wrong else "black", lw=1.5, label="chosen")
        if fid is not None and (steps_k == 400 or ax is axes[0, 1]):  # the left panel is of 400K steps
            ax.plot(x, fid, "o", ms=15, mfc="none", mec="black", mew=2, label="measured")
    compute = f"training {train:.2g} Gflops; an image {image / 1000:.3g} Tflops"
    title = f"{model}, {steps_k}K steps, {sampling} sampling steps\ncorrelation {r:.2f}"
    axes[0, 0].set_title(title, fontsize=10, color=COLORS["wrong"] if wrong else "black")
    axes[0, 1].set_title(f"{known}\n{compute}", fontsize=9 if len(known) < 52 else 8)
    choices = f"{model}, {steps_k} thousand steps, {sampling} sampling steps"
    fig.alt_text = f"{choices}: {known}; {compute}; correlation {r:.2f}."
    return fig


def explore_compute() -> Explorer:
    """Explore what a compute budget buys, according to the paper's tables."""
    return Explorer(
        _plot_compute,
        "a compute budget",
        """
        1. *Go from patch 2 to patch 4.* As many parameters, a quarter of the Gflops, and the FID rises from
           19.47 to 43.01.
        2. *Sample with XL/2 in 128 steps, then with L/2 in 1000.* The smaller model spends five times as much
           on an image, and gets 25.9 instead of 23.7.
        3. *Train S/2 for 7000 thousand steps.* It costs nearly as much as XL/2 at 400, and no number is
           printed: outside the data.
        """,
        size=choice("size", list(SIZES), "XL"),
        patch=choice("patch", [8, 4, 2], 2),
        steps_k=stops("thousand training steps", [100, 400, 1000, 2352, 7000], 400),
        sampling=stops("sampling steps", [16, 128, 250, 1000], 250),
        wrong=mistake("count parameters, not Gflops"),
    )
