"""What a student's code takes from this package that was not given, and how it looks outside of itself."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = []

_PACKAGE = "dit_nb"
_MAIN = "__main__"
_FOLDER = Path(__file__).resolve().parents[2]
_LOOKS = set(  # attributes and functions that lead to frames, to other modules, or into functions
    "_getframe currentframe _current_frames walk_stack walk_tb settrace setprofile addaudithook call_tracing "
    "f_back f_locals f_globals f_builtins f_code tb_frame gi_frame cr_frame ag_frame get_referrers get_objects "
    "__code__ __closure__ __globals__ __builtins__ __defaults__ __kwdefaults__ __subclasses__ __loader__ "
    "FunctionType CodeType meta_path path_hooks display_trap _take_result _results _replaced_names".split()
)
_CALLS = set(
    "get_ipython exec eval __import__ import_module use_or_fallback reference_solution all_exercises".split()
)
_METHODS = {"exec", "eval"}  # also names of harmless methods and settings
_MODULES = set("inspect gc ctypes importlib builtins runpy pkgutil".split())
_OF_SYS = {"modules", "monitoring", "*"}
_HARMLESS = {"print", "help", "type", "dir"}  # functions that may be given a module
_NAMED = re.compile(rf"\b{_PACKAGE}(?:\.\w+)+(?::[\w.]+)?")  # a part of this package in a text
_MAX_DEPTH = 100  # of a syntax tree: deeper ones are read as text

_RUNS = (
    r"%{1,2}(?:time|timeit|prun|memit|mprun)\b(?:[ \t]+-\w+(?:[ \t]+\d+)?)*[ \t]*"  # magics that run Python
)
_IPYTHON = [  # lines that are IPython's -> what is left of them
    (re.compile(rf"^(\s*(?:[\w., ]+=\s*)?){_RUNS}(\S.*)"), r"\1\2"),
    (re.compile(r"^(\s*)(?:[%!?].*|[\w.]+\?{1,2}\s*$)"), r"\1pass"),
    (re.compile(r"^(\s*[\w., ]+=\s*)[%!].*"), r"\1None"),
]


def _tree(source: str | bytes) -> ast.Module | None:
    """Return the syntax tree of a cell, without what is IPython's, or of a file; None if it cannot be read."""
    versions = [source]
    if isinstance(source, str):
        versions.append("\n".join(map(_python, source.split("\n"))))
    for version in versions:
        try:
            tree = ast.parse(version)
        except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
            continue
        return None if _is_deep(tree) else tree
    return None


def _python(line: str) -> str:
    for pattern, left in _IPYTHON:
        line = pattern.sub(left, line)
    return line


def _is_deep(tree: ast.AST) -> bool:
    """Whether a syntax tree has more levels than functions that call themselves can follow."""
    level = [tree]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


def _reached(trees: Iterable[ast.Module], given: dict[str, str] | None = None) -> set[str]:
    """Return what code imports from this package, or reaches by attributes: dit_nb.patchify.patchify.

    Args:
        trees: syntax trees of cells that share their names, or of one file
        given: names that are known to them -> what they stand for
    """
    trees = list(trees)
    names = _bound(trees, given)
    found = {path for tree in trees for path in _paths(tree, names)}
    found = {f"{path}.*" if path == _PACKAGE else path for path in found}  # the package as a value
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif (text := _text(node)) and _NAMED.fullmatch(text):
            found.add(text.replace(":", "."))
    return {path for path in found if path.split(".")[0] == _PACKAGE} - {f"{_PACKAGE}.__version__"}


def _not_given(found: set[str], given: set[str]) -> list[str]:
    """Return what was not given, and is no method of what was."""
    objects = [f"{path}." for path in given if not _is_module(path)]
    return sorted(path for path in found - given if not path.startswith(tuple(objects)))


def _is_module(path: str) -> bool:
    """Whether a dotted path is a module of this package."""
    if not re.fullmatch(rf"{_PACKAGE}(\.\w{{1,60}}){{0,8}}", path):
        return False
    place = _FOLDER.joinpath(*path.split(".")[1:])
    return place.is_dir() or place.with_suffix(".py").is_file()


def _looks(tree: ast.Module, given: dict[str, str] | None = None) -> set[str]:
    """Return names with which code leaves its own functions."""
    found = {part for path in _paths(tree, _bound([tree], given)) if (part := _part_of_sys(path))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in (_LOOKS | _CALLS | _MODULES) - _METHODS:
            found.add(f"{ast.unparse(node.value)[:30]}.{node.attr}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _LOOKS | _CALLS:
            found.add(node.id)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in _MODULES}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= _looks_of_import(node)
        elif (text := _text(node)) in (_LOOKS | _CALLS) - _METHODS:
            found.add(text)
    return found


def _words(source: str) -> tuple[set[str], set[str]]:
    """Return what `_reached` and `_looks` would, for code that cannot be read: by its words."""
    return {*_NAMED.findall(source)}, {*re.findall(r"\w+", source)} & (_LOOKS | _CALLS) - _METHODS


def _part_of_sys(path: str) -> str:
    """Return the part of a path that is the module sys as a value, or leads from it to others; empty if none."""
    found = re.match(rf"(?:.*\.)?sys(?:\.(?:{'|'.join(map(re.escape, _OF_SYS))}))?(?=\.|$)", path)
    return found[0] if found and (found[0] == path or not found[0].endswith("sys")) else ""


def _looks_of_import(node: ast.ImportFrom) -> set[str]:
    module = node.module or ""
    if module.split(".")[0] in _MODULES:
        return {module}
    if module.split(".")[0] == _PACKAGE:  # told anyway
        return set()
    names = {alias.name for alias in node.names}
    return {f"{module}.{name}" for name in names if name in _LOOKS | _CALLS | _MODULES} | {
        f"{module}.{name}" for name in names if module == "sys" and name in _OF_SYS
    }


def _bound(trees: Iterable[ast.Module], given: dict[str, str] | None = None) -> dict[str, str]:
    """Return what the names of some code stand for, if they are imported or repeat what is: np -> numpy."""
    names, pairs = dict(given or {}), []
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif isinstance(node, ast.ImportFrom) and node.module == _MAIN:
            pairs += [(alias.asname or alias.name, ast.Name(alias.name, ast.Load())) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        else:
            pairs += _assigned(node)
    for _ in range(4):  # a name for a name for a name
        names |= {name: path for name, value in pairs if (path := _path(value, names))}
    return names | {f".{name}": names[name] for name in _attributes(trees) & names.keys()}


def _attributes(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names that classes give to values and imports, so that they are attributes."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for part in (part for statement in node.body for part in ast.walk(statement)):
            if isinstance(part, ast.Import | ast.ImportFrom):
                found |= {alias.asname or alias.name.split(".")[0] for alias in part.names}
            found |= {name for name, _ in _assigned(part)}
    return found


def _assigned(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return the names that a statement gives to values, with the values."""
    if isinstance(node, ast.Assign):
        return [pair for target in node.targets for pair in _target_pairs(target, node.value)]
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        return _target_pairs(node.target, node.value)
    return []


def _target_pairs(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        return [pair for each in zip(target.elts, value.elts) for pair in _target_pairs(*each)]
    return [(target.id, value)] if isinstance(target, ast.Name) else []


def _paths(tree: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """Yield the dotted paths of all that code uses of imported modules; not of modules that only get a name."""
    stack = [tree]
    while stack:
        node = stack.pop()
        path = _path(node, names)
        if path and not (isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)):
            yield path
            continue
        named = [value for _, value in _assigned(node)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _HARMLESS:
            named += node.args
        skipped = [
            value for value in named if _is_module(_path(value, names)) or _path(value, names) == "sys"
        ]
        stack += [child for child in _children(node) if child not in skipped]


def _children(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a node; those of a tuple that is assigned instead of the tuple."""
    found = []
    for child in ast.iter_child_nodes(node):
        pair = isinstance(node, ast.Assign) and isinstance(child, ast.Tuple | ast.List)
        found += child.elts if pair else [child]
    return found


def _path(node: ast.AST | None, names: dict[str, str]) -> str:
    """Return what an expression stands for, such as dit_nb.patchify.patchify; empty if it is not known."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.NamedExpr):
        return _path(node.value, names)
    if isinstance(node, ast.Attribute):
        start, last = _path(node.value, names), node.attr
        if not start or start == _MAIN:
            return names.get(last if start else f".{last}", "")
    elif isinstance(node, ast.Subscript) or _is_get(node):
        return _item(node, names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
        got = node.func.id == "getattr"
        start, last = (_path(node.args[0], names), _text(node.args[1])) if got else ("", "")
    elif isinstance(node, ast.Call) and node.args:
        loads = getattr(node.func, "id", getattr(node.func, "attr", "")) in ("import_module", "__import__")
        return _text(node.args[0]) if loads else ""
    else:
        return ""
    return f"{start}.{last}" if start and last else ""


def _is_get(node: ast.AST) -> bool:
    """Whether an expression is a call like `globals().get('x')`."""
    known = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and bool(node.args)
    return known and node.func.attr in ("get", "pop", "setdefault", "__getitem__")


def _item(node: ast.AST, names: dict[str, str]) -> str:
    """Return what an item of `globals()` or of another dictionary stands for; empty if it is not known."""
    place, key = (node.func.value, node.args[0]) if isinstance(node, ast.Call) else (node.value, node.slice)
    path = names.get(_text(key), "")
    call = place.func if isinstance(place, ast.Call) else None
    of_names = isinstance(call, ast.Name) and call.id in ("globals", "locals", "vars")
    return path if of_names or path == _PACKAGE else ""


def _text(node: ast.AST) -> str:
    """Return a string that stands in the code, perhaps as a sum of strings; empty if it is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return left + right if left and right else ""
    return ""
