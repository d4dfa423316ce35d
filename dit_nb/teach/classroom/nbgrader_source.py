"""Source notebooks for nbgrader: cells marked as solutions, checks and hidden checks."""

import ast
import re
from importlib.metadata import version

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _notebook, _read_assignment
from dit_nb.teach.graders.framework.core import _all_checks

__all__ = ["source_notebook"]

STUB = "# Replace the next line with your code.\nraise NotImplementedError"
_MARK = re.compile(r".*\b(BEGIN|END) (SOLUTION|HIDDEN TESTS)\b")
_SOLUTION = re.compile(r"^( *)[^\n]*\bBEGIN SOLUTION\b.*?\bEND SOLUTION\b[^\n]*\n", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(
    r"^[^\n]*\bBEGIN HIDDEN TESTS\b.*?\bEND HIDDEN TESTS\b[^\n]*\n", re.MULTILINE | re.DOTALL
)
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
    """Turn `check_patchify(patchify, seed=21).require()` into a cell that shows the report.

    The cell imports all that it calls, so that nothing a student calls by the same name gets in between.
    """
    name, points = facts["exercise"], facts["points"]
    call = re.fullmatch(rf"check_{name}\({name}(.*)\)\.require\(\)", source.strip())
    if not call:
        raise UserError(f"the check of {name} is {source!r}, but must be check_{name}({name}).require().")
    lines = [
        "from dit_nb.teach.classroom.kernel import show_and_grade",
        f"from {_all_checks()[name].__module__} import check_{name}",
        "",
        f"show_and_grade(check_{name}({name}{call[1]}, points={points}), points={points})",
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


def source_notebook(name: str, install: str | None = None, colab: str | None = None) -> dict:
    """Return an assignment, such as a1, as nbgrader's source: with marked solutions and hidden checks.

    Args:
        name: the assignment
        install: what pip installs where the package is missing, as on Colab: a URL with a version
        colab: address on GitHub where the notebook for students will be, for a button that opens it in Colab
    """
    nb = _read_assignment(name)
    facts = [cell["metadata"].get("dit_nb", {}) for cell in nb["cells"]]
    hidden_points = {f["exercise"]: f["points"] for f in facts if f.get("role") == "hidden"}
    given = [_with_install(cell, install) for cell in nb["cells"]]
    cells = [_nbgrader_cell(cell, i, hidden_points) for i, cell in enumerate(given)]
    if colab:
        cells[0] = {**cells[0], "source": f"{_badge(colab)}\n\n{cells[0]['source']}"}
    return _notebook(cells, {"assignment": name, "version": version("dit_nb")})


def _with_install(cell: dict, install: str | None) -> dict:
    """Replace the cell of a frame that installs the package: students may change it, so it is not locked."""
    if not cell["source"].startswith("# %pip install"):
        return cell
    lines = ["# dit_nb " + version("dit_nb") + " must be installed: your teacher tells how.", "import dit_nb"]
    if install:
        lines = [
            "# Installs what this notebook needs, if it is missing, as on Colab.",
            "import importlib.util",
            "",
            'if importlib.util.find_spec("dit_nb") is None:',
            f'    %pip install -q "{_pinned(install)}"',
        ]
    return {**cell, "metadata": {}, "source": "\n".join(lines)}


def _pinned(install: str) -> str:
    """Return what pip installs, if it is a URL of a certain version or commit."""
    where = install.removeprefix("dit_nb @ ").strip()
    url = re.fullmatch(r"(git\+)?https?://[^\s\"']+", where)
    if not url or not re.search(r"@[^/]+$" if url[1] else r"\d.*\.(whl|zip|tar\.gz)$", where):
        raise UserError(
            f"install is {install!r}, but must be a URL of one version: of a wheel, such as "
            "https://example.org/dit_nb-0.1.0-py3-none-any.whl, or git+https://...@COMMIT."
        )
    return f"dit_nb @ {where}"


def _badge(colab: str) -> str:
    """Return the button that opens a notebook on GitHub in Colab."""
    place = re.fullmatch(r"https://github\.com/([^/\s]+/[^/\s]+/blob/\S+\.ipynb)", colab)
    if not place:
        raise UserError(
            f"colab is {colab!r}, but must be the address of a notebook on GitHub: "
            "https://github.com/OWNER/REPOSITORY/blob/BRANCH/a1.ipynb."
        )
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})](https://colab.research.google.com/github/{place[1]})"


def _without_hidden(nb: dict) -> dict:
    """Return a source with all solutions and open checks, without marks and hidden checks."""
    cells = []
    for cell in nb["cells"]:
        lines = [line for line in cell["source"].split("\n") if not _MARK.match(line)]
        if not cell["metadata"].get("nbgrader", {}).get("grade_id", "").endswith("-hidden"):
            cells.append({**cell, "metadata": {}, "source": "\n".join(lines)})
    return {**nb, "cells": cells}


def _release_notebook(source: dict) -> dict:
    """Return what students get of a source, with nbgrader's marks but without its checksums."""
    return {**source, "cells": [{**cell, "source": _cleared(cell)} for cell in source["cells"]]}


def _cleared(cell: dict) -> str:
    """Return a cell's text without solution and hidden check."""
    stub = STUB if cell["cell_type"] == "code" else "YOUR ANSWER HERE"
    source = _SOLUTION.sub(lambda m: re.sub("^", m[1], stub, flags=re.M) + "\n", cell["source"] + "\n")
    return _HIDDEN.sub("", source).removesuffix("\n")
