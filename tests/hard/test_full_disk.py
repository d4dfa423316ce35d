"""A full disk at any moment costs a sentence, and leaves nothing half-written."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit_nb.cli import main
from support_latents import tiny_vae

MODEL = str(Path(__file__).resolve().parents[2] / "dit_nb" / "models" / "digits")
TINY = "--patch-size 4 --hidden-size 32 --depth 1 --num-heads 2 --precision fp32".split()
COMMANDS = {
    "train": ["train", "--data", "digits", "--steps", "4", "--save-every", "2", "--batch-size", "4", *TINY],
    "train with a tracker": [
        *["train", "--data", "digits", "--steps", "4", "--save-every", "2", "--batch-size", "4", *TINY],
        *[
            "--tracker",
            "tensorboard",
            "--sample-every",
            "2",
            "--val-fraction",
            "0.05",
            "--validate-every",
            "2",
        ],
    ],
    "sample to .npz": ["sample", MODEL, "--num-samples", "1000", "--steps", "2"],
    "sample to an image": ["sample", MODEL, "--num-samples", "400", "--steps", "2"],
    "sample to a folder": ["sample", MODEL, "--num-samples", "40", "--steps", "2"],
    "encode": ["encode"],
    "convert to official": ["convert", MODEL, "--to", "official"],
    "convert to training form": ["convert", MODEL, "--to", "official", "--training"],
    "convert to diffusers": ["convert", MODEL, "--to", "diffusers"],
    "convert to dit_nb": ["convert", MODEL, "--to", "dit_nb"],
    "export to ONNX": ["export", MODEL],
    "export for the browser": ["export", MODEL, "--format", "browser"],
}
NAMES = {"sample to .npz": "s.npz", "sample to an image": "s.png", "convert to official": "m.pt"}
NAMES |= {"convert to training form": "m.pt", "export to ONNX": "m.onnx", "export for the browser": "m.dit"}


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def words_of(name: str, out: Path, inputs: Path) -> list[str]:
    words, target = COMMANDS[name], str(out / NAMES.get(name, "out"))
    if name == "encode":
        words = [*words, str(inputs / "images"), "--vae", str(inputs / "vae"), "--image-size", "32"]
    return [*words, target] if words[0] in ("convert", "export") else [*words, "--out", target]


def used(folder: Path) -> int:
    """Bytes of all files, in blocks."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """An autoencoder, and images to encode."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_vae().save_pretrained(folder / "vae")
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk(name, tmp_path, capsys, inputs, cases):
    """disks of 6 sizes, each too small for what a command writes: a sentence, and nothing half-written"""
    whole = tmp_path / "whole"
    whole.mkdir()
    assert main(words_of(name, whole, inputs)) == 0
    need = used(whole)
    for i in range(6):
        size = max(4096, int(need * (i + 0.5) / 6) // 4096 * 4096)
        with disk(tmp_path / f"disk{i}", size) as out:
            capsys.readouterr()
            status = main(words_of(name, out, inputs))
            errors = capsys.readouterr().err.strip().splitlines()
            if status == 0:  # what is written last may fit where drafts have been removed
                continue
            assert status == 2 and errors[-1].startswith("dit-nb: error: "), errors
            assert "Traceback" not in "\n".join(errors)
            hidden = [path.name for path in out.rglob(".*") if name != "encode"]  # which resumes
            assert not hidden, hidden
            cases.add()
    assert cases.held >= 2
