"""What `help()` shows: a docstring for every public name, and an Args section for every function of the API."""

import ast
import inspect
from pathlib import Path

import pytest

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.training import TrainConfig

PACKAGE = Path(__file__).resolve().parents[2] / "dit_nb"
MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "_modidx.py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


LIBRARY = [
    p for p in MODULES if not name_of(p).startswith(("teach", "commands"))
]  # the rest: Jupyter and shell


def api(tree: ast.Module) -> list[str]:
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no module docstring"
    names = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name[0] != "_"]
    assert [n.name for n in names if not (ast.get_docstring(n) or "").strip()] == []


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_functions_of_the_api_describe_their_arguments(path):
    """With two or more required arguments: an Args section, or each named in the text."""
    tree = ast.parse(path.read_text())
    names, silent = api(tree), []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            needed = [a.arg for a in node.args.args[: len(node.args.args) - len(node.args.defaults)]]
            text = ast.get_docstring(node) or ""
            if len(needed) > 1 and "Args:" not in text and not all(f"`{name}`" in text for name in needed):
                silent.append(node.name)
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_all_names_exist_and_are_public(path):
    tree = ast.parse(path.read_text())
    assert [name for name in api(tree) if name.startswith("_")] == []


def test_help_of_the_most_used_names():
    for text in (inspect.getdoc(DiT.forward), inspect.getdoc(Diffusion.training_losses)):
        assert "Args:" in text and "(N, C, H, W)" in text
    for settings in (DiTConfig, TrainConfig):
        text = inspect.getdoc(settings)
        assert all(name in text for name in settings.__dataclass_fields__)
