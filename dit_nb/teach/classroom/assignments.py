"""An exercise is written once, in its lesson; from there it goes into a graded assignment."""

import json
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from dit_nb.teach.graders.framework.core import all_exercises

FLAG = re.compile(r"^#\| *(\w+):? *(.*?) *$", re.MULTILINE)


PLACE = re.compile(r"\A<!-- exercise: (\w+) -->\s*")


def flags(
    source: str,  # a code cell
) -> dict[str, str]:  # flag -> what stands after it
    "The flags of a code cell: `#| points: 3` is {'points': '3'}."
    return dict(FLAG.findall(source))


def bare(
    source: str,  # a code cell
) -> str:
    "The cell without its flags."
    return re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip("\n")


def text(cell: dict) -> str:
    "The source of a cell as one string."
    return "".join(cell["source"])


def note(
    kind: str,  # markdown or code
    source: str,
    **facts,  # role, exercise, points: what the cell is for
) -> dict:
    "A cell of a course notebook."
    cell = {"cell_type": kind, "metadata": {"dit_nb": facts} if facts else {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def unlinked(words: str) -> str:
    "Without links to other notebooks."
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\.ipynb[^)]*\)", r"\1", words)


def exercise_cells(
    cells: list[dict],  # of a lesson
    name: str,  # the exercise
) -> list[dict]:  # words, solution, checks; empty where the lesson has no such exercise
    "What a lesson says about an exercise."
    found = []
    for cell in cells:
        source = text(cell)
        place, marks = PLACE.match(source), flags(source) if cell["cell_type"] == "code" else {}
        if place and place[1] == name:
            found.append(note("markdown", unlinked(source[place.end() :]), role="words", exercise=name))
        if marks.get("exercise") == name:
            found.append(note("code", bare(source), role="solution", exercise=name))
        if marks.get("check") == name:
            role, points = "hidden" if "hidden" in marks else "check", int(marks["points"])
            found.append(note("code", bare(source), role=role, exercise=name, points=points))
    roles = ["words", "solution", "check", "hidden"]
    found.sort(key=lambda cell: roles.index(cell["metadata"]["dit_nb"]["role"]))
    if found and [cell["metadata"]["dit_nb"]["role"] for cell in found] != roles:
        raise ValueError(f"exercise {name} needs one cell each of {', '.join(roles)}.")
    return found


def frame_cell(
    cell: dict,  # of a frame
    names: list[str],  # its exercises
) -> list[dict]:  # what becomes of it: one cell, or none
    "A cell of a frame as the course has it."
    source = text(cell)
    if cell["cell_type"] == "markdown":
        report = re.match(r"<!-- report: (\w+), (\d+) points -->\s*", source)
        if report:
            facts = {"role": "report", "exercise": report[1], "points": int(report[2])}
            return [note("markdown", source[report.end() :], **facts)]
        return [note("markdown", unlinked(source))]
    marks, source = flags(source), source.replace("  # noqa: F401", "")
    if "hide" in marks:
        return []
    if "reference" in marks:  # a name without a function reads as not started, should its cell not run
        nothing = "\n".join(f"{name} = None" for name in names)
        return [note("code", f"# what you will write\n{nothing}", role="given")]
    if "goal" in marks:
        return [note("markdown", picture(cell))]
    if "report" in marks:
        facts = {"role": "report", "exercise": marks["report"], "points": int(marks["points"])}
        return [note("code", bare(source), **facts)]
    return [note("code", bare(source), role="free" if "free" in marks else "given")]


def picture(cell: dict) -> str:
    "The stored picture of a cell, as markdown that needs no file."
    for output in cell["outputs"]:
        if "image/png" in output.get("data", {}):
            words = output["metadata"]["image/png"]["alt"].replace("[", "(").replace("]", ")")
            return (
                f"![{words}](data:image/png;base64,{text({'source': output['data']['image/png']}).strip()})"
            )
    raise ValueError("a cell flagged goal has no stored picture: run the frame first.")


def collect(
    frame: Path,  # nbs/assignments/a1_tokens.ipynb
    lessons: list[Path],  # nbs/CHAPTER/NN_name.ipynb
) -> dict:  # a notebook, solutions inside
    "An assignment: a frame, with the exercises of the lessons in their places."
    sources = [json.loads(path.read_text(encoding="utf-8"))["cells"] for path in lessons]
    inside = json.loads(frame.read_text(encoding="utf-8"))["cells"]
    names, cells = [place[1] for place in (PLACE.match(text(cell)) for cell in inside) if place], []
    for cell in inside:
        place = PLACE.match(text(cell)) if cell["cell_type"] == "markdown" else None
        if not place:
            cells += frame_cell(cell, names)
            continue
        found = [part for parts in sources for part in exercise_cells(parts, place[1])]
        if not found:
            raise ValueError(f"{frame.name} asks for the exercise {place[1]}, but no lesson has it.")
        cells += numbered(found, names.index(place[1]) + 1)
    return notebook(cells, headline(cells, frame.name.split("_")[0], names))


def headline(cells: list[dict], name: str, exercises: list[str]) -> dict:
    "What `dit-nb assignment list` shows; the points are also written into the first cell."
    words = "\n".join(cell["source"] for cell in cells)
    points = sum(cell["metadata"].get("dit_nb", {}).get("points", 0) for cell in cells)
    title = re.search(r"^# (?:Assignment \d+: )?(.+)$", words, re.MULTILINE)
    minutes = re.search(r"\*\*Minutes\*\*: (\d+)", words)
    if not title or not minutes:
        raise ValueError(f"assignment {name} needs a title, and a line with **Minutes**: 60.")
    for cell in cells:
        cell["source"] = cell["source"].replace(minutes[0], f"{minutes[0]} · **Points**: {points}")
    facts = {"assignment": name, "title": title[1], "minutes": int(minutes[1]), "points": points}
    return {**facts, "exercises": exercises}


def numbered(cells: list[dict], k: int) -> list[dict]:
    "The cells of the k-th exercise, with its number and its points in the words."
    points = sum(cell["metadata"]["dit_nb"].get("points", 0) for cell in cells)
    words = re.sub(r"^### ", f"### Exercise {k}: ", cells[0]["source"], count=1)
    cells[0]["source"] = re.sub(r"^(Difficulty \d.*)$", rf"\1 · {points} points", words, count=1, flags=re.M)
    return cells


def notebook(cells: list[dict], facts: dict) -> dict:
    "A notebook of nbformat 4.5."
    for i, cell in enumerate(cells):
        cell["id"] = f"{facts['assignment']}-{i:03d}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "dit_nb": facts}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


COURSE = files("dit_nb.teach.classroom") / "course"


def dumps(nb: dict) -> str:
    "A notebook as text, the same for the same notebook."
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def write_course(
    nbs: Path = Path("nbs"),  # lessons, and frames in nbs/assignments
) -> list[str]:  # names of the assignments
    "Collect all assignments into the package."
    Path(str(COURSE)).mkdir(exist_ok=True)
    frames, lessons = sorted(nbs.glob("assignments/a*_*.ipynb")), sorted(nbs.glob("[0-9]*/*.ipynb"))
    for frame in frames:
        path = Path(str(COURSE)) / f"{frame.name.split('_')[0]}.ipynb"
        try:
            content = dumps(collect(frame, lessons))
        except ValueError as error:
            raise ValueError(f"{frame.name}: {error}") from None
        path.write_text(content, encoding="utf-8")
    return [frame.name.split("_")[0] for frame in frames]


def assignments() -> dict[str, dict]:  # name -> title, minutes, points, exercises
    "What the package has."
    paths = sorted(Path(str(COURSE)).glob("a*.ipynb"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8"))["metadata"]["dit_nb"] for path in paths}


def read_assignment(
    name: str,  # a1
) -> dict:  # the notebook, solutions inside
    "An assignment of the package."
    known = assignments()
    if name not in known:
        raise ValueError(f"assignment is {name!r}, but must be one of {', '.join(known)}.")
    return json.loads((COURSE / f"{name}.ipynb").read_text(encoding="utf-8"))


def usual(
    name: str,  # an exercise
) -> Callable:
    "A right answer in the usual convention, with which the cells of a variant go on."
    exercise = all_exercises()[name]
    return exercise.reference or exercise.oracle


if __name__ == "__main__" and "__file__" in globals():
    print(*write_course(Path(sys.argv[1] if len(sys.argv) > 1 else "nbs")), "written")
