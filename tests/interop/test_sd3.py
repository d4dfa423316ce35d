"""Stable Diffusion 3's transformer of diffusers as an MMDiT: it computes the same, and folders of it open."""

import json
import math
from unittest import mock

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from dit_nb.conditioning import timestep_embedding
from dit_nb.errors import UserError
from dit_nb.interop.convert import convert, load_any
from dit_nb.interop.sd3 import from_sd3
from dit_nb.pretrained import load_model, sample_images
from dit_nb.since.text import Text
from support import raises_input_error, relative, same_weights

SD3 = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, pos_embed_max_size=7)
SD3 |= dict(num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16)
SD3 |= dict(joint_attention_dim=12, pooled_projection_dim=10)


def sd3_transformer(seed=0, qk_norm="rms_norm", **changes):
    "A small transformer of diffusers with random weights, none of them zero."
    torch.manual_seed(seed)
    theirs = SD3Transformer2DModel(**{**SD3, "qk_norm": qk_norm, **changes}).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return theirs


def angles(t):
    "Angles of the 128 sinusoids in float64, and a bound on the error of diffusers' angles, which are float32."
    exponent = math.log(10000) * torch.arange(128).double() / 128
    exact = t.double()[:, None] * torch.exp(-exponent)
    # Relative errors, in units of 2^-24: two roundings of the exponent, exp (2: one unit in the last place), product.
    return exact, exact * (2 * exponent + 3) * 2**-24


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("seed", range(5))
def test_a_whole_sd3_transformer_is_imported(qk_norm, seed):
    theirs = sd3_transformer(seed, qk_norm)
    ours, time_proj = from_sd3(theirs), theirs.time_text_embed.time_proj
    x, t = torch.randn(3, 4, 8, 8), torch.tensor([3.0, 500.0, 977.3])
    tokens, pooled = torch.randn(3, 7, 12), torch.randn(3, 10)
    text = Text(tokens, torch.ones(3, 7, dtype=torch.bool), pooled)
    exact, bound = angles(t)
    waves = time_proj(t).double()
    error = (waves - torch.cat([exact.cos(), exact.sin()], 1)).abs()
    assert (error <= torch.cat([bound, bound], 1) + 2**-24).all()  # the sinusoids alone are inexact
    with torch.no_grad():
        got, float32_waves = ours.predict(x, t, text), theirs(x, tokens, pooled, t).sample
        with mock.patch.object(time_proj, "forward", lambda t: timestep_embedding(t, 256)):
            wanted = theirs(x, tokens, pooled, t).sample
        assert wanted.std() > 0.1 and relative(got, wanted) < 1e-5
        moved = []  # our velocity, with all angles moved by as much as theirs may be wrong
        for _ in range(8):
            wrong = exact + bound * torch.randn(128).sign()
            shifted = torch.cat([wrong.cos(), wrong.sin()], 1).float()
            with mock.patch("dit_nb.conditioning.timestep_embedding", return_value=shifted):
                moved.append(relative(ours.predict(x, t, text), got))
    assert relative(got, float32_waves) < max(moved) < 1e-3


def test_sd3_blocks_of_other_kinds_are_named():
    for change in ({"dual_attention_layers": (0,)}, {"qk_norm": "layer_norm"}):
        with pytest.raises(UserError, match=next(iter(change))):
            from_sd3(sd3_transformer(0, **change))


def test_a_folder_of_sd3(tmp_path, capfd):
    theirs = sd3_transformer()
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
    assert relative(got, wanted) < 1e-3  # the rounding of `angles`, see above
    convert(tmp_path, tmp_path / "ours", "dit_nb")
    assert same_weights(load_model(tmp_path / "ours", device="cpu")[0], model)


def test_a_pipeline_of_sd3_has_its_own_shift(tmp_path):
    sd3_transformer().save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    (tmp_path / "scheduler").mkdir()
    settings = tmp_path / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.5}))
    assert load_any(tmp_path, device="cpu")[1].time_shift == 2.5
    settings.write_text("[")
    with raises_input_error("scheduler_config.json"):
        load_any(tmp_path)


def test_texts_of_sd3_come_encoded(tmp_path):
    sd3_transformer().save_pretrained(tmp_path)
    model, sampling = load_any(tmp_path, device="cpu")
    for labels, named in (
        (["3d apple"], "vocabulary is empty.*predict"),
        (None, "y_embedder is None.*predict"),
    ):
        with raises_input_error(named):
            sample_images(model, sampling, labels, n=1, progress=False)


def test_sd3_that_cannot_be_converted_or_is_damaged(tmp_path, capfd):
    sd3_transformer(dual_attention_layers=(0,)).save_pretrained(tmp_path / "medium")
    with raises_input_error("SD3Transformer2DModel that `from_sd3` cannot convert.*dual_attention_layers"):
        load_any(tmp_path / "medium")
    sd3_transformer().save_pretrained(tmp_path / "damaged")
    weights = tmp_path / "damaged" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if k != "proj_out.bias"}, weights, metadata={"format": "pt"})
    with raises_input_error(r"damaged .* 1 tensors.*proj_out\.bias"):
        load_any(tmp_path / "damaged")
    weights.write_bytes(b"x")
    with raises_input_error("damaged cannot be loaded as SD3Transformer2DModel"):
        load_any(tmp_path / "damaged")


def test_load_model_names_a_folder_of_sd3(tmp_path):
    sd3_transformer().save_pretrained(tmp_path)
    with raises_input_error("class SD3Transformer2DModel of diffusers.*load_any.*from_sd3"):
        load_model(tmp_path)
