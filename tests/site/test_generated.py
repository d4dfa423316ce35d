"""Parts of the website without a build: words of pictures, the API, links in code, citation, frames."""

import json
from importlib import import_module
from pathlib import Path

import pytest

import build
import fold
import links
import reference
from frames import CONTROLS, write_frames
from generated import alt_text, explorers_of, llms, year

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("nbs/[1-5g]*/*.ipynb"))


def picture(text: str, **metadata) -> dict:
    """An output with a picture, as a notebook stores it."""
    return {"data": {"image/png": "iVBO", "text/plain": [text]}, "metadata": metadata}


def test_the_words_of_a_picture_are_those_of_its_metadata():
    assert (
        alt_text(picture("a figure", **{"image/png": {"alt": "A digit\nin noise."}})) == "A digit in noise."
    )
    assert alt_text(picture("A digit.")) == "A digit."
    assert alt_text({"data": {"text/plain": "3"}, "metadata": {}}) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_stored_picture_has_words(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    words = [alt_text(output) for cell in cells for output in cell.get("outputs", [])]
    words += [own for _, _, own in explorers_of(path)]
    assert all(len(own.split()) > 2 for own in words if own is not None)  # "a figure" is no description


def test_every_module_with_public_names_has_its_place():
    pages = [
        *reference.core_modules(),
        *(name for page in reference.GROUPS for name in reference.in_group(page)),
    ]
    assert sorted(pages) == sorted(reference.modules()) and len(pages) == len(set(pages)) > 100
    files = [path for path in (ROOT / "dit_nb").rglob("*.py") if not path.name.startswith("_")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert {name for name in names if getattr(import_module(name), "__all__", None)} == set(pages)


def test_lower_layers_are_listed_first():
    listed = reference.core_modules()
    order = [
        listed.index(f"dit_nb.{name}") for name in ("errors", "patchify", "model", "pretrained", "training")
    ]
    assert order == sorted(order) and listed[0] == "dit_nb.errors" and listed[-1] == "dit_nb.cli"


def test_a_constant_is_listed_with_value_and_comment():
    page = reference.entries("dit_nb.since.targets")
    assert (
        ".. py:data:: TARGETS\n   :value: ('noise', 'image', 'velocity')\n\n   What a network can predict."
        in page
    )
    assert "to_velocity" not in page  # a function is listed by its docstring


def test_api_pages_are_written_and_listed(tmp_path):
    reference.write_api(tmp_path / "api")
    written = {path.stem for path in (tmp_path / "api").glob("*.md")} - {"index"}
    assert written == {page for page, _, _ in reference.listed_pages()}
    index = (tmp_path / "api" / "index.md").read_text()
    assert all(f"({page}.md)" in index for page in written)
    assert "automodule:: dit_nb.teach.graders.patchify" in (tmp_path / "api" / "checks.md").read_text()


def test_the_list_for_language_models_has_all_kinds_of_pages():
    listed = llms(NOTEBOOKS)
    for page in ("api/index", "api/dit_nb.model", "api/checks", "gallery", "citation", "live/index"):
        assert f"/{page}.html)" in listed


def test_the_year_is_that_of_the_release_or_of_the_copyright():
    assert year({"date-released": "2031-05-06"}) == "2031"
    assert 2026 <= int(year({})) < 2100


# --- Links ---


def test_imported_names_are_those_of_the_package():
    source = "%matplotlib inline\nfrom math import pi\nfrom dit_nb.model import BLOCKS as kinds, DiT\n"
    notebook = {
        "cells": [{"cell_type": "code", "source": source}, {"cell_type": "markdown", "source": "# ("}]
    }
    assert links.imported_names(notebook) == {"DiT": "dit_nb.model.DiT", "kinds": "dit_nb.model.BLOCKS"}


def test_exported_names_are_the_entries_of_the_lessons_module():
    objects = ["dit_nb.model", "dit_nb.model.DiT", "dit_nb.model.DiT.forward", "dit_nb.model_card.write"]
    assert links.exported_names("dit_nb.model", objects) == {"DiT": "dit_nb.model.DiT"}
    assert links.exported_names(None, objects) == {}


@pytest.mark.parametrize(
    "name, module", [("1_tokens/03_patchify", "dit_nb.patchify"), ("guides/speed", None)]
)
def test_a_page_keeps_the_module_of_its_lesson(name, module):
    notebook = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert build.page_metadata(notebook).get("module") == module


def test_uses_in_code_become_links_but_attributes_and_keywords_do_not():
    use, dot = '<span class="n">patchify</span>', '<span class="o">.</span>'
    linked = links.link_code(f'{use} <span class="n">other</span>', {"patchify": "api.html#patchify"})
    assert linked == f'<a class="name" href="api.html#patchify">{use}</a> <span class="n">other</span>'
    for code in (f"{dot}{use}", f'{use}<span class="o">=</span>'):
        assert links.link_code(code, {"patchify": "api.html#patchify"}) == code


@pytest.mark.parametrize(
    "short, entries, chosen",
    [
        ("patchify", {"dit_nb.patchify", "dit_nb.patchify.patchify"}, "dit_nb.patchify.patchify"),
        ("grade", {"dit_nb.teach.graders.framework.core.grade"}, None),  # a word
        (
            "Report",
            {"dit_nb.teach.graders.framework.report.Report"},
            "dit_nb.teach.graders.framework.report.Report",
        ),
        (
            "plot_denoising",
            {"dit_nb.visual.plot_denoising", "dit_nb.teach.explore.x.plot_denoising"},
            "dit_nb.visual.plot_denoising",
        ),
        (
            "sample_latents",
            {"dit_nb.latents.sample_latents", "dit_nb.x.Data.sample_latents"},
            "dit_nb.latents.sample_latents",
        ),
        ("Step", {"dit_nb.sampling.Step", "dit_nb.since.flow.Step"}, None),
    ],
)
def test_a_short_name_leads_to_one_entry_or_nowhere(short, entries, chosen):
    modules, members = {"dit_nb.patchify"}, {"dit_nb.x.Data.sample_latents"}
    assert links.choose(short, entries, modules, members) == chosen


# --- Frames ---


@pytest.mark.parametrize(
    "source, names",
    [
        ("explore_block()", ["explore_block"]),
        ("#| answer\nviewer = explore_denoising()\nviewer", ["explore_denoising"]),
        ("from dit_nb.teach.explore.block import explore_block", []),
        ("def explore_own() -> Explorer:\n    return explore_block()", []),
    ],
)
def test_the_explorers_that_a_cell_shows_are_found(source, names):
    assert build.shown_explorers(source) == names


def test_every_explorer_of_a_notebook_has_frames():
    cells = [cell for path in NOTEBOOKS for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    shown = [build.shown_explorers("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    assert set(CONTROLS) == set().union(*shown)


def explorer_cell() -> dict:
    """A cell with an explorer, run and stored."""
    words = {"data": {"text/markdown": ["Explore: blocks\n", "\n", "1. *Move.* It moves."]}}
    return {"cell_type": "code", "source": "viewer = explore_block()", "outputs": [words, {"data": {}}]}


def test_the_words_of_an_explorer_lead_to_its_sliders_once():
    cell = explorer_cell()
    for _ in range(2):
        fold.link_sliders([cell, {"cell_type": "markdown", "source": "explore_block()"}], "nbs/page.html")
    words = "".join(cell["outputs"][0]["data"]["text/markdown"])
    assert words.endswith("](https://dit-nb.github.io/dit_nb/nbs/page.html#explore_block).")
    assert words.count("Without a kernel") == 1


def test_on_the_website_no_words_lead_to_the_website():
    linked = explorer_cell()
    fold.link_sliders([linked], "nbs/page.html")
    shown = build.strip_output(linked["outputs"][0])["data"]["text/markdown"]
    assert shown == "".join(explorer_cell()["outputs"][0]["data"]["text/markdown"])


def test_the_range_of_pixels_has_frames(tmp_path, monkeypatch):
    monkeypatch.setitem(CONTROLS, "explore_range", {**CONTROLS["explore_range"], "t": [0, 999]})
    write_frames(tmp_path, ["explore_range"])
    facts = json.loads((tmp_path / "explore_range" / "frames.json").read_text())
    assert [len(control["texts"]) for control in facts["controls"]] == [2, 3, 2]
    assert len(list((tmp_path / "explore_range").glob("*.webp"))) == 12
    shown = [words.partition("histograms")[2] for words in facts["words"]]
    assert shown[0] != shown[2]  # the range is drawn
