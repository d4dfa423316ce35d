"""The first cell of each lesson installs the package on Colab, and does nothing elsewhere."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "nbs").glob("[1-5]_*/*.ipynb"))


def install_cell(path: Path) -> dict:
    """The cell that looks for Colab; it must be the only one."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "google.colab" in "".join(cell["source"]))
    first = next(c for c in cells if c["cell_type"] == "code" and "default_exp" not in "".join(c["source"]))
    assert cell is first and cell["metadata"]["jupyter"] == {"source_hidden": True}
    return cell


def test_every_lesson_has_the_same_cell():
    assert len(LESSONS) >= 25 and len({"".join(install_cell(path)["source"]) for path in LESSONS}) == 1


@pytest.mark.parametrize("on_colab", [False, True])
def test_it_installs_on_colab_alone(on_colab, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell, calls = InteractiveShell.instance(), []
    monkeypatch.setitem(shell.magics_manager.magics["line"], "pip", calls.append)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    shell.run_cell("".join(install_cell(LESSONS[0])["source"])).raise_error()
    assert calls == ['install -q "dit_nb[lab] @ git+https://github.com/dit-nb/dit_nb"'] * on_colab
