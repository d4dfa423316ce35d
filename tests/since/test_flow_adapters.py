"""Models of other conventions as velocity models: DDIM as Euler steps, fractions of timesteps, times and signs."""

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.guidance import Guided
from dit_nb.interop.official import load_official, save_official
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.since.flow import RectifiedFlow, flow_sample, flow_time
from dit_nb.since.flow_adapters import CONVENTIONS, NoiseAsVelocity, TimeConvention
from gaussian_chain import MEAN, VAR, gaussian_velocity, normal
from support import DEVICES, raises_input_error, randomize, relative, tiny_model

FULL = Diffusion()


def sample(model, x_T, times=None, step="euler", **options):
    flow = times if isinstance(times, RectifiedFlow) else RectifiedFlow(times=times)
    return flow_sample(flow, model, x_T.shape, step=step, x_T=x_T, progress=False, **options)


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
    assert relative(model(x, 1000 * t), gaussian_velocity(x, 1000 * t)) < 1e-8
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
        v = gaussian_velocity(x, 1000 * noise_time)
        return v if convention.sign == 1 else -v

    x_T, flow = normal(3, 1, 2, 2), RectifiedFlow(shift=2.0).respaced(6)
    assert relative(sample(convention.wrap(theirs), x_T, flow), sample(gaussian_velocity, x_T, flow)) < 1e-10
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


def test_invalid_arguments_of_adapters():
    for name, value in {"noise_at": 2, "sign": 0, "scale": 0.0}.items():
        with raises_input_error(f"^{name} is {value},"):
            TimeConvention(**{name: value})
    with raises_input_error("^diffusion is "):
        NoiseAsVelocity(gaussian_velocity, RectifiedFlow())
    with raises_input_error("^model is 3,"):
        CONVENTIONS["sit"].wrap(3)
