"""Seeded random numbers, progress bars, atomic writes and input checks."""

import io

import pytest
import torch

from dit_nb.errors import _check_choice, _check_number
from dit_nb.utils import (
    _atomic_write,
    _check_eval,
    _check_index,
    _make_folder,
    _progress_bar,
    randn,
    seeded_generator,
)
from support import error_cases, raises_input_error


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
    (lambda: _check_choice("color", "red", ("blue", "green")), "color.*'red'.*blue, green"),
    (lambda: _check_index("t", torch.tensor([0.5, -0.5]), 2, floats=True), "t.*-0.5.*0 or more"),
    (lambda: _check_index("t", torch.tensor([0.5, float("nan")]), 2, floats=True), "t.*nan.*0 or more"),
    (lambda: _check_number("steps", True, int), "steps.*True.*an integer above 0"),
    (lambda: _check_number("steps", 2.0, int), "steps.*2.0.*an integer above 0"),
    (lambda: _check_number("lr", 0), "lr.*0.*a number above 0"),
    (lambda: _check_number("decay", -1, positive=False), "decay.*-1.*a number of at least 0"),
    (lambda: _check_number("lr", float("nan")), "lr.*nan.*a number above 0"),
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
