"""Files of a stream: copies, other content, and files that are cut or damaged."""

import shutil

import pytest

from dit_nb.image_streams import open_stream
from support import raises_input_error
from support_data import write_parquet, write_tar


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
