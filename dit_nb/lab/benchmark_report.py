"""Benchmark results: the recorded rows, a Markdown table, and figures of speed and of growth."""

import json
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["load_results", "plot_bench", "plot_growth", "results_table"]

_COLUMNS = ("config", "job", "variant", "ms", "images/s", "ratio (rounds)", "of peak", "peak GB")


def load_results(name: str) -> list[dict]:
    """Recorded rows that come with the package; each names its machine.

    Args:
        name: bench, bench_amx, bench_eager, bench_h200, bench_zen4, curves, digit_bound, emoji_recipes, emoji_times,
            growth or label_influence; profile_h200 and emoji_run are one dict
    """
    return json.loads((files("dit_nb.lab") / "results" / f"{name}.json").read_text(encoding="utf-8"))


def results_table(rows: list[dict]) -> str:
    """Rows of `benchmark` as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|---|---|" + "---:|" * 5]
    for r in rows:
        ratios = f"{r['ratio']:.2f} ({min(r['ratio_rounds']):.2f} to {max(r['ratio_rounds']):.2f})"
        speed = f"{r['ms']:.1f} | {r['images_per_s']:.1f} | {ratios}"
        limits = f"{r['utilization']:.0%} | {r['peak_gb']:.1f}"
        lines.append(f"| {r['config']} | {r['job']}, {r['batch']} | {r['variant']} | {speed} | {limits} |")
    return "\n".join(lines)


def plot_bench(rows: list[dict]) -> "Figure":
    """Bars: speed of each variant relative to the baseline, with the range over rounds; a panel for each job."""
    from dit_nb.visual import figure  # matplotlib is not always installed

    jobs = dict.fromkeys((r["config"], r["job"]) for r in rows)
    columns = min(3, len(jobs))
    height = -(-len(jobs) // columns)
    fig, axes = figure(height, columns, (3.6 * columns, 2.4 * height), sharex=True)
    for ax, job in zip(axes.flat, jobs):
        _plot_job(ax, [r for r in rows if (r["config"], r["job"]) == job], " ".join(job))
    for ax in axes.flat[len(jobs) :]:
        ax.axis("off")
    if axes[0, 0].get_xlim()[1] > 6:  # another program was busy in one round; the bar is the median
        axes[0, 0].set_xlim(0, 6)
    fig.supxlabel(f"times as fast as {rows[0]['ratio_to']}; line: range over rounds", fontsize=9)
    fig.alt_text = "; ".join(f"{r['config']} {r['job']} {r['variant']}: {r['ratio']:.2f}" for r in rows)
    return fig


def _plot_job(ax, rows: list[dict], title: str) -> None:
    for place, r in enumerate(rows):
        shade = "0.75" if r["variant"].startswith("diffusers") else "0.35"
        ax.barh(place, r["ratio"], color=shade)
        ax.plot([min(r["ratio_rounds"]), max(r["ratio_rounds"])], [place, place], color="black", lw=1)
    ax.axvline(1, color="black", lw=0.8, ls=":")
    ax.set_yticks(range(len(rows)), [r["variant"] for r in rows], fontsize=7)
    ax.invert_yaxis()
    ax.set_title(title, fontsize=9)


_SHARED = {"tokens": 64, "width": 192, "depth": 6, "batch": 16}  # the setting that is on every axis


def plot_growth(rows: list[dict]) -> "Figure":
    """Time and memory against tokens, width, depth and batch size, beside the growth of multiply-adds."""
    from dit_nb.visual import COLORS, figure  # matplotlib is not always installed

    fig, axes = figure(2, len(_SHARED), (11, 5))
    for (time, memory), (axis, shared) in zip(axes.T, _SHARED.items()):
        part = [r for r in rows if r["axis"] == axis]
        at, ms = [r["at"] for r in part], [r["ms"] for r in part]
        middle = part[at.index(shared)]
        expected = [r["gflop"] / middle["gflop"] * middle["ms"] for r in part]
        time.loglog(at, ms, "o-", color="black", label="measured")
        time.loglog(at, expected, "--", color=COLORS["gray"], label="as `cost` grows")
        time.minorticks_off()
        time.set_xticks(at, at, fontsize=8)
        time.set_yticks(ms[::2], [f"{m:.0f}" for m in ms[::2]], fontsize=8)
        time.set(title=axis)
        memory.plot(at, [r["peak_gb"] for r in part], "o-", color="black")
        memory.set(xlabel=axis, ylim=(0, None))
    axes[0, 0].set(ylabel="ms for a step")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].set(ylabel="peak memory, GB")
    steps = (f"{r['axis']} {r['at']}: {r['ms']:.0f} ms" for r in rows)
    fig.alt_text = "Step time and peak memory: " + "; ".join(steps)
    return fig
