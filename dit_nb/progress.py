"""Progress of a training run: steps, losses, log lines and sample images."""

import math
import sys
import time

import numpy as np
from tqdm.auto import tqdm

from dit_nb.data import save_image
from dit_nb.utils import _bar_visible, _make_folder

__all__ = ["Progress"]


class Progress:
    """How far a run is: `step` (updates done), `seconds` (training time), `history` (loss, mse and vb per step)."""

    def __init__(self):
        self.step, self.seconds, self.history = 0, 0.0, []


class _Logging:
    "The part of a trainer that logs losses and samples."

    def _start_tracking(self) -> None:
        if self.config.tracker and not self.accelerator.log_with:
            raise ValueError(
                "tracker is 'tensorboard', but that package is missing: pip install tensorboard."
            )
        if self.config.tracker:
            self.accelerator.init_trackers("logs")

    def log(self, losses: dict[str, float]) -> None:
        """Append the losses of a step to the history and to the TensorBoard log."""
        if not math.isfinite(losses["loss"]):
            raise ValueError(
                f"loss is {losses['loss']} at step {self.progress.step}, but must be finite: "
                f"lr {self.config.lr} may be too high. Earlier checkpoints are untouched."
            )
        self.progress.history.append((losses["loss"], losses["mse"], losses["vb"]))
        if self.config.tracker:
            self.accelerator.log(losses, step=self.progress.step)

    def _save_image(self, image: np.ndarray) -> None:  # (H, W, 3) uint8
        "Write an image of samples to the run's folder and to the TensorBoard log."
        if self.out:
            save_image(image, _make_folder(self.out / "samples") / f"step-{self.progress.step:08d}.png")
        for tracker in self.accelerator.trackers:
            tracker.log_images({"samples": image[None]}, step=self.progress.step, dataformats="NHWC")


class _Reporter:
    "Shows the progress of a trainer: a bar in a terminal or notebook, elsewhere a line per epoch."

    def __init__(self, trainer, shown: bool):
        self.trainer, self.shown, self.loss = trainer, shown, None
        self.first, self.start, self.epoch = trainer.progress.step, time.perf_counter(), -1
        self.bar = None
        if _bar_visible(shown):
            layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}"
            self.bar = tqdm(total=1.0, initial=trainer.fraction, desc="training", bar_format=layout)

    def update(self, losses: dict[str, float]) -> None:
        self.loss = losses["loss"] if self.loss is None else 0.98 * self.loss + 0.02 * losses["loss"]
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
