"""Progress of a training run: steps, losses, log lines and sample images."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dit_nb.data import save_image
from dit_nb.distributed import _full_model, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.model import DiT
from dit_nb.utils import _bar_visible, _make_folder

__all__ = ["Logger", "Progress", "SampleImages"]


class Progress:
    """How far a run is: `step` (updates done), `seconds` (training time), `history` (each loss by name, per step)."""

    def __init__(self):
        self.step, self.seconds, self.history = 0, 0.0, {}
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
    """Reads the losses from the device every few steps, keeps them in the history, and shows and tracks them.

    Args:
        every: steps between two readings; one process alone reads at least twice a second
    """

    def __init__(self, every: int = 10):
        self.every, self.pending, self.reporter, self.read_at = every, [], None, 0.0

    @contextmanager
    def running(self, trainer, shown: bool) -> Iterator[None]:
        """Show progress and write the tracker's log while the body trains; read the last losses at its end.

        Args:
            trainer: the run
            shown: show a bar in a terminal or notebook, elsewhere a line per epoch
        """
        config, accelerator = trainer.config, trainer.accelerator
        if config.tracker and not accelerator.log_with:
            raise UserError("tracker is 'tensorboard', but that package is missing: pip install tensorboard.")
        if config.tracker and not accelerator.trackers:
            accelerator.init_trackers("logs")
        self.reporter = _Reporter(trainer, shown and accelerator.is_main_process)
        try:
            yield
            self.flush(trainer)
        finally:
            self.reporter.close()
            self.reporter = None

    def log(self, trainer, losses: dict[str, Tensor]) -> None:
        """Take the losses of a step; they stay on the device until the next reading.

        Args:
            trainer: the run
            losses: each loss by name, a tensor ()
        """
        self.pending.append(losses)
        waited = time.perf_counter() - self.read_at > 0.5 and trainer.accelerator.num_processes == 1
        if len(self.pending) >= self.every or waited or trainer.fraction >= 1:
            self.flush(trainer)

    def flush(self, trainer) -> None:
        """Read all losses that are still on the device. All ranks must call this.

        Raises:
            UserError: if a loss is not finite
        """
        if not self.pending:
            return
        rows, names = [torch.stack(list(losses.values())) for losses in self.pending], list(self.pending[0])
        mean = trainer.accelerator.reduce(torch.stack(rows), "mean")
        values = mean.tolist()  # the only wait for the device
        first, self.pending, self.read_at = trainer.progress.step - len(rows) + 1, [], time.perf_counter()
        for step, row in enumerate(values, start=first):
            self._record(trainer, step, dict(zip(names, row)))
        if self.reporter is not None:
            self.reporter.show()

    def _record(self, trainer, step: int, losses: dict[str, float]) -> None:
        if not math.isfinite(losses["loss"]):
            raise UserError(
                f"loss is {losses['loss']} at step {step}, but must be finite: "
                f"lr {trainer.config.lr} may be too high. Earlier checkpoints are untouched."
            )
        for name, value in losses.items():
            trainer.progress.history.setdefault(name, []).append(value)
        if trainer.config.tracker:
            trainer.accelerator.log(losses, step=step)
        if self.reporter is not None:
            self.reporter.add(losses["loss"])

    def log_image(self, trainer, image: np.ndarray) -> None:
        """Write an image to the run's folder and to the tracker's log.

        Args:
            trainer: the run
            image: (H, W, 3) uint8
        """
        step = trainer.progress.step
        if trainer.out:
            save_image(image, _make_folder(trainer.out / "samples") / f"step-{step:08d}.png")
        for tracker in trainer.accelerator.trackers:
            tracker.log_images({"samples": image[None]}, step=step, dataformats="NHWC")


class SampleImages:
    """Callback for `Trainer(on_step=...)`: log an image of samples of the averaged model.

    Args:
        every: updates between images; None for never
        sample: function from the averaged model to an image (H, W, 3) uint8
    """

    def __init__(self, every: int | None, sample: Callable[[DiT], np.ndarray]):
        self.every, self.sample = every, sample

    def __call__(self, trainer, losses: dict[str, Tensor]) -> None:
        """Sample if it is time. All ranks must call this."""
        if not self.every or trainer.progress.step % self.every:
            return
        model = _full_model(trainer.ema.model)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process:
                trainer.logger.log_image(trainer, self.sample(model))


class _Reporter:
    "Shows the progress of a trainer: a bar in a terminal or notebook, elsewhere a line per epoch."

    def __init__(self, trainer, shown: bool):
        self.trainer, self.shown, self.loss = trainer, shown, None
        self.first, self.start, self.epoch = trainer.progress.step, time.perf_counter(), -1
        self.bar = None
        if _bar_visible(shown):
            layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}"
            self.bar = tqdm(total=1.0, initial=trainer.fraction, desc="training", bar_format=layout)

    def add(self, loss: float) -> None:
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss

    def show(self) -> None:
        state, batch = self.trainer.progress, self.trainer.config.batch_size
        speed = (state.step - self.first) / (time.perf_counter() - self.start)
        text = f"step {state.step}  loss {self.loss:.4f}  {speed:.1f} steps/s"
        epoch = state.step * batch // len(self.trainer.data)
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(min(self.trainer.fraction, 1.0) - self.bar.n)
        elif self.shown and (epoch > self.epoch or self.trainer.fraction >= 1):
            left = state.seconds * (1 / self.trainer.fraction - 1)
            print(f"epoch {epoch}  {text}  {max(left, 0):.0f} s left", file=sys.stderr, flush=True)
        self.epoch = epoch

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
