"""Lecture plans, oral questions, the challenge's rules: complete, and true to lessons and assignments."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from dit_nb.teach.classroom.assignments import _read_assignment, assignments
from dit_nb.teach.classroom.challenge import _MAX_PARAMETERS, _MAX_STEPS

ROOT = Path(__file__).resolve().parents[3]
COURSE = files("dit_nb.teach.classroom") / "course"
PLAN, QUESTIONS, RULES = (
    (COURSE / f"{name}.md").read_text(encoding="utf-8")
    for name in ("lecture_plan", "oral_questions", "challenge")
)
AUTO = [name for name, facts in assignments().items() if facts["exercises"]]


def lesson_minutes(chapters="[1-4]"):
    """Minutes to read and minutes of the exercises of each lesson, by its number."""
    found = {}
    for path in sorted((ROOT / "nbs").glob(f"{chapters}_*/*.ipynb")):
        text = "".join(
            "".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"][:3]
        )
        read, more = re.search(r"\*\*Minutes\*\* (\d+) to read(?:, (\d+) more)?", text).groups()
        found[path.name[:2]] = int(read), int(more or 0)
    return found


def numbers(cell):
    """Lesson numbers that a cell of a plan names; '01 to 03' names those between."""
    cell = re.sub(r"\(.*?\)|\ba\d\b", "", cell)
    spans = re.findall(r"(\d\d) to (\d\d)", cell)
    between = [f"{k:02d}" for a, b in spans for k in range(int(a), int(b) + 1)]
    return sorted({*re.findall(r"\b\d\d\b", cell), *between})


@pytest.mark.parametrize(
    "title, chapters",
    [("Fourteen weeks", "[1-4]"), ("Two weeks", "[1-4]"), ("Six weeks more: since DiT", "5")],
)
def test_plans_have_all_lessons_in_their_minutes(title, chapters):
    minutes, taught, practiced = lesson_minutes(chapters), [], []
    section = PLAN.split(f"## {title}\n")[1].split("\n## ")[0]
    for row in re.findall(r"^\| \d+ \|.*$", section, re.MULTILINE):
        lecture, lab = (cell.strip() for cell in row.split("|")[2:4])
        taught += numbers(lecture)
        if "half of" not in lecture:
            assert f"({sum(minutes[n][0] for n in numbers(lecture))} min)" in lecture, row
        for part in re.findall(r"exercises of [^()]*\(\d+ min\)", lab):
            practiced += numbers(part.split("(")[0])
            assert f"({sum(minutes[n][1] for n in numbers(part.split('(')[0]))} min)" in part, row
    assert sorted({*taught, *(["24"] if "24" in minutes else [])}) == sorted(minutes)
    assert sorted(practiced) == [n for n in minutes if minutes[n][1]]


def test_plans_name_points_and_assignments():
    for title in ("Fourteen weeks", "Two weeks"):
        section = PLAN.split(f"## {title}\n")[1].split("\n## ")[0]
        assert all(re.search(rf"\b{name}\b", section) for name in assignments())
    points = [assignments()[name]["points"] - 2 for name in AUTO]
    assert f"| {', '.join(map(str, points))} |" in PLAN


@pytest.mark.parametrize("name", AUTO)
def test_two_lines_are_graded_by_hand(name):
    facts = [cell["metadata"].get("dit_nb", {}) for cell in _read_assignment(name)["cells"]]
    reports = [f for f in facts if f.get("role") == "report"]
    assert reports == [{"role": "report", "exercise": "reasons", "points": 2}]


@pytest.mark.parametrize("name", assignments())
def test_each_assignment_has_questions_with_answers(name):
    title = assignments()[name]["title"]
    section = QUESTIONS.split(f"## {name}: {title}\n")[1].split("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| ")][1:]
    rows = [row for row in rows if set(row[0]) != {"-"}]
    assert len(rows) >= (6 if name in AUTO else 3)
    assert all(len(row) == 3 and len(row[2].split()) >= 8 for row in rows)
    assert {"what if", "transfer"} <= {row[0] for row in rows}


def test_the_rules_have_the_budget_of_the_program():
    assert f"**{_MAX_STEPS} updates**" in RULES and f"**{_MAX_PARAMETERS:,} trainable parameters**" in RULES
    first = re.search(
        r"To beat: \d\.\d\d.*`dit-nb digits --steps (\d+) .*; ([\d,]+) trainable parameters\)", RULES
    )
    assert int(first[1]) == _MAX_STEPS and int(first[2].replace(",", "")) <= _MAX_PARAMETERS
