"""Streams: WebDataset shards and Parquet files that are read in order, by several processes, and again on resume."""

import io
import json
import tarfile
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig
from dit_nb.batches import Batches, BatchReader
from dit_nb.image_check import _Ranks
from dit_nb.image_streams import open_stream
from dit_nb.subsets import balance_classes, hold_out
from dit_nb.training import Trainer
from support import raises_input_error


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(file, "png")
    return file.getvalue()


def write_shards(folder, shards=4, images=6, name="shard-{:04d}.tar", label="cls"):
    """WebDataset shards: image k is gray of level k, its class is k % 3, or a word in a JSON file."""
    for s in range(shards):
        path = folder / name.format(s)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for k in range(s * images, (s + 1) * images):
                text = json.dumps({"label": "abc"[k % 3]}) if label == "json" else str(k % 3)
                for suffix, content in (("png", png(k)), (label, text.encode())):
                    info = tarfile.TarInfo(f"{k:05d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def levels(images) -> list[int]:
    """The numbers of the images."""
    return ((images.mean((1, 2, 3)) + 1) * 127.5).round().int().tolist()


def steps(stream, count, first=0, batch_size=4, rank=0, world=1):
    """Numbers of the images of some training steps, as this rank gets them."""
    batches = Batches(len(stream), batch_size, 0, first, rank, world)
    return [levels(BatchReader(stream)(indices)[0]) for indices, _ in zip(batches, range(count))]


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_are_counted_and_read_in_order(tmp_path, label):
    stream = open_stream(write_shards(tmp_path / "x", label=label), 8, 1)
    assert len(stream) == 24 and stream.class_names == tuple("abc" if label == "json" else "012")
    assert stream.counts == [8, 8, 8]
    images, labels = stream.get_batch(range(5, 14))
    assert levels(images) == list(range(5, 14)) and labels.tolist() == [k % 3 for k in range(5, 14)]
    assert levels(stream[2][0][None]) == [2], "and back"


def test_an_epoch_is_every_image_once_in_a_new_order(tmp_path):
    stream = open_stream(write_shards(tmp_path / "x"), 8, 1)
    first, second = sum(steps(stream, 6), []), sum(steps(stream, 6, first=6), [])
    assert sorted(first) == sorted(second) == list(range(24)) and first != second != list(range(24))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch(tmp_path, world):
    folder = write_shards(tmp_path / "x", shards=4)
    seen: Counter = Counter()
    for rank in range(world):
        stream = open_stream(folder, 8, 1, ranks=_Ranks(rank, world))
        stream.images = 24  # each of these processes has counted its own part only
        seen.update(sum(steps(stream, 24 // 6, 0, 6, rank, world), []))
    assert sorted(seen) == list(range(24)) and set(seen.values()) == {1}


def test_a_resumed_run_gets_the_same_images(tmp_path):
    folder = write_shards(tmp_path / "x")
    straight = steps(open_stream(folder, 8, 1, crop="random"), 14)
    assert steps(open_stream(folder, 8, 1, crop="random"), 5, first=9) == straight[9:]


def test_the_count_is_remembered(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "x")
    open_stream(folder, 8)
    monkeypatch.setattr("dit_nb.image_streams._progress_bar", None)  # would be needed to count
    assert len(open_stream(folder, 8)) == 24


def test_train_on_a_stream(tmp_path):
    data = open_stream(write_shards(tmp_path / "x"), 8, 1)
    torch.manual_seed(0)
    model = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3))
    trainer = Trainer(model, Diffusion(), data, TrainConfig(steps=8, batch_size=4, precision="fp32"))
    trainer.fit(progress=False)
    assert trainer.progress.step == 8 and all(np.isfinite(trainer.progress.history["loss"]))


def test_splits_of_shards(tmp_path):
    for name in ("train-{:03d}.tar", "val-{:03d}.tar"):
        write_shards(tmp_path / "x", shards=2 if "train" in name else 1, name=name)
    stream = open_stream(tmp_path / "x", 8)
    assert (
        len(stream) == 12 and stream.place.endswith("split train") and "1 shards of other" in stream.notes[0]
    )
    assert (
        len(open_stream(f"{tmp_path / 'x'}@val", 8)) == len(open_stream(tmp_path / "x", 8, split="val")) == 6
    )
    with raises_input_error("no split test.*train, validation"):
        open_stream(tmp_path / "x", 8, split="test")


def test_parquet_files_are_streamed(tmp_path):
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["a", "b"]),
        "id": datasets.Value("int64"),
    }
    columns = {
        "image": [{"bytes": png(k), "path": None} for k in range(6)],
        "label": [0, 1] * 3,
        "id": [1] * 6,
    }
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    (tmp_path / "x").mkdir()
    rows.to_parquet(tmp_path / "x" / "train-00000.parquet")
    stream = open_stream(tmp_path / "x", 8, 1)
    assert len(stream) == 6 and stream.class_names == ("a", "b") and stream.notes == ("columns id",)
    images, labels = stream.get_batch(range(6))
    assert levels(images) == list(range(6)) and labels.tolist() == [0, 1] * 3


def test_broken_images(tmp_path):
    folder = write_shards(tmp_path / "x", shards=1)
    path = folder / "shard-0000.tar"
    path.write_bytes(path.read_bytes().replace(png(2), png(2)[:30] + bytes(len(png(2)) - 30)))
    with raises_input_error("image 00002 of the data set cannot be read"):
        open_stream(folder, 8, 1).get_batch(range(6))
    images, labels = open_stream(folder, 8, 1, skip_bad=True).get_batch(range(6))
    assert levels(images) == [0, 1, 3, 3, 4, 5] and labels.tolist() == [0, 1, 0, 0, 1, 2]


def test_what_a_stream_cannot_do(tmp_path):
    stream = open_stream(write_shards(tmp_path / "x", shards=1), 8)
    for wrong in (lambda: hold_out(stream, 0.5), lambda: balance_classes(stream)):
        with raises_input_error("data is a stream"):
            wrong()
    with raises_input_error("part of a stream"):
        BatchReader(Subset(stream, [1, 2]))([0])
    with pytest.raises(ValueError, match="num_workers.*must be 0"):
        next(iter(DataLoader(BatchReader(stream), batch_sampler=[[0, 1]], num_workers=1)))
    with raises_input_error("no image 6"):
        stream.get_batch([6])
    with raises_input_error("label_column is x.*columns"):
        open_stream(tmp_path / "x", 8, label_column="x")
    with raises_input_error("stream:.*nowhere"):
        open_stream(tmp_path / "nowhere", 8)
