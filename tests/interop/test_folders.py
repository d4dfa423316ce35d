"""Folders of diffusers without a DiT: Stable Diffusion 3 is opened, all other classes are named."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DModel
from safetensors.torch import load_file, save_file

from dit_nb.cli import main
from dit_nb.interop.convert import convert, load_any, load_diffusers
from dit_nb.interop.sd3 import from_sd3
from dit_nb.pretrained import load_model, sample_images
from dit_nb.since.text import Text
from support import raises_input_error, same_weights

SD3 = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, pos_embed_max_size=6)
SD3 |= dict(num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16, qk_norm="rms_norm")
SD3 |= dict(joint_attention_dim=12, pooled_projection_dim=10)


def sd3(**changes):
    torch.manual_seed(0)
    theirs = SD3Transformer2DModel(**{**SD3, **changes}).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return theirs


def flux():
    sizes = dict(num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2)
    texts = dict(joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4))
    return FluxTransformer2DModel(in_channels=4, **sizes, **texts)


def unet():
    blocks = dict(down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    return UNet2DModel(8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks)


def vae():
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)


def test_a_folder_of_sd3(tmp_path, capfd):
    theirs = sd3()
    theirs.save_pretrained(tmp_path)
    capfd.readouterr()
    model, sampling = load_any(tmp_path, device="cpu")
    assert "not used" not in capfd.readouterr().err  # no list of tensors
    assert same_weights(model, from_sd3(theirs)) and not model.training
    assert (sampling.objective, sampling.time_shift, sampling.clip_x0) == ("flow", 3.0, False)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 500.0])
    tokens, pooled = torch.randn(2, 7, 12), torch.randn(2, 10)
    with torch.no_grad():
        wanted = theirs(x, tokens, pooled, t).sample
        got = model.predict(x, t, Text(tokens, torch.ones(2, 7, dtype=torch.bool), pooled))
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)  # the rounding of `angles` in test_mmdit.py
    convert(tmp_path, tmp_path / "ours", "dit_nb")
    assert same_weights(load_model(tmp_path / "ours", device="cpu")[0], model)


def test_a_pipeline_of_sd3_has_its_own_shift(tmp_path):
    sd3().save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    (tmp_path / "scheduler").mkdir()
    settings = tmp_path / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.5}))
    assert load_any(tmp_path, device="cpu")[1].time_shift == 2.5
    settings.write_text("[")
    with raises_input_error("scheduler_config.json"):
        load_any(tmp_path)


def test_texts_of_sd3_come_encoded(tmp_path):
    sd3().save_pretrained(tmp_path)
    model, sampling = load_any(tmp_path, device="cpu")
    for labels, named in (
        (["3d apple"], "vocabulary is empty.*predict"),
        (None, "y_embedder is None.*predict"),
    ):
        with raises_input_error(named):
            sample_images(model, sampling, labels, n=1, progress=False)


def test_sd3_that_cannot_be_converted_or_is_damaged(tmp_path, capfd):
    sd3(dual_attention_layers=(0,)).save_pretrained(tmp_path / "medium")
    with raises_input_error("SD3Transformer2DModel that `from_sd3` cannot convert.*dual_attention_layers"):
        load_any(tmp_path / "medium")
    sd3().save_pretrained(tmp_path / "damaged")
    weights = tmp_path / "damaged" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if k != "proj_out.bias"}, weights, metadata={"format": "pt"})
    with raises_input_error("1 tensors.*proj_out.bias"):
        load_any(tmp_path / "damaged")
    weights.write_bytes(b"x")
    with raises_input_error("damaged cannot be loaded as SD3Transformer2DModel"):
        load_any(tmp_path / "damaged")


@pytest.mark.parametrize("make", [flux, unet, vae])
def test_other_classes_are_named(make, tmp_path, capfd):
    model = make()
    name = type(model).__name__
    model.save_pretrained(tmp_path)
    capfd.readouterr()
    for load in (load_any, load_diffusers):
        with raises_input_error(f"holds the class {name} of diffusers.*DiTTransformer2DModel.*from_sd3"):
            load(tmp_path)
    with raises_input_error(f"class {name} of diffusers.*load_any.*from_sd3"):
        load_model(tmp_path)
    assert main(["sample", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("dit-nb: error: ") and "\n" not in error  # one sentence


def test_a_pipeline_without_a_transformer_is_named(tmp_path):
    unet().save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    with raises_input_error("class DDPMPipeline"):
        load_any(tmp_path)


def test_load_model_names_a_folder_of_sd3(tmp_path):
    sd3().save_pretrained(tmp_path)
    with raises_input_error("class SD3Transformer2DModel of diffusers.*load_any.*from_sd3"):
        load_model(tmp_path)
