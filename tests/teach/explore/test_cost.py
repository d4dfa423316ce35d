"""The explorer of lesson 13, against counts of multiply-adds."""

import numpy as np
import pytest

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.teach.explore.cost import explore_cost
from support_explorers import turn


@pytest.fixture(scope="module")
def shared():
    return explore_cost()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def shares(fig):
    """Part -> its share in percent, from the legend, and from its height at the cursor."""
    ax = fig.axes[0]
    x, found = ax.lines[-1].get_xdata()[0], {}
    for area in ax.collections:
        name, _, rest = area.get_label().rpartition(" %")[0].rpartition(" ")
        heights = [v for u, v in area.get_paths()[0].vertices if np.isclose(u, x)]
        found[name] = max(heights) - min(heights)
        assert abs(found[name] - float(rest)) < 0.051
    return found


def test_shares_and_total(explorer):
    for size, patch, image in (("XL", 2, 1024), ("S", 8, 64), ("B", 4, 4096)):
        fig = turn(explorer, size=size, patch=patch, pixels=image)
        config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=image // 8)
        total, T = cost(config).total_macs, config.grid[0] ** 2
        assert np.isclose(10 ** fig.axes[1].lines[2].get_ydata()[0], total / 1e9)
        pairs = 2 * T**2 * config.hidden_size * config.depth
        area = shares(fig)
        assert np.isclose(area["attention: pairs"], 100 * pairs / total)
        assert np.isclose(area["MLP"], 100 * 8 * config.hidden_size**2 * T * config.depth / total)
        assert np.isclose(sum(area.values()), 100)


def test_experiments(explorer):
    work = [10 ** turn(explorer, pixels=p).axes[1].lines[2].get_ydata()[0] for p in (256, 512)]
    assert [round(w, 2) for w in work] == [118.62, 524.54] and round(work[1] / work[0], 2) == 4.42
    single = shares(turn(explorer, size="S", patch=8, pixels=64))
    assert 33 < single["t and y"] < 36 and "T = 1" in explorer.figure.axes[0].get_title()
    right = shares(explorer.reset().set(pixels=2048).figure)
    fig = turn(explorer, wrong=True)
    assert shares(fig)["attention: pairs"] == 0 and right["attention: pairs"] > 50
    dotted, line = (np.asarray(fig.axes[1].lines[i].get_ydata()) for i in (0, 1))
    at = list(fig.axes[1].lines[0].get_xdata()).index(11)
    missing = 1 - 10 ** (line[at] - dotted[at])
    assert np.isclose(100 * missing, right["attention: pairs"])
    assert f"{missing:.0%} missing" in fig.axes[1].get_title()
    x = np.asarray(fig.axes[1].lines[1].get_xdata())
    slope = np.diff(line[4:]) / np.diff(x[4:]) / np.log10(2)  # from 256 pixels on: straight, side squared
    assert abs(slope - 2).max() < 0.01 and (np.diff(dotted) / np.diff(x))[-1] > 3.5 * np.log10(2)


def test_own_cost():
    def doubled(config):
        c = cost(config)
        return type(c)(c.params, {k: 2 * v for k, v in c.macs.items()})

    lines = [explore_cost(f).figure.axes[1].lines[2].get_ydata()[0] for f in (cost, doubled)]
    assert np.isclose(10 ** (lines[1] - lines[0]), 2)
