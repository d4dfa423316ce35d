"""dit-nb convert: through all formats and back, and what it refuses."""

import os
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from dit_nb.cli import main
from dit_nb.config import SamplingConfig
from dit_nb.interop.convert import load_any
from dit_nb.pretrained import save_model
from support import latent_model, same_weights

PAPER_SAMPLING = SamplingConfig(clip_x0=False)  # of the paper's models, which are latent models


@pytest.fixture
def folder(tmp_path):
    """A folder with one model in all formats."""
    save_model(latent_model(), tmp_path / "home", replace(PAPER_SAMPLING, class_names=tuple("abcdefghij")))
    sizes = dict(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    AutoencoderKL(**sizes).save_pretrained(tmp_path / "vae")
    for source, target, to, *words in (
        ("home", "a.pt", "official", "--training"),
        ("a.pt", "b", "diffusers", "--vae", str(tmp_path / "vae")),
        ("b", "c", "dit_nb"),
        ("c", "d.pt", "official"),
    ):
        assert main(["convert", str(tmp_path / source), str(tmp_path / target), "--to", to, *words]) == 0
    return tmp_path


def test_round_trip(folder):
    model, sampling = load_any(folder / "c")
    assert same_weights(model, latent_model()) and sampling.class_names == tuple("abcdefghij")
    assert same_weights(load_any(folder / "d.pt", num_heads=2)[0], latent_model())
    assert torch.load(folder / "d.pt", weights_only=True).keys() == latent_model().state_dict().keys()
    assert sorted(os.listdir(folder)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
    assert "Converted from" in (folder / "c" / "README.md").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with two checkpoints, of a model that the official code and diffusers have too."""
    out = tmp_path_factory.mktemp("run")
    words = "train --data digits --steps 4 --save-every 2 --batch-size 4 --lr 0.02 --ema-decay 0.5 --precision fp32"
    words += " --patch-size 4 --hidden-size 32 --depth 1 --num-heads 2"
    assert main([*words.split(), "--out", str(out)]) == 0
    return out


SOURCES = {"run": "", "folder of checkpoints": "checkpoints", "checkpoint": "checkpoints/step-00000004"}
FORMATS = {
    "official": ("m.pt", "--to", "official"),
    "official, training": ("m.pt", "--to", "official", "--training"),
    "diffusers": ("m", "--to", "diffusers"),
    "dit_nb": ("m", "--to", "dit_nb"),
}


def weights_of(trained, kind: str):
    """The file of the last checkpoint that holds the averaged or the raw weights."""
    name = {"ema": "ema", "model": "model"}[kind]
    return load_file(trained / "checkpoints" / "step-00000004" / f"{name}.safetensors")


@pytest.mark.parametrize("kind", ["ema", "model"])
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_checkpoint_or_a_run_is_converted(trained, tmp_path, source, to, kind):
    """The run means its last checkpoint; averaged weights by default, raw ones by option."""
    target, *words = FORMATS[to]
    words += ["--weights", kind] if kind == "model" else []
    assert main(["convert", str(trained / SOURCES[source]), str(tmp_path / target), *words]) == 0
    model, sampling = load_any(tmp_path / target, num_heads=2 if to == "official" else None, device="cpu")
    wanted, found = weights_of(trained, kind), model.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    other = weights_of(trained, "model" if kind == "ema" else "ema")
    assert any(not torch.equal(other[name], found[name]) for name in found)
    assert to == "official" or sampling.class_names == tuple("0123456789")


@pytest.mark.parametrize("kind", ["ema", "model"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_checkpoint_or_a_run_is_exported(trained, tmp_path, source, kind):
    """The file holds each matrix as integers times a scale, near the averaged or the raw weights."""
    words = ["--format", "browser", "--weights", kind]
    assert main(["export", str(trained / SOURCES[source]), str(tmp_path / "m.dit"), *words]) == 0
    found, name = load_file(tmp_path / "m.dit"), "final_layer.linear.weight"
    matrix = found[name] * found[f"{name}.scale"][:, None]
    raw, average = (weights_of(trained, one)[name] for one in ("model", "ema"))
    wanted, other = (raw, average) if kind == "model" else (average, raw)
    assert (matrix - wanted).abs().max() <= found[f"{name}.scale"].max()
    assert (matrix - other).abs().max() > 10 * found[f"{name}.scale"].max()


def test_a_run_is_exported_to_onnx(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(trained), str(tmp_path / "m.onnx"), "--weights", "model"]) == 0
    given = {"x": torch.randn(2, 1, 8, 8), "t": torch.tensor([3, 700]), "y": torch.tensor([1, 9])}
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        raw, average = (
            load_any(trained, device="cpu", weights=w)[0](*given.values()) for w in ("model", "ema")
        )
    assert (torch.tensor(found) - raw).abs().max() < 1e-4 * raw.abs().max()
    assert (torch.tensor(found) - average).abs().max() > 1e-3 * raw.abs().max()


def test_refused(folder, error_of):
    for (source, target, *words), part in (
        (["d.pt", "e", "--to", "dit_nb"], "num_heads"),
        (["home", "c", "--to", "diffusers"], f"target is {folder / 'c'}"),
        (["home", "e", "--to", "diffusers", "--vae", "nowhere"], "vae nowhere"),
        (["home", "e.pt", "--to", "official", "--vae", "nowhere"], "vae is nowhere"),
    ):
        assert part in error_of("convert", folder / source, folder / target, *words)
    assert sorted(os.listdir(folder)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
