"""Shards of checkpoints: honest ones are read, and no code in manipulated ones is run."""

import io
import os
import pickle
import random
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

from dit_nb.checkpoint_shards import _load_shards, _MetadataUnpickler, _read_metadata, _Refused
from dit_nb.errors import UserError
from support import raises_input_error


class Bomb:
    """When it is unpickled, it makes a folder: the sign of code that was run."""

    def __init__(self, sign):
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self.sign),)


def state() -> dict:
    """Nested like the state of an optimizer, with several types of numbers and plain values."""
    torch.manual_seed(0)
    moments = {"exp_avg": torch.randn(3, 4), "exp_avg_sq": torch.rand(3, 4).half(), "step": torch.tensor(2.0)}
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    others = {
        "a": torch.arange(5),
        "b": torch.tensor([True, False]),
        "c": torch.randn(2).bfloat16(),
        "d": images,
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.99), "amsgrad": False, "foreach": None, "params": ["w", "v"]}
    return {"state": {"w": moments, "v": others}, "param_groups": [group]}


def blank(value):
    """The same structure without the values."""
    if isinstance(value, dict):
        return {name: blank(part) for name, part in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [blank(part) for part in value]
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else 0


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "step-00000001" / "optimizer"
    dcp.save(state(), checkpoint_id=folder, no_dist=True)
    return folder


def test_honest_shards_are_read(folder):
    found = blank(state())
    assert not same(found, state())
    _load_shards(found, folder)
    assert same(found, state())


def test_what_is_read_about_shards_is_what_torch_reads(folder):
    ours, theirs = _read_metadata(folder), pickle.loads((folder / ".metadata").read_bytes())
    for name in ("state_dict_metadata", "planner_data", "storage_data", "version"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert str(ours.storage_meta.checkpoint_id) == str(theirs.storage_meta.checkpoint_id)


def test_metadata_of_an_older_python_is_read():
    """Python 3.11.0 writes a member of an enumeration as a call of getattr."""
    encoding = dcp.metadata._MEM_FORMAT_ENCODING
    text = f"cbuiltins\ngetattr\n(c{encoding.__module__}\n{encoding.__name__}\nS'TORCH_CHANNELS_LAST'\ntR."
    assert _MetadataUnpickler(io.BytesIO(text.encode())).load() is encoding.TORCH_CHANNELS_LAST


def put_instead_of_metadata(folder, bomb):
    (folder / ".metadata").write_bytes(pickle.dumps(bomb))


def put_into_metadata(folder, bomb):
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = {"a": bomb}
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def put_into_a_shard(folder, bomb):
    shutil.rmtree(folder)
    group = {**state()["param_groups"][0], "lr": bomb}
    dcp.save({**state(), "param_groups": [group]}, checkpoint_id=folder, no_dist=True)


PLACES = [put_instead_of_metadata, put_into_metadata, put_into_a_shard]


@pytest.mark.parametrize("put", PLACES)
def test_code_is_refused_and_not_run(folder, tmp_path, put):
    sign = tmp_path / "code was run"
    put(folder, Bomb(sign))
    with raises_input_error("Checkpoint .*step-00000001 (would call posix.mkdir|is damaged)"):
        _load_shards(blank(state()), folder)
    assert not sign.exists()


@pytest.mark.parametrize("put", PLACES)
def test_torch_itself_runs_it(folder, tmp_path, put):
    """Without which the test above could not fail."""
    sign = tmp_path / "code was run"
    put(folder, Bomb(sign))
    try:
        dcp.load(blank(state()), checkpoint_id=folder, no_dist=True)
    except BaseException:  # noqa: B036 - dcp has a BaseException of its own
        pass
    assert sign.exists()


def test_the_file_that_torch_reads_if_there_is_no_other_is_not_read(folder, tmp_path):
    sign = tmp_path / "code was run"
    (folder / "__0.metadata").write_bytes(pickle.dumps(Bomb(sign)))
    (folder / ".metadata").unlink()
    with raises_input_error("Checkpoint .*step-00000001 is damaged"):
        _load_shards(blank(state()), folder)
    assert not sign.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch", "nn.Module"),
        ("torch.serialization", "load"),
        (Metadata.__module__, "os"),
        (Metadata.__module__, "os.system"),
        ("operator", "getitem"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("pathlib", "Path.unlink"),
    ],
)
def test_nothing_else_can_be_called(module, name):
    with pytest.raises(_Refused, match=f"{module}.{name}"):
        _MetadataUnpickler(io.BytesIO()).find_class(module, name)


def test_a_shard_in_another_folder_is_refused(folder):
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    next(iter(metadata.storage_data.values())).relative_path = "../secret"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with raises_input_error("Checkpoint .*step-00000001 is damaged"):
        _load_shards(blank(state()), folder)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_damaged_files(folder, name):
    """Cut, with flipped bits, or of another kind: a sentence, or values of the right shapes."""
    path, content = folder / name, (folder / name).read_bytes()
    damaged = [content[:kept] for kept in (0, 1, 9, len(content) // 2, len(content) - 9)]
    damaged += [
        b"null",
        b"{}",
        pickle.dumps(None),
        pickle.dumps({"a": 1}),
        b"\0" * 100,
        (folder / ".metadata").read_bytes(),
    ]
    rng = random.Random(0)
    for _ in range(40):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for one in damaged:
        path.write_bytes(one)
        found = blank(state())
        try:
            _load_shards(found, folder)
            assert found["state"]["w"]["exp_avg"].shape == (3, 4)
        except UserError as error:
            assert str(folder.parent) in str(error) and str(error).endswith(".") and "\n" not in str(error)
            refused += 1
    assert refused >= 10
