"""Settings of Sphinx for the website of dit_nb. `build.py` prepares the pages and runs it."""

import re

from links import index_names, link_names, link_page_code

project, author, copyright = "dit_nb", "the dit_nb authors", "2026, the dit_nb authors"
REPOSITORY = "https://github.com/dit-nb/dit_nb"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_sitemap",
]
exclude_patterns = ["static", "live"]

# Notebooks: as they are stored, never executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
nb_mime_priority_overrides = [
    ("html", "text/html", None)
]  # widgets are dead on a page: their pictures are shown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]

# The API: docstrings in Google's style, in the order of the source.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False

# Formulas without a network: KaTeX from static/katex.
html_math_renderer = "katex"
html_js_files = ["katex/katex.min.js", "math.js", "frames.js"]

html_theme = "sphinx_book_theme"
html_title = "dit_nb"
html_baseurl = "https://dit-nb.github.io/dit_nb/"
html_static_path = ["static"]
html_extra_path = ["extra"]
html_css_files = ["katex/katex.min.css", "site.css"]
html_favicon = "static/favicon.svg"
html_copy_source = True
html_show_sphinx = False
sitemap_url_scheme = "{link}"
html_theme_options = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "path_to_docs": "",
    "use_repository_button": True,
    "use_edit_page_button": True,
    "use_issues_button": False,
    "use_download_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com", "notebook_interface": "jupyterlab"},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_sidenotes": False,
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True


def _choose_buttons(app, pagename, templatename, context, doctree) -> None:
    "Keep the buttons that lead somewhere: download and edit for a notebook, Colab if it has the cell for it."
    stored = context.get("page_source_suffix") == ".ipynb"
    colab = "colab" in app.env.metadata.get(pagename, {})
    gone = set() if stored else {"download-source-button", "source-edit-button"}
    gone |= set() if colab else {"launch-buttons"}
    for button in context.get("header_buttons", ()):
        if "buttons" in button:
            button["buttons"] = [part for part in button["buttons"] if part.get("label") not in gone]
    context["header_buttons"] = [b for b in context.get("header_buttons", ()) if b.get("label") not in gone]


def _describe(app, pagename, templatename, context, doctree) -> None:
    "Tell other sites how to show a link to a page."
    from html import escape

    facts = {
        "og:title": re.sub("<.*?>", "", context.get("title") or project),
        "og:description": _first_words(doctree) or "Learn, teach and use Diffusion Transformers.",
        "og:image": f"{html_baseurl}card.png",
        "og:url": f"{html_baseurl}{pagename}.html",
    }
    facts |= {"og:type": "article", "og:site_name": project, "twitter:card": "summary_large_image"}
    tags = [f'<meta property="{name}" content="{escape(value)}">\n' for name, value in facts.items()]
    tags.append(f'<meta name="description" content="{escape(facts["og:description"])}">\n')
    context["metatags"] = context.get("metatags", "") + "".join(tags)


def _first_words(doctree) -> str:
    "The first paragraph of a page, cut at a word."
    from textwrap import shorten

    from docutils import nodes

    paragraphs = (paragraph.astext() for paragraph in doctree.findall(nodes.paragraph)) if doctree else ()
    return shorten(next(filter(None, paragraphs), ""), 200, placeholder=" ...")


def _write_formula(tag: str):
    "Make the functions that write a formula as it is, for math.js."
    from html import escape

    from docutils import nodes

    def visit(writer, node) -> None:
        writer.body.append(f'<{tag} class="math notranslate">{escape(node.astext())}</{tag}>')
        raise nodes.SkipNode

    return visit, None


def setup(app) -> None:
    """Connect the links from names to their entries, and the formulas."""
    app.add_html_math_renderer("katex", _write_formula("span"), _write_formula("div"))
    app.connect("env-updated", index_names)
    app.connect("doctree-resolved", link_names)
    app.connect("html-page-context", link_page_code)
    app.connect("html-page-context", _describe)
    app.connect("html-page-context", _choose_buttons, priority=600)  # after the theme has made them
