"""Make slides of lessons: a heading, its first sentences and figures on each slide, the full text as notes.

Usage: python tools/slides.py nbs/1_tokens/03_patchify.ipynb ... [--out slides]

Writes slides/03_patchify.slides.html for reveal.js: open it in a browser; S shows the notes. The browser loads
reveal.js and MathJax from the network.
"""

import argparse
import re
from pathlib import Path

SKIPPED = ("Write it yourself", "Try it", "Solutions", "Recap")  # sections that are no lecture
WORDS = 45  # of text on a slide, formulas, lists and tables not counted
LINES = 12  # of code on a slide
BLOCK = re.compile(r"\$\$|\||[-*] |\d+\. |```|<")


def sections(cells: list[dict]) -> list[tuple[str, list[dict]]]:
    """Split a lesson at its headings; a part of a text is a cell of its own."""
    found = [("", [])]
    for cell in cells:
        if cell["cell_type"] != "markdown":
            found[-1][1].append(cell)
            continue
        for part in re.split(r"^(?=#{1,3} )", "".join(cell["source"]), flags=re.MULTILINE):
            if part.startswith("#"):
                heading, _, part = part.partition("\n")
                found.append((heading, []))
            if part.strip():
                found[-1][1].append({"cell_type": "markdown", "source": part.strip()})
    return found


def short(text: str) -> str:
    """Keep formulas, tables and lists, and the first sentence of each paragraph up to WORDS words."""
    text = re.sub(r"<details>.*?</details>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^]]+)\]\([^)]*\.ipynb[^)]*\)", r"\1", text)
    kept, words = [], 0
    for block in re.split(r"\n\s*\n", text.strip()):
        sentence = re.split(r"(?<=[.?!])\s+(?=[A-Z*$`])", block.strip(), maxsplit=1)[0]
        if BLOCK.match(block.strip()):
            kept.append(block.strip())
        elif words + len(sentence.split()) <= WORDS:
            kept.append(sentence)
            words += len(sentence.split())
    return "\n\n".join(kept)


def new_cell(source: str, slide: str) -> dict:
    """Make a markdown cell of a slide: slide, subslide, - or notes."""
    return {"cell_type": "markdown", "metadata": {"slideshow": {"slide_type": slide}}, "source": source}


def code_cells(cell: dict) -> list[dict]:
    """Return the slide of a code cell: its figure, or short code with its result; none for what is hidden."""
    source = "".join(cell["source"])
    pictures = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
    if re.match(r"#\| *(hide|exercise|check|answer)|assert ", source) or not (pictures or cell["outputs"]):
        return []
    folded = bool(cell["metadata"].get("jupyter", {}).get("source_hidden"))
    lines = [line for line in source.splitlines() if not line.startswith("#|")]
    folded = folded or any(line.startswith(("import ", "from ")) for line in lines)
    tags = ["hide-input"] if pictures or folded or len(lines) > LINES else []
    shown = {"tags": tags, "slideshow": {"slide_type": "subslide"}}
    outputs = pictures or [o for o in cell["outputs"] if o["output_type"] != "error"]
    return [{**cell, "metadata": shown, "source": "\n".join(lines), "outputs": outputs}]


def slides(nb: dict) -> dict:
    """Return a notebook with the slides of a lesson."""
    cells, skipped = [], False
    for heading, parts in sections(nb["cells"]):
        title = heading.lstrip("# ")
        texts = [p["source"] for p in parts if p["cell_type"] == "markdown"]
        skipped = title.startswith(SKIPPED) or (skipped and heading.startswith("###"))
        if skipped or not title:
            continue
        text = "\n\n".join(texts)
        cells.append(new_cell(f"## {title}\n\n{short(text)}", "slide"))
        cells += [new_cell(text, "notes")] * bool(text)
        cells += [shown for p in parts if p["cell_type"] == "code" for shown in code_cells(p)]
    for i, cell in enumerate(cells):
        cells[i] = {**cell, "id": f"slide-{i:03d}"}
    return {"cells": cells, "metadata": nb["metadata"], "nbformat": 4, "nbformat_minor": 5}


def write(path: Path, out: Path) -> Path:
    """Write the slides of a lesson as HTML; return the file."""
    import nbformat
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    hidden = {"enabled": True, "remove_input_tags": {"hide-input"}}
    exporter = SlidesExporter(config=Config({"TagRemovePreprocessor": hidden}), embed_images=True)
    nb = nbformat.from_dict(slides(nbformat.read(path, as_version=4)))
    html, _ = exporter.from_notebook_node(nb, {"metadata": {"path": str(path.parent)}})
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{path.stem}.slides.html"
    file.write_text(html, encoding="utf-8")
    return file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lessons", nargs="+", type=Path, help="notebooks of lessons")
    parser.add_argument("--out", default=Path("slides"), type=Path, help="folder of the slides")
    options = parser.parse_args()
    for lesson in options.lessons:
        print(write(lesson, options.out))
