"""The API pages of the website: one for each module of the package, and one for each group around it."""

import ast
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {  # page -> its title, what it holds, and where its modules are
    "checks": (
        "Checks",
        "The check of each exercise, and what checks are made with.",
        ("dit_nb.teach.graders.",),
    ),
    "explorers": (
        "Explorers",
        "The explorer of each lesson, and what explorers are made with.",
        ("dit_nb.teach.explore.", "dit_nb.teach.overview"),
    ),
    "classroom": ("Classroom", "Assignments: build, check and grade them.", ("dit_nb.teach.classroom.",)),
    "lab": (
        "Studies and benchmarks",
        "Budgets, benchmarks, and studies with their tables.",
        ("dit_nb.lab.",),
    ),
    "commands": ("Commands", "Functions behind the command line.", ("dit_nb.commands.",)),
}
SHORT = 90  # characters of a constant's value that a page still shows


def layers() -> list[str]:
    """Modules and packages in the order of the layers in pyproject.toml, from the lowest up."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^layers = (\[.*?^\])", settings, flags=re.S | re.M)[1]  # Python 3.10 has no tomllib
    return [name.strip() for layer in reversed(ast.literal_eval(listed)) for name in re.split("[|:]", layer)]


def modules() -> list[str]:
    """The modules with a public name, in the order of the layers."""
    files = sorted((ROOT / "dit_nb").glob("**/*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    names = [name for name in names if not name.endswith(("__init__", "_modidx"))]
    order = layers()

    def height(name: str) -> int:
        own = [k for k, layer in enumerate(order) if f"{name}.".startswith(f"{layer}.")]
        return own[0] if own else len(order)

    return [name for name in sorted(names, key=height) if getattr(import_module(name), "__all__", None)]


def in_group(page: str) -> list[str]:
    """The modules of a page that holds several."""
    return [name for name in modules() if name.startswith(GROUPS[page][2])]


def core_modules() -> list[str]:
    """The modules that have a page of their own."""
    around = tuple(prefix for _, _, prefixes in GROUPS.values() for prefix in prefixes)
    return [name for name in modules() if not name.startswith(around)]


def listed_pages() -> list[tuple[str, str, str]]:
    """File name without its ending, title and summary of every API page."""
    core = [(name, name.removeprefix("dit_nb."), summary(name)) for name in core_modules()]
    return core + [(page, title, about) for page, (title, about, _) in GROUPS.items()]


def summary(name: str) -> str:
    """First line of a module's docstring."""
    return (import_module(name).__doc__ or "").strip().splitlines()[0]


def write_api(folder: Path) -> None:
    """Write the pages, and the index of them."""
    folder.mkdir(parents=True)
    for name in core_modules():
        (folder / f"{name}.md").write_text(f"# {name.removeprefix('dit_nb.')}\n\n{entries(name)}")
    for page, (title, about, prefixes) in GROUPS.items():
        parts = [f"## {name.removeprefix(prefixes[0])}\n\n{entries(name)}" for name in in_group(page)]
        (folder / f"{page}.md").write_text(f"# {title}\n\n{about}\n\n" + "\n".join(parts))
    (folder / "index.md").write_text(index())


def index() -> str:
    """The page that lists all pages."""
    pages = listed_pages()
    rows = [
        f"- [{title}]({page}.md): {about}" if page in GROUPS else f"- [`{title}`]({page}.md): {about}"
        for page, title, about in pages
    ]
    intro = "The public names, module by module: first what needs nothing else, last what is built on all."
    parts = ["# API", intro, "\n".join(rows[: -len(GROUPS)])]
    parts += ["## For teachers and explorers", "\n".join(rows[-len(GROUPS) :])]
    listing = "\n".join(page for page, _, _ in pages)
    return "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n:caption: Modules\n\n{listing}\n```"]) + "\n"


def entries(name: str) -> str:
    """All that a page says of a module: functions and classes by their docstrings, then the constants."""
    module = import_module(name)
    lines = [f".. automodule:: {name}", "", f".. py:currentmodule:: {name}", ""]
    for constant in constants(module):
        lines += [f".. py:data:: {constant}"]
        value = getattr(module, constant)
        if isinstance(value, str | int | tuple | list | dict) and len(repr(value)) <= SHORT:
            lines += [f"   :value: {value!r}"]
        lines += ["", f"   {comment_of(module, constant)}", ""]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"


def constants(module: ModuleType) -> list[str]:
    """Public names of a module that are neither functions nor classes."""
    return [name for name in module.__all__ if not callable(getattr(module, name))]


def comment_of(module: ModuleType, name: str) -> str:
    """The comment beside a constant, as a sentence, or nothing."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    found = re.search(rf"^(?:\w+, )*{name}\b[^=\n]*=.*?#\s*(.*)$", source, flags=re.M)
    return f"{found[1][0].upper()}{found[1][1:].rstrip('.:')}." if found else ""
