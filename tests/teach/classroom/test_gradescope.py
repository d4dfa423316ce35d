"""setup.sh of the autograder: the Python that the pinned versions need, in plain shell."""

import subprocess
import sys
import zipfile

import pytest

from dit_nb.teach.classroom import gradescope
from dit_nb.teach.classroom.gradescope import _write_autograder

STUB = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$LOG"
folder="${@: -1}"
case "$(basename "$0") $1 $2" in
  "python3 -m venv") mkdir -p "$folder/bin" && cp "$0" "$folder/bin/pip" && cp "$0" "$folder/bin/uv" ;;
esac
"""


@pytest.fixture
def source(small, tmp_path):
    """The content of the zip file."""
    _write_autograder(small, tmp_path / "a1.zip")
    with zipfile.ZipFile(tmp_path / "a1.zip") as archive:
        archive.extractall(tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("program", ["setup.sh", "run_autograder"])
def test_programs_are_valid_shell(program, source):
    subprocess.run(["bash", "-n", str(source / program)], check=True)


def test_the_environment_has_the_python_of_the_pins(source, monkeypatch, tmp_path):
    text = (source / "setup.sh").read_text()
    assert f" --python {sys.version_info.major}.{sys.version_info.minor} " in text
    monkeypatch.setattr(gradescope.sys, "version_info", (3, 14, 0))
    _write_autograder("a1", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert " --python 3.14 " in archive.read("setup.sh").decode()


def test_setup_runs_to_its_end(source, tmp_path):
    """With programs that only write down how they were called."""
    (tmp_path / "bin").mkdir()
    for name in ("apt-get", "python3"):
        (tmp_path / "bin" / name).write_text(STUB)
        (tmp_path / "bin" / name).chmod(0o755)
    places = {"AUTOGRADER": str(tmp_path), "LOG": str(tmp_path / "log")}
    where = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    subprocess.run(["bash", str(source / "setup.sh")], env=places | where, check=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    torch = next(
        pin for pin in (source / "requirements.txt").read_text().split() if pin.startswith("torch==")
    )
    install = f"pip --python {tmp_path / 'venv/bin/python'} install -q --no-cache-dir"
    assert (tmp_path / "log").read_text().splitlines() == [
        "apt-get update -qq",
        "apt-get install -y -qq python3 python3-venv",
        f"python3 -m venv {tmp_path / 'tools'}",
        "pip install -q --no-cache-dir --upgrade pip uv",
        f"uv venv -q --python {python} {tmp_path / 'venv'}",
        f"{install} --index-url https://download.pytorch.org/whl/cpu {torch}",
        f"{install} -r {source / 'requirements.txt'}",
    ]


def test_setup_stops_at_the_first_failure(source, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    where = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "AUTOGRADER": str(tmp_path)}
    assert subprocess.run(["bash", str(source / "setup.sh")], env=where).returncode == 7
    assert not (tmp_path / "tools").exists()
