"""Seeded random numbers, progress bars, atomic writes and checks of tensors."""

import ast
import io
import re
from pathlib import Path

import pytest
import torch

from dit_nb.utils import (
    _append_text,
    _atomic_write,
    _check_eval,
    _check_index,
    _make_folder,
    _progress_bar,
    _write_text,
    randn,
    seeded_generator,
)
from support import error_cases, raises_input_error

PACKAGE = Path(__file__).resolve().parents[2] / "dit_nb"


def test_seeded_generator_depends_on_each_part_of_its_key():
    numbers = {
        key: torch.randn(4, generator=seeded_generator(*key)) for key in [(0, 0), (0, 1), (1, 0), (0, 2)]
    }
    assert torch.equal(numbers[0, 1], torch.randn(4, generator=seeded_generator(0, 1)))
    assert len({tuple(values.tolist()) for values in numbers.values()}) == 4


def test_an_image_of_randn_depends_on_its_own_generator_alone():
    images = randn((5, 2, 3), [seeded_generator(4, i) for i in range(5)])
    for i in range(5):
        assert torch.equal(images[i], torch.randn(2, 3, generator=seeded_generator(4, i)))
    assert randn((0, 2), []).shape == (0, 2)
    with raises_input_error("generator.*4.*5"):
        randn((5, 1), [seeded_generator(i) for i in range(4)])


def test_randn_with_one_generator():
    assert torch.equal(
        randn((2, 3), seeded_generator(1), "cpu"), torch.randn(2, 3, generator=seeded_generator(1))
    )


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("shown", [True, False])
def test_progress_bar_shows_in_a_terminal_only(monkeypatch, terminal, shown):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(
        "sys.modules", {k: v for k, v in __import__("sys").modules.items() if k != "ipykernel"}
    )
    assert list(_progress_bar(range(3), "counting", shown)) == [0, 1, 2]
    assert ("counting" in stream.getvalue()) == (terminal and shown)


def test_atomic_write_replaces_a_file_or_leaves_it(tmp_path):
    path = tmp_path / "a.txt"
    with _atomic_write(path) as draft:
        draft.write_text("old")
        assert not path.exists()
    with pytest.raises(RuntimeError), _atomic_write(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_text_is_written_completely_or_not(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    _write_text(path, "Käse\n")
    assert path.read_bytes() == "Käse\n".encode()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        _write_text(path, "half")
    assert path.read_bytes() == "Käse\n".encode() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("begun", [True, False])
def test_text_is_appended_completely_or_not(tmp_path, begun):
    resource = pytest.importorskip("resource")
    path, limit = tmp_path / "a.txt", resource.getrlimit(resource.RLIMIT_FSIZE)
    if begun:
        _append_text(path, "ä\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limit[1]))  # bytes of a file
    try:
        with pytest.raises(OSError):
            _append_text(path, "0123456789\n", sync=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ["ä\n".encode()] * begun
    _append_text(path, "b\n")
    assert path.read_text(encoding="utf-8") == "ä\n" * begun + "b\n"


def in_place(path: Path) -> set[str]:
    """What writes a file under its own name, as `module: function`; a draft gets its name when it is complete."""
    found = set()
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            text, name = ast.unparse(call), ast.unparse(call.func)
            opened = re.search(r"""open\(.*['"][wxa]b?['"]""", text) and name.rpartition(".")[2] == "open"
            saved = name.endswith(
                (".write_text", ".write_bytes", "np.save", "np.savez", "np.savez_compressed")
            )
            if (opened or saved) and not re.search(r"\bdraft\b", text):
                found.add(f"{path.relative_to(PACKAGE).with_suffix('')}: {function.name}")
    return found


IN_PLACE = {
    "checkpoint: _write_json": "a hidden folder, which gets its name when it is complete",
    "weight_files: _save_object": "a draft, or such a folder",
    "interop/convert: save_diffusers": "`convert` gives a hidden folder; diffusers writes most of the files",
    "commands/digits: _write_results": "a hidden folder, whose files are moved",
    "sample_files: save_npz": "members of an archive, which is a draft",
    "teach/classroom/grading: _stage": "a folder of a run, which is removed",
    "teach/classroom/intake: _unpack": "a folder of a run, which is removed",
    "utils: _append_text": "if it fails, what it appended is removed",
    "lab/modern_study: main": "rows of a study of the package, appended one by one",
}


def test_files_are_written_as_drafts():
    """A new place that writes in place must say why here, or use _write_text or _atomic_write."""
    found = set().union(*(in_place(path) for path in PACKAGE.rglob("*.py")))
    assert found == IN_PLACE.keys()


def test_a_folder_that_cannot_be_written(tmp_path):
    assert _make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with raises_input_error(f"{tmp_path}/file.*cannot be written"):
        _make_folder(tmp_path / "file" / "below")


@error_cases(
    (lambda: _check_index("y", [0, 1], 2), "y.*list.*integers"),
    (lambda: _check_index("y", torch.tensor([0.0]), 1), "y.*float32.*integers"),
    (lambda: _check_index("y", torch.tensor([True]), 1), "y.*bool.*integers"),
    (lambda: _check_index("y", torch.tensor([0, 1]), 3), r"y.*\(2,\).*\(3,\)"),
    (lambda: _check_index("y", torch.tensor([0, 5]), 2, 5), r"y.*5.*\[0, 4\]"),
    (lambda: _check_index("y", torch.tensor([0, -1]), 2), "y.*-1.*0 or more"),
    (lambda: _check_index("t", torch.tensor([0.5, -0.5]), 2, floats=True), "t.*-0.5.*0 or more"),
    (lambda: _check_index("t", torch.tensor([0.5, float("nan")]), 2, floats=True), "t.*nan.*0 or more"),
    (lambda: _check_eval(torch.nn.Linear(1, 1)), r"train\(\).*eval\(\)"),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()


def test_valid_indices_pass():
    _check_index("y", torch.tensor([0, 4]), 2, 5)
    _check_index("y", torch.tensor([], dtype=torch.long), 0, 5)
    _check_index("t", torch.tensor([0.0, 0.5]), 2, floats=True)


def test_generators_of_different_keys_are_independent():
    first = torch.cat([torch.randn(16, generator=seeded_generator(0, 2, i))[:1] for i in range(4000)])
    assert abs(first.mean()) < 0.06 and abs(first.std() - 1) < 0.05
    assert abs((first[1:] * first[:-1]).mean()) < 0.06
