"""Functions for `Trainer(on_step=...)`: images of samples, and losses on held-out images, every few steps."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dit_nb.batches import BatchReader, ImageData, _largest_value
from dit_nb.distributed import _full_model, _raise_on_all_ranks
from dit_nb.model import DiT
from dit_nb.step_noise import StepNoise

__all__ = ["SampleImages", "Validation"]

_FIRST_STEP = 2**40  # validation uses the noise of steps that no run reaches
_BATCH_SIZE, _MOST_IMAGES = 64, 2048


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
        trainer.logger.flush(trainer)
        model = _full_model(trainer.ema.model)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process:
                trainer.logger.log_image(trainer, self.sample(model))


class Validation:
    """Callback for `Trainer(on_step=...)`: log the losses of the averaged model on held-out images.

    Each image has the same timesteps and noise every time, so two losses differ because of the weights alone.

    Args:
        every: updates between two losses; None for never
        data: held-out images, as for the `Trainer`; the first 2048 are used
        repeats: timesteps of each image
    """

    def __init__(self, every: int | None, data: ImageData, repeats: int = 4):
        self.every, self.data, self.repeats = every, data, repeats

    def __call__(self, trainer, losses: dict[str, Tensor]) -> None:
        """Compute and log the losses if it is time. All ranks must call this."""
        if not self.every or trainer.progress.step % self.every:
            return
        trainer.logger.flush(trainer)
        means = self.losses(trainer)
        with _raise_on_all_ranks():
            trainer.logger.log_validation(trainer, means)

    @torch.no_grad()
    def losses(self, trainer) -> dict[str, float]:
        """Return the mean of each loss on the held-out images. All ranks must call this.

        Args:
            trainer: the run
        """
        model, accelerator = _full_model(trainer.ema.model), trainer.accelerator
        indices = torch.arange(min(len(self.data), _MOST_IMAGES))
        sums: dict[str, Tensor] = {}
        with _raise_on_all_ranks():
            for i, part in enumerate(indices.split(_BATCH_SIZE)):
                if i % accelerator.num_processes == accelerator.process_index:
                    for name, loss in self._batch_losses(trainer, model, i, part.tolist()).items():
                        sums[name] = sums.get(name, 0) + loss.double().sum().cpu()
        return _sum_over_ranks(sums, len(indices) * self.repeats)

    def _batch_losses(self, trainer, model: DiT, number: int, indices: list[int]) -> dict[str, Tensor]:
        "Each loss of a batch by name, (repeats * B,), with the noise that belongs to the number of the batch."
        channels = trainer.raw_model.config.in_channels
        images, labels = BatchReader(self.data, largest=_largest_value(self.data, channels))(indices)
        repeat, device = (self.repeats, *[1] * (images.ndim - 1)), trainer.accelerator.device
        images = images.repeat(*repeat).to(device)
        labels = labels.repeat(self.repeats, *[1] * (labels.ndim - 1)).to(device)  # or ids of a text
        noise: StepNoise = trainer.noise(_FIRST_STEP + number, (len(images), *images.shape[-3:]))
        never = torch.zeros_like(noise.drop)
        noise = noise._replace(drop=never, flip=never).select(slice(None), device)
        return trainer.losses(images, labels, noise, model)


def _sum_over_ranks(sums: dict[str, Tensor], count: int) -> dict[str, float]:
    "The means of sums that each rank has a part of; a rank without images has none."
    from accelerate.utils import gather_object

    parts = gather_object([{name: float(value) for name, value in sums.items()}])
    names = next(part for part in parts if part)
    return {name: sum(part.get(name, 0.0) for part in parts) / count for name in names}
