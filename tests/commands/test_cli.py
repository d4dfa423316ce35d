"""The command line as a whole: help, exit status, installation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dit_nb.cli import _COMMANDS, main


@pytest.mark.parametrize("command", [[], *([name] for name in _COMMANDS)], ids=str)
def test_help(command, capsys):
    """Each option and action has a help text, which starts in lower case and ends without a period."""
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: dit-nb" in text
    entries = [entry.split("\n\n")[0] for entry in re.split(r"\n {2,4}(?=[-\w{])", text)[1:]]
    entries = [entry for entry in entries if entry.strip() not in ("COMMAND", "ACTION")]
    assert len(entries) > 3
    for entry in entries:
        name, *words = re.split(r"\s{2,}", entry.strip(), maxsplit=1)
        assert words and words[0].strip(), f"{name} has no help text"
        words = " ".join(words[0].split())
        assert not words.endswith(".") and (words[0].islower() or words.split()[0].isupper()), words


def test_interrupted_training_names_resume(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dit_nb.commands.train.run", stop)
    assert main(["train", "--data", "digits", "--steps", "1", "--out", "nowhere"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_command_is_installed():
    script = Path(sys.executable).with_name("dit-nb")
    result = subprocess.run([str(script), "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "digits" in result.stdout


def test_a_missing_optional_package_is_named_with_its_extra(monkeypatch, error_of, tmp_path):
    monkeypatch.setattr("dit_nb.commands.digits.digits", lambda: __import__("sklearn_is_not_here"))
    with pytest.raises(
        ModuleNotFoundError, match="sklearn_is_not_here"
    ):  # not an extra: a bug, with its traceback
        main(["digits", "--steps", "1", "--out", str(tmp_path)])

    def missing():
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr("dit_nb.commands.digits.digits", missing)
    assert "pip install 'dit_nb[lab]'" in error_of("digits", "--steps", "1", "--out", tmp_path)
