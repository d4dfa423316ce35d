"""The command line as a whole: help, exit status, installation."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from dit_nb.cli import main
from dit_nb.commands.options import Command
from dit_nb.errors import UserError

COMMANDS = [kind.__name__.lower() for kind in get_args(Command)]
ACTIONS = [("assignment", action) for action in ("list", "build", "grade", "preview")]


def help_entries(text: str) -> dict[str, str]:
    """Name -> help text of each option, argument and subcommand in the panels that --help prints."""
    found, name = {}, ""
    for line in text.splitlines():
        line = re.sub(r"^[ │] {1,3}[•*] ", "  ", line)[2:].rstrip(" │")
        start = re.match(r"(--?\w.*?|\[?[A-Z]{2,}\]?|[a-z]+(?=\s{2,}))(?:\s{2,}(.*))?$", line)
        if start:
            name, found[start[1]] = start[1], start[2] or ""
        elif name and line.startswith("  "):
            found[name] += " " + line.strip()
    return found


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), *ACTIONS], ids=" ".join)
def test_help(command, capsys):
    """Each option and action has a help text, which starts in lower case and ends without a period."""
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"usage: {' '.join(['dit-nb', *command])}" in text
    entries = help_entries(text)
    assert len(entries) >= {(): 10, ("assignment",): 5, ("assignment", "list"): 1}.get(command, 3)
    for name, words in entries.items():
        words = re.sub(r"\s*\((default: [^()]*|required)\)$", "", words.strip())
        assert words and not words.endswith("."), f"{name}: {words}"
        assert words != name.strip("[]").lower(), f"{name} has no comment in dit_nb.commands.options"
        assert words[0].islower() or words[0].isdigit() or words.split()[0].isupper() or "-" in words, words


def test_help_shows_the_defaults_of_the_command(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    entries = help_entries(capsys.readouterr().out)
    assert "(default: 1000)" in entries["--save-every INT|none"]
    assert "(default: that of --model)" in entries["--hidden-size INT"]


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS), ["train"]], ids=str)
def test_help_and_wrong_options_do_not_import_torch(words):
    code = (
        "import sys\nfrom dit_nb.cli import main\n"
        f"try:\n    main({words})\nfinally:\n    assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == (0 if "--help" in words else 2), result.stderr


def test_help_does_not_import_typeguard():
    """It takes a third of the time; tyro imports it for types that it does not know."""
    code = "import sys; from dit_nb.cli import main\ntry:\n    main(['--help'])\nfinally:\n    assert 'typeguard' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AssertionError" not in done.stderr and "usage: dit-nb" in done.stdout


def test_interrupted_training_names_resume(monkeypatch, capsys):
    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("dit_nb.commands.train.run", stop)
    assert main(["train", "--data", "digits", "--steps", "1", "--out", "nowhere"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_command_is_installed():
    script = Path(sys.executable).with_name("dit-nb")
    result = subprocess.run([str(script), "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "digits" in result.stdout


def failing(error):
    """A command that raises an error."""

    def fail(options):
        raise error

    return fail


def fail_with(error, monkeypatch):
    """Let dit-nb assignment list raise an error."""
    monkeypatch.setattr("dit_nb.commands.assignment.run", failing(error))


@pytest.mark.parametrize(
    "error, message",
    [
        (UserError("x is 1, but must be 2."), "x is 1, but must be 2."),
        (FileNotFoundError("there is no nowhere."), "there is no nowhere."),
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), "pip install 'dit_nb[lab]'"),
    ],
)
def test_errors_of_the_user_are_one_sentence(error, message, monkeypatch, error_of):
    fail_with(error, monkeypatch)
    assert message in error_of("assignment", "list")


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(2, "x"), ImportError("x", name="dit_nb"), KeyError("x")]
)
def test_other_errors_keep_their_traceback(error, monkeypatch):
    fail_with(error, monkeypatch)
    with pytest.raises(type(error)):
        main(["assignment", "list"])


def test_other_ranks_print_nothing(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("dit_nb.commands.evaluate.run", failing(UserError("x is 1, but must be 2.")))
    assert main(["evaluate", "a", "b"]) == 2
    with pytest.raises(SystemExit):
        main(["assignment", "lists"])
    assert capsys.readouterr().err == ""


# Under a launcher


def launcher_parsers() -> dict:
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    return {"torchrun": get_args_parser(), "accelerate": launch_command_parser()}


@pytest.mark.parametrize("command", COMMANDS)
def test_launchers_pass_every_option_on(command, capsys):
    """Launchers read abbreviations of their own options, and refuse ambiguous ones, wherever they stand."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    for name, parser in launcher_parsers().items():
        for option in options:
            words = ["-m", "dit_nb.cli", command, "x", option, "1"]
            parsed = parser.parse_args(words)
            assert parsed.training_script == "dit_nb.cli", name
            assert parsed.training_script_args == words[2:], f"{name} takes {option} for its own"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_command_that_is_not_distributed_runs_in_the_main_process_alone(rank, monkeypatch, capsys):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(
        "dit_nb.commands.assignment.run", lambda options: calls.append(os.environ.get("WORLD_SIZE"))
    )
    assert main(["assignment", "list"]) == 0
    assert calls == ([None] if rank == "0" else [])


def test_processes_are_disconnected_at_the_end_of_every_command(monkeypatch):
    """Waiting for the others only if this one has not failed: they may not come."""
    from dit_nb import distributed

    waits = []
    monkeypatch.setattr(distributed, "_shutdown", lambda wait: waits.append(wait))
    monkeypatch.setattr("dit_nb.commands.assignment.run", lambda options: None)
    assert main(["assignment", "list"]) == 0
    fail_with(UserError("x is 1, but must be 2."), monkeypatch)
    assert main(["assignment", "list"]) == 2
    assert waits == [True, False]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_full_disk_is_one_sentence(number, monkeypatch, error_of):
    fail_with(OSError(number, os.strerror(number), "out/x.npz"), monkeypatch)
    assert re.search(r"out/x.npz cannot be .*written: [A-Z][a-z -]+\.$", error_of("assignment", "list"))
