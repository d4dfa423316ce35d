"""Settings, learning rate, the gradient of one step, and the trainer; with an error for each wrong input."""

import ast
import gc
import inspect
import textwrap
import warnings
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from dit_nb import Diffusion, DiT, SamplingConfig, TrainConfig, sample_images
from dit_nb.batches import Batches
from dit_nb.data import ImageSet, digits
from dit_nb.errors import UserError
from dit_nb.step_noise import NoiseSource, sample_step_noise
from dit_nb.training import Trainer, learning_rate
from support import DEVICES, error_cases, raises_input_error, tiny_config
from support_training import HALFWAY, SHAPE, TRAIN, Latents, assert_same, fit, fit_case, make_trainer

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
    (dict(precision="fp8"), "precision.*'fp8'.*auto.*fp32.*bf16.*fp16"),
    (dict(save_every=0), "save_every.*0"),
    (dict(keep=0), "keep is 0"),
    (dict(keep_every=0), "keep_every.*0"),
    (dict(save_every=10, keep_every=25), "keep_every is 25.*save_every, 10"),
    (dict(validate_every=0), "validate_every.*0"),
    (dict(sample_every=-1), "sample_every.*-1"),
    (dict(log_every=0), "log_every.*0"),
    (dict(num_workers=-1), "num_workers.*-1"),
    (dict(tracker="paper"), "tracker.*'paper'.*tensorboard.*wandb"),
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
    losses = trainer.progress.history["loss"]
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
    trainer, found = make_trainer(replace(config, grad_clip=None)), {}
    named = dict(trainer.raw_model.named_parameters())
    trainer.optimizer.step = lambda: found.update(
        {k: p.grad.clone() for k, p in named.items() if p.requires_grad}
    )
    trainer.step(next(trainer.batches()))
    return {k: grad for k, grad in found.items() if grad is not None}


@pytest.mark.parametrize("micro_batches", [2, 8])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(micro_batches):
    batch, accumulated = gradients(TRAIN), gradients(replace(TRAIN, grad_accum_steps=micro_batches))
    assert batch.keys() == accumulated.keys()
    norm = sum(grad.square().sum() for grad in batch.values()).sqrt()
    assert sum((batch[k] - accumulated[k]).square().sum() for k in batch).sqrt() < 1e-6 * norm


# One step, and the loop


def length(function) -> int:
    """Lines of a function without its docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    document = tree.body[0]
    assert isinstance(document, ast.Expr) and isinstance(document.value, ast.Constant)
    return tree.end_lineno - tree.lineno + 1 - (document.end_lineno - document.lineno + 1)


def test_the_trainer_is_one_class_whose_step_and_loop_fit_on_a_screen():
    assert Trainer.__bases__ == (object,)
    assert length(Trainer.step) <= 25 and length(Trainer.fit) <= 25


def test_a_step_counts_itself():
    """Called twice with one batch: other noise, and two steps."""
    trainer, seen = make_trainer(), []
    real = trainer.losses
    trainer.losses = lambda x0, y, noise: seen.append(noise) or real(x0, y, noise)
    batch = next(trainer.batches())
    trainer.step(batch), trainer.step(batch)
    assert trainer.progress.step == 2
    for noise, step in zip(seen, (0, 1)):
        wanted = sample_step_noise(0, step, (8, 1, 8, 8), 1000, 0.1)
        assert all(torch.equal(a, b) for a, b in zip(noise[:4], wanted[:4]))
    assert not torch.equal(seen[0].t, seen[1].t) and not torch.equal(seen[0].noise, seen[1].noise)


def test_a_step_needs_nothing_before_it():
    """Neither `batches()` nor `fit`: any images and labels will do."""
    trainer, before = make_trainer(), make_trainer().raw_model.state_dict()
    losses = trainer.step((digits().train.images[:8], digits().train.labels[:8]))
    assert losses.keys() == {"loss", "mse", "vb"}
    assert all(value.shape == () and not value.requires_grad for value in losses.values())
    weights = trainer.raw_model.state_dict()
    assert max((weights[k] - before[k]).abs().max() for k in before) > 1e-4
    assert trainer.ema.updates == trainer.progress.step == 1


def test_batches_begin_where_the_run_is_when_the_first_is_asked_for(tmp_path):
    "Not where it was when `batches` was called: they would meet the noise of other steps."
    make_trainer(HALFWAY, out=tmp_path).fit(progress=False)
    early, late = (make_trainer(TRAIN, out=tmp_path) for _ in range(2))
    batches = early.batches()
    for trainer in (early, late):
        trainer.resume(["steps"])
    assert all(torch.equal(a, b) for a, b in zip(next(batches), next(late.batches())))


def test_a_loss_of_the_name_of_a_column_is_refused():
    class Named(Diffusion):
        def training_losses(self, *args, **options):
            return {**super().training_losses(*args, **options), "lr": torch.ones(8)}

    trainer = Trainer(DiT(SHAPE), Named(bins=17), digits().train, replace(TRAIN, save_every=None))
    with raises_input_error("training_losses returned lr"):
        trainer.step(next(trainer.batches()))


def test_a_loop_of_ones_own_equals_fit():
    fitted, own = make_trainer(), make_trainer()
    fitted.fit(progress=False)
    batches, losses = own.batches(), []
    while own.fraction < 1:
        losses.append(own.step(next(batches))["loss"].item())
    assert losses == fitted.progress.history["loss"]
    pairs = zip(own.ema.model.parameters(), fitted.ema.model.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_micro_batches_are_averaged_in_the_losses():
    batch = next(make_trainer().batches())
    whole, parts = (make_trainer(replace(TRAIN, grad_accum_steps=n)).step(batch) for n in (1, 4))
    for name, value in whole.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_callbacks_are_called_in_order(tmp_path):
    calls = []

    def on_step(name):
        return lambda trainer, losses: calls.append((name, trainer.progress.step, sorted(losses)))

    def saved(trainer, folder):
        assert (folder / "model.safetensors").exists()
        calls.append(("saved", trainer.progress.step, folder.name))

    parts = {"on_step": [on_step("first"), on_step("second")], "on_save": (saved,)}
    trainer = make_trainer(out=tmp_path, **parts)  # 4 steps, a checkpoint every 2
    trainer.fit(progress=False)
    names = ["loss", "mse", "vb"]
    wanted = []
    for step in (1, 2, 3, 4):
        wanted += [("first", step, names), ("second", step, names)]
        wanted += [("saved", step, f"step-0000000{step}")] if step % 2 == 0 else []
    assert calls == wanted
    trainer.save()
    assert calls[len(wanted) :] == [("saved", 4, "step-00000004")]


class Velocity:
    """An objective of one's own: rectified flow, with t in [0, 1], and losses by its own names."""

    num_timesteps = 1000

    def __init__(self):
        self.times = []

    def training_losses(self, model, x0, t, y, *, noise):
        self.times.append(t)
        s = t.view(-1, 1, 1, 1)
        velocity = model((1 - s) * x0 + s * noise, 1000 * t, y)
        error = (velocity - (noise - x0)).square().flatten(1).mean(1)
        return {"loss": error, "twice": 2 * error}


class UniformTimes(NoiseSource):
    """Timesteps as real numbers in [0, 1]."""

    def __call__(self, step, shape):
        noise = super().__call__(step, shape)
        return noise._replace(t=(noise.t + 0.5) / self.num_timesteps)


def test_an_objective_and_a_noise_source_of_ones_own(tmp_path):
    def trainer(out):
        torch.manual_seed(0)
        model = DiT(replace(SHAPE, learn_sigma=False))
        config = replace(TRAIN, flip=False)
        noise = UniformTimes(config.seed, 1000, 0.1)
        return Trainer(model, Velocity(), digits().train, config, out, noise=noise)

    run = trainer(tmp_path / "a")
    run.fit(progress=False)
    history = run.progress.history
    assert history.keys() == {"loss", "twice"} and len(history["loss"]) == 4
    assert history["twice"] == pytest.approx([2 * loss for loss in history["loss"]])
    times = torch.cat(run.diffusion.times)
    assert times.dtype == torch.float32 and 0 < times.min() < times.max() < 1
    half = trainer(tmp_path / "b")
    half.config = replace(half.config, steps=2)
    half.fit(progress=False)
    resumed = trainer(tmp_path / "b")
    resumed.resume()
    resumed.fit(progress=False)
    assert resumed.progress.history == history


class Plain(Dataset):
    """A data set as a user writes it."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return digits().train.images[i], int(digits().train.labels[i])


DATA = {
    "TensorDataset": lambda d: TensorDataset(d.images[:20], d.labels[:20]),
    "Subset": lambda d: Subset(d, range(20)),
    "ConcatDataset": lambda d: ConcatDataset([Subset(d, range(7)), Subset(d, range(7, 20))]),
    "plain Dataset": lambda d: Plain(),
}


@pytest.mark.parametrize("make", DATA.values(), ids=DATA)
def test_any_map_style_data_set_trains_alike(make):
    train = digits().train
    in_memory = ImageSet(train.images[:20], train.labels[:20], train.class_names)
    a, b = (make_trainer(data=data) for data in (in_memory, make(train)))
    assert_same(fit(a), fit(b), tolerance=1e-12)


def switches() -> dict:
    """Settings that hold for the whole process."""
    cuda = torch.backends.cuda
    return {
        "float32": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "attention": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "frozen objects": gc.get_freeze_count(),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "largest image": Image.MAX_IMAGE_PIXELS,
        "warnings": list(warnings.filters),
    }


def test_training_and_sampling_change_no_setting_of_the_process():
    make_trainer().fit(progress=False)  # what is imported on first use
    trainer = make_trainer()
    before = switches()
    average = trainer.fit(progress=False)
    trained = switches()
    sample_images(average, SamplingConfig(bins=17, steps="3", cfg_scale=2.0), [1, 2], progress=False)
    sampled = switches()
    for name, value in before.items():
        assert trained[name] == value and sampled[name] == value, name


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
        moments, _ = Latents().get_batch(next(order))
        noise = sample_step_noise(0, step, (8, 1, 8, 8), 1000, 0.1, True)
        side = noise.flip.long() if flip else torch.zeros(8, dtype=torch.long)
        mean, std = moments[torch.arange(8), side].unbind(1)
        assert torch.allclose(torch.cat(seen[2 * step : 2 * step + 2]), mean + std * noise.posterior)


# Wrong input


@pytest.fixture
def on_cpu(accelerate_on):
    """Labels are checked there; on a GPU a wrong one would end the process."""
    accelerate_on("cpu")


def image_set(n: int = 12, channels: int = 1, last_label: int = 2) -> ImageSet:
    labels = torch.arange(n) % 3
    labels[-1:] = last_label
    return ImageSet(torch.ones(n, channels, 8, 8), labels, tuple("abcde"))


def test_batch_size_that_cannot_be_split():
    for steps in (3, 16):
        with raises_input_error(f"batch_size is 8.*1 processes.*grad_accum_steps {steps}"):
            make_trainer(replace(TRAIN, grad_accum_steps=steps))


def test_an_error_in_a_worker_is_one_sentence():
    class Unreadable(Latents):
        def get_batch(self, indices):
            raise UserError("image 5.jpg cannot be read.")

    with pytest.raises(ValueError) as error:
        make_trainer(replace(TRAIN, num_workers=1), data=Unreadable()).fit(progress=False)
    assert str(error.value) == "image 5.jpg cannot be read."


def test_data_that_cannot_be_used(on_cpu):
    with raises_input_error("data.*empty"):
        make_trainer(data=image_set(0))
    with raises_input_error(r"data.*255.*\[-1, 1\]"):
        make_trainer(data=[(torch.full((1, 8, 8), 255.0), 0)] * 4)
    with raises_input_error(r"data.*\(3, 8, 8\).*\(1, 8, 8\)"):
        make_trainer(data=image_set(channels=3))
    with raises_input_error("data is a DataLoader.*map-style data set"):
        make_trainer(data=DataLoader(image_set()))
    with raises_input_error("data is a generator.*map-style data set"):
        make_trainer(data=(sample for sample in image_set()))
    with raises_input_error(r"data.i. is a Tensor.*image and label"):
        make_trainer(data=[torch.zeros(1, 8, 8)] * 4)


def bright_images(n=100):
    """Images in [0, 1], and their labels."""
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(n).long()


def test_images_in_0_to_1_are_refused(on_cpu):
    images, labels = bright_images()
    for data in (TensorDataset(images, labels), list(zip(images, labels))):
        with raises_input_error(r"data has values from .* to .*, but must be in \[-1, 1\]: pass 2 \* x - 1"):
            make_trainer(data=data)
    images[50:] -= 0.5  # the first 16 are bright, but not all
    make_trainer(data=TensorDataset(images, labels))
    make_trainer(data=TensorDataset(torch.ones(9, 1, 8, 8), labels[:9]))  # white
    files = TensorDataset(images[:50], labels[:50])
    files.place = "a folder"  # its images are scaled by the package
    make_trainer(data=files)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "value, pattern",
    [
        (255.0, r"data has values from .* to 255 in image 40, but must be in \[-1, 1\]"),
        (2.5, r"data has values from .* to 2.5 in image 40, but must be in \[-1, 1\]"),
        (float("nan"), "data holds NaN or infinity, first in image 40"),
        (-float("inf"), "data holds NaN or infinity, first in image 40"),
    ],
)
def test_a_late_image_with_a_wrong_value_is_named(value, pattern, workers, on_cpu):
    """Image 40 is not among the first ones, which are looked at before training."""
    images, labels = bright_images(64)
    images = 2 * images - 1
    images[40, 0, 3, 3] = value
    config = replace(TRAIN, steps=8, save_every=None, num_workers=workers)  # an epoch
    with raises_input_error(pattern):
        make_trainer(config, data=TensorDataset(images, labels)).fit(progress=False)


def test_latents_may_leave_the_range_of_pixels(on_cpu):
    images = 3 * torch.rand(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0] = -5
    config = replace(TRAIN, steps=1, save_every=None)
    data = TensorDataset(images, torch.zeros(8).long())
    make_trainer(config, replace(SHAPE, in_channels=4), data).fit(progress=False)
    make_trainer(config, data=Latents()).fit(progress=False)


@pytest.mark.parametrize(
    "image, pattern",
    [
        (Image.new("L", (8, 8)), r"data.i. has a Image, but must have .* \(C, H, W\), a tensor in \[-1, 1\]"),
        (torch.zeros(1, 8, 9), r"data has images of \(1, 8, 8\) and \(1, 8, 9\)"),
        (torch.zeros(1, 8, 8).byte(), "data has images of torch.uint8.*floating point"),
    ],
)
def test_images_that_are_none(image, pattern, on_cpu):
    first = [(torch.zeros(1, 8, 8), 0)] if image.__class__ is torch.Tensor and image.shape[-1] == 9 else []
    with raises_input_error(pattern):
        make_trainer(data=[*first, *[(image, 0)] * 4])


@error_cases(
    (lambda m, d, data: Trainer(d, m, data, TRAIN), "model is Diffusion.*DiT"),
    (lambda m, d, data: Trainer(m, "linear", data, TRAIN), "diffusion is str.*training_losses"),
    (lambda m, d, data: Trainer(m, d, data, asdict(TRAIN)), "config is dict.*TrainConfig"),
    (lambda m, d, data: Trainer(m, d, None, TRAIN), "data is a NoneType.*map-style"),
)
def test_arguments_of_the_wrong_type(call, pattern):
    with raises_input_error(pattern):
        call(DiT(SHAPE), Diffusion(bins=17), digits().train)


def test_a_model_that_does_not_predict_the_variance_that_the_objective_needs(on_cpu):
    trainer = Trainer(
        DiT(replace(SHAPE, learn_sigma=False)),
        Diffusion(bins=17),
        digits().train,
        replace(TRAIN, save_every=None),
    )
    with raises_input_error("model.*learn_sigma|learn_sigma.*variance|variance.*learned"):
        trainer.fit(progress=False)


@pytest.mark.parametrize("last", [4, 3])  # 3 is the null class of a model of 3 classes
def test_more_classes_than_the_model_has(on_cpu, last):
    with raises_input_error(r"class.*3|y.*4.*\[0, 3\]"):
        make_trainer(shape=replace(SHAPE, num_classes=3), data=image_set(last_label=last)).fit(progress=False)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    """With its step, at the latest before the next checkpoint, which is not written."""
    trainer = make_trainer(out=tmp_path)  # 4 steps, a checkpoint every 2
    trainer.logger.every, trainer.logger.read_at = 100, float("inf")  # not read before
    real = trainer.losses

    def losses(x0, y, noise):
        found = real(x0, y, noise)
        return {**found, "loss": found["loss"] * (float("nan") if trainer.progress.step == 2 else 1)}

    trainer.losses = losses
    with raises_input_error("loss.*nan.*step 3"):
        trainer.fit(progress=False)
    assert len(trainer.progress.history["loss"]) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


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


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_takes_its_rows_of_the_noise(rank, monkeypatch):
    """Also of a source that knows nothing of ranks."""
    whole, asked = NoiseSource(3, 1000, 0.5), []

    def source(step, shape):
        asked.append((step, shape))
        return whole(step, shape)

    trainer = make_trainer(noise=source)
    received, losses = [], trainer.losses
    monkeypatch.setattr(
        trainer, "losses", lambda x0, y, noise: received.append(noise) or losses(x0, y, noise)
    )
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    monkeypatch.setattr(type(trainer.accelerator), "process_index", rank)
    images, labels = digits().train.images[:4], digits().train.labels[:4]
    trainer.step((images, labels))
    assert asked == [(0, (8, 1, 8, 8))]
    assert torch.equal(received[0].noise, whole(0, (8, 1, 8, 8)).noise[4 * rank : 4 * rank + 4])


def test_a_batch_of_another_size_has_noise_of_its_size():
    trainer, data = make_trainer(), digits().train
    losses = trainer.step((data.images[:3], data.labels[:3]))
    assert losses["loss"].isfinite() and trainer.progress.step == 1


@pytest.mark.parametrize("part, value", [("on_step", print), ("on_save", [1]), ("on_step", "ab")])
def test_callbacks_are_a_list_of_functions(part, value):
    with raises_input_error(f"{part} is .*list of functions"):
        make_trainer(**{part: value})


def test_an_objective_without_the_loss():
    trainer = make_trainer()
    trainer.diffusion.training_losses = lambda *_, **__: {"mse": torch.zeros(8)}
    with raises_input_error("training_losses returned mse.*loss"):
        trainer.step(next(trainer.batches()))
