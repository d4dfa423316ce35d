"""The paper's questions, asked again with models that train in a minute or so. And how an experiment is made so that its answer can be believed."""

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

from dit_nb.lab.paper_tables import read_csv
from dit_nb.utils import show_bar

VERSION = 1


class Study(NamedTuple):
    "A question, and all the runs that will answer it."

    question: str
    arms: list[dict]  # settings; all with the same keys
    run: Callable[[dict, int], dict]  # settings and seed -> metrics
    seeds: int = 5  # runs of each arm
    fast: dict = {}  # settings to be added to each arm where a study is only to be seen running


def toy(settings: dict, seed: int) -> dict[str, float]:
    "A run that takes no time, for trying the machinery."
    time.sleep(settings.get("sleep", 0))
    return {"value": settings["level"] + np.random.default_rng(seed).normal()}


# What every line has, beside settings and metrics.
ABOUT = ("study", "version", "seed", "seconds", "machine", "date")


def line(row: dict) -> str:
    "A row as a line of a CSV file."
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row.values())
    return text.getvalue()


def read_rows(path: str | Path) -> list[dict]:
    "The rows of a study, numbers as numbers."
    return read_csv(Path(path).read_text(encoding="utf-8"))


def repair(path: Path) -> None:
    "Cut off a last line that was not written to its end."
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)


def done_already(path: Path, name: str, study: Study, columns: list[str]) -> set[tuple]:
    "Which arms and seeds are in the file. Raises ValueError where its lines are not of this study."
    if not path.exists():
        return set()
    repair(path)
    rows = read_rows(path)
    head = path.read_text(encoding="utf-8").split("\n", 1)[0]
    strange = head and head.split(",")[: len(columns)] != columns
    if strange or any((row["study"], row["version"]) != (name, fingerprint(study)) for row in rows):
        raise ValueError(
            f"out {path} holds lines of another study or version: move it away, or choose another file."
        )
    return {(arm_of(row, study), row["seed"]) for row in rows}


def arm_of(row: dict, study: Study) -> tuple[str, ...]:
    "The settings in a row, or in an arm, as text: how an arm is told from the others."
    return tuple(str(row[key]) for key in study.arms[0])


def one_run(job: tuple) -> dict:
    "What a worker does: one arm, one seed, on one thread."
    name, study, settings, seed = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    metrics = study.run(settings, seed)
    seconds = round(time.perf_counter() - start, 2)
    about = dict(zip(ABOUT, (name, fingerprint(study), seed, seconds, machine(), date.today().isoformat())))
    return {
        **settings,
        **about,
        **{k: round(v, 6) if isinstance(v, float) else v for k, v in metrics.items()},
    }


def machine() -> str:
    "What the lines say about where they were made."
    return f"one thread of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def fingerprint(study: Study) -> str:
    "What a line says about the study that it belongs to: another grid or another VERSION has another one."
    said = repr((VERSION, study.run.__name__, study.arms))
    return f"v{VERSION}-{zlib.crc32(said.encode()):08x}"


def run_study(
    name: str,  # goes into every line
    study: Study,
    out: str | Path,  # a CSV file: is made, or gone on with
    jobs: int = 1,  # processes
    seeds: int | None = None,  # runs of each arm; the study's own number by default
    progress: bool = True,
) -> list[dict]:  # all rows
    "Run what is not in the file yet. Kill it at any moment and start it again."
    path = Path(out)
    seeds = study.seeds if seeds is None else seeds
    for what, number in (("jobs", jobs), ("seeds", seeds)):
        if number < 1:
            raise ValueError(f"{what} is {number}, but must be 1 or more.")
    columns = [*study.arms[0], *ABOUT]
    if taken := set(study.arms[0]) & set(ABOUT):
        raise ValueError(
            f"study has a setting {min(taken)!r}, but every line already has a column of that name."
        )
    done = done_already(path, name, study, columns)
    missing = [
        (name, study, arm, seed)
        for seed in range(seeds)  # seed by seed: a study that is stopped early is still balanced
        for arm in study.arms
        if (arm_of(arm, study), seed) not in done
    ]
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        with get_context("spawn").Pool(jobs) as pool, path.open("a", encoding="utf-8") as file:
            runs = pool.imap_unordered(one_run, missing)
            for row in tqdm(runs, total=len(missing), desc=name, disable=not show_bar(progress)):
                file.write(("" if file.tell() else line({k: k for k in row})) + line(row))
                file.flush()
                os.fsync(file.fileno())
    return read_rows(path)


def interval(
    values,  # (n,) one for each seed
    level: float = 0.95,
) -> tuple[float, float, float]:  # mean, low, high
    "The mean, and where it would lie with other seeds: Student's t, for few of them."
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def by_arm(rows: list[dict], study: Study, metric: str) -> dict[tuple, np.ndarray]:  # settings -> (seeds,)
    "A metric of each arm, seed by seed; only seeds that all arms have."
    found = {(arm_of(row, study), row["seed"]): row[metric] for row in rows}
    arms = [arm_of(arm, study) for arm in study.arms]
    seeds = sorted(set.intersection(*({seed for has, seed in found if has == arm} for arm in arms)))
    return {arm: np.array([found[arm, seed] for seed in seeds], dtype=float) for arm in arms}


def study_table(rows: list[dict], study: Study, metric: str = "frechet") -> str:
    "Mean and interval of each arm, and its difference to the first arm within each seed, as Markdown."
    arms = by_arm(rows, study, metric)
    first = next(iter(arms.values()))
    lines = [
        f"| {' '.join(study.arms[0])} | {metric} | 95 % | less the first arm | 95 % | seeds |",
        "|---|---:|---|---:|---|---:|",
    ]
    for arm, values in arms.items():
        mean, low, high = interval(values)
        apart, below, above = interval(values - first)
        cells = (
            " ".join(arm),
            f"{mean:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{apart:+.3f}",
            f"{below:+.3f} to {above:+.3f}",
        )
        lines.append(f"| {' | '.join(cells)} | {len(values)} |")
    return "\n".join(lines)
