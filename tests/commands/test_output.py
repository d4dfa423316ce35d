"""Output folders change only if the command succeeds."""

import pytest

from dit_nb.commands.output import _staged_output, _training_card


def test_a_finished_output_replaces_files_and_keeps_others(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "kept.txt").write_text("kept")
    with _staged_output(tmp_path) as work:
        (work / "sub").mkdir()
        (work / "sub" / "new.txt").write_text("new")
        (work / "old.txt").write_text("newer")
        assert (tmp_path / "old.txt").read_text() == "old"
    assert (tmp_path / "old.txt").read_text() == "newer"
    assert (tmp_path / "sub" / "new.txt").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.txt", "old.txt", "sub"]


def test_a_failed_output_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    with pytest.raises(KeyError), _staged_output(tmp_path) as work:
        (work / "old.txt").write_text("half")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"] and (tmp_path / "old.txt").read_text() == "old"


def test_a_card_without_a_command_tells_the_versions():
    card = _training_card("digits", "")
    assert card["data"] == "digits" and card["command"].startswith("# dit_nb ") and "torch" in card["command"]
