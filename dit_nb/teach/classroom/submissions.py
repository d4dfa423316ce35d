"""What comes back from a class: renamed, cut, glued, half empty. Each is graded, or one line says why not."""

import json
import signal
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dit_nb.teach.classroom.assignments import assignments
from dit_nb.teach.graders.framework.limits import bell


def find_handins(
    folder: Path,  # of a class
    name: str,  # the assignment: a1
) -> Iterator[tuple[str, Path | str]]:  # student, and the notebook or what is wrong
    "All hand-ins, in the order of the students' names."
    if not folder.is_dir():
        raise ValueError(f"handins is {folder}, but there is no such folder.")
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            if (path / name).is_dir():
                yield path.name, find_notebook(path / name, name)
            elif not any((path / other).is_dir() for other in assignments()):
                yield path.name, find_notebook(path, name)
        elif path.suffix == ".ipynb":
            yield path.stem, path
        else:
            yield path.stem, f"{path.name} is not a notebook"


def find_notebook(
    folder: Path,  # of one student
    name: str,
) -> Path | str:  # the notebook, or what is wrong
    "The notebook that a student handed in."
    found = sorted(path for path in folder.glob("*.ipynb") if path.is_file())
    if folder / f"{name}.ipynb" in found:
        return folder / f"{name}.ipynb"
    if len(found) == 1:
        return found[0]
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not found:
        return f"no notebook, but {', '.join(others)[:80]}" if others else "the folder is empty"
    return (
        f"several notebooks, and none is called {name}.ipynb: {', '.join(path.name for path in found)[:80]}"
    )


def read_handin(
    path: Path,
) -> dict:  # a notebook of nbformat 4.5
    "A notebook from a student. Raises ValueError where it cannot be one."
    import nbformat

    try:
        written = path.read_text(encoding="utf-8-sig").strip()
        raw = json.loads(written)
    except UnicodeDecodeError:
        raise ValueError("it is not a text file, so not a notebook") from None
    except json.JSONDecodeError as error:
        cut = written.startswith("{") and (error.pos >= len(written) - 1 or "Unterminated" in error.msg)
        says = "it breaks off in the middle: was it saved to the end?" if cut else "it is not a notebook"
        raise ValueError(says if written else "the file is empty") from None
    if not isinstance(raw, dict) or "nbformat" not in raw:
        raise ValueError("it is not a notebook, but other JSON")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.reads(json.dumps(raw), as_version=4)
            return {**nb, "cells": [readable(cell) for cell in nb["cells"]], "format": raw["nbformat"]}
    except Exception as error:
        raise ValueError(
            f"its cells cannot be read ({type(error).__name__}, format {raw['nbformat']})"
        ) from None


def part(whole: dict, name: str) -> dict:
    "A dictionary inside another; empty where there is none, for a stranger's file may hold anything."
    found = whole.get(name)
    return found if isinstance(found, dict) else {}


def readable(cell: dict) -> dict:
    "The parts of a cell that count. Raises an error where there are none."
    source, kind = cell["source"], cell["cell_type"]
    if not isinstance(source, str) or kind not in ("code", "markdown", "raw"):
        raise TypeError
    name = part(cell.get("metadata", {}), "nbgrader").get("grade_id")
    shown = {name: cell[name] for name in ("attachments", "outputs", "execution_count") if cell.get(name)}
    return {"kind": kind, "source": source, "id": name if isinstance(name, str) else None, "shown": shown}


def place(
    theirs: list[dict],  # the student's cells
    ours: list[dict],  # of the release
) -> list[int | None]:  # for each of theirs, the place of our cell that it is
    "Which cells are ours."
    by_id = {mark(cell): i for i, cell in enumerate(ours) if mark(cell)}
    by_text = {(cell["cell_type"], cell["source"].strip()): i for i, cell in reversed([*enumerate(ours)])}
    return [by_id.get(cell["id"], by_text.get((cell["kind"], cell["source"].strip()))) for cell in theirs]


def mark(cell: dict) -> str | None:
    "nbgrader's name for a cell of the release."
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def is_solution(cell: dict) -> bool:
    "Whether students write in it."
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def own_cell(cell: dict) -> dict:
    "A student's cell, as a cell of a notebook: what it says and shows, nothing else."
    new = {"cell_type": cell["kind"], "metadata": {}, "source": cell["source"]}
    new |= {"outputs": [], "execution_count": None} if cell["kind"] == "code" else {}
    return new | cell["shown"]


def by_hand(release: dict) -> bool:
    "Whether a person grades all of it, so that nothing needs to run."
    marks = [cell["metadata"].get("nbgrader", {}) for cell in release["cells"]]
    return all(m.get("solution") for m in marks if m.get("grade"))


def mend(
    handin: dict,  # from `read_handin`
    release: dict,  # the notebook that students were given
) -> tuple[dict, list[str]]:  # what is graded, and what there is to say
    "Our cells as we gave them out, the student's work in its places. Raises ValueError for another notebook."
    theirs, ours = handin["cells"], release["cells"]
    if not by_hand(release):  # it will run again: what it showed, and how much, does not matter
        theirs = [{**cell, "shown": pictures(cell)} for cell in theirs]
    check_origin(handin, release)
    places = place(theirs, ours)
    if not any(i is not None and mark(ours[i]) for i in places):
        raise ValueError("it is a notebook, but none of its cells is of this assignment")
    copies, after, last = defaultdict(list), defaultdict(list), -1
    for cell, i in zip(theirs, places):
        if i is None:
            after[last].append(own_cell(cell))
        else:
            copies[i].append(cell)
            last = i
    cells = list(after[-1])
    for i, cell in enumerate(ours):
        cells += (
            written(cell, copies[i])
            if is_solution(cell)
            else [{**cell, **(copies[i] or [{"shown": {}}])[-1]["shown"]}]
        )
        cells += after[i]
    graded = [i for i, cell in enumerate(cells) if cell["metadata"].get("nbgrader", {}).get("grade")]
    for i, cell in enumerate(cells):
        late = mark(cell) and i > max(graded, default=i)  # nothing graded comes after: not worth the time
        metadata = {**cell["metadata"], **({"tags": ["skip-execution"]} if late else {})}
        cells[i] = {**cell, "id": f"cell-{i:04d}", "metadata": metadata}
    return {**release, "cells": cells}, [*foreign(handin, release), *remarks(ours, copies, theirs)]


def written(ours: dict, copies: list[dict]) -> list[dict]:
    "A solution cell with the student's work; earlier copies before it."
    worked = [cell for cell in copies if other(cell, ours)] or copies[:1]
    if not worked:
        empty = "" if ours["cell_type"] == "markdown" else "# this cell was missing"
        return [{**ours, "source": empty}]
    *before, final = worked
    return [*map(own_cell, before), {**ours, **final["shown"], "source": final["source"]}]


def pictures(cell: dict) -> dict:
    "Of all that a cell shows, the pictures in its words."
    return {name: value for name, value in cell["shown"].items() if name == "attachments"}


def check_origin(handin: dict, release: dict) -> None:
    "Raise ValueError where a notebook says that it is another assignment or variant."
    origin, wanted = (part(nb["metadata"], "dit_nb") for nb in (handin, release))
    for fact in ("assignment", "variant"):
        if fact in origin and origin[fact] != wanted.get(fact):
            got, want = (
                f"{fact} {value}" if value else f"no {fact}" for value in (origin[fact], wanted.get(fact))
            )
            raise ValueError(f"it is {got}, and {want} is graded here")


def foreign(handin: dict, release: dict) -> list[str]:
    "By what other software it was saved; it is graded all the same."
    theirs, ours = (part(nb["metadata"], "kernelspec").get("name") for nb in (handin, release))
    saved = handin.get("format", 4)
    kernel = (
        [f"saved with the kernel {theirs!r:.40}, graded with {ours}"] if theirs not in (None, ours) else []
    )
    return kernel + ([f"saved in format {saved} of notebooks, read as 4"] if saved != 4 else [])


def remarks(ours: list[dict], copies: dict[int, list[dict]], theirs: list[dict]) -> list[str]:
    "What a teacher should hear about a hand-in, in a few words each."
    if not any(cell["id"] for cell in theirs):
        return ["the marks of its cells are lost: known by their text"]
    marked = [(i, cell) for i, cell in enumerate(ours) if mark(cell)]
    locked = [(i, cell) for i, cell in marked if not is_solution(cell)]
    named = {
        "missing, put back": [mark(cell) for i, cell in locked if not copies[i]],
        "changed, put back": [mark(cell) for i, cell in locked if any(other(c, cell) for c in copies[i])],
        "missing, left empty": [mark(cell) for i, cell in marked if is_solution(cell) and not copies[i]],
        "there twice": [mark(cell) for i, cell in marked if len(copies[i]) > 1],
    }
    return [f"{words}: {', '.join(names)}" for words, names in named.items() if names]


def other(theirs: dict, ours: dict) -> bool:
    "Whether the text of a cell is another."
    return theirs["source"].strip() != ours["source"].strip()


def limit_cells(
    seconds: float,  # for one cell
) -> None:
    "Stop every cell of this kernel that takes longer; for grading."
    from IPython import get_ipython

    if not hasattr(signal, "setitimer"):  # Windows: nbgrader's own interrupt must do
        return
    shell = get_ipython()
    shell.ask_exit = lambda: None  # exit() would end the grading, too
    too_long = f"This cell took more than {seconds:g} seconds: is there a loop that never ends?"

    def ours(frame):
        return [f for f, _ in traceback.walk_stack(frame) if f.f_globals is shell.user_global_ns]

    def start(_):
        shell.ast_node_interactivity = "last_expr"  # the points of a check are the value of its last line
        signal.signal(signal.SIGALRM, bell(ours, too_long))
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)

    def stop(_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.settrace(None)

    shell.events.register("pre_run_cell", start)
    shell.events.register("post_run_cell", stop)
