"""`dit-nb study`: the list, a smoke test, and bad input."""

from dit_nb.cli import main
from dit_nb.lab.studies import STUDIES
from dit_nb.lab.sweep import _read_rows


def test_the_list_names_every_study(capsys):
    assert main(["study", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in STUDIES)


def test_a_smoke_test_writes_rows_and_prints_a_table(tmp_path, capsys):
    path = tmp_path / "guidance.csv"
    assert main(["study", "guidance", "--fast", "--jobs", "1", "--out", str(path)]) == 0
    assert len(_read_rows(path)) == len(STUDIES["guidance"].variants)
    assert "| cfg_scale steps | frechet |" in capsys.readouterr().out


def test_bad_input_is_named(error_of):
    assert "study is 'blocs'" in error_of("study", "blocs")
