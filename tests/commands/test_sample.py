"""dit-nb sample: images, files and folders, samplers, presets, and wrong input."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dit_nb import DiT, DiTConfig
from dit_nb.cli import main
from dit_nb.commands.sample import _sample_dpm
from dit_nb.config import SamplingConfig
from dit_nb.pretrained import few_step_emoji_model, load_model, sample_images, text_emoji_model
from dit_nb.since.meanflow import mean_flow_sample
from dit_nb.speed import InferenceModel
from dit_nb.utils import seeded_generator


def sample(model, *words, out) -> int:
    return main(["sample", str(model), *map(str, words), "--out", str(out)])


def test_one_image(digits_run, tmp_path):
    model = DiT.from_pretrained(str(digits_run / "model"))
    assert not model.training and model.config.num_classes == 10
    words = "--class 3 --cfg-scale 2 --seed 0 --num-samples 4 --steps 5".split()
    for name in ("a.png", "b.png"):
        assert sample(digits_run / "model", *words, out=tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sample(digits_run / "model", *words, "--sampler", "ddim", out=tmp_path / "c.png") == 0
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    assert sample(digits_run / "model", "--num-samples", 3, "--steps", 2, out=tmp_path / "all.png") == 0


def test_file_and_folder(digits_run, tmp_path):
    model, folder, words = (
        digits_run / "model",
        tmp_path / "many",
        ["--steps", 3, "--seed", 4, "--num-samples"],
    )
    assert sample(model, *words, 7, "--batch-size", 3, out=tmp_path / "many.npz") == 0
    file = np.load(tmp_path / "many.npz")
    assert file["arr_0"].shape == (7, 8, 8, 1) and file["arr_0"].dtype == np.uint8
    assert file["arr_1"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert sample(model, *words, 4, out=folder) == 0
    first = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png")}
    assert sample(model, *words, 7, "--batch-size", 2, out=folder) == 0
    assert {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png") if p.name in first} == first
    images = [np.asarray(Image.open(p)) for p in sorted(folder.glob("*.png"))]
    difference = np.stack(images).astype(int) - file["arr_0"][..., 0]
    assert abs(difference).max() <= 1, "image i of a seed is the same image, in any batch"
    assert sample(model, *words, 7, "--cfg-scale", 4, out=folder) == 2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_bfloat16_samples_are_close(digits_run, tmp_path, sampler):
    words = ["--num-samples", 10, "--steps", 10, "--sampler", sampler]
    assert sample(digits_run / "model", *words, out=tmp_path / "fp32.npz") == 0
    assert sample(digits_run / "model", *words, "--precision", "bf16", out=tmp_path / "bf16.npz") == 0
    a, b = (np.load(tmp_path / f"{name}.npz")["arr_0"].astype(int) for name in ("fp32", "bf16"))
    assert 0 < abs(a - b).mean() < 3


def test_dpm_solver_repeats(digits_run, tmp_path):
    words = ["--num-samples", 3, "--sampler", "dpm++", "--steps", 4]
    for name in ("a.png", "b.png"):
        assert sample(digits_run / "model", *words, out=tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.fixture
def seen(monkeypatch):
    """What `dit-nb sample` would sample with; nothing is sampled."""
    found = {}

    def batches(model, sampling, labels, n, **options):
        found.update(sampling=sampling, labels=labels, n=n, **options)
        return iter(())

    monkeypatch.setattr("dit_nb.commands.sample.sample_batches", batches)
    monkeypatch.setattr("dit_nb.commands.sample._write_samples", lambda *a: None)
    monkeypatch.setattr("dit_nb.commands.sample._load_decoder", lambda *a: found.update(vae=a[2]))
    return found


def test_only_given_options_override_what_is_saved_with_the_model(digits_run, tmp_path, seen, monkeypatch):
    model, sampling = load_model(digits_run / "model")
    saved = replace(sampling, sampler="ddim", steps="30", cfg_scale=2.0, guided_channels=1, clip_x0=False)
    monkeypatch.setattr("dit_nb.commands.sample.load_any", lambda source, **_: (model, saved))
    assert sample("model", out=tmp_path / "x.npz") == 0
    assert seen["sampling"] == saved and seen["sample"] is sample_images and seen["n"] == 16
    assert sample("model", "--guided-channels", "none", "--clip-x0", out=tmp_path / "x.npz") == 0
    assert seen["sampling"] == replace(saved, guided_channels=None, clip_x0=True)
    assert sample("model", "--sampler", "dpm++", out=tmp_path / "x.npz") == 0
    assert seen["sampling"] == replace(saved, steps="20") and seen["sample"] is _sample_dpm


def test_options_override_a_preset(digits_run, tmp_path, seen):
    words = ["--preset", "paper", "--num-samples", 500]
    assert sample(digits_run / "model", *words, out=tmp_path / "x.npz") == 0
    sampling, labels = seen["sampling"], seen["labels"]
    assert (sampling.steps, sampling.cfg_scale, sampling.guided_channels) == ("250", 1.5, 3)
    assert seen["n"] == 500 and seen["vae"] is None, "a pixel model needs no autoencoder"
    assert 30 < labels.bincount().min() and labels.bincount().max() < 75, "classes are random"
    assert not torch.equal(labels, torch.arange(500) % 10)
    assert sample(digits_run / "model", *words, "--sampler", "dpm++", out=tmp_path / "x.npz") == 0
    assert seen["sampling"].steps == "20", "the steps of a preset are for its own sampler"


@pytest.mark.parametrize("words, vae", [([], "stabilityai/sd-vae-ft-ema"), (["--vae", "mine"], "mine")])
def test_preset_names_the_autoencoder_of_a_model_without_one(tmp_path, monkeypatch, seen, words, vae):
    model = DiT(DiTConfig(8, 4, 4, 16, 1, 2, num_classes=10))
    words = ["--preset", "paper", "--num-samples", 2, *words]
    for own, expected in ((None, vae), ({"id": "its own"}, "mine" if "mine" in words else None)):
        sampling = SamplingConfig(vae=own)
        monkeypatch.setattr("dit_nb.commands.sample.load_any", lambda _, found=(model, sampling), **__: found)
        assert sample("model", *words, out=tmp_path / "x.npz") == 0
        assert seen["vae"] == expected


def test_a_checkpoint_or_a_run_is_a_model(digits_run, tmp_path, capsys, error_of):
    """Averaged weights by default, raw ones by option; a folder of samples is continued with the same checkpoint only."""
    words = (
        "--data digits --patch-size 4 --hidden-size 16 --depth 1 --num-heads 2 --batch-size 4 --save-every 2"
    )
    words += f" --steps 4 --lr 0.01 --out {tmp_path / 'run'}"
    assert main(["train", *words.split()]) == 0
    last, few = tmp_path / "run/checkpoints/step-00000004", ["--steps", 2, "--num-samples", 2]
    for name, model, more in (
        ("run", tmp_path / "run", []),
        ("last", last, []),
        ("model", tmp_path / "run/model", []),
        ("raw", last, ["--weights", "model"]),
    ):
        assert sample(model, *few, *more, out=tmp_path / f"{name}.npz") == 0
    pixels = {name: np.load(tmp_path / f"{name}.npz")["arr_0"] for name in ("run", "last", "model", "raw")}
    assert (pixels["run"] == pixels["last"]).all() and (pixels["run"] == pixels["model"]).all()
    assert (pixels["run"] != pixels["raw"]).any()
    assert sample(tmp_path / "run", *few, out=tmp_path / "many") == 0
    last.rename(last.with_name("step-00000006"))  # the run goes on
    assert "step-00000004" in error_of("sample", tmp_path / "run", *few, "--out", tmp_path / "many")


def test_a_file_that_exists_is_kept(digits_run, tmp_path, error_of):
    few = ["--steps", 2, "--num-samples", 2]
    for name in ("x.png", "x.npz"):
        (tmp_path / name).write_text("mine")
        words = ["sample", digits_run / "model", *few, "--out", tmp_path / name]
        assert f"out is {tmp_path / name}, which exists" in error_of(*words)
        assert (tmp_path / name).read_text() == "mine"
        assert main([*map(str, words), "--overwrite"]) == 0
        assert (tmp_path / name).read_bytes() != b"mine"
    (tmp_path / "folder.png").mkdir()
    assert "exists" in error_of("sample", digits_run / "model", *few, "--out", tmp_path / "folder.png")
    assert "overwrite" in error_of("sample", digits_run / "model", "--out", tmp_path / "new", "--overwrite")


def test_wrong_input(digits_run, photos, tmp_path, error_of):
    def error(*words, model=digits_run / "model", out=tmp_path / "x.png"):
        return error_of("sample", model, *words, "--out", out)

    assert "class is '10'" in error("--class", 10)
    of_emoji = error("--class", "animals-3D", model="emoji")
    assert "similar names: animals-3d, animals-flat" in of_emoji and "...." not in of_emoji
    assert ".npz" in error(out=tmp_path / "x.gif")
    assert "num_samples is 0" in error("--num-samples", 0)
    assert "batch_size is 0" in error("--batch-size", 0)
    assert "steps is 'ddim50'" in error("--sampler", "dpm++", "--steps", "ddim50")
    assert "'ddim64'" in error("--steps", "ddim64")
    assert str(photos) in error("--vae", photos)
    assert "nowhere" in error(model=tmp_path / "nowhere")


def test_prompts(tmp_path):
    """Each image is that of `sample_images` with the same prompt, seed and index; prompts come in turn."""
    words = ("--prompt", "3d green apple", "flat fox", "--num-samples", 4, "--steps", 2)
    assert sample("text-emoji", *words, "--batch-size", 3, out=tmp_path / "a.npz") == 0
    found = np.load(tmp_path / "a.npz")
    model, sampling = text_emoji_model("cpu")
    prompts = ["3d green apple", "flat fox"] * 2
    images = sample_images(InferenceModel(model), replace(sampling, steps="2"), prompts, progress=False)
    wanted = ((images + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert found.files == ["arr_0"]
    assert (torch.tensor(found["arr_0"]).float() - wanted).abs().max() <= 1
    assert (
        main(["sample", *map(str, words), "--out", str(tmp_path / "b.npz")]) == 0
    )  # the same model by default
    assert (np.load(tmp_path / "b.npz")["arr_0"] == found["arr_0"]).all()


def test_few_steps(tmp_path):
    """The bundled MeanFlow model by its command equals its sampler."""
    words = ("--class", "smileys-3d", "--num-samples", 3, "--steps", 2)
    assert sample("few-step-emoji", *words, "--batch-size", 2, out=tmp_path / "a.npz") == 0
    model, sampling = few_step_emoji_model("cpu")
    label = sampling.class_names.index("smileys-3d")
    noise = [seeded_generator(0, 2, i) for i in range(3)]
    images = mean_flow_sample(model, (3, 3, 32, 32), torch.full((3,), label), 2, generator=noise)
    wanted = ((images + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert (torch.tensor(np.load(tmp_path / "a.npz")["arr_0"]).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize(
    "model, words, named",
    [
        ("text-emoji", (), "prompt is missing"),
        ("text-emoji", ("--prompt", "3d grean apple"), "; green, "),
        ("text-emoji", ("--prompt", "3d apple", "--class", "3"), "class is '3'"),
        ("digits", ("--prompt", "three"), "the model takes no text"),
        (
            "digits",
            ("--sampler", "heun"),
            "one of ddpm, ddim: heun is for a flow model, or for this one by `NoiseAs",
        ),
        ("emoji", ("--sampler", "euler"), "euler is for a flow model"),
        ("text-emoji", ("--prompt", "3d apple", "--sampler", "ddim"), "ddim is for a diffusion model."),
        ("text-emoji", ("--prompt", "3d apple", "--sampler", "dpm++"), "sampler is dpm++"),
        ("text-emoji", ("--prompt", "3d apple", "--steps", "10,20"), "steps is '10,20'"),
        ("few-step-emoji", ("--sampler", "euler"), "sampler is euler"),
        ("few-step-emoji", ("--sampler", "dpm++"), "sampler is dpm++"),
        ("few-step-emoji", ("--class", "objects-3d"), "smileys-3d"),
        ("", (), "model is missing"),
        ("", ("--prompt", "a red circle", "digits"), "prompt has 'digits'"),
    ],
)
def test_prompts_and_samplers_that_do_not_fit(model, words, named, tmp_path, capsys):
    assert sample(model, *words, out=tmp_path / "a.png") == 2
    assert named in capsys.readouterr().err and not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "model, words, named",
    [
        ("digits", ("--time-shift", "3"), "time_shift is "),
        ("text-emoji", ("--prompt", "3d apple", "--variance", "fixed_small"), "variance is "),
        ("text-emoji", ("--prompt", "3d apple", "--preset", "paper"), "preset is paper"),
        ("few-step-emoji", ("--preset", "paper"), "preset is paper"),
        ("few-step-emoji", ("--cfg-scale", "2"), "cfg_scale is "),
        ("few-step-emoji", ("--time-shift", "2"), "time_shift is "),
    ],
)
def test_options_that_the_model_would_ignore(model, words, named, tmp_path, capsys):
    assert sample(model, *words, out=tmp_path / "a.png") == 2
    assert named in capsys.readouterr().err


DAMAGED = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"a,b\n1,2\n", b"{}"]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_settings_of_a_folder_of_samples(digits_run, tmp_path, error_of, content):
    """Another setting is refused, and so is a file that holds none; the images stay."""
    words = ("sample", digits_run / "model", "--steps", 2, "--num-samples", 3, "--out", tmp_path / "s")
    assert main([str(word) for word in words]) == 0
    images = {path: path.read_bytes() for path in (tmp_path / "s").glob("*.png")}
    (tmp_path / "s" / "settings.json").write_bytes(content)
    message = error_of(*words)
    assert "settings.json is damaged" in message or "but the images in" in message
    assert {path: path.read_bytes() for path in (tmp_path / "s").glob("*.png")} == images


def test_settings_of_a_folder_of_samples_are_written_once_and_completely(digits_run, tmp_path, monkeypatch):
    words = [str(w) for w in ("sample", digits_run / "model", "--steps", 2, "--num-samples", 2)]
    out = tmp_path / "s"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        assert main([*words, "--out", str(out)]) == 130
    assert list(out.iterdir()) == []
    (out / ".settings.1.json").write_text("{")  # as a kill leaves it
    assert main([*words, "--out", str(out)]) == 0
    before = (out / "settings.json").stat().st_mtime_ns
    assert main([*words, "--out", str(out)]) == 0
    assert (out / "settings.json").stat().st_mtime_ns == before


def test_a_folder_of_before_the_time_shift_is_continued(digits_run, tmp_path):
    words = ("--steps", 2, "--num-samples", 3)
    assert sample(digits_run / "model", *words, out=tmp_path) == 0
    note = tmp_path / "settings.json"
    saved = json.loads(note.read_text())
    del saved["time_shift"]
    note.write_text(json.dumps(saved))
    assert sample(digits_run / "model", *words[:3], 5, out=tmp_path) == 0
    assert len(list(tmp_path.glob("*.png"))) == 5
