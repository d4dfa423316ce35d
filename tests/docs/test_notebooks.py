"""The shape of the course: every lesson has its parts, its pictures, and its limits."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "nbs").glob("[0-9]*/*.ipynb"))
NUMBERED = LESSONS

NOTEBOOKS = [*LESSONS, *sorted((ROOT / "nbs" / "guides").glob("*.ipynb")), ROOT / "index.ipynb"]


def cells(path: Path, kind: str) -> list[dict]:
    """The cells of one kind, with their text joined."""
    found = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]
    return [{**c, "text": "".join(c["source"])} for c in found]


def pictures(path: Path) -> int:
    """How many figures are stored."""
    outputs = [o for c in cells(path, "code") for o in c["outputs"]]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_lessons_00_to_16_are_there():
    assert [p.name[:2] for p in NUMBERED][:17] == [f"{i:02d}" for i in range(17)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    text = "\n".join(c["text"] for c in prose)
    assert prose[0]["text"].startswith("# ")
    assert "\n> " in text[:1500] and "You will be able to" in text and "Minutes" in text
    assert "## Recap" in text and "Next:" in text
    assert pictures(path) >= 3
    assert any("assert" in c["text"] for c in code if "#| export" not in c["text"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_executed_and_small(path):
    assert path.stat().st_size < 500_000
    code = cells(path, "code")
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert "widgets" not in json.loads(path.read_text())["metadata"]
    lesson_cells = [c["text"] for c in code if "#| export" not in c["text"]]
    longest = max((sum(bool(line.strip()) for line in text.splitlines()), text[:60]) for text in lesson_cells)
    assert longest[0] <= 26, longest


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_pictures_are_told_in_words(path):
    outputs = [o for c in cells(path, "code") for o in c["outputs"] if "image/png" in o.get("data", {})]
    assert [o["metadata"].get("image/png", {}).get("alt", "") for o in outputs if not told(o)] == []


def told(output: dict) -> bool:
    """Does a stored picture say what it shows?"""
    return len(output["metadata"].get("image/png", {}).get("alt", "")) > 15


@pytest.mark.parametrize("path", NUMBERED[1:18], ids=lambda p: p.stem)
def test_every_lesson_has_something_to_play_with(path):
    """The explorer's experiments and its still picture are stored; its widget is not."""
    code = [c for c in cells(path, "code") if c["text"].strip().splitlines()[-1].startswith("explore_")]
    assert code, "no cell shows an explorer"
    for cell in code:
        kinds = [set(o.get("data", {})) for o in cell["outputs"]]
        assert {"text/markdown", "text/plain"} in kinds and {"image/png", "text/plain"} in kinds, kinds


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for link in cell["text"].split("](")[1:]:
            target = link.split(")")[0].split("#")[0]
            if target.endswith(".ipynb"):
                assert (path.parent / target).exists(), target


def public(tree: ast.Module):
    """Functions and classes of a module, and the methods of these."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node
            inner = node.body if isinstance(node, ast.ClassDef) else []
            yield from (m for m in inner if isinstance(m, ast.FunctionDef) and not m.name.startswith("_"))


def test_exports_have_docstrings():
    for path in (ROOT / "dit_nb").rglob("*.py"):
        for node in public(ast.parse(path.read_text())):
            if node.name != "forward":  # its line comments say more
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
