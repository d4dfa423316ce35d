"""What a stream is read from: shards of a split, links to folders, and Parquet files."""

import datasets
import pytest

from dit_nb.image_streams import open_stream
from support import raises_input_error
from support_data import levels, png, write_shards, write_tar


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


def test_linked_folders_of_shards(tmp_path):
    write_tar(tmp_path / "elsewhere" / "0.tar", [0, 1])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "train" / "back").symlink_to(tmp_path / "x")
    assert len(open_stream(tmp_path / "x", 8)) == 2
