"""Reading every image once: by several processes, in rounds, and only what is new or has changed."""

import io
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dit_nb import image_check
from dit_nb.image_check import _find_unreadable, _Ranks, _save_known
from dit_nb.image_files import open_images
from dit_nb.image_sources import _folder_table
from support import raises_input_error
from support_data import random_pixels, swapped_profile


@pytest.fixture
def pictures(folder):
    """Twelve images, of which two are broken."""
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / f"{i:02d}.png")
    for i in (3, 8):
        (folder / f"{i:02d}.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def read(monkeypatch):
    """Numbers of the images that are read."""
    numbers, original = [], image_check._read_error

    def spy(cell, i, size):
        numbers.append(i)
        return original(cell, i, size)

    monkeypatch.setattr(image_check, "_read_error", spy)
    return numbers


class Meeting:
    """Gathers values of several threads, as processes would, and counts how often they meet."""

    def __init__(self, n):
        self.barrier, self.values, self.count = threading.Barrier(n, timeout=60), [None] * n, 0

    def gather(self, rank):
        def call(value):
            self.values[rank] = value
            self.barrier.wait()
            values = list(self.values)
            self.barrier.wait()
            self.count += rank == 0
            return values

        return call


@pytest.mark.parametrize("world,seconds", [(1, 30), (3, 30), (3, 0)])
def test_processes_share_the_reading(pictures, read, monkeypatch, world, seconds):
    """Each image is read by one process; all get all errors; and they meet after each round."""
    monkeypatch.setattr(image_check, "_CHUNK", 1)
    meeting, found = Meeting(world), [{}] * world

    def run(rank):
        ranks = _Ranks(rank, world, meeting.gather(rank), round_seconds=seconds or 1e-9)
        found[rank], _ = _find_unreadable(_folder_table(pictures).cells, 8, ranks)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == list(range(12))
    assert all(set(errors) == {3, 8} and "03.png" in errors[3] for errors in found)
    assert meeting.count > 4 if seconds == 0 else meeting.count == 2


def test_only_new_and_changed_files_are_read_again(pictures, read):
    def numbers():
        read.clear()
        open_images(pictures, 8, skip_bad=True)
        return sorted(read)

    assert numbers() == list(range(12))
    assert numbers() == [3, 8], "what could not be read is tried again"
    os.utime(pictures / "05.png", (1, 1))
    Image.new("L", (8, 8)).save(pictures / "12.png")
    assert numbers() == [3, 5, 8, 12]
    (pictures / "00.png").unlink()
    assert numbers() == [2, 7], "the same files, now one place earlier"


def test_the_size_of_the_crop_does_not_matter(pictures, read):
    open_images(pictures, 8, skip_bad=True)
    read.clear()
    open_images(pictures, (4, 6), channels=1, skip_bad=True)
    assert sorted(read) == [3, 8]


def test_another_split_is_remembered_too(folder, read):
    for split in ("train", "test"):
        (folder / split).mkdir()
        Image.new("L", (8, 8)).save(folder / split / "1.png")
    for split in ("train", "test", "train", "test"):
        open_images(folder, 8, split=split)
    assert len(read) == 2


def test_images_with_several_frames_are_noted_and_remembered(folder, read):
    """Of animations and of documents of several pages, only the first frame is used."""
    frames = [Image.new("L", (8, 8), 20 * k) for k in range(3)]
    for suffix in ("gif", "webp", "tiff", "png"):
        frames[0].save(folder / f"a.{suffix}", save_all=True, append_images=frames[1:])
        frames[0].save(folder / f"still.{suffix}")
    frames[0].save(folder / "still.jpg")
    for expected in (9, 0):
        read.clear()
        data = open_images(folder, 8)
        assert data.notes == ("frames after the first of 4 images, such as a.gif",)
        assert len(read) == expected
    (folder / "a.gif").unlink()
    assert open_images(folder, 8).notes == ("frames after the first of 3 images, such as a.png",)


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DAMAGED = [b"", b"junk", b"\x93NUMPY\x01\x00", b"PK\x03\x04", npz(a=np.zeros(3, np.uint64))]
DAMAGED += [npy(np.zeros((2, 2), np.uint64)), npy(np.zeros(3)), npy(np.uint64(1))]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_memory_is_ignored(pictures, read, content):
    open_images(pictures, 8, skip_bad=True)
    (file,) = (pictures.parent / "home" / "dit_nb").iterdir()
    file.write_bytes(content)
    read.clear()
    open_images(pictures, 8, skip_bad=True)
    assert sorted(read) == list(range(12))


def test_a_disk_that_cannot_be_written(pictures, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file"))
    assert len(open_images(pictures, 8, skip_bad=True)) == 10
    _save_known(tmp_path / "file" / "x.npy", np.zeros(1, np.uint64))


def test_processes_that_see_other_files(pictures):
    """As with copies on several machines, one of which is not complete."""
    cells = _folder_table(pictures).cells
    gather = lambda value: [value, ("another", None, set())]  # noqa: E731
    with raises_input_error(f"data {cells.place} "):
        _find_unreadable(cells, 8, _Ranks(0, 2, gather))


def tagged(kind):
    """A file with an orientation and a profile of colors."""
    file, tags = io.BytesIO(), Image.Exif()
    tags[0x0112] = 6
    pixels = Image.fromarray(random_pixels(12, 16, 3))
    pixels.save(file, kind, exif=tags, icc_profile=swapped_profile())
    return file.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([tagged("png"), tagged("jpeg")]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4)
)
def test_damaged_bytes_give_an_image_or_a_value_error(file, place, junk):
    """Bytes overwritten in tags, profile or pixels: never anything but an image or a ValueError."""
    data = bytearray(file)
    place %= len(data)
    data[place : place + len(junk)] = junk
    try:
        image = image_check._read_cell({"bytes": bytes(data), "path": None}, 3, 8)
    except ValueError as error:
        assert str(error).startswith("image 3 of the data set ")
    else:
        assert image.mode == "RGB" and min(image.size) >= 1
