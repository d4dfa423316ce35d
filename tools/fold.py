"""Fold what a reader of a lesson need not see first, refresh shown code (tools/shown.py), state minutes, link sliders.

Usage: python tools/fold.py [NOTEBOOK ...]   (all lessons and guides, and the front page, if none is named)

Folded input (`jupyter.source_hidden`): cells that begin with `#| answer`, `#| cuda` or `#| hidden`, cells that only
assert, cells of 6 lines or more that draw and export nothing, and solutions. Of the answers, the call of an explorer
and a figure in few lines stay visible: one click shows them. `#| code-fold: true` or `false` decides otherwise.
Folded output (`jupyter.outputs_hidden`): cells that begin with `#| answer`; they answer a "Predict first" or "Try it".
(Under visible code JupyterLab shows the first line of a folded output, which may be the answer.)
Folded section: "Solutions".

Minutes: an estimate, rounded to 5: 170 words a minute, 3 seconds for each formula within a line and a minute for each
on its own, 5 seconds for each visible line of code, half a minute for each figure, a minute and a half for each
"Predict first", 2 minutes for each explorer. (With 200 words, no formulas and 4 seconds a line, readers of lessons 15,
19 and 21 estimated a half more than was stated.) An exercise takes the minutes that its heading states.

Sliders: the stored words of an explorer end with a link to its sliders on the website, for a viewer without a kernel.
A run of the cell replaces them: beside a live explorer there is no link.
"""

import ast
import json
import re
import sys
from pathlib import Path

from shown import refresh

ROOT = Path(__file__).resolve().parent.parent
DRAWING = re.compile(r"\bfigure\(|\bplt\.|\.subplots\(|\.imshow\(|\bplot_images\(")
MINUTES = re.compile(r"(\*\*Minutes\*\*) [0-9]+ to read(, [0-9]+ more with the exercises)?")
TOTAL = re.compile(r"(\*\*How long\*\*: )[0-9]+ lessons, about [0-9]+ hours of reading, [0-9]+ more")
EXPLORER = re.compile(r"^(?:\w+ = )?(explore_\w+)\(", re.M)
WITHOUT_KERNEL = re.compile(r"\n\nWithout a kernel: \[sliders.*\Z")  # site/build.py drops it
SITE = "https://dit-nb.github.io/dit_nb/"
EXERCISE = re.compile(r"^Difficulty .* (\d+) minutes", re.M)


def text_of(cell: dict) -> str:
    """Source of a cell."""
    return "".join(cell["source"])


def flags_of(source: str) -> dict[str, str]:
    """Directives of a cell: `#| code-fold: true` gives {"code-fold": "true"}."""
    return {k: v.strip() for k, v in re.findall(r"^#\|\s*([\w-]+):?(.*)$", source, re.M)}


def code_lines(source: str) -> list[str]:
    """Lines that are neither empty nor a directive."""
    return [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]


def only_asserts(source: str) -> bool:
    """Whether all that a cell does is assert, in loops or not."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic
        return False

    def asserts(node) -> bool:
        loop = isinstance(node, (ast.For, ast.With)) and all(map(asserts, node.body))
        return loop or isinstance(node, ast.Assert)

    return bool(body) and all(map(asserts, body))


def shows_at_a_click(source: str, outputs: list[dict]) -> bool:
    """Whether an answer is an explorer, or a figure in few lines, which show nothing as long as they are folded."""
    draws = bool(outputs) and "image/png" in outputs[0].get("data", {})
    short = len(code_lines(source)) < 6 and "assert" not in source
    return bool(EXPLORER.search(source)) or (draws and short)


def folds_input(source: str, outputs: list[dict]) -> bool:
    """Whether the code of a cell is folded."""
    flags = flags_of(source)
    if "code-fold" in flags:
        return flags["code-fold"] == "true"
    if flags.keys() & {"export", "default_exp", "exercise", "check"} and "hidden" not in flags:
        return False
    if "answer" in flags:
        return not shows_at_a_click(source, outputs)
    if flags.keys() & {"cuda", "hidden"} or only_asserts(source):
        return True
    return len(code_lines(source)) >= 6 and bool(DRAWING.search(source))


def set_flag(metadata: dict, name: str, value: bool) -> None:
    """Set or remove a flag of JupyterLab."""
    flags = {**metadata.pop("jupyter", {}), name: value}
    flags = {key: True for key, on in flags.items() if on}
    if flags:
        metadata["jupyter"] = flags


def hide_preview(cell: dict) -> None:
    """Keep JupyterLab from showing the words for a folded figure, which are its answer; they stay its `alt` text."""
    for output in cell["outputs"] if cell["metadata"].get("jupyter", {}).get("outputs_hidden") else ():
        if "image/png" in output.get("data", {}):
            output["data"]["text/plain"] = ["a figure"]


def fold(cells: list[dict]) -> None:
    """Set JupyterLab's metadata of all cells."""
    solutions = False
    for cell in cells:
        source = text_of(cell)
        if cell["cell_type"] == "code":
            set_flag(cell["metadata"], "source_hidden", solutions or folds_input(source, cell["outputs"]))
            set_flag(cell["metadata"], "outputs_hidden", "answer" in flags_of(source))
            hide_preview(cell)
        elif heading := re.match(r"(#+) (.*)", source):
            if solutions and len(heading[1]) > 3:
                continue
            solutions = heading[2].strip() == "Solutions"
            cell["metadata"].pop("jp-MarkdownHeadingCollapsed", None)
            if solutions:
                cell["metadata"]["jp-MarkdownHeadingCollapsed"] = True


def link_sliders(cells: list[dict], page: str) -> None:
    """Write below the words of each explorer where its sliders are: on a page of the website."""
    for cell in cells:
        names = EXPLORER.findall(text_of(cell)) if cell["cell_type"] == "code" else []
        shown = [output.get("data", {}) for output in cell["outputs"]] if names else []
        shown = [data for data in shown if "".join(data.get("text/markdown", "")).startswith("Explore: ")]
        for name, data in zip(names, shown):
            words = WITHOUT_KERNEL.sub("", "".join(data["text/markdown"]))
            words += f"\n\nWithout a kernel: [sliders over stored pictures]({SITE}{page}#{name})."
            data["text/markdown"] = words.splitlines(keepends=True)


def minutes_of_text(source: str) -> float:
    """Minutes to read a text with its formulas and questions."""
    displays = source.count("$$") // 2
    inline = len(re.findall(r"\$[^$\n]+\$", source.replace("$$", "")))
    return len(source.split()) / 170 + displays + inline / 20 + 1.5 * source.count("**Predict first.**")


def minutes(cells: list[dict]) -> tuple[int, int]:
    """Minutes to read a lesson, and to do its exercises."""
    reading, exercises, doing, section = 0.0, 0, False, ""
    for cell in cells:
        source = text_of(cell)
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^(##+) (.*)$", source, re.M)
            if headings and headings[-1][0] == "##":
                section = headings[-1][1].strip()
            doing = section == "Write it yourself"
            exercises += sum(map(int, EXERCISE.findall(source)))
            reading += 0 if doing else minutes_of_text(source)
        elif not doing:
            hidden = cell["metadata"].get("jupyter", {}).get("source_hidden")
            reading += 0 if hidden else len(code_lines(source)) * 5 / 60
            figures = sum("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
            reading += 2 if EXPLORER.search(source) else figures / 2
    return max(5, 5 * round(reading / 5)), 5 * -(-exercises // 5)


def state_minutes(cells: list[dict]) -> tuple[int, int]:
    """Write a lesson's minutes into its first text, where the lesson has a place for them."""
    reading, doing = minutes(cells)
    stated = rf"\1 {reading} to read" + (f", {doing} more with the exercises" if doing else "")
    for cell in cells[:4]:
        source = text_of(cell)
        if cell["cell_type"] == "markdown" and MINUTES.search(source):
            cell["source"] = MINUTES.sub(stated, source).splitlines(keepends=True)
    return reading, doing


def tidy(path: Path) -> tuple[int, int]:
    """Fold one notebook and state its minutes; write it only if something changed."""
    before = path.read_text(encoding="utf-8")
    nb = json.loads(before)
    fold(nb["cells"])
    refresh(nb["cells"])
    link_sliders(nb["cells"], path.relative_to(ROOT).with_suffix(".html").as_posix())
    spent = state_minutes(nb["cells"])
    after = json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return spent


def state_total(path: Path, lessons: list[tuple[int, int]]) -> None:
    """Write the hours of the whole course into the front page."""
    before = path.read_text(encoding="utf-8")
    reading, doing = (round(sum(column) / 60) for column in zip(*lessons))
    after = TOTAL.sub(rf"\g<1>{len(lessons)} lessons, about {reading} hours of reading, {doing} more", before)
    if after != before:
        path.write_text(after, encoding="utf-8")


def main() -> None:
    """Tidy the notebooks that are named, or all, and then the front page's total."""
    named = [Path(a).resolve() for a in sys.argv[1:]]
    everything = sorted((ROOT / "nbs").glob("*/*.ipynb"))
    spent = {path: tidy(path) for path in named or everything if "assignments" not in path.parts}
    if not named:
        lessons = [pair for path, pair in spent.items() if path.parent.name[0].isdigit()]
        state_total(ROOT / "index.ipynb", lessons)


if __name__ == "__main__":
    main()
