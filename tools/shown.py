"""Keep the code that notebooks show with `show_source` equal to the package's, without running them.

A change of a function changes the output of every cell that shows it. `tools/fold.py` writes the present code there.
"""

import ast
import re
import textwrap
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALL = re.compile(r"^(?:#\|.*\n)*show_source\(([\w.,\s]+)\)\s*$")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def parse(module: str) -> tuple[list[str], ast.Module] | None:
    """Lines and syntax tree of a module of the package; None if there is no such file."""
    folder = ROOT.joinpath(*module.split("."))
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            return text.splitlines(), ast.parse(text)
    return None


def imported(tree: ast.AST, module: str = "") -> dict[str, str]:
    """Module that each imported name comes from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {name.asname or name.name: source for name in node.names}
    return found


def source_of(module: str, name: str) -> str | None:
    """Source of a function, class or method, followed through imports; None if it is not found."""
    if (parsed := parse(module)) is None:
        return None
    lines, node = parsed
    for part in name.split("."):
        inside = [child for child in node.body if isinstance(child, DEFINITIONS) and child.name == part]
        if not inside:
            origin = imported(node, module).get(part) if isinstance(node, ast.Module) else None
            return source_of(origin, name) if origin and origin != module else None
        node = inside[-1]
    first = min(line.lineno for line in (node, *node.decorator_list))
    return textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))


def origins(cells: list[dict]) -> dict[str, str]:
    """Module of each name that a notebook imports from the package; "" has the module that it exports."""
    found = {}
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "import" in text:
            with suppress(SyntaxError):  # a magic
                found |= imported(ast.parse(text))
        if match := re.match(r"#\| default_exp (\S+)", text):
            found[""] = f"dit_nb.{match[1]}"
    return found


def refresh(cells: list[dict]) -> None:
    """Write the present source into the output of each cell that shows it."""
    modules = origins(cells)
    for cell in cells:
        call = CALL.match("".join(cell["source"])) if cell["cell_type"] == "code" else None
        if call and len(cell["outputs"]) == 1:
            names = [name.strip() for name in call[1].split(",") if name.strip()]
            found = [source_of(modules.get(n.split(".")[0], modules.get("", "")), n) for n in names]
            if all(found):
                text = "```python\n" + "\n\n\n".join(filter(None, found)) + "\n```"
                cell["outputs"][0]["data"]["text/markdown"] = text.splitlines(keepends=True)
