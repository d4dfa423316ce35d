"""Assignments: exercises collected from the lessons into the notebooks of a course."""

import json
import re
import sys
from importlib.resources import files
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.private_names import _made_private
from dit_nb.utils import _write_text

__all__ = ["assignments", "collect"]

_FLAG = re.compile(r"^#\| *(\w+):? *(.*?) *$", re.MULTILINE)
_PLACE = re.compile(r"\A<!-- exercise: (\w+) -->\s*")
_COURSE = files("dit_nb.teach.classroom") / "course"
_ROLES = ["words", "solution", "check", "hidden"]


def _flags(source: str) -> dict[str, str]:
    """Return the flags of a code cell: `#| points: 3` gives {'points': '3'}."""
    return dict(_FLAG.findall(source))


def _points(flags: dict[str, str], name: str) -> int:
    """Return the points that a cell is flagged with."""
    if not re.fullmatch(r"[0-9]{1,4}", flags.get("points", "")):
        raise UserError(
            f"points of {name} is {flags.get('points')!r}, but must be a whole number: #| points: 3."
        )
    return int(flags["points"])


def _without_flags(source: str) -> str:
    return re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip("\n")


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _cell(kind: str, source: str, **facts) -> dict:
    """Make a cell of a course notebook; facts (role, exercise, points) say what the cell is for."""
    cell = {"cell_type": kind, "metadata": {"dit_nb": facts} if facts else {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def _without_links(text: str) -> str:
    """Turn links to other notebooks into plain text: students have one file."""
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\.ipynb[^)]*\)", r"\1", text)


def _read_cells(path: Path) -> list[dict]:
    """Read the cells of a frame or of a lesson."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}.")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        whole = all(
            cell["cell_type"] in ("code", "markdown", "raw") and "" in _source(cell) for cell in cells
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a notebook ({type(error).__name__}).") from None
    if not whole:
        raise UserError(f"{path} cannot be read as a notebook: it has a cell of another kind.")
    return cells


def _exercise_cells(cells: list[dict], name: str) -> list[dict]:
    """Return text, solution, check and hidden check of an exercise; empty if the lesson does not have it."""
    found = []
    for cell in cells:
        source = _source(cell)
        place, flags = _PLACE.match(source), _flags(source) if cell["cell_type"] == "code" else {}
        if place and place[1] == name:
            text = _without_links(source[place.end() :])
            found.append(_cell("markdown", text, role="words", exercise=name))
        if flags.get("exercise") == name:
            found.append(_cell("code", _without_flags(source), role="solution", exercise=name))
        if flags.get("check") == name:
            role, points = "hidden" if "hidden" in flags else "check", _points(flags, name)
            found.append(_cell("code", _without_flags(source), role=role, exercise=name, points=points))
    found.sort(key=lambda cell: _ROLES.index(cell["metadata"]["dit_nb"]["role"]))
    if found and [cell["metadata"]["dit_nb"]["role"] for cell in found] != _ROLES:
        raise UserError(f"exercise {name} needs one cell each of {', '.join(_ROLES)}.")
    return found


def _frame_cell(cell: dict, names: list[str]) -> list[dict]:
    """Turn a cell of a frame into a cell of the course, or none; names are the frame's exercises."""
    source = _source(cell)
    if cell["cell_type"] == "markdown":
        report = re.match(r"<!-- report: (\w+), (\d+) points -->\s*", source)
        if report:
            facts = {"role": "report", "exercise": report[1], "points": int(report[2])}
            return [_cell("markdown", source[report.end() :], **facts)]
        return [_cell("markdown", _without_links(source))]
    flags, source = _flags(source), source.replace("  # noqa: F401", "")
    if "hide" in flags:
        return []
    if "reference" in flags:  # undefined names become None, so a check reports "not started"
        nothing = "\n".join(f"{name} = None" for name in names)
        return [_cell("code", f"# the functions that you will write\n{nothing}", role="given")]
    if "goal" in flags:
        return [_cell("markdown", _stored_figure(cell))]
    if "report" in flags:
        points = _points(flags, flags["report"])
        facts = {"role": "report", "exercise": flags["report"], "points": points}
        return [_cell("code", _without_flags(source), **facts)]
    return [_cell("code", _without_flags(source), role="free" if "free" in flags else "given")]


def _stored_figure(cell: dict) -> str:
    """Return the stored figure of a cell as markdown that needs no other file."""
    for output in cell["outputs"]:
        if "image/png" in output.get("data", {}):
            alt = output["metadata"]["image/png"]["alt"].replace("[", "(").replace("]", ")")
            data = _source({"source": output["data"]["image/png"]}).strip()
            return f"![{alt}](data:image/png;base64,{data})"
    raise UserError("a cell flagged goal has no stored figure: run the frame first.")


def collect(frame: Path, lessons: list[Path]) -> dict:
    """Build an assignment, with solutions: a frame with the exercises of the lessons in their places.

    Args:
        frame: notebook of the assignment, such as nbs/assignments/a1_tokens.ipynb
        lessons: notebooks that have the exercises

    Raises:
        UserError: if no lesson has an exercise that the frame asks for, or one of its cells is missing
    """
    sources, inside = [_read_cells(path) for path in lessons], _read_cells(frame)
    names, cells = [place[1] for place in (_PLACE.match(_source(cell)) for cell in inside) if place], []
    for cell in inside:
        place = _PLACE.match(_source(cell)) if cell["cell_type"] == "markdown" else None
        if not place:
            cells += _frame_cell(cell, names)
            continue
        found = [part for parts in sources for part in _exercise_cells(parts, place[1])]
        if not found:
            raise UserError(f"{frame.name} asks for the exercise {place[1]}, but no lesson has it.")
        cells += _numbered(found, names.index(place[1]) + 1)
    cells = _made_private(cells, names) if names else cells
    return _notebook(cells, _facts(cells, frame.name.split("_")[0], names))


def _facts(cells: list[dict], name: str, exercises: list[str]) -> dict:
    """Return title, minutes, points and exercises; write the points beside the minutes."""
    text = "\n".join(cell["source"] for cell in cells)
    points = sum(cell["metadata"].get("dit_nb", {}).get("points", 0) for cell in cells)
    title = re.search(r"^# (?:Assignment \d+: )?(.+)$", text, re.MULTILINE)
    minutes = re.search(r"\*\*Minutes\*\*: (\d+)", text)
    if not title or not minutes:
        raise UserError(f"assignment {name} needs a title, and a line with **Minutes**: 60.")
    for cell in cells:
        cell["source"] = cell["source"].replace(minutes[0], f"{minutes[0]} · **Points**: {points}")
    facts = {"assignment": name, "title": title[1], "minutes": int(minutes[1]), "points": points}
    return {**facts, "exercises": exercises}


def _numbered(cells: list[dict], k: int) -> list[dict]:
    """Write number and points into the text of the k-th exercise."""
    points = sum(cell["metadata"]["dit_nb"].get("points", 0) for cell in cells)
    text = re.sub(r"^### ", f"### Exercise {k}: ", cells[0]["source"], count=1)
    cells[0]["source"] = re.sub(r"^(Difficulty \d.*)$", rf"\1 · {points} points", text, count=1, flags=re.M)
    return cells


def _notebook(cells: list[dict], facts: dict) -> dict:
    """Make a notebook of nbformat 4.5."""
    for i, cell in enumerate(cells):
        cell["id"] = f"{facts['assignment']}-{i:03d}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "dit_nb": facts}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _dumps(nb: dict) -> str:
    """Return a notebook as text, always in the same format."""
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _write_course(nbs: Path = Path("nbs")) -> list[str]:
    """Collect all assignments into the package; return their names.

    Args:
        nbs: folder of the lessons, with frames in its folder assignments

    Raises:
        UserError: as `collect`
    """
    Path(str(_COURSE)).mkdir(exist_ok=True)
    frames, lessons = sorted(nbs.glob("assignments/a*_*.ipynb")), sorted(nbs.glob("[0-9]*/*.ipynb"))
    names = [frame.name.split("_")[0] for frame in frames]
    for name, frame in zip(names, frames):
        try:
            content = _dumps(collect(frame, lessons))
        except ValueError as error:
            raise UserError(f"{frame.name}: {error}") from None
        _write_text(str(_COURSE / f"{name}.ipynb"), content)
    return names


def assignments() -> dict[str, dict]:
    """Return title, minutes, points and exercises of each assignment of the package, by its name."""
    paths = sorted(Path(str(_COURSE)).glob("a*.ipynb"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8"))["metadata"]["dit_nb"] for path in paths}


def _read_assignment(name: str) -> dict:
    """Read an assignment of the package, such as a1: a notebook with solutions.

    Raises:
        UserError: if there is no such assignment
    """
    known = assignments()
    if name not in known:
        raise UserError(f"assignment is {name!r}, but must be one of {', '.join(known)}.")
    return json.loads((_COURSE / f"{name}.ipynb").read_text(encoding="utf-8"))


if __name__ == "__main__" and "__file__" in globals():
    print(*_write_course(Path(sys.argv[1] if len(sys.argv) > 1 else "nbs")), "written")
