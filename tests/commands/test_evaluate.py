"""`dit-nb evaluate`: its output, and its errors."""

import inspect
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dit_nb import features
from dit_nb.cli import main
from dit_nb.commands import evaluate as command
from dit_nb.data import _to_uint8, digits
from dit_nb.distributed import _process_state
from dit_nb.features import DigitExtractor
from dit_nb.pretrained import load_model

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def split():
    return digits()


@pytest.fixture(scope="module")
def extractor(split):
    return DigitExtractor(split)


@pytest.fixture
def trained_extractor(extractor, monkeypatch):
    """Let commands use the extractor that is trained already."""
    monkeypatch.setattr(features, "DigitExtractor", lambda: extractor)


def photo(n, seed=0, h=6, w=5):
    """Random colored bytes."""
    return RNG(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def error_of(capsys, *words):
    """The error message of the command."""
    assert main(["evaluate", *map(str, words)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dit-nb: error: ")
    return error


def test_evaluate_command(trained_extractor, split, tmp_path, capsys):
    np.savez_compressed(
        tmp_path / "samples.npz", images=split.train.images[:200], labels=split.train.labels[:200]
    )
    (tmp_path / "png").mkdir()
    for i, image in enumerate(_to_uint8(split.held_out.images[:120])[:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "png" / f"{i:03d}.png")
    assert main(["evaluate", str(tmp_path / "samples.npz"), "digits", "--resamples", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["samples"]["n"] == 200 and result["reference"]["n"] == 360 and result["features"] == "digits"
    )
    assert set(result["metrics"]) == {"frechet", "spatial_frechet", "inception_score", "precision", "recall"}
    assert main(["evaluate", str(tmp_path / "samples.npz"), str(tmp_path / "png"), "--resamples", "0"]) == 0
    text = capsys.readouterr().out
    assert "120 images" in text and "Fréchet distance" in text and "interval" not in text
    assert main(["evaluate", str(tmp_path / "png"), "digits", "--resamples", "20", "--level", "0.8"]) == 0
    text = capsys.readouterr().out
    assert "80 % interval" in text and "bias about" in text
    command = ["evaluate", str(tmp_path / "png"), "digits", "--max-features", "60", "--resamples", "0"]
    assert main(command) == 0


def test_bad_input(trained_extractor, split, tmp_path, capsys):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, images=split.train.images[:100])

    def error(*words):
        return error_of(capsys, *words)

    def bad_file(**arrays):
        np.savez(bad, **arrays)
        return bad

    assert "nowhere" in error(tmp_path / "nowhere", "digits")
    (tmp_path / "empty").mkdir()
    assert "empty" in error(tmp_path / "empty", "digits")
    assert "3x16x16" in error(bad_file(arr_0=photo(20, h=16, w=16)), "digits")
    assert "3x16x16" in error(good, bad_file(arr_0=photo(20, h=16, w=16)))
    assert "arr_0" in error(bad_file(x=np.zeros(3)), "digits")
    assert "float64" in error(bad_file(arr_0=np.zeros((9, 8, 8, 3))), "digits")
    assert "int64" in error(bad_file(images=np.zeros((9, 1, 8, 8), dtype=int)), "digits")
    assert "uint8 (9, 8, 8)" in error(bad_file(arr_0=np.zeros((9, 8, 8), dtype=np.uint8)), "digits")
    assert "arr_0 of object" in error(bad_file(arr_0=np.array([{}], dtype=object)), "digits")
    broken = split.train.images[:100].clone()
    broken[77, 0, 3, 3] = torch.nan
    assert "image 77" in error(bad_file(images=broken), "digits")
    assert "7 images" in error(bad_file(images=split.train.images[:7]), "digits")
    assert "max_features: 5" in error(good, "digits", "--max-features", "5")
    assert "4 images" in error(good, bad_file(images=split.train.images[:4]))
    assert "bad.npz" in error(bad_file(mu=np.zeros(64), sigma=np.eye(64)), "digits")
    assert "2048 pooled features" in error(good, bad_file(mu=np.zeros(2048), sigma=np.eye(2048)))
    assert "mu and sigma" in error(good, bad_file(mu=np.zeros(64), sigma=np.eye(63)))
    np.savez(tmp_path / "photos.npz", arr_0=photo(20))
    assert "1x8x8" in error(tmp_path / "photos.npz", tmp_path / "photos.npz", "--features", "digits")
    assert "level is 2" in error(good, "digits", "--level", "2")
    bad.write_bytes(good.read_bytes()[:-300])
    assert "bad.npz" in error(bad, "digits")
    bad.write_text("hello")
    assert "bad.npz" in error(bad, "digits")


def test_what_was_found_is_printed_first(trained_extractor, split, tmp_path, capsys):
    """To stderr, so that JSON stays readable: split, number, size, classes, what was left out."""
    for name, count in (("train", 30), ("test", 20)):
        for i, image in enumerate(_to_uint8(split.held_out.images[:count])[:, 0].numpy()):
            path = tmp_path / "real" / name / "ab"[i % 2] / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    words = ["evaluate", "digits", str(tmp_path / "real"), "--split", "test", "--resamples", "0", "--json"]
    assert main(words) == 0
    text = capsys.readouterr()
    assert json.loads(text.out)["reference"]["n"] == 20
    assert text.err.startswith("samples: held-out digits\n  360 images of 1 channel, 8x8\n  10 classes: ")
    assert f"reference: {tmp_path / 'real'}, split test\n  20 images of 1 channel, 8x8" in text.err
    assert "2 classes: a 10, b 10" in text.err and "left out: 30 images in train" in text.err
    network = "features: digits, 4,810 parameters, fp64 on cpu\nrun: 6 + 1 batches of up to 64 images\n"
    assert text.err.index("reference: ") < text.err.index(network)
    assert main([*words[:3], "--split", "test", "--resamples", "7", "--batch-size", "20"]) == 0
    run = "run: 18 + 1 batches of up to 20 images, then 7 random halves for the intervals\n"
    assert run in capsys.readouterr().err


def test_networks_are_put_on_the_device_of_the_process(digits_run, monkeypatch):
    """Not on the first GPU, which would get the work of all processes."""
    found = []

    def noting(real):
        def call(*args, **options):
            found.append(inspect.signature(real).bind(*args, **options).arguments["device"])
            return real(*args, **options)

        return call

    for name in ("load_any", "_open_extractor"):
        monkeypatch.setattr(command, name, noting(getattr(command, name)))
    words = "digits --num-samples 8 --features digits --resamples 0".split()
    assert main(["evaluate", str(digits_run), *words]) == 0
    assert found == [_process_state().device] * 2


def test_images_that_are_not_square(tmp_path, capsys):
    """Samples that all have one size are compared as they are; the reference is cropped to that size."""
    for name, shape in (("samples", (6, 10, 3)), ("real", (12, 20, 3))):
        (tmp_path / name).mkdir()
        for i in range(9):
            Image.fromarray(RNG(i).integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    words = [str(tmp_path / "samples"), str(tmp_path / "real")]
    assert "1x8x8" in error_of(capsys, *words, "--features", "digits")
    assert main(["evaluate", *words, "--features", "digits"]) == 2
    assert capsys.readouterr().err.count("9 images of 3 channels, 6x10") == 2
    assert "image_size is 6x" in error_of(capsys, *words, "--image-size", "6x")


def test_a_checkpoint_is_sampled_and_evaluated(digits_run, tmp_path, capsys):
    """The same numbers as of the samples that dit-nb sample writes."""
    model, few = digits_run / "model", ["--resamples", "0", "--json"]
    assert main(["sample", str(model), "--num-samples", "20", "--out", str(tmp_path / "x.npz")]) == 0
    found = []
    for samples in (tmp_path / "x.npz", model, digits_run):  # the folder of a run stands for its model
        capsys.readouterr()
        assert main(["evaluate", str(samples), "digits", "--num-samples", "20", *few]) == 0
        text = capsys.readouterr()
        found.append(json.loads(text.out))
    network, sampling = load_model(model)
    line = f"model: {sum(w.numel() for w in network.parameters()):,} parameters, fp32 on {network.pos_embed.device.type}"
    assert f"\n{line}, sampler {sampling.sampler}, steps {sampling.steps}\n" in text.err
    for other in found[1:]:
        assert other["samples"]["n"] == 20 and other["metrics"].keys() == found[0]["metrics"].keys()
        for name, row in other["metrics"].items():
            assert abs(row["value"] - found[0]["metrics"][name]["value"]) < 1e-3 * max(1, row["value"])
