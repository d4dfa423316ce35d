"""What `help()` shows: a docstring for every public name, and an Args section for every function of the API."""

import ast
import inspect
from pathlib import Path

import pytest

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.training import TrainConfig
from support import public_names

PACKAGE = Path(__file__).resolve().parents[2] / "dit_nb"
MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "_modidx.py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


LIBRARY = [
    p for p in MODULES if not name_of(p).startswith(("teach", "commands"))
]  # the rest: Jupyter and shell


def is_setter(node: ast.FunctionDef) -> bool:
    """Whether it is the second half of a property, whose docstring is that of the first."""
    return any(ast.unparse(one).endswith((".setter", ".deleter")) for one in node.decorator_list)


def public_nodes(tree: ast.Module) -> dict[str, ast.AST]:
    """Functions, classes and methods whose names have no leading underscore, by `name` or `class.method`."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
            found[node.name] = node
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, ast.FunctionDef) and method.name[0] != "_" and not is_setter(method):
                    found[f"{node.name}.{method.name}"] = method
    return found


def required_arguments(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments that have no default, but for self and cls."""
    args = function.args
    places = [arg.arg for arg in args.posonlyargs + args.args]
    needed = places[: len(places) - len(args.defaults)]
    needed += [arg.arg for arg, default in zip(args.kwonlyargs, args.kw_defaults) if default is None]
    return [name for name in needed if name not in ("self", "cls")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no module docstring"
    nodes = public_nodes(tree)
    assert [name for name, node in nodes.items() if not (ast.get_docstring(node) or "").strip()] == []


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_functions_of_the_api_describe_their_arguments(path):
    """With two or more required arguments: an Args section, or each named in the text. Methods, too."""
    names, silent = public_names(path), []
    for name, node in public_nodes(ast.parse(path.read_text())).items():
        if isinstance(node, ast.FunctionDef) and name.split(".")[0] in names:
            needed, text = required_arguments(node), ast.get_docstring(node) or ""
            if len(needed) > 1 and "Args:" not in text and not all(f"`{arg}`" in text for arg in needed):
                silent.append(name)
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_all_names_exist_and_are_public(path):
    names, tree = public_names(path), ast.parse(path.read_text())
    assert [name for name in names if name.startswith("_")] == [] and len(set(names)) == len(names)
    if path.name != "__init__.py":  # which may import its names when they are asked for
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.alias | ast.stmt)]
        known = {
            getattr(node, "asname", None) or getattr(node, "name", getattr(node, "id", None))
            for node in nodes
        }
        assert set(names) - known == set()


def test_help_of_the_most_used_names():
    for text in (inspect.getdoc(DiT.forward), inspect.getdoc(Diffusion.training_losses)):
        assert "Args:" in text and "(N, C, H, W)" in text
    for settings in (DiTConfig, TrainConfig):
        text = inspect.getdoc(settings)
        assert all(name in text for name in settings.__dataclass_fields__)
