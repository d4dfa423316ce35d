"""A class of CLASS_SIZE (200) students, graded twice in both orders and killed once: equal tables."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from support_classroom import RIGHT, ZERO, code, place, put, submitted

from dit_nb.teach.classroom import assignments
from dit_nb.teach.classroom.course import build
from dit_nb.teach.classroom.gradebook import _gradebook

SIZE = int(os.environ.get("CLASS_SIZE", "200"))
SECONDS = os.environ.get("CLASS_SECONDS", "120")  # limit of a cell, as the machine may be busy
ROOT = Path(__file__).resolve().parents[2]
FRAME = """# Two exercises

**Minutes**: 10"""
WAYS = {  # what a student may write for patchify -> points of 5
    "right": (RIGHT["patchify"], 5),
    "warns": (f"import warnings\nwarnings.warn('!')\n{RIGHT['patchify']}\n\ndef display(x): pass", 5),
    "zero": (ZERO, 0),
    "blank": (None, 0),
    "broken": ("def patchify(:", 0),
    "exits": (f"exit()\n{RIGHT['patchify']}", 5),
    "dies": ("def patchify(images, patch_size):\n    import os\n    os._exit(1)", 0),
    "prints": (f"print('x' * 10**7)\n{RIGHT['patchify']}", 5),
}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A course with two exercises; its folder and the notebook for students."""
    cells = [
        nbformat.v4.new_markdown_cell(FRAME),
        nbformat.v4.new_code_cell("#| reference\npatchify = conv_to_linear = None"),
        nbformat.v4.new_markdown_cell("<!-- exercise: patchify -->"),
        nbformat.v4.new_markdown_cell("<!-- exercise: conv_to_linear -->"),
    ]
    folder = tmp_path_factory.mktemp("package")
    put(folder / "a1_two.ipynb", nbformat.v4.new_notebook(cells=cells))
    (lesson,) = (ROOT / "nbs").glob("*/03_patchify.ipynb")
    nb = assignments.collect(folder / "a1_two.ipynb", [lesson])
    put(folder / "course" / "a1.ipynb", assignments._dumps(nb))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignments, "_COURSE", folder / "course")
        courses = [tmp_path_factory.mktemp(name) for name in ("forward", "backward")]
        paths = [build("a1", course) for course in courses]
    return courses, nbformat.read(paths[0], as_version=4)


def class_of(release, folder):
    """Write the submissions; return student -> points."""
    draw, expected = random.Random(0), {}
    for k in range(SIZE):
        way = draw.choice([*WAYS])
        source, points = WAYS[way]
        second = draw.random() < 0.7
        answers = {"conv_to_linear": RIGHT["conv_to_linear"]} if second else {}
        nb = submitted(release, answers | ({"patchify": source} if source else {}))
        if draw.random() < 0.2:
            del nb["cells"][place(nb, "patchify-check")]
        if draw.random() < 0.2:
            nb["cells"].append(code("import os\nos._exit(0)"))
        put(folder / f"s{k:03d} {way}.ipynb", nb)
        expected[f"s{k:03d} {way}"] = points + 4 * second
    return expected


def grade(course, folder, *options, kill_after=None):
    """Grade with the command line, and perhaps kill it after some students; return status and seconds."""
    words = ["assignment", "grade", "a1", "--course", str(course), "--submissions", str(folder)]
    words += ["--jobs", "2", "--seconds", SECONDS, *options]
    start = "import sys; from dit_nb.cli import main; sys.exit(main(sys.argv[1:]))"
    program, began = [sys.executable, "-c", start, *words], time.monotonic()
    with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        for done, line in enumerate(run.stderr, 1):
            print(line.rstrip(), flush=True)
            if done == kill_after:
                run.send_signal(signal.SIGKILL)
    return run.returncode, time.monotonic() - began


def table(course):
    with (course / "grades-a1.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    return {s: {k: v for k, v in row.items() if k != "seconds"} for s, row in rows.items()}


def test_equal_tables_in_both_orders_also_after_a_kill(release, tmp_path, cases):
    """A class graded in two courses, in both orders, once killed in the middle and regraded: equal tables"""
    (forward, backward), nb = release
    expected = class_of(nb, tmp_path / "in")
    students = sorted(expected)
    for student in students[SIZE // 2 :]:
        text = (tmp_path / "in" / f"{student}.ipynb").read_text()
        put(tmp_path / "second" / f"{student}.ipynb", json.loads(text))
    status, seconds = grade(forward, tmp_path / "in")
    assert status == 0
    assert grade(backward, tmp_path / "second", kill_after=SIZE // 4)[0] == -signal.SIGKILL
    assert grade(backward, tmp_path / "in")[0] == 0
    first = table(forward)
    assert {student: float(row["score"]) for student, row in first.items()} == expected
    assert table(backward) == first
    for course in (forward, backward):
        with _gradebook(course) as book:
            scores = {s.student.id: s.score for s in book.assignment_submissions("a1")}
        assert scores == expected
    assert grade(forward, tmp_path / "in", "--student", *students[::10])[0] == 0
    assert table(forward) == first
    cases.add(SIZE)
    cases.note = f"{SIZE} students, {seconds / SIZE:.1f} s each, two at a time"
