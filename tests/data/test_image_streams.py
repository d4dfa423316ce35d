"""Streams: WebDataset shards and Parquet files that are read in order, by several processes, and again on resume."""

from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig
from dit_nb.batches import Batches, BatchReader
from dit_nb.image_check import _Ranks
from dit_nb.image_streams import open_stream
from dit_nb.subsets import balance_classes, hold_out
from dit_nb.training import Trainer
from support import raises_input_error
from support_data import levels, png, write_parquet, write_shards


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


DAMAGED = [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"images": 12}']
DAMAGED += [b'{"images": "12", "values": 5, "class_names": null, "counts": "x"}']


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_memory_is_ignored(tmp_path, content):
    place = write_shards(tmp_path / "x", shards=2)
    open_stream(place, 8, 1)
    (file,) = (tmp_path / "home" / "dit_nb").glob("stream-*.json")
    file.write_bytes(content)
    assert len(open_stream(place, 8, 1)) == 12


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


def test_train_on_a_stream(tmp_path):
    data = open_stream(write_shards(tmp_path / "x"), 8, 1)
    torch.manual_seed(0)
    model = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3))
    trainer = Trainer(model, Diffusion(), data, TrainConfig(steps=8, batch_size=4, precision="fp32"))
    trainer.fit(progress=False)
    assert trainer.progress.step == 8 and all(np.isfinite(trainer.progress.history["loss"]))


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
    with raises_input_error("^data is a Subset"):
        BatchReader(Subset(stream, [1, 2]))([0])
    with pytest.raises(ValueError, match="num_workers.*must be 0"):
        next(iter(DataLoader(BatchReader(stream), batch_sampler=[[0, 1]], num_workers=1)))
    with raises_input_error("^index is 6,"):
        stream.get_batch([6])
    with raises_input_error("label_column is x.*columns"):
        open_stream(tmp_path / "x", 8, label_column="x")
    with raises_input_error("stream:.*nowhere"):
        open_stream(tmp_path / "nowhere", 8)


def test_a_broken_image_of_a_parquet_file(tmp_path):
    file = write_parquet(tmp_path / "x", ["a", "b"])
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no image", "path": None}], "label": ["a"]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    rows.to_parquet(file)
    with raises_input_error("image stream:.*, split train cannot be read: it is no image"):
        open_stream(tmp_path / "x", 8).get_batch([0])
