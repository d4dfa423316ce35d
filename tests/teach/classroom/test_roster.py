"""The list of a class: in many forms, and students found by whatever a platform calls them."""

import pytest

from dit_nb.errors import UserError
from dit_nb.teach.classroom.roster import find_student, read_roster

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
    return read_roster(tmp_path / "roster.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_plain_list(encoding, tmp_path):
    students = roster(PLAIN, tmp_path, encoding)
    assert [s.id for s in students] == ["s1", "s2", "s3"]
    for key in ("s1", "Ann Müller", "mullerann", "ann", "Müller, Ann", "ann@x.org"):
        assert find_student(students, key, "").id == "s1", key
    assert find_student(students, "Ben Li", "") is None, "two have this name"
    assert find_student(students, "zoe", "") is None


def test_an_export_of_canvas(tmp_path):
    students = roster(CANVAS, tmp_path)
    assert [(s.id, s.name, s.number, s.section) for s in students] == [
        ("amuller", "Müller, Ann", "7", "S1"),
        ("bli", "Li, Ben", "8", "S1"),
    ]
    assert find_student(students, "mullerann 7", "7").id == "amuller"


def test_an_export_of_moodle(tmp_path):
    students = roster(MOODLE, tmp_path)
    assert [(s.id, s.number) for s in students] == [("ann@x.org", "123"), ("ben@x.org", "124")]
    assert find_student(students, "Ann Müller", "999").id == "ann@x.org", "numbers differ between assignments"


@pytest.mark.parametrize("text", ["", "color,size\nred,3\n", "id,name\n1,a\n1,b\n"])
def test_lists_that_name_no_students_are_refused(text, tmp_path):
    with pytest.raises(UserError, match="roster is"):
        roster(text, tmp_path)
