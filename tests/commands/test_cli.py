"""The command line as a person uses it: files, pictures, exit codes, sentences."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from dit_nb import DiT, DiTConfig
from dit_nb.cli import main
from dit_nb.pretrained import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A very short digits run."""
    out = tmp_path_factory.mktemp("digits")
    assert main(["digits", "--steps", "12", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of real photographs, cut up, in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("china", "flower"):
        (folder / name).mkdir()
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for i in range(6):
            photo.crop((i * 40, 0, i * 40 + 300, 260)).save(folder / name / f"{i}.jpg")
    return folder


def refused(capsys, *words: str) -> str:
    """The sentence with which a command ends."""
    assert main(list(words)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dit-nb: error: ") and "Traceback" not in error
    return error


def test_digits_writes_what_it_promises(run):
    metrics = json.loads((run / "metrics.json").read_text())
    samples = np.load(run / "samples.npz")
    assert samples["images"].shape == (1000, 1, 8, 8) and samples["images"].dtype == np.float32
    assert np.abs(samples["images"]).max() <= 1.5 and np.isfinite(samples["images"]).all()
    assert np.bincount(samples["labels"]).tolist() == [100] * 10
    for name in ("samples.png", "denoising.png", "loss.png"):
        assert Image.open(run / name).size[0] > 400, name
    assert metrics["steps"] == 12 and metrics["seed"] == 0
    assert abs(metrics["frechet_floor"] - 0.33) < 0.03, "the judge is the agreed one"
    draws = metrics["frechet_draws"]
    assert draws[0] == metrics["frechet"] and len(set(draws)) == 4, "each drawing has luck of its own"
    assert abs(metrics["accuracy_real"] - 0.989) < 0.005
    assert abs(metrics["nearest_train_real"] - 16.8) < 0.1
    assert not list(run.glob(".unfinished*"))


def test_the_same_steps_give_the_same_run(run, tmp_path):
    assert main(["digits", "--steps", "12", "--out", str(tmp_path)]) == 0
    a, b = (np.load(out / "samples.npz")["images"] for out in (run, tmp_path))
    assert np.array_equal(a, b)


def test_model_loads_and_samples(run, tmp_path):
    model = DiT.from_pretrained(str(run / "model"))
    assert not model.training and model.config.num_classes == 10
    words = ["sample", str(run / "model"), "--class", "3", "--cfg-scale", "2", "--seed", "0", "--n", "4"]
    words += ["--steps", "5"]
    for name in ("a.png", "b.png"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert main([*words, "--sampler", "ddim", "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    assert main([*words[:2], "--n", "3", "--steps", "2", "--out", str(tmp_path / "all.png")]) == 0


def test_many_samples_go_to_a_file_or_a_folder(run, tmp_path):
    model, folder = str(run / "model"), tmp_path / "many"
    words = ["sample", model, "--steps", "3", "--seed", "4"]
    assert main([*words, "--n", "7", "--batch-size", "3", "--out", str(tmp_path / "many.npz")]) == 0
    file = np.load(tmp_path / "many.npz")
    assert file["arr_0"].shape == (7, 8, 8, 1) and file["arr_0"].dtype == np.uint8
    assert file["arr_1"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert main([*words, "--n", "4", "--out", str(folder)]) == 0
    first = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png")}
    assert main([*words, "--n", "7", "--batch-size", "2", "--out", str(folder)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png") if p.name in first} == first
    pictures = [np.asarray(Image.open(p)) for p in sorted(folder.glob("*.png"))]
    difference = np.stack(pictures).astype(int) - file["arr_0"][..., 0]
    assert abs(difference).max() <= 1, "image i of a seed is the same image, in any batch"
    assert main([*words, "--n", "7", "--steps", "4", "--out", str(folder)]) == 2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_bfloat16_draws_nearly_the_same(run, tmp_path, sampler):
    words = ["sample", str(run / "model"), "--n", "10", "--steps", "10", "--sampler", sampler, "--out"]
    exact, near = str(tmp_path / "exact.npz"), str(tmp_path / "near.npz")
    assert main([*words, exact]) == 0 and main([*words, near, "--precision", "bf16"]) == 0
    a, b = (np.load(path)["arr_0"].astype(int) for path in (exact, near))
    assert 0 < abs(a - b).mean() < 3


def test_a_preset_is_a_start(run, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "dit_nb.commands.sample.sample_batches", lambda *a, **k: seen.update(n=a[3], y=a[2], **k) or iter(())
    )
    monkeypatch.setattr("dit_nb.commands.sample.write", lambda *a: list(a[1]))
    words = f"sample {run / 'model'} --preset paper --n 500 --out {tmp_path / 'x.npz'}".split()
    monkeypatch.setattr("dit_nb.commands.sample.open_decoder", lambda *a: seen.update(vae=a[2]))
    assert main(words) == 0
    draw = seen["draw"].keywords
    assert (draw["steps"], draw["cfg_scale"], draw["guided_channels"]) == ("250", 1.5, 3)
    assert seen["n"] == 500 and seen["vae"] is None, "a model of pixels needs no autoencoder"
    assert 30 < seen["y"].bincount().min() and seen["y"].bincount().max() < 75, "classes are drawn at random"
    assert not torch.equal(seen["y"], torch.arange(500) % 10)


@pytest.mark.parametrize("words, vae", [("", "stabilityai/sd-vae-ft-ema"), ("--vae mine", "mine")])
def test_a_preset_names_an_autoencoder_where_none_is_known(run, tmp_path, monkeypatch, words, vae):
    latents = DiT(DiTConfig(8, 4, 4, 16, 1, 2, num_classes=10)), {**load_model(run / "model")[1]}
    seen = []
    monkeypatch.setattr("dit_nb.commands.sample.open_model", lambda source: latents)
    monkeypatch.setattr("dit_nb.commands.sample.open_decoder", lambda *a: seen.append(a[2]))
    monkeypatch.setattr("dit_nb.commands.sample.write", lambda *a: None)
    start = f"sample model --preset paper --n 2 --out {tmp_path / 'x.npz'} {words}".split()
    assert main(start) == 0
    latents[1]["vae"] = {"id": "its own"}
    assert main(start) == 0
    assert seen == [vae, "mine" if words else None]


def test_stopped_by_hand(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dit_nb.commands.train.run", stop)
    assert main(["train", "--data", "digits", "--steps", "1", "--out", "nowhere"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    words = ["train", "--data", "digits", "--batch-size", "4", "--save-every", "2", "--out", str(tmp_path)]
    words += "--patch-size 4 --hidden-size 16 --depth 1 --num-heads 2".split()
    assert main([*words, "--steps", "4"]) == 0
    last = tmp_path / "checkpoints" / "step-00000004"
    for name in ("model.safetensors", "training.pt", "run.json"):
        whole = (last / name).read_bytes()
        (last / name).write_bytes(whole[: len(whole) // 2])
        assert str(last) in refused(capsys, *words, "--steps", "6", "--resume")
        (last / name).write_bytes(whole)
    shutil.rmtree(last)
    assert main([*words, "--steps", "6", "--resume"]) == 0


def test_help_tells_the_defaults_of_the_command(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "updates between checkpoints (default: 1000)" in told and "1152" not in told


def test_dpm_solver_draws_the_same_twice(run, tmp_path):
    words = ["sample", str(run / "model"), "--n", "3", "--sampler", "dpm++", "--steps", "4", "--out"]
    for name in ("a.png", "b.png"):
        assert main([*words, str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_go_on_from_a_trained_model(run, photos, tmp_path, capsys):
    """Other classes and another size: all weights but the label table are taken over."""
    words = f"train --data digits --start {run / 'model'} --steps 1 --lr 1e-9 --out {tmp_path / 'same'}"
    assert main([*words.split(), "--ema-decay", "0"]) == 0
    old, new = (DiT.from_pretrained(str(p)) for p in (run / "model", tmp_path / "same" / "model"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(old.parameters(), new.parameters()))
    words = f"train --data {photos} --channels 1 --image-size 16 --start {run / 'model'} --steps 1 --lr 1e-9"
    assert main([*words.split(), "--ema-decay", "0", "--out", str(tmp_path / "other")]) == 0
    assert "learned anew" in capsys.readouterr().out
    other = DiT.from_pretrained(str(tmp_path / "other" / "model"))
    assert other.config.num_classes == 2 and other.config.input_size == 16
    assert torch.allclose(other.blocks[0].attn.qkv.weight, old.blocks[0].attn.qkv.weight, atol=1e-6)
    assert other.y_embedder.embedding_table.weight.shape[0] == 3


def test_skip_bad_counts(photos, tmp_path, capsys):
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "china" / "broken.jpg").write_bytes(b"not a picture")
    words = f"train --data {tmp_path / 'photos'} --image-size 16 --steps 1 --batch-size 2 --hidden-size 32 --depth 1"
    words = [*words.split(), "--num-heads", "2", "--out", str(tmp_path / "out")]
    assert "broken.jpg" in refused(capsys, *words)
    assert main([*words, "--skip-bad"]) == 0
    assert "1 images cannot be read" in capsys.readouterr().out


def test_train_on_a_folder(photos, tmp_path):
    words = f"train --data {photos} --out {tmp_path} --steps 4 --image-size 16 --batch-size 4 --patch-size 4"
    words += " --hidden-size 32 --depth 2 --num-heads 2 --sample-every 2 --save-every 2 --flip --seed 1"
    assert main([*words.split(), "--tracker", "tensorboard"]) == 0
    sampling = json.loads((tmp_path / "model/sampling.json").read_text())
    assert sampling["class_names"] == ["china", "flower"]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "step-00000002.png",
        "step-00000004.png",
    ]
    assert (tmp_path / "samples.png").exists() and list((tmp_path / "logs").rglob("events*"))
    assert main(["sample", str(tmp_path / "model"), "--class", "flower", "--n", "2", "--steps", "3",
                 "--out", str(tmp_path / "flower.png")]) == 0  # fmt: skip


def test_train_without_classes_and_learned_variance(photos, tmp_path):
    words = f"train --data {photos / 'china'} --out {tmp_path} --steps 2 --image-size 16 --batch-size 2"
    words += " --hidden-size 32 --depth 1 --num-heads 2 --no-learn-sigma --channels 1 --block in_context"
    assert main(words.split()) == 0
    assert DiT.from_pretrained(str(tmp_path / "model")).config.num_classes == 0
    assert (
        main(
            ["sample", str(tmp_path / "model"), "--n", "2", "--steps", "2", "--out", str(tmp_path / "x.png")]
        )
        == 0
    )


@pytest.mark.parametrize("command", [[], ["digits"], ["train"], ["sample"]])
def test_help_reads_well(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: dit-nb" in text
    for line in text.splitlines():
        if line.strip().startswith("--") and "  " in line.strip():
            assert line.strip().split("  ", 1)[1].strip(), f"no help for {line}"


def test_bad_input_ends_with_a_sentence(run, photos, tmp_path, capsys):
    model, out = str(run / "model"), str(tmp_path / "x")
    say = lambda *words: refused(capsys, *words)  # noqa: E731
    train = ["train", "--data", "digits", "--out", out, "--steps", "2"]
    assert "class is '10'" in say("sample", model, "--class", "10", "--out", out + ".png")
    assert "end in .npz, .png" in say("sample", model, "--out", out + ".gif")
    assert "n is 0" in say("sample", model, "--n", "0", "--out", out + ".png")
    assert "whole number for dpm++" in say(
        "sample", model, "--sampler", "dpm++", "--steps", "ddim50", "--out", out + ".png"
    )
    assert "cannot be loaded" in say("sample", model, "--vae", str(photos), "--out", out + ".png")
    assert "respacing is 'ddim64'" in say("sample", model, "--steps", "ddim64", "--out", out + ".png")
    assert "nowhere" in say("sample", str(tmp_path / "nowhere"), "--out", out + ".png")
    assert "patch_size 3" in say(*train, "--patch-size", "3")
    assert "num_heads 7" in say(*train, "--num-heads", "7")
    assert "DiT-S/2" in say(*train, "--size", "DiT-M/2")
    assert "no checkpoint" in say(*train, "--resume")
    assert "does not exist" in say(
        "train", "--data", out + "z", "--out", out, "--steps", "1", "--image-size", "8"
    )
    assert "image-size" in say("train", "--data", str(photos), "--out", out, "--steps", "1")
    assert "just one" in say("train", "--data", "digits", "--out", out)
    assert "depth is given, but start" in say(*train, "--start", model, "--depth", "3")
    assert "takes 1" in say(
        "train", "--data", str(photos), "--image-size", "8", "--start", model, "--out", out, "--steps", "1"
    )
    assert "latents folder" in say("train", "--latents", str(photos), "--out", out, "--steps", "1")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert "cannot be written" in say("digits", "--steps", "1", "--out", str(blocked))
    assert blocked.read_text() == "not a folder"


def test_a_failed_run_leaves_results_alone(run, capsys, monkeypatch):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    monkeypatch.setattr(
        "dit_nb.commands.digits.save_model", lambda *a: (_ for _ in ()).throw(ValueError("disk full"))
    )
    assert "disk full" in refused(capsys, "digits", "--steps", "2", "--out", str(run))
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_second_run_does_not_overwrite_checkpoints(tmp_path, capsys):
    words = f"train --data digits --out {tmp_path} --steps 2 --save-every 1 --batch-size 4 --hidden-size 32".split()
    assert main(words) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert "--resume" in refused(capsys, *words)
    assert "lr is 0.5" in refused(capsys, *words, "--resume", "--lr", "0.5")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_command_is_installed():
    script = Path(sys.executable).with_name("dit-nb")
    result = subprocess.run([str(script), "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "digits" in result.stdout
