"""Submissions taken in: folders, and the downloads of Moodle and Canvas."""

import os
import zipfile
from pathlib import Path

import pytest
from support_classroom import RIGHT, put, submitted

from dit_nb.errors import UserError
from dit_nb.teach.classroom.choice import _choose
from dit_nb.teach.classroom.intake import _receive, _student_of
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook


@pytest.fixture(scope="module")
def release():
    return _release_notebook(source_notebook("a1"))


@pytest.fixture(scope="module")
def right(release):
    return submitted(release, RIGHT)


def tree(folder, files):
    for name, content in files.items():
        put(folder / name, content)
    return folder


def zipped(path, files, dates=()):
    """A zip file; a number as date is a day of January."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            day = dict(dates).get(name, 1)
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, day, 12, 0, 0)), content)
    return path


def received(source, kind, tmp_path):
    return {one.key: one for one in _receive(source, kind, "a1", tmp_path / "scratch")}


def names(one):
    return sorted(path.relative_to(one.root).as_posix() for path in one.files)


def test_layouts_of_folders(tmp_path):
    files = "flat.ipynb own/x.ipynb full/a1/a1.ipynb full/a2/a2.ipynb late/a2/a2.ipynb anna_a1.ipynb anna_a2.ipynb"
    files += (
        " deep/homework/a1.ipynb saved.ipynb.txt cara.ipynb cara.pdf essay.pdf .DS_Store Thumbs.db roster.csv"
    )
    found = received(tree(tmp_path / "in", dict.fromkeys(files.split(), "")), "folder", tmp_path)
    assert {key: names(one) for key, one in found.items()} == {
        "anna": ["anna_a1.ipynb"],
        "cara": ["cara.ipynb", "cara.pdf"],
        "deep": ["homework/a1.ipynb"],
        "essay": ["essay.pdf"],
        "flat": ["flat.ipynb"],
        "full": ["a1.ipynb"],
        "own": ["x.ipynb"],
        "saved": ["saved.ipynb.txt"],
    }


@pytest.mark.parametrize(
    "file, student",
    [
        ("anna_a1.ipynb", "anna"),
        ("anna-a1 (2).ipynb", "anna"),
        ("a1_anna.ipynb", "anna"),
        ("müller, anna a1.ipynb", "müller, anna"),
        ("a1.ipynb", "a1"),
        ("anna_a2.ipynb", ""),
        ("anna.ipynb.txt", "anna"),
    ],
)
def test_students_of_files(file, student):
    assert _student_of(file, "a1") == student


MOODLE = {
    "Ann Ö'Neil_123_assignsubmission_file_/a1.ipynb": "{}",
    "Ann Ö'Neil_123_assignsubmission_file_/helpers.py": "",
    "Ann Ö'Neil_123_assignsubmission_onlinetext_/onlinetext.html": "<p>see file</p>",
    "Ben Li_124_assignsubmission_onlinetext_/onlinetext.html": "<p>my dog</p>",
    "Ben Li_125_assignsubmission_file_/a1.ipynb": "{}",
    "Cy_126_assignsubmission_file_a1.ipynb": "{}",
}


def test_moodle(tmp_path):
    found = received(zipped(tmp_path / "m.zip", MOODLE), "moodle", tmp_path)
    assert {key: (one.number, names(one)) for key, one in found.items()} == {
        "Ann Ö'Neil": ("123", ["a1.ipynb", "helpers.py"]),
        "Ben Li (124)": ("124", []),
        "Ben Li (125)": ("125", ["a1.ipynb"]),
        "Cy": ("126", ["Cy_126_assignsubmission_file_a1.ipynb"]),
    }
    assert found["Cy"].origin == "Cy_126_assignsubmission_file_"
    assert found["Ann Ö'Neil"].origin == "Ann Ö'Neil_123_assignsubmission_file_"


def test_canvas_takes_the_newest_attempt(tmp_path, release, right):
    import json

    text, blank = json.dumps(right), json.dumps(release)
    files = {
        "lifu_7_900_a1.ipynb": text.replace("reshape", "old"),
        "lifu_LATE_7_901_a1-2.ipynb": text,
        "lifu_LATE_7_901_a1-1.ipynb": text,
        "lifu_7_902_a1-3.ipynb": blank,
        "oneil_8_903_a1.ipynb": text,
    }
    found = received(zipped(tmp_path / "c.zip", files), "canvas", tmp_path)
    assert [*found] == ["lifu 7", "oneil 8"] and found["lifu 7"].late and not found["oneil 8"].late
    best, remarks, _ = _choose(found["lifu 7"], "a1", release)
    assert best.name == "lifu_LATE_7_901_a1-2.ipynb", "the newest one that is not blank"
    assert remarks[0].startswith("4 notebooks: lifu_LATE_7_901_a1-2.ipynb graded, not ")


@pytest.mark.parametrize("kind", ["moodle", "canvas"])
def test_a_download_of_another_platform_is_refused(kind, tmp_path):
    with pytest.raises(UserError, match=f"download of {kind.title()}"):
        received(zipped(tmp_path / "x.zip", {"anna.ipynb": ""}), kind, tmp_path)


def test_names_in_a_zip_file_do_not_lead_out(tmp_path):
    files = {"../../evil.ipynb": "{}", "/abs/b.ipynb": "{}", "class/c.ipynb": "{}", "__MACOSX/c.ipynb": ""}
    _receive(zipped(tmp_path / "x.zip", files), "folder", "a1", tmp_path / "deep" / "scratch")
    assert not (tmp_path / "evil.ipynb").exists() and not Path("/abs").exists()
    assert sorted(p.name for p in tmp_path.rglob("*.ipynb")) == ["b.ipynb", "c.ipynb", "evil.ipynb"]


def test_a_file_that_is_no_zip_is_named(tmp_path):
    with pytest.raises(UserError, match="folder or a zip file"):
        received(put(tmp_path / "x.zip", "hello"), "moodle", tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        received(tmp_path / "nowhere", "folder", tmp_path)


def test_two_notebooks_of_a_student(tmp_path, release, right):
    tree(
        tmp_path / "in" / "dan",
        {"a1.ipynb": release, "a1 (final).ipynb": right, "notes.pdf": "", "torch.py": ""},
    )
    tree(tmp_path / "in" / "dan", {"helpers.py": "", "data/numbers.txt": ""})
    (one,) = received(tmp_path / "in", "folder", tmp_path).values()
    best, remarks, files = _choose(one, "a1", release)
    assert best.name == "a1 (final).ipynb", "the other one is blank"
    assert remarks[:2] == [
        "2 notebooks: a1 (final).ipynb graded, not a1.ipynb",
        "also submitted, not used: notes.pdf, torch.py",
    ]
    assert sorted(path.name for path in files) == ["helpers.py", "numbers.txt"]


def test_of_two_with_work_the_right_name_counts(tmp_path, release, right):
    tree(tmp_path / "in" / "dan", {"a1.ipynb": right, "b.ipynb": right})
    os.utime(tmp_path / "in" / "dan" / "a1.ipynb", (1, 1))
    (one,) = received(tmp_path / "in", "folder", tmp_path).values()
    best, remarks, _ = _choose(one, "a1", release)
    assert best.name == "a1.ipynb" and remarks == ["2 notebooks: a1.ipynb graded, not b.ipynb (newer)"]


def test_a_file_and_a_folder_of_one_student_are_put_together(tmp_path, release, right):
    tree(tmp_path / "in", {"anna.ipynb": release, "anna/a1.ipynb": right})
    (one,) = received(tmp_path / "in", "folder", tmp_path).values()
    best, remarks, _ = _choose(one, "a1", release)
    assert best.name == "a1.ipynb" and len(remarks) == 1 and "anna.ipynb" in remarks[0]


def test_a_zip_file_inside_is_unpacked(tmp_path, right):
    import json

    (tmp_path / "in" / "eve").mkdir(parents=True)
    zipped(tmp_path / "in" / "eve" / "work.zip", {"work/a1.ipynb": json.dumps(right)})
    (one,) = received(tmp_path / "in", "folder", tmp_path).values()
    assert names(one) == ["work/a1.ipynb"]
