"""Remarks on code: calls that were not given, and code that is too alike."""

import nbformat
import pytest
from support_classroom import RIGHT, code, put, solutions, submitted

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
            "takes from dit_nb what was not given: dit_nb.patchify.patchify",
        ),
        ("import dit_nb.teach.graders.framework.outcome as o", "takes from dit_nb what was not given"),
        ("import dit_nb; dit_nb.teach.graders.framework.outcome._near = max", "takes from dit_nb what"),
        (
            "patchify = dit_nb.patchify.patchify",
            "takes from dit_nb what was not given: dit_nb.patchify.patchify",
        ),
        ("from sys import _getframe as g", "looks outside its own code: sys._getframe"),
        ("from sys import modules as m", "looks outside its own code: sys.modules"),
        ("import dit_nb\nprint(dit_nb.__version__)", ""),
        (
            "def f(:\ndit_nb.patchify.patchify",
            "takes from dit_nb what was not given: dit_nb.patchify.patchify",
        ),
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


@pytest.mark.parametrize("name", ["a1", "a2", "a3", "a4"])
def test_solutions_have_no_remarks(name):
    release = _release_notebook(source_notebook(name))
    assert _code_remarks(submitted(release, solutions(name)), release) == []


def test_files_beside_the_notebook_are_read(release, tmp_path):
    """A cheat in a file is told with the file's name; files that only help are not."""
    nb = submitted(release, {"patchify": "from helpers import patchify"})
    helps = put(tmp_path / "helpers.py", RIGHT["patchify"])
    assert _code_remarks(nb, release, [helps, put(tmp_path / "notes.txt", "import gc")]) == []
    cheats = put(
        tmp_path / "cheats.py", "import sys\nimport dit_nb as d\nd.patchify.patchify\nsys._getframe()"
    )
    assert _code_remarks(nb, release, [helps, cheats]) == [
        "takes from dit_nb what was not given: dit_nb (cheats.py), dit_nb.patchify.patchify (cheats.py)",
        "looks outside its own code: sys._getframe (cheats.py)",
    ]
    assert _code_remarks(nb, release, [put(tmp_path / "fast.cpython-311.so", "")]) == [
        "has code that cannot be read: fast.cpython-311.so"
    ]


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


@pytest.mark.parametrize(
    "answers, files",
    [
        ({"unpatchify": "print('extra')\nimport math\n" + RENAMED}, {}),
        ({"unpatchify": "from helpers import unpatchify"}, {"helpers.py": f"import torch\n{RENAMED}"}),
        ({"unpatchify": "import h\nunpatchify = h.f"}, {"h.py": RENAMED.replace("unpatchify", "f")}),
        ({"unpatchify": "from h import f as unpatchify"}, {"h.py": RENAMED.replace("unpatchify", "f")}),
        ({"patchify": RENAMED, "unpatchify": "n = 1"}, {}),
    ],
    ids=["more statements", "file", "module", "other name", "other cell"],
)
def test_code_is_compared_wherever_it_stands(answers, files, release, tmp_path):
    paths = [put(tmp_path / name, source) for name, source in files.items()]
    alone = _tree_sums(submitted(release, {"unpatchify": LONG}))["unpatchify"]
    assert _tree_sums(submitted(release, answers), paths)["unpatchify"] == alone


def test_code_is_compared_with_what_it_calls(release):
    """Two thin functions are equal only if what they call is."""
    thin = "def unpatchify(a, b, c):\n    return solve(a, b, c)\n\n\n"
    helper = LONG.replace("def unpatchify", "def solve")
    other = helper.replace("permute(0, 5, 1, 3, 2, 4)", "permute(0, 5, 3, 1, 2, 4)")
    sums = [_tree_sums(submitted(release, {"unpatchify": thin + h}))["unpatchify"] for h in (helper, other)]
    assert sums[0] != sums[1]
    assert _tree_sums(submitted(release, {"unpatchify": helper + "\n\n\n" + thin}))["unpatchify"] == sums[0]


def a_class(students, groups):
    """Student -> exercise -> code: their own, but for groups (first student, how many, exercises)."""
    found = {f"s{k:03d}": {f"e{j}": f"own {k} {j}" for j in range(7)} for k in range(students)}
    for first, many, exercises in groups:
        for k in range(first, first + many):
            found[f"s{k:03d}"] |= {f"e{j}": f"of {first} {j}" for j in exercises}
    return found


def test_copies_by_a_group_are_told():
    """Five of 200 with equal code everywhere, four of ten in three exercises, twenty of 200 in five."""
    for students, many, exercises in [
        (200, 5, range(7)),
        (10, 4, range(3)),
        (200, 20, range(5)),
        (20, 5, range(3)),
    ]:
        pairs = _alike(a_class(students, [(2, many, exercises)]), {})
        assert len(pairs) == many * (many - 1) // 2
        assert all(told == [f"e{j}" for j in exercises] for _, _, told in pairs)


def test_common_answers_are_not_told():
    """Code that many have in few exercises, or by chance in several, is no sign; code that few have is."""
    assert _alike(a_class(200, [(0, 5, range(2))]), {}) == []
    assert _alike(a_class(200, [(0, 70, range(3))]), {}) == [], "a third has the only sensible answers"
    assert _alike(a_class(6, [(0, 6, range(7))]), {}) == [], "so has everyone"
    (pair,) = _alike(a_class(200, [(0, 70, range(3)), (0, 2, [6])]), {})
    assert pair[:2] == ("s000", "s001") and "e6" in pair[2]


def test_code_of_a_newer_python_is_told():
    nb = nbformat.v4.new_notebook(cells=[code("def f(:")])
    assert "written with Python 3.99.1" in _syntax_remark(nb, "3.99.1", "3.11.0")
    assert _syntax_remark(nb, "3.9.1", "3.11.0") == "" and _syntax_remark(nb, "", "3.11.0") == ""
    assert _syntax_remark(nbformat.v4.new_notebook(cells=[code("1")]), "3.99.1", "3.11.0") == ""
