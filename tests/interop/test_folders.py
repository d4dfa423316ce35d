"""Folders of diffusers that hold neither a DiT nor Stable Diffusion 3: their classes are named."""

import json

import pytest
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DModel

from dit_nb.cli import main
from dit_nb.interop.convert import load_any, load_diffusers
from dit_nb.pretrained import load_model
from support import raises_input_error


def flux():
    sizes = dict(num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2)
    texts = dict(joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4))
    return FluxTransformer2DModel(in_channels=4, **sizes, **texts)


def unet():
    blocks = dict(down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    return UNet2DModel(8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks)


def vae():
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)


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
