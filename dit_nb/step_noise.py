"""All random numbers of a training step, as a function of the seed and the step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.config import _document_fields
from dit_nb.utils import seeded_generator

__all__ = ["NoiseSource", "StepNoise", "sample_step_noise"]


class StepNoise(NamedTuple):
    """All random numbers of one training step, for a batch or for a part of it."""

    t: Tensor  # (N,) timesteps, 0 to T - 1; for flow matching times in (0, 1)
    noise: Tensor  # (N, C, H, W) standard normal noise
    drop: Tensor  # (N,) bool, labels to drop
    flip: Tensor  # (N,) bool, images to mirror
    posterior: Tensor | None = None  # (N, C, H, W) standard normal, to sample latents with (lesson 20)

    def select(self, which: slice | Tensor, device: torch.device | None = None) -> "StepNoise":
        """Return the numbers of some images of the batch.

        Args:
            which: positions of the images in the batch
            device: device of the result; the current one by default
        """
        return StepNoise(*(None if a is None else a[which].to(device) for a in self))


def sample_step_noise(
    seed: int,
    step: int,
    shape: tuple[int, ...],
    num_timesteps: int,
    dropout_prob: float,
    posterior: bool = False,
    sample_times: Callable[[int, torch.Generator], Tensor] | None = None,
) -> StepNoise:
    """Sample the random numbers of one step, the same on every device and for any number of processes.

    Args:
        seed: seed of the run
        step: updates done
        shape: (N, C, H, W) of the batch over all processes
        num_timesteps: T of the diffusion
        dropout_prob: probability of dropping a label
        posterior: whether the data are latents, which are sampled again in each step
        sample_times: function (N, generator) to times (N,), instead of uniform timesteps
    """
    rng, n = seeded_generator(seed, 1, step), shape[0]
    return StepNoise(
        t=sample_times(n, rng) if sample_times else torch.randint(num_timesteps, (n,), generator=rng),
        noise=torch.randn(shape, generator=rng),
        drop=torch.rand(n, generator=rng) < dropout_prob,
        flip=torch.rand(n, generator=rng) < 0.5,
        posterior=torch.randn(shape, generator=rng) if posterior else None,  # last: the others do not change
    )


@_document_fields
@dataclass(frozen=True)
class NoiseSource:
    """The noise of every step of a run: `noise(step, shape)`. A subclass may sample other timesteps or noise.

    The keys (seed, 0), ..., (seed, 4) of `seeded_generator` are used by the package: take others.
    """

    seed: int  # seed of the run
    num_timesteps: int  # timesteps of the diffusion, T
    dropout_prob: float = 0.0  # probability of dropping a label
    latents: bool = False  # whether the data are moments of latents, which are sampled again in each step
    sample_times: Callable | None = None  # function (N, generator) to times (N,); none: uniform timesteps

    def __call__(self, step: int, shape: tuple[int, ...]) -> StepNoise:
        """Sample the noise of a step for the images of all processes, as a function of the seed and the step.

        Args:
            step: updates done
            shape: (N, C, H, W) of the batch over all processes
        """
        fields = (self.num_timesteps, self.dropout_prob, self.latents, self.sample_times)
        return sample_step_noise(self.seed, step, shape, *fields)
