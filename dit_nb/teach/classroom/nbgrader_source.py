"""nbgrader makes the students' notebook; it needs to be told what a solution is, and what a check."""

import ast
import re

from dit_nb.teach.classroom.assignments import notebook, read_assignment
from dit_nb.teach.graders.framework.core import all_checks, all_exercises

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def mark_solution(
    source: str,  # code that defines a function
    name: str,  # of the function
) -> str:
    "The code, with nbgrader's marks around the body of the function."
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    found = [node for node in functions if node.name == name]
    if not found or ast.get_docstring(found[0]) is None or len(found[0].body) < 2:
        raise ValueError(f"the solution of {name} needs a function {name} with a docstring and a body.")
    lines, start, end = source.split("\n"), found[0].body[0].end_lineno, found[0].end_lineno
    if found[0].body[1].lineno <= start:
        raise ValueError(f"the solution of {name} has code on the line of its docstring.")
    while end < len(lines) and re.match(r"\s+\S|#|\s*$", lines[end]):
        end += 1  # comments after the last line are part of the body
    indent = " " * found[0].body[0].col_offset
    return "\n".join([*lines[:start], indent + BEGIN, *lines[start:end], indent + END, *lines[end:]])


def check_source(
    source: str,  # check_patchify(patchify, seed=21).require()
    facts: dict,  # role, exercise and points of the cell
    variant: int | None = None,
) -> str:
    "A check that can stand alone, and shows its report."
    name, points = facts["exercise"], facts["points"]
    call = re.fullmatch(rf"check_{name}\({name}(.*)\)\.require\(\)", source.strip())
    if not call:
        raise ValueError(f"the check of {name} is {source!r}, but must be check_{name}({name}).require().")
    chosen = "" if variant is None else f", variant={variant}"
    end = "report.points" if facts["role"] == "check" else "report.require().points"
    lines = [
        f"from {all_checks()[name].__module__} import check_{name}",
        "",
        f"report = check_{name}({name}{call[1]}, points={points}{chosen})",
        "display(report)",
        end,
    ]
    return "\n".join(lines)


def vary(
    cells: list[dict],  # of an assignment
    seed: int,  # of the variant
) -> None:
    "Change words and solutions to those of a variant, in place."
    exercises = all_exercises()
    for cell in cells:
        facts = cell["metadata"].get("dit_nb", {})
        if facts.get("role") == "given":  # trained models know the usual convention alone
            source = re.sub(r"use_or_fallback\((\w+),[^)]*\)", r'usual("\1")', cell["source"])
            cell["source"] = re.sub(
                r"from \S+ import use_or_fallback",
                "from dit_nb.teach.classroom.assignments import usual",
                source,
            )
        if "## How to work" in cell["source"]:
            cell["source"] += f"\n{VARIES}"
        if facts.get("role") not in ("words", "solution"):
            continue
        variant = exercises[facts["exercise"]].variant(seed)
        if facts["role"] == "solution":
            cell["source"] = variant.solution
        else:
            head, title, rest = re.split(r"^(### .*)$", cell["source"], maxsplit=1, flags=re.MULTILINE)
            cell["source"] = (
                f"{head}{title}\n\n> **Variant {seed}.** {variant.says} Where the words below say otherwise, this holds.\n{rest}"
            )


VARIES = (
    "- This course has conventions of its own, in the boxes marked **Variant**. Trained models know the usual ones, "
    "so the cells in between work with our functions, not with yours."
)


GRADED = {  # role -> grade, solution, locked, as nbgrader names them
    "solution": (False, True, False),
    "check": (True, False, True),
    "hidden": (True, False, True),
    "report": (True, True, False),
    "given": (False, False, True),
}


def nbgrader_cell(cell: dict, number: int, points: dict[str, int], variant: int | None) -> dict:
    "A cell as nbgrader's source has it; points are those of the hidden checks."
    facts = cell["metadata"].get("dit_nb", {})
    role, name = facts.get("role"), facts.get("exercise")
    if role not in GRADED:
        return {**cell, "metadata": {}}
    source = cell["source"]
    if role == "solution":
        source = mark_solution(source, name)
    elif role == "check":
        head = f"# {facts['points']} points for this check, and {points[name]} for a hidden one with other numbers."
        source = f"{head}\n{check_source(source, facts, variant)}"
    elif role == "hidden":
        many = "points" if facts["points"] > 1 else "point"
        head = f"# {facts['points']} {many}: the hidden check of {name}. It is filled in when your work is graded."
        marks = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
        source = f"{head}\n{marks[0]}\n{check_source(source, facts, variant)}\n{marks[1]}"
    grade, solution, locked = GRADED[role]
    marks = {"grade": grade, "solution": solution, "locked": locked, "task": False, "schema_version": 3}
    marks["grade_id"] = f"given-{number}" if role == "given" else f"{name}-{role}"
    if grade:
        marks["points"] = facts["points"]
    return {**cell, "metadata": {"nbgrader": marks}, "source": source}


def source_notebook(
    name: str,  # a1
    variant: int | None = None,  # another convention for the graded functions
) -> dict:
    "An assignment as nbgrader's source: solutions and hidden checks in marks."
    nb = read_assignment(name)
    if variant is not None:
        vary(nb["cells"], variant)
    facts = [cell["metadata"].get("dit_nb", {}) for cell in nb["cells"]]
    hidden = {f["exercise"]: f["points"] for f in facts if f.get("role") == "hidden"}
    cells = [nbgrader_cell(cell, i, hidden, variant) for i, cell in enumerate(nb["cells"])]
    return notebook(cells, {"assignment": name, "variant": variant})
