"""dit-nb emoji: its files and metrics, resuming, and what it refuses; emoji as data of other commands."""

import json

import numpy as np
import pytest
from PIL import Image

import dit_nb
from dit_nb.cli import main
from dit_nb.data import emoji
from dit_nb.pretrained import load_model

TINY = ("--hidden-size", "16", "--depth", "1", "--num-heads", "2", "--patch-size", "16", "--batch-size", "8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of an emoji run of 4 steps, with checkpoints every 2."""
    out = tmp_path_factory.mktemp("emoji")
    assert main(["emoji", "--steps", "4", "--save-every", "2", "--out", str(out), *TINY]) == 0
    return out


def test_output_files(run):
    samples = np.load(run / "samples.npz")
    assert samples["images"].shape == (256, 3, 32, 32)
    assert np.bincount(samples["labels"]).tolist() == [128, 128]
    for name in ("samples.png", "denoising.png", "loss.png"):
        assert Image.open(run / name).size[0] > 400, name
    model, sampling = load_model(run / "model")
    assert sampling.class_names == ("smileys-flat", "smileys-3d") and model.config.num_classes == 2


def test_metrics_of_an_untrained_model_are_far_from_those_of_real_emoji(run):
    m = json.loads((run / "metrics.json").read_text())
    assert m["steps"] == 4 and m["samples"] == 256
    assert m["frechet"] > 2 * m["frechet_real"]
    assert m["nearest_train"] > 2 * m["nearest_train_real"]
    assert m["category_accuracy_real"] > 0.8 and m["style_accuracy_real"] > 0.8


def test_the_card_tells_how_the_model_was_trained(run):
    card = (run / "model" / "README.md").read_text()
    assert "not recorded" not in card and "Data: emoji (smileys)." in card
    assert f"    dit-nb emoji --steps 4 --save-every 2 --out {run} --hidden-size 16 " in card
    assert f"  # dit_nb {dit_nb.__version__}, torch " in card
    parameters = json.loads((run / "metrics.json").read_text())["parameters"]
    assert f"with {parameters:,} parameters" in card and "| frechet |" in card


def test_checkpoints_are_resumed_or_refused(run, error_of):
    assert "pass --resume" in error_of("emoji", "--steps", "6", "--save-every", "2", "--out", run, *TINY)
    words = ["emoji", "--steps", "4", "--save-every", "2", "--resume", "--out", str(run), *TINY]
    before = np.load(run / "samples.npz")["images"]
    assert main(words) == 0, "a finished run has nothing left to train"
    assert np.array_equal(np.load(run / "samples.npz")["images"], before)


def test_input_errors(tmp_path, error_of):
    assert "one of smileys, people" in error_of("emoji", "--categories", "faces", "--out", tmp_path)
    assert "patch_size" in error_of("emoji", "--patch-size", "5", "--out", tmp_path)
    assert "save_every" in error_of("emoji", "--resume", "--out", tmp_path)


def test_a_class_that_the_model_lacks_is_refused(run, tmp_path, error_of):
    message = error_of("sample", run / "model", "--class", "food-flat", "--out", tmp_path / "a.png")
    assert "food-flat" in message and "smileys-flat" in message


def test_train_on_emoji_and_evaluate(tmp_path, capsys):
    words = ["train", "--data", "emoji", "--steps", "1", "--out", str(tmp_path / "run"), "--batch-size", "8"]
    assert (
        main([*words, "--hidden-size", "16", "--depth", "1", "--num-heads", "2", "--patch-size", "16"]) == 0
    )
    model, sampling = load_model(tmp_path / "run" / "model")
    assert sampling.class_names == emoji().train.class_names and model.config.image_shape == (3, 32, 32)
    np.savez(tmp_path / "flat.npz", images=emoji(styles=["flat"]).train.images[:300].numpy())
    words = ["evaluate", str(tmp_path / "flat.npz"), "emoji", "--features", "emoji", "--resamples", "0"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"]["n"] == 512 and found["features"] == "emoji"
    assert found["metrics"]["frechet"]["value"] > 0


def test_all_and_some_categories_are_refused_together(error_of):
    assert "categories must not be given with --all" in error_of("emoji", "--all", "--categories", "food")
