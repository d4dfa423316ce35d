"""What code takes from the package, and how it looks outside of itself: by whatever names, and in whatever form."""

import pytest

from dit_nb.teach.classroom.calls import _bound, _looks, _not_given, _reached, _tree, _words

NEAR = "dit_nb.teach.graders.framework.outcome._near"


@pytest.mark.parametrize(
    "source, found",
    [
        ("patchify = dit_nb.patchify.patchify", "dit_nb.patchify.patchify"),
        (f"{NEAR} = max", NEAR),
        ("del dit_nb.patchify.patchify", "dit_nb.patchify.patchify"),
        ("import dit_nb as d\nd.patchify.patchify(1)", "dit_nb dit_nb.patchify.patchify"),
        ("p = dit_nb.patchify\nq = p\nq.patchify(1)", "dit_nb.patchify.patchify"),
        ("a, p = 1, dit_nb.patchify\np.patchify(1)", "dit_nb.patchify.patchify"),
        ("(p := dit_nb.patchify).patchify(1)", "dit_nb.patchify.patchify"),
        ("from dit_nb import patchify as p\np.unpatchify", "dit_nb.patchify dit_nb.patchify.unpatchify"),
        ("getattr(dit_nb.patchify, 'patch' + 'ify')(1)", "dit_nb.patchify.patchify"),
        ("import_module('dit_nb.patchify').patchify", "dit_nb.patchify dit_nb.patchify.patchify"),
        ("mock.patch('dit_nb.patchify:patchify')", "dit_nb.patchify.patchify"),
        ("vars(dit_nb)", "dit_nb.*"),
        ("globals()['dit_nb'].patchify.patchify(1)", "dit_nb.patchify.patchify"),
        ("g = globals()\ng.get('dit' + '_nb').patchify.patchify", "dit_nb.patchify.patchify"),
        ("p = dit_nb.patchify\nvars()['p'].patchify", "dit_nb.patchify.patchify"),
        ("class A: d = dit_nb\nA.d.patchify.patchify(1)", "dit_nb.patchify.patchify"),
        ("class A:\n    from dit_nb import patchify as p\nA().p.x", "dit_nb.patchify dit_nb.patchify.x"),
        ("import __main__ as m\nm.dit_nb.patchify.patchify", "dit_nb.patchify.patchify"),
        ("import __main__\nvars(__main__)['dit_nb'].patchify.patchify", "dit_nb.patchify.patchify"),
        ("from __main__ import dit_nb as d\nd.patchify.patchify", "dit_nb.patchify.patchify"),
        ("class A: d = {'x': 1}\nA.d.get('x')\nsizes['dit'].y\nglobals()['x']", ""),
        ("def f(m=dit_nb): return m.patchify", "dit_nb.*"),
        ("%time y = dit_nb.patchify.patchify(x)", "dit_nb.patchify.patchify"),
        ("y = %timeit -n 3 dit_nb.patchify.patchify(x)", "dit_nb.patchify.patchify"),
        ("files = !ls\ny = dit_nb.patchify.patchify", "dit_nb.patchify.patchify"),
        ("x = (7\n     % 3)\ny = dit_nb.patchify.patchify", "dit_nb.patchify.patchify"),
        ("print(dit_nb, dit_nb.__version__)", ""),
        ("import dit_nb\nd = dit_nb", "dit_nb"),
        ("import torch as dit\ndit.nn.Linear", ""),
    ],
)
def test_what_is_taken_from_the_package(source, found):
    assert _reached([_tree(source)], {"dit_nb": "dit_nb"}) == set(found.split())


def test_cells_share_their_names():
    trees = [_tree("d = e.patchify\nd.patchify"), _tree("import dit_nb as e")]
    assert "dit_nb.patchify.patchify" in _reached(trees)


def test_methods_of_what_was_given_are_given():
    given = {"dit_nb.patchify.patchify", "dit_nb.visual"}
    found = {"dit_nb.patchify.patchify.cache_clear", "dit_nb.visual.COLORS", "dit_nb.visual"}
    assert _not_given(found, given) == ["dit_nb.visual.COLORS"]


@pytest.mark.parametrize(
    "source, found",
    [
        ("from sys import _getframe as g", "sys._getframe"),
        ("from sys import modules as m", "sys.modules"),
        ("from sys import *", "sys.*"),
        ("import sys as s\ns.modules['x'] = 1", "sys.modules"),
        ("import os\nos.sys.modules", "os.sys.modules"),
        ("import sys\nvars(sys)['modules']", "sys"),
        ("import sys\ngetattr(sys, '_get' + 'frame')()", "_getframe"),
        ("import sys\nsys.settrace(f)", "sys.settrace"),
        ("import sys\nsys.monitoring.use_tool_id(1, 'x')", "sys.monitoring"),
        ("import sys\nm = sys.modules.get('x')\nm.y", "sys.modules"),
        ("from inspect import stack", "inspect"),
        ("torch.inspect.currentframe()", "torch.inspect torch.inspect.currentframe"),
        ("import gc\ngc.get_objects()", "gc gc.get_objects"),
        ("from IPython import get_ipython as g", "IPython.get_ipython"),
        ("import importlib\nimportlib.import_module(name)", "importlib importlib.import_module"),
        ("m = __import__('sys')", "__import__"),
        ("run = exec", "exec"),
        ("f.__code__ = g.__code__", "f.__code__ g.__code__"),
        ("setattr(f, '__code__', c)", "__code__"),
        ("f.__globals__['x']", "f.__globals__"),
        ("object.__subclasses__()", "object.__subclasses__"),
        ("import sys\nprint(sys.version, sys)\nsys.path\nsys.getsizeof(1)", ""),
        ("[m for m in model.modules() if m.eval()]", ""),
        ("{'modules': 1, 'eval': 2}\nphase = 'eval'", ""),
        ("torch.stack([x]).sum()", ""),
    ],
)
def test_looks_outside(source, found):
    assert _looks(_tree(source)) == set(found.split())


def test_code_that_cannot_be_read_is_searched_by_words():
    """A cell with an error, and one that is nested too deeply for a syntax tree."""
    deep = "x = " + " + ".join(["1"] * 2000) + "\ny = dit_nb.patchify.patchify; sys._getframe()"
    for source in ("def f(:\ndit_nb.patchify.patchify\nsys._getframe()", deep):
        assert _tree(source) is None
        assert _words(source) == ({"dit_nb.patchify.patchify"}, {"_getframe"})


def test_files_in_other_encodings_are_read():
    source = b"# -*- coding: utf-7 -*-\n" + "x = dit_nb.patchify.patchify".encode("utf-7")
    assert _reached([_tree(source)], {"dit_nb": "dit_nb"}) == {"dit_nb.patchify.patchify"}


def test_what_names_stand_for():
    tree = _tree(
        "import torch.nn.functional as F, numpy\nfrom a.b import c as d\ne = F.relu\nf, g = d, e\nh = f()"
    )
    assert _bound([tree]) == {
        **{"F": "torch.nn.functional", "numpy": "numpy", "d": "a.b.c", "e": "torch.nn.functional.relu"},
        **{"f": "a.b.c", "g": "torch.nn.functional.relu"},
    }
