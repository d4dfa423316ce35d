"""Pages: the head of a student's feedback page, and the teacher's view of a class after grading."""

import re
from collections import Counter
from html import escape
from pathlib import Path
from statistics import median

from dit_nb.teach.classroom.remarks import _alike
from dit_nb.teach.classroom.table import GRADED, MISSING, NOT_GRADED, WAITING, Grade, _n, late_by
from dit_nb.utils import _write_text

__all__ = []

# Style of feedback pages: space in tables, wrapped lines, triangles at folded hints, figures that fit.
_STYLE = """<style>
td, th { padding: 0 0.7em; text-align: left; vertical-align: top }
pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere }
summary { display: list-item; cursor: pointer }
img { max-width: 100% }
.anchor-link, #toc { display: none }
.points { max-width: 70rem; margin: 0 auto; padding: 0 1rem }
.points td:nth-child(2) { white-space: nowrap }
</style>
</head>"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem }}
td, th {{ padding: 0.15rem 0.9rem 0.15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd }}
meter {{ width: 8rem }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def _sentences(reports: dict[str, dict]) -> dict[str, str]:
    """Return exercise -> the sentence of its first check that failed, or of its first one."""
    found: dict[str, tuple[bool, str]] = {}
    for grade_id, row in reports.items():
        exercise, passed = grade_id.rsplit("-", 1)[0], bool(row.get("passed"))
        if exercise not in found or (found[exercise][0] and not passed):
            hidden = "In the hidden check: " if grade_id.endswith("-hidden") and not passed else ""
            found[exercise] = (passed, hidden + str(row.get("reason", "")))
    return {exercise: sentence for exercise, (_, sentence) in found.items()}


def _exercise_lines(grade: Grade, reports: dict[str, dict]) -> list[list[str]]:
    """Return for each exercise its name, points and sentence."""
    sentences = _sentences(reports)
    lines = []
    for exercise, (points, most) in grade.exercises.items():
        waits = exercise in grade.by_hand
        sentence = "Waits for a person." if waits else sentences.get(exercise, "")
        lines.append([exercise, f"{'?' if waits else _n(points)} of {_n(most)}", sentence])
    return lines


def _write_feedback_head(page: Path, grade: Grade, reports: dict[str, dict], notes: list[str]) -> None:
    """Put name, points and one line for each exercise at the top of a feedback page of nbgrader."""
    if not page.exists():
        return
    text = page.read_text(encoding="utf-8").replace("</head>", _STYLE, 1)
    link = '<a href="#{0}-{1}">{0}</a>'
    rows = [
        [link.format(escape(e), "check" if f"{e}-check" in reports else "report"), escape(p), escape(s)]
        for e, p, s in _exercise_lines(grade, reports)
    ]
    late = f", {late_by(grade.late)} late: {_n(grade.penalty)} points subtracted" if grade.late else ""
    total = f"{_n(grade.points)} of {_n(grade.max_points)} points{late}"
    if grade.state == WAITING:
        total = f"{_n(grade.raw)} points so far; {', '.join(grade.by_hand)} must be graded by a person"
    body = f"<div class='points'><h3>{escape(grade.name or grade.student)}: {escape(total)}</h3>{_html_table(rows)}"
    body += "".join(f"<p>{escape(note)}</p>" for note in notes) + "</div>"
    _write_text(page, re.sub(r'(<a name="top"></a>)', lambda m: m[1] + body, text, count=1))


def _html_table(rows: list[list[str]], head: list[str] | None = None) -> str:
    """Return a table; the cells are HTML."""
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head or [])
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in [first, *lines] if line) + "</table>"


def _write_class_page(
    path: Path, name: str, grades: list[Grade], memory: dict, known: dict[str, str]
) -> None:
    """Write the page of a class: what was solved, the commonest sentences, who waits, who is alike."""
    count = Counter(g.state for g in grades)
    states = ", ".join(
        f"{count[state]} {state}" for state in (GRADED, WAITING, NOT_GRADED, MISSING) if count[state]
    )
    parts = [f"<p>{len(grades)} students: {states}.{_points_line(grades)}</p>"]
    parts += _section(
        "Exercises", _exercise_rows(grades, memory), ["exercise", "solved", "", "commonest sentences"]
    )
    waits = [[escape(g.student), escape(", ".join(g.by_hand))] for g in grades if g.by_hand]
    parts += _section("To be graded by hand", waits, ["student", "exercises"])
    lost = [[escape(g.student), escape(g.remarks)] for g in grades if g.state in (NOT_GRADED, MISSING)]
    parts += _section("Without a grade", lost, ["student", "reason"])
    trees = {g.student: memory.get(g.student, {}).get("trees", {}) for g in grades if g.exercises}
    alike = [[escape(a), escape(b), escape(", ".join(e))] for a, b, e in _alike(trees, known)[:50]]
    parts += _section("Equal code", alike, ["student", "student", "exercises"])
    if alike:
        parts.append(
            "<p>Equal after renaming: in an exercise where few have this code, or in three and more. "
            "It proves nothing: ask.</p>"
        )
    told = [
        [escape(g.student), escape(g.remarks)] for g in grades if g.remarks and g.state in (GRADED, WAITING)
    ]
    parts += _section("Remarks", told, ["student", "remarks"])
    parts += _times(grades)
    _write_text(path, _PAGE.format(title=f"Assignment {escape(name)}", body="\n".join(parts)))


def _section(title: str, rows: list[list[str]], head: list[str]) -> list[str]:
    return [f"<h2>{title}</h2>", _html_table(rows, head)] if rows else []


def _points_line(grades: list[Grade]) -> str:
    points = sorted(g.points for g in grades if g.state == GRADED)
    times = [g.seconds for g in grades if g.seconds]
    line = f" Points: {_n(points[0])} to {_n(points[-1])}, median {_n(median(points))}." if points else ""
    return line + (
        f" Time of a run: median {median(times):.1f} s, longest {max(times):.1f} s." if times else ""
    )


def _times(grades: list[Grade]) -> list[str]:
    """Return the time of each student's run, the longest first, folded."""
    slow = sorted((g for g in grades if g.seconds), key=lambda g: -g.seconds)
    rows = [[escape(g.student), f"{g.seconds:.1f} s"] for g in slow]
    table = _html_table(rows, ["student", "time of the run"])
    return [f"<h2>Time per student</h2><details><summary>{len(rows)} runs</summary>{table}</details>"] * bool(
        rows
    )


def _exercise_rows(grades: list[Grade], memory: dict) -> list[list[str]]:
    rows = []
    graded = [g for g in grades if g.exercises]
    for exercise in dict.fromkeys(e for g in graded for e in g.exercises):
        those = [g for g in graded if exercise in g.exercises and exercise not in g.by_hand]
        full = sum(g.exercises[exercise][0] >= g.exercises[exercise][1] for g in those)
        sentences = Counter(
            _sentences(memory.get(g.student, {}).get("reports", {})).get(exercise, "")
            for g in those
            if g.exercises[exercise][0] < g.exercises[exercise][1]
        )
        told = [f"{n} × {escape(sentence)}" for sentence, n in sentences.most_common(4) if sentence][:3]
        share = full / len(those) if those else 0
        meter = f'<meter value="{share:.2f}"></meter>'
        rows.append([escape(exercise), f"{full} of {len(those)}", meter, "<br>".join(told)])
    return rows
