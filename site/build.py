"""Build the website: python site/build.py [FOLDER] [--explorers NAME ...]. No notebook is executed.

Needs the extra `site`. FOLDER (default: _site) gets `source/`, what Sphinx reads, and `html/`, the website. The frames of
the explorers take minutes; --explorers draws those of some only.
"""

import argparse
import json
import re
import shutil
import sys
from base64 import b64decode
from importlib import import_module
from pathlib import Path

import tomllib

from frames import CONTROLS, frames_html, write_frames

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
BASE = "https://dit-nb.github.io/dit_nb/"
REPOSITORY = "https://github.com/dit-nb/dit_nb/blob/main/"
CHAPTERS = {
    "1_tokens": "Tokens",
    "2_transformer": "The transformer",
    "3_diffusion": "Diffusion",
    "4_practice": "Practice",
    "5_since_dit": "Since DiT",
    "guides": "Guides",
}


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
    return sphinx(["-q", "-W", "--keep-going", "-j", "auto", str(source), str(html)])


# --- Pages ---


def write_page(path: Path, source: Path, front: bool = False) -> None:
    """Write the page of a notebook, at the same place as in the repository."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"] = {
        "kernelspec": notebook["metadata"]["kernelspec"],
        "language_info": {"name": "python"},
    }
    cells = [prepare(cell) for cell in notebook["cells"]]
    frames = source / "extra" / "frames"
    notebook["cells"] = [
        part for cell in cells if cell for part in (cell, *explorer_cells(cell, frames, path))
    ]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = link_to_repository(text(cell), path.parent)
    if front or path.stem == "00_tour":
        up = "" if front else "../../"
        notebook["cells"][1:1] = [markdown("live", LIVE.replace("live/index.html", f"{up}live/index.html"))]
    if front:
        notebook["cells"].append(markdown("toc", contents()))
    target = source / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")


def text(cell: dict) -> str:
    """Source of a cell."""
    return "".join(cell["source"])


def markdown(name: str, source: str) -> dict:
    """Make a markdown cell."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def prepare(cell: dict) -> dict | None:
    """Make a cell fit for a page: directives become tags, figures get their words, hidden cells go."""
    source = text(cell)
    if cell["cell_type"] != "code":
        return cell
    if re.search(r"^#\| *(hide|default_exp)\b", source, flags=re.M):
        return None
    folded = cell["metadata"].get("jupyter", {})
    hidden = folded.get("source_hidden", False), folded.get("outputs_hidden", False) and bool(cell["outputs"])
    tags = {(True, True): ["hide-cell"], (True, False): ["hide-input"], (False, True): ["hide-output"]}
    cell["metadata"] = {"tags": tags.get(hidden, [])}
    if words := [alternative for output in cell["outputs"] if (alternative := alt_text(output))]:
        cell["metadata"]["mystnb"] = {"image": {"alt": words[0]}}
    cell["source"] = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    cell["outputs"] = [strip_widgets(output) for output in cell["outputs"]]
    return cell


def explorer_cells(cell: dict, frames: Path, path: Path) -> list[dict]:
    """What a page shows below a cell with an explorer: stored frames with sliders, folded if they give an answer."""
    names = re.findall(r"^(explore_\w+)\(", text(cell), flags=re.M) if cell["cell_type"] == "code" else []
    up, made = "../" * (len(path.relative_to(ROOT).parts) - 1), []
    for name in names:
        if (frames / name).exists():
            html = frames_html(frames, name, up)
            if {"hide-output", "hide-cell"} & set(cell["metadata"]["tags"]):
                html = f"<details><summary>The explorer</summary>{html}</details>"
            made.append(markdown(name.replace("_", "-"), html))
    if made:  # the frames are shown instead of the stored picture
        cell["outputs"] = [o for o in cell["outputs"] if "image/png" not in o.get("data", {})]
    return made


def alt_text(output: dict) -> str | None:
    """The words beside a stored picture."""
    data = output.get("data", {})
    if not any(kind.startswith("image/") for kind in data):
        return None
    return " ".join("".join(data.get("text/plain", "Figure.")).split())


def strip_widgets(output: dict) -> dict:
    """Drop a widget's state: it is dead on a page."""
    output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
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


def title_of(path: Path) -> str:
    """The title of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next(text(cell) for cell in cells if cell["cell_type"] == "markdown").splitlines()[0].lstrip("# ")


def toctree(caption: str, pages: list[str]) -> str:
    """One hidden table of contents."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


# --- API ---


def modules() -> list[str]:
    """The modules with a public name, in the order of the layers, from the lowest up."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    names = [name.strip() for layer in reversed(layers) for name in re.split("[|:]", layer)]
    found = []
    for name in names:
        path = ROOT / Path(*name.split("."))
        files = sorted(path.glob("**/*.py")) if path.is_dir() else [path.with_suffix(".py")]
        found += [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    skipped = (".teach.", ".commands", ".lab.", "_modidx", "__init__")
    kept = [name for name in dict.fromkeys(found) if not any(part in name for part in skipped)]
    return [name for name in kept if getattr(import_module(name), "__all__", None)]


def write_api(folder: Path) -> None:
    """Write a page for each module, and the index of them."""
    folder.mkdir()
    rows = []
    for name in modules():
        summary = (import_module(name).__doc__ or "").strip().splitlines()[0]
        short = name.removeprefix("dit_nb.")
        rows.append(f"- [`{short}`]({name}.md): {summary}")
        body = f"# {short}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"
        (folder / f"{name}.md").write_text(body)
    listing = toctree("Modules", modules())
    intro = "The public names, module by module: first what needs nothing else, last what is built on all."
    (folder / "index.md").write_text(f"# API\n\n{intro}\n\n" + "\n".join(rows) + f"\n\n{listing}\n")


# --- The gallery, and how to cite ---


def write_gallery(target: Path, pages: list[Path], source: Path) -> None:
    """Write a page with the stored picture of every explorer, and a link to its lesson."""
    lines = [
        "# Explorers",
        "",
        "Nearly every lesson has one. In Jupyter they are live; here are their first pictures.",
        "",
    ]
    for path in pages:
        for k, (title, picture, words) in enumerate(explorers_of(path)):
            file = Path("gallery") / f"{path.stem}_{k}.png"
            (source / file).parent.mkdir(exist_ok=True)
            (source / file).write_bytes(b64decode(picture))
            link = path.relative_to(ROOT).as_posix()
            lines += [
                f"## {title}",
                "",
                f"[{title_of(path)}]({link})",
                "",
                f"![{words}]({file.as_posix()})",
                "",
            ]
    target.write_text("\n".join(lines))


def explorers_of(path: Path) -> list[tuple[str, str, str]]:
    """Title, picture (base64) and words of each explorer in a notebook."""
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        shown = ["".join(o.get("data", {}).get("text/markdown", "")) for o in cell.get("outputs", [])]
        titles = [s.splitlines()[0].removeprefix("Explore: ") for s in shown if s.startswith("Explore: ")]
        pictures = [o["data"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for title, data in zip(titles, pictures):
            found.append((title, "".join(data["image/png"]), " ".join("".join(data["text/plain"]).split())))
    return found


def write_citation(target: Path) -> None:
    """Write how to cite the course, from CITATION.cff."""
    import yaml

    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = facts["references"][0]
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    own = {"title": facts["title"], "author": facts["authors"][0]["name"], "version": str(facts["version"])}
    own |= {"license": facts["license"], "url": "https://github.com/dit-nb/dit_nb"}
    entries = [bibtex("software", "dit_nb", own)]
    theirs = {"title": paper["title"], "author": names, "year": str(paper["year"]), "url": paper["url"]}
    entries.append(bibtex("article", "peebles2023dit", theirs))
    blocks = "\n\n".join(f"```bibtex\n{entry}\n```" for entry in entries)
    target.write_text(f"# Citation\n\nThe course and package, and the paper that it teaches:\n\n{blocks}\n")


def bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    """One BibTeX entry."""
    return f"@{kind}{{{key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


# --- Files beside the pages ---


def write_extra(folder: Path, pages: list[Path]) -> None:
    """Write what is served as it is: the live model, and the list of pages for language models."""
    from dit_nb.interop.export import export_browser
    from dit_nb.pretrained import digit_model

    shutil.copytree(SITE / "live", folder / "live", ignore=shutil.ignore_patterns("*.mjs"))
    export_browser(*digit_model(), folder / "live" / "digits.bin")
    shutil.copy(SITE / "static" / "favicon.svg", folder)
    (folder / "llms.txt").write_text(llms(pages), encoding="utf-8")
    (folder / "robots.txt").write_text(f"Sitemap: {BASE}sitemap.xml\n")


def llms(pages: list[Path]) -> str:
    """A list of all pages in plain text, as llmstxt.org describes it."""
    lines = [
        "# dit_nb",
        "",
        "> Learn, teach and use Diffusion Transformers: notebooks that are a library.",
        "",
    ]
    for folder, title in CHAPTERS.items():
        own = [path for path in pages if path.parent.name == folder]
        lines += [f"## {title}", ""] if own else []
        for path in own:
            first = json.loads(path.read_text(encoding="utf-8"))["cells"]
            head = next(text(cell) for cell in first if cell["cell_type"] == "markdown").splitlines()
            about = next((line.strip("*> ") for line in head[1:] if line.strip()), "")
            lines.append(
                f"- [{head[0].lstrip('# ')}]({BASE}{path.relative_to(ROOT).with_suffix('.html')}): {about}"
            )
        lines += [""] if own else []
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=ROOT / "_site", type=Path)
    parser.add_argument("--explorers", nargs="*", default=list(CONTROLS), choices=list(CONTROLS))
    given = parser.parse_args()
    sys.exit(main(given.folder.resolve(), given.explorers))
