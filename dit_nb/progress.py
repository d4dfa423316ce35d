"""Progress of a training run: steps, losses, what a terminal or a log file shows, and what is written down."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dit_nb.data import save_image
from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.run_log import RunLog
from dit_nb.utils import _atomic_write, _bar_visible, _make_folder

__all__ = ["Logger", "Progress"]


class Progress:
    """How far a run is: `step` (updates done), `seconds` (training time), `history` (each loss by name, per step).

    `changes` lists the settings that were changed when the run was resumed, as sentences.
    """

    def __init__(self):
        self.step, self.seconds, self.history, self.changes = 0, 0.0, {}, []
        self._last = None  # time of the last update

    def start(self) -> None:
        """Start the clock: the time since the last update does not count."""
        self._last = time.perf_counter()

    def count(self) -> None:
        """Count one update, and the time since the last one or since `start`."""
        now = time.perf_counter()
        self.step, self.seconds, self._last = self.step + 1, self.seconds + now - (self._last or now), now

    def state(self) -> dict:
        """Return what a checkpoint keeps."""
        return {name: value for name, value in vars(self).items() if name != "_last"}


class Logger:
    """Reads the losses from the device every few steps, keeps them in the history, shows them, and writes the logs.

    Args:
        every: steps between two readings, and between two rows of the logs; one process alone reads at least twice
            a second. Several read together, so between two readings they show the numbers of the last one
    """

    def __init__(self, every: int = 10):
        self.every, self.pending, self.read_at = every, [], 0.0
        self.reporter: _Reporter | None = None
        self.run_log: RunLog | None = None
        self._since: list[dict[str, float]] = []  # what the next row of the logs is the mean of
        self._row_at = 0, 0.0  # step and seconds of the last row

    @contextmanager
    def running(self, trainer, shown: bool) -> Iterator[None]:
        """Show progress and write the logs while the body trains; read the last losses at its end.

        Args:
            trainer: the run
            shown: show a bar in a terminal or notebook, elsewhere a line every 10 seconds
        """
        with _raise_on_all_ranks():
            self.run_log = RunLog(trainer.accelerator, trainer.config, trainer.out)
        self.reporter = _Reporter(trainer, shown and trainer.accelerator.is_main_process)
        self._since, self._row_at = [], (trainer.progress.step, trainer.progress.seconds)
        try:
            yield
            self.flush(trainer)
        finally:
            self.reporter.close()
            self.run_log.close()
            self.reporter = self.run_log = None

    def log(self, trainer, losses: dict[str, Tensor]) -> None:
        """Take the losses of a step; they stay on the device until the next reading.

        Args:
            trainer: the run
            losses: each loss by name, a tensor ()
        """
        facts = {"seconds": trainer.progress.seconds, "lr": trainer.optimizer.param_groups[0]["lr"]}
        self.pending.append((facts, {"grad_norm": trainer.grad_norm, **losses}))
        alone = trainer.accelerator.num_processes == 1
        waited = alone and time.perf_counter() - self.read_at > 0.5
        if len(self.pending) >= self.every or waited or trainer.fraction >= 1:
            self.flush(trainer)
        elif self.reporter is not None and not alone:
            self.reporter.show()

    def flush(self, trainer) -> None:
        """Read all losses that are still on the device. All ranks must call this.

        Raises:
            UserError: if a loss is not finite, or a log cannot be written
        """
        if not self.pending:
            return
        facts, losses = zip(*self.pending)
        values = torch.stack([torch.stack([*row.values()]) for row in losses])
        values = trainer.accelerator.reduce(values, "mean").tolist()  # the only wait for the device
        self.pending, self.read_at = [], time.perf_counter()
        with _raise_on_all_ranks():
            for step, fact, row in zip(count(trainer.progress.step - len(facts) + 1), facts, values):
                self._record(trainer, step, fact, dict(zip(losses[0], row)))
        if self.reporter is not None:
            self.reporter.show()

    def _record(self, trainer, step: int, facts: dict, losses: dict[str, float]) -> None:
        "Take the numbers of one step: into the history, and every few steps as means into the logs."
        if not math.isfinite(losses["loss"]):
            raise UserError(
                f"loss is {losses['loss']} at step {step}, but must be finite: {_advice(trainer)}"
            )
        for name, value in losses.items():
            if name != "grad_norm":
                trainer.progress.history.setdefault(name, []).append(value)
        if self.reporter is None or self.run_log is None:  # a loop of the user's own
            return
        self.reporter.add(losses["loss"], {**facts, **losses})
        self._since.append(losses)
        if step % self.every == 0 or step == trainer.config.steps:
            self.run_log.add("metrics", step, self._mean_row(trainer, step, facts))

    def _mean_row(self, trainer, step: int, facts: dict) -> dict[str, float]:
        "The means since the last row."
        (last, seconds), rows = self._row_at, self._since
        images = (step - last) * trainer.config.batch_size
        speed = images / max(facts["seconds"] - seconds, 1e-9)
        self._since, self._row_at = [], (step, facts["seconds"])
        means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        return {**facts, "images_per_second": speed, **means}

    def log_validation(self, trainer, losses: dict[str, float]) -> None:
        """Show the losses on held-out images, and write them to the logs.

        Args:
            trainer: the run
            losses: mean of each loss by name
        """
        if self.reporter is not None and self.run_log is not None:
            self.reporter.validation = losses["loss"]
            self.run_log.add("validation", trainer.progress.step, losses)

    def log_image(self, trainer, image: np.ndarray) -> None:
        """Write an image to the run's folder and to the tracker's log.

        Args:
            trainer: the run
            image: (H, W, 3) uint8
        """
        step = trainer.progress.step
        if trainer.out:
            path = _make_folder(trainer.out / "samples") / f"step-{step:08d}.png"
            with _atomic_write(path) as draft:
                save_image(image, draft)
        if self.run_log is not None:
            self.run_log.add_image(step, image)


def _advice(trainer) -> str:
    "What to do about numbers that are not finite."
    text = f"lr {trainer.config.lr} may be too high."
    if trainer.config.save_every:
        text += (
            " Resume from the last checkpoint with a smaller lr, and name it in change; if the loss is soon "
        )
        text += "not finite again, remove that checkpoint, so that the run resumes from an earlier one."
    return text


class _Reporter:
    "Shows the progress of a trainer: a bar in a terminal or notebook, elsewhere a line every 10 seconds."

    def __init__(self, trainer, shown: bool):
        self.trainer, self.shown, self.validation = trainer, shown, None
        self.loss, self.facts = None, {}  # smoothed; numbers of the last step
        self.first, self.start, self.printed = trainer.progress.step, time.perf_counter(), -math.inf
        self.bar = None
        if _bar_visible(shown):
            layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}"
            self.bar = tqdm(total=1.0, initial=trainer.fraction, desc="training", bar_format=layout)

    def add(self, loss: float, facts: dict[str, float]) -> None:
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        self.facts = facts

    def show(self) -> None:
        done, now = self.trainer.fraction, time.perf_counter()
        if self.bar is not None:
            self.bar.set_postfix_str(self._text(now), refresh=False)
            self.bar.update(min(done, 1.0) - self.bar.n)
        elif self.shown and (now - self._last_shown() >= 10 or done >= 1):
            left = self.trainer.progress.seconds * (1 / done - 1)
            print(f"{self._text(now)}  {max(left, 0):.0f} s left", file=sys.stderr, flush=True)
            self.printed = now

    def _last_shown(self) -> float:
        "Time of the last line. Before any, the losses are shown at once; without losses, 10 seconds pass first."
        return max(self.printed, -math.inf if self.facts else self.start)

    def _text(self, now: float) -> str:
        state, config = self.trainer.progress, self.trainer.config
        speed = (state.step - self.first) * config.batch_size / (now - self.start)
        total = "" if config.steps is None else f"/{config.steps}"
        return f"step {state.step}{total}{self._losses()}  {speed:.0f} images/s"

    def _losses(self) -> str:
        "The numbers of the last reading; nothing before the first one."
        if self.loss is None:
            return ""
        facts = "  ".join(f"{name.replace('_', ' ')} {self.facts[name]:.2g}" for name in ("grad_norm", "lr"))
        held_out = "" if self.validation is None else f"  validation loss {self.validation:.4f}"
        return f"  loss {self.loss:.4f}{held_out}  {facts}"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
