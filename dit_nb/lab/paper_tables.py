"""What the paper found, from its own numbers: Gflops predict quality, parameters alone do not, and sampling longer does not make up for a small model."""

import csv
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.utils import check_choice

TABLES = ("table4", "headline", "decoder", "channels", "sampling", "baselines", "retrained")


def read_number(
    text: str,  # one cell
) -> int | float | str:
    "A number where the text is one."
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read_csv(
    text: str,  # of a CSV file
) -> list[dict]:  # a dict for each row
    "Rows by the names of their columns, numbers as numbers."
    return [
        {key: read_number(cell) for key, cell in row.items()} for row in csv.DictReader(text.splitlines())
    ]


def read_paper(
    table: str,  # one of TABLES
) -> list[dict]:  # one dict for each row; `source` says where in the paper it stands
    "One of the paper's tables."
    check_choice("table", table, TABLES)
    path = files("dit_nb.lab") / "results" / f"paper_{table}.csv"
    return read_csv(path.read_text(encoding="utf-8"))


def twelve() -> list[dict]:
    "The rows of Table 4 that differ in nothing but size and patch: adaLN-Zero, 256 pixels, 400 thousand steps."
    same = {"block": "adaln_zero", "pixels": 256, "steps_k": 400}
    return [row for row in read_paper("table4") if all(row[key] == value for key, value in same.items())]


def config_of(
    row: dict,  # of Table 4
) -> DiTConfig:
    "The model of a row."
    return DiTConfig.named(row["model"], block=row["block"], input_size=row["pixels"] // 8)


def gflops_of(
    row: dict,  # of Table 4
) -> float:
    "Our own count of a row's Gflops, by the paper's convention: a multiply-add counts once."
    return cost(config_of(row)).total_macs / 1e9


def params_of(
    row: dict,  # of Table 4
) -> float:  # in millions
    "Our own count of a row's parameters."
    return cost(config_of(row)).total_params / 1e6


def correlation(
    x,  # (n,) numbers
    y,  # (n,) numbers
) -> float:
    "Pearson's: 1 or -1 on a straight line, about 0 where x says nothing about y."
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
        raise ValueError(
            f"x and y have shapes {x.shape} and {y.shape}, but must be (n,), alike, with n 3 or more."
        )
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x**2).sum() * (y**2).sum())
    if size == 0:
        raise ValueError("x or y holds the same number throughout, but a correlation needs both to vary.")
    return float((x * y).sum() / size)


class Line(NamedTuple):
    "A straight line through points, and how far it may be trusted."

    slope: float
    intercept: float
    error: float  # standard error of the slope: how it moves as each point is left out in turn
    miss: float  # by how much a line through the others misses the point left out, root mean square

    def at(self, x: float) -> float:
        "The line's height at x."
        return self.slope * x + self.intercept


def fit_line(
    x,  # (n,) numbers, n at least 4
    y,  # (n,) numbers
) -> Line:
    "Least squares, with the jackknife's error."
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    n = len(x)
    if x.shape != y.shape or x.ndim != 1 or n < 4:
        raise ValueError(
            f"x and y have shapes {x.shape} and {y.shape}, but must be (n,), alike, with n 4 or more."
        )
    slope, intercept = np.polyfit(x, y, 1)
    others = [np.polyfit(np.delete(x, i), np.delete(y, i), 1) for i in range(n)]
    slopes = np.array([line[0] for line in others])
    missed = np.array([np.polyval(line, x[i]) - y[i] for i, line in enumerate(others)])
    error = np.sqrt((n - 1) / n * ((slopes - slopes.mean()) ** 2).sum())
    return Line(float(slope), float(intercept), float(error), float(np.sqrt((missed**2).mean())))


def training_compute(
    gflops: float,  # of one forward pass of one image
    steps: int,  # updates
    batch: int = 256,  # images in an update
) -> float:  # Gflops
    "What a training run costs by the paper's count: forward, and twice that for backward."
    return 3 * gflops * batch * steps


def sampling_compute(
    gflops: float,  # of one forward pass of one image
    steps: int,  # denoising steps
    guided: bool = False,  # two passes a step
) -> float:  # Gflops
    "What one image costs."
    return gflops * steps * (2 if guided else 1)
