"""`open_images`: folders with and without classes, broken files, worker processes, and arguments."""

import os
import pickle

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dit_nb import image_check
from dit_nb.batches import BatchReader
from dit_nb.data import ImageSet
from dit_nb.image_files import open_images
from support import raises_input_error
from support_data import as_parquet, encoded, random_pixels, write_image

# Folders


def test_class_folders(folder):
    for name in (
        "b two/1.png",
        "b two/2.PNG",
        "a/ö ñ 猫.JPG",
        "a/[x] *.jpeg",
        "a/test 1.webp",
        "a/validation.tiff",
    ):
        write_image(folder / name)
    (folder / "empty").mkdir()
    data = open_images(folder, 8)
    assert data.class_names == ("a", "b two") and sorted(data.labels.tolist()) == [0, 0, 0, 0, 1, 1]
    x, labels = BatchReader(data)(list(range(6)))
    assert x.shape == (6, 3, 8, 8) and labels.dtype == torch.int64 and data.skipped == []
    for i in range(6):
        assert os.path.dirname(data.path(i)).endswith(data.class_names[labels[i]])


def test_files_of_the_operating_system_are_ignored(folder):
    write_image(folder / "a/1.png")
    for name in (
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/._1.png",
        ".thumbnails/1.png",
        "__MACOSX/a/1.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\0\0\1")
    data = open_images(folder, 8)
    assert len(data) == 1 and data.class_names == ("a",)


@pytest.mark.parametrize("name", ["Trip [2023]", "a*b?", "Füße 猫", "with space", "hub"])
def test_folders_of_any_name(tmp_path, name):
    write_image(tmp_path / name / "cat" / "1.png")
    assert len(open_images(tmp_path / name, 8)) == 1
    assert len(open_images(str(tmp_path / name), 8)) == 1


def test_flat_folder_has_no_classes(folder):
    write_image(folder / "1.png")
    data = open_images(folder, 8)
    assert data.class_names == () and BatchReader(data)([0])[1].tolist() == [0]


def test_an_image_beside_class_folders_raises(folder):
    write_image(folder / "cats/1.png")
    write_image(folder / "sheet.png")
    with pytest.raises(ValueError, match="(1.png.*sheet.png|sheet.png.*1.png)"):
        open_images(folder, 8)


def test_the_train_split_is_used(folder):
    write_image(folder / "train/cat/1.png")
    write_image(folder / "test/cat/2.png")
    data = open_images(folder, 8)
    assert len(data) == 1 and data.class_names == ("cat",)


def test_train_may_be_a_class(folder):
    for name in ("train/1.png", "bus/1.png"):
        write_image(folder / name)
    assert open_images(folder, 8, class_folder="first").class_names == ("bus", "train")


def test_unreadable_formats_are_reported(folder):
    write_image(folder / "a/1.png")
    (folder / "a/IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match="IMG_0001.HEIC"):
        open_images(folder, 8)
    data = open_images(folder, 8, skip_bad=True)
    assert len(data) == 1 and len(data.skipped) == 1


def test_missing_and_empty_folders(folder):
    with pytest.raises(ValueError, match="data folder .*images"):
        open_images(folder, 8)
    with pytest.raises(ValueError, match="dogs"):
        open_images(folder / "dogs", 8)
    with pytest.raises(ValueError, match="size"):
        open_images(folder)


def test_digits():
    data = open_images("digits")
    assert isinstance(data, ImageSet) and len(data) == 1437 and data.class_names == tuple("0123456789")
    assert len(open_images("digits", 8, 1)) == 1437
    with pytest.raises(ValueError, match="size.*64.*8"):
        open_images("digits", 64)


# Broken files


def halves(path, keep=0.5):
    full = path.read_bytes()
    path.write_bytes(full[: int(len(full) * keep)])
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_cut_off_files_are_found_before_training(folder, kind, keep):
    write_image(folder / f"cats/good.{kind}")
    bad = halves(write_image(folder / f"cats/ö bad.{kind}"), keep)
    with pytest.raises(ValueError, match=f"image {bad} .*skip_bad") as caught:
        open_images(folder, 8)
    assert "\n" not in str(caught.value)
    data = open_images(folder, 8, skip_bad=True)
    assert len(data) == 1 and len(data.skipped) == 1 and str(bad) in data.skipped[0]
    assert BatchReader(data)([0])[0].isfinite().all()


def test_labels_follow_when_some_are_skipped(folder):
    for i in range(6):
        write_image(folder / "ab"[i % 2] / f"{i}.png", np.full((8, 8), 40 * i, dtype=np.uint8))
    for name in ("a/0.png", "b/3.png"):
        halves(folder / name)
    data = open_images(folder, 8, channels=1, skip_bad=True)
    x, labels = BatchReader(data)(range(4))
    shown = ((x.mean((1, 2, 3)) + 1) * 127.5 / 40).round().int().tolist()
    assert (
        sorted(shown) == [1, 2, 4, 5] and labels.tolist() == [i % 2 for i in shown] and len(data.skipped) == 2
    )
    with pytest.raises(ValueError, match="all 2 .*skip_bad"):
        open_images(folder, 8)


def test_a_class_must_keep_an_image(folder):
    write_image(folder / "a/1.png")
    halves(write_image(folder / "b/1.png"))
    with pytest.raises(ValueError, match="class b"):
        open_images(folder, 8, skip_bad=True)


def test_nothing_can_be_read(folder):
    halves(write_image(folder / "1.png"))
    with pytest.raises(ValueError, match="none of 1 images"):
        open_images(folder, 8, skip_bad=True)


def test_a_broken_image_in_a_table_is_named_by_its_number(tmp_path):
    columns = {"image": [encoded(1), {"bytes": b"junk", "path": "1.png"}]}
    name = as_parquet(tmp_path / "x", columns, {"image": datasets.Image()})
    with pytest.raises(ValueError, match="image 1 of the data set"):
        open_images(name, 8)
    assert len(open_images(name, 8, skip_bad=True)) == 1


def test_a_file_that_breaks_after_opening(folder):
    path = write_image(folder / "1.png")
    data = open_images(folder, 8)
    halves(path)
    with pytest.raises(ValueError, match=f"^image {path} [^\n]*$"):
        BatchReader(data)([0])
    path.unlink()
    with pytest.raises(ValueError, match=f"^image {path} [^\n]*$"):
        data[0]


def test_images_are_checked_once_until_one_changes(folder, monkeypatch):
    path = write_image(folder / "1.png")
    write_image(folder / "2.png")
    read = []
    monkeypatch.setattr(image_check, "read_image", lambda *a: read.append(a))
    for expected in (2, 2):
        open_images(folder, 8)
        assert len(read) == expected
    os.utime(path, (1, 1))
    open_images(folder, 8)
    assert len(read) == 3, "only that one"


def test_a_repaired_file_is_checked_again(folder):
    path = halves(write_image(folder / "1.png"))
    with pytest.raises(ValueError):
        open_images(folder, 8)
    path.unlink()
    write_image(path)
    os.utime(path, (2, 2))
    assert len(open_images(folder, 8)) == 1


# In use


def test_worker_processes_read_the_same(folder):
    for i in range(4):
        write_image(folder / "ab"[i % 2] / f"{i}.png", random_pixels(20, 30, 3, seed=i))
    data = open_images(folder, 8)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(BatchReader(copy)([0, 1, 2, 3])[0], BatchReader(data)([0, 1, 2, 3])[0])
    x, labels = next(iter(DataLoader(data, batch_size=4, num_workers=1)))
    assert torch.equal(x, BatchReader(data)([0, 1, 2, 3])[0]) and labels.tolist() == data.labels.tolist()


# Arguments


def test_folder_that_is_a_file(folder):
    path = write_image(folder / "a.png")
    with raises_input_error(f"{path}"):
        open_images(path, 8)


def test_folder_without_images(folder):
    (folder / "cats").mkdir()
    (folder / "cats" / "notes.txt").write_text("meow")
    with raises_input_error(f"data folder {folder}"):
        open_images(folder, 8)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("keep", [20, 500])
def test_a_file_with_only_its_first_bytes_is_named(folder, kind, keep):
    write_image(folder / f"cats/good.{kind}")
    bad = write_image(folder / f"cats/bad.{kind}")
    bad.write_bytes(bad.read_bytes()[:keep])
    with raises_input_error(f"image {bad}"):
        open_images(folder, 8)


@pytest.mark.parametrize(
    "options,pattern",
    [
        ({"channels": 2}, "channels.*2"),
        ({"size": 0}, "size.*0"),
        ({"size": 8.0}, r"size.*8\.0"),
        ({"size": True}, "size.*True"),
    ],
)
def test_arguments_that_do_not_fit(folder, options, pattern):
    write_image(folder / "cats" / "a.png")
    with raises_input_error(pattern):
        open_images(folder, **{"size": 8, **options})


def test_the_bars_of_datasets_are_hidden_while_a_table_is_read_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("dit_nb.image_files._bar_visible", lambda shown: False)
    seen = []
    monkeypatch.setattr(
        "dit_nb.image_files._hub_table", lambda *_: seen.append(datasets.are_progress_bars_disabled())
    )
    before = datasets.are_progress_bars_disabled()
    with pytest.raises(AttributeError):  # the stand-in returns no table
        open_images(f"hub:{tmp_path}", 8)
    assert seen == [True] and datasets.are_progress_bars_disabled() == before
