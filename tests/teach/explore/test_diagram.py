"""Block diagrams: texts, side inputs and residual branches."""

from dit_nb.teach.explore.diagram import _show_block
from dit_nb.visual import figure

STEPS = [("x", "x_t"), ("", "gray"), ("attention", "gray"), ("x", "gate", "gate"), ("+", "gray")]


def test_a_block_has_its_texts_and_a_residual_branch():
    fig, axes = figure()
    _show_block(axes[0, 0], STEPS, "a block")
    texts = [text.get_text() for text in axes[0, 0].texts if text.get_text()]
    assert axes[0, 0].get_title() == "a block" and sorted(texts) == ["+", "attention", "gate", "x", "x"]
    (branch,) = axes[0, 0].lines
    assert branch.get_ydata().tolist() == [1, 1, 4], "from the fork to the sum"
