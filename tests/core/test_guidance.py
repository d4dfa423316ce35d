"""Classifier-free guidance."""

import pytest
import torch

from dit_nb import Diffusion
from dit_nb.guidance import Guided, cfg_eps
from dit_nb.sampling import ddpm_sample
from gaussian_chain import normal
from support import error_cases, raises_input_error, relative, tiny_model


def test_guidance_on_three_channels_is_the_official_one(golden):
    channels = golden.xt.shape[1]
    guided = Guided(golden.model, float(golden.cfg_scale), guided_channels=min(3, channels))
    got, want = guided(golden.xt, golden.t, golden.y), golden.forward_cfg3[: len(golden.xt)]
    if channels < 3:  # the official code guides the variance values of such a model, too; ours refuses it
        got, want = got[:, :channels], want[:, :channels]
    assert relative(got, want) < 1e-5


class LabelModel:
    """eps is x times the label, and the variance values are x plus the timestep."""

    null_class = 9

    def __call__(self, x, t, y):
        return torch.cat([x * y.view(-1, 1, 1, 1), x + t.view(-1, 1, 1, 1)], dim=1)


def test_guidance_is_its_formula_on_each_channel():
    x, t, y = normal(2, 4, 2, 2), torch.tensor([5, 7]), torch.tensor([1, 2])
    for channels in (None, 1, 3):
        k, want = channels or 4, LabelModel()(x, t, y)
        for i in range(2):
            want[i, :k] = 9 * x[i, :k] + 2.5 * (y[i] * x[i, :k] - 9 * x[i, :k])
        assert relative(Guided(LabelModel(), 2.5, guided_channels=channels)(x, t, y), want) < 1e-12
    assert torch.equal(Guided(LabelModel(), 1.0)(x, t, y), LabelModel()(x, t, y))
    assert relative(Guided(LabelModel(), 0.0)(x, t, y)[:, :4], 9 * x) < 1e-12
    assert cfg_eps(3.0, 1.0, 4.0) == 9.0


@pytest.mark.parametrize("scale,images", [(1.0, 2), (1.5, 4)])
def test_scale_1_needs_one_forward_pass(scale, images):
    sizes = []

    def model(x, t, y):
        sizes.append(len(x))
        return x

    Guided(model, scale, null_class=9)(normal(2, 1, 2, 2), torch.tensor([5, 7]), torch.tensor([1, 2]))
    assert sizes == [images]


X, T, Y = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])


def make(**fields):
    return tiny_model(input_size=4, depth=1, **fields)


@error_cases(
    (lambda: Guided(make(num_classes=0), 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(make(class_dropout_prob=0.0), 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(lambda x, t, y: x, 4.0), "cfg_scale.*4.0.*null class"),
    (lambda: Guided(make(), float("nan")), "cfg_scale.*nan.*finite"),
    (lambda: Guided(make(), 4.0, guided_channels=0), "guided_channels.*0.*1 or more"),
    (
        lambda: Guided(make(), 4.0, guided_channels=4)(X, T, Y),
        "guided_channels is 4.*at most 3, the channels of x",
    ),
    (
        lambda: Guided(make(), 1.0, guided_channels=4)(X, T, Y),
        "guided_channels is 4.*at most 3, the channels of x",
    ),
    (lambda: Guided(make(), 4.0)(X, T, None), "y.*missing"),
    (
        lambda: ddpm_sample(Diffusion().respaced("2"), Guided(make(), 4.0), X.shape, progress=False),
        "y.*missing",
    ),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()
