"""Moodle's grading worksheet in several languages: its columns are found, its grades are filled in."""

import csv
from datetime import datetime, timezone

import pytest
from support_classroom import ENGLISH_WORKSHEET, GERMAN_WORKSHEET

from dit_nb.teach.classroom.moodle import _as_worksheet, _in_english
from dit_nb.teach.classroom.roster import _find_student, _read_roster

FRENCH = """Identifiant,"Nom complet",Statut,Note,"Note maximale","La note peut être modifiée",\
"Dernière modification (travail remis)","Dernière modification (note)"
"Participant 123","Ann Müller",Remis,,13,Oui,-,-
"Participant 124","Ben Li",Remis,7,13,Oui,-,-
"""


def table(text):
    return list(csv.reader(text.splitlines()))


@pytest.mark.parametrize(
    "text, grade, modified",
    [
        (ENGLISH_WORKSHEET, "Grade", "Last modified (grade)"),
        (GERMAN_WORKSHEET, "Bewertung", "Zuletzt geändert (Bewertung)"),
        (FRENCH, "Note", "Dernière modification (note)"),
    ],
)
def test_grades_are_filled_in_and_all_else_stays(text, grade, modified):
    before = table(text)
    sheet = _as_worksheet(before)
    assert sheet.max_points == 13
    after = sheet.fill({"123": "10.5", "999": "1"})
    assert after[0] == before[0] and after[2] == before[2], "head, and who is not graded"
    changed = {name for name, old, new in zip(before[0], before[1], after[1]) if old != new}
    assert changed == {grade, modified}
    assert after[1][before[0].index(grade)] == "10.5"
    when = datetime.fromisoformat(after[1][before[0].index(modified)])
    assert abs((datetime.now(timezone.utc) - when).total_seconds()) < 3600


@pytest.mark.parametrize("text", [ENGLISH_WORKSHEET, GERMAN_WORKSHEET, FRENCH])
def test_it_is_a_list_of_the_class_in_each_language(text, tmp_path):
    (tmp_path / "roster.csv").write_text(text, encoding="utf-8-sig")
    students = _read_roster(tmp_path / "roster.csv")
    assert [(s.name, s.number) for s in students] == [("Ann Müller", "123"), ("Ben Li", "124")]
    if "@" in text:
        assert [s.id for s in students] == ["ann@x.org", "ben@x.org"]
    assert _find_student(students, "Participant", "124") is students[1], "as in anonymous submissions"
    assert _find_student(students, "Müller Ann", "") is students[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,name,email\ns1,Ann,ann@x.org\n",
        "Student,ID,SIS User ID,SIS Login ID,Section,a1 (555)\n,,,,,33\nAnn,7,u7,ann,S1,\n",
        "id,grade,old (grade)\nanna,3,4\n",  # no numbers of participants
    ],
)
def test_other_tables_are_no_worksheets(text):
    assert _as_worksheet(table(text)) is None and _in_english(table(text)) == table(text)


def test_a_scale_has_no_maximum():
    text = GERMAN_WORKSHEET.replace("Bestwertung", "Skala").replace('"13,00"', '"nicht bestanden\tbestanden"')
    assert _as_worksheet(table(text)).max_points is None
