"""Folders of DiTPipeline: what diffusers makes of them, how they are read back, and damaged ones."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DiTPipeline
from diffusers.models.embeddings import Timesteps
from safetensors.torch import load_file, save_file

from dit_nb import Diffusion
from dit_nb.conditioning import timestep_embedding
from dit_nb.config import SamplingConfig
from dit_nb.guidance import Guided
from dit_nb.interop.convert import convert, load_any, load_diffusers, save_diffusers
from dit_nb.interop.diffusers import _fix_timestep_frequencies, to_diffusers
from dit_nb.pretrained import save_model
from dit_nb.sampling import ddim_sample
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from support import latent_inputs, latent_model, raises_input_error, relative, same_weights

PAPER_SAMPLING = SamplingConfig(clip_x0=False)  # of the paper's models, which are latent models


def vae(channels=4, **changes):
    torch.manual_seed(0)
    sizes = dict(block_out_channels=(8,), norm_num_groups=4, latent_channels=channels, scaling_factor=0.5)
    return AutoencoderKL(**{**sizes, **changes}).eval()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm++"])
@torch.no_grad()
def test_pipeline_round_trip(tmp_path, scheduler, schedule):
    model, names = latent_model(), tuple(f"class {k}" for k in range(10))
    sampling = replace(PAPER_SAMPLING, schedule=schedule, class_names=names, bins=17)
    save_diffusers(model, tmp_path, sampling, vae(), scheduler)
    pipe = DiTPipeline.from_pretrained(tmp_path)
    assert pipe.labels == {name: k for k, name in enumerate(names)}
    for module in pipe.transformer.modules():  # to compare everything but the float32 embedding of diffusers
        if isinstance(module, Timesteps):
            module.forward = lambda t, width=module.num_channels: timestep_embedding(t, width)
    x, t, y = latent_inputs()
    assert relative(pipe.transformer(x, t, y).sample, model(x, t, y)) < 1e-5
    ours = Diffusion(schedule).alphas_cumprod
    assert torch.allclose(pipe.scheduler.alphas_cumprod.double(), ours, atol=1e-5)
    loaded, settings = load_diffusers(tmp_path)
    assert same_weights(loaded, model) and loaded.config == model.config and settings == sampling
    (tmp_path / "sampling.json").unlink()  # as in a pipeline that we did not write
    _, settings = load_diffusers(tmp_path)
    assert settings == replace(sampling, bins=256)


@torch.no_grad()
def test_pipeline_samples_equal_ours(tmp_path):
    """DiTPipeline, with guidance and decoder, against our sampler and the same decoder."""
    model, decoder = latent_model(), vae()
    save_diffusers(model, tmp_path, PAPER_SAMPLING, decoder)
    pipe = DiTPipeline.from_pretrained(tmp_path)
    _fix_timestep_frequencies(pipe)
    pipe.set_progress_bar_config(disable=True)
    options = dict(class_labels=[3, 7], num_inference_steps=10, guidance_scale=1.5, output_type="pt")
    theirs = pipe(**options, generator=torch.manual_seed(5)).images
    steps, y, generator = Diffusion().respaced("ddim10"), torch.tensor([3, 7]), torch.manual_seed(5)
    latents = ddim_sample(steps, Guided(model, 1.5), (2, 4, 8, 8), y, generator=generator, progress=False)
    ours = (decoder.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    assert (ours - theirs).abs().max() < 1e-4 and ours.std() > 0.01


def test_autoencoders_that_do_not_fit(tmp_path):
    with raises_input_error("vae has 3.*4"):
        save_diffusers(latent_model(), tmp_path / "x", PAPER_SAMPLING, vae(3))
    with raises_input_error("shift_factor.*0.1"):
        save_diffusers(latent_model(), tmp_path / "x", PAPER_SAMPLING, vae(shift_factor=0.1))
    for made, pattern in (
        ({"scale": 0.25}, "scaling_factor.*0.5.*0.25"),
        ({"scale": [1.0] * 4, "shift": [0.0] * 4}, "channel"),
    ):
        with raises_input_error(pattern):
            save_diffusers(latent_model(), tmp_path / "x", replace(PAPER_SAMPLING, vae=made), vae())
    with raises_input_error("block is adaln"):
        save_diffusers(latent_model(block="adaln"), tmp_path / "x", PAPER_SAMPLING)
    assert not (tmp_path / "x").exists()


def test_folder_of_a_transformer_alone(tmp_path):
    with raises_input_error(str(tmp_path)):
        load_diffusers(tmp_path)
    to_diffusers(latent_model()).save_pretrained(tmp_path)
    model, sampling = load_diffusers(tmp_path)
    assert same_weights(model, latent_model()) and sampling == PAPER_SAMPLING
    config = json.loads((tmp_path / "config.json").read_text())  # published models name an older class
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "Transformer2DModel"}))
    assert same_weights(load_any(tmp_path)[0], latent_model())
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with raises_input_error(str(tmp_path)):
        load_diffusers(tmp_path)


def test_damaged_pipeline_folders(tmp_path):
    save_diffusers(latent_model(), tmp_path, PAPER_SAMPLING)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if k != "proj_out_2.bias"}, weights, metadata={"format": "pt"})
    with raises_input_error("1 tensors.*proj_out_2.bias"):
        load_diffusers(tmp_path)
    save_file(state, weights, metadata={"format": "pt"})
    (tmp_path / "sampling.json").unlink()
    settings = tmp_path / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "beta_schedule": "scaled_linear"}))
    with raises_input_error("scaled_linear.*linear.*cosine"):
        load_diffusers(tmp_path)
    settings.write_text("[")
    with raises_input_error("scheduler_config.json.*JSON"):
        load_diffusers(tmp_path)
    (tmp_path / "sampling.json").write_text(json.dumps({"process": "linear"}))
    with raises_input_error("sampling.json.*'process'"):
        load_diffusers(tmp_path)


@pytest.mark.parametrize(
    "channels, wanted", [(4, "latents, and this folder has no autoencoder"), (3, "pixels")]
)
def test_readme_of_a_pipeline_without_a_decoder(tmp_path, channels, wanted):
    save_diffusers(latent_model(in_channels=channels), tmp_path, PAPER_SAMPLING)
    assert f"The model generates {wanted}" in (tmp_path / "README.md").read_text()


def test_unknown_format(tmp_path):
    with raises_input_error("'jax'.*official, diffusers, dit_nb"):
        convert(tmp_path / "home", tmp_path / "target", "jax")


@pytest.mark.parametrize("to, word", [("official", "objective is flow"), ("diffusers", "objective is flow")])
def test_a_flow_is_not_written_where_nothing_says_so(tmp_path, to, word):
    save_model(latent_model(learn_sigma=False), tmp_path / "flow", SamplingConfig(objective="flow"))
    with raises_input_error(word):
        convert(tmp_path / "flow", tmp_path / f"out{'.pt' if to == 'official' else ''}", to)
    assert [path.name for path in tmp_path.iterdir()] == ["flow"]


def test_the_training_form_keeps_the_objective(tmp_path):
    sampling = SamplingConfig(objective="flow", time_shift=3.0)
    save_model(latent_model(learn_sigma=False), tmp_path / "flow", sampling)
    convert(tmp_path / "flow", tmp_path / "flow.pt", "official", training=True)
    again = load_any(tmp_path / "flow.pt")[1]
    assert (again.objective, again.time_shift, again.sampler) == ("flow", 3.0, "euler")


@pytest.mark.parametrize("to", ["official", "diffusers"])
def test_a_model_of_texts_has_no_other_format(tmp_path, to):
    shape = dict(input_size=8, hidden_size=32, depth=1, num_heads=2, text_width=32, pooled_width=32)
    model = MMDiT(MMDiTConfig(**shape, vocabulary=("red", "apple")))
    save_model(model, tmp_path / "text", SamplingConfig(objective="flow"))
    with raises_input_error("model is of the class MMDiT, but must be a DiT"):
        convert(tmp_path / "text", tmp_path / f"out{'.pt' if to == 'official' else ''}", to)
