"""The explorer of the guide Memory and time: its figure against the paper's counts and sums by hand."""

import numpy as np
import pytest
import torch

from dit_nb.config import DiTConfig
from dit_nb.lab.budget import GPUS, training_memory
from dit_nb.teach.explore.budget import _MEMORY_COLORS, _plot_budget, explore_budget
from dit_nb.visual import COLORS
from support_explorers import turn

torch.set_num_threads(1)
MEMORY = dict(zip(GPUS, (12, 16, 24, 24, 40, 80, 80, 141)))  # GB, as sold
GFLOPS = {("S", 256): 6.06, ("B", 256): 23.01, ("L", 256): 80.71, ("XL", 256): 118.64, ("XL", 512): 524.60}


@pytest.fixture(scope="module")
def made():
    """The explorer, made once."""
    return explore_budget()


@pytest.fixture
def explorer(made):
    """The explorer, reset to its defaults."""
    return made.reset()


def boxes(fig, label):
    """Bottom and top of the boxes of one kind, a row for each card."""
    found = [c for c in fig.axes[0].collections if c.get_label() == label]
    if not found:
        return None
    heights = [path.vertices[:4, 1] for path in found[0].get_paths()]
    return np.array([(h.min(), h.max()) for h in heights])


def amounts(fig):
    """Part -> GB on each GPU."""
    drawn = {part: boxes(fig, part) for part in _MEMORY_COLORS}
    return {part: np.ptp(ends, axis=1) for part, ends in drawn.items() if ends is not None}


def times(fig):
    """The texts below the names."""
    return [label.get_text().split("\n")[1] for label in fig.axes[0].get_xticklabels()]


def seconds_by_hand(size, pixels, passes=3):
    """Figure 9's compute at 40 % of the peaks of the data sheets."""
    operations = 2 * passes * GFLOPS[size, pixels] * 1e9 * 256 * 400_000
    return operations / (0.4e12 * np.array([25.5, 8.1, 165.2, 121, 312, 312, 989, 989]))


def days(fig):
    """The times, as numbers."""
    sizes = {"hours": 1 / 24, "days": 1, "years": 365}
    return np.array([float(t.split()[0]) * sizes[t.split()[1]] for t in times(fig)])


def outlines(fig):
    """The outlines of the GPUs: height and whether they are gray, which means that it fits."""
    (gpu,) = (c for c in fig.axes[0].collections if c.get_label() == "GPU")
    gray = [np.allclose(edge[:3], rgb(COLORS["gray"])) for edge in gpu.get_edgecolor()]
    assert (boxes(fig, "GPU")[:, 0] == 0).all()
    return boxes(fig, "GPU")[:, 1].tolist(), gray


def rgb(code):
    """A color as three numbers."""
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_outlines_are_the_memory(explorer):
    for values in ({"batch": 1}, {"size": "S", "batch": 256}, {"pixels": 512}):
        heights, gray = outlines(turn(explorer, **values))
        assert heights == list(MEMORY.values())
        totals = sum(amounts(explorer.figure).values())
        assert gray == [total <= 0.9 * size for total, size in zip(totals, heights)]


def test_amounts_by_hand(explorer):
    """XL/2 in bfloat16: 675 million weights, and 48 bytes for each number of a token in 28 blocks."""
    parts = amounts(turn(explorer, batch=32))
    params = 674_834_720
    constant = parts["weights"] + parts["gradients"] + parts["moments"] + parts["average"]
    assert np.allclose(constant, 20 * params / 1e9, rtol=1e-3)
    by_hand = 32 * 28 * 48 * 256 * 1152 / 1e9
    is_bf16 = np.array([name != "T4" for name in GPUS])
    assert np.allclose(parts["activations"][is_bf16], by_hand, rtol=0.02)
    assert np.allclose(parts["activations"][~is_bf16], by_hand * 80 / 48, rtol=0.02)
    assert parts["copies"][~is_bf16] == 0 and parts["buckets"].sum() == 0


def test_boxes_are_stacked(explorer):
    fig = turn(explorer, batch=16)
    level = np.zeros(8)
    for part in _MEMORY_COLORS:
        low, high = boxes(fig, part).T
        np.testing.assert_allclose(low, level, atol=1e-9)
        level = high


@pytest.mark.parametrize("size, pixels", GFLOPS)
def test_times_by_hand(explorer, size, pixels):
    fig = turn(explorer, size=size, pixels=pixels)
    np.testing.assert_allclose(days(fig), seconds_by_hand(size, pixels) / 86400, rtol=0.06)
    fig = turn(explorer, checkpointing=True)
    np.testing.assert_allclose(days(fig), seconds_by_hand(size, pixels, 4) / 86400, rtol=0.06)


def test_first_experiment(explorer):
    before, first = amounts(explorer.figure), days(explorer.figure)
    assert not any(np.array(outlines(explorer.figure)[1])[[2, 3]])
    fig = turn(explorer, checkpointing=True)
    shrunk = amounts(fig)["activations"] / before["activations"]
    assert (shrunk < 0.11).all() and (shrunk > 0.05).all()
    assert all(np.array(outlines(fig)[1])[[2, 3]])  # the GPUs of 24 GB
    np.testing.assert_allclose(days(fig), first * 4 / 3, rtol=0.06)


def test_second_experiment(explorer):
    before, first = amounts(explorer.figure), days(explorer.figure)
    fig = turn(explorer, pixels=512)
    np.testing.assert_allclose(amounts(fig)["activations"], 4 * before["activations"], rtol=0.005)
    for part in ("weights", "gradients", "moments", "average"):
        np.testing.assert_allclose(amounts(fig)[part], before[part], rtol=0.002)
    np.testing.assert_allclose(days(fig), 4.42 * first, rtol=0.06)


def test_third_experiment_and_mistake(explorer):
    right = turn(explorer, batch=256)
    total = sum(amounts(right).values())
    fig = turn(explorer, wrong=True)
    assert set(amounts(fig)) == {"weights"} and (amounts(fig)["weights"] < total / 40).all()
    assert outlines(fig)[1] == [True] * 8
    np.testing.assert_allclose(boxes(fig, "actual")[:, 1], total)
    title = fig.axes[0].get_title()
    assert "seems to fit 8 of 8, actually 1" in title
    assert fig.axes[0].title.get_color() == COLORS["wrong"]
    assert "fits: H200" in right.axes[0].get_title()


def test_title_lists_the_gpus_that_fit(explorer):
    assert turn(explorer, size="XL", pixels=512, batch=256).axes[0].get_title().endswith("none of them")
    title = turn(explorer, size="S", pixels=256, batch=1).axes[0].get_title()
    assert all(name in title for name in GPUS)


def test_alt_text_has_the_numbers(explorer):
    fig = turn(explorer, size="L", batch=16, checkpointing=True)
    total = training_memory(DiTConfig.named("DiT-L/2"), 16, checkpointing=True).total / 1e9
    assert f"A100-40 {total:.1f} of 40 GB" in fig.alt_text and "checkpointing" in fig.alt_text


def test_axes_never_move(explorer):
    start = explorer.figure.axes[0].axis()
    for values in ({"batch": 256}, {"pixels": 512}, {"size": "S"}, {"wrong": True}, {"checkpointing": True}):
        assert turn(explorer, **values).axes[0].axis() == start


def test_bad_input():
    with pytest.raises(ValueError, match="name is 'DiT-M/2'"):
        _plot_budget("M", 256, 8, False)
