"""Files of tensors: what is written is read again, by everybody, and a full disk is an OSError with the file's name."""

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dit_nb.weight_files import _save_object, _save_tensors, _system_errors

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def test_tensors_of_any_layout_are_read_again(tmp_path):
    matrix = torch.arange(6.0).view(2, 3)
    _save_tensors({"a": matrix.T, "b": matrix[:, 1].half()}, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["a"], matrix.T) and torch.equal(found["b"], torch.tensor([1.0, 4.0]).half())


def test_objects_are_read_again(tmp_path):
    _save_object({"step": 3, "mean": torch.ones(2)}, tmp_path / "x.pt")
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert found["step"] == 3 and torch.equal(found["mean"], torch.ones(2))


def test_files_have_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    _save_tensors({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    _save_object(3, tmp_path / "x.pt")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_an_error_of_the_system_is_raised_as_one():
    with pytest.raises(OSError) as caught, _system_errors(Path("w.safetensors")):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "w.safetensors")
    with pytest.raises(SafetensorError), _system_errors(Path("w.safetensors")):
        raise SafetensorError("Error while deserializing header")


@needs_full
def test_an_object_on_a_full_disk():
    with pytest.raises(OSError) as caught:
        _save_object(torch.zeros(100_000), FULL)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == os.strerror(errno.ENOSPC)
