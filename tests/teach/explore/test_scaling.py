"""The budget of compute: numbers only if the paper prints them."""

import numpy as np
import pytest

from dit_nb.lab.comparisons import Comparison
from dit_nb.lab.paper_tables import read_paper_table
from dit_nb.teach.explore.scaling import (
    _look_up,
    _plot_bars,
    _plot_compute,
    _plot_differences,
    _plot_scaling,
    explore_compute,
)
from dit_nb.visual import COLORS
from support_explorers import turn


@pytest.fixture(scope="module")
def made():
    """The explorer, made once."""
    return explore_compute()


@pytest.fixture
def budget(made):
    """The explorer, reset to its defaults."""
    return made.reset()


def rings(fig):
    """FIDs that are ringed, one for each panel."""
    return [line.get_ydata()[0] for ax in fig.axes for line in ax.lines if line.get_label() == "measured"]


def positions(fig):
    """The positions of the vertical lines."""
    return [line.get_xdata()[0] for ax in fig.axes for line in ax.lines if line.get_label() == "chosen"]


def test_every_choice_is_in_the_paper_or_has_no_number(made):
    options = [
        [o[1] if isinstance(o, tuple) else o for o in made.controls[k].options]
        for k in ("steps_k", "sampling")
    ]
    printed = {
        (r["model"], r["steps_k"], 250): r["fid"]
        for r in read_paper_table("table4")
        if (r["block"], r["pixels"]) == ("adaln_zero", 256)
    }
    printed |= {(r["model"], 400, r["steps"]): r["fid_10k"] for r in read_paper_table("sampling")}
    found = {}
    for size in ("S", "B", "L", "XL"):
        for patch in (8, 4, 2):
            for steps_k in options[0]:
                for sampling in options[1]:
                    fid, known = _look_up(size, patch, steps_k, sampling)
                    assert ("FID" in known) == (fid is not None) and ("no number" in known) == (fid is None)
                    if fid is not None:
                        found[f"DiT-{size}/{patch}", steps_k, sampling] = fid
    assert found == printed and len(found) == 16


def test_between_two_and_outside():
    assert _look_up("XL", 2, 1000, 250) == (None, "between 19.47 and 10.67 (Table 4), no number printed")
    assert (
        _look_up("XL", 2, 100, 250)[1]
        == "outside the data: DiT-XL/2 has no number printed earlier than 400K steps"
    )
    assert (
        _look_up("B", 4, 7000, 250)[1]
        == "outside the data: DiT-B/4 has no number printed later than 400K steps"
    )
    assert _look_up("XL", 2, 7000, 1000)[0] is None


def test_first_experiment(budget):
    before, there = rings(budget.figure), positions(budget.figure)
    fig = turn(budget, patch=4)
    assert before == [19.47, 19.47] and rings(fig) == [43.01, 43.01]
    assert np.allclose(np.array(there) / positions(fig), 4, rtol=0.03)  # compute, in both panels
    budget.set(wrong=True, patch=2)
    column = positions(budget.figure)[0]
    assert positions(turn(budget, patch=4))[0] == column  # parameters


def test_second_experiment(budget):
    large = turn(budget, sampling=128)
    assert rings(large)[0] == 23.7 and "an image 15.2 Tflops" in large.alt_text
    small = turn(budget, size="L", sampling=1000)
    assert rings(small)[0] == 25.9 and "an image 80.7 Tflops" in small.alt_text


def test_third_experiment(budget):
    reference = positions(budget.figure)[1]
    fig = turn(budget, size="S", steps_k=7000)
    assert rings(fig) == [] and "outside the data" in fig.axes[1].get_title()
    assert 0.8 < positions(fig)[1] / reference < 1


def test_a_long_training_is_ringed_in_the_right_panel(budget):
    fig = turn(budget, steps_k=7000)
    assert rings(fig) == [9.62]
    assert [ax for ax in fig.axes for line in ax.lines if line.get_label() == "measured"] == [fig.axes[1]]


def test_mistake(budget):
    right = budget.figure.axes[0]
    fig = turn(budget, wrong=True)
    (dots,) = (c for c in fig.axes[0].collections if c.get_label() == "models")
    columns = np.unique(np.round(np.log(dots.get_offsets()[:, 0]), 1))
    assert len(columns) == 4 and fig.axes[0].title.get_color() == COLORS["wrong"]
    assert "correlation -0.93" in right.get_title() and "correlation -0.93" not in fig.axes[0].get_title()


def test_dots_show_the_table():
    fig = _plot_scaling()
    rows = [
        r
        for r in read_paper_table("table4")
        if (r["block"], r["pixels"], r["steps_k"]) == ("adaln_zero", 256, 400)
    ]
    for ax in fig.axes:
        (dots,) = (c for c in ax.collections if c.get_label() == "models")
        assert np.allclose(dots.get_offsets(), [(r["gflops"], r["fid"]) for r in rows])
        areas = dots.get_sizes() / [r["params_m"] for r in rows]
        assert np.allclose(areas, areas[0])
    assert "-0.725" in fig.alt_text and "-0.930" in fig.alt_text


def test_bars_have_their_numbers():
    fig = _plot_bars(["a", "b"], {"fid": [2.0, 1.5]}, "two")
    assert [patch.get_width() for patch in fig.axes[0].patches] == [2.0, 1.5]
    assert fig.alt_text == "two. fid: a 2, b 1.5."


def test_differences_show_their_intervals_and_words():
    first, second = np.arange(5.0), np.arange(5.0) + [1.0, 1.1, 0.9, 1.0, 1.05]
    rows = [Comparison("b − a", first, second), Comparison("late", second, first, False)]
    fig = _plot_differences({"one": rows, "two": rows[:1]})
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.texts] == ["clear", "clear"]
    (bar, late) = (box.get_children()[0] for box in ax.containers)
    assert bar.get_xdata()[0] == pytest.approx(1.01) and late.get_xdata()[0] == pytest.approx(-1.01)
    assert late.get_markerfacecolor() == "white" != bar.get_markerfacecolor()
    assert "b − a +1.01 (+0.92 to +1.10), clear;" in fig.alt_text and "chosen afterwards" in fig.alt_text


def test_axes_never_move(budget):
    start = budget.figure.axes[1].axis()
    for values in (
        {"size": "S"},
        {"patch": 8},
        {"steps_k": 100},
        {"steps_k": 7000},
        {"sampling": 16},
        {"wrong": True},
    ):
        assert turn(budget, **values).axes[1].axis() == start


def test_bad_input():
    with pytest.raises(ValueError, match="model is 'DiT-M/2'"):
        _plot_compute("M", 2, 400, 250)
