"""Given cells that take no names from students: whatever they import or assign begins with an underscore."""

import ast
import re
from collections.abc import Iterator

from dit_nb.errors import UserError

__all__ = []


def _made_private(cells: list[dict], exercises: list[str]) -> list[dict]:
    """Rename what the given cells of an assignment define, so that students may use all other names.

    Args:
        cells: cells of the assignment, with their role in the metadata
        exercises: names that stay as they are: the functions that students write

    Raises:
        UserError: if a given cell is not Python
    """
    given = [c for c in cells if c["cell_type"] == "code" and _role(c) == "given"]
    taken = {name for cell in given for name in _defined(_parsed(cell["source"]))}
    renamed = {name: f"_{name}" for name in taken - {*exercises} if not name.startswith("_")}
    return [{**c, "source": _renamed(c["source"], renamed)} if c in given else c for c in cells]


def _role(cell: dict) -> str | None:
    return cell["metadata"].get("dit_nb", {}).get("role")


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(_python(source))
    except (SyntaxError, ValueError) as error:
        start = source.strip().split("\n")[0][:40]
        raise UserError(f"the given cell {start!r} is not Python ({type(error).__name__}).") from None


def _python(source: str) -> str:
    """Return a cell with its magics as comments, in a statement that may stand alone in a block."""
    return re.sub(r"^(\s*)[%!](?=\S)", r"\1pass  #", source, flags=re.MULTILINE)


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a cell defines: those that are assigned, and what comes from dit_nb or the library."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dit_nb":
            yield from (alias.asname or alias.name for alias in node.names)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            yield from (
                n.id
                for n in _outside_functions(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            )


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement that are in no function or comprehension, which have names of their own."""
    scopes = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, scopes):
            yield from _outside_functions(child)


def _own_names(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    """Return the arguments of a function, and the names that it assigns."""
    a = function.args
    names = {arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if arg}
    body = function.body if isinstance(function.body, list) else [function.body]
    stored = [n for part in body for n in _outside_functions(part) if isinstance(n, ast.Name)]
    return names | {n.id for n in stored if isinstance(n.ctx, ast.Store)}


def _places(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    """Yield (line, column in bytes, name) of every use of some names, but not of a function's own ones."""
    if isinstance(node, ast.Name) and node.id in names:
        yield node.lineno, node.col_offset, node.id
    elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
        word = "class " if isinstance(node, ast.ClassDef) else "def "
        yield node.lineno, node.col_offset + len(word), node.name
    inside = names
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        inside = {k: v for k, v in names.items() if k not in _own_names(node)}
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        own = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        inside = {k: v for k, v in names.items() if k not in own}
    for child in ast.iter_child_nodes(node):
        yield from _places(child, inside)


def _renamed(source: str, names: dict[str, str]) -> str:
    """Return a cell with some names replaced; an imported name becomes `name as _name`, on a line of its own."""
    tree, lines = _parsed(source), source.encode().split(b"\n")
    imports = [
        n for n in tree.body if isinstance(n, ast.ImportFrom) and any(a.name in names for a in n.names)
    ]
    inside = {line for n in imports for line in range(n.lineno, (n.end_lineno or 0) + 1)}
    for line, column, name in sorted(set(_places(tree, names)), reverse=True):
        if line not in inside:
            text = lines[line - 1]
            lines[line - 1] = text[:column] + names[name].encode() + text[column + len(name.encode()) :]
    for node in reversed(imports):
        lines[node.lineno - 1 : node.end_lineno] = _import_lines(node, names)
    return b"\n".join(lines).decode()


def _import_lines(node: ast.ImportFrom, names: dict[str, str]) -> list[bytes]:
    parts = [f"{a.name} as {names[a.name]}" if a.name in names else a.name for a in node.names]
    line = f"from {node.module} import "
    whole = [line + ", ".join(parts)] if len(parts) == 1 else [f"{line}(", *(f"    {p}," for p in parts), ")"]
    return [text.encode() for text in whole]
