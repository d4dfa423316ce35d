"""Notebooks that are run: what was earned stays, and nothing that a cell does gives or takes points of another."""

import asyncio
import copy

import pytest

from dit_nb.errors import UserError
from dit_nb.teach.classroom.execute import _run_notebook
from dit_nb.teach.classroom.kernels import Limits, _Collector
from dit_nb.teach.classroom.sandbox import _check_sandbox

CHECK = """from dit_nb.teach.classroom.kernel import show_and_grade
from dit_nb.teach.graders.framework.report import Report
share = {name}()
show_and_grade(Report("{name}", share == 1, 2 * share, 2, "Reason {name}.", "Hint."), points=3)"""


def check(name):
    mark = {"grade_id": f"{name}-check", "grade": True, "solution": False, "locked": True, "points": 3}
    return {
        "cell_type": "code",
        "metadata": {"nbgrader": mark},
        "source": CHECK.format(name=name),
        "outputs": [],
    }


def own(source):
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": []}


def run(cells, tmp_path, **limits):
    nb = {"cells": copy.deepcopy(cells)}
    (tmp_path / "k").mkdir()
    for name in ("zmq", "einops", "random", "dit_nb"):  # files beside a notebook hide nothing
        (tmp_path / "k" / f"{name}.py").write_text("1 / 0")
    (tmp_path / "k" / "helpers.py").write_text("one = 1")
    found = asyncio.run(_run_notebook(nb, tmp_path / "k", Limits(**{"seconds": 12, **limits})))
    return nb["cells"], found


def value(name, body):
    return own(f"def {name}():\n    " + body.replace("\n", "\n    "))


@pytest.fixture(scope="module")
def survivor(tmp_path_factory):
    """One notebook with all that should harm at most its own exercise."""
    flood = "for _ in range(3000):\n    print('x' * 20_000, flush=True)\nreturn 0"
    cells = [
        value(
            "warns",
            "import sys, warnings\nwarnings.warn('old')\nprint('!', file=sys.stderr)\nprint('hi')\nreturn 1",
        ),
        own("def display(*_): raise TypeError\nshow = report = graded = None\nexit()"),
        check("warns"),
        value("floods", flood),
        check("floods"),
        value("part", "return 0.5"),
        check("part"),
        value("shows", "get_ipython().displayhook(3)\nraise ValueError('wrong')"),
        check("shows"),
        own("%pip install nothing-of-this-name-exists\nimport time\nwhile True: time.sleep(0.1)"),
        value("last", "import einops, random\nfrom helpers import one\nreturn one"),
        check("last"),
        own("import os\nos._exit(0)"),
    ]
    return run(cells, tmp_path_factory.mktemp("survivor"))


def outputs(cell, kind):
    return [o for o in cell["outputs"] if o["output_type"] == kind]


def test_points_come_from_the_reports(survivor):
    _, found = survivor
    assert {key: found.share(key) for key in found.reports} == {
        "warns-check": 1,
        "floods-check": 0,
        "part-check": 0.5,
        "last-check": 1,
    }
    assert found.remarks == []


def test_outputs_say_what_nbgrader_reads(survivor):
    """Nothing for all points, an error for none, a number for a part; nothing on stderr."""
    cells, _ = survivor
    warns, floods, part, shows = (cells[i] for i in (2, 4, 6, 8))
    assert not outputs(warns, "error") and not outputs(warns, "execute_result")
    assert [o["name"] for o in outputs(warns, "stream")] == ["stdout"]
    assert outputs(floods, "error") and outputs(shows, "error") and not outputs(shows, "execute_result")
    assert [o["data"]["text/plain"] for o in outputs(part, "execute_result")] == ["1.5"]
    assert sum(len(o["text"]) for o in outputs(floods, "stream")) < 400_000
    assert "endless loop" in str(cells[9]["outputs"])


def test_a_cell_that_ends_python_costs_its_own_exercise(tmp_path):
    end = "import os\nos._exit(1)"
    cells = [
        value("first", "return 1"),
        check("first"),
        own(f"kept = 1\n{end}"),
        value("second", f"{end}"),
        check("second"),
        value("third", "return 1 if second is None else 0"),
        check("third"),
    ]
    done, found = run(cells, tmp_path)
    assert [found.share(f"{name}-check") for name in ("first", "second", "third")] == [1, 0, 1]
    assert found.remarks[0].startswith("an own cell (3) ended Python")
    assert found.remarks[1].startswith("a call of second ended Python")
    assert "left out" in done[2]["outputs"][0]["evalue"] and "ended Python" in done[4]["outputs"][0]["evalue"]


def test_replaced_graders_are_told(tmp_path):
    """Functions of a cell, of Python and of a library; also in a module that is loaded after the start."""
    cheat = """import math, dit_nb.teach.graders.framework.report as r, dit_nb.teach.graders.framework.outcome as o
r.Report.require = lambda self: self
r._escape = lambda text: ''
o._near = max
math.isfinite = bool"""
    _, found = run([own(cheat), value("f", "return 1"), check("f")], tmp_path, seconds=60)
    (remark,) = found.remarks
    assert all(
        name in remark for name in ("Report.require", "report._escape", "outcome._near", "math.isfinite")
    )


def test_functions_of_pytorch_replaced_before_the_graders_are_loaded_are_told(tmp_path):
    """They change no verdict either; how a student prints tensors is no remark."""
    shown = "import torch\ntorch.Tensor.__repr__ = lambda self: 'tensor'\n"
    wrong = "def patchify(images, patch_size):\n    return 2 * given(images, patch_size)"
    given = own("from dit_nb.patchify import patchify as given")
    graded = check("patchify")
    graded["source"] = (
        "from dit_nb.teach.classroom.kernel import show_and_grade\n"
        "from dit_nb.teach.graders.patchify import check_patchify\n"
        "show_and_grade(check_patchify(patchify), points=3)"
    )
    cheat = own(f"{shown}torch.Tensor.item = lambda self: 0.0")
    for cells, share, told in (
        ([cheat, given, own(wrong), graded], 0, ["torch.Tensor.item"]),
        ([own(shown), given, own(wrong.replace("2 * ", "")), graded], 1, []),
    ):
        (tmp_path / str(share)).mkdir()
        _, found = run(cells, tmp_path / str(share), seconds=60)
        assert found.share("patchify-check") == share
        assert found.remarks == [f"parts of the graders were replaced: {name}" for name in told]


def test_a_forged_report_earns_nothing_and_ends_nothing(tmp_path):
    forge = "import dit_nb.teach.classroom.kernel as k\nk._results[:] = [{'name': 'f', 'points': 'x'}]\n1 / 0"
    cells, found = run([value("f", forge), check("f"), value("g", "return 1"), check("g")], tmp_path)
    assert (found.share("f-check"), found.share("g-check")) == (0, 1) and outputs(cells[1], "error")


SHOWS = """from IPython.display import HTML, SVG, Javascript, Markdown, display
picture = '<svg xmlns="http://www.w3.org/2000/svg"><script>run("svg")</script></svg>'
for shown in (HTML('<script>run("html")</script>'), Javascript('run("js")'), SVG(picture)):
    display(shown)
display(Markdown('**bold** <script>run("md")</script> [x](javascript:run)'))
display({"image/png": "AAAA", "text/plain": "x"}, raw=True, metadata={"image/png": {"width": "1 onerror=run()"}})
display({"image/png": {"a": 1}, "text/plain": ["a", 1]}, raw=True)"""


def test_what_runs_show_cannot_run_on_a_page(tmp_path):
    """In an own cell, as the value of a cell, and in the checked function; the report stays as it is."""
    import nbformat
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    body = SHOWS + "\nreturn 0.5"
    cells, found = run(
        [own(f"{SHOWS}\nHTML('<script>run()</script>')"), value("f", body), check("f")], tmp_path
    )
    assert found.share("f-check") == 0.5 and len(outputs(cells[0], "display_data")) == 6
    shown = [o["data"].get("text/markdown", "") for o in outputs(cells[2], "display_data")]
    assert len(shown) == 7 and "**✗ f** · 1 of 2 points\n\nReason f.\n\n**Where to look:** Hint." in shown[-1]
    made = [nbformat.v4.new_code_cell(c["source"], outputs=c["outputs"]) for c in cells]
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(nbformat.v4.new_notebook(cells=made))
    for area in BeautifulSoup(page, "html.parser").find_all(class_="output_wrapper"):
        tags = area.find_all(True)
        assert tags and not [t for t in tags if t.name in ("script", "svg") or "onerror" in t.attrs]
        assert not [t for t in tags if "javascript" in (t.get("href") or "")]
        assert [t for t in tags if t.name == "strong" and t.text == "bold"]


def sandbox_runs():
    try:
        _check_sandbox()
    except UserError:
        return False
    return True


@pytest.mark.skipif(not sandbox_runs(), reason="bubblewrap is missing, or cannot run here")
def test_the_sandbox_has_no_network_home_or_course(tmp_path):
    (tmp_path / "secret").write_text("solutions")
    looks = f"""import os, socket
found = [os.path.exists({str(tmp_path / "secret")!r}), os.path.exists(os.path.expanduser('~/.profile'))]
def refused(call):
    try:
        call()
    except OSError:
        return True
found += [not refused(lambda: socket.create_connection(('127.0.0.1', 22), 1))]
found += [not refused(lambda: open(os.__file__, 'a'))]
open('own.txt', 'w').write('fine')
def memory():
    try:
        bytearray(3 * 2**30)
    except MemoryError:
        return False
    return True
found += [memory()]"""
    _, found = run(
        [own(looks), value("f", "return 1 if not any(found) else 0"), check("f")],
        tmp_path,
        sandbox=True,
        memory=2,
    )
    assert found.share("f-check") == 1, found


def test_long_outputs_are_cut():
    collector = _Collector()
    for _ in range(500):
        collector.message("stream", {"name": "stdout", "text": "x" * 10_000})
        collector.message(
            "display_data", {"data": {"image/png": "y" * 10, "text/html": "z" * 999_999}, "metadata": {}}
        )
    assert sum(len(str(output)) for output in collector.outputs) < 500_000
    collector.message("error", {"ename": "E", "evalue": "", "traceback": ["t"] * 100_000})
    assert collector.outputs[-1]["output_type"] == "error" and len(str(collector.outputs[-1])) < 200_000
