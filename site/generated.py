"""Pages and files of the website that no notebook holds: API, gallery, citation, live model, card, list of pages."""

import json
import re
import shutil
from base64 import b64decode
from importlib import import_module
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
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


# --- API ---


def modules() -> list[str]:
    """The modules with a public name, in the order of the layers, from the lowest up."""
    import tomllib

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
