"""The website: built without a warning, no dead link, words beside every picture, nothing from another host."""

import ast
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support_browser import chromium, serve, watched_page

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/dit-nb/dit_nb/"
pytestmark = [pytest.mark.xdist_group("site"), pytest.mark.slow]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The website, built as `make site` builds it."""
    for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
        pytest.importorskip(package)
    if built := os.environ.get("DIT_NB_SITE"):  # the folder of a website that is built already
        return Path(built) / "html"
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "site/build.py", str(out), "--explorers", "explore_patchify"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "WARNING" not in done.stderr, done.stderr[-3000:]
    return out / "html"


class Page(HTMLParser):
    """Links, anchors, pictures and loaded files of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids, self.pictures, self.loaded = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.update(filter(None, (given.get("id"), given.get("name") if tag == "a" else None)))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)
        style = tag == "link" and given.get("rel") in ("stylesheet", "icon")
        if tag in ("img", "script", "iframe") or style:
            self.loaded.append(given.get("src") or given.get("href") or "")


@pytest.fixture(scope="module")
def pages(html):
    return {path: Page(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts}


def is_external(address: str) -> bool:
    return bool(urlsplit(address).scheme or address.startswith("//"))


def test_every_lesson_and_guide_has_a_page(html, pages):
    for path in (ROOT / "nbs").glob("*/*.ipynb"):
        if path.parent.name != "assignments":
            assert html / path.relative_to(ROOT).with_suffix(".html") in pages


def test_no_link_is_dead(html, pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if is_external(link) or path.name in ("genindex.html", "search.html"):
                continue
            known = pages[target].ids if target in pages else set()
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in known
            ):
                dead.append(f"{path.relative_to(html)}: {link}")
    assert not dead, dead[:20]


@pytest.mark.parametrize("prefix", [f"{REPOSITORY}blob/main/", f"{REPOSITORY}edit/main/"])
def test_links_to_the_repository_lead_to_files(pages, prefix):
    targets = {
        link.removeprefix(prefix) for page in pages.values() for link in page.links if link.startswith(prefix)
    }
    gone = [target for target in targets if not (ROOT / urlsplit(target).path).exists()]
    assert targets and not gone, gone


def test_nothing_is_loaded_from_another_host(pages):
    for path, page in pages.items():
        assert not [
            address for address in page.loaded if is_external(address) and not address.startswith("data:")
        ], path


def test_every_picture_has_words(pages):
    for path, page in pages.items():
        for picture in page.pictures:
            words = picture.get("alt") or ""
            if "_static/" in picture["src"]:  # a button of Sphinx or of the theme
                assert words, (path, picture)
            else:  # "a figure" tells nothing
                assert len(words) > 12 and len(words.split()) > 2, (path, words)


def test_the_words_are_those_of_the_picture(pages, html):
    stored = json.loads((ROOT / "nbs/1_tokens/03_patchify.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", [])]
    words = {o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})}
    shown = {picture.get("alt") for picture in pages[html / "nbs/1_tokens/03_patchify.html"].pictures}
    assert len(words) > 3 and len(words - shown) <= 1  # the explorer's frames have their own


def test_downloads_are_the_notebooks_of_the_repository(pages, html):
    notebooks = [ROOT / "index.ipynb", *ROOT.glob("nbs/[1-5]_*/*.ipynb"), *ROOT.glob("nbs/guides/*.ipynb")]
    for path in notebooks:
        page = html / path.relative_to(ROOT).with_suffix(".html")
        (link,) = [link for link in pages[page].links if "_sources/" in link]
        assert (page.parent / link).resolve().read_bytes() == path.read_bytes(), path


def test_generated_pages_offer_neither_source_nor_edit(pages, html):
    generated = [html / "gallery.html", html / "citation.html", *html.glob("api/*.html")]
    for path in generated:
        assert not [link for link in pages[path].links if "_sources/" in link or "/edit/" in link], path


def test_colab_is_offered_where_the_notebook_installs_itself(pages, html):
    for path in [ROOT / "index.ipynb", *ROOT.glob("nbs/[1-5g]*/*.ipynb")]:
        links = pages[html / path.relative_to(ROOT).with_suffix(".html")].links
        offered = [link for link in links if "colab.research.google.com" in link]
        assert bool(offered) == ("google.colab" in path.read_text(encoding="utf-8")), path
        assert all(link.endswith(path.relative_to(ROOT).as_posix()) for link in offered), path


def test_pages_are_small(html, pages):
    for path, page in pages.items():
        files = {
            path.parent / unquote(picture["src"])
            for picture in page.pictures
            if not is_external(picture["src"])
        }
        assert path.stat().st_size + sum(file.stat().st_size for file in files) < 3_000_000, path


def test_names_in_lessons_lead_to_the_api(pages, html):
    lesson = pages[html / "nbs/3_diffusion/16_sampling.html"]
    wanted = {"ddim_sample": "sampling", "IdealDenoiser": "oracle"}
    for name, module in wanted.items():
        assert f"../../api/dit_nb.{module}.html#dit_nb.{module}.{name}" in lesson.links


def test_names_in_headings_and_imported_words_lead_to_the_api(html):
    wanted = {
        "nbs/3_diffusion/15_objective.html": (
            "Diffusion",
            "dit_nb.objective.html#dit_nb.objective.Diffusion",
        ),
        "nbs/guides/memory_and_time.html": ("advise", "lab.html#dit_nb.lab.budget.advise"),
    }
    for page, (name, address) in wanted.items():
        heading = re.search(rf"<h2>.*?>{name}<.*?</h2>", (html / page).read_text(encoding="utf-8"))
        assert f'href="../../api/{address}"' in heading[0], page


def test_names_in_code_lead_to_the_api(pages, html):
    page = html / "nbs/1_tokens/03_patchify.html"
    wanted = {
        "explore_patchify": "explorers.html#dit_nb.teach.explore.patchify.explore_patchify",
        "check_patchify": "checks.html#dit_nb.teach.graders.patchify.check_patchify",
    }
    for name, address in wanted.items():
        link = f'<a class="name" href="../../api/{address}"><span class="n">{name}</span></a>'
        assert link in page.read_text(encoding="utf-8") and f"../../api/{address}" in pages[page].links


@pytest.mark.parametrize(
    "page, address",
    [
        ("1_tokens/03_patchify", "dit_nb.patchify.html#dit_nb.patchify.patchify"),
        ("2_transformer/12_model", "dit_nb.model.html#dit_nb.model.DiT"),
        ("2_transformer/13_counting", "dit_nb.cost.html#dit_nb.cost.cost"),
        ("3_diffusion/18_guidance", "dit_nb.guidance.html#dit_nb.guidance.Guided"),
    ],
)
def test_names_that_a_lesson_exports_lead_to_the_api(html, page, address):
    name = address.rpartition(".")[2]
    link = f'<a class="name" href="../../api/{address}"><span class="n">{name}</span></a>'
    assert link in (html / "nbs" / f"{page}.html").read_text(encoding="utf-8")


def test_all_public_names_have_an_entry(pages, html):
    ids = set().union(*(pages[path].ids for path in html.glob("api/*.html")))
    files = [path for path in (ROOT / "dit_nb").rglob("*.py") if not path.name.startswith("_")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    public = {f"{name}.{entry}" for name, path in names.items() for entry in declared(path)}
    assert len(public) > 350 and not public - ids, sorted(public - ids)


def declared(path: Path) -> list[str]:
    """The names in a module's `__all__`, read from its source."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_answers_are_folded_and_hidden_cells_gone(html):
    page = (html / "nbs/3_diffusion/16_sampling.html").read_text(encoding="utf-8")
    assert "default_exp" not in page and "#| answer" not in page
    assert page.count("<details") > 10 and "<details open" not in page


def test_every_lesson_and_guide_states_its_minutes(html):
    pages = [path for path in html.glob("nbs/*/*.html") if path.parent.name != "assignments"]
    stated = {
        path.stem: re.search(r"Minutes</strong> \d+ to read", path.read_text("utf-8")) for path in pages
    }
    assert len(stated) > 45 and all(stated.values()), [page for page, found in stated.items() if not found]


def test_the_citation_stands_there(html):
    citation = re.sub("<.*?>", "", (html / "citation.html").read_text())
    assert "@software" in citation and len(re.findall(r"year = \{20\d\d\}", citation)) == 2


def test_pages_describe_themselves(pages):
    for path in [path for path in pages if path.parent.name != "live"]:
        found = re.search(r'property="og:description" content="(.+?)"', path.read_text(encoding="utf-8"))
        assert found and len(found[1]) > 10, path


def test_the_front_page_leads_to_the_live_model_at_once(html):
    text = (html / "index.html").read_text(encoding="utf-8")
    link = text.index('href="#a-dit-in-this-page"', text.index("<h1>"))
    assert link < text.index("<img", text.index("<h1>")) and 'id="a-dit-in-this-page"' in text


def test_the_list_for_language_models_names_every_page(html):
    text = (html / "llms.txt").read_text()
    named = re.findall(r"\(https://dit-nb.github.io/dit_nb/(.*?)\)", text)
    assert len(named) > 30 and all((html / name).exists() for name in named)
    assert {"live/index.html", "gallery.html", "citation.html", "api/checks.html"} <= set(named)
    assert {path.name for path in html.glob("api/*.html")} == {
        name[4:] for name in named if name[:4] == "api/"
    }


def test_the_search_finds_a_term(html):
    with chromium() as browser, serve(html) as base, watched_page(browser, base) as page:
        page.goto(base + "search.html?q=posterior+variance")
        page.wait_for_function('document.querySelectorAll("#search-results li").length > 0', timeout=60_000)
        assert "The noise schedule" in page.inner_text("#search-results")


# Pixels by which a displayed formula that fits is off the middle of its line.
OFF_CENTER = """Math.max(...[...document.querySelectorAll("div.math")].map((div) => {
  const line = div.getBoundingClientRect(), parts = [...div.querySelectorAll(".katex-html > .base")];
  if (!parts.length || div.querySelector(".newline")) return 0;
  const [first, last] = [parts[0].getBoundingClientRect(), parts.at(-1).getBoundingClientRect()];
  return last.right - first.left > line.width ? 0 : Math.abs(first.left + last.right - line.left - line.right) / 2;
}))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_pages_in_a_browser(html, size, scheme):
    view = {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": scheme}
    with chromium() as browser, serve(html) as base, watched_page(browser, base, **view) as page:
        for path in ("index.html", "nbs/3_diffusion/15_objective.html", "api/index.html"):
            page.goto(base + path)
            page.wait_for_load_state()
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path
            assert page.evaluate('document.querySelectorAll(".katex-error").length') == 0
        page.goto(base + "nbs/3_diffusion/15_objective.html")
        assert page.evaluate('document.querySelectorAll(".katex").length') > 50
        assert page.evaluate(OFF_CENTER) < 2


def test_the_front_page_is_alive(html):
    with chromium() as browser, serve(html) as base, watched_page(browser, base) as page:
        page.goto(base + "index.html")
        page.locator("iframe.live").scroll_into_view_if_needed()
        frame = page.frame_locator("iframe.live")
        frame.locator("#status", has_text="sampled in").wait_for(timeout=120_000)
        inside = 'document.querySelector("iframe.live").contentDocument.documentElement'
        assert page.evaluate(f"{inside}.scrollHeight - {inside}.clientHeight") <= 0  # nothing to scroll


def test_the_tour_holds_the_live_model(pages, html):
    page = html / "nbs/1_tokens/00_tour.html"
    assert 'class="live"' in page.read_text(encoding="utf-8")
    inside = [(page.parent / address).resolve() for address in pages[page].loaded if "live" in address]
    assert inside == [html / "live/index.html"] and inside[0] in pages


def test_the_site_map_names_the_lessons(html):
    assert "nbs/1_tokens/00_tour.html" in (html / "sitemap.xml").read_text()


def test_sliders_choose_among_stored_frames(html):
    with chromium() as browser, serve(html) as base, watched_page(browser, base) as page:
        page.goto(base + "nbs/1_tokens/03_patchify.html#explore_patchify")  # the link of the notebook
        box = page.locator(".frames")
        page.locator("details[open]", has=box).wait_for()  # it opens what is folded
        before = box.locator("img").get_attribute("src")
        box.locator("input").first.focus()
        page.keyboard.press("ArrowLeft")
        after = box.locator("img").get_attribute("src")
        assert after != before
        page.wait_for_function(
            f'[...document.images].some((i) => i.src.endsWith("{after.split("/")[-1]}") && i.naturalWidth > 300)'
        )


def test_every_explorer_of_the_package_has_frames():
    from dit_nb.teach.explore.core import _all_explorers
    from frames import CONTROLS

    assert set(_all_explorers()) == set(CONTROLS)
