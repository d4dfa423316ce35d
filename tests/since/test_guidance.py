"""Rules of guidance against diffusers' guiders, and the wrapper that applies them to any model."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from dit_nb import Diffusion
from dit_nb.guidance import Guided, cfg_eps
from dit_nb.lab.guidance_study import METHODS, guided_by_method
from dit_nb.pretrained import digit_model, sample_images
from dit_nb.sampling import ddim_sample
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.guidance import (
    GuidedBy,
    MomentumGuidance,
    cfg_zero_star,
    projected_guidance,
    rescaled_guidance,
    sigma_interval,
)
from dit_nb.speed import InferenceModel
from gaussian_chain import normal
from support import DEVICES, error_cases, model_inputs, raises_input_error, relative, tiny_model

FULL = Diffusion()
T, Y = torch.tensor([5, 7]), torch.tensor([1, 2])


def predictions(n=3, seed=0):
    """Two predictions that resemble each other, of images with different scales."""
    uncond = normal(n, 2, 3, 4, seed=seed) * torch.linspace(0.5, 2, n).view(-1, 1, 1, 1)
    return 1.3 * uncond + 0.5 * normal(n, 2, 3, 4, seed=seed + 9), uncond


def guider(name, step=3, steps=10, **options):
    """One of diffusers' guiders, at a step of a run."""
    guiders = pytest.importorskip("diffusers.guiders")
    one = getattr(guiders, name)(**options)
    one.set_state(step=step, num_inference_steps=steps, timestep=None)
    return lambda cond, uncond: one.forward(cond, uncond).pred


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0])
def test_rescaled_guidance_is_that_of_diffusers(factor):
    cond, uncond = predictions()
    theirs = guider("ClassifierFreeGuidance", guidance_scale=4.0, guidance_rescale=factor)(cond, uncond)
    ours = rescaled_guidance(cond, uncond, 4.0, factor)
    assert relative(ours, theirs) < 1e-12
    spread = (ours.flatten(1).std(1) / cond.flatten(1).std(1)).numpy()
    if factor == 1:
        assert spread == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_cfg_zero_star_is_that_of_diffusers(scale):
    cond, uncond = (p.float() for p in predictions())  # it computes the factor in float32
    theirs = guider("ClassifierFreeZeroStarGuidance", guidance_scale=scale)(cond, uncond)
    assert relative(cfg_zero_star(cond, uncond, scale), theirs) < 1e-5
    first = guider("ClassifierFreeZeroStarGuidance", step=0, guidance_scale=scale)(cond, uncond)
    wrapped = GuidedBy(
        lambda x, t, y: x, partial(cfg_zero_star, cfg_scale=scale), zero_from=1000, null_class=9
    )
    assert torch.equal(wrapped(cond, torch.full((3,), 1000), torch.zeros(3, dtype=torch.long)), first)


@pytest.mark.parametrize("eta, threshold", [(0.0, None), (0.0, 2.0), (0.3, 4.0), (1.0, None)])
def test_projected_guidance_is_that_of_diffusers(eta, threshold):
    """Theirs has two conventions; ours, the paper's, is the original one, with a scale counted from 0."""
    cond, uncond = predictions()
    options = dict(eta=eta, adaptive_projected_guidance_rescale=threshold or 0.0)
    theirs = guider("AdaptiveProjectedGuidance", guidance_scale=3.0, use_original_formulation=True, **options)
    ours = projected_guidance(cond, uncond, 4.0, eta, threshold)
    assert relative(ours, theirs(cond, uncond)) < 1e-12
    native = guider("AdaptiveProjectedGuidance", guidance_scale=4.0, **options)(cond, uncond)
    assert (relative(ours, native) < 1e-12) == (eta == 1 and threshold is None)  # then it is plain guidance


def test_momentum_is_that_of_diffusers():
    theirs = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
    ours, buffer = MomentumGuidance(4.0, eta=0.2, threshold=3.0, momentum=-0.5), theirs.MomentumBuffer(-0.5)
    for seed in range(4):
        cond, uncond = predictions(seed=seed)
        want = theirs.normalized_guidance(cond, uncond, 3.0, buffer, 0.2, 3.0, True)
        assert relative(ours(cond, uncond), want) < 1e-12
    ours.reset()
    assert relative(ours(cond, uncond), projected_guidance(cond, uncond, 4.0, 0.2, 3.0)) < 1e-12


def test_autoguidance_is_that_of_diffusers():
    cond, worse = predictions()
    options = dict(guidance_scale=2.5, auto_guidance_layers=[0], dropout=0.1)
    models = {"cond": lambda x, t, y: cond, "worse": lambda x, t, y: worse}
    wrapped = GuidedBy(models["cond"], partial(cfg_eps, cfg_scale=2.5), worse=models["worse"])
    ours = wrapped(torch.zeros_like(cond), torch.zeros(3), torch.zeros(3))
    assert relative(ours, guider("AutoGuidance", **options)(cond, worse)) < 1e-12


def test_the_interval_is_that_of_diffusers():
    """Theirs counts steps of a run, ours timesteps."""
    cond, uncond = predictions()
    labels, steps = torch.zeros(3, dtype=torch.long), FULL.respaced("10").timestep_map.flip(0).tolist()

    def model(x, t, y):
        return torch.where(
            (y == 9).view(-1, 1, 1, 1), torch.cat([uncond] * (len(x) // 3)), torch.cat([cond] * (len(x) // 3))
        )

    wrapped = GuidedBy(model, partial(cfg_eps, cfg_scale=3.0), interval=(steps[7], steps[2]), null_class=9)
    for step, t in enumerate(steps):
        theirs = guider("ClassifierFreeGuidance", step=step, guidance_scale=3.0, start=0.2, stop=0.8)
        assert relative(wrapped(cond, torch.full((3,), t), labels), theirs(cond, uncond)) < 1e-12


def test_directions_are_orthogonal():
    cond, uncond = predictions()
    away = (cfg_zero_star(cond, uncond, 3.0) - cfg_zero_star(cond, uncond, 2.0)).flatten(1)
    assert (away * uncond.flatten(1)).sum(1).abs().max() < 1e-6  # the factor has 1e-8 below the line
    added = (projected_guidance(cond, uncond, 3.0) - cond).flatten(1)
    assert (added * cond.flatten(1)).sum(1).abs().max() < 1e-12
    for rule in (rescaled_guidance, cfg_zero_star, projected_guidance):
        assert relative(rule(cond, uncond, 1.0), cond) < 1e-12


def test_each_image_is_guided_by_itself():
    cond, uncond = predictions(4)
    for rule in (rescaled_guidance, cfg_zero_star, partial(projected_guidance, threshold=1.0)):
        alone = torch.cat([rule(c[None], u[None], 4.0) for c, u in zip(cond, uncond)])
        assert relative(rule(cond, uncond, 4.0), alone) < 1e-12


def test_plain_guidance_does_not_depend_on_what_is_predicted_and_projection_does():
    """x0 is an affine function of eps: a line stays a line, an angle does not stay an angle."""
    model, (x, t, y) = tiny_model(), model_inputs(tiny_model())
    plain, projected = partial(cfg_eps, cfg_scale=4.0), partial(projected_guidance, cfg_scale=4.0)
    pairs = [[GuidedBy(model, rule, x0_of=of)(x, t, y) for of in (None, FULL)] for rule in (plain, projected)]
    assert relative(*pairs[0]) < 1e-4 and relative(*pairs[1]) > 0.01
    assert torch.equal(pairs[1][0][:, 3:], pairs[1][1][:, 3:])  # variance values are left alone


@pytest.mark.parametrize("process", [FULL, RectifiedFlow()])
def test_predictions_become_clean_images_and_back(process):
    seen, x = [], normal(2, 1, 2, 2)
    wrapped = GuidedBy(
        lambda x, t, y: torch.sin(x), lambda c, u: seen.append(c) or c, x0_of=process, null_class=9
    )
    t = torch.tensor([300, 800])
    assert relative(wrapped(x, t, Y), torch.sin(x)) < 1e-9
    if process is FULL:
        bar = FULL.alphas_cumprod[t].view(-1, 1, 1, 1)
        x0 = (x - (1 - bar).sqrt() * torch.sin(x)) / bar.sqrt()
    else:
        x0 = x - t.view(-1, 1, 1, 1) / 1000 * torch.sin(x)
    assert relative(seen[0], x0) < 1e-9


def test_the_wrapper_equals_guided():
    model, (x, t, y) = tiny_model(), model_inputs(tiny_model())
    for scale in (0.0, 1.5, 4.0):
        ours = GuidedBy(model, partial(cfg_eps, cfg_scale=scale))(x, t, y)
        assert torch.equal(ours, Guided(model, scale)(x, t, y))


@pytest.mark.parametrize("fast", [False, True])
def test_sample_images_takes_a_model_with_guidance_around_it(fast):
    """Plain guidance by a rule gives the samples of the setting `cfg_scale`."""
    model, sampling = digit_model("cpu")
    wanted = sample_images(model, sampling, [3, 8], steps=5, cfg_scale=2.0, progress=False)
    plain = sample_images(model, sampling, [3, 8], steps=5, progress=False)
    network = InferenceModel(model) if fast else model
    for guided in (GuidedBy(network, partial(cfg_eps, cfg_scale=2.0)), Guided(network, 2.0)):
        images = sample_images(guided, sampling, [3, 8], steps=5, progress=False)
        assert (images - wanted).abs().max() < 1e-4 < (images - plain).abs().max()
    with raises_input_error("model is Guided"):
        sample_images(Guided(lambda x, t, y: x, 2.0, null_class=10), sampling, [3], progress=False)


def test_an_interval_saves_calls_and_may_differ_within_a_batch():
    sizes = []

    def model(x, t, y):
        sizes.append(len(x))
        return x * y.view(-1, 1, 1, 1)

    wrapped = GuidedBy(model, partial(cfg_eps, cfg_scale=2.0), interval=(6, 8), null_class=9)
    x = normal(2, 1, 2, 2)
    got = wrapped(x, T, Y)  # only the second image is inside
    assert relative(got[:1], x[:1]) < 1e-12 and relative(got[1:], (9 + 2 * (2 - 9)) * x[1:]) < 1e-12
    wrapped(x, torch.tensor([5, 9]), Y)
    assert sizes == [4, 2]


def test_a_rule_with_a_memory_forgets_it_before_each_run():
    model, diffusion = tiny_model(), FULL.respaced("5")
    guided = GuidedBy(model, MomentumGuidance(3.0, momentum=-0.7), x0_of=FULL)
    x_T, y = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3])
    runs = [ddim_sample(diffusion, guided, x_T.shape, y, x_T=x_T, progress=False) for _ in range(2)]
    assert torch.equal(*runs)
    fast = GuidedBy(InferenceModel(model), MomentumGuidance(3.0, momentum=-0.7), x0_of=FULL)
    assert relative(ddim_sample(diffusion, fast, x_T.shape, y, x_T=x_T, progress=False), runs[0]) < 1e-4


@pytest.mark.parametrize("worse", [False, True])
def test_precomputed_conditioning_changes_nothing(worse):
    model, other = tiny_model(), InferenceModel(tiny_model(scale=0.2)) if worse else None
    options = dict(worse=other, interval=(200, 700))
    x_T, y = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3])
    samples = []
    for one in (model, InferenceModel(model)):
        guided = GuidedBy(one, partial(cfg_eps, cfg_scale=2.0), **options)
        samples.append(ddim_sample(FULL.respaced("6"), guided, x_T.shape, y, x_T=x_T, progress=False))
    assert relative(*samples) < 1e-4


def test_guidance_of_a_flow_is_that_of_its_diffusion():
    """DDIM is Euler's method on the straight path, with guidance too: the start is scaled to its noise level."""
    model, y = tiny_model(scale=0.1), torch.tensor([0, 3])
    flow = RectifiedFlow().respaced("4")
    guided = Guided(model, 2.0)
    x_T = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    options = dict(x_T=x_T, progress=False)
    inside = flow_sample(flow, NoiseAsVelocity(guided, FULL), x_T.shape, y, **options)
    outside = GuidedBy(NoiseAsVelocity(model, FULL), partial(cfg_eps, cfg_scale=2.0))
    assert relative(flow_sample(flow, outside, x_T.shape, y, **options), inside) < 1e-4


def test_sigma_interval():
    sigma = np.sqrt(1 / np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)) - 1)
    low, high = sigma_interval(FULL.alphas_cumprod, 0.34, 1.02)
    assert sigma[low - 1] < 0.34 <= sigma[low] and sigma[high] <= 1.02 < sigma[high + 1]
    with raises_input_error("low.*500.*high.*600.*between"):
        sigma_interval(FULL.alphas_cumprod, 500.0, 600.0)


RULE = partial(cfg_eps, cfg_scale=2.0)


@error_cases(
    (lambda: GuidedBy(lambda x, t, y: x, RULE), "null_class.*None.*worse"),
    (lambda: GuidedBy(3, RULE), "model.*3"),
    (lambda: GuidedBy(lambda x, t, y: x, 2.0, null_class=9), "rule.*2.0"),
    (lambda: GuidedBy(tiny_model(), RULE, interval=(5, 3)), r"interval.*\(5, 3\).*first and the last"),
    (lambda: GuidedBy(tiny_model(), RULE, interval=4), "interval.*4.*first and the last"),
    (lambda: GuidedBy(tiny_model(), RULE)(normal(2, 3, 4, 6), T, None), "y.*missing"),
    (
        lambda: ddim_sample(FULL.respaced("2"), GuidedBy(tiny_model().train(), RULE), (2, 3, 4, 6), Y),
        r"train\(\) mode",
    ),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()


def test_a_memory_lasts_over_the_two_calls_of_a_heun_step():
    """The corrector of one step and the predictor of the next have the same time."""
    rule, resets = MomentumGuidance(2.0), []
    rule.reset = lambda: resets.append(1)
    model = lambda x, t, y=None: x + y.view(-1, 1, 1, 1)  # noqa: E731
    guided = GuidedBy(model, rule, null_class=0)
    flow_sample(
        RectifiedFlow().respaced(4), guided, (2, 1, 2, 2), torch.tensor([1, 2]), step="heun", progress=False
    )
    assert len(resets) == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_samples_on_each_device(method, device):
    """float32 there, against float64 on the CPU."""
    models, y = [tiny_model(scale=scale) for scale in (0.1, 0.05)], torch.tensor([0, 3])
    x_T = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    samples = []
    for place in ({"device": device, "dtype": torch.float32}, {"dtype": torch.float64}):
        ours, worse = (NoiseAsVelocity(copy.deepcopy(model).to(**place), FULL) for model in models)
        guided = guided_by_method(method, 2.0, ours, dict.fromkeys(METHODS[-2:], worse), 0.5, 4)
        flow, noise, labels = RectifiedFlow().respaced(4), x_T.to(**place), y.to(place.get("device"))
        samples.append(flow_sample(flow, guided, x_T.shape, labels, x_T=noise, progress=False))
    assert samples[0].device.type == device and relative(*samples) < 1e-3
