"""Callbacks of a run: images of samples, and losses on held-out images with fixed noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_nb.callbacks import SampleImages, Validation
from dit_nb.data import digits
from dit_nb.step_noise import NoiseSource
from support_training import TRAIN, Latents, make_trainer


def test_images_of_samples(tmp_path):
    sampled_from = []

    def sample(model):
        sampled_from.append(model)
        return np.zeros((4, 4, 3), np.uint8)

    trainer = make_trainer(out=tmp_path, on_step=[SampleImages(2, sample), SampleImages(None, sample)])
    trainer.fit(progress=False)
    assert sampled_from == [trainer.ema.model] * 2
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["step-00000002.png", "step-00000004.png"]


def test_validation_has_the_same_noise_every_time():
    """Equal weights have equal losses at any step; other weights have others."""
    validation = Validation(1, digits().held_out, repeats=2)
    trainer = make_trainer()
    first = validation.losses(trainer)
    trainer.progress.step = 17
    assert validation.losses(trainer) == first and first.keys() == {"loss", "mse", "vb"}
    with torch.no_grad():
        trainer.ema.model.final_layer.linear.bias += 0.1
    assert validation.losses(trainer)["loss"] != first["loss"]
    assert trainer.raw_model.training, "the model in training stays in training mode"


def test_validation_is_the_mean_over_images():
    """Compared with a loop of its own over the images of two batches, 64 and 6, with all labels kept."""
    images, labels = digits().held_out.images[:70], digits().held_out.labels[:70]
    trainer, seen = make_trainer(replace(TRAIN, flip=True)), []
    real = trainer.diffusion.training_losses

    def losses(model, x0, t, y, noise):
        found = real(model, x0, t, y, noise=noise)
        seen.append((x0, y, found["loss"]))
        return found

    trainer.diffusion.training_losses = losses
    data = torch.utils.data.TensorDataset(images, labels)
    mean = Validation(1, data, repeats=3).losses(trainer)["loss"]
    assert [len(x0) for x0, _, _ in seen] == [192, 18]
    assert mean == pytest.approx(torch.cat([loss for _, _, loss in seen]).mean().item(), rel=1e-6)
    assert torch.equal(seen[0][0], images[:64].repeat(3, 1, 1, 1)), "nothing is mirrored"
    assert torch.equal(seen[1][1], labels[64:].repeat(3))


def test_validation_uses_the_noise_source_of_the_run():
    asked = []

    class Recording(NoiseSource):
        def __call__(self, step, shape):
            asked.append((step, shape))
            return super().__call__(step, shape)

    trainer = make_trainer(noise=Recording(0, 1000, 0.5))
    Validation(1, digits().held_out, repeats=1).losses(trainer)
    assert len(asked) == -(-len(digits().held_out) // 64) and min(step for step, _ in asked) >= 2**40


def test_validation_of_latents_samples_them():
    trainer = make_trainer(data=Latents())
    validation = Validation(1, Latents(), repeats=2)
    assert validation.losses(trainer) == validation.losses(trainer)
