"""Spend it on a larger model, smaller patches, longer training or more sampling steps: what do the paper's data promise, and where do they end?"""

import numpy as np
from matplotlib.figure import Figure

from dit_nb.config import NAMES, SIZES
from dit_nb.lab.paper_tables import (
    correlation,
    fit_line,
    read_paper,
    sampling_compute,
    training_compute,
    twelve,
)
from dit_nb.teach.explore.core import Explorer, choice, mistake, stops
from dit_nb.utils import check_choice
from dit_nb.visual import COLORS, figure

AXES = {  # panel -> column of Table 4, label, logarithmic
    "gflops": ("gflops", "Gflops (each grid line ten times the last)", True),
    "plain": ("gflops", "Gflops, evenly spaced", False),
    "params_m": ("params_m", "million parameters (logarithmic)", True),
}


SHIFTS = {
    "S/2": (8, 2),
    "B/4": (-25, -6),
    "L/4": (-25, -4),
    "XL/4": (9, -2),
    "B/2": (-6, -14),
    "L/8": (-22, 8),
}


def draw_bubbles(
    ax,  # matplotlib axes
    panel: str,  # one of AXES
    named: bool = True,  # write the models' names
) -> float:  # the correlation drawn
    "The twelve models on one axis, with the straight line through them."
    column, label, log = AXES[panel]
    rows = twelve()
    x, fid = (np.array([row[key] for row in rows], dtype=float) for key in (column, "fid"))
    areas = [row["params_m"] * 0.6 for row in rows]
    ax.scatter(x, fid, areas, color=COLORS["x_t"], alpha=0.5, edgecolor="white", label="models")
    across = np.log10(x) if log else x
    line, r = fit_line(across, fid), correlation(across, fid)
    ends = np.array([across.min(), across.max()])
    ax.plot(10**ends if log else ends, [line.at(end) for end in ends], color=COLORS["grey"], lw=1)
    ax.set(xlabel=label, ylabel="FID-50K at 400K steps", ylim=(0, 170), xscale="log" if log else "linear")
    ax.grid(alpha=0.3)
    if log:
        ax.set_xlim(x.min() / 1.6, x.max() * 2)
        ax.minorticks_off()  # nine ticks in ten, and most of the time that drawing takes
        ticks = (1, 10, 100) if column == "gflops" else (30, 100, 300, 1000)
        ax.set_xticks(ticks, map(str, ticks))
    for row, place, value in zip(rows, x, fid) if named else ():
        name = row["model"][4:]
        ax.annotate(name, (place, value), SHIFTS.get(name, (8, 3)), textcoords="offset points", fontsize=8)
    return r


def plot_bubbles(
    panels: tuple[str, ...] = ("plain", "gflops"),  # some of AXES
) -> Figure:
    "Table 4's twelve models: the amount against FID, area for parameters."
    fig, axes = figure(1, len(panels), (4.7 * len(panels), 3.9), sharey=True)
    told = []
    for ax, panel in zip(axes.flat, panels):
        r = draw_bubbles(ax, panel, named=panel != "plain")
        ax.set_title(f"correlation {r:.3f}", fontsize=10)
        told.append(f"{AXES[panel][1]}: correlation {r:.3f}")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    fig.words = f"Twelve models, FID-50K at 400 thousand steps against {'; against '.join(told)}."
    return fig


def plot_bars(
    names: list[str],  # one for each row
    columns: dict[str, list],  # title of a panel -> a number for each row
    title: str,
) -> Figure:
    "A small table as bars, with its numbers beside them."
    fig, axes = figure(1, len(columns), (9.5, 1.1 + 0.36 * len(names)), sharey=True)
    colors = (COLORS["grey"], COLORS["x_t"], COLORS["eps"])[-len(columns) :]
    for ax, (label, values), color in zip(axes.flat, columns.items(), colors):
        bars = ax.barh(range(len(names)), values, color=color)
        ax.bar_label(bars, [f"{value:.4g}" for value in values], padding=3, fontsize=9)
        ax.set(xlabel=label, xlim=(0, 1.25 * max(values)), yticks=range(len(names)), yticklabels=names)
    axes[0, 0].invert_yaxis()
    fig.suptitle(title, fontsize=11)
    parts = [f"{k}: " + ", ".join(f"{n} {v:.4g}" for n, v in zip(names, vs)) for k, vs in columns.items()]
    fig.words = f"{title}. {'. '.join(parts)}."
    return fig


def long_runs() -> list[dict]:
    "The three trainings of XL/2 at 256 pixels, shortest first."
    same = {"model": "DiT-XL/2", "block": "adaln_zero", "pixels": 256}
    return [row for row in read_paper("table4") if all(row[key] == value for key, value in same.items())]


def draw_training(
    ax,  # matplotlib axes
) -> None:
    "All measured trainings: compute against FID."
    rows, long = twelve(), long_runs()
    spent, spent_long = (
        [training_compute(row["gflops"], 1000 * row["steps_k"]) for row in some] for some in (rows, long)
    )
    ax.plot(spent, [row["fid"] for row in rows], "o", color=COLORS["x_t"], alpha=0.6)
    ax.plot(spent_long, [row["fid"] for row in long], "s-", color=COLORS["cond"], lw=1, ms=5)
    ax.text(spent_long[-1], 18, "XL/2 to\n7M steps", color=COLORS["cond"], fontsize=8, ha="center")
    ax.set(xlabel="training compute, Gflops", xscale="log", xlim=(2e7, 2e12), ylim=(0, 170))
    ax.minorticks_off()
    ax.set_xticks([1e8, 1e9, 1e10, 1e11, 1e12], ["10⁸", "10⁹", "10¹⁰", "10¹¹", "10¹²"])
    ax.grid(alpha=0.3)


def plot_training() -> Figure:
    "Figure 9, as far as numbers are printed."
    fig, axes = figure(1, 1, (6.4, 3.6))
    draw_training(axes[0, 0])
    axes[0, 0].set(ylabel="FID-50K", title="all trainings of Table 4 at 256 pixels, adaLN-Zero")
    told = ", ".join(f"{row['fid']} at {row['steps_k']} thousand steps" for row in long_runs())
    fig.words = (
        f"Training compute against FID-50K: twelve models at 400 thousand steps fall; XL/2 has {told}."
    )
    return fig


SAMPLED = 250  # denoising steps of Table 4


def look_up(
    size: str,  # S, B, L or XL
    patch: int,  # 8, 4 or 2
    steps_k: int,  # thousand updates
    sampling: int,  # denoising steps
) -> tuple[float | None, str]:  # the FID where the paper prints it, and a sentence
    "What the paper's tables say of a choice."
    model = f"DiT-{size}/{patch}"
    if sampling != SAMPLED:
        for row in read_paper("sampling"):
            if (row["model"], row["steps"], 400) == (model, sampling, steps_k):
                return row["fid_10k"], f"FID-10K {row['fid_10k']} ({row['source']})"
        return None, f"no number printed for {sampling} sampling steps here"
    known = {row["steps_k"]: row["fid"] for row in [*twelve(), *long_runs()] if row["model"] == model}
    if steps_k in known:
        return known[steps_k], f"FID-50K {known[steps_k]:.2f} (Table 4)"
    before, after = [k for k in known if k < steps_k], [k for k in known if k > steps_k]
    if before and after:
        low, high = known[max(before)], known[min(after)]
        return None, f"between {low:.2f} and {high:.2f} (Table 4), no number printed"
    where = f"later than {max(before)}K" if before else f"earlier than {min(after)}K"
    return None, f"outside the data: {model} has no number printed {where} steps"


def plot_compute(
    size: str = "XL",  # S, B, L or XL
    patch: int = 2,  # 8, 4 or 2
    steps_k: int = 400,  # thousand updates of 256 images
    sampling: int = 250,  # denoising steps for an image
    wrong: bool = False,  # count parameters in place of Gflops
) -> Figure:
    "Where a choice stands among the paper's models and trainings, what it costs, and what is known of it."
    model = f"DiT-{size}/{patch}"
    check_choice("model", model, NAMES)
    row = next(row for row in twelve() if row["model"] == model)
    fid, told = look_up(size, patch, steps_k, sampling)
    train, image = training_compute(row["gflops"], 1000 * steps_k), sampling_compute(row["gflops"], sampling)
    panel = "params_m" if wrong else "gflops"
    fig, axes = figure(1, 2, (9, 3.9), sharey=True)
    r = draw_bubbles(axes[0, 0], panel, named=False)
    draw_training(axes[0, 1])
    for ax, place in ((axes[0, 0], row[panel]), (axes[0, 1], train)):
        ax.axvline(place, color=COLORS["wrong" if wrong else "eps"], lw=1.5, label="chosen")
        if fid is not None and (steps_k == 400 or ax is axes[0, 1]):  # the left panel is of 400K steps
            ax.plot(place, fid, "o", ms=15, mfc="none", mec=COLORS["eps"], mew=2, label="measured")
    bill = f"training {train:.2g} Gflops; an image {image / 1000:.3g} Tflops"
    ink = COLORS["wrong"] if wrong else "black"
    axes[0, 0].set_title(
        f"{model}, {steps_k}K steps, drawn in {sampling}\ncorrelation {r:.2f}", fontsize=10, color=ink
    )
    axes[0, 1].set_title(f"{told}\n{bill}", fontsize=9 if len(told) < 52 else 8)
    fig.words = (
        f"{model}, {steps_k} thousand steps, {sampling} sampling steps: {told}; {bill}; correlation {r:.2f}."
    )
    return fig


def explore_compute() -> Explorer:
    "Lesson 22: spend a budget of compute."
    return Explorer(
        plot_compute,
        "a budget of compute",
        [
            (
                "Go from patch 2 to patch 4.",
                "As many parameters, a quarter of the Gflops, and the FID rises from 19.47 to 43.01.",
            ),
            (
                "Draw with XL/2 in 128 steps, then with L/2 in 1000.",
                "The smaller model spends five times as much on an image, and gets 25.9 in place of 23.7.",
            ),
            (
                "Train S/2 for 7000 thousand steps.",
                "It costs nearly as much as XL/2 at 400, and no number is printed: outside the data.",
            ),
        ],
        size=choice("size", list(SIZES), "XL"),
        patch=choice("patch", [8, 4, 2], 2),
        steps_k=stops("thousand training steps", [100, 400, 1000, 2352, 7000], 400),
        sampling=stops("sampling steps", [16, 128, 250, 1000], 250),
        wrong=mistake("count parameters, not Gflops"),
    )
