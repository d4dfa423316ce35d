"""What a training run writes down: tables in CSV files, and an experiment tracker (TensorBoard or Weights & Biases)."""

import csv
import re
import secrets
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dit_nb.config import TrainConfig
from dit_nb.errors import UserError
from dit_nb.utils import _append_text, _atomic_write, _make_folder, _write_text

__all__ = ["RunLog"]


class _MetricsTable:
    """A CSV file of numbers by training step. A resumed run continues it, from its step on.

    Args:
        path: file to write; None writes nothing
    """

    def __init__(self, path: Path | None):
        self.path, self._columns = path, None

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append a row; rows of this step or later are removed before the first one.

        Args:
            step: updates done
            values: numbers by name, with the same names each time
        """
        if self.path is None:
            return
        if self._columns is None:
            self._columns = ["step", *values]
            self._keep_rows_before(step)
        numbers = (f"{value:.6g}" for value in values.values())
        _append_text(self.path, ",".join([str(step), *numbers]) + "\r\n")  # as the module csv ends a row

    def _keep_rows_before(self, step: int) -> None:
        "Start the file, with the rows of an earlier run that has the same columns."
        kept = [row for row in _read_numbers(self.path, self._columns) if int(row[0]) < step]
        with _atomic_write(self.path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self._columns, *kept])


_STEP = re.compile("[0-9]{1,12}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|-?inf|nan")  # as the format .6g writes it


def _read_numbers(path: Path, columns: list[str]) -> list[list[str]]:
    "Rows of a table of an earlier run that are whole; none if it has other columns. They hold numbers and no quotes."
    if not path.is_file():
        return []
    header, *rows = [line.split(",") for line in path.read_text("utf-8", "replace").splitlines()] or [[]]
    whole = lambda row: _STEP.fullmatch(row[0]) and all(map(_NUMBER.fullmatch, row[1:]))  # noqa: E731
    return [row for row in rows if header == columns and len(row) == len(columns) and whole(row)]


class RunLog:
    """The logs of a run: metrics.csv and validation.csv in its folder, and the tracker that its settings name.

    Args:
        accelerator: Accelerate's `Accelerator`, made with `log_with`
        config: settings of the run
        out: folder of the run; None writes no tables

    Raises:
        UserError: if the package of the tracker is missing
    """

    def __init__(self, accelerator, config: TrainConfig, out: Path | None):
        self.accelerator = accelerator
        folder = out if accelerator.is_main_process else None
        self._tables = {
            name: _MetricsTable(folder and folder / f"{name}.csv") for name in ("metrics", "validation")
        }
        if config.tracker is not None and not accelerator.trackers:
            _start_tracker(accelerator, config, out)

    def add(self, table: str, step: int, values: dict[str, float]) -> None:
        """Append a row to a table, and log it to the tracker.

        Args:
            table: metrics or validation
            step: updates done
            values: numbers by name
        """
        self._tables[table].add(step, values)
        if self.accelerator.trackers:
            prefix = "" if table == "metrics" else f"{table}/"
            self.accelerator.log({prefix + name: value for name, value in values.items()}, step=step)

    def add_image(self, step: int, image: np.ndarray) -> None:
        """Log an image of samples to the tracker.

        Args:
            step: updates done
            image: (H, W, 3) uint8
        """
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": image[None]}, step=step, **layout)

    def close(self) -> None:
        """Finish the tracker's log."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers = []


def _start_tracker(accelerator, config: TrainConfig, out: Path) -> None:
    "Start TensorBoard or Weights & Biases, with the settings of the run."
    kind = str(config.tracker)
    if find_spec(kind) is None:
        raise UserError(f"tracker is {kind!r}, but that package is missing: pip install {kind}.")
    if kind == "tensorboard":
        accelerator.init_trackers("logs")
    else:
        options = _wandb_options(out) if accelerator.is_main_process else {}
        accelerator.init_trackers("dit_nb", asdict(config), init_kwargs={kind: options})


def _wandb_options(out: Path) -> dict[str, Any]:
    "A resumed run continues the same run of Weights & Biases: its id is kept in the run's folder."
    file = _make_folder(out / "logs") / "wandb-id"
    if not file.exists():
        _write_text(file, secrets.token_hex(4))
    return {"dir": str(out / "logs"), "name": out.name, "id": _read_wandb_id(file), "resume": "allow"}


def _read_wandb_id(file: Path) -> str:
    text = file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
    if re.fullmatch("[0-9a-f]{8}", text) is None:
        raise UserError(
            f"{file} must hold the id of a run of Weights & Biases, but is damaged: "
            "remove it to start another run there."
        )
    return text
