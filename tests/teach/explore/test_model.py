"""The explorer of lesson 12, against counts of parameters and multiply-adds."""

import numpy as np
import pytest
import torch

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.model import BLOCKS, DiT
from dit_nb.teach.explore.model import _split_cost, explore_model
from dit_nb.visual import COLORS
from support_explorers import turn

TABLE_4_GFLOPS = {0.36, 1.41, 6.06, 1.42, 5.56, 23.01, 5.01, 19.70, 80.71, 7.39, 29.05, 118.64}


@pytest.fixture(scope="module")
def shared():
    return explore_model()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def test_area_is_multiply_adds(explorer):
    for size, patch, image, block in (("XL", 2, 256, "adaln_zero"), ("S", 8, 512, "cross_attention")):
        fig = turn(explorer, size=size, patch=patch, pixels=image, block=block)
        config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=image // 8, block=block)
        c, tokens = cost(config), config.grid[0] ** 2
        area = sum(box.get_width() * box.get_height() for box in fig.axes[0].patches)
        assert np.isclose(area * c.total_params * tokens, c.total_macs)
        weights = [box.get_width() * c.total_params for box in fig.axes[0].patches if not box.get_hatch()]
        assert np.isclose(sum(weights), c.total_params) and np.isclose(weights[0], c.params["mlp"])
        star = fig.axes[1].lines[-1]
        assert np.isclose(10 ** star.get_xdata()[0], c.total_params / 1e6)
        assert np.isclose(10 ** star.get_ydata()[0], c.total_macs / 1e9)


@pytest.mark.parametrize("block", BLOCKS)
def test_split_cost_counts_conditioned_parameters(block):
    config = DiTConfig.named("DiT-S/4", block=block)
    with torch.device("meta"):
        model = DiT(config)
    count = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    conditioned = ("adaLN", "t_embedder", "y_embedder", "cross_attn")
    parts = _split_cost(config)
    assert parts["t and y"][0] == sum(
        n for name, n in count.items() if any(word in name for word in conditioned)
    )
    assert parts["MLP"][0] == sum(n for name, n in count.items() if ".mlp." in name and "blocks" in name)
    assert sum(p for p, _ in parts.values()) == sum(count.values())
    assert sum(m for _, m in parts.values()) == cost(config).total_macs


def test_experiments(explorer):
    heights, works = [], []
    for patch in (8, 4, 2):
        fig = turn(explorer, patch=patch)
        heights.append(fig.axes[0].patches[2].get_height())
        works.append(10 ** fig.axes[1].lines[-1].get_ydata()[0])
    assert heights == sorted(heights, reverse=True) and heights[0] > 10 * heights[2]
    assert all(3.9 < b / a < 4.2 for a, b in zip(works, works[1:]))
    green = {}
    for block in BLOCKS:
        box = turn(explorer, block=block).axes[0].patches[2]
        green[block] = box.get_width(), box.get_height()
    assert green["in_context"][0] < 0.01 and all(0.24 < green[b][0] < 0.35 for b in list(BLOCKS)[1:])
    assert green["cross_attention"][1] > 0.4 and max(green["adaln"][1], green["adaln_zero"][1]) < 0.01
    rings = {round(10**gflops, 2) for gflops in explorer.figure.axes[1].lines[0].get_ydata()}
    assert rings == TABLE_4_GFLOPS
    star = 10 ** explorer.reset().figure.axes[1].lines[-1].get_ydata()[0]
    assert abs(star / 118.64 - 1) < 0.001
    fig = turn(explorer, wrong=True)
    assert np.isclose(10 ** fig.axes[1].lines[-1].get_ydata()[0], 2 * star)
    assert fig.axes[1].lines[-1].get_color() == COLORS["wrong"]
