"""What Moodle and Canvas take back, read as they read it."""

import csv
from datetime import datetime

import pytest
from support_classroom import ENGLISH_WORKSHEET, GERMAN_WORKSHEET

from dit_nb.errors import UserError
from dit_nb.teach.classroom.exports import _canvas_column, _write_canvas, _write_moodle
from dit_nb.teach.classroom.roster import _read_roster
from dit_nb.teach.classroom.table import Grade

NAMES = {  # gradenoun, recordid, lastmodifiedgrade, hiddenuser of Moodle's language packs
    "en": ("Grade", "Identifier", "Last modified (grade)", "Participant "),
    "de": ("Bewertung", "ID", "Zuletzt geändert (Bewertung)", "Teilnehmer/in"),
}


def as_moodle_imports(path, language, stored):
    """Return participant -> grade that Moodle would store: mod/assign/feedback/offline, in a few lines.

    Columns are found by their names, all three are needed; a grade above the maximum, an empty grade, and one that
    is older than that in Moodle by more than a minute are skipped.
    """
    grade, number, modified, participant = NAMES[language]
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    places = [head.index(name) for name in (grade, number, modified)]  # ValueError: Moodle refuses the file
    found = {}
    for row in rows:
        points, who, when = (row[place] for place in places)
        try:
            time = datetime.fromisoformat(when).timestamp()
        except ValueError:
            time = 0  # strtotime gave false
        if points != "" and 0 <= float(points.replace(",", ".")) <= 13 and stored <= time + 60:
            found[who[len(participant) :]] = float(points.replace(",", "."))
    return found


def grades(**points):
    made = [Grade(s, "graded", {"patchify": (p, 13.0)}) for s, p in points.items()]
    return [
        *made,
        Grade("cara", "waiting", {"patchify": (3.0, 13.0)}, ("patchify",)),
        Grade("dan", "missing"),
    ]


@pytest.mark.parametrize("language, text", [("en", ENGLISH_WORKSHEET), ("de", GERMAN_WORKSHEET)])
def test_moodle_stores_the_grades_of_its_own_worksheet(language, text, tmp_path):
    roster, out = tmp_path / "roster.csv", tmp_path / "out.csv"
    roster.write_text(text, encoding="utf-8-sig")
    students = {s.id: s for s in _read_roster(roster)}
    left_out = _write_moodle(
        out, grades(**{"ann@x.org": 10.5, "ben@x.org": 3.0, "eve": 1.0}), students, roster
    )
    yesterday = datetime.now().timestamp() - 86400
    assert as_moodle_imports(out, language, stored=yesterday) == {"123": 10.5, "124": 3.0}
    assert left_out == ["eve"]


def test_moodle_stores_the_grades_of_a_plain_list(tmp_path):
    """With numbers from the names of the submitted files; another list, or another assignment's worksheet."""
    lines = [Grade("s1", "graded", {"patchify": (12.0, 13.0)}, name="Ann", number="55"), *grades(s2=1.0)]
    for text in ("id,name\ns1,Ann\ns2,Bo\n", ENGLISH_WORKSHEET):
        roster, out = tmp_path / "roster.csv", tmp_path / "out.csv"
        roster.write_text(text, encoding="utf-8")
        students = {s.id: s for s in _read_roster(roster)}
        assert _write_moodle(out, lines, students, roster) == ["s2"]
        assert as_moodle_imports(out, "en", stored=0) == {"55": 12.0}


def test_another_maximum_in_moodle_is_refused(tmp_path):
    (tmp_path / "roster.csv").write_text(ENGLISH_WORKSHEET.replace("13.00", "100.00"), encoding="utf-8")
    students = {s.id: s for s in _read_roster(tmp_path / "roster.csv")}
    with pytest.raises(UserError, match="maximum grade is 100, but the assignment has 13 points"):
        _write_moodle(tmp_path / "out.csv", grades(**{"ann@x.org": 10.0}), students, tmp_path / "roster.csv")
    assert not (tmp_path / "out.csv").exists()


def test_canvas_leaves_out_whom_it_does_not_know(tmp_path):
    head = "Student,ID,SIS User ID,SIS Login ID,Section,a1 (555)\n    Points Possible,,,,,13\n"
    (tmp_path / "roster.csv").write_text(f'{head}"Li, Fu",7,u7,fli,S1,\n', encoding="utf-8")
    students = {s.id: s for s in _read_roster(tmp_path / "roster.csv")}
    column = _canvas_column(tmp_path / "roster.csv", "a1")
    assert _write_canvas(tmp_path / "out.csv", "a1", grades(fli=9.0, eve=1.0), students, column) == ["eve"]
    rows = list(csv.reader((tmp_path / "out.csv").open(encoding="utf-8")))
    assert rows[0][-1] == "a1 (555)" and rows[1][-1] == "13"
    assert rows[2:] == [["Li, Fu", "7", "", "fli", "S1", "9"]]


def test_a_roster_that_is_no_table_names_no_column(tmp_path):
    (tmp_path / "roster.csv").write_text('"' + "x" * 200_000)  # more than a cell may have
    assert _canvas_column(tmp_path / "roster.csv", "a1") == "a1"
