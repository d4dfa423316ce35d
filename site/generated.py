"""What no notebook holds, but for the API: gallery, citation, live model, card, list of pages."""

import json
import re
import shutil
from base64 import b64decode
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reference import ROOT, listed_pages

SITE = ROOT / "site"
EMOJI = ROOT / "dit_nb" / "models" / "few_step_emoji"  # the few-step model; without it, no second tab
BASE = "https://dit-nb.github.io/dit_nb/"
CHAPTERS = {
    "1_tokens": "Tokens",
    "2_transformer": "The transformer",
    "3_diffusion": "Diffusion",
    "4_practice": "Practice",
    "5_since_dit": "Since DiT",
    "guides": "Guides",
}
MORE = [
    ("live/index.html", "A DiT in the page", "the digit model of the lessons, in plain JavaScript"),
    ("gallery.html", "Explorers", "a picture of each"),
    ("citation.html", "Citation", "BibTeX of the course and of the paper"),
]


def text(cell: dict) -> str:
    """Source of a cell."""
    return "".join(cell["source"])


def title_of(path: Path) -> str:
    """The title of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next(text(cell) for cell in cells if cell["cell_type"] == "markdown").splitlines()[0].lstrip("# ")


def toctree(caption: str, pages: list[str]) -> str:
    """One hidden table of contents."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


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
                f"## {title[0].upper()}{title[1:]}",
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
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for title, output in zip(titles, pictures):
            found.append((title, "".join(output["data"]["image/png"]), alt_text(output)))
    return found


def alt_text(output: dict) -> str | None:
    """The words beside a stored picture, or None if there is no picture.

    They are in the metadata: the text of a folded output is "a figure", since JupyterLab shows it.
    """
    data = output.get("data", {})
    kind = next((kind for kind in data if kind.startswith("image/")), None)
    if kind is None:
        return None
    words = output.get("metadata", {}).get(kind, {}).get("alt") or data.get("text/plain", "")
    return " ".join("".join(words).split())


def write_citation(target: Path) -> None:
    """Write how to cite the course, from CITATION.cff."""
    import yaml

    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = facts["references"][0]
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    own = {"title": facts["title"], "author": facts["authors"][0]["name"], "version": str(facts["version"])}
    own |= {"license": facts["license"], "url": "https://github.com/dit-nb/dit_nb"}
    own["year"] = year(facts)
    entries = [bibtex("software", "dit_nb", own)]
    theirs = {"title": paper["title"], "author": names, "year": str(paper["year"]), "url": paper["url"]}
    entries.append(bibtex("article", "peebles2023dit", theirs))
    blocks = "\n\n".join(f"```bibtex\n{entry}\n```" for entry in entries)
    target.write_text(f"# Citation\n\nThe course and package, and the paper that it teaches:\n\n{blocks}\n")


def year(facts: dict) -> str:
    """The year of the release in CITATION.cff; before the first release, the copyright's in settings.ini."""
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    date = facts.get("date-released") or re.search(r"^copyright = (.*)", settings, flags=re.M)[1]
    return str(date)[:4]


def bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    """One BibTeX entry."""
    return f"@{kind}{{{key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


# --- Files beside the pages ---


def write_extra(folder: Path, pages: list[Path]) -> None:
    """Write what is served as it is: the live model, and the list of pages for language models."""
    write_live(folder / "live")
    shutil.copy(SITE / "static" / "favicon.svg", folder)
    write_card(folder / "card.png")
    (folder / "llms.txt").write_text(llms(pages), encoding="utf-8")
    (folder / "robots.txt").write_text(f"Sitemap: {BASE}sitemap.xml\n")


def write_live(folder: Path, emoji: Path = EMOJI) -> None:
    """Write the page with the live models: digits, and emoji if the folder `emoji` holds a MeanFlow model."""
    from dit_nb.interop.export import _export_browser
    from dit_nb.pretrained import digit_model, load_model

    shutil.copytree(SITE / "live", folder, ignore=shutil.ignore_patterns("*.mjs"))
    _export_browser(*digit_model("cpu"), folder / "digits.bin")
    if emoji.exists():
        model, sampling = load_model(emoji, device="cpu")
        _export_browser(model, sampling, folder / "emoji.bin")
        page = (folder / "index.html").read_text(encoding="utf-8")
        named = page.replace('data-emoji=""', f'data-emoji="{" ".join(sampling.class_names)}"')
        (folder / "index.html").write_text(named, encoding="utf-8")


def llms(pages: list[Path]) -> str:
    """A list of all pages in plain text, as llmstxt.org describes it."""
    about = "Learn, teach and use Diffusion Transformers: notebooks that are a library."
    parts = ["# dit_nb", f"> {about}"]
    for folder, title in CHAPTERS.items():
        own = [listed(path) for path in pages if path.parent.name == folder]
        parts += [f"## {title}", "\n".join(own)] if own else []
    api = [f"- [{title}]({BASE}api/{page}.html): {about}" for page, title, about in listed_pages()]
    parts += ["## API", "\n".join([f"- [All modules]({BASE}api/index.html): what each of them holds", *api])]
    parts += ["## More", "\n".join(f"- [{title}]({BASE}{page}): {about}" for page, title, about in MORE)]
    return "\n\n".join(parts) + "\n"


def listed(path: Path) -> str:
    """The entry of a notebook: title, address, and the first words below the title."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    head = next(text(cell) for cell in cells if cell["cell_type"] == "markdown").splitlines()
    about = next((line.strip("*> ") for line in head[1:] if line.strip()), "")
    return f"- [{head[0].lstrip('# ')}]({BASE}{path.relative_to(ROOT).with_suffix('.html')}): {about}"


def write_card(target: Path) -> None:
    """Draw the picture that links to the site show, 1200 x 630: three moments of the moving picture, and the name."""
    card = Image.new("RGB", (1200, 630), "white")
    draw = ImageDraw.Draw(card)
    draw.text((60, 50), "dit_nb", "#0072B2", ImageFont.load_default(110))
    draw.text((60, 185), "Learn, teach and use Diffusion Transformers", "#222222", ImageFont.load_default(44))
    with Image.open(ROOT / "nbs" / "images" / "denoising.gif") as film:
        for k, moment in enumerate((0, 4 * film.n_frames // 5, film.n_frames - 1)):
            film.seek(moment)
            rows = film.convert("RGB").crop((100, 18, film.width, 70))  # x_t alone
            card.paste(rows.resize((1080, round(1080 * rows.height / rows.width))), (60, 280 + 110 * k))
    card.save(target)
