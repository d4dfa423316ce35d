"""The explorer of lesson 34, against samples of the library."""

from functools import partial

import numpy as np
import pytest
import torch

from dit_nb.guidance import cfg_eps
from dit_nb.pretrained import block_model, digit_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.guidance import GuidedBy, cfg_zero_star, projected_guidance, rescaled_guidance
from dit_nb.teach.explore.guidance_today import _METHODS, _SCALES, explore_guidance_today
from dit_nb.visual import COLORS
from support_explorers import is_wrong


@pytest.fixture(scope="module")
def explorer():
    return explore_guidance_today()


def tiles(ax):
    """The sixteen samples in a panel, and which have a red frame."""
    grid = np.asarray(ax.images[0].get_array()).reshape(4, 10, 4, 10, 3).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(16, 10, 10, 3)
    return torch.from_numpy(grid[:, 1:9, 1:9, 0] * 2 - 1).float(), grid[:, 0, 0, 1] < 0.9


def sample(method, w, label=3):
    """Samples by the library's own wrapper, with the models themselves."""
    model, sampling = digit_model("cpu")
    diffusion = make_diffusion(sampling)
    velocity = NoiseAsVelocity(model, diffusion)
    guided = {
        "interval": lambda: GuidedBy(velocity, partial(cfg_eps, cfg_scale=w), interval=(100, 600)),
        "rescaled": lambda: GuidedBy(velocity, partial(rescaled_guidance, cfg_scale=w)),
        "CFG-Zero*": lambda: GuidedBy(velocity, partial(cfg_zero_star, cfg_scale=w), zero_from=999),
        "APG": lambda: GuidedBy(
            velocity, partial(projected_guidance, cfg_scale=w, threshold=2.0), x0_of=RectifiedFlow()
        ),
        "autoguidance": lambda: GuidedBy(
            velocity,
            partial(cfg_eps, cfg_scale=w),
            worse=NoiseAsVelocity(block_model("adaln_zero", "cpu")[0], diffusion),
        ),
    }[method]()
    x_T = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flow, labels = RectifiedFlow().respaced("12"), torch.full((16,), label)
    return flow_sample(flow, guided, x_T.shape, labels, x_T=x_T, progress=False)[:, 0].clamp(-1, 1)


@pytest.mark.parametrize("method", _METHODS)
def test_samples_equal_the_library(explorer, at, method):
    images, wrong = tiles(at(explorer, method=method, w=3.0)[1])
    assert (images - sample(method, 3.0)).abs().max() < 1e-2 and not wrong.any()


def distances(axes):
    """Mean distance at each scale, of plain guidance and of the method."""
    return [np.asarray(line.get_xdata(), dtype=float) for line in axes[2].lines[1::2]]


def test_experiments(explorer, at):
    now = _SCALES.index(3.0)
    for method in _METHODS:
        plain, ours = distances(at(explorer, method=method))
        assert plain[0] == pytest.approx(ours[0], rel=0.02) or method == "CFG-Zero*"  # w = 1 guides nothing
        assert ours[now] > plain[now]
        assert (ours[now] > ours[0]) == (method == "autoguidance")
    saturated = [
        tiles(ax)[0].abs().flatten(1).gt(0.99).float().mean()
        for ax in at(explorer, method="rescaled", w=5.0)[:2]
    ]
    assert saturated[1] < saturated[0]
    harm = {}
    for method in _METHODS:
        axes = at(explorer, method=method, is_exchanged=True)
        harm[method] = tiles(axes[1])[1].sum()
        assert is_wrong(axes[1].title) and axes[2].lines[-1].get_color() == COLORS["wrong"]
    fewest = harm.pop("autoguidance")
    assert min(harm.values()) >= 12 > fewest


def test_own_rule(at):
    seen = []

    def project(cond, uncond, cfg_scale, eta, threshold):
        seen.append((cfg_scale, eta, threshold))
        return cond

    plain, ours = distances(at(explore_guidance_today(project)))
    assert np.ptp(ours) < 0.05 < np.ptp(plain) and {s for s, _, _ in seen} == set(_SCALES)
