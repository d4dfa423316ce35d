"""Predictions, the hybrid loss, the variational bound and bits per dimension."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.objective import _VARIANCES, bits_per_dim, discretized_gaussian_nll, normal_kl
from gaussian_chain import MEAN, VAR, GaussianChain, normal
from support import error_cases, raises_input_error, relative, tiny_model

some = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def same(got, want):
    assert relative(got, want) < 1e-5


# Against the official implementation


def test_training_losses_are_the_official_ones(golden):
    diffusion = Diffusion()
    same(diffusion.q_sample(golden.x0, golden.t, golden.noise), golden.xt)
    losses = diffusion.training_losses(golden.model, golden.x0, golden.t, golden.y, noise=golden.noise)
    for name in ("loss", "mse", "vb"):
        same(losses[name], getattr(golden, f"loss_{name}"))


def test_predictions_and_posterior_are_the_official_ones(golden):
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


def test_terms_of_the_bound_are_the_official_ones(golden):
    diffusion = Diffusion()
    p = diffusion.p_mean_variance(golden.model, golden.xt, golden.t, golden.y, clip_x0=True)
    same(diffusion.vb_terms(p, golden.x0, golden.xt, golden.t), golden.vb_clipped_bpd)
    same(diffusion.prior_bpd(golden.x0), golden.prior_bpd)


# Formulas


def test_normal_kl_is_pytorchs():
    mean1, logvar1, mean2, logvar2 = normal(4, 50, seed=1)
    ours = normal_kl(mean1, logvar1, mean2, logvar2)
    theirs = kl_divergence(Normal(mean1, (logvar1 / 2).exp()), Normal(mean2, (logvar2 / 2).exp()))
    assert relative(ours, theirs) < 1e-12


@some
@given(st.sampled_from([2, 17, 256]), st.floats(-1.3, 1.3), st.floats(-5, 1))
def test_likelihoods_of_all_bins_sum_to_one(bins, mean, log_scale):
    values = torch.linspace(-1, 1, bins, dtype=torch.float64)
    mean, log_scale = (torch.full_like(values, a) for a in (mean, log_scale))
    nll = discretized_gaussian_nll(values, mean, log_scale, bins)
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)


@some
@given(st.sampled_from([17, 256]), st.floats(-1, 1), st.floats(-3, 0.5))
def test_likelihood_of_a_bin_is_a_difference_of_normal_cdfs(bins, mean, log_scale):
    values = torch.linspace(-1, 1, bins, dtype=torch.float64)
    nll = discretized_gaussian_nll(values, values * 0 + mean, values * 0 + log_scale, bins)
    edges = torch.linspace(-1, 1, bins, dtype=torch.float64)[1:] - 1 / (bins - 1)
    below = Normal(mean, math.exp(log_scale)).cdf(edges)
    exact = torch.cat([below, torch.ones(1)]) - torch.cat([torch.zeros(1), below])
    assert ((-nll).exp() - exact).abs().max() < 5e-4  # the tanh formula is off by up to 2e-4 on each side


def constant_model(value):
    """A model that predicts no noise, and one number as its variance values."""
    return lambda x, t, y=None: torch.cat([torch.zeros_like(x), torch.full_like(x, value)], dim=1)


@pytest.mark.parametrize("value", [-3.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("spec", ["10", "1000"])
def test_learned_variance_is_a_geometric_mean_of_its_bounds(spec, value):
    """A weighted one; the weight is not limited to [0, 1]."""
    chain, diffusion, k, weight = GaussianChain(spec), Diffusion().respaced(spec), 7, (value + 1) / 2
    x = normal(2, 1, 2, 2)
    p = diffusion.p_mean_variance(constant_model(value), x, torch.tensor([k, k]))
    want = chain.posterior(k)[2] ** (1 - weight) * (1 - chain.alpha[k]) ** weight
    assert relative(p.log_variance.exp(), torch.full_like(x, want)) < 1e-9


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_fixed_variances_are_the_two_bounds(variance):
    chain, diffusion, x = GaussianChain("10"), Diffusion(variance=variance).respaced("10"), normal(2, 1, 2, 2)
    p = diffusion.p_mean_variance(lambda x, t, y: x, x, torch.tensor([3, 7]))
    for i, k in enumerate((3, 7)):
        want = chain.posterior(k)[2] if variance == "fixed_small" else 1 - chain.alpha[k]
        assert relative(p.log_variance[i].exp(), torch.full_like(x[i], want)) < 1e-9


# The hybrid loss


@pytest.mark.parametrize("t", [0, 1, 500])
def test_each_loss_trains_its_own_half_of_the_output(t):
    x0, noise, output = (
        normal(2, 3, 4, 4).clamp(-1, 1),
        normal(2, 3, 4, 4, seed=1),
        normal(2, 6, 4, 4, seed=2),
    )
    output.requires_grad_()
    losses = Diffusion().training_losses(lambda x, t, y: output, x0, torch.tensor([t, t + 1]), noise=noise)
    for name, half in (("mse", slice(0, 3)), ("vb", slice(3, 6))):
        (gradient,) = torch.autograd.grad(losses[name].sum(), output, retain_graph=True)
        assert (gradient[:, half] != 0).all()
        gradient[:, half] = 0
        assert not gradient.any()
    assert torch.equal(losses["loss"], losses["mse"] + losses["vb"])


def quantiles(n):
    """An image of noise that holds the quantiles of the normal distribution."""
    return Normal(0.0, 1.0).icdf((torch.arange(n * n, dtype=torch.float64) + 0.5) / n**2).view(1, 1, n, n)


def vb_by_timestep(value):
    """The bound of a constant model at each of 1000 timesteps, averaged over the noise exactly."""
    t = torch.arange(1, 1000)
    x0 = torch.full((999, 1, 1, 1), 0.2, dtype=torch.float64)
    # At t > 0 the bound depends on noise**2 alone, whose mean is 1.
    later = Diffusion().training_losses(constant_model(value), x0, t, noise=torch.ones_like(x0))["vb"]
    gray = torch.full((1, 1, 64, 64), 50 / 127.5 - 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    first = Diffusion().training_losses(constant_model(value), gray, zero, noise=quantiles(64))["vb"]
    return torch.cat([first, later])


def test_initial_values_of_the_bound():
    vb = vb_by_timestep(0.0)
    for t, want in {1: 0.6327, 2: 0.3789, 10: 0.1078, 100: 0.01458, 999: 0.01472}.items():
        assert vb[t].item() == pytest.approx(want, abs=0.5 * 10 ** -(5 if want < 0.1 else 4)), t
    assert vb[0].item() == pytest.approx(2.43, abs=0.01)
    for value, want in {0.0: 0.01415, -1.0: 0.01467, 1.0: 0.01399}.items():
        assert vb_by_timestep(value)[1:].sum().item() / 1000 == pytest.approx(want, abs=0.6e-5)


def test_initial_loss_of_a_model():
    model = DiT(DiTConfig(2, 2, 1, hidden_size=16, depth=1, num_heads=2, num_classes=3)).double().eval()
    t, x0 = torch.arange(1000), torch.full((1000, 1, 2, 2), 50 / 127.5 - 1, dtype=torch.float64)
    y, diffusion = torch.zeros(1000, dtype=torch.long), Diffusion()
    losses = diffusion.training_losses(model, x0, t, y, noise=torch.ones_like(x0))
    assert torch.equal(losses["mse"], torch.ones(1000))
    assert relative(losses["vb"][1:], vb_by_timestep(0.0)[1:]) < 1e-6
    expected = 1 + vb_by_timestep(0.0).mean().item()
    assert expected == pytest.approx(1.0166, abs=1e-4)
    losses = diffusion.training_losses(model, x0, t, y, noise=normal(*x0.shape))
    assert losses["loss"].mean().item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("variance", _VARIANCES)
@pytest.mark.parametrize("spec", ["10", "1000"])
def test_bound_is_the_divergence_of_the_posteriors(variance, spec):
    """Values and gradients of the one formula of the package, against its definition."""
    diffusion = Diffusion(variance=variance, bins=17).respaced(spec)
    t = torch.tensor([0, 1, 5, 9])

    def by_definition(prediction):
        mean, log_variance = diffusion.q_posterior(x0, x_t, t)
        nats = normal_kl(mean, log_variance, prediction.mean, prediction.log_variance)
        scale = 0.5 * prediction.log_variance
        nats = torch.cat([discretized_gaussian_nll(x0, prediction.mean, scale, 17)[:1], nats[1:]])
        return nats.flatten(1).mean(1) / math.log(2)

    x0, noise, eps = (normal(4, 2, 3, 4, seed=i) for i in range(3))
    x0, values = (x0.clamp(-1, 1) * 8).round() / 8, normal(4, 2, 3, 4, seed=3).requires_grad_()
    x_t, results = diffusion.q_sample(x0, t, noise), []
    output = torch.cat([eps, values], dim=1)
    prediction = diffusion.predict(output, x_t, t)
    for bound in (
        by_definition(prediction),
        diffusion.vb_terms(prediction, x0, x_t, t),
        diffusion.training_losses(lambda x, t, y: output, x0, t, noise=noise)["vb"],
    ):
        learned = variance == "learned"
        gradient = (
            torch.autograd.grad(bound.sum(), values, retain_graph=True)[0] if learned else values.detach()
        )
        results.append((bound, gradient))
    for bound in results[1:]:
        for got, want in zip(bound, results[0]):
            assert relative(got, want) < 1e-9


def test_bound_of_a_clipped_prediction_is_that_of_the_clipped_image():
    """What is evaluated is the error of the predicted x_0 that the step uses, not of eps."""
    diffusion, t = Diffusion(), torch.tensor([1, 500, 999])
    x0, noise, output = (
        normal(3, 2, 3, 4).clamp(-1, 1),
        normal(3, 2, 3, 4, seed=1),
        normal(3, 4, 3, 4, seed=2),
    )
    x_t = diffusion.q_sample(x0, t, noise)
    clipped = diffusion.predict(output, x_t, t, clip_x0=True)
    mean, log_variance = diffusion.q_posterior(x0, x_t, t)
    want = normal_kl(mean, log_variance, clipped.mean, clipped.log_variance).flatten(1).mean(1) / math.log(2)
    assert relative(diffusion.vb_terms(clipped, x0, x_t, t), want) < 1e-9
    assert (diffusion.vb_terms(diffusion.predict(output, x_t, t), x0, x_t, t) > 1.01 * want)[1:].all()


def test_prediction_of_x0_is_that_of_the_whole_prediction():
    diffusion, t, x_t = Diffusion(), torch.tensor([0, 400, 999]), normal(3, 2, 3, 4)
    output = normal(3, 4, 3, 4, seed=1)
    for clip in (False, True):
        part, whole = (f(output, x_t, t, clip_x0=clip) for f in (diffusion.predict_x0, diffusion.predict))
        assert torch.equal(part.x0, whole.x0) and torch.equal(part.eps, whole.eps)
        assert part.mean is None and part.log_variance is None
        assert relative(diffusion.x0_to_eps(x_t, t, part.x0), part.eps) < 1e-9 or clip
    mean, _ = diffusion.q_posterior(whole.x0, x_t, t)
    assert torch.equal(whole.mean, mean) and whole.x0.abs().max() <= 1


def test_bound_has_finite_gradients_for_extreme_outputs():
    values = torch.tensor([-40.0, 40.0, 300.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone().requires_grad_()
    output, x0 = torch.cat([torch.full_like(values, 50.0), values], dim=1), torch.zeros(3, 1, 2, 2)
    t = torch.tensor([0, 1, 999])
    losses = Diffusion().training_losses(lambda x, t, y: output, x0, t, noise=torch.zeros_like(x0))
    losses["vb"].sum().backward()
    assert torch.isfinite(values.grad).all()


# Bits per dimension


def prior_loop(x0, bar):
    terms = [0.5 * (bar * x.item() ** 2 + (1 - bar) - 1 - math.log(1 - bar)) for x in x0.flatten()]
    return torch.tensor(terms, dtype=torch.float64) / math.log(2)


def test_bits_per_dim_of_gaussian_data_with_an_ideal_model():
    """At t > 0 the bound is the KL divergence between the posteriors given x_0 and given x_t alone."""
    chain, diffusion, n = GaussianChain("10"), Diffusion().respaced("10"), 4000
    x0, generator = MEAN + math.sqrt(VAR) * normal(n, 1, 1, 1), torch.Generator().manual_seed(0)
    got = bits_per_dim(diffusion, chain.model, x0, clip_x0=False, generator=generator, progress=False)
    for k in range(1, 10):
        small, true = chain.posterior(k)[2], chain.true_variance(k)
        # By the law of total variance the squared distance of the means averages to true - small.
        expected = 0.5 * math.log(true / small) / math.log(2)
        assert got["vb"][:, k].mean().item() == pytest.approx(expected, rel=0.1), k
    assert relative(got["total"], got["vb"].sum(1) + got["prior"]) < 1e-12
    assert relative(got["prior"], prior_loop(x0, chain.bar[-1])) < 1e-9


# Input errors

X, T, Y = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])


def make():
    return tiny_model(input_size=4, depth=1)


def losses(model=None, x0=X, t=T, **options):
    return Diffusion().training_losses(model or constant_model(0.0), x0, t, **options)


@error_cases(
    (partial(Diffusion, "quadratic"), "schedule.*'quadratic'.*linear.*cosine"),
    (partial(Diffusion, variance="small"), "variance.*'small'.*learned.*fixed_small.*fixed_large"),
    (partial(Diffusion, num_timesteps=0), "num_timesteps.*0.*1 or more"),
    (partial(Diffusion, bins=1), "bins.*1.*2 or more"),
    (partial(Diffusion, torch.tensor([0.1, 1.0])), r"betas.*\(0, 1\)"),
    (partial(Diffusion, torch.tensor([0.1, float("nan")])), r"betas.*\(0, 1\)"),
    (lambda: losses(t=T + 998), r"t.*1000.*\[0, 999\]"),
    (lambda: losses(t=T - 1), r"t.*-1.*\[0, 999\]"),
    (lambda: losses(t=T.float()), "t.*float32.*integers"),
    (lambda: losses(t=T[:1]), r"t.*\(1,\).*\(3,\)"),
    (lambda: losses(noise=X[:1]), r"noise.*\(1, 3, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: losses(noise=X[:, :1]), r"noise.*\(3, 1, 4, 4\).*\(3, 3, 4, 4\)"),
    (lambda: losses(lambda x, t, y: x[:, :1]), r"model.*\(3, 1, 4, 4\).*3 channels"),
    (lambda: losses(lambda x, t, y: x), "variance.*'learned'.*learn_sigma=True"),
    (
        lambda: Diffusion().p_mean_variance(lambda x, t, y: x, X, T, variance="tiny"),
        "variance.*'tiny'.*learned",
    ),
    (lambda: Diffusion().p_mean_variance(constant_model(0.0), X, T[:1]), r"t.*\(1,\).*\(3,\)"),
    (lambda: Diffusion().p_mean_variance(lambda x, t, y: x[:1], X, T), r"model.*\(1, 3, 4, 4\).*3 channels"),
    (lambda: Diffusion().respaced("10").p_mean_variance(constant_model(0.0), X, T + 8), r"t.*10.*\[0, 9\]"),
    (lambda: losses(make(), y=Y + 2), r"y.*6.*\[0, 5\]"),
    (lambda: losses(make(), y=None), "y.*missing"),
    (lambda: bits_per_dim(Diffusion(), constant_model(0.0), X + 0.3), "x0.*256.*bins"),
    (lambda: bits_per_dim(Diffusion(), make().train(), X, Y), r"train\(\) mode.*eval\(\)"),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()
