"""A run may be killed at any moment, and shared by any number of processes. What comes out is the same."""

import math
import sys
import time

import numpy as np
from tqdm.auto import tqdm

from dit_nb.data import save_image
from dit_nb.utils import make_folder, show_bar


class Progress:
    "How far a run has come."

    def __init__(self):
        self.step, self.seconds, self.history = 0, 0.0, []


class Logging:
    "The part of a trainer that remembers losses and shows samples."

    def start_tracking(self) -> None:
        "Open the TensorBoard log, if one is wanted."
        if self.config.tracker and not self.accelerator.log_with:
            raise ValueError(
                "tracker is 'tensorboard', but that package is missing: pip install tensorboard."
            )
        if self.config.tracker:
            self.accelerator.init_trackers("logs")

    def log(self, losses: dict[str, float]) -> None:
        "Remember the losses of a step; stop where they are no longer numbers."
        if not math.isfinite(losses["loss"]):
            raise ValueError(
                f"loss is {losses['loss']} at step {self.progress.step}: lr {self.config.lr} may be too high. "
                "Earlier checkpoints are untouched."
            )
        self.progress.history.append((losses["loss"], losses["mse"], losses["vb"]))
        if self.config.tracker:
            self.accelerator.log(losses, step=self.progress.step)

    def save_picture(self, picture: np.ndarray) -> None:
        "Write a sample picture to the run's folder and to the log."
        if self.out:
            save_image(picture, make_folder(self.out / "samples") / f"step-{self.progress.step:08d}.png")
        for tracker in self.accelerator.trackers:
            tracker.log_images({"samples": picture[None]}, step=self.progress.step, dataformats="NHWC")


class Reporter:
    "Tells a person how a run is doing: a bar where it can be redrawn, elsewhere a line per epoch."

    def __init__(
        self,
        trainer,  # a Trainer
        shown: bool,
    ):
        self.trainer, self.shown, self.loss = trainer, shown, None
        self.first, self.start, self.epoch = trainer.progress.step, time.perf_counter(), -1
        self.bar = None
        if show_bar(shown):
            layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
            self.bar = tqdm(total=1.0, initial=trainer.fraction, desc="training", bar_format=layout)

    def update(self, losses: dict[str, float]) -> None:
        "After each step."
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
        "After the last step."
        if self.bar is not None:
            self.bar.close()
