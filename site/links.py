"""Links from names to their entries in the API: names in backticks, and names in the code of a notebook."""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path

AROUND = ("dit_nb.teach.", "dit_nb.lab.", "dit_nb.commands.", "dit_nb.cli.")  # around the package itself
COMMON = {"forward", "step", "shape", "name", "device", "n"}  # these mean many things
# a name in highlighted code that is neither an attribute nor a keyword of a call
CODE_NAME = re.compile(
    r'(?<!<span class="o">\.</span>)<span class="n">(\w+)</span>(?!<span class="o">=</span>)'
)


def index_names(app, env) -> None:
    """Collect the names of the API by their short forms; a form that two entries have leads nowhere."""
    objects = env.get_domain("py").objects
    modules = {full for full, entry in objects.items() if entry.objtype == "module"}
    kinds = ("attribute", "method", "property")
    members = {full for full, entry in objects.items() if entry.objtype in kinds}
    found: dict[str, set[str]] = {}
    for full in objects:
        parts = full.removeprefix("dit_nb.").split(".")
        plain = len(parts[-1]) < 7 or "_" not in parts[-1]  # alone, `x0` may be any x0, `save_every` may not
        for k in range(len(parts) - (full in members and plain)):
            found.setdefault(".".join(parts[k:]), set()).add(full)
    env.dit_nb_names = {}
    for short, entries in found.items():
        if chosen := choose(short, entries, modules, members):
            env.dit_nb_names[short] = chosen


def choose(short: str, entries: set[str], *weaker: set[str]) -> str | None:
    """The one entry that a short form means, if there is one."""
    for kind in weaker:  # patchify: the function rather than its module or a method
        entries = (entries - kind) or entries
    entries = {full for full in entries if not full.startswith(AROUND)} or entries
    if len(entries) != 1 or short in COMMON:
        return None
    (full,) = entries
    word = short.islower() and short.isalpha()  # `build`, `switch`: words rather than names of the classroom
    return None if word and full.startswith(AROUND) else full


def link_names(app, doctree, docname: str) -> None:
    """Turn a name in backticks that the API has, such as `Diffusion.respaced`, into a link to its entry."""
    from docutils import nodes
    from sphinx.util.nodes import make_refnode

    if docname.startswith("api/"):
        return
    objects = app.env.get_domain("py").objects
    own = {name: full for name, full in page_names(app, docname).items() if full in objects}
    known = app.env.dit_nb_names | own
    for literal in list(doctree.findall(nodes.literal)):
        name = re.sub(r"\(.*\)$", "", literal.astext()).removeprefix("dit_nb.")
        full = known.get(name)
        if full is None or isinstance(literal.parent, nodes.reference):
            continue
        entry = objects[full]
        link = make_refnode(app.builder, docname, entry.docname, entry.node_id, literal.deepcopy(), full)
        literal.replace_self(link)


def link_page_code(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Link the names that a notebook imports from the package or exports to it, wherever its code uses them."""
    objects, known = app.env.get_domain("py").objects, app.env.dit_nb_names
    addresses = {}
    for name, full in page_names(app, pagename).items():
        entry = objects.get(full) or objects.get(known.get(name, ""))
        if entry:
            uri = app.builder.get_relative_uri(pagename, entry.docname)
            addresses[name] = f"{uri}#{entry.node_id}"
    if addresses:
        context["body"] = link_code(context["body"], addresses)


def page_names(app, pagename: str) -> dict[str, str]:
    """Names that the notebook of a page imports from the package or exports to it; none if it has no notebook."""
    source = Path(app.env.doc2path(pagename))
    if source.suffix != ".ipynb" or not source.exists():  # the index and the search have no file
        return {}
    notebook = json.loads(source.read_text(encoding="utf-8"))
    exported = exported_names(notebook["metadata"].get("module"), app.env.get_domain("py").objects)
    return exported | imported_names(notebook)


def exported_names(module: str | None, objects: Iterable[str]) -> dict[str, str]:
    """Names of the API's entries that stand directly in a module, each with its full name."""
    split = [full.rpartition(".") for full in objects]
    return {name: f"{module}.{name}" for parent, _, name in split if parent == module}


def imported_names(notebook: dict) -> dict[str, str]:
    """Names that a notebook imports from the package, each with its full name."""
    found = {}
    for cell in notebook["cells"]:
        source = re.sub(r"^\s*[%!].*", "", "".join(cell["source"]), flags=re.M)  # magics are not Python
        try:
            parsed = ast.walk(ast.parse(source if cell["cell_type"] == "code" else ""))
        except SyntaxError:
            continue
        for node in parsed:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dit_nb":
                found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return found


def link_code(body: str, addresses: dict[str, str]) -> str:
    """Turn the names in highlighted code that have an address into links."""

    def link(match: re.Match) -> str:
        address = addresses.get(match[1])
        return f'<a class="name" href="{address}">{match[0]}</a>' if address else match[0]

    return CODE_NAME.sub(link, body)
