"""Streams: WebDataset shards and Parquet files that are read in order, by several processes, and again on resume."""

import io
import json
import shutil
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
from dit_nb.commands.data import _describe_data
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


def test_a_loop_over_a_stream_ends_after_one_pass(tmp_path):
    stream = open_stream(write_shards(tmp_path / "x", shards=2), 8, 1)
    for _ in range(2):
        assert levels(torch.stack([image for image, _ in stream])) == list(range(12))
    assert levels(stream[torch.tensor(3)][0][None]) == [3]
    with raises_input_error("index is -1, but must be 0 or more for a stream"):
        stream[-1]
    with raises_input_error("index is slice.*must be an integer"):
        stream[0:2]


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
        stream.images, stream.numbers = 24, {k: k for k in range(3)}  # each has counted its own part only
        seen.update(sum(steps(stream, 24 // 6, 0, 6, rank, world), []))
    assert sorted(seen) == list(range(24)) and set(seen.values()) == {1}


def test_a_resumed_run_gets_the_same_images(tmp_path):
    folder = write_shards(tmp_path / "x")
    straight = steps(open_stream(folder, 8, 1, crop="random"), 14)
    assert steps(open_stream(folder, 8, 1, crop="random"), 5, first=9) == straight[9:]


def test_the_count_is_remembered(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "x")
    open_stream(folder, 8)
    monkeypatch.setattr("dit_nb.stream_survey._progress_bar", None)  # would be needed to count
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
    with raises_input_error("no split test.*train, val"):
        open_stream(tmp_path / "x", 8, split="test")


@pytest.mark.parametrize(
    "train,other",
    [
        ("trainset-{}.tar", "testset-{}.tar"),
        ("seg_train/{}.tar", "seg_test/{}.tar"),
        ("a-train-{:05d}-of-00002.tar", "a-validation-{:05d}-of-00002.tar"),
    ],
)
def test_splits_of_shards_in_any_spelling(tmp_path, train, other):
    for name in (train, other):
        write_shards(tmp_path / "x", shards=2, name=name)
    stream = open_stream(tmp_path / "x", 8)
    assert len(stream) == 12 and "train" in stream.place and stream.notes == ("2 shards of other splits",)
    assert len(open_stream(tmp_path / "x" / ("*/*.tar" if "/" in train else "*.tar"), 8)) == 12
    write_shards(tmp_path / "x", shards=1, name="extra-{}.tar")
    with raises_input_error("which look like splits, beside extra, which does not: choose one with split"):
        open_stream(tmp_path / "x", 8)
    assert len(open_stream(tmp_path / "x", 8, split="extra")) == 6
    assert len(open_stream(tmp_path / "x", 8, split="train")) == 12


def test_shards_of_several_sources(tmp_path):
    for name in ("cats-train-{}.tar", "dogs-train-{}.tar", "dogs-val-{}.tar"):
        write_shards(tmp_path / "x", shards=1, name=name)
    with raises_input_error("shards cats-train and dogs-train for one split"):
        open_stream(tmp_path / "x", 8)
    assert len(open_stream(tmp_path / "x", 8, split="train")) == 12
    assert len(open_stream(tmp_path / "x", 8, split="cats-train")) == 6


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
    with raises_input_error("image 00002.png of shard-0000.tar cannot be read: it is no image"):
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


# Files that change, are copied, cut or damaged


def write_tar(path, labels, members=None):
    """A shard of one gray image for each label. The sizes of two such files are equal: tar pads to 10,240 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for k, label in enumerate(labels):
            for suffix, content in (("png", png(k)), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{k:05d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_a_shard_that_is_written_again_is_counted_again(tmp_path):
    shard = write_tar(tmp_path / "a" / "train-0.tar", [0, 0, 1, 1])
    old, size = open_stream(tmp_path / "a", 8), shard.stat().st_size
    assert write_tar(shard, [5, 5, 7, 7]).stat().st_size == size
    new, other = open_stream(tmp_path / "a", 8), write_tar(tmp_path / "b" / "train-0.tar", [3, 3, 3, 4])
    assert old.class_names == ("0", "1") and new.class_names == ("5", "7") and new.counts == [2, 2]
    assert new.get_batch(range(4))[1].tolist() == [0, 0, 1, 1]
    assert open_stream(other.parent, 8).counts == [3, 1], "the same name and size in another folder"
    with raises_input_error(
        "image 00000.png of train-0.tar has the class 5, .*2 classes.*open the stream again"
    ):
        old.get_batch(range(4))


def test_a_copy_has_the_same_fingerprint_and_other_content_another(tmp_path):
    first = open_stream(write_tar(tmp_path / "a" / "0.tar", [0, 1]).parent, 8).fingerprint
    shutil.copytree(
        tmp_path / "a", tmp_path / "copy", copy_function=shutil.copyfile
    )  # another time of change
    assert open_stream(tmp_path / "copy", 8).fingerprint == first
    write_tar(tmp_path / "a" / "0.tar", [0, 2])
    assert open_stream(tmp_path / "a", 8).fingerprint != first
    write_tar(tmp_path / "a" / "0.tar", [0, 1])
    assert open_stream(tmp_path / "a", 8).fingerprint == first


def test_linked_folders_of_shards(tmp_path):
    write_tar(tmp_path / "elsewhere" / "0.tar", [0, 1])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "train" / "back").symlink_to(tmp_path / "x")
    assert len(open_stream(tmp_path / "x", 8)) == 2


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kept", [0, 7, 512, 700, 1536, 9000 - 512])
def test_a_tar_file_that_is_cut_is_named(tmp_path, number, kept):
    """At any byte, in the first shard, from which the columns are read, and in another."""
    for k in range(2):
        write_tar(tmp_path / "x" / f"{k}.tar", range(9))
    shard = tmp_path / "x" / f"{number}.tar"
    shard.write_bytes(shard.read_bytes()[:kept])
    with raises_input_error(rf"shard .*/{number}\.tar cannot be read: .*cut or damaged"):
        open_stream(tmp_path / "x", 8)


def test_a_tar_file_without_its_end_is_noted(tmp_path):
    """Cut between two images, it looks as if it were whole: only the end mark is missing."""
    shard = write_tar(tmp_path / "x" / "0.tar", range(4))
    shard.write_bytes(shard.read_bytes()[: 2 * 4 * 512])  # an image and a label of two blocks each
    stream = open_stream(tmp_path / "x", 8)
    assert len(stream) == 2 and any("0.tar, which has no end mark" in note for note in stream.notes)
    assert open_stream(tmp_path / "x", 8).notes == stream.notes, "remembered, too"


def test_a_damaged_header_does_not_end_a_shard(tmp_path):
    shard = write_tar(tmp_path / "x" / "0.tar", range(9))
    content = bytearray(shard.read_bytes())
    content[20 * 512 + 150] ^= 64  # the check sum of a header
    shard.write_bytes(content)
    with raises_input_error("0.tar cannot be read: no header at byte 10,240"):
        open_stream(tmp_path / "x", 8)


def test_a_shard_that_is_cut_while_it_is_read(tmp_path):
    shard = write_tar(tmp_path / "x" / "0.tar", range(9))
    stream = open_stream(tmp_path / "x", 8)
    shard.write_bytes(shard.read_bytes()[:5000])
    with raises_input_error("0.tar cannot be read: .*cut or damaged"):
        stream.get_batch(range(9))


def write_parquet(folder, labels, kind=None, name="train-00000.parquet"):
    columns = {"image": [{"bytes": png(k), "path": None} for k in range(len(labels))], "label": labels}
    kinds = datasets.Features({"image": datasets.Image(), "label": kind or datasets.Value("string")})
    folder.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(folder / name)
    return folder / name


def test_parquet_files_that_are_written_again_or_cut(tmp_path):
    file = write_parquet(tmp_path / "x", ["a", "b"])
    assert open_stream(tmp_path / "x", 8).class_names == ("a", "b")
    write_parquet(tmp_path / "x", ["c", "d"])
    assert open_stream(tmp_path / "x", 8).class_names == ("c", "d")
    content = file.read_bytes()
    for kept in (0, 3, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:kept])
        with raises_input_error("shard .*/train-00000.parquet cannot be read: .*cut or damaged"):
            open_stream(tmp_path / "x", 8)


@pytest.mark.parametrize(
    "labels,kind", [(["a", None], None), ([0, -1], datasets.ClassLabel(names=["a", "b"]))]
)
def test_images_without_a_label_are_refused(tmp_path, labels, kind):
    write_parquet(tmp_path / "x", labels, kind)
    with raises_input_error("1 images with the label (None|-1), but must have one class for each"):
        open_stream(tmp_path / "x", 8)


def test_a_broken_image_of_a_parquet_file(tmp_path):
    file = write_parquet(tmp_path / "x", ["a", "b"])
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no image", "path": None}], "label": ["a"]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    rows.to_parquet(file)
    with raises_input_error("image stream:.*, split train cannot be read: it is no image"):
        open_stream(tmp_path / "x", 8).get_batch([0])


def test_a_description_has_classes_but_no_counts(tmp_path):
    write_parquet(tmp_path / "x", [0, 1, 1], datasets.ClassLabel(names=["a", "b"]))
    info = {"splits": [{"name": "train", "num_examples": 3, "num_bytes": 900}]}
    info["features"] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": {"0": "a", "1": "b"}}}},
    ]
    (tmp_path / "x" / "README.md").write_text(f"---\ndataset_info: {json.dumps(info)}\n---\n")
    stream = open_stream(tmp_path / "x", 8)
    assert len(stream) == 3 and stream.counts is None
    assert "  2 classes, whose counts are unknown" in _describe_data(stream)
    assert stream.get_batch(range(3))[1].tolist() == [0, 1, 1]
