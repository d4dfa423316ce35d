"""Number and classes of a stream's images: counted, remembered, counted again, or described."""

import json

import datasets
import pytest

from dit_nb.commands.data import _describe_data
from dit_nb.image_streams import open_stream
from support import raises_input_error
from support_data import write_parquet, write_shards, write_tar


def test_the_count_is_remembered(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "x")
    open_stream(folder, 8)
    monkeypatch.setattr("dit_nb.stream_survey._progress_bar", None)  # would be needed to count
    assert len(open_stream(folder, 8)) == 24


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


@pytest.mark.parametrize(
    "labels,kind", [(["a", None], None), ([0, -1], datasets.ClassLabel(names=["a", "b"]))]
)
def test_images_without_a_label_are_refused(tmp_path, labels, kind):
    write_parquet(tmp_path / "x", labels, kind)
    with raises_input_error("1 images with the label (None|-1), but must have one class for each"):
        open_stream(tmp_path / "x", 8)


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
