"""The list of a class: in many forms, and students found by whatever a platform calls them."""

import pytest

from dit_nb.errors import UserError
from dit_nb.teach.classroom.roster import _find_student, _read_extensions, _read_roster

PLAIN = "id;name;email\ns1;Ann Müller;ann@x.org\ns2;Ben Li;ben@x.org\ns3;Ben Li;li@x.org\n"
CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,a1 (555)
    Points Possible,,,,,33
"Müller, Ann",7,u7,amuller,S1,
"Li, Ben",8,u8,bli,S1,
"""
MOODLE = """Identifier,Full name,Email address,Grade
Participant 123,Ann Müller,ann@x.org,
Participant 124,Ben Li,ben@x.org,
"""


def roster(text, tmp_path, encoding="utf-8"):
    (tmp_path / "roster.csv").write_text(text, encoding=encoding)
    return _read_roster(tmp_path / "roster.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_plain_list(encoding, tmp_path):
    students = roster(PLAIN, tmp_path, encoding)
    assert [s.id for s in students] == ["s1", "s2", "s3"]
    for key in ("s1", "Ann Müller", "mullerann", "ann", "Müller, Ann", "ann@x.org"):
        assert _find_student(students, key, "").id == "s1", key
    assert _find_student(students, "Ben Li", "") is None, "two have this name"
    assert _find_student(students, "zoe", "") is None


def test_an_export_of_canvas(tmp_path):
    students = roster(CANVAS, tmp_path)
    assert [(s.id, s.name, s.number, s.section) for s in students] == [
        ("amuller", "Müller, Ann", "7", "S1"),
        ("bli", "Li, Ben", "8", "S1"),
    ]
    assert _find_student(students, "mullerann 7", "7").id == "amuller"


def test_an_export_of_moodle(tmp_path):
    students = roster(MOODLE, tmp_path)
    assert [(s.id, s.number) for s in students] == [("ann@x.org", "123"), ("ben@x.org", "124")]
    assert _find_student(students, "Ann Müller", "999").id == "ann@x.org", (
        "numbers differ between assignments"
    )


@pytest.mark.parametrize("text", ["", "color,size\nred,3\n", "id,name\n1,a\n1,b\n"])
def test_lists_that_name_no_students_are_refused(text, tmp_path):
    with pytest.raises(UserError, match="roster is"):
        roster(text, tmp_path)


def late(text, tmp_path, students=()):
    (tmp_path / "late.csv").write_text(text, encoding="utf-8")
    return _read_extensions(tmp_path / "late.csv", "a1", [*students])


def test_more_time_for_some(tmp_path):
    assert _read_extensions(tmp_path / "late.csv", "a1", []) == {}, "no file: nobody has more time"
    students = roster(PLAIN, tmp_path)
    assert late("Student;Days;Hours\nAnn Müller;2;\ns2;;1,5\n", tmp_path, students) == {
        "s1": 172800,
        "s2": 5400,
    }
    text = "assignment,student,hours\na1,zoe,3\na2,zoe,9\n,zoe,0.5\n"
    assert late(text, tmp_path) == {"zoe": 12600}, "of this assignment, and of all of them"


@pytest.mark.parametrize(
    "text, says",
    [
        ("student,weeks\nzoe,1\n", "a student, and days or hours"),
        ("student,days\n,1\n", "a student, and days or hours"),
        ("student,days\nzoe,two\n", "days of zoe is 'two'"),
        ("student,hours\nzoe,-1\n", "hours of zoe is '-1'"),
        ("student,hours\nzoe,nan\n", "hours of zoe is 'nan'"),
    ],
)
def test_more_time_that_cannot_be_read(text, says, tmp_path):
    with pytest.raises(UserError, match=says):
        late(text, tmp_path)


def test_more_time_for_a_stranger(tmp_path):
    with pytest.raises(UserError, match="'zoe' is not in the list"):
        late("student,days\nzoe,1\n", tmp_path, roster(PLAIN, tmp_path))
