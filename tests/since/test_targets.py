"""Prediction targets: conversions by the path's definition, and exact Gaussian predictions."""

import pytest
import torch

from dit_nb import SamplingConfig
from dit_nb.config import _TARGETS
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.targets import TARGETS, TargetFlow, loss_weight, to_velocity
from support import DEVICES, raises_input_error, relative


def test_the_settings_know_the_same_targets():
    assert set(_TARGETS) == set(TARGETS)
    for predicts in ("image", "noise"):
        with raises_input_error(f"predicts.*{predicts}.*velocity"):
            SamplingConfig(predicts=predicts)  # of a diffusion
    for density in ((1.0,), (0.0, 0.0), (0.0, float("nan")), "normal", 3):
        with raises_input_error("time_density"):
            SamplingConfig(objective="flow", time_density=density)


M, S = 0.4, 0.3  # mean and standard deviation of Gaussian data


def case(seed=0):
    g = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(5, 2, 3, 3, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.06, 0.3, 0.5, 0.7, 0.94], dtype=torch.float64)
    return x0, noise, t, RectifiedFlow().interpolate(x0, t, noise)


def exact(predicts):
    """The exact posterior mean of Gaussian data N(M, S²), as a model of 1000 t."""

    def model(x, t, y=None):
        t = (t / 1000).view(-1, *[1] * (x.ndim - 1))
        centered = (x - (1 - t) * M) / ((1 - t) ** 2 * S**2 + t**2)
        image, noise = M + (1 - t) * S**2 * centered, t * centered
        return {"noise": noise, "image": image, "velocity": noise - image}[predicts]

    return model


@pytest.mark.parametrize("predicts", TARGETS)
def test_the_true_prediction_gives_the_true_velocity(predicts):
    x0, noise, t, x_t = case()
    truth = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
    v = to_velocity(truth, x_t, t, predicts)
    assert relative(v, noise - x0) < 1e-12
    flow = RectifiedFlow()
    assert relative(flow.to_x0(x_t, t, v), x0) < 1e-12 and relative(flow.to_noise(x_t, t, v), noise) < 1e-12


@pytest.mark.parametrize("predicts", TARGETS)
def test_the_weight_turns_one_error_into_the_other(predicts):
    x0, noise, t, x_t = case()
    truth = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
    wrong = truth + torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)).double()
    error = (wrong - truth).square().flatten(1).mean(1)
    of_velocity = (to_velocity(wrong, x_t, t, predicts) - (noise - x0)).square().flatten(1).mean(1)
    assert relative(error * loss_weight(t, predicts), of_velocity) < 1e-10


def test_nothing_is_infinite_at_the_ends():
    x = torch.ones(2, 1, 2, 2)
    t = torch.tensor([0.0, 1.0])
    for predicts in TARGETS:
        assert (
            to_velocity(0 * x, x, t, predicts).abs().max() <= 20 and loss_weight(t, predicts).max() <= 400.01
        )
    assert to_velocity(0 * x, x, t, "image", least=0.5).flatten(1).amax(1).tolist() == [2, 1]


@pytest.mark.parametrize("predicts", TARGETS)
def test_exact_models_of_every_kind_sample_the_same(predicts):
    """And what Gaussian data must give: mean M and deviation S."""
    x_T = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.linspace(
        0.94, 0, 48, dtype=torch.float64
    )  # the divisors are not limited here, but for the last
    start = 0.06 * M + (0.06**2 * S**2 + 0.94**2) ** 0.5 * x_T
    flow = TargetFlow(predicts, least=0.01, times=times)
    same = RectifiedFlow(times=times)
    options = dict(x_T=start, progress=False)
    got = flow_sample(flow, exact(predicts), start.shape, **options)
    assert relative(got, flow_sample(same, exact("velocity"), start.shape, **options)) < 1e-9
    # 4000 samples: standard errors 0.005 and 0.003; Euler's error in 47 steps is about 0.01.
    assert abs(float(got.mean()) - M) < 0.03 and abs(float(got.std()) - S) < 0.03


@pytest.mark.parametrize("predicts", TARGETS)
def test_losses_of_all_kinds_are_that_of_the_velocity(predicts):
    x0, noise, t, _ = case()
    got = TargetFlow(predicts).training_losses(exact(predicts), x0, t, noise=noise)
    want = RectifiedFlow().training_losses(exact("velocity"), x0, t, noise=noise)
    assert relative(got["loss"], want["loss"]) < 1e-9
    assert relative(got["mse"] * loss_weight(t, predicts), got["loss"]) < 1e-12


def test_respacing_keeps_what_is_predicted():
    flow = TargetFlow("noise", 0.1, density="uniform", shift=3.0).respaced("20")
    assert (flow.predicts, flow.least, flow.density, flow.shift, len(flow.times)) == (
        "noise",
        0.1,
        "uniform",
        3.0,
        21,
    )
    assert torch.equal(flow.times, RectifiedFlow("uniform", 3.0).respaced("20").times)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("predicts", TARGETS)
def test_loss_gradient_and_samples_on_a_device(predicts, device):
    """float32 there, against float64 on the CPU."""
    (x0, noise, t, _), results = case(), []
    for place in ({"device": device, "dtype": torch.float32}, {"dtype": torch.float64}):
        flow, args = TargetFlow(predicts).respaced(5), [a.to(**place) for a in (x0, t, noise)]
        factor = torch.tensor(0.9, **place, requires_grad=True)

        def model(x, t, y=None, factor=factor):
            return factor * exact(predicts)(x, t)

        loss = flow.training_losses(model, args[0], args[1], noise=args[2])["loss"]
        loss.sum().backward()
        end = flow_sample(flow, model, args[2].shape, x_T=args[2], step="heun", progress=False)
        results.append((loss.detach(), factor.grad, end))
    for got, want in zip(*results):
        assert got.device.type == device and relative(got, want) < 1e-3


def test_further_channels_are_ignored():
    x0, noise, t, _ = case()
    both = lambda x, t, y=None: torch.cat([exact("image")(x, t), 9 + x], 1)  # noqa: E731
    got, want = (TargetFlow().training_losses(m, x0, t, noise=noise)["loss"] for m in (both, exact("image")))
    assert torch.equal(got, want)


def test_invalid_arguments():
    for call in (
        lambda: TargetFlow("x0"),
        lambda: to_velocity(*[torch.ones(1, 1)] * 2, torch.ones(1), "eps"),
    ):
        with raises_input_error("predicts.*noise, image"):
            call()
    with raises_input_error("least.*0.*between 0 and 1"):
        TargetFlow("image", 0)
