"""Calls that a newcomer gets wrong, or only seems to: each works as meant, or its error names the argument."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dit_nb import Diffusion, DiT, DiTConfig, SamplingConfig, sample_images
from dit_nb.data import ImageSet, digits
from dit_nb.errors import UserError
from dit_nb.guidance import Guided
from dit_nb.image_files import open_images
from dit_nb.latents import LatentCodec
from dit_nb.measure import evaluate
from dit_nb.pretrained import digit_model, load_model, save_model
from dit_nb.sampling import ddpm_sample
from dit_nb.training import TrainConfig, Trainer

MODEL = DiT(DiTConfig(8, 2, 1, 32, 1, 2, num_classes=3)).eval()
DIFFUSION = Diffusion(bins=17)
X, T, Y = torch.randn(2, 1, 8, 8), torch.tensor([0, 5]), torch.tensor([0, 2])


def small(**changes) -> DiT:
    return DiT(
        DiTConfig(**{**dict(input_size=8, in_channels=1, hidden_size=32, depth=1, num_heads=2), **changes})
    )


def trainer(model=None, diffusion=DIFFUSION, data=None, config=None) -> Trainer:
    settings = config or TrainConfig(steps=1, batch_size=2)
    return Trainer(model or small(num_classes=10), diffusion, data or digits().train, settings)


def samples(labels=(1,), sampling=None, **options):
    model, settings = digit_model()
    return sample_images(
        model, settings if sampling is None else sampling, labels, **{"progress": False, **options}
    )


def images(values, labels=(0, 1, 2), names=("a", "b", "c")) -> ImageSet:
    return ImageSet(values, torch.tensor(labels), names)


WORKS = {
    "float t": lambda: MODEL(X, T.float(), Y),
    "t int32": lambda: MODEL(X, T.int(), Y),
    "x is double": lambda: MODEL(X.double(), T, Y),
    "evaluation of an array": lambda: evaluate(
        np.zeros((10, 1, 8, 8)), "digits", resamples=0, progress=False
    ),
    "steps as a number": lambda: samples(steps=5),
    "labels as a list": lambda: samples([1, 2], steps=3),
    "one label as a number": lambda: samples(3, steps=3),
    "betas as a list": lambda: Diffusion([0.1, 0.2]),
    "PyTorch's data set": lambda: trainer(data=TensorDataset(X.clamp(-1, 1), Y)).fit(progress=False),
}
WRONG = {
    "t is a number": (lambda: MODEL(X, 5, Y), "t is int"),
    "one t for two images": (lambda: MODEL(X, T[:1], Y), r"t has shape \(1,\).*\(2,\)"),
    "y is one-hot": (lambda: MODEL(X, T, torch.eye(3)[:2]), "y is torch.float32.*integers"),
    "y too large": (lambda: MODEL(X, T, torch.tensor([0, 9])), "y holds 9"),
    "y is a list": (lambda: MODEL(X, T, [0, 1]), "y is list"),
    "bytes": (lambda: MODEL((X * 255).byte(), T, Y), "x is torch.uint8"),
    "channels last": (lambda: MODEL(X.permute(0, 2, 3, 1), T, Y), r"x is .*\(2, 8, 8, 1\).*\(N, 1, 8, 8\)"),
    "an array": (lambda: MODEL(X.numpy(), T, Y), "x is ndarray"),
    "no batch": (lambda: MODEL(X[0], T[:1], Y[:1]), r"x is .*\(1, 8, 8\)"),
    "t = 1000 in training": (
        lambda: DIFFUSION.training_losses(MODEL, X, torch.tensor([1000, 5]), Y),
        r"t holds 1000.*\[0, 999\]",
    ),
    "no y": (lambda: DIFFUSION.training_losses(MODEL, X, T), "y is missing"),
    "train mode": (
        lambda: ddpm_sample(
            DIFFUSION.respaced("3"), small(num_classes=3).train(), (2, 1, 8, 8), Y, progress=False
        ),
        "eval",
    ),
    "shape of one image, two labels": (
        lambda: ddpm_sample(DIFFUSION.respaced("3"), MODEL, (1, 8, 8), Y, progress=False),
        r"shape is \(1, 8, 8\)",
    ),
    "5000 steps": (lambda: samples(steps="5000"), "steps is '5000'"),
    "labels and n differ": (lambda: samples([1, 2], n=3), "n is 3.*2"),
    "cfg_scale is text": (lambda: samples(cfg_scale="4"), "cfg_scale is '4'"),
    "cfg_scale is None": (lambda: samples(cfg_scale=None), "cfg_scale is None"),
    "seven guided channels of one": (
        lambda: samples(cfg_scale=2, guided_channels=7),
        "guided_channels is 7.*1",
    ),
    "settings are a dict": (lambda: samples(sampling={}), "sampling is dict"),
    "no such folder": (lambda: load_model("./no-such-folder"), "no-such-folder"),
    "a configuration as a dict": (lambda: DiT({"depth": 2}), "config is .*DiTConfig"),
    "a mistyped name": (lambda: DiTConfig.named("DiT-XL-2"), "DiT-XL-2.*DiT-XL/2"),
    "7 heads for a width of 100": (
        lambda: DiTConfig(hidden_size=100, num_heads=7),
        "hidden_size is 100.*7|num_heads is 7",
    ),
    "classes as a list": (lambda: DiTConfig(num_classes=["a", "b"]), "num_classes is"),
    "a DataLoader": (lambda: trainer(data=DataLoader(digits().train)), "data is .*DataLoader"),
    "model and diffusion swapped": (
        lambda: Trainer(DIFFUSION, MODEL, digits().train, TrainConfig(steps=1)),
        "model is .*Diffusion",
    ),
    "TrainConfig as a dict": (lambda: trainer(config={"steps": 1}), "config is .*TrainConfig"),
    "three channels": (
        lambda: trainer(small(in_channels=3, num_classes=10)).fit(progress=False),
        "data|x is|image",
    ),
    "no learned variance": (
        lambda: trainer(small(learn_sigma=False, num_classes=10)).fit(progress=False),
        "learn_sigma|variance",
    ),
    "diffusion is a name": (lambda: trainer(diffusion="linear"), "diffusion is 'linear'|diffusion is str"),
    "images as bytes": (lambda: images((torch.rand(3, 1, 8, 8) * 255).byte()), "images"),
    "images as an array": (lambda: images(np.zeros((3, 1, 8, 8))), "images is"),
    "images in [0, 1]": (lambda: images(torch.rand(3, 1, 8, 8)), r"images .*\[-1, 1\]"),
    "saved with a dict": (lambda: save_model(MODEL, "./never-written", {}), "sampling is dict"),
    "guidance of a plain function": (lambda: Guided(lambda x, t, y: x, 2.0), "model|null"),
    "no such folder of images": (lambda: open_images("./no-such-folder", 32), "no-such-folder"),
    "an autoencoder by name": (lambda: LatentCodec("stabilityai/sd-vae-ft-ema"), "vae is"),
    "an unknown schedule": (lambda: Diffusion("scaled_linear"), "scaled_linear.*linear, cosine"),
    "y on another device": (lambda: MODEL(X, T, Y.to("meta")), "y is on meta"),
    "a mistyped setting of sampling": (lambda: samples(step=3), "setting is 'step'.*steps"),
}
OF_PYTHON = {  # Python's own error names the argument
    "DiT without a configuration": (lambda: DiT(depth=2), "depth"),
    "a mistyped setting of training": (lambda: TrainConfig(step=3), "step"),
    "epochs": (lambda: TrainConfig(epochs=3), "epochs"),
    "saved without sampling settings": (lambda: save_model(MODEL, "./never-written"), "sampling"),
    "images without a size": (lambda: open_images("."), "size"),
}


@pytest.mark.filterwarnings("ignore:images has 10 images")  # too few for a Fréchet distance
@pytest.mark.parametrize("name", WORKS)
def test_it_works(name):
    assert WORKS[name]() is not None


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_the_argument(name):
    call, words = WRONG[name]
    with pytest.raises((UserError, FileNotFoundError), match=words):
        call()


@pytest.mark.parametrize("name", OF_PYTHON)
def test_pythons_error_names_the_argument(name):
    call, words = OF_PYTHON[name]
    with pytest.raises((TypeError, RuntimeError, UserError), match=words):
        call()


def test_settings_of_sampling_have_a_class():
    assert samples(sampling=SamplingConfig(bins=17), steps=2).shape == (1, 1, 8, 8)
