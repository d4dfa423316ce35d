"""DDPM and DDIM against recorded official samples, and against the closed forms of Gaussian data."""

import math

import pytest
import torch

from dit_nb import Diffusion
from dit_nb.guidance import Guided
from dit_nb.sampling import ddim_sample, ddpm_sample
from gaussian_chain import MEAN, SPECS, VAR, GaussianChain, affine_map
from support import raises_input_error, relative, tiny_model


def replay(case, sample, spec, kind, **options):
    """Sample with a recorded case's noise, and return x after each step."""
    diffusion, trajectory = Diffusion().respaced(spec), []
    start = getattr(case, f"{kind}_start")
    assert diffusion.timestep_map.tolist() == sorted(getattr(case, f"{kind}_timesteps").tolist())
    options |= {"callback": lambda step: trajectory.append(step.x_prev), "progress": False}
    sample(diffusion, case.model, tuple(start.shape), case.y[: len(start)], x_T=start, **options)
    return torch.stack(trajectory)


def test_ddpm_trajectory_is_the_official_one(golden):
    got = replay(golden, ddpm_sample, "10", "ddpm", step_noise=golden.ddpm_noise)
    assert relative(got, golden.ddpm_chain) < 1e-5


def test_ddim_trajectory_is_the_official_one(golden):
    assert relative(replay(golden, ddim_sample, "ddim10", "ddim"), golden.ddim_chain) < 1e-5


@pytest.mark.parametrize("spec", SPECS)
def test_ddpm_with_the_true_variance_samples_the_data(spec):
    chain = GaussianChain(spec)
    intercept, weight, noises = affine_map(ddpm_sample, spec)
    # From the true x_T every marginal is true; the last step takes a mean, so its variance is missing.
    start_mean, start_variance = math.sqrt(chain.bar[-1]) * MEAN, chain.marginal[-1]
    assert intercept + weight * start_mean == pytest.approx(MEAN, abs=1e-9)
    variance = weight**2 * start_variance + (noises**2).sum()
    assert variance == pytest.approx(VAR - chain.true_variance(0), rel=1e-8)
    want = chain.ddpm_moments(chain.true_variance)
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["fixed_small", "fixed_large"])
def test_ddpm_with_a_fixed_variance(spec, name):
    chain = GaussianChain(spec)
    intercept, weight, noises = affine_map(ddpm_sample, spec, variance=name)
    step = {"fixed_small": lambda k: chain.posterior(k)[2], "fixed_large": lambda k: 1 - chain.alpha[k]}
    want = chain.ddpm_moments(step[name])
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx(want, rel=1e-8)
    assert noises[-1] == 0 and (noises[:-1] > 0).all()  # no noise at the last step, and some at all others


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(spec, eta):
    intercept, weight, noises = affine_map(ddim_sample, spec, eta=eta)
    want = GaussianChain(spec).ddim_moments(eta)
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx(want, rel=1e-8)
    assert eta > 0 or not noises.any()


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance():
    ddim, ddpm = affine_map(ddim_sample, "50", eta=1.0), affine_map(ddpm_sample, "50", variance="fixed_small")
    for got, want in zip(ddim, ddpm):
        assert got == pytest.approx(want, rel=1e-8, abs=1e-12)


def test_many_steps_of_ddim_map_quantiles_to_quantiles():
    intercept, weight, _ = affine_map(ddim_sample, "1000")
    assert intercept == pytest.approx(MEAN, abs=0.01)
    assert weight == pytest.approx(math.sqrt(VAR), rel=0.01)


def test_random_samples_have_the_propagated_moments():
    chain, generator = GaussianChain("50"), torch.Generator().manual_seed(0)
    x = ddpm_sample(
        Diffusion().respaced("50"), chain.model, (64, 1, 16, 16), generator=generator, progress=False
    )
    mean, variance = chain.ddpm_moments(chain.true_variance)
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / x.numel()))
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / x.numel()))
    assert x.dtype == torch.float32


def test_callback_receives_each_step():
    steps, diffusion = [], Diffusion().respaced("ddim10")
    end = ddim_sample(diffusion, lambda x, t, y: x, (2, 1, 2, 2), callback=steps.append, progress=False)
    assert [s.i for s in steps] == list(range(10)) and [s.t for s in steps] == list(range(900, -1, -100))
    assert all(torch.equal(a.x_prev, b.x_t) for a, b in zip(steps, steps[1:]))
    assert torch.equal(steps[-1].x_prev, end)


# Input errors

X, Y, SHAPE = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 4]), (3, 3, 4, 4)
SHORT = Diffusion().respaced("2")


def make(**fields):
    return tiny_model(input_size=4, depth=1, **fields)


@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
@pytest.mark.parametrize(
    "options,pattern",
    [
        (dict(model=make().train()), r"train\(\) mode.*eval\(\)"),
        (dict(model=Guided(make().train(), 2.0)), r"train\(\) mode.*eval\(\)"),
        (dict(x_T=X[:2]), r"x_T.*\(2, 3, 4, 4\).*\(3, 3, 4, 4\)"),
        (dict(x_T=X[:, :1]), r"x_T.*\(3, 1, 4, 4\).*\(3, 3, 4, 4\)"),
        (dict(step_noise=torch.zeros(3, *SHAPE)), r"step_noise.*\(3, 3, 3, 4, 4\).*\(2, 3, 3, 4, 4\)"),
        (dict(step_noise=X), r"step_noise.*\(3, 3, 4, 4\).*\(2, 3, 3, 4, 4\)"),
        (dict(shape=(3, 4, 4)), r"shape.*\(3, 4, 4\).*\(N, C, H, W\)"),
        (dict(shape=(3, 1, 4, 4)), r"x.*\(3, 1, 4, 4\).*\(N, 3, 4, 4\)"),
        (dict(y=[0, 1, 2]), "y.*list.*tensor"),
        (dict(y=Y[:2]), "y.*2.*3"),
        (dict(y=Y + 2), r"y.*6.*\[0, 5\]"),
        (dict(y=None), "y.*missing"),
        (dict(variance="tiny"), "variance.*'tiny'.*learned"),
    ],
)
def test_input_errors(sample, options, pattern):
    arguments = dict(diffusion=SHORT, model=make(), shape=SHAPE, y=Y, progress=False)
    with raises_input_error(pattern):
        sample(**{**arguments, **options})


def test_learned_variance_needs_variance_values():
    with raises_input_error("variance.*'learned'.*learn_sigma=True"):
        ddpm_sample(SHORT, make(learn_sigma=False), SHAPE, Y, progress=False)
    ddim_sample(SHORT, make(learn_sigma=False), SHAPE, Y, progress=False)  # which needs none
