"""Run studies: a grid of variants, several seeds each, resumable; and their tables with confidence intervals."""

import csv
import io
import os
import time
import zlib
from collections.abc import Callable
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from dit_nb.errors import UserError
from dit_nb.lab.paper_tables import _read_csv
from dit_nb.utils import _append_text, _bar_visible, _make_folder

__all__ = [
    "Difference",
    "Study",
    "by_variant",
    "mean_interval",
    "paired_difference",
    "run_study",
    "study_table",
    "toy_run",
]

VERSION = 1  # increment it when results change: `run_study` then refuses older rows


class Study(NamedTuple):
    """A question, and the runs that answer it."""

    question: str
    variants: list[dict]  # settings, all with the same keys
    run: Callable[[dict, int], dict]  # (settings, seed) -> metrics
    seeds: int = 5  # runs of each variant
    fast: dict = {}  # settings that make a run short, for a smoke test


def toy_run(settings: dict, seed: int) -> dict[str, float]:
    """A run that takes no time: Gaussian noise around `level`.

    Args:
        settings: the mean of the value, `level`; also seconds to wait, `sleep`, 0 by default
        seed: seed of the noise

    Returns:
        the metric "value": `level` plus standard normal noise
    """
    time.sleep(settings.get("sleep", 0))
    return {"value": settings["level"] + np.random.default_rng(seed).normal()}


_META_COLUMNS = (
    "study",
    "version",
    "seed",
    "seconds",
    "machine",
    "date",
)  # columns of every row, in addition to settings and metrics


def _csv_line(row: dict) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row.values())
    return text.getvalue()


def _read_rows(path: str | Path) -> list[dict]:
    """Rows of a study, with numbers parsed.

    Args:
        path: CSV file that `run_study` wrote
    """
    try:
        rows = _read_csv(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"out is {path}, but must be a file of this study: {_reason(error)}.") from None
    for i, row in enumerate(rows, 2):
        if None in row or None in row.values():  # what csv.DictReader has left over, or lacks
            raise UserError(f"out is {path}, but its line {i} has not one cell for each column: remove it.")
    return rows


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__


def _truncate_partial_line(path: Path) -> None:
    "Drop a last line that was not written completely."
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _is_study_file(path: Path, columns: list[str]) -> bool:
    "Whether a file starts with these columns, or with a part of them, if it was not written completely."
    wanted = ",".join(columns).encode() + b","
    with open(path, "rb") as file:
        return wanted.startswith(file.read(len(wanted)))


def _finished_runs(path: Path, name: str, study: Study, columns: list[str]) -> set[tuple]:
    "Variants and seeds that the file has already. Raises UserError if its rows are of another study."
    _make_folder(path.parent)
    if not path.exists():
        return set()
    rows, strange = [], path.is_dir() or not _is_study_file(path, columns)
    if not strange:
        _truncate_partial_line(path)
        rows = _read_rows(path)
    if strange or any((row["study"], row["version"]) != (name, _fingerprint(study)) for row in rows):
        raise UserError(
            f"out is {path}, but must be a new file or one of this study: it holds rows of another study or version."
        )
    return {(_variant_key(row, study), row["seed"]) for row in rows}


def _variant_key(row: dict, study: Study) -> tuple[str, ...]:
    "The settings of a row or variant as text, to compare them by."
    return tuple(str(row[key]) for key in study.variants[0])


def _run_one(job: tuple) -> dict:
    "One variant, one seed, on one thread, in a worker process."
    name, study, settings, seed = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    metrics = study.run(settings, seed)
    seconds = round(time.perf_counter() - start, 2)
    about = dict(
        zip(_META_COLUMNS, (name, _fingerprint(study), seed, seconds, _machine(), date.today().isoformat()))
    )
    return {
        **settings,
        **about,
        **{k: round(v, 6) if isinstance(v, float) else v for k, v in metrics.items()},
    }


def _machine() -> str:
    return f"one thread of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def _fingerprint(study: Study) -> str:
    "Hash of the study's definition and VERSION, to identify rows of another definition."
    definition = repr((VERSION, study.run.__name__, study.variants))
    return f"v{VERSION}-{zlib.crc32(definition.encode()):08x}"


def run_study(
    name: str,
    study: Study,
    out: str | Path,
    jobs: int = 1,
    seeds: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Run the missing variants and seeds of a study; an interrupted call can be repeated.

    Args:
        name: name of the study, written into every row
        study: what to run
        out: CSV file to create or continue
        jobs: number of worker processes
        seeds: runs of each variant; default: the study's own number
        progress: show a progress bar

    Returns:
        all rows of the file

    Raises:
        UserError: if the file holds rows of another study or version, or `jobs` or `seeds` is below 1
    """
    path = Path(out)
    seeds = study.seeds if seeds is None else seeds
    for what, number in (("jobs", jobs), ("seeds", seeds)):
        if number < 1:
            raise UserError(f"{what} is {number}, but must be 1 or more.")
    columns = [*study.variants[0], *_META_COLUMNS]
    if taken := set(study.variants[0]) & set(_META_COLUMNS):
        raise UserError(
            f"study has a setting {min(taken)!r}, but every row has a column of that name: rename the setting."
        )
    done = _finished_runs(path, name, study, columns)
    missing = [
        (name, study, variant, seed)
        for seed in range(seeds)  # seed by seed: a study stopped early is balanced
        for variant in study.variants
        if (_variant_key(variant, study), seed) not in done
    ]
    if missing:
        with get_context("spawn").Pool(jobs) as pool:
            runs = pool.imap_unordered(_run_one, missing)
            for row in tqdm(runs, total=len(missing), desc=name, disable=not _bar_visible(progress)):
                begun = path.exists() and path.stat().st_size > 0
                head = "" if begun else _csv_line({k: k for k in row})
                _append_text(path, head + _csv_line(row), sync=True)
    return _read_rows(path)


def mean_interval(values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its confidence interval, by Student's t distribution.

    The interval is made so that it contains the true mean in 95 of 100 repetitions with new seeds (for
    normally distributed values, and level 0.95). It is not the range in which the next mean would lie.

    Args:
        values: (n,) one value per seed
        level: confidence level

    Returns:
        mean, lower end, upper end; the ends are nan for a single value
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


class Difference(NamedTuple):
    """A mean difference of two variants with the same seeds."""

    mean: float  # mean over the seeds of second minus first
    low: float  # lower end of its 95 % confidence interval
    high: float  # upper end
    p: float  # p-value of the paired t-test that the true mean is 0
    seeds: int  # number of pairs

    def word(self, comparisons: int = 1) -> str:
        """Return how certain the sign is: clear, likely or unknown.

        Args:
            comparisons: number of comparisons made; "clear" needs p below 0.05 divided by it (Bonferroni)
        """
        return "clear" if self.p < 0.05 / comparisons else "likely" if self.p < 0.05 else "unknown"

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def paired_difference(first, second) -> Difference:
    """Mean of second minus first, taken within each seed, with its 95 % confidence interval and p-value.

    Args:
        first: (n,) one value per seed, n at least 2
        second: (n,) values of another variant with the same seeds
    """
    from scipy.stats import ttest_rel

    first, second = (np.asarray(values, dtype=float) for values in (first, second))
    p = float(ttest_rel(second, first).pvalue)
    return Difference(*mean_interval(second - first), p, len(first))


def by_variant(rows: list[dict], study: Study, metric: str) -> dict[tuple, np.ndarray]:
    """A metric of each variant, seed by seed; only seeds that all variants have.

    Args:
        rows: rows of the study
        study: its definition
        metric: column name

    Returns:
        settings as text -> (seeds,) values
    """
    found = {(_variant_key(row, study), row["seed"]): row[metric] for row in rows}
    keys = [_variant_key(variant, study) for variant in study.variants]
    seeds = sorted(set.intersection(*({seed for has, seed in found if has == key} for key in keys)))
    return {key: np.array([found[key, seed] for seed in seeds], dtype=float) for key in keys}


def study_table(rows: list[dict], study: Study, metric: str = "frechet") -> str:
    """Markdown table: mean of each variant, its paired difference to the first, and 95 % confidence intervals.

    Args:
        rows: rows of the study
        study: its definition
        metric: column name
    """
    values_of = by_variant(rows, study, metric)
    first = next(iter(values_of.values()))
    lines = [
        f"| {' '.join(study.variants[0])} | {metric} | 95 % CI | minus the first | 95 % CI | seeds |",
        "|---|---:|---|---:|---|---:|",
    ]
    for variant, values in values_of.items():
        mean, low, high = mean_interval(values)
        difference, below, above = mean_interval(values - first)
        cells = (
            " ".join(variant),
            f"{mean:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{difference:+.3f}",
            f"{below:+.3f} to {above:+.3f}",
        )
        lines.append(f"| {' | '.join(cells)} | {len(values)} |")
    return "\n".join(lines)
