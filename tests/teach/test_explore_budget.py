"""The explorer of the guide Memory and time: what it draws, against the paper's counts and sums made by hand."""

import numpy as np
import pytest
import torch

from dit_nb.config import DiTConfig
from dit_nb.lab.budget import CARDS, training_memory
from dit_nb.teach.explore.budget import PART_COLORS, explore_budget, plot_budget
from dit_nb.visual import COLORS

torch.set_num_threads(1)
MEMORY = dict(zip(CARDS, (12, 16, 24, 24, 40, 80, 80, 141)))  # GB, as sold
GFLOPS = {("S", 256): 6.06, ("B", 256): 23.01, ("L", 256): 80.71, ("XL", 256): 118.64, ("XL", 512): 524.60}


@pytest.fixture(scope="module")
def made():
    """The explorer, made once."""
    return explore_budget()


@pytest.fixture
def vessels(made):
    """The explorer, as it was at the start."""
    return made.reset()


def turn(explorer, **values):
    """Turn the knobs by hand; nothing may go wrong on the way."""
    for name, value in values.items():
        explorer.controls[name].value = value
        assert not explorer.problem.value
    return explorer.figure


def boxes(fig, label):
    """Bottom and top of the boxes of one kind, a row for each card."""
    found = [c for c in fig.axes[0].collections if c.get_label() == label]
    if not found:
        return None
    heights = [path.vertices[:4, 1] for path in found[0].get_paths()]
    return np.array([(h.min(), h.max()) for h in heights])


def poured(fig):
    """Part -> what is in each vessel, GB."""
    drawn = {part: boxes(fig, part) for part in PART_COLORS}
    return {part: np.ptp(ends, axis=1) for part, ends in drawn.items() if ends is not None}


def told_times(fig):
    """What stands below the names."""
    return [label.get_text().split("\n")[1] for label in fig.axes[0].get_xticklabels()]


def seconds_by_hand(size, pixels, passes=3):
    """Figure 9's compute at 40 % of the data sheets' peaks."""
    operations = 2 * passes * GFLOPS[size, pixels] * 1e9 * 256 * 400_000
    return operations / (0.4e12 * np.array([25.5, 8.1, 165.2, 121, 312, 312, 989, 989]))


def days(fig):
    """The times, as numbers."""
    sizes = {"hours": 1 / 24, "days": 1, "years": 365}
    return np.array([float(t.split()[0]) * sizes[t.split()[1]] for t in told_times(fig)])


def outlines(fig):
    """The vessels: height and whether they are green."""
    (card,) = (c for c in fig.axes[0].collections if c.get_label() == "card")
    green = [np.allclose(edge[:3], rgb(COLORS["cond"])) for edge in card.get_edgecolor()]
    assert (boxes(fig, "card")[:, 0] == 0).all()
    return boxes(fig, "card")[:, 1].tolist(), green


def rgb(code):
    """A colour as three numbers."""
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_vessels_are_as_large_as_the_cards(vessels):
    for values in ({"batch": 1}, {"size": "S", "batch": 256}, {"pixels": 512}):
        heights, green = outlines(turn(vessels, **values))
        assert heights == list(MEMORY.values())
        totals = sum(poured(vessels.figure).values())
        assert green == [total <= 0.9 * size for total, size in zip(totals, heights)]


def test_towers_by_hand(vessels):
    """XL/2 in bfloat16: 675 million weights, and 48 bytes for each number of a token in 28 blocks."""
    parts = poured(turn(vessels, batch=32))
    params = 674_834_720
    standing = parts["weights"] + parts["gradients"] + parts["moments"] + parts["average"]
    assert np.allclose(standing, 20 * params / 1e9, rtol=1e-3)
    by_hand = 32 * 28 * 48 * 256 * 1152 / 1e9
    is_bf16 = np.array([name != "T4" for name in CARDS])
    assert np.allclose(parts["activations"][is_bf16], by_hand, rtol=0.02)
    assert np.allclose(parts["activations"][~is_bf16], by_hand * 80 / 48, rtol=0.02)
    assert parts["copies"][~is_bf16] == 0 and parts["buckets"].sum() == 0


def test_boxes_stand_on_each_other(vessels):
    fig = turn(vessels, batch=16)
    level = np.zeros(8)
    for part in PART_COLORS:
        low, high = boxes(fig, part).T
        np.testing.assert_allclose(low, level, atol=1e-9)
        level = high


@pytest.mark.parametrize("size, pixels", GFLOPS)
def test_times_by_hand(vessels, size, pixels):
    fig = turn(vessels, size=size, pixels=pixels)
    np.testing.assert_allclose(days(fig), seconds_by_hand(size, pixels) / 86400, rtol=0.06)
    fig = turn(vessels, checkpointing=True)
    np.testing.assert_allclose(days(fig), seconds_by_hand(size, pixels, 4) / 86400, rtol=0.06)


def test_first_experiment(vessels):
    before, first = poured(vessels.figure), days(vessels.figure)
    assert not any(np.array(outlines(vessels.figure)[1])[[2, 3]])
    fig = turn(vessels, checkpointing=True)
    shrunk = poured(fig)["activations"] / before["activations"]
    assert (shrunk < 0.11).all() and (shrunk > 0.05).all()
    assert all(np.array(outlines(fig)[1])[[2, 3]])  # the cards of 24 GB
    np.testing.assert_allclose(days(fig), first * 4 / 3, rtol=0.06)


def test_second_experiment(vessels):
    before, first = poured(vessels.figure), days(vessels.figure)
    fig = turn(vessels, pixels=512)
    np.testing.assert_allclose(poured(fig)["activations"], 4 * before["activations"], rtol=0.005)
    for part in ("weights", "gradients", "moments", "average"):
        np.testing.assert_allclose(poured(fig)[part], before[part], rtol=0.002)
    np.testing.assert_allclose(days(fig), 4.42 * first, rtol=0.06)


def test_third_experiment_and_mistake(vessels):
    right = turn(vessels, batch=256)
    truth = sum(poured(right).values())
    fig = turn(vessels, wrong=True)
    assert set(poured(fig)) == {"weights"} and (poured(fig)["weights"] < truth / 40).all()
    assert outlines(fig)[1] == [True] * 8
    np.testing.assert_allclose(boxes(fig, "in truth")[:, 1], truth)
    title = fig.axes[0].get_title()
    assert "8 of 8 seem to hold it, in truth 1" in title
    assert fig.axes[0].title.get_color() == COLORS["wrong"]
    assert "fits: H200" in right.axes[0].get_title()


def test_title_lists_the_cards_that_hold_it(vessels):
    assert turn(vessels, size="XL", pixels=512, batch=256).axes[0].get_title().endswith("none of them")
    title = turn(vessels, size="S", pixels=256, batch=1).axes[0].get_title()
    assert all(name in title for name in CARDS)


def test_words_have_the_numbers(vessels):
    fig = turn(vessels, size="L", batch=16, checkpointing=True)
    total = training_memory(DiTConfig.named("DiT-L/2"), 16, checkpointing=True).total / 1e9
    assert f"A100-40 {total:.1f} of 40 GB" in fig.words and "checkpointed" in fig.words


def test_axes_never_move(vessels):
    start = vessels.figure.axes[0].axis()
    for values in ({"batch": 256}, {"pixels": 512}, {"size": "S"}, {"wrong": True}, {"checkpointing": True}):
        assert turn(vessels, **values).axes[0].axis() == start


def test_shape(vessels):
    assert len(vessels.controls) == 5 and len(vessels.tries) == 3
    assert vessels.figure.get_size_inches()[0] <= 9 and vessels.figure.get_size_inches()[1] <= 4
    png = vessels.png
    assert vessels.set(wrong=True).png != png and vessels.reset().png == png


def test_bad_input():
    with pytest.raises(ValueError, match="name is 'DiT-M/2'"):
        plot_budget("M", 256, 8, False)
