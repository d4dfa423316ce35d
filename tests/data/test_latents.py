"""Latents: a codec with an exact inverse, moments that realise as they should, and an encoder that can be killed."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb import latents as L
from dit_nb.cli import main
from dit_nb.data import ImageSet, image_grid, save_image
from dit_nb.latent_cache import encode_images, open_latents
from dit_nb.latents import LatentCodec, sample_latents
from support import relative

F, C = 2, 5  # downsampling and latent channels of the linear autoencoder


class LinearVAE(nn.Module):
    """An autoencoder that can be inverted by hand: each 2x2 patch of 3 channels, 12 numbers, times a matrix.

    Of the 12 results, the first 5 are kept; decoding is exact for images whose other 7 are zero.
    """

    def __init__(self, scaling_factor=0.25, shift_factor=None):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(12, 12, generator=rng))[0])
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
            in_channels=3,
            latent_channels=C,
            block_out_channels=(8, 8),
        )

    def encode(self, images):
        mean = torch.einsum("nkhw,kc->nchw", nn.functional.pixel_unshuffle(images, F), self.matrix[:, :C])
        std = 0.1 + mean.abs() / 10  # differs from place to place, and for the mirror image
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))

    def decode(self, latents):
        patches = torch.einsum("nchw,kc->nkhw", latents, self.matrix[:, :C])
        return SimpleNamespace(sample=nn.functional.pixel_shuffle(patches, F))


def images(n=7, height=8, width=12, seed=0):
    """Images that the linear autoencoder keeps without loss: H != W, and no symmetry."""
    rng = torch.Generator().manual_seed(seed)
    patches = torch.randn(n, C, height // F, width // F, generator=rng) / 10
    return LinearVAE().decode(patches).sample.detach()


def image_set(n=7, classes=("china", "flower"), **options):
    return ImageSet(images(n, **options), torch.arange(n) % len(classes), classes)


def tiny_vae(seed=0, **changes):
    """A real AutoencoderKL, small and untrained."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {"block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4, "sample_size": 16}
    return AutoencoderKL(**{**levels, **shape, **changes})


# The codec


@pytest.mark.parametrize(("scale", "shift"), [(None, None), (0.18215, None), (1.5, 0.3)])
def test_the_linear_codec_is_an_exact_inverse(scale, shift):
    x, codec = images(), LatentCodec(LinearVAE(), scale, shift)
    z = codec.encode(x, sample=False)
    assert z.shape == (7, C, 4, 6)
    by_hand = torch.stack([LinearVAE().encode(one[None]).latent_dist.mean[0] for one in x])
    by_hand = (by_hand - (shift or 0)) * (scale or 0.25)
    assert relative(z, by_hand) < 1e-6
    assert relative(codec.decode(z), x) < 1e-5


def test_an_autoencoder_brings_its_own_scale_and_shift():
    codec = LatentCodec(LinearVAE(scaling_factor=0.36, shift_factor=0.12))
    assert (codec.scale, codec.shift) == (0.36, 0.12)
    mean, std = codec.moments(images()).unbind(1)
    raw = LinearVAE().encode(images()).latent_dist
    assert relative(mean, (raw.mean - 0.12) * 0.36) < 1e-6
    assert relative(std, raw.std * 0.36) < 1e-6, "a shift moves the mean alone"


def test_samples_spread_around_the_mean():
    codec, x = LatentCodec(LinearVAE()), images(1).expand(4000, -1, -1, -1)
    z = codec.encode(x, generator=torch.Generator().manual_seed(0))
    mean, std = codec.moments(x[:1])[0]
    assert ((z.mean(0) - mean) / std).abs().max() < 5 / 4000**0.5
    assert (z.std(0) / std - 1).abs().max() < 0.06
    again = codec.encode(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, again)


def test_batches_make_no_difference():
    vae, x = tiny_vae(), torch.rand(5, 3, 8, 12) * 2 - 1
    one, all_ = LatentCodec(vae, batch_size=1), LatentCodec(vae, batch_size=5)
    assert relative(one.moments(x), all_.moments(x)) < 1e-5
    z = all_.encode(x, sample=False)
    assert relative(one.decode(z), all_.decode(z)) < 1e-5


def test_equal_to_diffusers_by_hand():
    vae, x = tiny_vae(scaling_factor=0.5, shift_factor=0.25), torch.rand(2, 3, 8, 8) * 2 - 1
    codec = LatentCodec(vae)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        assert relative(codec.encode(x, sample=False), (posterior.mode() - 0.25) * 0.5) < 1e-6
        rng = torch.Generator().manual_seed(3)
        drawn = posterior.sample(generator=torch.Generator().manual_seed(3))
        assert relative(codec.encode(x, generator=rng), (drawn - 0.25) * 0.5) < 1e-6
        z = torch.randn(2, 4, 4, 4)
        assert relative(codec.decode(z), vae.decode(z / 0.5 + 0.25).sample.clamp(-1, 1)) < 1e-6


def test_images_come_back_in_their_range():
    assert LatentCodec(LinearVAE()).decode(100 * torch.randn(1, C, 2, 2)).abs().max() == 1


def test_bfloat16_is_near_and_leaves_the_weights_alone():
    vae, x = tiny_vae(), torch.rand(2, 3, 8, 8) * 2 - 1
    exact, rough = LatentCodec(vae).moments(x), LatentCodec(vae, dtype=torch.bfloat16).moments(x)
    assert rough.dtype == torch.float32 and next(vae.parameters()).dtype == torch.float32
    assert 0 < relative(rough, exact) < 0.05


def test_tiling_is_passed_on(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    codec = LatentCodec.load(tmp_path / "vae", device="cpu", tiling=True)
    assert codec.vae.use_tiling and codec.encode(torch.zeros(1, 3, 40, 24)).shape == (1, 4, 20, 12)


def test_a_folder_brings_back_the_same_codec(tmp_path):
    vae = tiny_vae(scaling_factor=0.7)
    vae.save_pretrained(tmp_path / "vae")
    codec, x = LatentCodec.load(tmp_path / "vae", device="cpu"), torch.rand(1, 3, 8, 8)
    assert torch.equal(codec.encode(x, sample=False), LatentCodec(vae).encode(x, sample=False))
    told = codec.describe()
    assert json.loads(json.dumps(told)) == told
    assert (told["id"], told["scale"], told["shift"]) == (str(tmp_path / "vae"), 0.7, 0.0)
    assert (told["channels"], told["downsampling"]) == (4, 2)


def test_a_fingerprint_is_of_the_encoder():
    vae = tiny_vae()
    before = L.fingerprint(vae)
    with torch.no_grad():
        vae.decoder.conv_in.weight += 1
        vae.post_quant_conv.weight += 1
    assert L.fingerprint(vae) == before, "another decoder reads the same latents"
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1e-3
    assert L.fingerprint(vae) != before


def test_a_description_finds_its_codec(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    made = LatentCodec.load(tmp_path / "vae", device="cpu", scale=0.5, shift=0.1).describe()
    codec = L.open_codec(made, device="cpu")
    assert codec.describe() == made
    other = tiny_vae()
    torch.nn.init.zeros_(other.decoder.conv_in.weight)
    other.save_pretrained(tmp_path / "other decoder")
    assert L.open_codec(made, tmp_path / "other decoder", device="cpu").scale == 0.5
    tiny_vae(seed=1).save_pretrained(tmp_path / "other encoder")
    with pytest.raises(ValueError, match="has fingerprint .*, but the model was made with"):
        L.open_codec(made, tmp_path / "other encoder", device="cpu")
    assert L.open_codec({}, tmp_path / "other encoder", device="cpu").scale == 0.18215, "nothing is known"


# What does not fit


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 1, 8, 8), "images is torch.float32 of shape (2, 1, 8, 8), but must be floats of"),
        (torch.zeros(3, 8, 8), "shape (N, 3, H, W)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "images is torch.uint8"),
        ("photo.png", "images is a str"),
        (torch.zeros(2, 3, 8, 9), "images is 8x9 pixels, but both sides must be multiples of 2"),
    ],
)
def test_images_that_do_not_fit(x, words):
    with pytest.raises(ValueError) as error:
        LatentCodec(LinearVAE()).encode(x)
    assert words in str(error.value)


def test_latents_that_do_not_fit():
    with pytest.raises(ValueError, match=r"latents is .* must be floats of shape \(N, 5, H, W\)"):
        LatentCodec(LinearVAE()).decode(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_that_cannot_be(scale):
    with pytest.raises(ValueError, match="scale is .* but must be a number above 0"):
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
    elif how == "a weight less":
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


@pytest.mark.parametrize("how", ["truncated", "no weights", "a weight less", "another shape", "no JSON"])
def test_a_broken_autoencoder(tmp_path, how):
    with pytest.raises(ValueError) as error:
        LatentCodec.load(broken(tmp_path / "vae", how))
    text = str(error.value)
    assert str(tmp_path / "vae") in text and "\n" not in text and text.endswith(".")


def test_an_autoencoder_out_of_reach_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="vae /nowhere is no folder here, and no id on the Hub"):
        LatentCodec.load("/nowhere")
    with pytest.raises(ValueError, match="run `hf download nobody/nothing --local-dir FOLDER`"):
        LatentCodec.load("nobody/nothing")


# Moments


def test_realise_draws_what_the_moments_say():
    rng = torch.Generator().manual_seed(0)
    moments = torch.rand(2, 2, 2, 3, 2, 4, generator=rng) + 0.1
    flip = torch.tensor([False, True])
    draws = torch.stack(
        [sample_latents(moments, flip, torch.randn(2, 3, 2, 4, generator=rng)) for _ in range(4000)]
    )
    for i, side in enumerate((0, 1)):
        mean, std = moments[i, side]
        assert ((draws[:, i].mean(0) - mean) / std).abs().max() < 5 / 4000**0.5
        assert (draws[:, i].std(0) / std - 1).abs().max() < 0.06
    assert torch.equal(sample_latents(moments, flip, torch.zeros(2, 3, 2, 4))[1], moments[1, 1, 0])


def test_a_cache_holds_the_image_and_its_mirror_image(tmp_path):
    data, codec = image_set(5), LatentCodec(LinearVAE())
    latents = encode_images(data, codec, tmp_path / "z", batch_size=2, progress=False)
    moments, labels = latents.__getitems__([4, 0])
    assert moments.shape == (2, 2, 2, C, 4, 6) and moments.dtype == torch.float32
    assert labels.tolist() == [0, 0] and latents[3][1] == 1 and len(latents) == 5
    assert latents.class_names == ("china", "flower") and latents.skipped == ()
    for side, x in enumerate((data.images[[4, 0]], data.images[[4, 0]].flip(-1))):
        wanted = codec.moments(x)
        assert relative(moments[:, side], wanted) < 1e-3, "half precision"
    assert relative(moments[:, 1, 0], moments[:, 0, 0].flip(-1)) > 0.1, "not the latents, mirrored"


def test_half_precision_is_finer_than_any_noise_that_a_model_sees(tmp_path):
    vae, data = LinearVAE(scaling_factor=20.0), image_set(5)
    latents = encode_images(data, LatentCodec(vae), tmp_path / "z", progress=False)
    mean = LatentCodec(vae).moments(data.images)[:, 0]
    assert mean.std() > 0.5
    error = latents.__getitems__(range(5))[0][:, 0, 0] - mean
    assert error.std() < 0.05 * (1 - Diffusion().alphas_cumprod[0]) ** 0.5


def test_datasets_reads_it_too(tmp_path):
    import datasets

    encode_images(image_set(5), LatentCodec(LinearVAE()), tmp_path / "z", shard_size=2, progress=False)
    rows = datasets.load_from_disk(str(tmp_path / "z"))
    assert rows.num_rows == 5 and rows.features["label"].names == ["china", "flower"]
    assert len(rows[0]["moments"]) == 4 * C * 4 * 6
    assert len(rows.cache_files) == 3, "mapped where they lie, not copied"


def test_images_without_classes(tmp_path):
    data = ImageSet(images(3), torch.zeros(3, dtype=torch.long), ("all",))
    object.__setattr__(data, "class_names", ())
    latents = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    assert latents.class_names == () and latents.__getitems__([2])[1].tolist() == [0]


# Sharded, killed, gone on with


class Unlucky(ImageSet):
    """Images of which one cannot be had, for once."""

    def __getitems__(self, indices):
        if 5 in indices and not getattr(self, "mended", False) and len(indices) < 4:
            raise RuntimeError("power cut")
        return super().__getitems__(indices)


def shards(folder):
    return sorted(path.name for path in folder.glob("data-*.arrow"))


def share(data, out, rank, world, codec=None, **changes):
    """What one process of several does."""
    codec = codec or LatentCodec(LinearVAE())
    plan = {**L.plan_latents(data, codec, shard_size=2), **changes}
    work = L.begin_latents(out, plan)
    L.encode_shards(data, codec, work, plan, rank, world, batch_size=2, progress=False)
    return work, plan


def assert_same(one, other):
    a, b = (latents.__getitems__(range(len(latents))) for latents in (one, other))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_resumed_by_another_number_of_processes(tmp_path):
    data = image_set(11)
    straight = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "a", 2, shard_size=2, progress=False)
    unlucky = Unlucky(data.images, data.labels, data.class_names)
    with pytest.raises(RuntimeError, match="power cut"):
        share(unlucky, tmp_path / "b", 0, 1)
    work = L.work_folder(tmp_path / "b")
    assert shards(work) == ["data-00000-of-00006.arrow", "data-00001-of-00006.arrow"]
    assert list(work.glob(".*tmp")) == [] and not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="latents folder .* is not finished"):
        open_latents(tmp_path / "b")
    kept = {path: path.stat().st_mtime_ns for path in work.glob("*.arrow")}
    for rank in (2, 0, 1):
        work, plan = share(data, tmp_path / "b", rank, 3)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished shards are kept"
    L.finish_latents(work, tmp_path / "b", plan)
    assert not work.exists()
    assert_same(open_latents(tmp_path / "b"), straight)


def test_each_process_writes_only_its_own(tmp_path):
    data, seen = image_set(11), []
    for rank in range(3):
        work, _ = share(data, tmp_path / "z", rank, 3)
        seen.append(set(shards(work)) - set().union(*seen))
    numbers = [[int(name[5:10]) for name in sorted(new)] for new in seen]
    assert numbers == [[0, 3], [1, 4], [2, 5]]


def test_a_half_written_shard_is_done_again(tmp_path):
    data = image_set(5)
    work = L.begin_latents(tmp_path / "z", L.plan_latents(data, LatentCodec(LinearVAE()), 2))
    (work / ".data-00000-of-00003.arrow.tmp").write_bytes(b"half of")  # as after SIGKILL
    latents = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", shard_size=2, progress=False)
    assert len(latents) == 5 and list((tmp_path / "z").glob(".*")) == []


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    write, left = L.write_shard, [1]

    def full_disk(path, batches, plan):
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        write(path, batches, plan)

    monkeypatch.setattr(L, "write_shard", full_disk)
    call = (image_set(5), LatentCodec(LinearVAE()), tmp_path / "z")
    with pytest.raises(
        ValueError, match="No space left on device. What is finished is kept: run the same again"
    ):
        encode_images(*call, shard_size=2, progress=False)
    monkeypatch.setattr(L, "write_shard", write)
    assert len(shards(L.work_folder(tmp_path / "z"))) == 1
    assert len(encode_images(*call, shard_size=2, progress=False)) == 5


def test_a_write_that_fails_gives_its_space_back(tmp_path):
    data = image_set(2)
    plan = L.plan_latents(data, LatentCodec(LinearVAE()))

    def batches():
        yield torch.zeros(1, 2, 2, C, 4, 6).half(), torch.tensor([0])
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        L.write_shard(tmp_path / "data-0.arrow", batches(), plan)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more(tmp_path):
    resource = pytest.importorskip("resource")
    call = (image_set(40), LatentCodec(LinearVAE()), tmp_path / "z")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))  # bytes in one file: a shard has more
    try:
        with pytest.raises(ValueError, match="stopped: .*File too large. What is finished is kept"):
            encode_images(*call, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in L.work_folder(tmp_path / "z").iterdir()] == ["latents.json"]
    assert len(encode_images(*call, progress=False)) == 40


@pytest.mark.parametrize("what", ["vae", "scale", "size", "data", "labels", "count", "classes", "dtype"])
def test_another_plan_is_refused(tmp_path, what):
    data, codec = image_set(6), LatentCodec(LinearVAE())
    share(data, tmp_path / "z", 0, 2)
    vae = LinearVAE()
    vae.matrix.data[0, 0] += 1
    data = {
        "size": image_set(6, height=16),
        "data": image_set(6, seed=1),
        "labels": ImageSet(data.images, 1 - data.labels, data.class_names),
        "count": image_set(7),
        "classes": image_set(6, ("china", "rose")),
    }.get(what, data)
    codec = {
        "vae": LatentCodec(vae),
        "scale": LatentCodec(LinearVAE(), 1.0),
        "dtype": LatentCodec(LinearVAE(), dtype=torch.bfloat16),
    }.get(what, codec)
    before = shards(L.work_folder(tmp_path / "z"))
    with pytest.raises(ValueError, match="was (begun|made) with"):
        share(data, tmp_path / "z", 1, 2, codec)
    assert shards(L.work_folder(tmp_path / "z")) == before


def test_what_is_there_is_not_touched(tmp_path):
    data, codec = image_set(3), LatentCodec(LinearVAE())
    first = encode_images(data, codec, tmp_path / "z", progress=False)
    with pytest.raises(ValueError, match="out folder .* is there already"):
        encode_images(image_set(3, seed=5), codec, tmp_path / "z", progress=False)
    assert_same(open_latents(tmp_path / "z"), first)


def test_counts_are_verified(tmp_path):
    data = image_set(5)
    work, plan = share(data, tmp_path / "z", 0, 1)
    first, *_ = sorted(work.glob("*.arrow"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="latents file .* cannot be read"):
        L.finish_latents(work, tmp_path / "z", plan)
    L.write_shard(first, iter([(torch.zeros(1, 2, 2, C, 4, 6).half(), torch.tensor([0]))]), plan)
    with pytest.raises(ValueError, match="holds 1 images, but must hold 2"):
        L.finish_latents(work, tmp_path / "z", plan)
    first.unlink()
    with pytest.raises(ValueError, match="latents file .* cannot be read"):
        L.finish_latents(work, tmp_path / "z", plan)
    assert not (tmp_path / "z").exists()


def test_opening_what_is_no_latents(tmp_path):
    with pytest.raises(ValueError, match="does not exist: dit-nb encode makes one"):
        open_latents(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no latents"):
        open_latents(tmp_path)
    encode_images(image_set(3), LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    (tmp_path / "z" / "state.json").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        open_latents(tmp_path / "z")


def test_numbers_that_are_none_stop_it(tmp_path):
    data = image_set(3)
    data.images[1, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="latents of images 1 to 1 hold NaN or infinity"):
        encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", batch_size=1, progress=False)


def test_images_that_do_not_fit_begin_nothing(tmp_path):
    data = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 0]), ("all",))
    with pytest.raises(ValueError, match="images is"):
        encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    assert list(tmp_path.iterdir()) == []


# The command, and training on what it makes


def photos(folder, n=3):
    """A folder of pictures in two classes."""
    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 18, 22))).float()
            save_image(image_grid(pixels, 1)[1:-1, 1:-1], folder / name / f"{i}.png")
    return folder


def test_the_command(tmp_path, capsys):
    tiny_vae().save_pretrained(tmp_path / "vae")
    folder, vae, out = photos(tmp_path / "photos"), str(tmp_path / "vae"), str(tmp_path / "z")
    words = ["encode", str(folder), "--vae", vae, "--out", out, "--image-size", "16", "--batch-size", "4"]
    assert main(words) == 0
    assert "6 images and their mirror images as latents of 4x8x8" in capsys.readouterr().out
    latents = open_latents(out)
    assert latents.class_names == ("china", "flower") and latents.vae["id"] == vae
    assert sorted(latents.__getitems__(range(6))[1].tolist()) == [0, 0, 0, 1, 1, 1]
    assert main(words) == 2 and "is there already" in capsys.readouterr().err
    wrong = [*words[:4], "--out", str(tmp_path / "y"), "--image-size", "15"]
    assert main(wrong) == 2 and "multiples of 2" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_training_draws_anew_each_step(tmp_path):
    from dit_nb.training import TrainConfig, Trainer

    latents = encode_images(image_set(6, width=8), LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    seen = []

    def spy(moments, flip, noise):
        seen.append((flip.clone(), noise.clone()))
        return sample_latents(moments, flip, noise)

    latents.sample_latents = spy
    torch.manual_seed(0)
    model = DiT(DiTConfig(4, 2, C, 16, 1, 2, num_classes=2))
    config = TrainConfig(steps=6, batch_size=4, lr=1e-2, flip=True, precision="fp32")
    trainer = Trainer(model, Diffusion(), latents, config)
    trainer.fit(progress=False)
    losses = [h[0] for h in trainer.progress.history]
    assert len(losses) == 6 and all(np.isfinite(losses))
    assert all(not torch.equal(a[1], b[1]) for a, b in zip(seen, seen[1:])), "noise is new each step"
    flips = torch.cat([flip for flip, _ in seen])
    assert flips.any() and not flips.all()
    assert seen[0][1].shape == (4, C, 4, 4) and abs(torch.stack([n for _, n in seen]).std() - 1) < 0.1


def test_from_pictures_to_samples_by_the_command(tmp_path, capsys):
    """encode, train on the latents, sample with the autoencoder that the model remembers."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    for name in ("china", "flower"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(images(3, 16, 16, seed=len(name))):
            save_image(image_grid(image[None], 1), tmp_path / "photos" / name / f"{i}.png")
    words = f"encode {tmp_path / 'photos'} --vae {tmp_path / 'vae'} --image-size 16 --out {tmp_path / 'lat'}"
    assert main(words.split()) == 0
    words = f"train --latents {tmp_path / 'lat'} --out {tmp_path} --steps 2 --batch-size 4 --hidden-size 32 --flip"
    assert main([*words.split(), "--depth", "1", "--num-heads", "2", "--patch-size", "2"]) == 0
    model, out = str(tmp_path / "model"), str(tmp_path / "s.npz")
    sampling = json.loads((tmp_path / "model" / "sampling.json").read_text())
    assert sampling["vae"] == open_latents(tmp_path / "lat").vae and sampling["clip_x0"] is False
    words = ["sample", model, "--class", "flower", "--n", "3", "--steps", "2", "--out", out]
    assert main(words) == 0
    file = np.load(out)
    assert file["arr_0"].shape == (3, 16, 16, 3) and file["arr_1"].tolist() == [1, 1, 1]
    tiny_vae(seed=1).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert main([*words, "--vae", str(tmp_path / "other")]) == 2
    assert "vae" in capsys.readouterr().err.lower()
