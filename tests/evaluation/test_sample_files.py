"""Files of samples against numpy: forms, batches, and atomic writing."""

import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dit_nb.errors import UserError
from dit_nb.sample_files import _open_image_source, save_npz
from support import raises_input_error

RNG = np.random.default_rng


def photo(n, seed=0, h=6, w=5):
    """Random colored bytes."""
    return RNG(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def test_npz_can_be_read_by_numpy_and_by_adm(tmp_path):
    images, labels = photo(11), np.arange(11) % 4
    save_npz(tmp_path / "x.npz", np.array_split(images, 3), labels)
    with np.load(tmp_path / "x.npz") as file:
        assert file.files == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8 and np.array_equal(file["arr_0"], images)
        assert file["arr_1"].dtype == np.int64 and np.array_equal(file["arr_1"], labels)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:  # what ADM's streaming reader relies on
        assert archive.namelist() == ["arr_0.npy", "arr_1.npy"] and archive.testzip() is None
        with archive.open("arr_0.npy") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == ((11, 6, 5, 3), False, np.dtype("uint8"))
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    save_npz(tmp_path / "y.npz", tensors.split(2), n=11)
    with np.load(tmp_path / "y.npz") as file:
        assert file.files == ["arr_0"] and np.array_equal(file["arr_0"], images)


def test_npz_is_written_atomically(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, [photo(3)], [0, 1, 2])
    before = path.read_bytes()

    def breaks():
        yield photo(2)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        save_npz(path, breaks(), n=5)
    for batches, n, pattern in (
        ([photo(2)], 3, "2 images.*n = 3"),
        ([photo(2)], 1, "2 images.*n = 1"),
        ([photo(1), photo(1, h=7)], 2, r"\(7, 5, 3\).*\(6, 5, 3\)"),
        ([photo(1).astype(np.float32)], 1, "float32"),
        ([photo(1)], None, "n is missing"),
    ):
        with pytest.raises(UserError, match=pattern):
            save_npz(path, batches, n=n)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_writing_and_reading_keep_one_batch_in_memory(tmp_path):
    import tracemalloc

    batch = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    tracemalloc.start()
    save_npz(tmp_path / "x.npz", (batch for _ in range(100)), n=800)
    for part in _open_image_source(tmp_path / "x.npz").batches(8):
        assert part.shape == (8, 3, 64, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * batch.nbytes * 4, "800 images are 100 batches"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_all_sources_give_the_same_images(tmp_path, size, compressed):
    images = photo(9, h=8, w=8)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "adm.npz", arr_0=images)
    save(tmp_path / "ours.npz", images=floats.numpy(), labels=np.arange(9))
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i:03d}.png")
    for source in (tmp_path / "adm.npz", str(tmp_path / "ours.npz"), tmp_path / "folder", floats):
        opened = _open_image_source(source)
        batches = list(opened.batches(size))
        assert opened.n == 9 and opened.shape == (3, 8, 8)
        assert all(batch.dtype == torch.float32 and 1 <= len(batch) <= size for batch in batches)
        torch.testing.assert_close(torch.cat(batches), floats, rtol=0, atol=1e-6)
        shares = [list(opened.batches(size, rank, 2)) for rank in range(2)]
        for i, batch in enumerate(batches):
            assert torch.equal(shares[i % 2][i // 2], batch), "the processes take batches in turn"
        assert sum(map(len, shares)) == len(batches)


def test_digits_are_the_held_out_ones(split):
    opened = _open_image_source("digits")
    assert opened.shape == (1, 8, 8) and torch.equal(
        torch.cat(list(opened.batches(50))), split.held_out.images
    )


def test_open_image_source_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "wrong.npz", x=np.zeros(3))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 8, 8, 3), dtype=np.float32))
    (tmp_path / "text.npz").write_text("hello")
    for name, pattern in (
        ("nowhere", "nowhere"),
        ("empty", "empty"),
        ("wrong.npz", "wrong.npz.*arr_0"),
        ("floats.npz", "arr_0 of float32.*uint8"),
        ("text.npz", "text.npz"),
    ):
        with raises_input_error(pattern):
            _open_image_source(tmp_path / name)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_file_that_claims_a_billion_pixels_is_refused(tmp_path):
    """Pillow raises an error of a kind of its own, before it reads a pixel."""
    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    huge = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(huge)
    Image.fromarray(photo(1)[0]).save(tmp_path / "b.png")
    with raises_input_error("image .*a.png cannot be read"):
        _open_image_source(tmp_path)
