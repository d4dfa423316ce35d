"""Settings of Sphinx for the website of dit_nb. `build.py` prepares the pages and runs it."""

import re

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


def _link_names(app, doctree, docname) -> None:
    "Turn a name in backticks that the API has, such as `Diffusion.respaced`, into a link to its entry."
    from docutils import nodes
    from sphinx.util.nodes import make_refnode

    if docname.startswith("api/"):
        return
    objects = app.env.get_domain("py").objects
    known = app.env.dit_nb_names
    for literal in list(doctree.findall(nodes.literal)):
        name = re.sub(r"\(.*\)$", "", literal.astext()).removeprefix("dit_nb.")
        full = known.get(name)
        if full is None or isinstance(literal.parent, nodes.reference | nodes.title):
            continue
        entry = objects[full]
        link = make_refnode(app.builder, docname, entry.docname, entry.node_id, literal.deepcopy(), full)
        literal.replace_self(link)


def _index_names(app, env) -> None:
    "Collect the names of the API by their short forms; a form that two entries have leads nowhere."
    found: dict[str, set[str]] = {}
    for full, entry in env.get_domain("py").objects.items():
        parts = full.removeprefix("dit_nb.").split(".")
        member = entry.objtype in ("attribute", "method", "property")  # alone, `x0` may be any x0
        for k in range(len(parts) - member):
            found.setdefault(".".join(parts[k:]), set()).add(full)
    modules = {full for full, entry in env.get_domain("py").objects.items() if entry.objtype == "module"}
    common = {"forward", "step", "shape", "name", "device", "n"}  # these mean many things
    env.dit_nb_names = {}
    for short, entries in found.items():
        chosen = (entries - modules) or entries  # patchify: the function rather than its module
        if len(chosen) == 1 and short not in common:
            env.dit_nb_names[short] = chosen.pop()


def _describe(app, pagename, templatename, context, doctree) -> None:
    "Tell other sites how to show a link to a page."
    from html import escape

    title = escape(re.sub("<.*?>", "", context.get("title") or project), quote=True)
    facts = {
        "og:title": title,
        "og:image": f"{html_baseurl}card.png",
        "og:url": f"{html_baseurl}{pagename}.html",
    }
    facts |= {"og:type": "article", "og:site_name": project, "twitter:card": "summary_large_image"}
    tags = "".join(f'<meta property="{name}" content="{value}">\n' for name, value in facts.items())
    context["metatags"] = context.get("metatags", "") + tags


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
    app.connect("env-updated", lambda app, env: _index_names(app, env))
    app.connect("doctree-resolved", _link_names)
    app.connect("html-page-context", _describe)
