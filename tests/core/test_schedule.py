"""Betas, coefficients, noising, the posterior and respacing."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_nb import Diffusion
from dit_nb.schedule import Schedule, cosine_betas, extract, linear_betas, space_timesteps
from gaussian_chain import GaussianChain
from support import GOLDEN, error_cases, raises_input_error, relative

X, T = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2])


def test_coefficients_are_the_official_ones():
    schedule = Schedule(linear_betas())
    for name, table in np.load(GOLDEN / "schedule.npz").items():
        assert relative(getattr(schedule, name), table) < 1e-12, name


def test_respacing_is_the_official_one():
    arrays = np.load(GOLDEN / "respacing.npz")
    assert len(arrays.files) == 9
    for name, kept in arrays.items():
        spec = name.replace("s", "").replace("d", "ddim", 1)
        assert space_timesteps(1000, spec) == kept.tolist(), name


def test_q_sample_is_many_single_steps():
    betas, signal, variance = np.linspace(1e-4, 0.02, 1000), 1.0, 0.0
    schedule, one = Schedule(linear_betas()), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(betas):
        signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        if t in (0, 1, 10, 500, 999):
            at = torch.tensor([t])
            assert schedule.q_sample(one, at, 0 * one).item() == pytest.approx(signal, rel=1e-12)
            assert schedule.q_sample(0 * one, at, one).item() ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("spec,k", [("1000", 1), ("1000", 300), ("10", 1), ("10", 5), ("10", 9)])
def test_posterior_is_bayes_rule_on_a_grid(spec, k):
    chain, diffusion, x0 = GaussianChain(spec), Diffusion().respaced(spec), 0.4
    x_t = math.sqrt(chain.bar[k]) * x0 + 0.8 * math.sqrt(1 - chain.bar[k])
    image = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    mean, log_variance = (a.item() for a in diffusion.q_posterior(x0 * image, x_t * image, torch.tensor([k])))
    std = math.sqrt(1 - chain.prev[k])
    grid = math.sqrt(chain.prev[k]) * x0 + np.linspace(-9, 9, 200001) * std
    prior = -((grid - math.sqrt(chain.prev[k]) * x0) ** 2) / (2 * (1 - chain.prev[k]))
    likelihood = -((x_t - math.sqrt(chain.alpha[k]) * grid) ** 2) / (2 * (1 - chain.alpha[k]))
    density = np.exp(prior + likelihood - (prior + likelihood).max())
    density /= density.sum()
    grid_mean = (density * grid).sum()
    assert mean == pytest.approx(grid_mean, rel=1e-6)
    assert math.exp(log_variance) == pytest.approx((density * (grid - grid_mean) ** 2).sum(), rel=1e-6)


def test_a_single_step_has_a_finite_posterior_variance():
    assert torch.isfinite(Schedule(torch.tensor([0.5])).posterior_log_variance_clipped).all()


@pytest.mark.parametrize("spec", ["1", "2", "10", "250", "ddim50", "10,15,20", "1000"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_respacing_keeps_alphas_cumprod(spec, schedule):
    full = Diffusion(schedule)
    short, kept = full.respaced(spec), space_timesteps(1000, spec)
    assert short.timestep_map.tolist() == kept
    assert relative(short.alphas_cumprod, full.alphas_cumprod[kept]) < 1e-12
    assert relative((1 - short.betas).cumprod(0), full.alphas_cumprod[kept]) < 1e-12


def test_respacing_twice_keeps_original_timesteps():
    twice = Diffusion().respaced("100").respaced("10")
    once = space_timesteps(1000, "100")
    assert twice.timestep_map.tolist() == [once[i] for i in space_timesteps(100, "10")]


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 300), st.data())
def test_kept_timesteps_have_the_right_count_order_and_ends(total, data):
    count = data.draw(st.integers(1, total))
    kept = space_timesteps(total, str(count))
    assert len(set(kept)) == count and kept == sorted(kept) and kept[0] == 0
    assert kept[-1] == (total - 1 if count > 1 else 0)


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
@pytest.mark.parametrize("steps", [1, 20, 300, 4000])
def test_betas_end_in_noise_for_any_number_of_steps(betas, steps):
    made = betas(steps)
    assert made.dtype == torch.float64 and ((made > 0) & (made < 1)).all()
    assert (1 - made).prod() < 1e-3 or steps == 1


def test_buffers_stay_in_float64_and_coefficients_in_float32():
    schedule = Schedule(linear_betas()).to(torch.bfloat16)
    assert schedule.alphas_cumprod.dtype == torch.float64
    picked = extract(schedule.alphas_cumprod, T, X.bfloat16())
    assert picked.dtype == torch.float32 and picked.shape == (3, 1, 1, 1)
    assert "betas" not in schedule.state_dict()


@pytest.mark.parametrize("t", [-1, -1000, 1000])
def test_a_coefficient_is_looked_up_in_the_table_only(t):
    """Square brackets would take a negative timestep from the end of the table."""
    with pytest.raises(IndexError):
        extract(linear_betas(), torch.tensor([0, t, 2]), X)


@error_cases(
    (partial(Schedule, torch.tensor([0.1, 1.0])), r"betas.*\(0, 1\)"),
    (partial(Schedule, torch.tensor([0.1, float("nan")])), r"betas.*\(0, 1\)"),
    (partial(Schedule, torch.tensor([[0.1]])), r"betas.*\(1, 1\).*\(0, 1\)"),
    (partial(Schedule, torch.tensor([0.1, 0.2]), torch.tensor([3])), "timestep_map.*1.*2"),
    (partial(linear_betas, 0), "num_timesteps.*0.*1 or more"),
    (partial(cosine_betas, -1), "num_timesteps.*-1.*1 or more"),
    (lambda: Schedule(linear_betas()).q_sample(X, T, X[:1]), r"noise.*\(1, 3, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: Schedule(linear_betas(10)).q_sample(X, T + 8, X), r"t.*10.*\[0, 9\]"),
    (lambda: Schedule(linear_betas(10)).q_sample(X, T - 1, X), r"t.*-1.*\[0, 9\]"),
    (lambda: Schedule(linear_betas(10)).q_sample(X, T[:1], X), r"t.*\(1,\).*\(3,\)"),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()


@pytest.mark.parametrize(
    "spec", ["ddim64", "ddim0", "ddim", "ddimx", "0", "-5", "2000", "abc", "1.5", "10,,5", "10,", "5,600"]
)
def test_impossible_respacing(spec):
    with raises_input_error(f"steps.*'{spec}'"):
        space_timesteps(1000, spec)
    with raises_input_error(f"steps.*'{spec}'"):
        Diffusion().respaced(spec)
