"""Feedback pages that nbgrader could not write are told, and told no more once they are there."""

import pytest

from dit_nb.teach.classroom import publish
from dit_nb.teach.classroom.publish import _publish, _with_page, _write_feedback
from dit_nb.teach.classroom.table import NO_PAGE, Grade, _read_table

PAGE = '<html><head></head><a name="top"></a></html>'


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course with two graded students, whose old pages are there; and whom nbgrader writes pages for."""
    for student in ("ann", "ben"):
        (tmp_path / "autograded" / student / "a1").mkdir(parents=True)
        (tmp_path / "feedback" / student / "a1").mkdir(parents=True)
        (tmp_path / "feedback" / student / "a1" / "a1.html").write_text("old")
    writes = ["ann", "ben"]

    def convert(kind, course, name, students):
        assert kind == "GenerateFeedback"
        for student in {*writes} & {*students}:
            page = course / "feedback" / student / name / f"{name}.html"
            page.parent.mkdir(parents=True)
            page.write_text(PAGE)
        return {*students} <= {*writes}

    monkeypatch.setattr(publish, "_convert", convert)
    return tmp_path, writes


def lines():
    return [Grade(s, "graded", {"patchify": (3.0, 5.0)}, remarks="own remark") for s in ("ann", "ben", "cy")]


def test_who_has_no_page_is_returned(course):
    folder, writes = course
    assert _write_feedback("a1", folder, lines()) == [], "cy has no notebook, so needs no page"
    assert "3 of 5 points" in (folder / "feedback" / "ann" / "a1" / "a1.html").read_text()
    writes.remove("ben")
    assert _write_feedback("a1", folder, lines()) == ["ben"]
    assert not (folder / "feedback" / "ben" / "a1" / "a1.html").exists(), "the old page has other points"


def test_the_table_says_so_until_the_page_is_there(course, monkeypatch):
    folder, writes = course
    monkeypatch.setattr(publish, "_write_class_page", lambda *_: None)
    monkeypatch.setattr(publish, "source_notebook", lambda name: {"cells": []})
    monkeypatch.setattr(publish, "_tree_sums", lambda nb: {})
    table = {g.student: g for g in lines()}

    def read(name, course, new=None):
        kept = _read_table(course / "grades-a1.csv")
        return [
            g if s not in kept else Grade(s, "graded", g.exercises, remarks=kept[s].remarks)
            for s, g in table.items()
        ]

    monkeypatch.setattr(publish, "_read_grades", read)
    writes.remove("ben")
    done = {g.student: g for g in _publish("a1", folder, [], [], ["ann", "ben"])}
    assert done["ann"].remarks == "own remark" and done["ann"].complete
    assert done["ben"].remarks == f"own remark; {NO_PAGE}" and not done["ben"].complete
    assert NO_PAGE in _read_table(folder / "grades-a1.csv")["ben"].remarks
    done = {g.student: g for g in _publish("a1", folder, [], [], ["ann"])}
    assert NO_PAGE in done["ben"].remarks, "ben was not written again"
    writes.append("ben")
    done = {g.student: g for g in _publish("a1", folder, [], [], ["ben"])}
    assert done["ben"].remarks == "own remark" and done["ben"].complete


def test_pages_of_others_follow_their_points(course, monkeypatch):
    """As after a new mark in the formgrader, when only another student is graded again."""
    folder, _ = course
    monkeypatch.setattr(publish, "_write_class_page", lambda *_: None)
    monkeypatch.setattr(publish, "source_notebook", lambda name: {"cells": []})
    monkeypatch.setattr(publish, "_tree_sums", lambda nb: {})
    monkeypatch.setattr(publish, "_read_grades", lambda *_: table)
    third = {"patchify": (5 / 3, 5.0)}  # the table rounds it
    table = [Grade(s, "graded", third) for s in ("ann", "ben")]
    pages = {s: folder / "feedback" / s / "a1" / "a1.html" for s in ("ann", "ben")}
    _publish("a1", folder, [], table, ["ann", "ben"])
    pages["ann"].write_text("old")
    _publish("a1", folder, [], table, ["ben"])
    assert pages["ann"].read_text() == "old", "nothing has changed"
    table[0] = Grade("ann", "graded", {"patchify": (4.0, 5.0)})
    _publish("a1", folder, [], table, ["ben"])
    assert "4 of 5 points" in pages["ann"].read_text()


def test_the_remark_stands_once():
    grade = _with_page(_with_page(lines()[0], False), False)
    assert grade.remarks.count(NO_PAGE) == 1 and _with_page(grade, True).remarks == "own remark"
