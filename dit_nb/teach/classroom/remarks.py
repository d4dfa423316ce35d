"""What a teacher should know of a submission's code: calls that were not given, and code too alike."""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from itertools import combinations
from math import prod
from pathlib import Path

from dit_nb.teach.classroom.calls import _bound, _looks, _not_given, _reached, _tree, _words
from dit_nb.teach.classroom.notebooks import _exercise, _is_solution, _marks

__all__ = []

_PACKAGE = "dit_nb"
_PIP = re.compile(
    r"^\s*[%!]\s*(?:\S*python\S* -m )?(?:pip3?|conda|mamba|uv pip)\s+install\s+(.*)$", re.MULTILINE
)
_COMMAND = re.compile(
    r"^\s*(!|%%(?:bash|sh|script|system|writefile)|%(?:system|sx|run|load)\b)", re.MULTILINE
)
_MIN_NODES = 40  # of a syntax tree: shorter ones are alike by chance
_COMMON = 3  # students: a tree that more of them have is a common answer
_SEVERAL = 3  # exercises: equal code in so many is told, however many students have it
_BY_CHANCE = 0.5  # students who would have the same code if exercises were solved independently
_MAX_BYTES = 1_000_000  # of a Python file that is read
_COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".pth", ".egg", ".whl", ".pyz")  # Python can load these


def _code_remarks(nb: dict, release: dict, files: Iterable[Path] = ()) -> list[str]:
    """Return remarks on the student's code: cells in a repaired notebook, and files beside it."""
    given = [
        tree
        for c in release["cells"]
        if c["cell_type"] == "code" and (tree := _tree(c["source"])) is not None
    ]
    allowed = _reached(given)
    own = [cell["source"] for cell in _students_cells(nb, release)]
    found, looks = _told(own, _bound(given), {*allowed, _PACKAGE})
    for path in _python_files(files):
        more = _told([path.read_bytes()], {}, allowed - {_PACKAGE})
        found, looks = found + _in_file(more[0], path), looks + _in_file(more[1], path)
    packages = sorted({word for source in own for word in _installs(source)})
    commands = any(_COMMAND.search(source) and not _PIP.match(source) for source in own)
    named = {
        "takes from dit_nb what was not given": found,
        "looks outside its own code": looks,
        "installs packages, which grading does not": packages,
        "runs commands of the system": ["! or %%"] if commands else [],
        "has code that cannot be read": sorted(path.name for path in files if _is_unreadable(path)),
    }
    return [f"{words}: {', '.join(names)[:150]}" for words, names in named.items() if names]


def _python_files(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix == ".py" and not _is_unreadable(path)]


def _is_unreadable(path: Path) -> bool:
    """Whether Python may load a file that this module cannot read."""
    return path.suffix.lower() in _COMPILED or path.suffix == ".py" and path.stat().st_size > _MAX_BYTES


def _told(
    sources: Iterable[str | bytes], names: dict[str, str], allowed: set[str]
) -> tuple[list[str], list[str]]:
    """Return what code takes from this package that was not given, and where it looks outside of itself.

    Args:
        sources: texts that share their names
        names: names that are known to them -> what they stand for
        allowed: what was given
    """
    trees = [(source, _tree(source)) for source in sources]
    read = [tree for _, tree in trees if tree is not None]
    found, names = _reached(read, names), _bound(read, names)
    looks = {look for tree in read for look in _looks(tree, names)}
    for source in [source for source, tree in trees if tree is None]:
        by_word = _words(source if isinstance(source, str) else source.decode(errors="replace"))
        found, looks = found | by_word[0], looks | by_word[1]
    return _not_given(found, allowed), sorted(looks)


def _in_file(names: list[str], path: Path) -> list[str]:
    return [f"{name} ({path.name})" for name in names]


def _students_cells(nb: dict, release: dict) -> list[dict]:
    stubs = {_marks(c).get("grade_id"): c["source"].strip() for c in release["cells"] if _is_solution(c)}
    given = {c["source"].strip() for c in release["cells"] if not _marks(c)}
    cells = [c for c in nb["cells"] if c["cell_type"] == "code" and (_is_solution(c) or not _marks(c))]
    return [c for c in cells if c["source"].strip() not in {*given, stubs.get(_marks(c).get("grade_id"))}]


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

    def visit_ClassDef(self, node):
        node.name = self._name(node.name)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.returns, node.decorator_list, node.name = None, [], "f"
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)


def _tree_sums(nb: dict, files: Iterable[Path] = ()) -> dict[str, str]:
    """Return exercise -> checksum of the normalized syntax tree of its code, if it is long enough to compare.

    The code is the function of that name and all that it calls, wherever the student has written them: in its
    cell, in an own cell, or in a file beside the notebook.

    Args:
        nb: notebook, repaired
        files: files beside it
    """
    cells = [c for c in nb["cells"] if c["cell_type"] == "code" and not _marks(c).get("locked")]
    known = _definitions(
        [*(path.read_bytes() for path in _python_files(files)), *(c["source"] for c in cells)]
    )
    solved, found = {_exercise(cell): cell["source"] for cell in cells if _is_solution(cell)}, {}
    for exercise, source in solved.items():
        own = known | _definitions([source])
        code = _code_of(exercise, own, {*solved} - {exercise}) or _statements(source)
        normal = _Normalize().visit(ast.Module(deepcopy(code), []))
        if len(list(ast.walk(normal))) >= _MIN_NODES:
            found[exercise] = hashlib.sha256(ast.dump(normal).encode()).hexdigest()[:16]
    return found


def _statements(source: str) -> list[ast.stmt]:
    """Return the statements of a cell without imports; none if it cannot be read."""
    tree = _tree(source) or ast.Module([], [])
    return [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]


def _definitions(sources: Iterable[str | bytes]) -> dict[str, ast.stmt | str]:
    """Return functions and classes: name -> the statement that defines it, or another name; the last one counts."""
    found: dict[str, ast.stmt | str] = {}
    for node in (node for source in sources if (tree := _tree(source)) for node in tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
            other = getattr(node.value, "attr", getattr(node.value, "id", target.id))
            if isinstance(node.value, ast.Lambda):
                found[target.id] = node
            elif other != target.id:
                found[target.id] = other
    return found


def _code_of(name: str, known: dict[str, ast.stmt | str], others: set[str]) -> list[ast.stmt]:
    """Return the statement that defines a function, then those that define what it calls, without others."""
    code, names, seen = [], [name], {*others}
    while names:
        name = names.pop(0)
        node = None if name in seen else known.get(name)
        seen.add(name)
        if isinstance(node, str):
            names.insert(0, node)
        elif node is not None:
            code.append(node)
            used = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)]
            names += [part.id if isinstance(part, ast.Name) else part.attr for part in used]
    return code


def _alike(trees: dict[str, dict[str, str]], known: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Return pairs of students with equal code, the most alike first.

    Equal code counts in exercises where few have it. Pairs with equal code in several exercises count in any
    case, unless each code is so common that others would agree as often by chance.

    Args:
        trees: student -> exercise -> normalized tree, or a checksum of it
        known: exercise -> that of our solution
    """
    having = defaultdict(list)
    for student, own in trees.items():
        for exercise, tree in own.items():
            if tree != known.get(exercise):
                having[exercise, tree].append(student)
    shared: dict[tuple, dict[str, int]] = defaultdict(dict)  # pair -> exercise -> students with this code
    for (exercise, _), students in having.items():
        for pair in combinations(sorted(students), 2):
            shared[pair][exercise] = len(students)
    told = {pair: _telling(counts, len(trees)) for pair, counts in shared.items()}
    pairs = [(*pair, exercises) for pair, exercises in told.items() if exercises]
    return sorted(pairs, key=lambda pair: (-len(pair[2]), pair))


def _telling(counts: dict[str, int], students: int) -> list[str]:
    """Return the exercises in which equal code says something.

    Args:
        counts: exercise -> number of students with this code
        students: number of all students
    """
    by_chance = (students - 1) * prod((count - 1) / (students - 1) for count in counts.values())
    if len(counts) >= _SEVERAL and by_chance < _BY_CHANCE:
        return [*counts]
    return [exercise for exercise, count in counts.items() if count <= max(_COMMON, students // 50)]
