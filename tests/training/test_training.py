"""Settings, learning rate, the gradient of one step, and the trainer; with an error for each wrong input."""

from dataclasses import replace

import pytest
import torch

from dit_nb import Diffusion, DiT
from dit_nb.data import ImageSet, digits
from dit_nb.step_noise import Batches, sample_step_noise
from dit_nb.training import TrainConfig, Trainer, learning_rate
from support import DEVICES, raises_input_error, tiny_config
from support_training import SHAPE, TRAIN, Latents, assert_same, fit, fit_case, make_trainer

# Settings

WRONG_SETTINGS = [
    (dict(steps=None), "steps.*None.*seconds.*None.*one must be given"),
    (dict(seconds=5.0), "steps.*3.*seconds.*5.0.*one must be given"),
    (dict(steps=0), "steps.*0"),
    (dict(steps=-3), "steps.*-3"),
    (dict(steps=2.5), "steps.*2.5"),
    (dict(steps=None, seconds=0.0), "seconds.*0"),
    (dict(batch_size=0), "batch_size.*0"),
    (dict(batch_size=2.5), "batch_size.*2.5"),
    (dict(grad_accum_steps=0), "grad_accum_steps.*0"),
    (dict(grad_accum_steps=-1), "grad_accum_steps.*-1"),
    (dict(grad_accum_steps=1.5), "grad_accum_steps.*1.5"),
    (dict(lr=0.0), "lr.*0"),
    (dict(lr=-1e-4), "lr.*-0.0001"),
    (dict(lr=float("nan")), "lr.*nan"),
    (dict(lr="1e-4"), "lr.*'1e-4'"),
    (dict(lr_schedule="linear"), "lr_schedule.*'linear'.*constant.*cosine"),
    (dict(warmup_steps=-1), "warmup_steps.*-1"),
    (dict(beta2=1.0), "beta2.*1.0"),
    (dict(weight_decay=-0.1), "weight_decay.*-0.1"),
    (dict(grad_clip=0.0), "grad_clip.*0"),
    (dict(ema_decay=1.0), "ema_decay.*1.0"),
    (dict(ema_decay=-0.1), "ema_decay.*-0.1"),
    (dict(precision="fp16"), "precision.*'fp16'.*auto.*fp32.*bf16"),
    (dict(save_every=0), "save_every.*0"),
    (dict(keep=0), "keep.*0"),
    (dict(sample_every=-1), "sample_every.*-1"),
    (dict(num_workers=-1), "num_workers.*-1"),
    (dict(tracker="paper"), "tracker.*'paper'.*tensorboard"),
]


@pytest.mark.parametrize("settings,pattern", WRONG_SETTINGS, ids=[pattern for _, pattern in WRONG_SETTINGS])
def test_wrong_settings(settings, pattern):
    with raises_input_error(pattern):
        TrainConfig(**{"steps": 3, **settings})


def test_learning_rate():
    plain = TrainConfig(steps=10, lr=2.0)
    assert [learning_rate(plain, step, step / 10) for step in (0, 5, 9)] == [2.0] * 3
    warm = TrainConfig(steps=10, lr=2.0, warmup_steps=4)
    assert [learning_rate(warm, step, 0) for step in (0, 1, 3, 4, 100)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    cosine = TrainConfig(steps=10, lr=2.0, lr_schedule="cosine")
    rates = [learning_rate(cosine, 0, fraction) for fraction in (0, 0.5, 1, 1.5)]
    assert rates == pytest.approx([2.0, 1.02, 0.04, 0.04])
    both = TrainConfig(steps=10, lr=2.0, lr_schedule="cosine", warmup_steps=2)
    assert learning_rate(both, 0, 0.5) == pytest.approx(0.51)


# A run


@pytest.fixture
def accelerate_on(monkeypatch):
    """Choose the device that Accelerate takes; it decides once per process."""
    from accelerate.state import PartialState

    def choose(device):
        monkeypatch.setenv("ACCELERATE_USE_CPU", str(device == "cpu").lower())
        PartialState._reset_state()

    yield choose
    PartialState._reset_state()


@pytest.mark.parametrize("device", DEVICES)
def test_digits_train(device, accelerate_on):
    accelerate_on(device)
    torch.manual_seed(0)
    fields = dict(input_size=8, in_channels=1, hidden_size=64, num_heads=4, num_classes=10, init="scaled")
    model = DiT(tiny_config(**fields))
    config = TrainConfig(steps=40, batch_size=64, lr=3e-3, precision="fp32" if device == "cpu" else "bf16")
    trainer = Trainer(model, Diffusion(bins=17), digits().train, config)
    average = trainer.fit(progress=False)
    assert {p.device.type for p in model.parameters()} == {device}
    losses = [loss for loss, _, _ in trainer.progress.history]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(1.02, abs=0.15)
    assert sum(losses[-5:]) / 5 < 0.85
    assert not average.training and not any(p.requires_grad for p in average.parameters())


def test_the_bias_of_the_keys_has_no_influence():
    """Which is why `without_key_bias` leaves it out when runs are compared."""
    model = make_trainer().raw_model.eval()
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 900]), torch.tensor([0, 5, 9])
    before = model(x, t, y)
    for block in model.blocks:
        block.attn.qkv.bias.data[32:64] += 1
    assert torch.allclose(model(x, t, y), before, atol=1e-5)


@pytest.fixture(scope="module")
def without_accumulation():
    """Each case without gradient accumulation."""
    made = {}
    return lambda name: made.setdefault(name, fit_case(name, accumulate=False))


@pytest.mark.parametrize("name", ["two micro-batches", "one image per micro-batch", "gradient checkpointing"])
def test_accumulation_changes_no_result(without_accumulation, name):
    assert_same(fit_case(name), without_accumulation(name))
    assert_same(fit_case(name), without_accumulation("plain"))
    start = make_trainer().raw_model.state_dict()
    trained = without_accumulation("plain")["weights"]
    assert max((trained[k] - start[k]).abs().max().item() for k in start) > 1e-3, "training moves the weights"


def gradients(config: TrainConfig) -> dict:
    """Gradients of the first update, neither clipped nor scaled: AdamW would hide a factor."""
    trainer, found = make_trainer(config), {}
    trainer.update = lambda: found.update({k: p.grad for k, p in trainer.raw_model.named_parameters()})
    trainer.train_step(*next(trainer.batches()))
    return {k: grad for k, grad in found.items() if grad is not None}


@pytest.mark.parametrize("micro_batches", [2, 8])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(micro_batches):
    batch, accumulated = gradients(TRAIN), gradients(replace(TRAIN, grad_accum_steps=micro_batches))
    assert batch.keys() == accumulated.keys()
    norm = sum(grad.square().sum() for grad in batch.values()).sqrt()
    assert sum((batch[k] - accumulated[k]).square().sum() for k in batch).sqrt() < 1e-6 * norm


def test_prefetched_noise_changes_no_result():
    """On a GPU the noise of the next step is sampled during the current one."""
    losses = []
    for prefetch in (False, True):
        trainer = make_trainer()
        batches = trainer.batches()
        for step in range(4):
            losses.append(trainer.train_step(*next(batches))["loss"])
            trainer.progress.step += 1
            noise = trainer._noise_for_step(step + 1, (1, 8, 8))
            trainer._prefetched = (step + 1, noise) if prefetch else None
    assert losses[:4] == losses[4:]


@pytest.mark.parametrize("flip", [False, True])
def test_latents_are_sampled_again_in_each_step(flip):
    """The model receives mean plus std times new noise, of the image or of its mirror image."""
    trainer, seen = make_trainer(replace(TRAIN, flip=flip, grad_accum_steps=2), data=Latents()), []
    real = trainer.diffusion.training_losses

    def losses(model, x0, t, y, noise):
        seen.append(x0)
        return real(model, x0, t, y, noise=noise)

    trainer.diffusion.training_losses = losses
    trainer.fit(progress=False)
    order = iter(Batches(12, 8, 0))
    for step in range(4):
        moments, _ = Latents().__getitems__(next(order))
        noise = sample_step_noise(0, step, (8, 1, 8, 8), 1000, 0.1, True)
        side = noise.flip.long() if flip else torch.zeros(8, dtype=torch.long)
        mean, std = moments[torch.arange(8), side].unbind(1)
        assert torch.allclose(torch.cat(seen[2 * step : 2 * step + 2]), mean + std * noise.posterior)


# Wrong input


@pytest.fixture
def on_cpu(accelerate_on):
    """Labels are checked there; on a GPU a wrong one would end the process."""
    accelerate_on("cpu")


def image_set(n: int = 12, channels: int = 1, scale: float = 1.0, last_label: int = 2) -> ImageSet:
    labels = torch.arange(n) % 3
    labels[-1:] = last_label
    return ImageSet(scale * torch.ones(n, channels, 8, 8), labels, tuple("abcde"))


def test_batch_size_that_cannot_be_split():
    for steps in (3, 16):
        with raises_input_error(f"batch_size is 8.*1 processes.*grad_accum_steps {steps}"):
            make_trainer(replace(TRAIN, grad_accum_steps=steps))


def test_an_error_in_a_worker_is_one_sentence():
    class Unreadable(Latents):
        def __getitems__(self, indices):
            raise ValueError("image 5.jpg cannot be read.")

    with pytest.raises(ValueError) as error:
        make_trainer(replace(TRAIN, num_workers=1), data=Unreadable()).fit(progress=False)
    assert str(error.value) == "image 5.jpg cannot be read."


def test_data_that_cannot_be_used(on_cpu):
    with raises_input_error("data.*empty"):
        make_trainer(data=image_set(0))
    with raises_input_error(r"data.*255.*\[-1, 1\]"):
        make_trainer(data=image_set(scale=255))
    with raises_input_error("TensorDataset without class_names"):
        make_trainer(data=torch.utils.data.TensorDataset(torch.zeros(1, 1, 8, 8), torch.zeros(1)))
    with raises_input_error(r"x.*\(8, 3, 8, 8\).*\(N, 1, 8, 8\)"):
        make_trainer(data=image_set(channels=3)).fit(progress=False)


@pytest.mark.parametrize("last", [4, 3])  # 3 is the null class of a model of 3 classes
def test_more_classes_than_the_model_has(on_cpu, last):
    with raises_input_error(r"class.*3|y.*4.*\[0, 3\]"):
        make_trainer(shape=replace(SHAPE, num_classes=3), data=image_set(last_label=last)).fit(progress=False)


def test_a_loss_that_is_not_finite_ends_the_run():
    data = image_set()
    trainer = make_trainer(data=data)
    data.images[:] = float("nan")  # after it was looked at
    with raises_input_error("loss.*nan.*step 1"):
        trainer.fit(progress=False)


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_out_folder_that_cannot_be_written(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with raises_input_error(f"out.*{tmp_path}/file.*cannot be written"):
        make_trainer(out=tmp_path / "file" / below)


def test_checkpoints_need_an_out_folder():
    with raises_input_error("out is None.*save_every 1"):
        trainer = make_trainer()
        Trainer(trainer.raw_model, Diffusion(), trainer.data, replace(TRAIN, save_every=1))


def test_a_run_of_seconds_stops():
    trainer = make_trainer(replace(TRAIN, steps=None, seconds=0.3))
    fit(trainer)
    assert trainer.progress.seconds >= 0.3 and trainer.progress.step >= 1
