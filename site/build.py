"""Build the website: python site/build.py [FOLDER] [--explorers NAME ...]. No notebook is executed.

Needs the extra `site`. FOLDER (default: _site) gets `source/`, what Sphinx reads, and `html/`, the website. The frames of
the explorers take minutes; --explorers draws those of some only.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from frames import CONTROLS, frames_html, write_frames
from generated import (
    CHAPTERS,
    SITE,
    alt_text,
    text,
    title_of,
    toctree,
    write_citation,
    write_extra,
    write_gallery,
)
from reference import ROOT, write_api

REPOSITORY = "https://github.com/dit-nb/dit_nb/blob/main/"
WITHOUT_KERNEL = re.compile(r"\n\nWithout a kernel: \[sliders.*\Z")  # tools/fold.py writes it


def main(out: Path, explorers: list[str]) -> int:
    """Build the website and return Sphinx's exit status."""
    from sphinx.cmd.build import main as sphinx

    source, html = out / "source", out / "html"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(SITE / "static", source / "static")
    shutil.copy(SITE / "conf.py", source)
    write_frames(source / "extra" / "frames", explorers)
    pages = [path for folder in CHAPTERS for path in sorted((ROOT / "nbs" / folder).glob("*.ipynb"))]
    for path in pages:
        write_page(path, source)
    write_page(ROOT / "index.ipynb", source, front=True)
    shutil.copytree(ROOT / "nbs" / "images", source / "nbs" / "images")
    write_api(source / "api")
    write_citation(source / "citation.md")
    write_gallery(source / "gallery.md", pages, source)
    write_extra(source / "extra", pages)
    status = sphinx(["-q", "-W", "--keep-going", "-j", "auto", str(source), str(html)])
    offer_stored([*pages, ROOT / "index.ipynb"], html / "_sources")
    return status


def offer_stored(notebooks: list[Path], folder: Path) -> None:
    """Put the notebooks of the repository where the download buttons lead, instead of the prepared ones."""
    for path in notebooks:
        target = folder / path.relative_to(ROOT)
        if target.exists():
            shutil.copyfile(path, target)


# --- Pages ---


def write_page(path: Path, source: Path, front: bool = False) -> None:
    """Write the page of a notebook, at the same place as in the repository."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"] = page_metadata(notebook)
    cells = [prepare(cell) for cell in notebook["cells"]]
    frames = source / "extra" / "frames"
    cells = [part for cell in cells if cell for part in (cell, *explorer_cells(cell, frames, path))]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = link_to_repository(text(cell), path.parent)
    if path.stem == "00_tour":
        cells[1:1] = [markdown("live", LIVE.replace("live/index.html", "../../live/index.html"))]
    notebook["cells"] = front_page(cells) if front else cells
    target = source / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")


def page_metadata(notebook: dict) -> dict:
    """What Sphinx reads of a notebook's metadata, whether it has the cell for Colab, and the module that it exports."""
    kept = {"kernelspec": notebook["metadata"]["kernelspec"], "language_info": {"name": "python"}}
    sources = [text(cell) for cell in notebook["cells"]]
    exported = [match[1] for source in sources if (match := re.match(r"#\| default_exp (\S+)", source))]
    colab = {"colab": "installs"} if any("google.colab" in source for source in sources) else {}
    return kept | colab | ({"module": f"dit_nb.{exported[0]}"} if exported else {})


def front_page(cells: list[dict]) -> list[dict]:
    """The front page: a link to the live model at its beginning, the tables of contents at its end."""
    first, *others = cells
    words = re.sub(r"(?m)(^> .*$)", rf"\1\n\n{TRY}", text(first), count=1)
    return [{**first, "source": words}, markdown("live", LIVE), *others, markdown("toc", contents())]


def markdown(name: str, source: str) -> dict:
    """Make a markdown cell."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def prepare(cell: dict) -> dict | None:
    """Make a cell fit for a page: directives become tags, figures get their words, hidden cells go."""
    source = text(cell)
    if cell["cell_type"] != "code":
        return cell
    if re.search(r"^#\| *(hide|default_exp)\b", source, flags=re.M) or "google.colab" in source:
        return None
    folded = cell["metadata"].get("jupyter", {})
    hidden = folded.get("source_hidden", False), folded.get("outputs_hidden", False) and bool(cell["outputs"])
    tags = {(True, True): ["hide-cell"], (True, False): ["hide-input"], (False, True): ["hide-output"]}
    cell["metadata"] = {"tags": tags.get(hidden, [])}
    if words := [alternative for output in cell["outputs"] if (alternative := alt_text(output))]:
        cell["metadata"]["mystnb"] = {"image": {"alt": words[0]}}
    cell["source"] = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    cell["outputs"] = [strip_output(output) for output in cell["outputs"]]
    return cell


def explorer_cells(cell: dict, frames: Path, path: Path) -> list[dict]:
    """What a page shows below a cell with an explorer: stored frames with sliders, folded if they give an answer."""
    names = shown_explorers(text(cell)) if cell["cell_type"] == "code" else []
    up = "../" * (len(path.relative_to(ROOT).parts) - 1)
    made = [frames_html(frames, name, up) for name in names if (frames / name).exists()]
    if not made:
        return []
    # the frames are shown instead of the stored picture
    cell["outputs"] = [o for o in cell["outputs"] if "image/png" not in o.get("data", {})]
    tags = cell["metadata"]["tags"]
    if {"hide-output", "hide-cell"} & set(tags):  # one fold for all that gives the answer
        words = ["".join(o.get("data", {}).get("text/markdown", "")) for o in cell["outputs"]]
        inside = "\n\n".join(filter(None, words + made))
        made = [f"<details>\n<summary>The explorer</summary>\n\n{inside}\n\n</details>"]
        cell["outputs"], cell["metadata"]["tags"] = [], ["hide-input"] if "hide-cell" in tags else []
    return [markdown(f"{names[0].replace('_', '-')}-{k}", html) for k, html in enumerate(made)]


def shown_explorers(source: str) -> list[str]:
    """Names of the explorers that a cell makes, given to a variable or not."""
    return re.findall(r"^(?:\w+ = )?(explore_\w+)\(", source, flags=re.M)


def strip_output(output: dict) -> dict:
    """Drop a widget's state, which is dead on a page, and the words that lead from a notebook to its page."""
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if "text/markdown" in data:
        data["text/markdown"] = WITHOUT_KERNEL.sub("", "".join(data["text/markdown"]))
    return output


def link_to_repository(source: str, folder: Path) -> str:
    """Point links to files that are no pages to the repository."""

    def point(match: re.Match) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or target.endswith(".ipynb"):  # JupyterLab keeps capitals in the name of a section
            return f"{match[1]}{target}{'#' + anchor.lower() if anchor else ''})"
        if re.match(r"[a-z]+:", match[2]) or "images/" in target:
            return match[0]
        full = (folder / target).resolve()
        return f"{match[1]}{REPOSITORY}{full.relative_to(ROOT)}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\]\()([^)\s]+)\)", point, source)


TRY = "**A DiT runs in this page: [try it](#a-dit-in-this-page).**"
LIVE = """## A DiT in this page

It is the model of the lessons, with its own weights, in plain JavaScript; also <a href="live/index.html">on a page of its own</a>.

<iframe class="live" src="live/index.html" title="A diffusion transformer that samples digits, with controls" loading="lazy"></iframe>
"""


def contents() -> str:
    """The tables of contents of the sidebar, one for each chapter."""
    trees = []
    for folder, title in CHAPTERS.items():
        pages = sorted(path.stem for path in (ROOT / "nbs" / folder).glob("*.ipynb"))
        if pages:
            trees.append(toctree(title, [entry(folder, page) for page in pages]))
    return "\n\n".join([*trees, toctree("More", ["gallery", "api/index", "citation"])])


def entry(folder: str, page: str) -> str:
    """A page in a table of contents, a lesson with its number."""
    place = f"nbs/{folder}/{page}"
    return f"{page[:2]} {title_of(ROOT / f'{place}.ipynb')} <{place}>" if page[:2].isdigit() else place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=ROOT / "_site", type=Path)
    parser.add_argument("--explorers", nargs="*", default=list(CONTROLS), choices=list(CONTROLS))
    given = parser.parse_args()
    sys.exit(main(given.folder.resolve(), given.explorers))
