"""One notebook checked: `dit-nb check`, and the autograder of Gradescope as Gradescope lays it out."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from support_classroom import RIGHT, ZERO, code, put, submitted

from dit_nb.cli import main
from dit_nb.teach.classroom.choice import _files_beside
from dit_nb.teach.classroom.gradescope import _write_autograder
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook

pytestmark = pytest.mark.xdist_group("classroom-checking")


@pytest.fixture
def release(small):
    return _release_notebook(source_notebook(small))


def test_a_student_checks_a_notebook(release, tmp_path, capsys):
    path = put(tmp_path / "mine.ipynb", submitted(release, RIGHT | {"patchify": ZERO}))
    assert main(["check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["assignment"], found["score"], found["max_score"]) == ("a1", 2, 5)
    first, second = found["tests"]
    assert first["name"] == "patchify" and first["score"] == 0 and "Where to look: " in first["output"]
    assert second == {"name": "conv_to_linear", "score": 2, "max_score": 2, "output": second["output"]}
    assert found["graded_by_a_person"] == ["reasons"]


def test_all_right_is_status_0(release, tmp_path, capsys):
    path = put(tmp_path / "a1.ipynb", submitted(release, RIGHT))
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("✓ patchify (3 of 3 points): Right in all ")
        and "5 of 5 points of the open checks" in out
    )


def test_files_beside_the_notebook_are_used(release, tmp_path, capsys):
    """As in grading: a module and data beside it, and in a folder; what hides a package, and documents, are not."""
    helped = "from parts.helpers import patchify\nassert open('data/one.txt').read() == '1'"
    path = put(tmp_path / "home" / "a1.ipynb", submitted(release, RIGHT | {"patchify": helped}))
    put(path.parent / "parts" / "helpers.py", RIGHT["patchify"])
    put(path.parent / "data" / "one.txt", "1")
    for name in ("torch.py", "numpy/__init__.py"):
        put(path.parent / name, "1 / 0")
    with (path.parent / "movie.bin").open("wb") as file:
        file.truncate(10**9)
    assert main(["check", str(path)]) == 0, capsys.readouterr().out
    found = {file.relative_to(path.parent).as_posix() for file in _files_beside(path)}
    assert found == {"parts/helpers.py", "data/one.txt"}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no such file"),
        ("Dear teacher", "it is not a notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "use --assignment"),
    ],
)
def test_what_is_no_notebook_of_an_assignment_is_told(content, message, tmp_path, capsys):
    if content:
        put(tmp_path / "x.ipynb", content)
    assert main(["check", str(tmp_path / "x.ipynb")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def autograder(small_course_file, tmp_path_factory):
    """/autograder as Gradescope lays it out, with the small assignment."""
    from dit_nb.teach.classroom import assignments

    root = tmp_path_factory.mktemp("autograder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignments, "_COURSE", small_course_file.parent)
        _write_autograder("a1", root / "a1.zip", seconds=60)
    with zipfile.ZipFile(root / "a1.zip") as archive:
        archive.extractall(root / "source")
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert modes["setup.sh"] & 0o111 and modes["run_autograder"] & 0o111
    return root


def autograde(root, files):
    """Run run_autograder on some files, without anything of this folder; return results.json."""
    for old in (root / "submission").glob("*") if (root / "submission").exists() else ():
        old.unlink()
    (root / "submission").mkdir(exist_ok=True)
    for name, content in files.items():
        put(root / "submission" / name, content)
    program = root / "source" / "run_autograder"
    program.chmod(0o755)
    plain = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
    where = {"AUTOGRADER": str(root), "PYTHON": sys.executable}
    subprocess.run([str(program)], cwd=root, env=plain | where, check=True, timeout=300)
    return json.loads((root / "results" / "results.json").read_text())


def test_gradescope_gets_points_and_sentences(autograder, release):
    helped = RIGHT | {"conv_to_linear": "from helpers import conv_to_linear", "patchify": ZERO}
    nb = submitted(
        release, helped, {"patchify-check": [code("from dit_nb.patchify import patchify as theirs")]}
    )
    helper = f"import sys\n\nframe = sys._getframe\n{RIGHT['conv_to_linear']}"
    results = autograde(autograder, {"my a1.ipynb": nb, "helpers.py": helper})
    tests = results["tests"]
    assert [(t["name"], t["score"], t["max_score"]) for t in tests] == [
        ("patchify (open check)", 0, 3),
        ("patchify (hidden check)", 0, 2),
        ("conv_to_linear (open check)", 2, 2),
        ("conv_to_linear (hidden check)", 2, 2),
    ]
    assert [t["visibility"] for t in tests] == ["visible", "after_published"] * 2
    assert [t["status"] for t in tests] == ["failed", "failed", "passed", "passed"]
    assert "Where to look" in tests[0]["output"] and tests[0]["output_format"] == "md"
    assert "Graded by a person: reasons." in results["output"] and results["stdout_visibility"] == "hidden"
    first, second = results["extra_data"]["remarks"]
    assert "dit_nb.patchify.patchify" in first and "sys._getframe (helpers.py)" in second


def test_gradescope_says_why_it_cannot_grade(autograder):
    for files, why in [
        ({}, "the folder is empty"),
        ({"a1.ipynb": "{"}, "it ends in the middle"),
        ({"a.pdf": ""}, "a.pdf"),
    ]:
        results = autograde(autograder, files)
        assert results["score"] == 0 and why in results["output"]


def test_the_image_is_slim(autograder):
    setup = (autograder / "source" / "setup.sh").read_text()
    pins = (autograder / "source" / "requirements.txt").read_text().split()
    assert "download.pytorch.org/whl/cpu" in setup and "conda" not in setup
    assert not [pin for pin in pins if pin.startswith(("nbgrader", "jupyterlab", "diffusers"))]
    assert all("==" in pin for pin in pins)
