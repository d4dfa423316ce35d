"""Our models and the real classes of diffusers: the same outputs, and our samplers against its schedulers."""

from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import Timesteps

from dit_nb import Diffusion, SamplingConfig
from dit_nb.conditioning import timestep_embedding
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.guidance import Guided
from dit_nb.interop.diffusers import (
    _fix_timestep_frequencies,
    _make_scheduler,
    _pad_labels,
    _trim_labels,
    from_diffusers,
    scheduler_sample,
    to_diffusers,
)
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.schedule import cosine_betas
from support import latent_inputs, latent_model, raises_input_error, relative, same_weights

X, T, Y = latent_inputs()
SAMPLING = SamplingConfig()

# diffusers multiplies timesteps up to 999 with frequencies exp(-e), all in float32. The exponent e has two roundings of
# relative size 2**-24, and e * exp(-e) < 0.37; exp itself is within 2 * 2**-24, the product within 2**-24.
FLOAT32_PHASE_ERROR = 999 * (2 * 0.37 + 2 + 1) * 2**-24


def with_our_embedding(transformer):
    """Replace the float32 timestep embedding of diffusers by ours, to compare everything else to 1e-5."""
    for module in transformer.modules():
        if isinstance(module, Timesteps):
            module.forward = lambda t, width=module.num_channels: timestep_embedding(t, width)
    return transformer


@torch.no_grad()
def output_difference(model, transformer):
    """Largest difference of the outputs, relative to the largest output."""
    x = X[:, : model.config.in_channels]
    return relative(transformer(x, T, Y).sample, model(x, T, Y if model.config.num_classes else None))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"learn_sigma": False},
        {"patch_size": 4, "num_heads": 8},
        {"in_channels": 3, "depth": 1},
        {"num_classes": 0},
    ],
    ids=str,
)
def test_outputs_and_round_trip(fields):
    model = latent_model(**fields)
    transformer = to_diffusers(model)
    converted = from_diffusers(transformer)
    assert converted.config == model.config and same_weights(converted, model)
    assert output_difference(model, with_our_embedding(transformer)) < 1e-5


def test_timestep_frequencies():
    transformer, timesteps = to_diffusers(latent_model()), torch.arange(1000)
    modules = [module for module in transformer.modules() if isinstance(module, Timesteps)]
    assert len(modules) == 2  # one in each block
    for shift, fix in ((0, lambda: None), (1, lambda: _fix_timestep_frequencies(transformer))):
        for module in modules:
            module.downscale_freq_shift = shift
        if shift:  # as diffusers builds it
            assert (modules[0](timesteps) - timestep_embedding(timesteps)).abs().max() > 1
            assert output_difference(latent_model(), transformer) > 1e-3
        fix()
        for module in modules:
            assert (module(timesteps) - timestep_embedding(timesteps)).abs().max() < FLOAT32_PHASE_ERROR


@torch.no_grad()
def test_null_class_and_padded_labels():
    model = latent_model()
    transformer = with_our_embedding(to_diffusers(model))
    assert output_difference(model, transformer) < 1e-5  # label 10 is the null class
    y = torch.where(Y == 10, 1000, Y)  # as the pipeline calls it
    assert torch.equal(transformer(X, T, y).sample, transformer(X, T, Y).sample)
    table = torch.randn(11, 4)
    assert _pad_labels(table).shape == (1001, 4) and torch.equal(_trim_labels(_pad_labels(table)), table)
    full = torch.randn(1001, 4)
    assert torch.equal(_pad_labels(full), full) and torch.equal(_trim_labels(full), full)


@pytest.mark.parametrize(
    "fields, pattern",
    [
        ({"block": "adaln"}, "block is adaln"),
        ({"block": "cross_attention"}, "block is cross_attention"),
        ({"input_size": (8, 4)}, "input_size is 8x4"),
        ({"mlp_ratio": 2.0}, "mlp_ratio is 2.*4"),
        ({"num_classes": 1200}, "num_classes is 1200.*1000"),
        ({"class_dropout_prob": 0.0}, "class_dropout_prob is 0"),
    ],
    ids=str,
)
def test_models_that_diffusers_does_not_have(fields, pattern):
    with raises_input_error(pattern):
        to_diffusers(latent_model(**fields))


def test_transformers_that_are_not_ours():
    sizes = dict(num_attention_heads=2, attention_head_dim=16, out_channels=8, num_layers=2, sample_size=8)
    sizes["num_embeds_ada_norm"] = 5
    with raises_input_error("t_embedder.mlp.0.weight"):
        from_diffusers(DiTTransformer2DModel(**sizes))
    with raises_input_error("activation_fn.*geglu.*gelu-approximate"):
        from_diffusers(DiTTransformer2DModel(**sizes, activation_fn="geglu"))


# Schedulers of diffusers


def initial_noise(shape, seed=1):
    return torch.randn(shape, generator=torch.manual_seed(seed))


BETAS = tuple(cosine_betas(400).clamp(max=0.05).tolist())  # a schedule that neither library has a name for


@pytest.mark.parametrize("schedule", ["linear", "cosine", BETAS], ids=["linear", "cosine", "betas"])
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_equals_ours(schedule, clip):
    sampling = replace(SAMPLING, schedule=schedule, clip_x0=clip)
    model, diffusion, x_T = latent_model(), make_diffusion(sampling), initial_noise((6, 4, 8, 8))
    scheduler = _make_scheduler(sampling, "ddim")
    guided = Guided(model, 1.5)
    known = dict(x_T=x_T, progress=False)
    ours = ddim_sample(diffusion.respaced("ddim10"), guided, x_T.shape, Y % 10, clip_x0=clip, **known)
    theirs = scheduler_sample(diffusion, guided, x_T.shape, Y % 10, scheduler=scheduler, steps=10, **known)
    assert relative(theirs, ours) < 1e-4 and not ours.isnan().any()


@pytest.mark.parametrize("variance", ["learned", "fixed_small", "fixed_large"])
def test_ddpm_equals_ours(variance):
    """The scheduler receives the learned variance, and takes its noise in the same order."""
    model, diffusion = latent_model(learn_sigma=variance == "learned"), Diffusion(variance=variance)
    scheduler = _make_scheduler(replace(SAMPLING, variance=variance), "ddpm")
    known = dict(progress=False, y=Y)

    def sample_ours(**options):
        options |= dict(clip_x0=True, generator=torch.manual_seed(3), **known)
        return ddpm_sample(diffusion.respaced("ddim10"), model, X.shape, **options)

    ours = sample_ours()
    theirs = scheduler_sample(
        diffusion, model, X.shape, scheduler=scheduler, steps=10, generator=torch.manual_seed(3), **known
    )
    # A model with random weights amplifies differences, and diffusers keeps its tables in float32: hence not 1e-5.
    assert (ours - theirs).abs().max() < 1e-3 and 0.3 < ours.std()
    if variance == "learned":
        assert (ours - sample_ours(variance="fixed_small")).abs().max() > 0.05


@pytest.fixture(scope="module")
def classifier():
    return DigitClassifier(digits())


@pytest.mark.parametrize("steps,even", [(10, True), (20, True), (20, False)])
def test_dpm_solver_samples_digits(classifier, steps, even):
    model, sampling = digit_model()
    labels = torch.arange(10).repeat(8)
    images = scheduler_sample(
        Diffusion(),
        model.cpu(),
        (80, 1, 8, 8),
        labels,
        scheduler=_make_scheduler(sampling, "dpm++", use_lu_lambdas=even),
        steps=steps,
        generator=torch.manual_seed(0),
        progress=False,
    )
    assert classifier.accuracy(images, labels) > 0.95
    assert classifier.accuracy(images, (labels + 1) % 10) < 0.1
    assert images.view(8, 10, -1).std(0).mean() > 0.2  # not the same digit eight times


@pytest.mark.parametrize(
    "name",
    ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"],
)
def test_other_schedulers_run(name):
    scheduler, timesteps = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02), []
    options = dict(scheduler=scheduler, steps=8, x_T=initial_noise((2, 4, 8, 8)), progress=False)
    callback = lambda i, t, x: timesteps.append(t)  # noqa: E731
    samples = scheduler_sample(Diffusion(), latent_model(), (2, 4, 8, 8), Y[:2], callback=callback, **options)
    assert timesteps[0] > 850 and timesteps[-1] < 200 and samples.isfinite().all()


def test_schedulers_that_do_not_fit():
    def refused(pattern, scheduler, diffusion=None):
        with raises_input_error(pattern):
            scheduler_sample(diffusion or Diffusion(), latent_model(), X.shape, Y, scheduler=scheduler)

    refused("DDIMScheduler.*make_scheduler", diffusers.DDIMScheduler(beta_schedule="scaled_linear"))
    refused("DDIMScheduler.*make_scheduler", _make_scheduler(SAMPLING), Diffusion().respaced("50"))
    refused("prediction_type.*v_prediction.*epsilon", diffusers.DDIMScheduler(prediction_type="v_prediction"))
    refused("prediction_type.*FlowMatch.*epsilon", diffusers.FlowMatchEulerDiscreteScheduler())
    refused("variance_type.*None", _make_scheduler(SAMPLING, "dpm++", variance_type="learned_range"))
    with raises_input_error("'euler'.*ddim, ddpm, dpm"):
        _make_scheduler(SAMPLING, "euler")
    with raises_input_error("train"):
        scheduler_sample(Diffusion(), latent_model().train(), X.shape, Y, scheduler=_make_scheduler(SAMPLING))
