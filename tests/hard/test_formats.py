"""Damaged files: every format that is read, truncated, with flipped bits, and swapped with other files.

Each reader gives a sentence, or a result that is whole. It never crashes, hangs, or runs code from a file.
"""

import dataclasses
import io
import json
import os
import pickle
import random
import shutil
import signal
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from dit_nb import DiT, DiTConfig, SamplingConfig, load_model
from dit_nb.checkpoint import Checkpointer
from dit_nb.commands.sample import _check_same_settings
from dit_nb.config import TrainConfig
from dit_nb.data import digits
from dit_nb.errors import UserError
from dit_nb.finetune import add_lora
from dit_nb.hub import _model_folder
from dit_nb.image_check import _load_known
from dit_nb.image_files import open_images
from dit_nb.image_streams import open_stream
from dit_nb.interop.convert import load_any, load_diffusers, save_diffusers
from dit_nb.interop.official import save_official
from dit_nb.lab.sweep import _META_COLUMNS, Study, _finished_runs, _read_rows, run_study, toy_run
from dit_nb.latent_cache import _begin_latents, _plan_latents, encode_images, open_latents
from dit_nb.latents import LatentCodec
from dit_nb.measure import evaluate
from dit_nb.objective import Diffusion
from dit_nb.pretrained import save_model
from dit_nb.run_log import _MetricsTable, _wandb_options
from dit_nb.sample_files import save_npz
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.teach.classroom import assignments, challenge, checking
from dit_nb.teach.classroom.challenge import _Entry
from dit_nb.teach.classroom.execute import _Run
from dit_nb.teach.classroom.grading import _read_release
from dit_nb.teach.classroom.memory import _read_memory
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook
from dit_nb.teach.classroom.roster import _read_extensions, _read_roster
from dit_nb.teach.classroom.table import Grade, _read_table, _write_table
from dit_nb.teach.classroom.work import Class, _take_in
from dit_nb.training import Trainer
from support_training import HALFWAY, make_trainer

pytestmark = pytest.mark.hard

SECONDS = 300  # to read a small file and import what that needs, on a busy machine
MODEL = DiT(DiTConfig(8, 4, 4, 16, 1, 2, num_classes=3)).eval()
SAMPLING = SamplingConfig(class_names=("a", "b", "c"), clip_x0=False)


@contextmanager
def limit(seconds: int):
    "Raise TimeoutError in what takes longer: a hang."

    def stop(*_):
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(reader: Callable, folder: Path) -> str:
    "Read a folder: `read`, or `refused` with one sentence. Any other exception is a failure."
    try:
        with limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(folder)
        return "read"
    except (UserError, FileNotFoundError) as error:
        message = str(error)
        assert "\n" not in message and message.endswith("."), repr(message)
        return "refused"


# One folder with a file of each kind, and what reads it


def pictures(folder: Path, suffix: str, table: str | None = None) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        place = folder if table else folder / name
        place.mkdir(parents=True, exist_ok=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(place / f"{name}{i}{suffix}")
    rows = [(f"{name}{i}{suffix}", name) for name in ("cat", "dog") for i in range(2)]
    if table == "metadata.csv":
        (folder / table).write_text("file_name,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    elif table == "labels.tsv":
        (folder / table).write_text("file_name\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    elif table == "metadata.parquet":
        columns = {"file_name": [a for a, _ in rows], "label": [b for _, b in rows]}
        datasets.Dataset.from_dict(columns).to_parquet(folder / table)
    elif table == "captions":
        for file, name in rows:
            (folder / file).with_suffix(".txt").write_text(f"a picture of a {name}\n")
    elif table:
        lines = [json.dumps({"file_name": a, "label": b}) for a, b in rows]
        (folder / table).write_text("\n".join(lines) + "\n")


def streams(folder: Path) -> None:
    "The same images as a WebDataset shard and as a Parquet file."
    cells = [
        (i, (folder / f"images.png/{name}/{name}{i}.png").read_bytes())
        for i in range(2)
        for name in ("cat", "dog")
    ]
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards/0.tar", "w") as tar:
        for k, (label, content) in enumerate(cells):
            for suffix, data in (("png", content), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{k:03d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    columns = {
        "image": [{"bytes": content, "path": None} for _, content in cells],
        "label": [str(a) for a, _ in cells],
    }
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    (folder / "parquet").mkdir()
    rows.to_parquet(folder / "parquet/train.parquet")


def autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).eval()


LESSON = next((Path(__file__).resolve().parents[2] / "nbs").glob("*/03_patchify.ipynb"))
RELEASE = _release_notebook(source_notebook("a1"))


def classroom(folder: Path) -> None:
    "A student's notebook, a class as folder and as zip file, lists of students, and a frame of an assignment."
    submission = assignments._dumps(RELEASE)
    for name in ("check/a1.ipynb", "class/anna.ipynb", "class/ben.ipynb", "course/release/a1/a1.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(submission)
    with zipfile.ZipFile(folder / "class.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("anna", "ben"):
            archive.writestr(f"{name}.ipynb", submission)
    (folder / "roster.csv").write_text("id,name,email\nanna,Anna Li,anna@x.org\nben,Ben,\n")
    (folder / "late.csv").write_text("student,days,hours\nanna,2,\nben,,3\n")
    _write_table(
        folder / "grades-a1.csv", "a1", [Grade("anna", "graded", {"patchify": (3.0, 5.0)}, seconds=2.5)]
    )
    challenge._update_leaderboard(folder / "leaderboard.csv", [_Entry("me", 1.0, 0.1, 0.9, 1000, 500)])
    (folder / "course/.grading").mkdir()
    (folder / "course/.grading/a1.json").write_text(json.dumps({"anna": {"marks": {}, "notes": []}}))
    cells = ["# One exercise\n\n**Minutes**: 10", "<!-- exercise: patchify -->"]
    frame = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": [text]} for text in cells]}
    (folder / "a9_one.ipynb").write_text(json.dumps(frame))
    shutil.copy(LESSON, folder / "lesson.ipynb")


def lora_trainer(out: Path) -> Trainer:
    "A run that trains low-rank adapters."
    torch.manual_seed(0)
    model = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=10))
    add_lora(model, 2)
    config = TrainConfig(steps=1, batch_size=4, precision="fp32", save_every=1)
    return Trainer(model, Diffusion(bins=17), digits().train, config, out)


STUDY = Study("Does level matter?", [{"level": 0}, {"level": 3}], toy_run, seeds=2)
SETTINGS = {"seed": 0, "steps": "5", "cfg_scale": 1.5, "time_shift": 1.0, "label": None, "prompt": ["a", "b"]}


def runs(folder: Path) -> None:
    "Runs of both kinds of checkpoints, and what else a command continues."
    make_trainer(HALFWAY, out=folder / "resumed").fit(progress=False)
    make_trainer(dataclasses.replace(HALFWAY, background_save=True), out=folder / "shards of it").fit(False)
    lora_trainer(folder / "lora").fit(progress=False)
    (folder / "logs of it").mkdir()
    for step in (5, 10, 30):
        _MetricsTable(folder / "logs of it" / "metrics.csv").add(step, {"loss": 1 / step, "lr": 1e-4})
    _wandb_options(folder / "logs of it")
    (folder / "sampled").mkdir()
    _check_same_settings(folder / "sampled", SETTINGS)
    run_study("toy", STUDY, folder / "study.csv", progress=False)
    np.save(folder / "known.npy", np.arange(20, dtype=np.uint64))
    words = {"vocabulary": ("a", "red", "circle"), "text_length": 4, "text_width": 16, "pooled_width": 16}
    save_model(
        MMDiT(MMDiTConfig(8, 4, 1, 16, 1, 2, num_classes=0, learn_sigma=False, **words)).eval(),
        folder / "texts",
        SamplingConfig(objective="flow"),
    )


def continue_table(path: Path) -> None:
    "Continue a table of a run: what is kept is numbers of earlier steps."
    _MetricsTable(path).add(20, {"loss": 0.5, "lr": 1e-4})
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    numbers = [[float(cell) for cell in row.split(",")] for row in rows]
    assert head == "step,loss,lr" and [len(row) for row in numbers] == [3] * len(rows)
    assert all(row[0] < 20 for row in numbers[:-1]) and numbers[-1] == [20, 0.5, 1e-4]


def continue_study(path: Path) -> None:
    "See what a study has already, as `run_study` does before and after its runs."
    done = _finished_runs(path, "toy", STUDY, ["level", *_META_COLUMNS])
    assert len(_read_rows(path)) >= len(done)


def continue_encoding(folder: Path) -> None:
    data = open_images(str(folder / "images.png"), 8)
    codec = LatentCodec.load(folder / "vae", device="cpu")
    _begin_latents(folder / "begun", _plan_latents(data, codec))


def resume(out: Path) -> None:
    "Resume a run, in whose checkpoint every number must be finite and every size right."
    trainer = make_trainer(out=out)
    trainer.resume()
    assert trainer.progress.step == 2 and isinstance(trainer.checkpointer, Checkpointer)


def make(folder: Path) -> None:
    classroom(folder)
    runs(folder)
    save_model(MODEL, folder / "model", SAMPLING)
    shutil.copytree(folder / "model", folder / "run/checkpoints/step-00000001")
    shutil.copy(folder / "model/model.safetensors", folder / "run/checkpoints/step-00000001/ema.safetensors")
    save_official(MODEL, folder / "plain.pt")
    save_official(MODEL, folder / "training.pt", SAMPLING, training=True)
    save_diffusers(MODEL, folder / "pipeline", SAMPLING, autoencoder())
    (folder / "pipeline/sampling.json").unlink()
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".gif", ".tif"):
        pictures(folder / f"images{suffix}", suffix)
    for table in ("metadata.csv", "metadata.jsonl", "labels.tsv", "metadata.parquet", "captions"):
        pictures(folder / table, ".png", table)
    streams(folder)
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    save_npz(folder / "samples.npz", [images], [0] * 12)
    np.savez_compressed(folder / "statistics.npz", mu=np.zeros(4), sigma=np.eye(4))
    autoencoder().save_pretrained(folder / "vae")
    data = open_images(str(folder / "images.png"), 8)
    encode_images(data, LatentCodec.load(folder / "vae", device="cpu"), folder / "latents", progress=False)
    continue_encoding(folder)


def all_items(data) -> None:
    for i in range(len(data)):
        data[i]


def features(images):
    from dit_nb.features import Features

    return Features(images.flatten(1)[:, :4].double().numpy())


def compare(samples: Path, reference: Path) -> None:
    evaluate(str(samples), str(reference), features, k=1, resamples=0, progress=False)


async def not_run(*_) -> _Run:
    return _Run()


def check(notebook: Path) -> None:
    "Read a student's notebook as `dit-nb check` does, without running it."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "_run_notebook", not_run)
        checking.check_notebook(notebook)


def take_in(submissions: Path) -> None:
    "Take a class in: who cannot be read costs a sentence, and nobody else."
    with tempfile.TemporaryDirectory() as scratch:
        works = _take_in("a1", submissions, Class(submissions), RELEASE, {}, [], Path(scratch))
    others = [work for work in works if work.student == "ben"]
    assert submissions.suffix == ".zip" or [work.nb is not None for work in others] == [True]
    for work in works:
        assert work.nb is not None or (work.reason and "\n" not in work.reason)
    if any(work.nb is None for work in works):
        raise UserError(f"{works[0].reason}.")


READERS = {  # file -> what reads it
    "model/config.json": lambda f: load_model(f / "model", device="cpu"),
    "model/model.safetensors": lambda f: load_model(f / "model", device="cpu"),
    "model/sampling.json": lambda f: load_model(f / "model", device="cpu"),
    "run/checkpoints/step-00000001/ema.safetensors": lambda f: load_any(f / "run", device="cpu"),
    **{
        f"resumed/checkpoints/step-00000002/{name}": lambda f: resume(f / "resumed")
        for name in ("run.json", "training.pt", "model.safetensors", "ema.safetensors")
    },
    **{
        f"shards of it/checkpoints/step-00000002/{name}": lambda f: resume(f / "shards of it")
        for name in ("training.pt", "optimizer/.metadata", "optimizer/__0_0.distcp")
    },
    **{
        f"lora/checkpoints/step-00000001/{name}": lambda f: load_any(f / "lora", device="cpu")
        for name in ("adapter_config.json", "config.json", "ema.safetensors")
    },
    "logs of it/metrics.csv": lambda f: continue_table(f / "logs of it/metrics.csv"),
    "logs of it/logs/wandb-id": lambda f: _wandb_options(f / "logs of it"),
    "sampled/settings.json": lambda f: _check_same_settings(f / "sampled", SETTINGS),
    "study.csv": lambda f: continue_study(f / "study.csv"),
    ".unfinished-begun/latents.json": continue_encoding,
    "known.npy": lambda f: _load_known(f / "known.npy"),
    "texts/config.json": lambda f: load_model(f / "texts", device="cpu"),
    "plain.pt": lambda f: load_any(f / "plain.pt", num_heads=2, device="cpu"),
    "training.pt": lambda f: load_any(f / "training.pt", device="cpu"),
    "pipeline/model_index.json": lambda f: load_any(f / "pipeline", device="cpu"),
    "pipeline/transformer/config.json": lambda f: load_diffusers(f / "pipeline"),
    "pipeline/transformer/diffusion_pytorch_model.safetensors": lambda f: load_diffusers(f / "pipeline"),
    "pipeline/scheduler/scheduler_config.json": lambda f: load_diffusers(f / "pipeline"),
    "vae/config.json": lambda f: LatentCodec.load(f / "vae", device="cpu"),
    "vae/diffusion_pytorch_model.safetensors": lambda f: LatentCodec.load(f / "vae", device="cpu"),
    "latents/latents.json": lambda f: all_items(open_latents(f / "latents")),
    "latents/dataset_info.json": lambda f: all_items(open_latents(f / "latents")),
    "latents/state.json": lambda f: all_items(open_latents(f / "latents")),
    "latents/data-00000-of-00001.arrow": lambda f: all_items(open_latents(f / "latents")),
    "samples.npz": lambda f: compare(f / "samples.npz", f / "samples.npz"),
    "statistics.npz": lambda f: compare(f / "samples.npz", f / "statistics.npz"),
    "metadata.csv/metadata.csv": lambda f: all_items(open_images(str(f / "metadata.csv"), 8)),
    "metadata.jsonl/metadata.jsonl": lambda f: all_items(open_images(str(f / "metadata.jsonl"), 8)),
    "labels.tsv/labels.tsv": lambda f: all_items(open_images(str(f / "labels.tsv"), 8)),
    "metadata.parquet/metadata.parquet": lambda f: all_items(open_images(str(f / "metadata.parquet"), 8)),
    "captions/cat0.txt": lambda f: all_items(open_images(str(f / "captions"), 8, captions=True)),
    "shards/0.tar": lambda f: all_items(open_stream(f / "shards", 8)),
    "parquet/train.parquet": lambda f: all_items(open_stream(f / "parquet", 8)),
    "check/a1.ipynb": lambda f: check(f / "check/a1.ipynb"),
    "class/anna.ipynb": lambda f: take_in(f / "class"),
    "class.zip": lambda f: take_in(f / "class.zip"),
    "course/release/a1/a1.ipynb": lambda f: _read_release(f / "course", "a1"),
    "roster.csv": lambda f: _read_roster(f / "roster.csv"),
    "late.csv": lambda f: _read_extensions(f / "late.csv", "a1", []),
    "grades-a1.csv": lambda f: _read_table(f / "grades-a1.csv"),
    "leaderboard.csv": lambda f: challenge._read(f / "leaderboard.csv"),
    "course/.grading/a1.json": lambda f: _read_memory(f / "course", "a1"),
    "a9_one.ipynb": lambda f: assignments.collect(f / "a9_one.ipynb", [LESSON]),
    "lesson.ipynb": lambda f: assignments.collect(f / "a9_one.ipynb", [f / "lesson.ipynb"]),
    **{
        f"images{suffix}/cat/cat0{suffix}": lambda f, name=f"images{suffix}": all_items(
            open_images(str(f / name), 8)
        )
        for suffix in (".png", ".jpg", ".webp", ".bmp", ".gif", ".tif")
    },
}


# What is read as empty: the gradebook has the same, and no grader shall stop because of a file that it writes itself.
MAY_BE_CUT = ("grades-a1.csv", "leaderboard.csv", "course/.grading/a1.json")
# What is read as if it were new, or left out and told: a log, a study that was begun, a memory, a caption.
READ_AS_EMPTY = (
    "logs of it/metrics.csv",
    "study.csv",
    "known.npy",
    "captions/cat0.txt",
    "labels.tsv/labels.tsv",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    "A copy of the files, and no network that a reader could wait for."
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(whole, tmp_path / "files")
    return tmp_path / "files"


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read(folder, name):
    "Whole files are read"
    assert read(READERS[name], folder) == "read"


@pytest.mark.parametrize("name", READERS)
def test_truncated_files(folder, name, cases):
    "Truncated files: a sentence"
    path, content = folder / name, (folder / name).read_bytes()
    results = []
    for kept in sorted(
        {0, 1, 7, 8, 9, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 1}
    ):
        path.write_bytes(content[: max(kept, 0)])
        results.append(read(READERS[name], folder))
        cases.add()
    lenient = name in MAY_BE_CUT + READ_AS_EMPTY
    assert "refused" in results[:3] or lenient, "an empty file, or a few bytes of one, are refused"
    path.unlink()
    read(READERS[name], folder)
    if name not in MAY_BE_CUT:
        path.unlink(missing_ok=True)  # some are written again
        path.mkdir()
        read(READERS[name], folder)


def flips(content: bytes, count: int, seed: int):
    "Copies of a file with one to three flipped bits; half of them near the start, where the headers are."
    rng = random.Random(seed)
    for i in range(count):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            position = rng.randrange(min(len(content), 400) if i % 2 else len(content))
            damaged[position] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


@pytest.mark.parametrize("name", READERS)
def test_flipped_bits(folder, name, cases):
    "Files with flipped bits: a sentence, or a result that is whole"
    path, content = folder / name, (folder / name).read_bytes()
    for damaged in flips(content, 40, seed=len(name)):
        path.write_bytes(damaged)
        read(READERS[name], folder)
        cases.add()


def others(folder: Path) -> list[bytes]:
    "Contents of other kinds of files, and some that readers of JSON and of tables stumble over."
    kinds = [(folder / name).read_bytes() for name in list(READERS)[::3]]
    odd = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"a,b\n1\n2,3,4\n",
        b"{" * 9,
        b"1e999",
        b"\0" * 100,
    ]
    return kinds + odd


@pytest.mark.parametrize("name", READERS)
def test_swapped_files(folder, name, cases):
    "Files with the content of another format: a sentence"
    for content in others(folder):
        (folder / name).write_bytes(content)
        read(READERS[name], folder)
        cases.add()


class Bomb:
    "When it is unpickled, it makes a folder: the sign of code that was run."

    def __init__(self, sign: Path):
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self.sign),)


@pytest.mark.parametrize("name", READERS)
def test_code_in_files_is_not_run(folder, name, cases):
    "Pickled code instead of files is not run"
    sign = folder / "code was run"
    bomb = Bomb(sign)
    torch.save({"model": bomb}, folder / "bomb.pt")
    torch.save({"model": bomb}, folder / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "bomb.npz", arr_0=np.array([bomb], dtype=object), mu=np.array([bomb], dtype=object))
    bombs = [
        pickle.dumps(bomb),
        *((folder / file).read_bytes() for file in ("bomb.pt", "old.pt", "bomb.npz")),
    ]
    for content in bombs:
        (folder / name).write_bytes(content)
        refused = read(READERS[name], folder) == "refused"
        assert refused or not name.endswith((".pt", ".npz", ".metadata", ".distcp"))
        assert not sign.exists()
        cases.add()


def test_the_bomb_is_one(tmp_path):
    "The pickled code of these tests runs where it is not refused"
    pickle.loads(pickle.dumps(Bomb(tmp_path / "sign")))
    assert (tmp_path / "sign").exists()


def test_tensors_that_belong_to_another_model(folder):
    "Weights of another model are refused"
    weights = {name: torch.zeros(3) for name in MODEL.state_dict()}
    save_file(weights, folder / "model/model.safetensors")
    assert read(READERS["model/model.safetensors"], folder) == "refused"
    assert _model_folder(folder / "run").name == "step-00000001"
