"""The code that notebooks show is that of the package."""

import inspect
import textwrap

import pytest
import shown

from dit_nb import DiT
from dit_nb.blocks.base import Block
from dit_nb.visual import show_source


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        ("dit_nb.blocks.base", "Block", Block),
        ("dit_nb.model", "Block", Block),  # imported there
        ("dit_nb.model", "DiT.from_pretrained", DiT.from_pretrained),  # with its decorator
        ("dit_nb.visual", "show_source", show_source),
    ],
)
def test_source_is_what_python_finds(module, name, found):
    assert shown.source_of(module, name) == textwrap.dedent(inspect.getsource(found)).rstrip()


def test_what_is_not_there_is_not_found():
    assert shown.source_of("dit_nb.visual", "nothing") is None
    assert shown.source_of("torch.nn", "Linear") is None


def test_old_code_is_replaced_and_other_outputs_stay():
    old = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/markdown": ["```python\n", "old\n", "```"]},
    }
    texts = [
        "from dit_nb.blocks.base import Block",
        "show_source(Block)",
        "show_source(unknown)",
        "print(Block)",
    ]
    cells = [
        {"cell_type": "code", "source": [text], "outputs": [{**old, "data": dict(old["data"])}]}
        for text in texts
    ]
    shown.refresh(cells)
    found = ["".join(cell["outputs"][0]["data"]["text/markdown"]) for cell in cells]
    assert found[1] == show_source(Block).data
    assert found[0] == found[2] == found[3] == "```python\nold\n```"
