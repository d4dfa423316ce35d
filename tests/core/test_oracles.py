"""Independent oracles: closed forms, plain loops, PyTorch's and SciPy's own versions of the same thing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import nn
from torch.distributions import Normal, kl_divergence

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.attention import Attention, CrossAttention, Mlp
from dit_nb.conditioning import timestep_embedding
from dit_nb.ema import EMA
from dit_nb.evaluation import frechet_distance
from dit_nb.guidance import Guided, cfg_eps
from dit_nb.objective import bits_per_dim, discretized_gaussian_nll, normal_kl
from dit_nb.patchify import PatchEmbed, patchify, unpatchify
from dit_nb.positions import sincos_1d, sincos_2d
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.schedule import space_timesteps
from dit_nb.step_noise import Batches, draw
from dit_nb.training import TrainConfig, learning_rate
from support import relative

some = settings(max_examples=25, deadline=None, derandomize=True, database=None)
MEAN, VAR = 0.7, 0.3**2  # of the Gaussian data
SPECS = ("10", "50", "ddim50", "1000")


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Gaussian data: the perfect model is linear, so a chain is an affine map of its noises, known exactly.


class Chain:
    """The noise schedule, from its definition, at the timesteps that a respaced process keeps."""

    def __init__(self, spec):
        full = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
        self.kept = space_timesteps(1000, spec)
        self.bar = full[self.kept]
        self.prev = np.append(1.0, self.bar[:-1])
        self.alpha = self.bar / self.prev
        self.marginal = self.bar * VAR + 1 - self.bar  # variance of x_t
        self.marginal_prev = self.prev * VAR + 1 - self.prev

    def true_variance(self, k):
        """Of x_{t-1} given x_t, by conditioning one of two jointly normal numbers on the other."""
        covariance = math.sqrt(self.alpha[k]) * self.marginal_prev[k]
        return self.marginal_prev[k] - covariance**2 / self.marginal[k]

    def posterior(self, k):
        """Weights of x_0 and x_t, and variance, of x_{t-1}: product of two normal densities."""
        if k == 0:
            return 1.0, 0.0, 0.0
        beta = 1 - self.alpha[k]
        precision = 1 / (1 - self.prev[k]) + self.alpha[k] / beta
        from_x0 = math.sqrt(self.prev[k]) / (1 - self.prev[k]) / precision
        return from_x0, math.sqrt(self.alpha[k]) / beta / precision, 1 / precision

    def fraction(self, k):
        """Where the true variance lies between its two bounds, on a log scale."""
        large = math.log(1 - self.alpha[k])
        neighbour = max(k, 1)
        small = math.log(self.posterior(neighbour)[2]) if len(self.kept) > 1 else large
        return (math.log(self.true_variance(k)) - small) / (large - small) if large > small else 0.0

    def expect_x0(self, k):
        """Intercept and slope of E[x_0 | x_t] as a function of x_t."""
        slope = math.sqrt(self.bar[k]) * VAR / self.marginal[k]
        return MEAN - slope * math.sqrt(self.bar[k]) * MEAN, slope

    def model(self, x, t, y=None):
        """The perfect eps, and the variance values that make the learned variance true."""
        k = self.kept.index(int(t[0]))  # also checks that the model is told original timesteps
        a, b = self.expect_x0(k)
        eps = (x - math.sqrt(self.bar[k]) * (a + b * x)) / math.sqrt(1 - self.bar[k])
        return torch.cat([eps, torch.full_like(eps, 2 * self.fraction(k) - 1)], dim=1)

    def moments(self, step_variance, mean, variance):
        """Mean and variance of an ancestral chain's end, propagated step by step."""
        for k in reversed(range(len(self.kept))):
            a, b = self.expect_x0(k)
            from_x0, from_xt, _ = self.posterior(k)
            mean = from_x0 * (a + b * mean) + from_xt * mean
            variance = (from_x0 * b + from_xt) ** 2 * variance + (step_variance(k) if k else 0.0)
        return mean, variance

    def ddim_moments(self, eta):
        mean, variance = 0.0, 1.0
        for k in reversed(range(len(self.kept))):
            a, b = self.expect_x0(k)
            bar, prev = self.bar[k], self.prev[k]
            sigma2 = eta**2 * (1 - prev) / (1 - bar) * (1 - bar / prev)
            direction = math.sqrt(max(1 - prev - sigma2, 0)) / math.sqrt(1 - bar)
            slope = math.sqrt(prev) * b + direction * (1 - math.sqrt(bar) * b)
            mean = slope * mean + (math.sqrt(prev) - direction * math.sqrt(bar)) * a
            variance = slope**2 * variance + sigma2
        return mean, variance


def affine(sample, spec, **options):
    """The chain's end as intercept, weight of x_T and weights of the step noises: all read off one run."""
    diffusion, steps = Diffusion().respaced(spec), len(space_timesteps(1000, spec))
    shape = (steps + 2, 1, 1, 1)  # image 0: all zero; 1: x_T is one; 2 + i: noise i is one
    probes = torch.eye(steps + 2, dtype=torch.float64)
    x_T, step_noise = probes[:, 1].view(shape), probes[2:].view(steps, *shape)
    end = sample(
        diffusion, Chain(spec).model, shape, x_T=x_T, step_noise=step_noise, progress=False, **options
    )
    end = end.flatten().numpy()
    return end[0], end[1] - end[0], end[2:] - end[0]


@pytest.mark.parametrize("spec", SPECS)
def test_ddpm_with_the_true_variance_gives_back_the_data(spec):
    chain = Chain(spec)
    intercept, weight, noises = affine(ddpm_sample, spec)
    # From the true x_T every marginal is true; the last step takes a mean, so its variance is missing.
    start_mean, start_variance = math.sqrt(chain.bar[-1]) * MEAN, chain.marginal[-1]
    assert intercept + weight * start_mean == pytest.approx(MEAN, abs=1e-9)
    variance = weight**2 * start_variance + (noises**2).sum()
    assert variance == pytest.approx(VAR - chain.true_variance(0), rel=1e-8)
    mean, variance = chain.moments(chain.true_variance, 0.0, 1.0)
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx((mean, variance), rel=1e-8)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["fixed_small", "fixed_large"])
def test_ddpm_with_a_fixed_variance(spec, name):
    chain = Chain(spec)
    intercept, weight, noises = affine(ddpm_sample, spec, variance=name)
    step = {"fixed_small": lambda k: chain.posterior(k)[2], "fixed_large": lambda k: 1 - chain.alpha[k]}
    mean, variance = chain.moments(step[name], 0.0, 1.0)
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx((mean, variance), rel=1e-8)
    assert noises[-1] == 0 and (noises[:-1] > 0).all()  # no noise at the last step, and some at all others


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(spec, eta):
    intercept, weight, noises = affine(ddim_sample, spec, eta=eta)
    mean, variance = Chain(spec).ddim_moments(eta)
    assert (intercept, weight**2 + (noises**2).sum()) == pytest.approx((mean, variance), rel=1e-8)
    assert eta > 0 or not noises.any()


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance():
    ddim, ddpm = affine(ddim_sample, "50", eta=1.0), affine(ddpm_sample, "50", variance="fixed_small")
    for got, want in zip(ddim, ddpm):
        assert got == pytest.approx(want, rel=1e-8, abs=1e-12)


def test_many_steps_of_ddim_carry_each_quantile_to_its_place():
    intercept, weight, _ = affine(ddim_sample, "1000")
    assert intercept == pytest.approx(MEAN, abs=0.01)
    assert weight == pytest.approx(math.sqrt(VAR), rel=0.01)


def test_drawn_samples_have_the_propagated_moments():
    chain, generator = Chain("50"), torch.Generator().manual_seed(0)
    shape = (64, 1, 16, 16)
    options = {"generator": generator, "progress": False}
    x = ddpm_sample(Diffusion().respaced("50"), chain.model, shape, **options)
    mean, variance = chain.moments(chain.true_variance, 0.0, 1.0)
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / x.numel()))
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / x.numel()))
    assert x.dtype == torch.float32


def test_bits_per_dim_of_gaussian_data_with_a_perfect_model():
    """At t > 0 the bound charges the KL between the posteriors given x_0 and given x_t alone."""
    spec, n = "10", 4000
    chain, diffusion = Chain(spec), Diffusion().respaced(spec)
    x0 = MEAN + math.sqrt(VAR) * randn(n, 1, 1, 1)
    got = bits_per_dim(
        diffusion, chain.model, x0, clip_x0=False, generator=torch.Generator().manual_seed(0), progress=False
    )
    for k in range(1, 10):
        small, true = chain.posterior(k)[2], chain.true_variance(k)
        # By the law of total variance the squared distance of the means averages to true - small.
        expected = 0.5 * math.log(true / small) / math.log(2)
        assert got["vb"][:, k].mean().item() == pytest.approx(expected, rel=0.1), k
    assert relative(got["total"], got["vb"].sum(1) + got["prior"]) < 1e-12
    assert relative(got["prior"], prior_loop(x0, chain.bar[-1])) < 1e-9


def prior_loop(x0, bar):
    terms = [0.5 * (bar * x.item() ** 2 + (1 - bar) - 1 - math.log(1 - bar)) for x in x0.flatten()]
    return torch.tensor(terms, dtype=torch.float64) / math.log(2)


# The forward process


def test_q_sample_is_many_single_steps():
    betas, signal, variance = np.linspace(1e-4, 0.02, 1000), 1.0, 0.0
    diffusion, one = Diffusion(), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(betas):
        signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        if t in (0, 1, 10, 500, 999):
            at = torch.tensor([t])
            assert diffusion.q_sample(one, at, 0 * one).item() == pytest.approx(signal, rel=1e-12)
            assert diffusion.q_sample(0 * one, at, one).item() ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("spec,k", [("1000", 1), ("1000", 300), ("10", 1), ("10", 5), ("10", 9)])
def test_posterior_is_bayes_rule_on_a_grid(spec, k):
    chain, diffusion, x0 = Chain(spec), Diffusion().respaced(spec), 0.4
    x_t = math.sqrt(chain.bar[k]) * x0 + 0.8 * math.sqrt(1 - chain.bar[k])
    image = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    mean, log_variance = (a.item() for a in diffusion.q_posterior(x0 * image, x_t * image, torch.tensor([k])))
    spread = math.sqrt(1 - chain.prev[k])
    grid = math.sqrt(chain.prev[k]) * x0 + np.linspace(-9, 9, 200001) * spread
    prior = -((grid - math.sqrt(chain.prev[k]) * x0) ** 2) / (2 * (1 - chain.prev[k]))
    likelihood = -((x_t - math.sqrt(chain.alpha[k]) * grid) ** 2) / (2 * (1 - chain.alpha[k]))
    density = np.exp(prior + likelihood - (prior + likelihood).max())
    density /= density.sum()
    grid_mean = (density * grid).sum()
    assert mean == pytest.approx(grid_mean, rel=1e-6)
    assert math.exp(log_variance) == pytest.approx((density * (grid - grid_mean) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("spec", ["1", "2", "10", "250", "ddim50", "10,15,20", "1000"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_respacing_keeps_alphas_cumprod(spec, schedule):
    full = Diffusion(schedule)
    short, kept = full.respaced(spec), space_timesteps(1000, spec)
    assert short.timestep_map.tolist() == kept
    assert relative(short.alphas_cumprod, full.alphas_cumprod[kept]) < 1e-12
    assert relative((1 - short.betas).cumprod(0), full.alphas_cumprod[kept]) < 1e-12


def test_respacing_twice_still_tells_original_timesteps():
    twice = Diffusion().respaced("100").respaced("10")
    once = space_timesteps(1000, "100")
    assert twice.timestep_map.tolist() == [once[i] for i in space_timesteps(100, "10")]


@some
@given(st.integers(1, 300), st.data())
def test_kept_timesteps_are_as_many_as_asked_rising_and_within(total, data):
    count = data.draw(st.integers(1, total))
    kept = space_timesteps(total, str(count))
    assert len(set(kept)) == count and kept == sorted(kept) and kept[0] == 0
    assert kept[-1] == (total - 1 if count > 1 else 0)


# The objective


def test_normal_kl():
    mean1, logvar1, mean2, logvar2 = randn(4, 50, seed=1)
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


def constant_output(value):
    """A model that sees no noise, and gives one number as its variance value."""
    return lambda x, t, y: torch.cat([torch.zeros_like(x), torch.full_like(x, value)], dim=1)


def quantiles(n):
    """A noise image that holds the normal distribution itself."""
    return Normal(0.0, 1.0).icdf((torch.arange(n * n, dtype=torch.float64) + 0.5) / n**2).view(1, 1, n, n)


def vb_by_timestep(value):
    """(1000,) the bound of a model that says nothing, averaged over the noise exactly."""
    t = torch.arange(1, 1000)
    x0 = torch.full(
        (999, 1, 1, 1), 0.2, dtype=torch.float64
    )  # for t > 0 only noise**2 matters: noise 1 will do
    later = Diffusion().training_losses(constant_output(value), x0, t, noise=torch.ones_like(x0))["vb"]
    grey = torch.full((1, 1, 64, 64), 50 / 127.5 - 1, dtype=torch.float64)
    first = Diffusion().training_losses(
        constant_output(value), grey, torch.zeros(1, dtype=torch.long), noise=quantiles(64)
    )
    return torch.cat([first["vb"], later])


def test_starting_values_of_the_bound():
    vb = vb_by_timestep(0.0)
    for t, want in {1: 0.6327, 2: 0.3789, 10: 0.1078, 100: 0.01458, 999: 0.01472}.items():
        assert vb[t].item() == pytest.approx(want, abs=0.5 * 10 ** -(5 if want < 0.1 else 4)), t
    assert vb[0].item() == pytest.approx(2.43, abs=0.01)
    for value, want in {0.0: 0.01415, -1.0: 0.01467, 1.0: 0.01399}.items():
        assert vb_by_timestep(value)[1:].sum().item() / 1000 == pytest.approx(want, abs=0.6e-5)


def test_starting_loss_of_a_model():
    config = DiTConfig(
        input_size=2, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3
    )
    model = DiT(config).double().eval()
    t, x0 = torch.arange(1000), torch.full((1000, 1, 2, 2), 50 / 127.5 - 1, dtype=torch.float64)
    y, diffusion = torch.zeros(1000, dtype=torch.long), Diffusion()
    losses = diffusion.training_losses(model, x0, t, y, noise=torch.ones_like(x0))
    assert torch.equal(losses["mse"], torch.ones(1000))
    assert relative(losses["vb"][1:], vb_by_timestep(0.0)[1:]) < 1e-6
    start = 1 + vb_by_timestep(0.0).mean().item()
    assert start == pytest.approx(1.0166, abs=1e-4)
    drawn = diffusion.training_losses(model, x0, t, y, noise=randn(*x0.shape))
    assert drawn["loss"].mean().item() == pytest.approx(start, abs=0.1)


@pytest.mark.parametrize("value", [-3.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("spec", ["10", "1000"])
def test_learned_variance_lies_between_its_bounds_or_beyond_them(spec, value):
    """A weighted geometric mean; nothing holds the weight in [0, 1]."""
    chain, diffusion, k, weight = Chain(spec), Diffusion().respaced(spec), 7, (value + 1) / 2
    x = randn(2, 1, 2, 2)
    p = diffusion.p_mean_variance(constant_output(value), x, torch.tensor([k, k]))
    want = chain.posterior(k)[2] ** (1 - weight) * (1 - chain.alpha[k]) ** weight
    assert relative(p.log_variance.exp(), torch.full_like(x, want)) < 1e-9


@pytest.mark.parametrize("t", [0, 1, 500])
def test_each_loss_reaches_its_own_half_of_the_output(t):
    x0, noise, output = randn(2, 3, 4, 4).clamp(-1, 1), randn(2, 3, 4, 4, seed=1), randn(2, 6, 4, 4, seed=2)
    output.requires_grad_()
    losses = Diffusion().training_losses(lambda x, t, y: output, x0, torch.tensor([t, t + 1]), noise=noise)
    for name, touched in (("mse", slice(0, 3)), ("vb", slice(3, 6))):
        (gradient,) = torch.autograd.grad(losses[name].sum(), output, retain_graph=True)
        assert (gradient[:, touched] != 0).all()
        gradient[:, touched] = 0
        assert not gradient.any()
    assert torch.equal(losses["loss"], losses["mse"] + losses["vb"])


def test_guidance_formula():
    class Model:
        null_class = 9

        def __call__(self, x, t, y):
            return torch.cat([x * y.view(-1, 1, 1, 1), x + t.view(-1, 1, 1, 1)], dim=1)

    x, t, y = randn(2, 4, 2, 2), torch.tensor([5, 7]), torch.tensor([1, 2])
    for channels in (None, 1, 3):
        k, want = channels or 4, Model()(x, t, y)
        for i in range(2):
            want[i, :k] = 9 * x[i, :k] + 2.5 * (y[i] * x[i, :k] - 9 * x[i, :k])
        assert relative(Guided(Model(), 2.5, guided_channels=channels)(x, t, y), want) < 1e-12
    assert torch.equal(Guided(Model(), 1.0)(x, t, y), Model()(x, t, y))
    assert relative(Guided(Model(), 0.0)(x, t, y)[:, :4], 9 * x) < 1e-12
    assert cfg_eps(3.0, 1.0, 4.0) == 9.0


# Tokens


def patchify_loop(images, p):
    n, c, h, w = images.shape
    tokens = torch.zeros(n, (h // p) * (w // p), p * p * c, dtype=images.dtype)
    for i in range(n):
        for row in range(h):
            for column in range(w):
                for channel in range(c):
                    token = (row // p) * (w // p) + column // p
                    place = ((row % p) * p + column % p) * c + channel
                    tokens[i, token, place] = images[i, channel, row, column]
    return tokens


shapes = st.tuples(*[st.integers(1, 3)] * 5)  # N, C, rows, columns, p


@some
@given(shapes)
def test_patchify_is_the_loop_and_unpatchify_undoes_it(shape):
    n, c, rows, columns, p = shape
    images = randn(n, c, rows * p, columns * p)
    tokens = patchify(images, p)
    assert torch.equal(tokens, patchify_loop(images, p))
    assert torch.equal(unpatchify(tokens, (rows, columns), p), images)


@some
@given(shapes)
def test_patch_embedding_is_a_linear_map_of_patches(shape):
    n, c, rows, columns, p = shape
    embed, images = PatchEmbed(p, c, 8).double(), randn(n, c, rows * p, columns * p)
    weight = torch.zeros(8, p * p * c, dtype=torch.float64)
    for channel in range(c):
        for i in range(p):
            for j in range(p):
                weight[:, (i * p + j) * c + channel] = embed.proj.weight[:, channel, i, j].detach()
    assert relative(embed(images), patchify_loop(images, p) @ weight.T + embed.proj.bias) < 1e-12


@some
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([4, 8, 12]))
def test_positions_are_the_loop(rows, columns, width):
    half, quarter = width // 2, width // 4
    table = torch.zeros(rows * columns, width, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for start, position in ((0, column), (half, row)):  # the column comes first
                for i in range(quarter):
                    angle = position / 10000 ** (i / quarter)
                    table[row * columns + column, start + i] = math.sin(angle)
                    table[row * columns + column, start + quarter + i] = math.cos(angle)
    assert relative(sincos_2d((rows, columns), width), table) < 1e-12
    assert relative(sincos_1d(torch.arange(columns), half), table[:columns, :half]) < 1e-12


def test_timestep_embedding_is_the_loop():
    times = [0, 1, 17, 500, 999]
    want = torch.zeros(5, 256, dtype=torch.float64)
    for n, t in enumerate(times):
        for i in range(128):
            angle = t * math.exp(-math.log(10000) * i / 128)
            want[n, i], want[n, 128 + i] = math.cos(angle), math.sin(angle)
    assert relative(timestep_embedding(torch.tensor(times)), want) < 2e-4  # float32 angles up to 999


# Attention


def attention_loop(q, k, v):
    """(N, h, T, d): one query at a time, by the definition."""
    out = torch.zeros_like(q)
    for n in range(q.shape[0]):
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                scores = [float(q[n, head, i] @ key) / math.sqrt(q.shape[3]) for key in k[n, head]]
                weights = [math.exp(s - max(scores)) for s in scores]
                for weight, value in zip(weights, v[n, head]):
                    out[n, head, i] += weight / sum(weights) * value
    return out


def heads(x, h):
    """(N, T, D) to (N, h, T, D/h), by slices."""
    size = x.shape[-1] // h
    return torch.stack([x[..., i * size : (i + 1) * size] for i in range(h)], dim=1)


@torch.no_grad()
def test_attention_is_the_loop():
    attention, x = Attention(12, 3).double(), randn(2, 5, 12)
    q, k, v = (F.linear(x, w, b) for w, b in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)))
    mixed = attention_loop(*(heads(a, 3) for a in (q, k, v)))
    want = attention.proj(torch.cat(list(mixed.unbind(1)), dim=-1))
    assert relative(attention(x), want) < 1e-12


def pytorch_attention(x, context, in_weight, in_bias, proj, num_heads):
    """What torch's own multi-head attention returns: tokens, and the maps."""
    q, kv = x.transpose(0, 1), context.transpose(0, 1)
    out, maps = F.multi_head_attention_forward(
        *(q, kv, kv, x.shape[-1], num_heads, in_weight, in_bias, None, None, False, 0.0),
        *(proj.weight, proj.bias),
        average_attn_weights=False,
    )
    return out.transpose(0, 1), maps


@torch.no_grad()
@pytest.mark.parametrize("shape,num_heads", [((3, 3, 12), 3), ((2, 7, 8), 8), ((1, 1, 6), 1)])
def test_attention_is_pytorchs(shape, num_heads):
    attention, x = Attention(shape[-1], num_heads).double(), randn(*shape)
    nn.init.normal_(attention.qkv.bias)
    qkv, proj = attention.qkv, attention.proj
    out, maps = pytorch_attention(x, x, qkv.weight, qkv.bias, proj, num_heads)
    assert relative(attention(x), out) < 1e-12
    assert relative(attention.maps(x), maps) < 1e-12
    assert relative(attention.maps(x).sum(-1), torch.ones(maps.shape[:-1])) < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("queries,keys", [(5, 2), (2, 2), (1, 3), (4, 1)])
def test_cross_attention_is_pytorchs(queries, keys):
    cross, x, context = CrossAttention(12, 3).double(), randn(2, queries, 12), randn(2, keys, 12, seed=1)
    nn.init.normal_(cross.q.bias)
    nn.init.normal_(cross.kv.bias)
    weight, bias = (torch.cat(pair) for pair in zip(*((m.weight, m.bias) for m in (cross.q, cross.kv))))
    out, maps = pytorch_attention(x, context, weight, bias, cross.proj, 3)
    assert relative(cross(x, context), out) < 1e-12
    assert relative(cross.maps(x, context), maps) < 1e-12


@torch.no_grad()
def test_bfloat16_attention_is_close_to_pytorchs():
    attention, x = Attention(64, 4), randn(2, 16, 64).float()
    want = pytorch_attention(x, x, attention.qkv.weight, attention.qkv.bias, attention.proj, 4)[0]
    assert relative(attention.bfloat16()(x.bfloat16()).float(), want) < 0.03


@torch.no_grad()
def test_mlp_is_its_formula():
    mlp, x = Mlp(8, 1.5).double(), randn(2, 3, 8)
    z = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    assert z.shape[-1] == 12
    assert relative(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias) < 1e-12


# Training


def weight_of_start(k):
    """The warm-up keeps (1+i)/(10+i) of the average at update i: all of them together keep 1 / C(k+9, 9)."""
    return 1 / math.comb(k + 9, 9)


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_ema_of_a_jump_from_0_to_1(k):
    model = nn.Linear(2, 2).double()
    for p in model.parameters():
        nn.init.zeros_(p)
    average = EMA(model, decay=0.9999)
    for p in model.parameters():
        nn.init.ones_(p)
    for _ in range(k):
        average.update(model)
    for p in average.model.parameters():
        assert p.dtype == torch.float32 and not p.requires_grad
        assert relative(p, torch.full_like(p, 1 - weight_of_start(k))) < 1e-6


def test_ema_is_a_weighted_sum_of_all_weights_it_has_seen():
    model, decay, k = nn.Linear(1, 1, bias=False), 0.5, 20
    nn.init.constant_(model.weight, 100.0)
    average, seen = EMA(model, decay), [100.0]
    for i in range(k):
        nn.init.constant_(model.weight, float(i**2))
        average.update(model)
        seen.append(float(i**2))
    keeps = [min(decay, (1 + i) / (10 + i)) for i in range(k)]
    shares = [1.0] + [1 - keep for keep in keeps]
    want = sum(w * share * math.prod(keeps[i:]) for i, (w, share) in enumerate(zip(seen, shares)))
    assert average.model.weight.item() == pytest.approx(want, rel=1e-6)


def test_learning_rate():
    plain = TrainConfig(steps=10, lr=2.0)
    assert [learning_rate(plain, step, step / 10) for step in (0, 5, 9)] == [2.0] * 3
    warm = TrainConfig(steps=10, lr=2.0, warmup_steps=4)
    assert [learning_rate(warm, step, 0) for step in (0, 1, 3, 4, 100)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    cosine = TrainConfig(steps=10, lr=2.0, lr_schedule="cosine")
    rates = [learning_rate(cosine, 0, fraction) for fraction in (0, 0.5, 1, 1.5)]
    assert rates == pytest.approx([2.0, 1.02, 0.04, 0.04])
    both = TrainConfig(steps=10, lr=2.0, lr_schedule="cosine", warmup_steps=2)
    assert learning_rate(both, 0, 0.5) == pytest.approx(0.51)


@some
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_batches_visit_each_image_once_per_epoch(n, batch_size, seed):
    batches, visits = iter(Batches(n, batch_size, seed)), []
    while len(visits) < 4 * n:
        batch = next(batches)
        assert len(batch) == batch_size
        visits += batch
    for epoch in range(4):
        assert sorted(visits[epoch * n : (epoch + 1) * n]) == list(range(n))


@pytest.mark.parametrize("world,batch_size", [(2, 6), (3, 6), (3, 12)])
@pytest.mark.parametrize("first_step", [0, 4])
def test_parts_of_all_processes_are_the_whole_batch(world, batch_size, first_step):
    parts = [iter(Batches(7, batch_size, 5, first_step, rank, world)) for rank in range(world)]
    whole = iter(Batches(7, batch_size, 5))
    for _ in range(first_step):
        next(whole)
    for _ in range(5):
        assert sum((next(part) for part in parts), []) == next(whole)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [Batches(50, 10, seed).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_draw_depends_on_seed_and_step_alone():
    def same(a, b):
        return [torch.equal(getattr(a, f), getattr(b, f)) for f in ("t", "noise", "drop", "flip")]

    first = draw(3, 7, (64, 1, 4, 4), 1000, 0.5)
    torch.manual_seed(99)
    torch.randn(5)
    assert same(first, draw(3, 7, (64, 1, 4, 4), 1000, 0.5)) == [True] * 4
    for other in (draw(3, 8, (64, 1, 4, 4), 1000, 0.5), draw(4, 7, (64, 1, 4, 4), 1000, 0.5)):
        assert same(first, other) == [False] * 4
    many = draw(0, 0, (20000, 1, 1, 1), 10, 0.1)
    assert sorted(many.t.unique().tolist()) == list(range(10))
    assert many.drop.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert many.flip.float().mean().item() == pytest.approx(0.5, abs=0.02)


# Evaluation


def test_frechet_distance_in_one_dimension():
    a, b = randn(30, 1).numpy(), 2 + 3 * randn(50, 1, seed=1).numpy()
    want = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("n", [4, 40])  # fewer samples than features: singular covariances
def test_frechet_distance_by_scipy(n):
    a, b = randn(n, 6).numpy(), randn(n, 6, seed=1).numpy() @ randn(6, 6, seed=2).numpy() + 1
    covs = [np.cov(x, rowvar=False) for x in (a, b)]
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    want = shift + np.trace(covs[0] + covs[1] - 2 * np.real(sqrtm(covs[0] @ covs[1])))
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
