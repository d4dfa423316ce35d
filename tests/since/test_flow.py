"""Rectified flow against closed forms for Gaussian data, against DDPM and DDIM, and against diffusers."""

import math

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.guidance import Guided
from dit_nb.interop.official import load_official, save_official
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
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
from dit_nb.since.flow_adapters import CONVENTIONS, NoiseAsVelocity, TimeConvention
from dit_nb.speed import InferenceModel
from gaussian_chain import MEAN, VAR, GaussianChain, normal
from support import DEVICES, raises_input_error, randomize, relative, tiny_model

STD = math.sqrt(VAR)
FULL = Diffusion()


def gaussian(x, time, y=None):
    """The exact velocity for Gaussian data, by regression of noise - x0 on x_t."""
    t = time.view(-1, *[1] * (x.ndim - 1)) / 1000
    slope = (t - (1 - t) * VAR) / ((1 - t) ** 2 * VAR + t**2)
    return slope * (x - (1 - t) * MEAN) - MEAN


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
        ours = gaussian(ends, torch.full((2,), 1000 * at))[:, 0]
        spread = float((noise - x0).std()) / 100_000**0.5 / float(x_t.std())  # standard error of the slope
        assert abs(ours[1] - ours[0] - slope) < 5 * spread and abs(ours[0] - intercept) < 10 * spread
        best = flow.training_losses(gaussian, x0, t, noise=noise)["loss"].mean()
        other = flow.training_losses(lambda x, t, y: 1.1 * gaussian(x, t) + 0.05, x0, t, noise=noise)["loss"]
        assert best < other.mean()


@pytest.mark.parametrize("step, order", [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_order(step, order):
    x_T = normal(3, 1, 1, 1)
    ends = [sample(gaussian, x_T, RectifiedFlow().respaced(n), step) for n in (50, 100, 200)]
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
    end = sample(gaussian, x_T, RectifiedFlow().respaced(200), "stochastic", generator=rng)
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


def bridge_times(diffusion):
    return torch.cat([flow_time(diffusion.alphas_cumprod).flip(0), torch.zeros(1).double()])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ddim_is_euler_on_a_straight_path(scale):
    model, sampling = digit_model("cpu", torch.float64)
    full, y, x_T = make_diffusion(sampling), torch.arange(4), normal(4, 1, 8, 8)
    guided = Guided(model, scale) if scale != 1 else model
    for spec in ("10", "ddim25"):
        short, seen, flow_seen = full.respaced(spec), [], []
        times = bridge_times(short)
        size = ((1 - times) ** 2 + times**2).sqrt().tolist()
        ddim = ddim_sample(short, guided, x_T.shape, y, x_T=x_T, callback=seen.append, progress=False)
        end = sample(NoiseAsVelocity(guided, full), size[0] * x_T, times, y=y, callback=flow_seen.append)
        assert (ddim - end).abs().max() < 1e-10
        for i, (ours, theirs) in enumerate(zip(flow_seen, seen)):
            assert (ours.x_t - size[i] * theirs.x_t).abs().max() < 1e-10


def test_the_bridge_is_exact_between_timesteps():
    log_snr = (FULL.alphas_cumprod / (1 - FULL.alphas_cumprod)).log().numpy()

    def noise_model(x, t, y=None):
        bar = torch.special.expit(torch.tensor(np.interp(t.numpy(), np.arange(1000), log_snr)))
        bar = bar.view(-1, 1, 1, 1)
        return (1 - bar).sqrt() * (x - bar.sqrt() * MEAN) / (bar * VAR + 1 - bar)

    x, model = normal(200, 1, 1, 1), NoiseAsVelocity(noise_model, FULL)
    t = torch.linspace(0.0101, 0.9936, 200, dtype=torch.float64)
    assert relative(model(x, 1000 * t), gaussian(x, 1000 * t)) < 1e-8
    ends = model(x[:2], torch.tensor([0.0, 1000.0]).double())
    assert torch.isfinite(ends).all()
    assert (ends[1] - (x[1] - MEAN)).abs().max() < 0.05  # the last timestep is nearly noise alone


def test_guidance_inside_and_outside_of_the_bridge():
    model, _ = digit_model("cpu", torch.float64)
    x, t, y = normal(6, 1, 8, 8), 1000 * torch.linspace(0.05, 0.95, 6).double(), torch.arange(6)
    inside = NoiseAsVelocity(Guided(model, 4.0), FULL)(x, t, y)
    outside = Guided(NoiseAsVelocity(model, FULL), 4.0)(x, t, y)
    assert relative(outside, inside) < 1e-9
    assert NoiseAsVelocity(model.train(), FULL).training


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_model_of_another_convention_gives_the_same_samples(name):
    convention = CONVENTIONS[name]

    def theirs(x, time, y=None):  # what such a model is: its own time, its own velocity
        share = time / (1 if convention.scale == 1 else 1000)
        noise_time = share if convention.noise_at == 1 else 1 - share
        v = gaussian(x, 1000 * noise_time)
        return v if convention.sign == 1 else -v

    x_T, flow = normal(3, 1, 2, 2), RectifiedFlow(shift=2.0).respaced(6)
    assert relative(sample(convention.wrap(theirs), x_T, flow), sample(gaussian, x_T, flow)) < 1e-10
    t = torch.linspace(0, 1, 11).double()
    assert (convention.to_flow(convention.from_flow(t)) - t).abs().max() < 1e-12
    ends = convention.from_flow(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == ([0, convention.scale] if convention.noise_at else [convention.scale, 0])


def test_a_flux_module_of_diffusers_embeds_1000_t_as_sd3_does():
    """Its own convention is scale 1: the factor is inside."""
    diffusers = pytest.importorskip("diffusers")
    widths = dict(attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8)
    flux = diffusers.FluxTransformer2DModel(
        1, 4, num_layers=1, num_single_layers=1, axes_dims_rope=(2, 2, 4), **widths
    )
    seen = []
    flux.time_text_embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))

    def model(x, time, y=None):
        ids = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(1, 3)}
        texts = {"encoder_hidden_states": torch.zeros(2, 1, 8), "pooled_projections": torch.zeros(2, 8)}
        tokens = x.flatten(2).mT  # (N, 4, C)
        return flux(tokens, timestep=time, **texts, **ids).sample.mT.view_as(x)

    t = torch.tensor([0.25, 0.75])
    RectifiedFlow().velocity(CONVENTIONS["flux"].wrap(model), torch.zeros(2, 4, 2, 2), t)
    torch.testing.assert_close(seen[0], 1000 * t)


def test_a_sit_checkpoint_loads(tmp_path):
    config = DiTConfig(8, 2, 4, 384, 2, 6, num_classes=10, learn_sigma=True)
    model = randomize(DiT(config)).eval()
    save_official(model, tmp_path / "sit.pt")
    loaded, _ = load_official(tmp_path / "sit.pt")
    sit = CONVENTIONS["sit"].wrap(loaded)
    x, y, t = normal(3, 4, 8, 8).float(), torch.tensor([0, 3, 9]), torch.tensor([0.0, 0.4, 1.0])
    v = RectifiedFlow().velocity(sit, x, t, y)
    for i in range(3):  # SiT: x = time * data + (1 - time) * noise, and the first half is data - noise
        to_data = model(x[i : i + 1], 1 - t[i : i + 1], y[i : i + 1])[:, :4]
        assert relative(v[i : i + 1], -to_data) < 1e-4
    assert sit.null_class == 10 and not sit.training and v.std() > 0.01
    end = flow_sample(RectifiedFlow().respaced(2), Guided(sit, 1.5, 3), x.shape, y, x_T=x, progress=False)
    assert end.shape == x.shape and torch.isfinite(end).all()


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("adapter", ["noise", "sit"])
def test_adapted_models_on_a_device(adapter, device):
    """Samples in float32 there, against float64 on the CPU."""
    results = []
    for place in ({"device": device, "dtype": torch.float32}, {"dtype": torch.float64}):
        model = tiny_model(learn_sigma=False, scale=0.1).to(**place)
        wrapped = NoiseAsVelocity(model, FULL) if adapter == "noise" else CONVENTIONS["sit"].wrap(model)
        x_T, y = normal(2, *model.image_shape).to(**place), torch.tensor([1, 3], device=place.get("device"))
        flow = RectifiedFlow(shift=2.0).respaced(4)
        results.append(flow_sample(flow, wrapped, x_T.shape, y, x_T=x_T, step="heun", progress=False))
    assert results[0].device.type == device and relative(*results) < 1e-3


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
    assert torch.equal(sample(gaussian, x_T, flow, still, callback=seen.append), x_T)
    assert all(isinstance(one, FlowStep) for one in seen)
    assert [(one.i, round(one.t, 9)) for one in seen] == [(0, 0.9), (1, 0.3)]
    assert relative(seen[1].v, gaussian(x_T, torch.full((5,), 300.0).double())) < 1e-12


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


def test_input_errors():
    flow, x = RectifiedFlow(), torch.zeros(2, 1, 2, 2)
    t = torch.tensor([0.2, 0.4])
    for density in ("mode", (0.0, 0.0), (1.0,), (0.0, float("nan")), None):
        with raises_input_error("density is"):
            RectifiedFlow(density)
    for shift in (0, -1.0, "3", math.inf):
        with raises_input_error("shift is"):
            RectifiedFlow(shift=shift)
    for times in ([1.0], [0.5, 0.7, 0.0], [1.0, 0.5], [2.0, 0.0], [math.nan, 0.0]):
        with raises_input_error("times is"):
            RectifiedFlow(times=torch.tensor(times))
    for spec in ("ddim50", "0", 0, "10,20", 2.5):
        with raises_input_error("steps is"):
            flow.respaced(spec)
    for bad in (torch.tensor([5, 6]), torch.tensor([0.2]), torch.tensor([0.2, 400.0]), 0.5):
        with raises_input_error("t (is|holds)"):
            flow.training_losses(wavy, x, bad)
    with raises_input_error("noise has shape"):
        flow.training_losses(wavy, x, t, noise=x[:1])
    with raises_input_error("the model returned shape"):
        flow.training_losses(lambda x, t, y: x[:, :, :1], x, t)
    for name, value in {"noise_at": 2, "sign": 0, "scale": 0.0}.items():
        with raises_input_error(f"{name} is"):
            TimeConvention(**{name: value})
    with raises_input_error("diffusion is"):
        NoiseAsVelocity(wavy, flow)


@pytest.mark.parametrize(
    "words, changes",
    [
        ("flow is", {"flow": FULL}),
        ("model is", {"model": 3}),
        ("step is", {"step": "dpm"}),
        ("step is", {"step": 2}),
        ("shape is", {"shape": (2,)}),
        ("shape is", {"shape": (2, -1, 2, 2)}),
        ("x_T is", {"x_T": torch.zeros(1, 1, 2, 2)}),
        ("y is", {"y": torch.arange(3)}),
        ("clip_x0 is", {"clip_x0": 1}),
        ("callback is", {"callback": 1}),
        ("progress is", {"progress": 1}),
    ],
)
def test_input_errors_of_the_sampler(words, changes):
    arguments = {"flow": RectifiedFlow().respaced(2), "model": wavy, "shape": (2, 1, 2, 2), "progress": False}
    with raises_input_error(words):
        flow_sample(**{**arguments, **changes})


def test_training_mode_is_an_error():
    with raises_input_error(r"train\(\) mode"):
        flow_sample(RectifiedFlow(), tiny_model().train(), (1, 3, 4, 6), torch.tensor([0]))


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
