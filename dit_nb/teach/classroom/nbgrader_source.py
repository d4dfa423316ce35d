"""Source notebooks for nbgrader: cells marked as solutions, checks and hidden checks."""

import ast
import re

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _notebook, _read_assignment
from dit_nb.teach.graders.framework.core import _all_checks

__all__ = ["source_notebook"]

_GRADED = {  # role -> grade, solution, locked, as nbgrader names them
    "solution": (False, True, False),
    "check": (True, False, True),
    "hidden": (True, False, True),
    "report": (True, True, False),
    "given": (False, False, True),
}


def _mark_solution(source: str, name: str) -> str:
    """Put nbgrader's marks around the body of the function called name."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    found = [node for node in functions if node.name == name]
    if not found or ast.get_docstring(found[0]) is None or len(found[0].body) < 2:
        raise UserError(f"the solution of {name} needs a function {name} with a docstring and a body.")
    lines, start, end = source.split("\n"), found[0].body[0].end_lineno or 0, found[0].end_lineno or 0
    if found[0].body[1].lineno <= start:
        raise UserError(f"the solution of {name} has code on the line of its docstring.")
    while end < len(lines) and re.match(r"\s+\S|#|\s*$", lines[end]):
        end += 1  # comments after the last line are part of the body
    indent = " " * found[0].body[0].col_offset
    begin, stop = indent + "### BEGIN SOLUTION", indent + "### END SOLUTION"
    return "\n".join([*lines[:start], begin, *lines[start:end], stop, *lines[end:]])


def _check_source(source: str, facts: dict) -> str:
    """Turn `check_patchify(patchify, seed=21).require()` into a cell that shows the report."""
    name, points = facts["exercise"], facts["points"]
    call = re.fullmatch(rf"check_{name}\({name}(.*)\)\.require\(\)", source.strip())
    if not call:
        raise UserError(f"the check of {name} is {source!r}, but must be check_{name}({name}).require().")
    lines = [
        f"from {_all_checks()[name].__module__} import check_{name}",
        "",
        f"report = check_{name}({name}{call[1]}, points={points})",
        "display(report)",
        "report.points" if facts["role"] == "check" else "report.require().points",
    ]
    return "\n".join(lines)


def _nbgrader_cell(cell: dict, number: int, hidden_points: dict[str, int]) -> dict:
    """Turn a cell of an assignment into a cell of nbgrader's source."""
    facts = cell["metadata"].get("dit_nb", {})
    role, name = facts.get("role"), facts.get("exercise")
    if role not in _GRADED:
        return {**cell, "metadata": {}}
    source = cell["source"]
    if role == "solution":
        source = _mark_solution(source, name)
    elif role == "check":
        more = f"{hidden_points[name]} for a hidden one with other numbers"
        head = f"# {facts['points']} points for this check, and {more}."
        source = f"{head}\n{_check_source(source, facts)}"
    elif role == "hidden":
        points = "points" if facts["points"] > 1 else "point"
        head = f"# {facts['points']} {points}: the hidden check of {name}, which is inserted for grading."
        check = _check_source(source, facts)
        source = f"{head}\n### BEGIN HIDDEN TESTS\n{check}\n### END HIDDEN TESTS"
    grade, solution, locked = _GRADED[role]
    marks = {"grade": grade, "solution": solution, "locked": locked, "task": False, "schema_version": 3}
    marks["grade_id"] = f"given-{number}" if role == "given" else f"{name}-{role}"
    if grade:
        marks["points"] = facts["points"]
    return {**cell, "metadata": {"nbgrader": marks}, "source": source}


def source_notebook(name: str) -> dict:
    """Return an assignment, such as a1, as nbgrader's source: with marked solutions and hidden checks."""
    nb = _read_assignment(name)
    facts = [cell["metadata"].get("dit_nb", {}) for cell in nb["cells"]]
    hidden_points = {f["exercise"]: f["points"] for f in facts if f.get("role") == "hidden"}
    cells = [_nbgrader_cell(cell, i, hidden_points) for i, cell in enumerate(nb["cells"])]
    return _notebook(cells, {"assignment": name})
