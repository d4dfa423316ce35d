"""`dit-nb bench`: rows in a file and as a table, and bad input."""

import json

import pytest
import torch

from dit_nb.cli import main


def test_rows_go_to_a_file_and_a_table(tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert (
        main(["bench", "--baseline", "none", "--rounds", "1", "--batch-size", "2", "--json", str(out)]) == 0
    )
    assert [r["variant"] for r in json.loads(out.read_text())] == ["ours fp32", "ours bf16"]
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, named",
    [(["--config", "M/2"], "config is 'M/2'"), (["--rounds", "0"], "rounds is 0")],
)
def test_bad_input_is_named(words, named, error_of):
    assert named in error_of("bench", *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named(error_of):
    assert "device is cuda" in error_of("bench", "--device", "cuda")
