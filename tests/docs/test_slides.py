"""Slides of lessons: few words, the lesson's figures, and no exercises or answers."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from slides import WORDS, short, slides, write  # noqa: E402

LESSONS = sorted((ROOT / "nbs").glob("[1-4]_*/*.ipynb"))


def kind(cell):
    return cell["metadata"]["slideshow"]["slide_type"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_slides_of_every_lesson(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    cells = slides(nb)["cells"]
    assert kind(cells[0]) == "slide" and sum(kind(c) == "slide" for c in cells) >= 5
    hidden = [c for c in cells if kind(c) == "notes" or "hide-input" in c["metadata"].get("tags", ())]
    shown = "\n".join("".join(c["source"]) for c in cells if c not in hidden)
    assert "<details>" not in shown and "<!-- exercise" not in shown and not re.search(r"\bcheck_", shown)
    pictures = sum("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", []))
    assert pictures >= 1


def test_a_long_text_becomes_its_first_sentences():
    text = "One is said. Two is not.\n\n$$a = b$$\n\n- a list\n- of two\n\n<details>Answer</details>\n\nThree is said. Four is not."
    assert short(text) == "One is said.\n\n$$a = b$$\n\n- a list\n- of two\n\nThree is said."
    many = "\n\n".join(["A sentence of six words here."] * 20)
    assert len(short(many).split()) <= WORDS


def test_the_file_is_html_with_slides_and_notes(tmp_path):
    file = write(ROOT / "nbs" / "1_tokens" / "03_patchify.ipynb", tmp_path)
    page = file.read_text(encoding="utf-8")
    assert file.name == "03_patchify.slides.html" and page.count("<section>") > 20
    assert '<aside class="notes">' in page and "data:image/png" in page
    assert not re.search(r"_plot_patchify\(digit", re.sub("<[^>]+>", "", page)), "code of figures is hidden"
