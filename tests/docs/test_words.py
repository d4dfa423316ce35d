"""The lint step for words finds what it should, and nothing inside other words."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def check(path):
    """Exit status and output of the tool for one file."""
    command = [sys.executable, str(ROOT / "tools" / "check_words.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout


def write(tmp_path, text, name="page.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_private_words_and_british_spelling_fail(tmp_path):
    for word in ("luck", "ROOMS", "the_judge", "in place of", "colour", "Initialised"):
        status, output = check(write(tmp_path, f"x = 1  # {word}\n"))
        assert status == 1 and "page.py:1" in output, word


def test_words_inside_other_words_pass(tmp_path):
    text = "broad, mushroom, indoors, adjudge, pluckier, recommended, color, optimizer, otherwise\n"
    assert check(write(tmp_path, text, "page.md")) == (0, "\n")


def test_a_figure_of_speech_may_stand_once_in_a_lesson(tmp_path):
    cell = '{"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["%s"]}'
    for text, status in (("a bell", 0), ("a bell and a bell", 1)):
        page = write(tmp_path, f'{{"cells": [{cell % text}]}}', "page.ipynb")
        assert check(page)[0] == status, text
