"""What a teacher should know of a submission's code: calls that were not given, and code too alike."""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

from dit_nb.teach.classroom.notebooks import _exercise, _is_solution, _marks

__all__ = []

_PACKAGE = "dit_nb"
_LOOKS = {
    "_getframe",
    "currentframe",
    "f_back",
    "f_locals",
    "f_globals",
    "get_referrers",
    "get_objects",
    "__code__",
}
_LOOKS |= {"__closure__", "__globals__", "display_trap", "_take_result", "_results"}
_CALLS = {
    "get_ipython",
    "exec",
    "eval",
    "__import__",
    "import_module",
    "use_or_fallback",
    "reference_solution",
}
_CALLS |= {"all_exercises"}
_MODULES = {"inspect", "gc", "ctypes", "importlib", "builtins"}
_PIP = re.compile(
    r"^\s*[%!]\s*(?:\S*python\S* -m )?(?:pip3?|conda|mamba|uv pip)\s+install\s+(.*)$", re.MULTILINE
)
_COMMAND = re.compile(
    r"^\s*(!|%%(?:bash|sh|script|system|writefile)|%(?:system|sx|run|load)\b)", re.MULTILINE
)
_MIN_NODES = 40  # of a syntax tree: shorter ones are alike by chance
_COMMON = 3  # students: a tree that more of them have is a common answer


def _code_remarks(nb: dict, release: dict) -> list[str]:
    """Return remarks on the student's code cells in a repaired notebook."""
    given = _imports(cell["source"] for cell in release["cells"] if cell["cell_type"] == "code")
    own = [cell["source"] for cell in _students_cells(nb, release)]
    imported = sorted(_imports(own) - given)
    looks = sorted({name for source in own for name in _looks(source)})
    packages = sorted({word for source in own for word in _installs(source)})
    commands = any(_COMMAND.search(source) and not _PIP.match(source) for source in own)
    named = {
        "imports from dit_nb what was not given": imported,
        "looks outside its own code": looks,
        "installs packages, which grading does not": packages,
        "runs commands of the system": ["! or %%"] if commands else [],
    }
    return [f"{words}: {', '.join(names)[:150]}" for words, names in named.items() if names]


def _students_cells(nb: dict, release: dict) -> list[dict]:
    stubs = {_marks(c).get("grade_id"): c["source"].strip() for c in release["cells"] if _is_solution(c)}
    given = {c["source"].strip() for c in release["cells"] if not _marks(c)}
    cells = [c for c in nb["cells"] if c["cell_type"] == "code" and (_is_solution(c) or not _marks(c))]
    return [c for c in cells if c["source"].strip() not in {*given, stubs.get(_marks(c).get("grade_id"))}]


def _tree(source: str) -> ast.Module | None:
    """Return the syntax tree of a cell, without lines that are IPython's; None if it has an error."""
    lines = [re.sub(r"^(\s*)[%!?].*", r"\1pass", line) for line in source.split("\n")]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(sources: Iterable[str]) -> set[str]:
    """Return what cells import from this package: dit_nb.patchify.patchify."""
    found = set()
    for node in (node for source in sources if (tree := _tree(source)) for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _PACKAGE:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith(f"{_PACKAGE}.")}
    return found


def _looks(source: str) -> set[str]:
    """Return names in a cell with which code leaves its own function."""
    found = set()
    for node in ast.walk(_tree(source) or ast.Module([], [])):
        if isinstance(node, ast.Attribute) and (node.attr in _LOOKS or node.attr == "modules"):
            found.add(f"{ast.unparse(node.value)[:30]}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found |= (
                {name}
                if name in _CALLS and not ast.unparse(node.func).endswith((".eval", ".compile"))
                else set()
            )
        elif isinstance(node, ast.Name) and node.id in _LOOKS:
            found.add(node.id)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in _MODULES}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module for _ in [0] if (node.module or "").split(".")[0] in _MODULES}
    return found


def _installs(source: str) -> set[str]:
    words = [word.strip("\"'") for line in _PIP.findall(source) for word in line.split()]
    return {
        word for word in words if not word.startswith("-") and not word.startswith(_PACKAGE) and word != "@"
    }


def _without_pip(source: str) -> str:
    """Return a cell in which nothing is installed: grading uses what is there."""
    return _PIP.sub(lambda m: re.sub(r"[%!].*", "pass", m[0]), source)


def _syntax_remark(nb: dict, version: str, ours: str) -> str:
    """Say that code which this Python cannot read was written with a newer one; empty if there is none."""
    if not re.match(r"3\.\d+", version) or _minor(version) <= _minor(ours):
        return ""
    codes = [c["source"] for c in nb["cells"] if c["cell_type"] == "code" and not _marks(c).get("locked")]
    if all(_tree(source) is not None for source in codes):
        return ""
    return f"written with Python {version}, graded with {ours}, which cannot read some of its code"


def _minor(version: str) -> int:
    return int(version.split(".")[1])


class _Normalize(ast.NodeTransformer):
    """Give names by their order, and drop docstrings, annotations and decorators."""

    def __init__(self):
        self.names: dict[str, str] = {}

    def _name(self, name: str) -> str:
        return self.names.setdefault(name, f"v{len(self.names)}")

    def visit_Name(self, node):
        return ast.Name(self._name(node.id), node.ctx)

    def visit_arg(self, node):
        return ast.arg(self._name(node.arg))

    def visit_FunctionDef(self, node):
        node.returns, node.decorator_list, node.name = None, [], "f"
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)


def _tree_sums(nb: dict) -> dict[str, str]:
    """Return exercise -> checksum of the normalized syntax tree of its code, if it is long enough to compare."""
    found = {}
    for cell in nb["cells"]:
        if not _is_solution(cell) or cell["cell_type"] != "code":
            continue
        tree = _tree(cell["source"])
        if tree is not None:
            normal = _Normalize().visit(tree)
            if len(list(ast.walk(normal))) >= _MIN_NODES:
                found[_exercise(cell)] = hashlib.sha256(ast.dump(normal).encode()).hexdigest()[:16]
    return found


def _alike(trees: dict[str, dict[str, str]], known: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Return pairs of students with equal code in exercises where few have it, the most alike first.

    Args:
        trees: student -> exercise -> normalized tree, or a checksum of it
        known: exercise -> that of our solution
    """
    having = defaultdict(list)
    for student, own in trees.items():
        for exercise, tree in own.items():
            if tree != known.get(exercise):
                having[exercise, tree].append(student)
    shared = defaultdict(list)
    for (exercise, _), students in having.items():
        if 2 <= len(students) <= max(_COMMON, len(trees) // 50):
            for pair in combinations(sorted(students), 2):
                shared[pair].append(exercise)
    pairs = [(*pair, exercises) for pair, exercises in shared.items()]
    return sorted(pairs, key=lambda pair: (-len(pair[2]), pair))
