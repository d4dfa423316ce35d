"""A full disk at any moment costs a sentence, and leaves nothing half-written: every file can be read."""

import csv
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

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
    "digits": ["digits", "--steps", "2", *TINY[:-2]],
    "emoji": [
        "emoji",
        "--steps",
        "2",
        "--save-every",
        "1",
        "--batch-size",
        "8",
        *TINY[2:-2],
        "--patch-size",
        "16",
    ],
    "study": ["study", "guidance", "--fast", "--jobs", "1"],
    "bench": ["bench", "--rounds", "1", "--baseline", "none", "--batch-size", "2"],
    "assignment build": ["assignment", "build", "a1"],
    "assignment preview": ["assignment", "preview", "a1"],
    "assignment solution": ["assignment", "solution", "a1", "--html"],
    "assignment gradescope": ["assignment", "gradescope", "a1"],
}
NAMES = {"sample to .npz": "s.npz", "sample to an image": "s.png", "convert to official": "m.pt"}
NAMES |= {"study": "rows.csv", "bench": "rows.json", "assignment preview": "a1.ipynb"}
NAMES |= {"assignment solution": "a1.html", "assignment gradescope": "a1.zip"}
NAMES |= {"convert to training form": "m.pt", "export to ONNX": "m.onnx", "export for the browser": "m.dit"}


PAGE = 4096  # bytes by which a file of a small disk grows


@contextmanager
def disk(folder: Path, free: int) -> Iterator[Path]:
    """A folder on a disk with so many free bytes, which may be 0."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={free + PAGE}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (folder / "other").write_bytes(b"x" * PAGE)
        (folder / "files").mkdir()
        yield folder / "files"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def read_csv(path: Path) -> None:
    head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert path.read_bytes().endswith(b"\n") and rows and {len(row) for row in rows} == {len(head)}


def read_npz(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        assert [file[name].shape for name in file.files]


def read_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() and archive.testzip() is None


def read_onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(str(path))


def read_browser_file(path: Path) -> None:
    assert load_file(path)


def read_database(path: Path) -> None:
    import sqlite3

    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


READ = {  # how a whole file is read; anything else must not be empty
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".csv": read_csv,
    ".npz": read_npz,
    ".zip": read_zip,
    ".onnx": read_onnx,
    ".dit": read_browser_file,
    ".db": read_database,
    ".pt": lambda path: torch.load(path, weights_only=True, map_location="cpu"),
    ".safetensors": load_file,
    ".arrow": lambda path: datasets.Dataset.from_file(str(path)),
    ".png": lambda path: Image.open(path).load(),
    ".ipynb": lambda path: nbformat.validate(nbformat.read(path, as_version=4)),
    ".log": lambda path: None,  # lines of nbgrader, of which the last may be cut
}


def check_files(out: Path, hidden: bool) -> int:
    """Read every file below a folder, those in hidden folders too if `hidden`; return how many there are."""
    count = 0
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        secret = path.name.startswith(".") or (not hidden and any(part.startswith(".") for part in parts))
        if path.is_dir() or secret or path.name.startswith("events.out.tfevents"):
            continue
        assert path.stat().st_size or path.suffix in (".log", ".db"), f"{path} is empty"
        READ.get(path.suffix, Path.read_bytes)(path)
        count += 1
    return count


def words_of(name: str, out: Path, inputs: Path) -> list[str]:
    words, target = COMMANDS[name], str(out / NAMES.get(name, "out"))
    if name == "encode":
        words = [*words, str(inputs / "images"), "--vae", str(inputs / "vae"), "--image-size", "32"]
    if name == "bench":
        return [*words, "--json", target]
    return [*words, target] if words[0] in ("convert", "export") else [*words, "--out", target]


def used(folder: Path) -> int:
    """Bytes of all files, in blocks."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


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
    assert check_files(whole, name == "encode"), "what is written has files, and they can be read"
    for i in range(6):
        with disk(tmp_path / f"disk{i}", int(need * (i + 0.5) / 6) // PAGE * PAGE) as out:
            capsys.readouterr()
            status = main(words_of(name, out, inputs))
            errors = capsys.readouterr().err.strip().splitlines()
            if status == 0:  # what is written last may fit where drafts have been removed
                continue
            assert status == 2 and errors[-1].startswith("dit-nb: error: "), errors
            assert "Traceback" not in "\n".join(errors)
            hidden = [path.name for path in out.rglob(".*") if name != "encode"]  # which resumes
            assert not hidden, hidden
            check_files(out, hidden=name == "encode")
            if name == "assignment build":  # nbgrader's gradebook may be without tables
                shutil.copytree(out, tmp_path / f"again{i}")
                assert main(words_of(name, tmp_path / f"again{i}", inputs)) == 0
            cases.add()
    assert cases.held >= 2
