"""The data of commands: sizes, parts, and what is printed about them."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from dit_nb import DiT
from dit_nb.cli import main
from dit_nb.commands.data import _describe_data, _parse_size
from dit_nb.data import digits
from dit_nb.image_files import open_images
from dit_nb.subsets import balance_classes, hold_out
from support import raises_input_error


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def pictures(tmp_path):
    """Images of classes 0 to 9: one more of each, in train; and one of each in val."""
    for k in range(10):
        for i in range(k + 1):
            for path in (tmp_path / f"pictures/Train/{k}/{i}.png", tmp_path / f"pictures/val/{k}/0.png"):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 20 * k + i, np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "text,size", [(None, None), ("64", 64), ("32x48", (32, 48)), ("32,48", (32, 48)), ("8x8", 8)]
)
def test_sizes(text, size):
    assert _parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "0", "8x0", "8x8x8", "-8", "8.5", "large"])
def test_sizes_that_are_none(text):
    with raises_input_error("image_size is .*32x48"):
        _parse_size(text)


def test_description(pictures):
    (pictures / "Train" / "9" / "0.png").write_bytes(b"no image")
    data = open_images(pictures, 8, 1, skip_bad=True)
    assert _describe_data(data).splitlines() == [
        f"data: {pictures}, split Train",
        "  54 images of 1 channel, 8x8",
        "  10 classes: the smallest has 1 images (0), the largest 9 (9)",
        "  left out: 10 images in val",
        f"  left out: skipped 1 unreadable images: {data.skipped[0]}",
    ]
    train, held_out = hold_out(data, 0.2)
    text = _describe_data(balance_classes(train), held_out)
    assert f"{len(held_out)} held-out images" in text and f"{len(train)} of them different" in text
    assert "  no classes" in _describe_data(open_images(pictures / "val" / "3", 8))
    assert _describe_data(digits().train, name="digits").startswith(
        "data: digits\n  1,437 images of 1 channel, 8x8"
    )


def test_options_of_data(pictures, tmp_path, capsys):
    """A model for images that are not square, random crops, balanced classes, another split for validation."""
    words = f"train --data {pictures} --out {tmp_path / 'out'} --steps 1 --batch-size 4 --image-size 4x8 --balanced"
    words += (
        " --crop random --val-split val --patch-size 4 --hidden-size 16 --depth 1 --num-heads 2 --channels 1"
    )
    assert main(words.split()) == 0
    text = capsys.readouterr().out
    assert "100 images of 1 channel, 4x8, 55 of them different" in text and "10 held-out images" in text
    assert DiT.from_pretrained(str(tmp_path / "out" / "model")).config.input_size == (4, 8)


def test_options_that_do_not_fit(pictures, tmp_path, error_of):
    def error(*words):
        return error_of("train", "--out", tmp_path / "out", "--steps", 1, *words)

    images = ("--data", pictures, "--image-size", 8)
    assert "val_fraction is 0.1" in error(*images, "--val-fraction", 0.1, "--val-split", "val")
    assert "fraction is 2" in error(*images, "--val-fraction", 2)
    assert "no split extra" in error(*images, "--split", "extra")
    assert "split is val, but must not be given for digits" in error("--data", "digits", "--split", "val")
    assert "crop is random" in error("--data", "digits", "--crop", "random")
    assert "crop is random" in error("--latents", tmp_path, "--crop", "random")
    assert "class_folder is first" in error(
        "--data", f"hub:{pictures}", "--image-size", 8, "--class-folder", "first"
    )
    assert "class_folder is first" in error(
        "--data", f"stream:{pictures}", "--image-size", 8, "--class-folder", "first"
    )
    (pictures / "val" / "3" / "0.png").unlink()
    assert "val_split has the classes" in error(*images, "--val-split", "val")


def test_a_shard_that_is_cut(tmp_path, error_of):
    """One sentence that names it, not the traceback of the library."""
    (tmp_path / "shards").mkdir()
    shard = tmp_path / "shards" / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for k in range(8):
            Image.new("L", (8, 8)).save(tmp_path / f"{k}.png")
            tar.add(tmp_path / f"{k}.png", f"{k}.png")
    shard.write_bytes(shard.read_bytes()[:7000])
    words = ("train", "--out", tmp_path / "out", "--steps", 1, "--image-size", 8)
    error = error_of(*words, "--data", f"stream:{shard.parent}")
    assert f"shard {shard} cannot be read" in error and "cut or damaged" in error
