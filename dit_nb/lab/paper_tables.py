"""The paper's tables as data, correlations and line fits, and the paper's count of compute."""

import csv
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.errors import UserError, _check_choice

__all__ = ["read_paper_table"]

_TABLES = ("table4", "headline", "decoder", "channels", "sampling", "baselines", "retrained")


def _parse_number(text: str) -> int | float | str:
    "An int or float if the text is one, else the text."
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _read_csv(text: str) -> list[dict]:
    "Rows of a CSV file as dicts, with numbers parsed."
    return [
        {key: _parse_number(cell) for key, cell in row.items()} for row in csv.DictReader(text.splitlines())
    ]


def read_paper_table(table: str) -> list[dict]:
    """One of the paper's tables.

    Args:
        table: name of the table: table4, headline, decoder, channels, sampling, baselines, retrained

    Returns:
        one dict per row; `source` tells where in the paper it stands

    Raises:
        UserError: if the name is unknown
    """
    _check_choice("table", table, _TABLES)
    path = files("dit_nb.lab") / "results" / f"paper_{table}.csv"
    return _read_csv(path.read_text(encoding="utf-8"))


def _comparable_rows() -> list[dict]:
    """The twelve rows of Table 4 that differ in size and patch only: adaLN-Zero, 256 pixels, 400 thousand steps."""
    same = {"block": "adaln_zero", "pixels": 256, "steps_k": 400}
    return [
        row for row in read_paper_table("table4") if all(row[key] == value for key, value in same.items())
    ]


def _row_config(row: dict) -> DiTConfig:
    """The model of a row of Table 4."""
    return DiTConfig.named(row["model"], block=row["block"], input_size=row["pixels"] // 8)


def _row_gflops(row: dict) -> float:
    """Gflops of a row of Table 4, counted by `cost`; as in the paper, a multiply-add counts once."""
    return cost(_row_config(row)).total_macs / 1e9


def _row_params(row: dict) -> float:
    """Millions of parameters of a row of Table 4, counted by `cost`."""
    return cost(_row_config(row)).total_params / 1e6


def _correlation(x, y) -> float:
    """Pearson's correlation coefficient.

    Args:
        x: (n,) numbers, n at least 3
        y: (n,) numbers

    Raises:
        UserError: if the shapes differ, or x or y is constant
    """
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
        raise UserError(
            f"x and y have shapes {x.shape} and {y.shape}, but must both be (n,) with n 3 or more."
        )
    for name, v in {"x": x, "y": y}.items():
        if (v == v[0]).all():
            raise UserError(f"{name} is {v[0]:g} everywhere, but must vary: the correlation is undefined.")
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


class _LineFit(NamedTuple):
    """A straight line fitted to points, with its uncertainty."""

    slope: float
    intercept: float
    half: float  # half width of the slope's 95 % confidence interval (least squares, Student's t)
    error: float  # standard error of the slope (jackknife)
    loo_rmse: float  # leave-one-out prediction error, root mean square

    def at(self, x: float) -> float:
        """Value of the line at x."""
        return self.slope * x + self.intercept


def _fit_line(x, y) -> _LineFit:
    """Least-squares line with two measures of the uncertainty of its slope.

    The least-squares interval assumes errors of equal variance, without a pattern; the jackknife does not.

    Args:
        x: (n,) numbers, n at least 4
        y: (n,) numbers

    Raises:
        UserError: if the shapes differ
    """
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    n = len(x)
    if x.shape != y.shape or x.ndim != 1 or n < 4:
        raise UserError(
            f"x and y have shapes {x.shape} and {y.shape}, but must both be (n,) with n 4 or more."
        )
    from scipy.stats import linregress, t

    slope, intercept = np.polyfit(x, y, 1)
    half = t.ppf(0.975, n - 2) * linregress(x, y).stderr
    others = [np.polyfit(np.delete(x, i), np.delete(y, i), 1) for i in range(n)]
    slopes = np.array([line[0] for line in others])
    residuals = np.array([np.polyval(line, x[i]) - y[i] for i, line in enumerate(others)])
    error = np.sqrt((n - 1) / n * ((slopes - slopes.mean()) ** 2).sum())
    return _LineFit(*map(float, (slope, intercept, half, error, np.sqrt((residuals**2).mean()))))


def _training_compute(gflops: float, steps: int, batch: int = 256) -> float:
    """Gflops of a training run, by the paper's count: a backward pass costs two forward passes.

    Args:
        gflops: Gflops of one forward pass of one image
        steps: number of updates
        batch: images per update
    """
    return 3 * gflops * batch * steps


def _sampling_compute(gflops: float, steps: int, guided: bool = False) -> float:
    """Gflops of sampling one image.

    Args:
        gflops: Gflops of one forward pass of one image
        steps: number of denoising steps
        guided: whether classifier-free guidance is used, which takes two passes per step
    """
    return gflops * steps * (2 if guided else 1)
