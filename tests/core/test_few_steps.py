"""DPM-Solver++ against the exact solution for Gaussian data, against DDIM, and against diffusers."""

import numpy as np
import pytest
import torch

from dit_nb import Diffusion
from dit_nb.few_steps import dpm_solver_sample, dpm_solver_step, log_snr_timesteps, respaced_by_log_snr
from dit_nb.guidance import Guided
from dit_nb.sampling import ddim_sample
from dit_nb.speed import InferenceModel
from gaussian_chain import MEAN, VAR, normal
from support import raises_input_error, relative, tiny_model

FULL = Diffusion()
BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def even_in_lambda(n):
    """A schedule of its own, exactly even in log SNR, and its ideal model of Gaussian data."""
    bar = torch.sigmoid(2 * torch.linspace(4.6, -5, n, dtype=torch.float64))
    diffusion = Diffusion(1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))

    def model(x, t, y=None):
        a = diffusion.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * VAR + 1 - a)

    return diffusion, model


def end_error(n, order):
    """Error at the last noise level: an exact trajectory keeps its number of standard deviations from the mean."""
    diffusion, model = even_in_lambda(n)
    x_T, seen = normal(3, 1, 1, 1), []
    dpm_solver_sample(diffusion, model, x_T.shape, x_T=x_T, order=order, callback=seen.append, progress=False)
    deviations = []
    for x, bar in ((x_T, diffusion.alphas_cumprod[-1]), (seen[-1].x_t, diffusion.alphas_cumprod[0])):
        deviations.append((x - bar.sqrt() * MEAN) / (bar * VAR + 1 - bar).sqrt())
    return float((deviations[0] - deviations[1]).abs().max())


@pytest.mark.parametrize("order", [1, 2])
def test_the_error_falls_with_the_order(order):
    errors = [end_error(n, order) for n in (65, 129, 257)]
    for coarse, fine in zip(errors, errors[1:]):
        assert coarse / fine == pytest.approx(2**order, rel=0.05)
    assert errors[-1] < (0.05 if order == 1 else 5e-4)


def test_order_1_is_ddim():
    for diffusion in (even_in_lambda(20)[0], FULL.respaced("20"), respaced_by_log_snr(FULL, 20)):
        x_T, model = normal(2, 3, 2, 4), shrinking_model
        one = dpm_solver_sample(diffusion, model, x_T.shape, x_T=x_T, order=1, progress=False)
        assert relative(one, ddim_sample(diffusion, model, x_T.shape, x_T=x_T, progress=False)) < 1e-12


def shrinking_model(x, t, y=None):
    """No ideal model of anything, and not linear in x: eps and variance values."""
    eps = torch.tanh(x) * (1 + t.view(-1, 1, 1, 1) / 1000)
    return torch.cat([eps, torch.zeros_like(eps)], dim=1)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps, spacing", [(5, "t"), (5, "log SNR"), (20, "t"), (20, "log SNR")])
def test_it_is_the_scheduler_of_diffusers(steps, spacing, clip):
    diffusers = pytest.importorskip("diffusers")
    diffusion = FULL.respaced(str(steps)) if spacing == "t" else respaced_by_log_snr(FULL, steps)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, thresholding=clip, sample_max_value=1.0
    )  # dynamic thresholding with a ceiling of 1 is clipping
    scheduler.set_timesteps(timesteps=diffusion.timestep_map.flip(0).tolist())
    x_T = normal(2, 1, 3, 4)
    x, options = x_T, dict(x_T=x_T, clip_x0=clip, progress=False)
    for t in scheduler.timesteps:
        x = scheduler.step(shrinking_model(x, t.expand(2))[:, :1], t, x).prev_sample
    ours = dpm_solver_sample(diffusion, shrinking_model, x_T.shape, **options)
    assert relative(ours, x) < 1e-4  # its tables are in float32
    if not clip:  # second order makes a difference
        assert (
            relative(dpm_solver_sample(diffusion, shrinking_model, x_T.shape, order=1, **options), x) > 1e-3
        )


@pytest.mark.parametrize("steps", [2, 5, 15, 30])
def test_the_timesteps_are_those_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, use_lu_lambdas=True)
    scheduler.set_timesteps(steps)
    ours = log_snr_timesteps(FULL.alphas_cumprod, steps).flip(0)
    assert (scheduler.timesteps - ours).abs().max() <= 1  # rounding, of t there, of log SNR here


@pytest.mark.parametrize("steps", [1, 2, 15, 100, 999, 1000])
def test_timesteps_are_different_and_include_both_ends(steps):
    for schedule in ("linear", "cosine"):
        bar = Diffusion(schedule).alphas_cumprod
        kept = log_snr_timesteps(bar, steps).tolist()
        assert len(set(kept)) == steps and kept == sorted(kept) and kept[0] == 0
        assert steps == 1 or kept[-1] == 999


def test_timesteps_are_even_in_log_snr():
    kept = respaced_by_log_snr(FULL, 12).timestep_map.numpy()
    values = np.log(BAR[kept] / (1 - BAR[kept]))
    assert np.diff(values) == pytest.approx(np.diff(values).mean(), rel=0.1)


def test_the_respaced_diffusion_has_the_same_noise_levels_and_settings():
    full = Diffusion(variance="fixed_small", bins=17)
    short = respaced_by_log_snr(full, 10)
    assert relative(short.alphas_cumprod, torch.tensor(BAR)[short.timestep_map]) < 1e-12
    assert (short.variance, short.bins, short.num_timesteps) == ("fixed_small", 17, 10)


def test_each_run_starts_without_a_last_prediction():
    x_T, diffusion = normal(2, 1, 2, 3), respaced_by_log_snr(FULL, 6)
    runs = [
        dpm_solver_sample(diffusion, shrinking_model, x_T.shape, x_T=x_T, progress=False) for _ in range(2)
    ]
    assert torch.equal(*runs)


def test_a_batch_of_different_steps_is_each_step_alone():
    diffusion, t = respaced_by_log_snr(FULL, 8), torch.tensor([5, 0, 3])
    x, last = normal(3, 1, 2, 3), normal(3, 1, 2, 3, seed=1)
    prediction = diffusion.predict_x0(shrinking_model(x, t), x, t)
    together = dpm_solver_step(diffusion, prediction, x, t, last_x0=last)
    for i in range(3):
        one = prediction._replace(eps=prediction.eps[i : i + 1], x0=prediction.x0[i : i + 1])
        alone = dpm_solver_step(diffusion, one, x[i : i + 1], t[i : i + 1], last_x0=last[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)
    assert torch.equal(together[1], prediction.x0[1])  # t = 0 ends at the predicted x0


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_generators_guidance_and_inference_models(scale):
    model, diffusion = tiny_model(scale=0.1), respaced_by_log_snr(FULL, 6)
    y, results = torch.tensor([0, 1, 4, 4]), []
    for one in (model, InferenceModel(model)):
        guided = Guided(one, scale) if scale != 1 else one
        options = dict(generator=torch.Generator().manual_seed(3), clip_x0=True, progress=False)
        results.append(dpm_solver_sample(diffusion, guided, (4, 3, 4, 6), y, **options))
    assert (results[0] - results[1]).abs().max() < 1e-5 and results[0].std() > 0.1


def test_input_errors():
    with raises_input_error("order.*3.*1 or 2"):
        dpm_solver_sample(FULL, shrinking_model, (1, 1, 2, 2), order=3)
    with raises_input_error(r"steps.*1001.*\[1, 1000\]"):
        respaced_by_log_snr(FULL, 1001)
    with raises_input_error(r"train\(\) mode"):
        dpm_solver_sample(FULL.respaced("2"), tiny_model().train(), (1, 3, 4, 6), torch.tensor([0]))
