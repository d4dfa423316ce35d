"""How a reader finds a lesson: its place in the whole, its minutes, folded answers, and one color for one quantity."""

import ast
import json
import re
from pathlib import Path

import pytest

import fold
from dit_nb.visual import COLORS

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(ROOT.glob("nbs/[1-5]_*/[0-9]*.ipynb"))
GUIDES = sorted([*ROOT.glob("nbs/guides/*.ipynb"), *ROOT.glob("nbs/assignments/*.ipynb")])
DRAWING_MODULES = sorted([*ROOT.glob("dit_nb/teach/explore/*.py"), ROOT / "dit_nb/visual.py"])

# Colors without a meaning of their own, and the color maps of the conventions: brightness is gray from black to white;
# everywhere else zero is white, in grays, or in red and blue for what has a sign. On top of a picture, where zero is
# transparent, and for labels, it is viridis.
NEUTRAL = {"black", "white", "none", "k", "w"}
MAPS = {"gray", "Greys", "gray_r", "RdBu_r", "viridis"}
COLOR_ARGUMENTS = {
    "color",
    "c",
    "ec",
    "fc",
    "edgecolor",
    "facecolor",
    "edgecolors",
    "facecolors",
    "mec",
    "mfc",
}


def cells(path: Path) -> list[dict]:
    """Cells of a notebook, with their text."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "text": "".join(cell["source"])} for cell in found]


def named(paths: list[Path]) -> list:
    return [pytest.param(path, id=path.stem) for path in paths]


def is_shade_of_gray(color: str) -> bool:
    """Whether a color is neutral: a name, a gray level such as "0.7", or a hexadecimal gray."""
    level = re.fullmatch(r"[01]?\.\d+|0|1", color)
    gray = re.fullmatch(r"#([0-9A-Fa-f]{2})\1\1", color)
    return color in NEUTRAL or bool(level) or bool(gray)


def strays(source: str) -> list[str]:
    """Colors and color maps in a program that do not follow the conventions."""
    try:
        tree = ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M))
    except SyntaxError:
        return []
    found = []
    for name, value in named_constants(tree):
        if name in COLOR_ARGUMENTS and isinstance(value, str):
            found += [] if is_shade_of_gray(value) or value in COLORS else [value]
        if name == "cmap" and isinstance(value, str):
            found += [] if value in MAPS else [value]
    return found


def named_constants(tree: ast.AST):
    """Yield name and value of each keyword argument and each entry of a dictionary that is a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            yield node.arg, node.value.value
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values)
            yield from (
                (k.value, v.value)
                for k, v in pairs
                if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)
            )


def test_stray_colors_are_found():
    assert strays('ax.plot(x, color="red"); ax.imshow(x, **{"cmap": "jet"})') == ["red", "jet"]
    assert strays('ax.plot(x, color=COLORS["eps"], mec="0.6"); ax.imshow(x, cmap="gray", fc="#BBBBBB")') == []


@pytest.mark.parametrize("path", named([*LESSONS, *GUIDES]))
def test_figures_of_notebooks_keep_the_colors(path):
    assert not [
        found for cell in cells(path) if cell["cell_type"] == "code" for found in strays(cell["text"])
    ]


@pytest.mark.parametrize("path", named(DRAWING_MODULES))
def test_figures_of_modules_keep_the_colors(path):
    assert strays(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", named(LESSONS))
def test_a_lesson_begins_with_its_place_and_its_minutes(path):
    number, first = int(path.name[:2]), cells(path)[:6]
    call = "plot_overview()" if number == 0 else f"plot_overview({number})"
    assert number == 24 or any(call in cell["text"] for cell in first)
    assert any(fold.MINUTES.search(cell["text"]) for cell in first)


@pytest.mark.parametrize("path", named(LESSONS))
def test_minutes_are_those_that_the_tool_finds(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    reading, doing = fold.minutes(nb["cells"])
    text = next(cell["text"] for cell in cells(path) if fold.MINUTES.search(cell["text"]))
    assert f"{reading} to read" in text and (f"{doing} more with the exercises" in text) == bool(doing)


def placements(text: str) -> list[str]:
    """Each paragraph "Where are we", as a heading or in bold, with its links shown as text."""
    found = re.findall(
        r"(?:^##+ Where are we\s+|\*\*Where are we\.\*\* *)(.+?)(?=\n\s*\n|\Z)", text, re.M | re.S
    )
    return [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph) for paragraph in found]


def test_the_placements_are_found():
    text = "## Where are we\n\nA [b](c.ipynb) d.\n\nMore.\n\n> **Where are we.** Here.\nAnd there."
    assert placements(text) == ["A b d.", "Here.\nAnd there."]


@pytest.mark.parametrize("path", named(LESSONS))
def test_a_placement_fits_in_three_lines_of_a_laptop(path):
    long = [text for cell in cells(path) for text in placements(cell["text"]) if len(text) > 330]
    assert not long


@pytest.mark.parametrize("path", named([*LESSONS, *GUIDES]))
def test_what_answers_a_question_is_folded(path):
    asked = False
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            if "**Predict first.**" in cell["text"]:
                assert "\n#" not in cell["text"].split("**Predict first.**")[1], "a question ends its section"
                asked = "<summary>" not in cell["text"].split("**Predict first.**")[1]
            elif "<summary>" in cell["text"] or re.match("##? ", cell["text"]):
                asked = False
        elif asked and any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            assert cell["metadata"].get("jupyter", {}).get("outputs_hidden"), cell["text"][:300]


@pytest.mark.parametrize("path", named(LESSONS))
def test_things_to_try_have_folded_answers(path):
    texts = [cell["text"] for cell in cells(path)]
    start = next(i for i, text in enumerate(texts) if text.startswith("## Try it"))
    section = "\n".join(texts[start:])
    assert "<summary>Answer" in section or "#| answer" in section


@pytest.mark.parametrize("path", named(LESSONS))
def test_solutions_and_hidden_checks_are_folded(path):
    nb = cells(path)
    for cell in nb:
        if cell["text"].startswith("### Solutions"):
            assert cell["metadata"]["jp-MarkdownHeadingCollapsed"]
        if "#| hidden" in cell["text"] or "#| cuda" in cell["text"]:
            assert cell["metadata"]["jupyter"]["source_hidden"]


@pytest.mark.parametrize("path", named([*LESSONS, *GUIDES]))
def test_no_answer_shows_under_visible_code(path):
    """JupyterLab shows the first line of a folded output below its code, unless the code is folded too."""
    for cell in cells(path):
        flags = cell["metadata"].get("jupyter", {})
        if cell["cell_type"] == "code" and flags.get("outputs_hidden") and not flags.get("source_hidden"):
            for output in cell["outputs"][:1]:
                data = output.get("data", {})
                shown = "".join(output.get("text") or data.get("text/markdown") or data["text/plain"])
                assert re.match("Explore: |a figure$", shown), shown[:200]


@pytest.mark.parametrize("path", named([*LESSONS, *GUIDES]))
def test_outputs_hold_no_progress_bars(path):
    stored = [
        text for cell in cells(path) for o in cell.get("outputs", []) for text in o.get("data", {}).values()
    ]
    assert not [text for text in stored if "%|" in "".join(text)]
