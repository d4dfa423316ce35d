"""`dit-nb encode`, and training and sampling on its latents."""

import json
import tarfile
from types import SimpleNamespace

import numpy as np
import torch

from dit_nb.cli import main
from dit_nb.commands.encode import _describe_run
from dit_nb.data import image_grid, save_image
from dit_nb.distributed import _process_state
from dit_nb.latent_cache import open_latents
from dit_nb.latents import LatentCodec
from support_latents import LinearVAE, linear_images, tiny_vae


def photos(folder, n=3):
    """A folder of images in two classes."""
    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 18, 22))).float()
            save_image(image_grid(pixels, 1)[1:-1, 1:-1], folder / name / f"{i}.png")
    return folder


def test_encode_a_folder(tmp_path, capsys):
    tiny_vae().save_pretrained(tmp_path / "vae")
    folder, vae, out = photos(tmp_path / "photos"), str(tmp_path / "vae"), str(tmp_path / "z")
    command = ["encode", str(folder), "--vae", vae, "--out", out, "--image-size", "16", "--batch-size", "4"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        f"data: {folder}\n  6 images of 3 channels, 16x16\n  2 classes: china 3, flower 3\n"
    )
    assert "6 images and their mirror images as latents of 4x8x8" in text and "use --scale " in text
    network = _process_state().device.type, sum(w.numel() for w in tiny_vae().parameters())
    assert f"\nautoencoder: {network[1]:,} parameters, fp32 on {network[0]}\n" in text
    assert "\nrun: 2 batches of up to 4 images, each with its mirror image\n" in text
    latents = open_latents(out)
    assert latents.class_names == ("china", "flower") and latents.vae["id"] == vae
    assert sorted(latents.get_batch(list(range(6)))[1].tolist()) == [0, 0, 0, 1, 1, 1]
    assert main(command) == 2 and "out folder" in capsys.readouterr().err
    wrong = [*command[:4], "--out", str(tmp_path / "y"), "--image-size", "15"]
    assert main(wrong) == 2 and "images is 15x15" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_the_number_of_batches_is_that_of_the_shards():
    """Shards of 512 images, in batches of 100: 6 each, and 1 for the 40 images of the last."""
    state = SimpleNamespace(num_processes=2)
    text = _describe_run(LatentCodec(LinearVAE(), dtype=torch.bfloat16), 2 * 512 + 40, 100, state)
    assert text.splitlines() == [
        "autoencoder: 144 parameters, bf16 on cpu, 2 processes",
        "run: 13 batches of up to 100 images, each with its mirror image",
    ]


def test_encode_train_and_sample(tmp_path, capsys):
    """encode, train on the latents, sample with the autoencoder that the model remembers."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    for name in ("china", "flower"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(linear_images(3, 16, 16, seed=len(name))):
            save_image(image_grid(image[None], 1), tmp_path / "photos" / name / f"{i}.png")
    command = (
        f"encode {tmp_path / 'photos'} --vae {tmp_path / 'vae'} --image-size 16 --out {tmp_path / 'lat'}"
    )
    assert main(command.split()) == 0
    command = f"train --latents {tmp_path / 'lat'} --out {tmp_path} --steps 2 --batch-size 4 --hidden-size 32 --flip"
    assert main([*command.split(), "--depth", "1", "--num-heads", "2", "--patch-size", "2"]) == 0
    model, out = str(tmp_path / "model"), str(tmp_path / "s.npz")
    sampling = json.loads((tmp_path / "model" / "sampling.json").read_text())
    assert sampling["vae"] == open_latents(tmp_path / "lat").vae and sampling["clip_x0"] is False
    command = ["sample", model, "--class", "flower", "--num-samples", "3", "--steps", "2", "--out", out]
    assert main(command) == 0
    file = np.load(out)
    assert file["arr_0"].shape == (3, 16, 16, 3) and file["arr_1"].tolist() == [1, 1, 1]
    tiny_vae(seed=1).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert main([*command, "--overwrite", "--vae", str(tmp_path / "other")]) == 2
    assert "vae" in capsys.readouterr().err.lower()


def test_scales_of_latents(tmp_path, capsys):
    """A scale by option; or one for each channel, with which the latents have mean 0 and standard deviation 1."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    folder, vae = photos(tmp_path / "photos"), str(tmp_path / "vae")
    command = ["encode", str(folder), "--vae", vae, "--image-size", "16x24", "--out"]
    assert main([*command, str(tmp_path / "two"), "--scale", "2"]) == 0
    assert main([*command, str(tmp_path / "own")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "channels"), "--scale", "channels"]) == 0
    assert "std 1.00\n" in capsys.readouterr().out
    two, own, channels = (open_latents(tmp_path / name) for name in ("two", "own", "channels"))
    assert two.vae["scale"] == 2 and two.shape == (4, 8, 12)
    a, b, c = (data.get_batch(range(6))[0][:, 0] for data in (two, own, channels))
    assert torch.allclose(a, b * 2 / own.vae["scale"], rtol=1e-2, atol=1e-3)
    assert len(channels.vae["scale"]) == len(channels.vae["shift"]) == 4
    assert c[:, 0].mean((0, 2, 3)).abs().max() < 0.01
    width = (c[:, 0].var((0, 2, 3)) + c[:, 1].square().mean((0, 2, 3))).sqrt()
    assert (width - 1).abs().max() < 0.01
    assert main([*command, str(tmp_path / "x"), "--scale", "wide"]) == 2
    assert "scale is wide, but must be a number" in capsys.readouterr().err


def test_encode_a_stream(tmp_path):
    """WebDataset shards become latents, as the same files in a folder do."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    folder = photos(tmp_path / "photos")
    with tarfile.open(tmp_path / "shard-0.tar", "w") as tar:
        for k, path in enumerate(sorted(folder.rglob("*.png"))):
            tar.add(path, f"{k:04d}.png")
            (tmp_path / "label").write_text(path.parent.name)
            tar.add(tmp_path / "label", f"{k:04d}.txt")
    command = ["--vae", str(tmp_path / "vae"), "--image-size", "16", "--batch-size", "4", "--out"]
    assert main(["encode", str(folder), *command, str(tmp_path / "a")]) == 0
    source = [f"stream:{tmp_path / 'shard-0.tar'}", "--label-column", "txt"]
    assert main(["encode", *source, *command, str(tmp_path / "b")]) == 0
    a, b = (open_latents(tmp_path / name) for name in "ab")
    assert a.class_names == b.class_names == ("china", "flower")
    for one, other in zip(a.get_batch(range(6)), b.get_batch(range(6))):
        assert torch.equal(one, other)
