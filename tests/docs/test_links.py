"""Links in notebooks and in markdown files lead to files and sections that exist."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [*sorted((ROOT / "nbs").glob("*/*.ipynb")), ROOT / "index.ipynb"]
PAGES = [*NOTEBOOKS, *sorted(ROOT.glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
OURS = re.compile(r"https://(?:github\.com|raw\.githubusercontent\.com)/dit-nb/dit_nb/(?:blob/)?main/")


def prose(path: Path) -> str:
    """The text of a page, without code blocks."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Section names, as Jupyter ("Section-name") and as GitHub ("section-name") write them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    jupyter = {title.replace(" ", "-") for title in titles}
    github = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
    return jupyter | github


def broken(path: Path) -> list[str]:
    """Links of a page to files or sections of this repository that do not exist."""
    missing = []
    for link in LINK.findall(prose(path)):
        local = OURS.sub("", link)
        base = ROOT if local != link else path.parent
        if re.match(r"[a-z]+:", local):
            continue
        name, _, anchor = unquote(local).partition("#")
        target = (base / name).resolve() if name else path
        if not target.exists() or (
            anchor and target.suffix in (".ipynb", ".md") and anchor not in anchors(target)
        ):
            missing.append(link)
    return missing


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert broken(path) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](page.md#one) [d](other.md) [e](https://example.org)")
    assert broken(page) == ["#two", "other.md"]


def test_every_lesson_and_guide_is_in_the_readme():
    linked = {OURS.sub("", link) for link in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    pages = [*(ROOT / "nbs").glob("[0-9]*/*.ipynb"), *(ROOT / "nbs/guides").glob("*.ipynb")]
    assert {str(p.relative_to(ROOT)) for p in pages} <= linked


def test_readme_links_are_absolute():
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not re.match(r"https?:|#", link)] == []
