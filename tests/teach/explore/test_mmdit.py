"""The explorer of lesson 33, against the bundled model's own prediction."""

import pytest
import torch

from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.mmdit import joint_attention
from dit_nb.teach.explore.mmdit import _model, _picture, _predict, explore_mmdit
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_mmdit()


def at(explorer, **values):
    """The axes with some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and explorer.figure.alt_text
    return figure.axes


def largest_change(axes):
    """What padding changes at most, as the title says."""
    return float(axes[2].get_title().split()[-1])


def bar_colors(axes):
    """Color of each bar."""
    return [bar.get_facecolor() for bar in axes[3].patches]


@torch.no_grad()
def test_the_prediction_is_that_of_the_model():
    prompt, flow, t = "3d green apple", RectifiedFlow(), torch.tensor([0.7])
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x_t, y = flow.interpolate(_picture(prompt), t, noise), _model().encode_text([prompt])
    wanted = flow.to_x0(x_t, t, flow.velocity(_model(), x_t, t, y))[0].clamp(-1, 1)
    for padding in (0, 4):
        got, noisy, attention, _ = _predict(joint_attention, prompt, 0.7, padding, False)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(noisy, x_t[0])
        assert len(attention) == 4 + padding and (attention[4:] == 0).all() and attention[:4].min() > 0


def test_experiments(explorer):
    for padding in (0, 2, 6):
        assert largest_change(at(explorer, padding=padding)) < 1e-4
        axes = at(explorer, padding=padding, is_attended=True)
        assert (largest_change(axes) > 1e-3) == (padding > 0)
        wrong = [color[:3] == pytest.approx(_rgb(COLORS["wrong"])) for color in bar_colors(axes)]
        assert wrong == [False] * 4 + [True] * padding  # start, 3d, green, apple
        widths = [bar.get_width() for bar in axes[3].patches]
        assert min(widths) > 0 and sum(widths) < 1


def _rgb(color):
    from matplotlib.colors import to_rgb

    return to_rgb(color)


def test_each_prompt_and_time(explorer):
    for prompt in explorer.controls["prompt"].options:
        at(explorer, prompt=prompt[1] if isinstance(prompt, tuple) else prompt)
    for time in (0.3, 0.95):
        assert f"t = {time:g}" in at(explorer, time=time)[0].get_title()


def test_own_attention():
    def only_image(image, text, keep):
        _, for_text = joint_attention(image, text, keep)
        return torch.zeros_like(image[0]), for_text

    ours, theirs = (_predict(f, "3d green apple", 0.7, 0, False)[0] for f in (only_image, joint_attention))
    assert (ours - theirs).abs().max() > 1e-2
    at(explore_mmdit(only_image))
