"""Given cells take no names: what they define begins with an underscore, and they run as before."""

import ast

import pytest

from dit_nb.teach.classroom.assignments import _read_assignment, assignments
from dit_nb.teach.classroom.private_names import _defined, _made_private

AUTO = [name for name, facts in assignments().items() if facts["exercises"]]


def cell(source, role="given", kind="code"):
    return {"cell_type": kind, "metadata": {"dit_nb": {"role": role}} if role else {}, "source": source}


def given(cells):
    return [
        c["source"] for c in _made_private(cells, ["patchify"]) if c["metadata"]["dit_nb"]["role"] == "given"
    ]


@pytest.mark.parametrize("name", AUTO)
def test_given_cells_of_assignments_define_private_names_only(name):
    exercises = set(assignments()[name]["exercises"])
    for c in _read_assignment(name)["cells"]:
        if c["metadata"].get("dit_nb", {}).get("role") == "given":
            public = [n for n in _defined(ast.parse(c["source"])) if not n.startswith("_")]
            assert set(public) <= exercises, c["source"]


def test_every_use_is_renamed_and_nothing_else():
    first = "from dit_nb.visual import COLORS, figure\nfrom dit_nb.data import digits\nimport torch\nt = torch.arange(3)"
    second = (
        "waves = [t * k for k in range(2)]  # waves of t, α\n\n\n"
        "def show(x, t=None):\n    'Show t.'\n    waves = x.t\n    return figure(waves, t=t, colors=COLORS)\n\n\n"
        "class Mine:\n    def call(self, figure):\n        return figure, waves\n\n\n"
        "patchify(show(waves[0], t=t), Mine())"
    )
    a, b = given([cell(first), cell(second), cell("t = 3", "solution")])
    assert a.splitlines() == [
        "from dit_nb.visual import (",
        "    COLORS as _COLORS,",
        "    figure as _figure,",
        ")",
        "from dit_nb.data import digits as _digits",
        "import torch",
        "_t = torch.arange(3)",
    ]
    assert b == (
        "_waves = [_t * k for k in range(2)]  # waves of t, α\n\n\n"
        "def _show(x, t=None):\n    'Show t.'\n    waves = x.t\n    return _figure(waves, t=t, colors=_COLORS)\n\n\n"
        "class _Mine:\n    def call(self, figure):\n        return figure, _waves\n\n\n"
        "patchify(_show(_waves[0], t=_t), _Mine())"
    )


def test_a_student_may_use_the_names_of_a_frame():
    cells = [cell("line = [1, 2]"), cell("def line():\n    return 7", "solution"), cell("total = sum(line)")]
    space = {}
    for c in _made_private(cells, []):
        exec(c["source"], space)
    assert space["_total"] == 3 and space["line"]() == 7


def test_magics_are_left_alone():
    assert given([cell("%pip install -q something\nx = 1")]) == ["%pip install -q something\n_x = 1"]
