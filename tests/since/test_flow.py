"""Rectified flow against closed forms for Gaussian data, against DDPM and DDIM, and against diffusers."""

import math

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.guidance import Guided
from dit_nb.since.flow import (
    FlowStep,
    RectifiedFlow,
    euler_step,
    flow_sample,
    flow_time,
    heun_step,
    shift_time,
    stochastic_step,
)
from dit_nb.speed import InferenceModel
from gaussian_chain import MEAN, VAR, GaussianChain, gaussian_velocity, normal
from support import DEVICES, randomize, relative, tiny_model

STD = math.sqrt(VAR)
FULL = Diffusion()


def wavy(x, time, y=None):
    """No ideal model of anything, not linear in x, with channels that must be ignored."""
    v = torch.tanh(2 * x) * (1 + time.view(-1, 1, 1, 1) / 1000)
    return torch.cat([v, torch.full_like(v, torch.nan)], dim=1)


def sample(model, x_T, times=None, step="euler", **options):
    flow = times if isinstance(times, RectifiedFlow) else RectifiedFlow(times=times)
    return flow_sample(flow, model, x_T.shape, step=step, x_T=x_T, progress=False, **options)


def test_a_velocity_gives_back_both_ends_of_the_path():
    flow, x0, noise = RectifiedFlow(), normal(4, 2, 3, 4), normal(4, 2, 3, 4, seed=1)
    t = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    x_t = flow.interpolate(x0, t, noise)
    assert torch.equal(x_t[0], x0[0]) and torch.equal(x_t[3], noise[3])
    assert relative(flow.to_x0(x_t, t, noise - x0), x0) < 1e-12
    assert relative(flow.to_noise(x_t, t, noise - x0), noise) < 1e-12
    step = 1e-6  # the velocity is the derivative of the path
    t = torch.full((4,), 0.4, dtype=torch.float64)
    change = flow.interpolate(x0, t + step, noise) - flow.interpolate(x0, t - step, noise)
    assert relative(change / (2 * step), noise - x0) < 1e-8


def test_the_loss_is_that_of_loops():
    seen, x0, noise = [], normal(3, 2, 2, 3), normal(3, 2, 2, 3, seed=1)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)

    def model(x, time, y):
        seen.append((x, time, y))
        return wavy(x, time)

    losses = RectifiedFlow().training_losses(model, x0, t, torch.arange(3), noise)
    (x_t, time, y), expected = seen[0], []
    for i, one in enumerate(t.tolist()):
        mixed = (1 - one) * x0[i] + one * noise[i]
        assert relative(x_t[i], mixed) < 1e-12
        v = torch.tanh(2 * mixed) * (1 + one)
        expected.append(float(((v - noise[i] + x0[i]) ** 2).sum() / 12))
    assert relative(time, 1000 * t) < 1e-12 and torch.equal(y, torch.arange(3))
    assert (
        relative(losses["loss"], torch.tensor(expected, dtype=torch.float64)) < 1e-12
        and losses["mse"] is losses["loss"]
    )


def test_no_affine_velocity_has_a_lower_loss_than_the_conditional_mean():
    rng, flow = torch.Generator().manual_seed(0), RectifiedFlow()
    x0, noise = MEAN + STD * torch.randn(100_000, 1, generator=rng), torch.randn(100_000, 1, generator=rng)
    for at in (0.1, 0.5, 0.9):
        t = torch.full((100_000,), at)
        x_t = flow.interpolate(x0, t, noise)
        slope, intercept = np.polyfit(x_t[:, 0].numpy(), (noise - x0)[:, 0].numpy(), 1)
        ends = torch.tensor([[0.0], [1.0]])
        ours = gaussian_velocity(ends, torch.full((2,), 1000 * at))[:, 0]
        spread = float((noise - x0).std()) / 100_000**0.5 / float(x_t.std())  # standard error of the slope
        assert abs(ours[1] - ours[0] - slope) < 5 * spread and abs(ours[0] - intercept) < 10 * spread
        best = flow.training_losses(gaussian_velocity, x0, t, noise=noise)["loss"].mean()
        other = flow.training_losses(
            lambda x, t, y: 1.1 * gaussian_velocity(x, t) + 0.05, x0, t, noise=noise
        )["loss"]
        assert best < other.mean()


@pytest.mark.parametrize("step, order", [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_order(step, order):
    x_T = normal(3, 1, 1, 1)
    ends = [sample(gaussian_velocity, x_T, RectifiedFlow().respaced(n), step) for n in (50, 100, 200)]
    errors = [float((end - (MEAN + STD * x_T)).abs().max()) for end in ends]  # quantiles are kept
    for coarse, fine in zip(errors, errors[1:]):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("spec", ["10", "50"])
def test_a_stochastic_step_is_a_ddpm_step_up_to_a_scalar(spec):
    chain = GaussianChain(spec)
    x_t, x0, noise = (normal(2, 1, 2, 2, seed=seed) for seed in range(3))
    for k in range(1, len(chain.kept)):
        t, t_next = (float(flow_time(torch.tensor(bar).double())) for bar in (chain.bar[k], chain.prev[k]))
        to_flow, to_flow_next = (math.sqrt((1 - s) ** 2 + s**2) for s in (t, t_next))
        of_x0, of_xt, variance = chain.posterior(k)
        expected = of_x0 * x0 + of_xt * x_t + math.sqrt(variance) * noise
        got = stochastic_step(to_flow * x_t, (to_flow * x_t - x0) / t, t, t_next, noise)
        assert relative(got, to_flow_next * expected) < 1e-10


def test_the_stochastic_sampler_has_the_moments_of_the_data():
    x_T, rng = normal(20_000, 1, 1, 1), torch.Generator().manual_seed(1)
    end = sample(gaussian_velocity, x_T, RectifiedFlow().respaced(200), "stochastic", generator=rng)
    assert end.mean() == pytest.approx(MEAN, abs=5 * STD / 20_000**0.5)
    assert end.std() == pytest.approx(
        STD, abs=0.02
    )  # first order: the error of 200 steps is 1/4 of that of 50


def test_steps_by_hand():
    x_t, v, noise = (normal(2, 1, 2, 2, seed=seed) for seed in range(3))
    x0, eps = x_t - 0.8 * v, x_t + 0.2 * v
    assert relative(euler_step(x_t, v, 0.8, 0.5), 0.5 * x0 + 0.5 * eps) < 1e-12
    assert relative(heun_step(x_t, v, 0.8, 0.5, noise, lambda x, t: v), euler_step(x_t, v, 0.8, 0.5)) < 1e-12
    assert relative(heun_step(x_t, v, 0.8, 0.0, noise, None), x0) < 1e-12
    assert relative(stochastic_step(x_t, v, 0.8, 0.0, noise), x0) < 1e-12
    assert relative(stochastic_step(x_t, v, 1.0, 0.5, noise), 0.5 * (x_t - v) + 0.5 * noise) < 1e-12


def test_a_shift_is_an_addition_to_the_logit():
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for shift in (1 / 3, 1.0, 3.0, 8.6):
        assert relative(shift_time(t, shift).logit(), t.logit() + math.log(shift)) < 1e-10
        assert relative(shift_time(t, shift), shift * t / (1 + (shift - 1) * t)) < 1e-12  # SD3, equation 23
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        assert torch.equal(shift_time(ends, shift), ends)
    times = RectifiedFlow(shift=3.0).respaced("4").times
    assert times.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("density", ["uniform", "logit_normal", (-0.4, 0.7)])
def test_times_have_the_density(density, shift):
    times = RectifiedFlow(density, shift).sample_times(50_000, torch.Generator().manual_seed(0))
    assert times.dtype == torch.float32 and times.min() > 0 and times.max() < 1
    logits = times.double().logit() - math.log(shift)
    if density == "uniform":
        unit = logits.sigmoid()
    else:
        mean, std = (0, 1) if density == "logit_normal" else density
        unit = torch.special.ndtr((logits - mean) / std)
    gap = (unit.sort().values - torch.arange(50_000) / 50_000).abs().max()  # Kolmogorov and Smirnov
    assert gap < 1.95 / 50_000**0.5  # one in 1000 seeds


def test_times_are_those_of_diffusers():
    training_utils = pytest.importorskip("diffusers.training_utils")
    rngs = [torch.Generator().manual_seed(3) for _ in range(2)]
    theirs = training_utils.compute_density_for_timestep_sampling(
        "logit_normal", 1000, logit_mean=0.3, logit_std=0.8, generator=rngs[0]
    )
    assert (RectifiedFlow((0.3, 0.8)).sample_times(1000, rngs[1]) - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_samples_are_those_of_diffusers(shift):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8))  # without sigmas it shifts twice
    flow, x_T = RectifiedFlow(shift=shift).respaced(8), normal(2, 1, 3, 4).float()
    assert (scheduler.sigmas - flow.times).abs().max() < 1e-6
    x = x_T
    for t in scheduler.timesteps:
        x = scheduler.step(wavy(x, t.expand(2))[:, :1], t, x).prev_sample
    assert relative(sample(wavy, x_T, flow), x) < 1e-5


def test_fresh_noise_alone_is_the_stochastic_sampling_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8))
    x_T, rngs = normal(2, 1, 3, 4).float(), [torch.Generator().manual_seed(5) for _ in range(2)]
    x = x_T
    for t in scheduler.timesteps:
        x = scheduler.step(wavy(x, t.expand(2))[:, :1], t, x, generator=rngs[0]).prev_sample

    def renoise(x_t, v, t, t_next, noise, velocity):
        return (1 - t_next) * (x_t - t * v) + t_next * noise

    ours = sample(wavy, x_T, RectifiedFlow().respaced(8), renoise, generator=rngs[1])
    assert relative(ours, x) < 1e-5


def test_the_exponential_shift_of_flux_is_ours():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 10, 10), mu=1.15)
    assert (scheduler.sigmas - RectifiedFlow(shift=math.exp(1.15)).respaced(10).times).abs().max() < 1e-6


@pytest.mark.parametrize("step", ["euler", "heun", "stochastic"])
@pytest.mark.parametrize("device", DEVICES)
def test_generators_guidance_and_inference_models(device, step):
    model, y = tiny_model(scale=0.1).to(device), torch.tensor([0, 1, 4, 4], device=device)
    flow, ends = RectifiedFlow(shift=2.0).respaced(5).to(device), []
    for one in (model, InferenceModel(model), Guided(InferenceModel(model), 1.0)):
        rngs = [torch.Generator().manual_seed(i) for i in range(4)]
        options = dict(generator=rngs, clip_x0=True, progress=False, step=step)
        ends.append(flow_sample(flow, one, (4, 3, 4, 6), y, **options))
    assert max(relative(end, ends[0]) for end in ends) < 1e-4
    assert ends[0].device.type == torch.device(device).type
    assert ends[0].abs().max() <= 1 + 1e-5  # the last step ends at the clipped image


@pytest.mark.cuda
def test_cuda_training_in_bfloat16_lowers_the_loss():
    torch.manual_seed(0)
    flow, x0 = RectifiedFlow(), normal(1, 3, 16, 16).float().cuda().tanh().expand(64, -1, -1, -1)
    model = DiT(DiTConfig(16, 4, 3, 64, 2, 4, num_classes=2, learn_sigma=False)).cuda()
    optimizer, losses = torch.optim.AdamW(model.parameters(), 2e-3), []
    t, y, noise = flow.sample_times(64).cuda(), torch.zeros(64).long().cuda(), torch.randn_like(x0)
    for _ in range(40):
        with torch.autocast("cuda", torch.bfloat16):
            loss = flow.training_losses(model, x0, t, y, noise)["loss"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    assert losses[0].dtype == torch.float32 and losses[-1] < 0.7 * losses[0]


def test_an_image_depends_on_its_own_generator_alone():
    model, flow = tiny_model(scale=0.1), RectifiedFlow().respaced(3)
    options = dict(step="stochastic", progress=False)
    rngs = [torch.Generator().manual_seed(i) for i in range(3)]
    batch = flow_sample(flow, model, (3, 3, 4, 6), torch.tensor([0, 1, 2]), generator=rngs, **options)
    rng = [torch.Generator().manual_seed(2)]
    alone = flow_sample(flow, model, (1, 3, 4, 6), torch.tensor([2]), generator=rng, **options)
    assert relative(alone, batch[2:]) < 1e-5


def test_callback_own_step_and_points_of_the_plane():
    seen, flow = [], RectifiedFlow(times=torch.tensor([0.9, 0.3, 0.0], dtype=torch.float64))

    def still(x_t, v, t, t_next, noise, velocity):
        assert noise.shape == x_t.shape and relative(velocity(x_t, t), v) < 1e-12
        return x_t

    x_T = normal(5, 2)
    assert torch.equal(sample(gaussian_velocity, x_T, flow, still, callback=seen.append), x_T)
    assert all(isinstance(one, FlowStep) for one in seen)
    assert [(one.i, round(one.t, 9)) for one in seen] == [(0, 0.9), (1, 0.3)]
    assert relative(seen[1].v, gaussian_velocity(x_T, torch.full((5,), 300.0).double())) < 1e-12


def test_clipping_the_image_changes_the_velocity():
    x_T, seen = 3 * normal(2, 1, 2, 2), []
    end = sample(
        lambda x, t, y: x / (t.view(-1, 1, 1, 1) / 1000) - 5,
        x_T,
        RectifiedFlow().respaced(4),
        clip_x0=True,
        callback=seen.append,
    )
    for one in seen:  # the model's image is 5 t
        x0 = one.x_t - one.t * one.v
        assert relative(x0, torch.full_like(x0, min(5 * one.t, 1))) < 1e-9
    assert torch.isfinite(end).all()


def test_half_precision_outputs_become_float32():
    x = normal(2, 1, 2, 2).float()
    v = RectifiedFlow().velocity(lambda x, t, y: wavy(x, t).bfloat16(), x, torch.tensor([0.2, 0.8]))
    assert v.dtype == torch.float32 and v.shape == x.shape


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
@pytest.mark.parametrize("step", ("euler", "heun", "stochastic"))
def test_half_precision_noise_rounds_no_times(step, dtype):
    """bfloat16 would make 1000 t = 940 to 936; images are those of the same noise in float32."""
    seen, x_T, flow = [], normal(2, 1, 2, 2).to(dtype), RectifiedFlow(shift=2.0).respaced(7)

    def model(x, time, y):
        seen.append((x.dtype, time))
        return wavy(x, time).to(dtype)

    options = dict(step=step, progress=False)
    images = [
        flow_sample(flow, model, x_T.shape, x_T=x, generator=torch.Generator().manual_seed(1), **options)
        for x in (x_T, x_T.float())
    ]
    assert images[0].dtype == torch.float32 and torch.equal(*images)
    assert {kind for kind, _ in seen} == {torch.float32}
    visited = {float(time[0]) for _, time in seen}
    assert visited == {float(1000 * torch.tensor(t, dtype=torch.float32)) for t in flow.times[:-1].tolist()}


def test_half_precision_noise_rounds_no_precomputed_times():
    model = randomize(tiny_model(learn_sigma=False)).eval()
    x_T, y = normal(2, *model.image_shape).bfloat16(), torch.tensor([1, 2])
    plain, fast = (
        flow_sample(RectifiedFlow().respaced(5), network, x_T.shape, y, x_T=x_T, progress=False)
        for network in (model, InferenceModel(model))
    )
    assert fast.dtype == torch.float32 and relative(fast, plain) < 1e-4


def test_settings_are_kept():
    flow = RectifiedFlow("uniform", 3.0).to("cpu")
    short = flow.respaced("7")
    assert (short.density, short.shift, len(short.times), short.num_timesteps) == ("uniform", 3.0, 8, 1000)
    own = torch.tensor([0.8, 0.1, 0.0])
    assert relative(RectifiedFlow(shift=3.0, times=own).times, own) < 1e-6  # not shifted again


def test_a_step_of_ones_own_may_call_the_model_between_the_times():
    """The inference copy has a table for the given times only, and must not use it here."""
    model = randomize(tiny_model(learn_sigma=False)).eval()

    def midpoint(x_t, v, t, t_next, noise, velocity):
        middle = (t + t_next) / 2
        return x_t + (t_next - t) * velocity(x_t + (middle - t) * v, middle)

    x_T, y = normal(2, *model.image_shape).float(), torch.tensor([1, 2])
    options = dict(step=midpoint, x_T=x_T, progress=False)
    plain, fast = (
        flow_sample(RectifiedFlow().respaced(3), network, x_T.shape, y, **options)
        for network in (model, InferenceModel(model))
    )
    assert relative(fast, plain) < 1e-5
