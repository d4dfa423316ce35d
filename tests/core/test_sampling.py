"""DDPM and DDIM against recorded official samples, and against the closed forms of Gaussian data."""

import math
from functools import partial

import pytest
import torch

from dit_nb import Diffusion
from dit_nb.guidance import Guided
from dit_nb.sampling import ddim_sample, ddim_step, ddpm_sample, sample_loop
from dit_nb.speed import InferenceModel
from gaussian_chain import MEAN, SPECS, VAR, GaussianChain, affine_map, normal
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


def test_ddim_computes_no_posterior(monkeypatch):
    """Its callback gets eps and x_0 alone, and the samples are those of a loop that computes everything."""
    chain, diffusion, x_T = GaussianChain("10"), Diffusion().respaced("10"), normal(2, 1, 2, 2)
    common = dict(x_T=x_T, clip_x0=True, progress=False)
    want = sample_loop(ddim_step, diffusion, chain.model, x_T.shape, **common)

    def refuse(*arguments):
        raise AssertionError("not needed")

    monkeypatch.setattr(diffusion, "q_posterior", refuse)
    monkeypatch.setattr(diffusion, "_log_variance", refuse)
    steps = []
    got = ddim_sample(diffusion, chain.model, x_T.shape, callback=steps.append, **common)
    assert torch.equal(got, want) and len(steps) == 10
    for step in steps:
        assert step.prediction.mean is None and step.prediction.log_variance is None
        assert step.prediction.x0.shape == step.prediction.eps.shape == x_T.shape
    with pytest.raises(AssertionError, match="not needed"):
        ddpm_sample(diffusion, chain.model, x_T.shape, **common)


# Steps of one's own: solvers of d(x / sqrt(bar)) / d sigma = eps, with sigma = sqrt(1 / bar - 1)


def levels(diffusion, k, like):
    bar, prev = (
        a[k].view(-1, 1, 1, 1).to(like) for a in (diffusion.alphas_cumprod, diffusion.alphas_cumprod_prev)
    )
    return bar.sqrt(), prev.sqrt(), (1 / bar - 1).sqrt(), (1 / prev - 1).sqrt()


def euler_step(diffusion, prediction, x_t, t, noise):
    root, root_prev, sigma, sigma_prev = levels(diffusion, t, x_t)
    return root_prev * (x_t / root + (sigma_prev - sigma) * prediction.eps)


def heun_step(model, diffusion, prediction, x_t, t, noise):
    """Heun's method: the mean of the slopes at both ends. At sigma = 0 there is no second slope."""
    x_prev = euler_step(diffusion, prediction, x_t, t, noise)
    k = int(t[0])
    if k == 0:
        return x_prev
    there = diffusion.predict_x0(diffusion._call_model(model, x_prev, t - 1, None), x_prev, t - 1).eps
    return euler_step(diffusion, prediction._replace(eps=(prediction.eps + there) / 2), x_t, t, noise)


def own_map(step, spec):
    """Intercept and weight of samples as a function of x_T, and the exact solution's, from sigma_T to sigma_0."""
    chain = GaussianChain(spec)

    def sample(diffusion, model, shape, **options):
        own = partial(step, model) if step is heun_step else step
        return sample_loop(own, diffusion, model, shape, posterior=False, **options)

    intercept, weight, noises = affine_map(sample, spec)
    assert not noises.any()
    # With variance v, (x / root - MEAN) / sqrt(v + sigma^2) is constant along an exact trajectory.
    sigma = [math.sqrt(1 / chain.bar[k] - 1) for k in (-1, 0)]
    exact = math.sqrt((VAR + sigma[1] ** 2) / (VAR + sigma[0] ** 2))
    exact *= VAR / (VAR + sigma[1] ** 2)  # the last step returns the predicted x_0
    return (intercept, weight), (MEAN * (1 - exact), exact / math.sqrt(chain.bar[-1]))


@pytest.mark.parametrize("spec", SPECS)
def test_an_euler_step_is_ddim(spec):
    got, _ = own_map(euler_step, spec)
    assert got == pytest.approx(affine_map(ddim_sample, spec)[:2], rel=1e-8)


def test_a_step_of_second_order_converges_faster_than_ddim():
    def error(step, spec):
        got, exact = own_map(step, spec)
        return abs(got[1] / exact[1] - 1)

    first, second = ([error(step, spec) for spec in ("100", "200")] for step in (euler_step, heun_step))
    assert second[0] < 0.2 * first[0]
    # Half the step: an error of 2nd order falls to about a quarter, one of 1st order to a half.
    assert first[1] / first[0] == pytest.approx(1 / 2, abs=0.1)
    assert second[1] / second[0] == pytest.approx(1 / 4, abs=0.1)
    got, exact = own_map(heun_step, "200")
    assert got == pytest.approx(exact, rel=2e-3)


# A model for inference


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
def test_an_inference_model_gives_the_same_samples(sample, scale):
    model, diffusion = tiny_model(scale=0.1), Diffusion().respaced("10")
    y, x_T = torch.tensor([0, 1, 4, 4]), normal(4, 3, 4, 6).float()
    noise = normal(10, 4, 3, 4, 6, seed=1).float()
    results = []
    for one in (model, InferenceModel(model)):
        guided = Guided(one, scale) if scale != 1 else one
        options = dict(x_T=x_T, step_noise=noise, clip_x0=True, progress=False)
        results.append(sample(diffusion, guided, x_T.shape, y, **options))
    assert (results[0] - results[1]).abs().max() < 1e-5 and results[0].std() > 0.1


# Input errors

X, Y, SHAPE = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 4]), (3, 3, 4, 4)
SHORT = Diffusion().respaced("2")


def make(**fields):
    return tiny_model(input_size=4, depth=1, **fields)


@pytest.mark.parametrize("wrap", [lambda model: model, InferenceModel], ids=["plain", "inference"])
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
        (dict(y=[0, 1, 2]), r"y is \[0, 1, 2\].*tensor"),
        (dict(y=Y[:2]), "y.*2.*3"),
        (dict(y=Y + 2), r"y.*6.*\[0, 5\]"),
        (dict(y=None), "y.*missing"),
        (dict(variance="tiny"), "variance.*'tiny'.*learned"),
    ],
)
def test_input_errors(sample, options, pattern, wrap):
    arguments = dict(diffusion=SHORT, model=wrap(make()), shape=SHAPE, y=Y, progress=False)
    with raises_input_error(pattern):
        sample(**{**arguments, **options})


def test_learned_variance_needs_variance_values():
    with raises_input_error("variance.*'learned'.*learn_sigma=True"):
        ddpm_sample(SHORT, make(learn_sigma=False), SHAPE, Y, progress=False)
    ddim_sample(SHORT, make(learn_sigma=False), SHAPE, Y, progress=False)  # which needs none
