"""Every array recorded from the official implementation, within 1e-5 of its largest entry."""

import math

import numpy as np
import pytest
import torch

from dit_nb import Diffusion
from dit_nb.conditioning import timestep_embedding
from dit_nb.guidance import Guided
from dit_nb.positions import sincos_2d
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.schedule import space_timesteps
from support import CASES, GOLDEN, Golden, relative

TOLERANCE = 1e-5


def same(got, want):
    assert relative(got, want) < TOLERANCE


# The official code multiplies timesteps up to 999 with frequencies up to 1 in float32: each rounding is at most
# 2**-24 of the phase, and there are two (frequency, product). Cosine and sine pass a phase error on undiminished.
FLOAT32_PHASE_ERROR = 2 * 999 * 2**-24


def test_embeddings():
    a = np.load(GOLDEN / "embeddings.npz")
    recorded = torch.from_numpy(a["timestep_256"])
    got = timestep_embedding(torch.from_numpy(a["timesteps"]))
    assert (got - recorded).abs().max() < FLOAT32_PHASE_ERROR
    same(sincos_2d((16, 16), 64), a["sincos_16x64"])
    same(sincos_2d((4, 4), 1152), a["sincos_4x1152"])


def test_timestep_embedding_is_exact_to_float32():
    t = torch.arange(1000)
    phases = [[k * math.exp(-math.log(10000) * i / 128) for i in range(128)] for k in range(1000)]
    exact = torch.tensor([[*map(math.cos, row), *map(math.sin, row)] for row in phases], dtype=torch.float64)
    assert (timestep_embedding(t).double() - exact).abs().max() < 2**-24  # one rounding to float32


def test_schedule_tables():
    diffusion = Diffusion()
    for name, table in np.load(GOLDEN / "schedule.npz").items():
        assert relative(getattr(diffusion, name), table) < 1e-12, name


def test_respacing():
    arrays = np.load(GOLDEN / "respacing.npz")
    assert len(arrays.files) == 9
    for name, kept in arrays.items():
        spec = name.replace("s", "").replace("d", "ddim", 1)
        assert space_timesteps(1000, spec) == kept.tolist(), name


def test_forward(golden):
    same(golden.model.pos_embed, golden.pos_embed)
    same(golden.model(golden.xt, golden.t, golden.y), golden.forward)
    null = torch.full_like(golden.y, golden.model.null_class)
    same(golden.model(golden.xt, golden.t, null), golden.forward_null)


def test_guidance_on_three_channels(golden):
    guided = Guided(golden.model, float(golden.cfg_scale), guided_channels=3)
    n = len(golden.xt)
    same(guided(golden.xt, golden.t, golden.y), golden.forward_cfg3[:n])


def test_training_losses(golden):
    diffusion = Diffusion()
    same(diffusion.q_sample(golden.x0, golden.t, golden.noise), golden.xt)
    losses = diffusion.training_losses(golden.model, golden.x0, golden.t, golden.y, noise=golden.noise)
    for name in ("loss", "mse", "vb"):
        same(losses[name], getattr(golden, f"loss_{name}"))


def test_p_and_q_moments(golden):
    diffusion = Diffusion()
    p = diffusion.p_mean_variance(golden.model, golden.xt, golden.t, golden.y)
    same(p.mean, golden.p_mean)
    same(p.log_variance, golden.p_log_variance)
    same(p.log_variance.exp(), golden.p_variance)
    same(p.x0, golden.p_pred_xstart)
    clipped = diffusion.p_mean_variance(golden.model, golden.xt, golden.t, golden.y, clip_x0=True)
    same(clipped.mean, golden.p_mean_clipped)
    mean, log_variance = diffusion.q_posterior(golden.x0, golden.xt, golden.t)
    same(mean, golden.q_mean)
    same(log_variance.expand_as(mean), golden.q_log_variance.expand_as(mean))
    variance = diffusion.posterior_variance[golden.t].float().view(-1, 1, 1, 1)
    same(variance.expand_as(mean), golden.q_variance.expand_as(mean))


def test_bits_per_dim_terms(golden):
    diffusion = Diffusion()
    p = diffusion.p_mean_variance(golden.model, golden.xt, golden.t, golden.y, clip_x0=True)
    same(diffusion.vb_terms(p, golden.x0, golden.xt, golden.t), golden.vb_clipped_bpd)
    same(diffusion.prior_bpd(golden.x0), golden.prior_bpd)


def replay(case, sample, spec, kind, **options):
    """Run a recorded chain again and return each x, as recorded."""
    diffusion, chain = Diffusion().respaced(spec), []
    start = getattr(case, f"{kind}_start")
    assert diffusion.timestep_map.tolist() == sorted(getattr(case, f"{kind}_timesteps").tolist())
    labels = case.y[: len(start)]
    collect = {"callback": lambda step: chain.append(step.x_prev), "progress": False}
    sample(diffusion, case.model, tuple(start.shape), labels, x_T=start, **collect, **options)
    return torch.stack(chain)


def test_ddpm_chain(golden):
    same(replay(golden, ddpm_sample, "10", "ddpm", step_noise=golden.ddpm_noise), golden.ddpm_chain)


def test_ddim_chain(golden):
    same(replay(golden, ddim_sample, "ddim10", "ddim"), golden.ddim_chain)


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_forward_on_cuda(name):
    case = Golden(name, "cuda")
    assert relative(case.model(case.xt, case.t, case.y), case.forward) < 1e-4
