"""The page of a class: the time of each student's run."""

import re

from dit_nb.teach.classroom.pages import _write_class_page
from dit_nb.teach.classroom.table import Grade


def test_the_class_page_lists_the_time_of_each_student(tmp_path):
    times = {"ann": 4.25, "b<n": 61.0, "cy": 0.0, "dan": 5.5}
    grades = [Grade(s, "graded", {"patchify": (1.0, 5.0)}, seconds=t) for s, t in times.items()]
    _write_class_page(tmp_path / "class.html", "a1", grades, {}, {})
    page = (tmp_path / "class.html").read_text()
    listed = page[page.index("Time per student") :]
    assert re.findall(r"<td>([^<]+)</td><td>([\d.]+) s</td>", listed) == [
        ("b&lt;n", "61.0"),
        ("dan", "5.5"),
        ("ann", "4.2"),
    ], "the slowest first; cy did not run"
    assert "3 runs" in listed and "median 5.5 s, longest 61.0 s" in page
    _write_class_page(tmp_path / "class.html", "a1", grades[2:3], {}, {})
    assert "Time per student" not in (tmp_path / "class.html").read_text(), "nothing ran"
