"""Every mistake a user can make ends in a ValueError of one or two sentences that name what is wrong."""

import re
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.attention import Attention, CrossAttention
from dit_nb.conditioning import LabelEmbedder, timestep_embedding
from dit_nb.data import ImageSet
from dit_nb.evaluation import frechet_distance
from dit_nb.guidance import Guided
from dit_nb.image_files import image_folder
from dit_nb.model import BLOCKS, FinalLayer
from dit_nb.patchify import patchify, unpatchify
from dit_nb.positions import sincos_1d, sincos_2d
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.schedule import space_timesteps
from dit_nb.training import TrainConfig, Trainer


@contextmanager
def complains(pattern):
    """Expect a ValueError whose message fits the pattern and is made for reading."""
    with pytest.raises(ValueError, match=pattern) as caught:
        yield
    message = str(caught.value)
    assert caught.type is ValueError, caught.type
    assert message.endswith(".") and "\n" not in message, message
    assert len(re.findall(r"[.!?](?=\s|$)", message)) <= 2, message


def cases(*rows):
    """A test for each (what is called, what its complaint must read like)."""
    return pytest.mark.parametrize("call,pattern", rows, ids=[pattern for _, pattern in rows])


def tiny(**fields):
    defaults = dict(input_size=4, patch_size=2, in_channels=3, hidden_size=16, depth=1, num_heads=2)
    return DiTConfig(**{**defaults, "num_classes": 5, **fields})


def make(**fields):
    return DiT(tiny(**fields)).eval()


X, T, Y = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])


# Configurations

FIELDS = [
    (dict(input_size=10, patch_size=4), "input_size.*10.*patch_size.*4"),
    (dict(input_size=(8, 10), patch_size=4), "input_size.*8.*10.*patch_size.*4"),
    (dict(input_size=0), "input_size.*0"),
    (dict(input_size=-4), "input_size.*-4"),
    (dict(input_size="32"), "input_size.*'32'"),
    (dict(input_size=(4, 4, 4)), r"input_size.*\(4, 4, 4\)"),
    (dict(patch_size=0), "patch_size.*0"),
    (dict(in_channels=0), "in_channels.*0"),
    (dict(depth=0), "depth.*0"),
    (dict(depth=True), "depth.*True"),
    (dict(num_heads=0), "num_heads.*0"),
    (dict(num_heads=3), "hidden_size.*16.*num_heads.*3"),
    (dict(hidden_size=18), "hidden_size.*18.*4"),
    (dict(hidden_size=16.0), "hidden_size.*16.0.*whole number"),
    (dict(num_classes=-1), "num_classes.*-1"),
    (dict(mlp_ratio=0), "mlp_ratio.*0"),
    (dict(mlp_ratio=float("nan")), "mlp_ratio.*nan"),
    (dict(class_dropout_prob=1.0), "class_dropout_prob.*1.0"),
    (dict(class_dropout_prob=-0.1), "class_dropout_prob.*-0.1"),
    (dict(learn_sigma="yes"), "learn_sigma.*'yes'.*True or False"),
    (dict(block="adaLN"), "block.*'adaLN'.*in_context.*cross_attention.*adaln.*adaln_zero"),
    (dict(init="zeros"), "init.*'zeros'.*paper.*scaled"),
]


@pytest.mark.parametrize("fields,pattern", FIELDS, ids=[pattern for _, pattern in FIELDS])
def test_configurations(fields, pattern):
    with complains(pattern):
        tiny(**fields)


@cases(
    (partial(DiTConfig.named, "DiT-M/2"), "name.*'DiT-M/2'.*DiT-S/2.*DiT-XL/8"),
    (partial(DiTConfig.named, "XL/2"), "name.*'XL/2'.*DiT-XL/2"),
    (partial(DiTConfig.named, "DiT-S/8", input_size=20), "input_size.*20.*patch_size.*8"),
    (partial(DiT, {"depth": 1}), "config.*dict.*DiTConfig"),
    (partial(Attention, 16, 3), "hidden_size.*16.*num_heads.*3"),
    (partial(CrossAttention, 16, 5), "hidden_size.*16.*num_heads.*5"),
    (partial(patchify, torch.zeros(1, 1, 4, 6), 4), "4x6.*patch_size.*4"),
    (partial(unpatchify, torch.zeros(1, 5, 4), (2, 2), 2), "tokens.*5.*2x2.*4"),
    (partial(sincos_1d, torch.arange(3), 5), "dim.*5.*even"),
    (partial(sincos_2d, (2, 2), 6), "6.*multiple of 4"),
    (partial(timestep_embedding, T, 7), "dim.*7.*even"),
)
def test_parts(call, pattern):
    with complains(pattern):
        call()


# What a model is called with

CALLS = [
    ((X[:, :1], T, Y), r"x.*\(3, 1, 4, 4\).*\(N, 3, 4, 4\)"),
    ((torch.zeros(3, 3, 4, 6), T, Y), r"x.*\(3, 3, 4, 6\).*\(N, 3, 4, 4\)"),
    ((X[0], T, Y), r"x.*\(3, 4, 4\).*\(N, 3, 4, 4\)"),
    ((X, T[:2], Y), r"t.*\(2,\).*\(3,\)"),
    ((X, T[:1], Y[:1]), r"t.*\(1,\).*\(3,\)"),
    ((X, torch.tensor(5), Y), r"t.*\(\).*\(3,\)"),
    ((X, T[:, None], Y), r"t.*\(3, 1\).*\(3,\)"),
    ((X, T.float(), Y), "t.*float32.*whole numbers"),
    ((X, T / 1000, Y), "t.*float32.*whole numbers"),
    ((X, [0, 1, 2], Y), "t.*list.*whole numbers"),
    ((X, 5, Y), "t.*int.*whole numbers"),
    ((X, T - 1, Y), "t.*-1.*0 or more"),
    ((X, None, Y), "t.*missing"),
    ((X, T, Y[:2]), r"y.*\(2,\).*\(3,\)"),
    ((X, T, Y[:1]), r"y.*\(1,\).*\(3,\)"),
    ((X, T, Y + 2), r"y.*6.*\[0, 5\]"),
    ((X, T, Y - 1), r"y.*-1.*\[0, 5\]"),
    ((X, T, Y.float()), "y.*float32.*whole numbers"),
    ((X, T, Y > 0), "y.*bool.*whole numbers"),
    ((X, T, None), "y.*missing.*5 classes"),
]


@pytest.mark.parametrize("arguments,pattern", CALLS, ids=[pattern for _, pattern in CALLS])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_calls(arguments, pattern, block):
    with complains(pattern):
        make(block=block)(*arguments)


@cases(
    (lambda: make(num_classes=0)(X, T, Y), "y.*given.*no classes"),
    (lambda: make(class_dropout_prob=0.0)(X, T, Y + 1), r"y.*5.*\[0, 4\]"),
    (lambda: make(class_dropout_prob=0.0)(X, T, Y, drop=T > 0), "drop.*given.*null class"),
    (lambda: make()(X, T, Y, drop=T[:1] > 0), r"drop.*\(1,\).*\(3,\)"),
    (lambda: LabelEmbedder(5, 8, 0.0)(Y, drop=T > 0), "drop.*given.*null class"),
    (lambda: make().prepare(T, Y)(X, T + 5, Y), "t.*prepare"),
    (lambda: make().prepare(T, Y)(X, T, Y + 1), "y.*prepare"),
    (lambda: make().prepare(T, Y)(X, T.float(), Y), "t.*float32.*whole numbers"),
    (lambda: make().prepare(T, Y)(X[:2], T, Y), r"t.*\(3,\).*\(2,\)"),
)
def test_other_calls(call, pattern):
    with complains(pattern):
        call()


# Diffusion


def says_nothing(x, t, y=None):
    return torch.cat([x, x], dim=1)


def losses(model=says_nothing, x0=X, t=T, **options):
    return Diffusion().training_losses(model, x0, t, **options)


@cases(
    (partial(Diffusion, "quadratic"), "schedule.*'quadratic'.*linear.*cosine"),
    (partial(Diffusion, variance="small"), "variance.*'small'.*learned.*fixed_small.*fixed_large"),
    (partial(Diffusion, num_timesteps=0), "num_timesteps.*0.*1 or more"),
    (partial(Diffusion, bins=1), "bins.*1.*2 or more"),
    (partial(Diffusion, torch.tensor([0.1, 1.0])), r"betas.*\(0, 1\)"),
    (partial(Diffusion, torch.tensor([0.1, float("nan")])), r"betas.*\(0, 1\)"),
    (lambda: losses(t=T + 998), r"t.*1000.*\[0, 999\]"),
    (lambda: losses(t=T - 1), r"t.*-1.*\[0, 999\]"),
    (lambda: losses(t=T.float()), "t.*float32.*whole numbers"),
    (lambda: losses(t=T[:1]), r"t.*\(1,\).*\(3,\)"),
    (lambda: losses(noise=X[:1]), r"noise.*\(1, 3, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: losses(noise=X[:, :1]), r"noise.*\(3, 1, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: losses(lambda x, t, y: x[:, :1]), r"model.*\(3, 1, 4, 4\).*3 channels"),
    (lambda: losses(lambda x, t, y: x), "variance.*'learned'.*learn_sigma=True"),
    (lambda: Diffusion().q_posterior(X[:1], X, T), r"x0.*\(1, 3, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: Diffusion().respaced("10").p_mean_variance(says_nothing, X, T + 8), r"t.*10.*\[0, 9\]"),
    (lambda: losses(make(), y=Y + 2), r"y.*6.*\[0, 5\]"),
    (lambda: losses(make(), y=None), "y.*missing"),
)
def test_diffusion(call, pattern):
    with complains(pattern):
        call()


@pytest.mark.parametrize(
    "spec", ["ddim64", "ddim0", "ddim", "ddimx", "0", "-5", "2000", "abc", "1.5", "10,,5", "10,", "5,600"]
)
def test_respacing(spec):
    with complains(f"respacing.*'{spec}'"):
        space_timesteps(1000, spec)
    with complains(f"respacing.*'{spec}'"):
        Diffusion().respaced(spec)


# Sampling

SHORT = Diffusion().respaced("2")
SHAPE = (3, 3, 4, 4)


@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
@pytest.mark.parametrize(
    "options,pattern",
    [
        (dict(model=make().train()), r"train\(\) mode.*eval\(\)"),
        (dict(model=Guided(make().train(), 2.0)), r"train\(\) mode.*eval\(\)"),
        (dict(x_T=X[:2]), r"x_T.*\(2, 3, 4, 4\).*\(3, 3, 4, 4\)"),
        (dict(x_T=X[:, :1]), r"x_T.*\(3, 1, 4, 4\).*\(3, 3, 4, 4\)"),
        (dict(step_noise=torch.zeros(3, *SHAPE)), r"step_noise.*\(3, 3, 3, 4, 4\).*\(2, 3, 3, 4, 4\)"),
        (dict(step_noise=X), r"step_noise.*\(3, 3, 4, 4\).*\(2, 3, 3, 4, 4\)"),
        (dict(shape=(3, 4, 4)), r"shape.*\(3, 4, 4\).*\(N, C, H, W\)"),
        (dict(shape=(3, 1, 4, 4)), r"x.*\(3, 1, 4, 4\).*\(N, 3, 4, 4\)"),
        (dict(y=[0, 1, 2]), "y.*list.*tensor"),
        (dict(y=Y[:2]), "y.*2.*3"),
        (dict(y=Y + 2), r"y.*6.*\[0, 5\]"),
        (dict(y=None), "y.*missing"),
        (dict(variance="tiny"), "variance.*'tiny'.*learned"),
    ],
)
def test_samplers(sample, options, pattern):
    arguments = dict(diffusion=SHORT, model=make(), shape=SHAPE, y=Y, progress=False)
    with complains(pattern):
        sample(**{**arguments, **options})


@cases(
    (lambda: Guided(make(num_classes=0), 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(make(class_dropout_prob=0.0), 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(says_nothing, 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(make(), float("nan")), "cfg_scale.*nan.*finite"),
    (lambda: Guided(make(), 4.0, guided_channels=0), "guided_channels.*0.*1 or more"),
    (lambda: Guided(make(), 4.0)(X, T, None), "y.*missing"),
    (lambda: ddpm_sample(SHORT, Guided(make(), 4.0), SHAPE, progress=False), "y.*missing"),
    (
        lambda: ddpm_sample(SHORT, make(learn_sigma=False), SHAPE, Y, progress=False),
        "variance.*'learned'.*learn_sigma=True",
    ),
)
def test_guidance(call, pattern):
    with complains(pattern):
        call()


# Data


def image_set(images=X, labels=Y, names=tuple("abcde")):
    return ImageSet(images, labels, names)


def spoiled(value):
    images = X.clone()
    images[1, 0, 2, 2] = value
    return images


@cases(
    (lambda: image_set(spoiled(float("nan"))), "images.*NaN.*image 1"),
    (lambda: image_set(spoiled(float("inf"))), "images.*infinity.*image 1"),
    (lambda: image_set(labels=Y + 1), r"labels.*5.*\[0, 4\]"),
    (lambda: image_set(labels=Y - 1), r"labels.*-1.*\[0, 4\]"),
    (lambda: image_set(labels=Y[:2]), r"labels.*\(2,\).*\(3,\)"),
    (lambda: image_set(labels=Y.float()), "labels.*float32.*whole numbers"),
    (lambda: frechet_distance(X[0, 0].numpy() * float("nan"), X[0, 0].numpy()), "a.*NaN"),
    (lambda: frechet_distance(X[0, 0].numpy(), X[0, 0, :1].numpy()), r"b.*\(1, 4\).*at least 2"),
    (lambda: frechet_distance(X[0, 0, 0].numpy(), X[0, 0].numpy()), r"a.*\(4,\).*\(N, F\)"),
    (lambda: frechet_distance(X[0, 0].numpy(), X[0, 0, :, :3].numpy()), r"b.*\(4, 3\).*4"),
)
def test_data(call, pattern):
    with complains(pattern):
        call()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for images, and a cache of its own for the library that reads it."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    return tmp_path / "pictures"


def picture(path):
    from PIL import Image

    Image.effect_noise((40, 30), 50).save(path)
    return path


def test_image_folder_that_is_fine(folder):
    picture(folder / "cats" / "a.png")
    data = image_folder(folder, 8)
    assert len(data) == 1 and data[0][0].shape == (3, 8, 8)


def test_missing_image_folder(folder):
    with complains(f"{folder}/dogs.*does not exist"):
        image_folder(folder / "dogs", 8)
    path = picture(folder / "a.png")
    with complains(f"{path}"):
        image_folder(path, 8)


def test_image_folder_without_images(folder):
    with complains(f"{folder}.*no images"):
        image_folder(folder, 8)
    (folder / "cats" / "notes.txt").write_text("meow")
    with complains(f"{folder}.*no images"):
        image_folder(folder, 8)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0, 20, 500])
def test_unreadable_image_is_named(folder, kind, keep):
    picture(folder / f"cats/good.{kind}")
    bad = picture(folder / f"cats/zbad.{kind}")
    bad.write_bytes(bad.read_bytes()[:keep])
    with complains(f"{bad}.*cannot be read"):
        data = image_folder(folder, 8)
        data[len(data) - 1]  # a cut JPEG is found out only when its pixels are wanted


@pytest.mark.parametrize("options,pattern", [(dict(channels=2), "channels.*2"), (dict(size=0), "size.*0")])
def test_image_folder_options(folder, options, pattern):
    picture(folder / "cats" / "a.png")
    with complains(pattern):
        image_folder(folder, **{"size": 8, **options})


# Training

SETTINGS = [
    (dict(steps=None), "steps.*None.*seconds.*None.*one must be given"),
    (dict(seconds=5.0), "steps.*3.*seconds.*5.0.*one must be given"),
    (dict(steps=0), "steps.*0"),
    (dict(steps=-3), "steps.*-3"),
    (dict(steps=2.5), "steps.*2.5"),
    (dict(steps=None, seconds=0.0), "seconds.*0"),
    (dict(batch_size=0), "batch_size.*0"),
    (dict(batch_size=2.5), "batch_size.*2.5"),
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
    (dict(workers=-1), "workers.*-1"),
    (dict(tracker="paper"), "tracker.*'paper'.*tensorboard"),
]


@pytest.mark.parametrize("settings,pattern", SETTINGS, ids=[pattern for _, pattern in SETTINGS])
def test_training_configurations(settings, pattern):
    with complains(pattern):
        TrainConfig(**{"steps": 3, **settings})


PLAIN = TrainConfig(steps=2, batch_size=2, precision="fp32")


def trainer(config=PLAIN, out=None, data=None, model=None):
    data = image_set() if data is None else data
    return Trainer(make() if model is None else model, Diffusion(), data, config, out)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Where labels can be looked at; on a GPU a wrong one would end the whole process."""
    from accelerate.state import PartialState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    PartialState._reset_state()
    yield
    PartialState._reset_state()


def test_training_without_data():
    with complains("data.*empty"):
        trainer(data=image_set(X[:0], Y[:0]))


def test_training_on_bytes_or_on_a_strange_data_set():
    with complains("images.*reach 255.*\\[-1, 1\\]"):
        trainer(data=image_set(X * 0 + 255))
    with complains("TensorDataset without class_names"):
        trainer(data=torch.utils.data.TensorDataset(X, Y))


def test_training_on_data_that_does_not_fit_the_model():
    with complains(r"x.*\(2, 1, 4, 4\).*\(N, 3, 4, 4\)"):
        trainer(data=image_set(X[:, :1])).fit(progress=False)


@pytest.mark.parametrize("last", [4, 3])  # 3 is the null class of a model of 3 classes
def test_training_on_more_classes_than_the_model_has(last):
    labels = torch.tensor([0, 1, last])
    with complains(r"class.*3|y.*4.*\[0, 3\]"):
        trainer(data=image_set(labels=labels), model=make(num_classes=3)).fit(progress=False)


def test_training_on_nan_stops():
    data = image_set(X.clone())
    data.images[:] = float("nan")  # after it was looked at
    with complains("loss.*nan.*step 1"):
        trainer(data=data).fit(progress=False)


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_out_folder_that_cannot_be_written(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with complains(f"out.*{tmp_path}/file.*cannot be written"):
        trainer(out=tmp_path / "file" / below)


def test_checkpoints_need_an_out_folder():
    with complains("out"):
        trainer(replace(PLAIN, save_every=1)).fit(progress=False)


def test_resuming_without_a_checkpoint(tmp_path):
    with complains(f"out.*{tmp_path}.*no checkpoint"):
        trainer(out=tmp_path).resume()
    with complains("out"):
        trainer().resume()


def test_resuming_another_run(tmp_path):
    config = replace(PLAIN, save_every=2)
    trainer(config, tmp_path).fit(progress=False)
    checkpoint = tmp_path / "checkpoints" / "step-00000002"
    assert checkpoint.is_dir()
    with complains(f"lr.*0.5.*{checkpoint}.*0.0001"):
        trainer(replace(config, lr=0.5), tmp_path).resume()
    with complains(f"batch_size.*3.*{checkpoint}.*2"):
        trainer(replace(config, batch_size=3), tmp_path).resume()
    with complains(f"hidden_size.*32.*{checkpoint}.*16"):
        trainer(config, tmp_path, model=make(hidden_size=32)).resume()
    with complains(f"images.*2.*{checkpoint}.*3"):
        trainer(config, tmp_path, image_set(X[:2], Y[:2])).resume()
    longer = trainer(replace(config, steps=3), tmp_path)
    longer.resume()
    assert longer.progress.step == 2


# Saved models


@pytest.fixture
def saved(tmp_path):
    make().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_model_that_is_not_there(tmp_path, saved):
    for source in (tmp_path / "nothing", str(tmp_path / "nothing"), "nothing"):
        with complains(f"{source}.*not a folder"):
            DiT.from_pretrained(source)
    (tmp_path / "empty").mkdir()
    with complains(f"{tmp_path}/empty.*config.json"):
        DiT.from_pretrained(tmp_path / "empty")
    (saved / "model.safetensors").unlink()
    with complains(f"{saved}.*model.safetensors"):
        DiT.from_pretrained(saved)


def test_hub_that_does_not_answer(monkeypatch):
    def fail(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr("dit_nb.hub.hf_hub_download", fail)
    with complains("nobody/nothing.*config.json.*Hub"):
        DiT.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_weights(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with complains(f"{path}"):
        DiT.from_pretrained(saved)


def lose(weights):
    del weights["blocks.0.mlp.fc1.bias"]


def gain(weights):
    weights["blocks.1.mlp.fc1.bias"] = torch.zeros(64)


def reshape(weights):
    weights["blocks.0.mlp.fc1.bias"] = torch.zeros(1, 64)


@pytest.mark.parametrize("change", [lose, gain, reshape])
def test_weights_that_do_not_fit(saved, change):
    path = saved / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with complains(rf"{path}.*1 tensor.*blocks\.\d\.mlp\.fc1\.bias"):
        DiT.from_pretrained(saved)


@pytest.mark.parametrize(
    "text,pattern",
    [
        ("{", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("", "not a JSON object"),
        ('{"depth": 1}', "hidden_size"),
    ],
)
def test_configurations_that_cannot_be_read(saved, text, pattern):
    path = saved / "config.json"
    path.write_text(text)
    with complains(f"{path}.*{pattern}"):
        DiT.from_pretrained(saved)


@pytest.mark.parametrize(
    "old,new,pattern",
    [
        ('"depth": 1', '"depth": 1, "dept": 2', "dept"),
        ('"depth": 1', '"depth": 0', "depth.*0"),
        ('"depth": 1', '"depth": 2', "blocks.1"),
        ('"adaln_zero"', '"adaln"', "adaLN_modulation"),
    ],
)
def test_configurations_with_a_mistake(saved, old, new, pattern):
    path = saved / "config.json"
    text = Path(path).read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with complains(pattern):
        DiT.from_pretrained(saved)


def test_messages_are_checked_at_all():
    """The net itself: long, unfinished or foreign complaints do not pass."""
    for error in (ValueError("x is 5. It is bad. Very bad."), ValueError("x is 5"), UnicodeError("x is 5.")):
        with pytest.raises(AssertionError), complains("x"):
            raise error
    with pytest.raises(RuntimeError), complains("x"):
        raise RuntimeError("x is 5.")
    with pytest.raises(pytest.fail.Exception), complains("x"):
        FinalLayer(8, 4, adaptive=True)
