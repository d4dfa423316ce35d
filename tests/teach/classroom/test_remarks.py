"""Remarks on code: calls that were not given, and code that is too alike."""

import nbformat
import pytest
from support_classroom import RIGHT, code, submitted

from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook
from dit_nb.teach.classroom.remarks import _alike, _code_remarks, _syntax_remark, _tree_sums, _without_pip

LONG = """def unpatchify(tokens, grid, patch_size):
    "Mine."
    n, t, w = tokens.shape
    p = patch_size
    c = w // (p * p)
    x = tokens.view(n, grid[0], grid[1], p, p, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(n, c, grid[0] * p, grid[1] * p)"""
RENAMED = LONG.replace("tokens", "z").replace('"Mine."', '"Other."').replace(" c ", " k ").replace("c,", "k,")
RENAMED = RENAMED.replace(", c)", ", k)").replace("n, c", "n, k")


@pytest.fixture(scope="module")
def release():
    return _release_notebook(source_notebook("a1"))


@pytest.mark.parametrize(
    "source, told",
    [
        (
            "from dit_nb.patchify import patchify",
            "imports from dit_nb what was not given: dit_nb.patchify.patchify",
        ),
        ("import dit_nb.teach.graders.framework.outcome as o", "imports from dit_nb what was not given"),
        ("import sys\nsys._getframe()", "looks outside its own code: sys._getframe"),
        ("get_ipython().display_trap.hook = None", "looks outside its own code: get_ipython"),
        ("patchify = use_or_fallback(None, check_patchify)", "looks outside its own code: use_or_fallback"),
        ("import inspect", "looks outside its own code: inspect"),
        ("%pip install pyjokes -q", "installs packages, which grading does not: pyjokes"),
        ("!ls ..", "runs commands of the system"),
        ("import torch, math\nfrom einops import repeat", ""),
        ("model.eval()\nx = torch.compile(f)\nprint(x)", ""),
        ("%pip install -q dit_nb", ""),
        ("def f(:", ""),
    ],
)
def test_calls_that_were_not_given(source, told, release):
    nb = submitted(release, RIGHT, {"patchify-check": [code(source)]})
    remarks = _code_remarks(nb, release)
    assert (len(remarks), "; ".join(remarks).startswith(told)) == ((1, True) if told else (0, True)), remarks


def test_the_release_itself_has_no_remarks(release):
    for name in ("a1", "a2", "a3", "a4", "a5"):
        nb = _release_notebook(source_notebook(name))
        assert _code_remarks(nb, nb) == []


def test_nothing_is_installed():
    assert _without_pip("if x:\n    %pip install -q y\nprint(1)") == "if x:\n    pass\nprint(1)"


def test_renamed_code_is_alike_and_common_code_is_not(release):
    def trees(source):
        return _tree_sums(submitted(release, {"unpatchify": source, "patchify": RIGHT["patchify"]}))

    own = LONG.replace("permute(0, 5, 1, 3, 2, 4)", "permute(0, 5, 3, 1, 2, 4)")
    found = {"ann": trees(LONG), "ben": trees(RENAMED), "cara": trees(own), "dan": trees("def unpatchify(:")}
    assert _alike(found, {}) == [("ann", "ben", ["unpatchify"])]
    assert _alike(found, trees(LONG)) == [], "our own solution is no sign"
    many = {f"s{k}": trees(LONG) for k in range(5)}
    assert _alike(many, {}) == [], "what many have is a common answer"


def test_code_of_a_newer_python_is_told():
    nb = nbformat.v4.new_notebook(cells=[code("def f(:")])
    assert "written with Python 3.99.1" in _syntax_remark(nb, "3.99.1", "3.11.0")
    assert _syntax_remark(nb, "3.9.1", "3.11.0") == "" and _syntax_remark(nb, "", "3.11.0") == ""
    assert _syntax_remark(nbformat.v4.new_notebook(cells=[code("1")]), "3.99.1", "3.11.0") == ""
