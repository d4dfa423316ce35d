"""Options from dataclass fields, and output folders that change only if the command succeeds."""

import argparse
from dataclasses import dataclass

import pytest

from dit_nb.commands.options import _add_fields, _staged_output


@dataclass
class Settings:
    rate: float = 0.5  # learning rate
    count: int | None = None  # number of things
    deep: bool = False  # whether it is deep
    name: str = "a"  # name of it


def parse(*words, **options):
    parser = argparse.ArgumentParser()
    _add_fields(parser, Settings(), "settings", **options)
    return vars(parser.parse_args(words)), " ".join(parser.format_help().split())


def test_each_field_is_an_option_with_its_comment_and_default():
    given, text = parse("--rate", "0.25", "--count", "3", "--deep", "--name", "b")
    assert given == {"rate": 0.25, "count": 3, "deep": True, "name": "b"}
    assert "learning rate (default: 0.5)" in text and "number of things (default:" in text


def test_options_that_are_not_given_stay_out():
    assert parse()[0] == {}
    assert parse("--rate", "2", only=("rate",))[0] == {"rate": 2.0}
    with pytest.raises(SystemExit):
        parse("--rate", "2", skip=("rate",))


def test_none_is_accepted_where_the_field_allows_it():
    assert parse("--count", "none")[0] == {"count": None}
    with pytest.raises(SystemExit):
        parse("--rate", "none")


def test_choices_are_checked():
    assert parse("--name", "b", choices={"name": ("a", "b")})[0] == {"name": "b"}
    with pytest.raises(SystemExit):
        parse("--name", "c", choices={"name": ("a", "b")})


def test_a_finished_output_replaces_files_and_keeps_others(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "kept.txt").write_text("kept")
    with _staged_output(tmp_path) as work:
        (work / "sub").mkdir()
        (work / "sub" / "new.txt").write_text("new")
        (work / "old.txt").write_text("newer")
        assert (tmp_path / "old.txt").read_text() == "old"
    assert (tmp_path / "old.txt").read_text() == "newer" and (
        tmp_path / "sub" / "new.txt"
    ).read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.txt", "old.txt", "sub"]


def test_a_failed_output_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    with pytest.raises(KeyError), _staged_output(tmp_path) as work:
        (work / "old.txt").write_text("half")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"] and (tmp_path / "old.txt").read_text() == "old"
