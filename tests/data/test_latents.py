"""The codec of latents: scale, shift, posterior, descriptions, and autoencoders that cannot be used."""

import json
import os

import pytest
import torch

from dit_nb.latents import LatentCodec, _encoder_hash, _open_codec, sample_latents
from support import raises_input_error, relative
from support_latents import CHANNELS, LinearVAE, linear_images, tiny_vae


@pytest.mark.parametrize(("scale", "shift"), [(None, None), (0.18215, None), (1.5, 0.3)])
def test_encode_and_decode_are_inverse(scale, shift):
    x, codec = linear_images(), LatentCodec(LinearVAE(), scale, shift)
    z = codec.encode(x, sample=False)
    assert z.shape == (7, CHANNELS, 4, 6)
    by_hand = torch.stack([LinearVAE().encode(one[None]).latent_dist.mean[0] for one in x])
    by_hand = (by_hand - (shift or 0)) * (scale or 0.25)
    assert relative(z, by_hand) < 1e-6
    assert relative(codec.decode(z), x) < 1e-5


def test_default_scale_and_shift():
    codec = LatentCodec(LinearVAE(scaling_factor=0.36, shift_factor=0.12))
    assert (codec.scale, codec.shift) == (0.36, 0.12)
    mean, std = codec.moments(linear_images()).unbind(1)
    raw = LinearVAE().encode(linear_images()).latent_dist
    assert relative(mean, (raw.mean - 0.12) * 0.36) < 1e-6
    assert relative(std, raw.std * 0.36) < 1e-6, "a shift moves the mean alone"


def test_samples_have_the_mean_and_std_of_the_posterior():
    codec, x = LatentCodec(LinearVAE()), linear_images(1).expand(4000, -1, -1, -1)
    z = codec.encode(x, generator=torch.Generator().manual_seed(0))
    mean, std = codec.moments(x[:1])[0]
    assert ((z.mean(0) - mean) / std).abs().max() < 5 / 4000**0.5
    assert (z.std(0) / std - 1).abs().max() < 0.06
    again = codec.encode(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, again)


def test_batch_size_makes_no_difference():
    vae, x = tiny_vae(), torch.rand(5, 3, 8, 12) * 2 - 1
    one, all_ = LatentCodec(vae, batch_size=1), LatentCodec(vae, batch_size=5)
    assert relative(one.moments(x), all_.moments(x)) < 1e-5
    z = all_.encode(x, sample=False)
    assert relative(one.decode(z), all_.decode(z)) < 1e-5


def test_equal_to_diffusers():
    vae, x = tiny_vae(scaling_factor=0.5, shift_factor=0.25), torch.rand(2, 3, 8, 8) * 2 - 1
    codec = LatentCodec(vae)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        assert relative(codec.encode(x, sample=False), (posterior.mode() - 0.25) * 0.5) < 1e-6
        rng = torch.Generator().manual_seed(3)
        sampled = posterior.sample(generator=torch.Generator().manual_seed(3))
        assert relative(codec.encode(x, generator=rng), (sampled - 0.25) * 0.5) < 1e-6
        z = torch.randn(2, 4, 4, 4)
        assert relative(codec.decode(z), vae.decode(z / 0.5 + 0.25).sample.clamp(-1, 1)) < 1e-6


def test_decoded_images_are_clipped():
    assert LatentCodec(LinearVAE()).decode(100 * torch.randn(1, CHANNELS, 2, 2)).abs().max() == 1


def test_bfloat16_is_close_and_keeps_float32_weights():
    vae, x = tiny_vae(), torch.rand(2, 3, 8, 8) * 2 - 1
    exact, rough = LatentCodec(vae).moments(x), LatentCodec(vae, dtype=torch.bfloat16).moments(x)
    assert rough.dtype == torch.float32 and next(vae.parameters()).dtype == torch.float32
    assert 0 < relative(rough, exact) < 0.05


def test_tiling(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    codec = LatentCodec.load(tmp_path / "vae", device="cpu", tiling=True)
    assert codec.vae.use_tiling and codec.encode(torch.zeros(1, 3, 40, 24)).shape == (1, 4, 20, 12)


def test_load_from_a_folder(tmp_path):
    vae = tiny_vae(scaling_factor=0.7)
    vae.save_pretrained(tmp_path / "vae")
    codec, x = LatentCodec.load(tmp_path / "vae", device="cpu"), torch.rand(1, 3, 8, 8)
    assert torch.equal(codec.encode(x, sample=False), LatentCodec(vae).encode(x, sample=False))
    description = codec.describe()
    assert json.loads(json.dumps(description)) == description
    assert (description["id"], description["scale"], description["shift"]) == (
        str(tmp_path / "vae"),
        0.7,
        0.0,
    )
    assert (description["channels"], description["downsampling"]) == (4, 2)


def test_the_fingerprint_depends_on_the_encoder_alone():
    vae = tiny_vae()
    before = _encoder_hash(vae)
    with torch.no_grad():
        vae.decoder.conv_in.weight += 1
        vae.post_quant_conv.weight += 1
    assert _encoder_hash(vae) == before, "another decoder reads the same latents"
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1e-3
    assert _encoder_hash(vae) != before


def test_open_codec_by_description(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    made = LatentCodec.load(tmp_path / "vae", device="cpu", scale=0.5, shift=0.1).describe()
    codec = _open_codec(made, device="cpu")
    assert codec.describe() == made
    other = tiny_vae()
    torch.nn.init.zeros_(other.decoder.conv_in.weight)
    other.save_pretrained(tmp_path / "other decoder")
    assert _open_codec(made, tmp_path / "other decoder", device="cpu").scale == 0.5
    tiny_vae(seed=1).save_pretrained(tmp_path / "other encoder")
    with pytest.raises(ValueError, match="fingerprint"):
        _open_codec(made, tmp_path / "other encoder", device="cpu")
    assert _open_codec({}, tmp_path / "other encoder", device="cpu").scale == 0.18215, "nothing is known"
    (tmp_path / "vae").rename(tmp_path / "moved")
    with raises_input_error(r"vae .* is no folder here.*: the model was trained with it.* --vae\.$"):
        _open_codec(made, device="cpu")
    assert _open_codec(made, tmp_path / "moved", device="cpu").scale == 0.5


# Errors


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.zeros(2, 1, 8, 8), "images is torch.float32 of shape (2, 1, 8, 8)"),
        (torch.zeros(3, 8, 8), "shape (N, 3, H, W)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "images is torch.uint8"),
        ("photo.png", "images is a str"),
        (torch.zeros(2, 3, 8, 9), "images is 8x9"),
    ],
)
def test_images_that_do_not_fit(x, expected):
    with pytest.raises(ValueError) as error:
        LatentCodec(LinearVAE()).encode(x)
    assert expected in str(error.value)


def test_latents_that_do_not_fit():
    with pytest.raises(ValueError, match=r"latents is .*\(N, 5, H, W\)"):
        LatentCodec(LinearVAE()).decode(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_invalid_scale(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}"):
        LatentCodec(LinearVAE(), scale)


def broken(folder, how):
    """A saved autoencoder with something wrong about it."""
    from safetensors.torch import load_file, save_file

    tiny_vae().save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    if how == "truncated":
        os.truncate(weights, weights.stat().st_size // 2)
    elif how == "no weights":
        weights.unlink()
    elif how == "a weight missing":
        state = load_file(weights)
        del state["encoder.conv_in.weight"]
        save_file(state, weights, {"format": "pt"})
    elif how == "another shape":
        save_file(
            {**load_file(weights), "encoder.conv_in.weight": torch.zeros(2, 2)}, weights, {"format": "pt"}
        )
    elif how == "no JSON":
        (folder / "config.json").write_text("{")
    return folder


@pytest.mark.parametrize("how", ["truncated", "no weights", "a weight missing", "another shape", "no JSON"])
def test_a_broken_autoencoder_raises(tmp_path, how):
    with pytest.raises(ValueError) as error:
        LatentCodec.load(broken(tmp_path / "vae", how))
    text = str(error.value)
    assert str(tmp_path / "vae") in text and "\n" not in text and text.endswith(".")


def test_an_autoencoder_that_cannot_be_downloaded(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="vae /nowhere"):
        LatentCodec.load("/nowhere")
    with pytest.raises(ValueError, match="hf download nobody/nothing"):
        LatentCodec.load("nobody/nothing")


# Sampling from moments


def test_sample_latents_has_the_mean_and_std_of_the_moments():
    rng = torch.Generator().manual_seed(0)
    moments = torch.rand(2, 2, 2, 3, 2, 4, generator=rng) + 0.1
    flip = torch.tensor([False, True])
    sampled = torch.stack(
        [sample_latents(moments, flip, torch.randn(2, 3, 2, 4, generator=rng)) for _ in range(4000)]
    )
    for i, side in enumerate((0, 1)):
        mean, std = moments[i, side]
        assert ((sampled[:, i].mean(0) - mean) / std).abs().max() < 5 / 4000**0.5
        assert (sampled[:, i].std(0) / std - 1).abs().max() < 0.06
    assert torch.equal(sample_latents(moments, flip, torch.zeros(2, 3, 2, 4))[1], moments[1, 1, 0])


# Other autoencoders, and a scale for each channel


def test_a_scale_and_a_shift_for_each_channel():
    scale, shift = [0.5, 1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4, 0.5]
    x, codec = linear_images(), LatentCodec(LinearVAE(), scale, shift)
    raw = LinearVAE().encode(x).latent_dist
    by_hand = torch.stack([(raw.mean[:, c] - shift[c]) * scale[c] for c in range(CHANNELS)], dim=1)
    assert relative(codec.encode(x, sample=False), by_hand) < 1e-6
    assert relative(codec.moments(x)[:, 1], raw.std * torch.tensor(scale).view(5, 1, 1)) < 1e-6
    assert relative(codec.decode(by_hand), x) < 1e-5
    again = LatentCodec(LinearVAE(), **{k: codec.describe()[k] for k in ("scale", "shift")})
    assert json.loads(json.dumps(codec.describe())) == again.describe()


@pytest.mark.parametrize("scale", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0, 0.0], "one", [None] * 5])
def test_invalid_scales_of_channels(scale):
    with raises_input_error("scale is .*above 0, or 5 of them"):
        LatentCodec(LinearVAE(), scale)


def test_channel_statistics_of_the_autoencoder():
    """As pipelines of diffusers use latents_mean and latents_std: (z - mean) * scaling_factor / std."""
    mean, std = [0.5, -0.5, 1.0, 0.0], [2.0, 1.0, 0.5, 4.0]
    vae = tiny_vae(scaling_factor=0.5, latents_mean=mean, latents_std=std)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        raw = vae.encode(x).latent_dist.mean
    wanted = (raw - torch.tensor(mean).view(4, 1, 1)) * 0.5 / torch.tensor(std).view(4, 1, 1)
    assert relative(LatentCodec(vae).encode(x, sample=False), wanted) < 1e-5


def test_fitted_latents_have_mean_0_and_standard_deviation_1():
    x = linear_images(60)
    z = LatentCodec(LinearVAE()).fitted(x).encode(x, generator=torch.Generator().manual_seed(1))
    assert z.mean((0, 2, 3)).abs().max() < 0.05 and (z.std((0, 2, 3)) - 1).abs().max() < 0.05


def other_autoencoder(kind):
    """A small untrained autoencoder of another class, and how much smaller its latents are."""
    import diffusers

    torch.manual_seed(0)
    if kind == "AutoencoderDC":
        blocks = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        blocks |= {"encoder_layers_per_block": (1, 1, 1), "decoder_layers_per_block": (1, 1, 1)}
        blocks |= {f"{side}_qkv_multiscales": ((), (), ()) for side in ("encoder", "decoder")}
        return diffusers.AutoencoderDC(latent_channels=4, **blocks, scaling_factor=0.41), 4
    if kind == "AutoencoderTiny":
        blocks = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
        blocks |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        return diffusers.AutoencoderTiny(latent_channels=4, **blocks), 2
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.VQModel(block_out_channels=(4, 8), norm_num_groups=2, **blocks), 2


@pytest.mark.parametrize("kind", ["AutoencoderDC", "AutoencoderTiny", "VQModel"])
def test_any_autoencoder_of_images(tmp_path, kind):
    vae, factor = other_autoencoder(kind)
    vae.save_pretrained(tmp_path / "vae")
    codec, x = LatentCodec.load(tmp_path / "vae", device="cpu"), torch.rand(2, 3, 16, 24) * 2 - 1
    assert type(codec.vae).__name__ == kind and codec.downsampling == factor
    z = codec.encode(x)
    with torch.no_grad():
        raw = vae.eval().encode(x)
        raw = raw.latent if kind == "AutoencoderDC" else raw.latents
        decoded = vae.decode(raw).sample
    assert z.shape == (2, codec.channels, 16 // factor, 24 // factor)
    assert relative(z, raw * codec.scale) < 1e-5, "a point: nothing is sampled"
    assert relative(codec.decode(z), decoded.clamp(-1, 1)) < 1e-4
    assert _open_codec(codec.describe(), device="cpu").describe() == codec.describe()


def test_what_is_no_autoencoder_of_images():
    from diffusers import AutoencoderKLWan, UNet2DModel

    unet = UNet2DModel(
        8,
        block_out_channels=(8,),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    video = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False]
    )
    for wrong in (unet, video, None, "stabilityai/sd-vae-ft-ema"):
        with raises_input_error(f"vae is {type(wrong).__name__}.*autoencoder of images"):
            LatentCodec(wrong)
