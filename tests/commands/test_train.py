"""dit-nb train: folders of images, starting from a trained model, checkpoints, and wrong input."""

import json
import os
import re
import resource
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_nb import DiT
from dit_nb.cli import main
from dit_nb.cost import cost
from dit_nb.lab.budget import _format_duration
from dit_nb.pretrained import load_model, sample_images

TINY = "--patch-size 4 --hidden-size 16 --depth 1 --num-heads 2".split()


def test_damaged_checkpoint_is_named(tmp_path, error_of):
    words = [
        "train",
        "--data",
        "digits",
        "--batch-size",
        "4",
        "--save-every",
        "2",
        "--out",
        str(tmp_path),
        *TINY,
    ]
    assert main([*words, "--steps", "4"]) == 0
    last = tmp_path / "checkpoints" / "step-00000004"
    for name in ("model.safetensors", "training.pt", "run.json"):
        content = (last / name).read_bytes()
        (last / name).write_bytes(content[: len(content) // 2])
        assert str(last) in error_of(*words, "--steps", "6", "--resume")
        (last / name).write_bytes(content)
    shutil.rmtree(last)
    assert main([*words, "--steps", "6", "--resume"]) == 0


def test_start_from_a_trained_model(digits_run, photos, tmp_path, capsys):
    """Other classes and another size: all weights but the label table are used."""
    start = ["--init-from", str(digits_run / "model"), *"--steps 1 --lr 1e-9 --ema-decay 0".split()]
    assert main(["train", "--data", "digits", *start, "--out", str(tmp_path / "same")]) == 0
    assert "embeddings" not in capsys.readouterr().out
    old, new = (DiT.from_pretrained(str(p)) for p in (digits_run / "model", tmp_path / "same" / "model"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(old.parameters(), new.parameters()))
    words = ["--data", str(photos), *"--channels 1 --image-size 16".split(), "--out", str(tmp_path / "other")]
    assert main(["train", *words, *start]) == 0
    assert "embeddings" in capsys.readouterr().out
    other = DiT.from_pretrained(str(tmp_path / "other" / "model"))
    assert other.config.num_classes == 2 and other.config.input_size == 16
    assert torch.allclose(other.blocks[0].attn.qkv.weight, old.blocks[0].attn.qkv.weight, atol=1e-6)
    assert other.y_embedder.embedding_table.weight.shape[0] == 3


def test_skip_bad(photos, tmp_path, capsys, error_of):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "china" / "broken.jpg").write_bytes(b"not an image")
    words = f"train --data {tmp_path / 'photos'} --image-size 16 --steps 1 --batch-size 2".split()
    words += [*TINY, "--out", str(tmp_path / "out")]
    assert "broken.jpg" in error_of(*words)
    assert main([*words, "--skip-bad"]) == 0
    text = capsys.readouterr().out
    assert "skipped 1 " in text and "broken.jpg" in text


def test_folder_of_images(photos, tmp_path):
    words = f"train --data {photos} --out {tmp_path} --steps 4 --image-size 16 --batch-size 4 --flip --seed 1"
    words = [*words.split(), *TINY, *"--sample-every 2 --save-every 2 --tracker tensorboard".split()]
    assert main(words) == 0
    sampling = json.loads((tmp_path / "model/sampling.json").read_text())
    assert sampling["class_names"] == ["china", "flower"]
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"]
    assert (tmp_path / "samples.png").exists() and list((tmp_path / "logs").rglob("events*"))
    words = ["sample", str(tmp_path / "model"), *"--class flower --num-samples 2 --steps 3 --out".split()]
    assert main([*words, str(tmp_path / "flower.png")]) == 0


def test_no_classes_and_fixed_variance(photos, tmp_path):
    words = f"train --data {photos / 'china'} --out {tmp_path} --steps 2 --image-size 16 --batch-size 2"
    words += " --hidden-size 32 --depth 1 --num-heads 2 --no-learn-sigma --channels 1 --block in_context"
    assert main(words.split()) == 0
    assert DiT.from_pretrained(str(tmp_path / "model")).config.num_classes == 0
    assert json.loads((tmp_path / "model/sampling.json").read_text())["variance"] == "fixed_small"
    words = f"sample {tmp_path / 'model'} --num-samples 2 --steps 2 --out {tmp_path / 'x.png'}"
    assert main(words.split()) == 0


def test_second_run_does_not_overwrite_checkpoints(tmp_path, error_of):
    words = f"train --data digits --out {tmp_path} --steps 2 --save-every 1 --batch-size 4".split()
    words += TINY
    assert main(words) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert "--resume" in error_of(*words)
    assert "lr is 0.5" in error_of(*words, "--resume", "--lr", "0.5")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_wrong_input(digits_run, photos, tmp_path, error_of):
    model, out = digits_run / "model", tmp_path / "out"

    def error(*words, data=("--data", "digits")):
        return error_of("train", *data, "--out", out, *words)

    images, steps = ("--data", photos), ("--steps", 1)
    assert "patch_size" in error(*steps, "--patch-size", 3)
    assert "num_heads" in error(*steps, "--num-heads", 7)
    assert "DiT-S/2" in error(*steps, "--model", "DiT-M/2")
    assert "no checkpoint" in error(*steps, "--resume")
    assert f"{tmp_path / 'nowhere'}" in error(
        *steps, "--image-size", 8, data=("--data", tmp_path / "nowhere")
    )
    assert "image_size" in error(*steps, data=images)
    assert "steps" in error() and "seconds" in error()
    assert "depth is 3" in error(*steps, "--init-from", model, "--depth", 3)
    assert "3 channels" in error(*steps, "--image-size", 8, "--init-from", model, data=images)
    assert str(photos) in error(*steps, data=("--latents", photos))


# A run that is stopped, and started again

RUN = "train --data digits --batch-size 4 --save-every 2 --precision fp32".split() + TINY


def card(out) -> str:
    return (out / "model" / "README.md").read_text()


def test_resume_auto_serves_the_first_job_and_those_after_it(tmp_path, capsys):
    words = [*RUN, "--out", str(tmp_path), "--resume", "auto"]
    assert main([*words, "--steps", "2"]) == 0
    assert "resumed" not in capsys.readouterr().out
    assert main([*words, "--steps", "4"]) == 0
    assert "resumed after step 2" in capsys.readouterr().out
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert main([*words, "--steps", "4"]) == 0, "a run that is complete writes its model again"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_resume_takes_auto_or_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*RUN, "--out", str(tmp_path), "--steps", "2", "--resume", "maybe"])
    assert stop.value.code == 2 and "auto" in capsys.readouterr().err


def test_a_changed_setting_is_told_in_the_log_and_in_the_card(tmp_path, capsys, error_of):
    words = [*RUN, "--out", str(tmp_path), "--resume", "auto"]
    assert main([*words, "--steps", "2"]) == 0
    slower = [*words, "--steps", "4", "--lr", "5e-5", "--grad-clip", "1"]
    assert "lr is 5e-05, but must be 0.0001" in error_of(*slower)
    assert "change is 'depth'" in error_of(*slower, "--change", "depth")
    capsys.readouterr()
    assert main([*slower, "--change", "lr", "grad-clip"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "from step 2: lr is 5e-05 instead of 0.0001",
        "from step 2: grad_clip is 1.0 instead of None",
    ):
        assert text in printed and text in card(tmp_path)


def test_the_card_states_data_command_and_versions(tmp_path):
    words = [*RUN, "--steps", "2", "--seed", "5", "--out", str(tmp_path)]
    assert main(words) == 0
    text = card(tmp_path)
    assert f"dit-nb {' '.join(words)}" in text and "Data: digits" in text
    assert f"torch {torch.__version__}" in text and "dit_nb " in text


def test_the_forecast_of_time_follows_from_work_and_throughput(tmp_path, monkeypatch, capsys):
    "A thousandth of the throughput takes a thousand times as long; a run of so many seconds needs no forecast."
    found = {}
    for gflops in (1.0, 1e-3):
        monkeypatch.setattr("dit_nb.commands.train._matmul_gflops", lambda *_, rate=gflops: rate)
        words = "--steps 3 --batch-size 4 --precision fp32 --data digits --out".split()
        assert main(["train", *words, str(tmp_path / f"{gflops}"), *TINY]) == 0
        found[gflops] = re.search(r"process, (\S+ \S+) to (\S+ \S+) \(50% to 10%", capsys.readouterr().out)
    model = DiT.from_pretrained(str(tmp_path / "1.0" / "model"))
    seconds = 2 * cost(model.config).total_macs * 3 * 4 * 3 / 1e6  # at 0.001 GFLOP/s
    assert found[1e-3].groups() == tuple(_format_duration(seconds / share) for share in (0.5, 0.1))
    assert found[1.0].groups() == tuple(_format_duration(seconds / 1000 / share) for share in (0.5, 0.1))
    words = "--seconds 0.1 --batch-size 4 --data digits --out".split()
    assert main(["train", *words, str(tmp_path / "timed"), *TINY]) == 0
    assert "peak throughput" not in capsys.readouterr().out


def test_a_flow_is_trained_resumed_and_sampled(tmp_path, error_of, capsys):
    "Of classes, whose network predicts the image; the samples of the command are those of the library."
    words = "--batch-size 4 --precision fp32 --save-every 1 --sample-every none --data digits".split()
    flow = "--objective flow --predicts image --time-shift 2 --time-density uniform".split()
    out = tmp_path / "run"
    for steps, more in ((1, flow), (2, [*flow, "--resume"])):
        assert main(["train", *words, *more, "--steps", str(steps), "--out", str(out), *TINY]) == 0
    assert "resumed after step 1" in capsys.readouterr().out
    model, sampling = load_model(out / "model")
    kept = [getattr(sampling, name) for name in ("objective", "predicts", "time_shift", "time_density")]
    assert kept == ["flow", "image", 2.0, "uniform"] and not model.config.learn_sigma
    asked = "--sampler heun --steps 3 --num-samples 2 --class 4 --out".split()
    assert main(["sample", str(out), *asked, str(tmp_path / "x.npz")]) == 0
    wanted = sample_images(
        model, replace(sampling, sampler="heun", steps="3"), torch.tensor([4, 4]), progress=False
    )
    got = np.load(tmp_path / "x.npz")["arr_0"]
    assert np.abs(got[..., 0] / 127.5 - 1 - wanted[:, 0].numpy()).max() < 0.02
    assert "predicts is image" in error_of(
        "train", *words, "--steps", "1", "--predicts", "image", "--out", "x"
    )
    assert "lesson 35" in error_of("train", *words, "--steps", "1", "--objective", "mean_flow", "--out", "x")


def test_validation_loss(tmp_path, error_of):
    words = [*RUN, "--steps", "4", "--validate-every", "2"]
    assert main([*words, "--val-fraction", "0.05", "--out", str(tmp_path / "a")]) == 0
    rows = (tmp_path / "a" / "validation.csv").read_text().splitlines()
    assert rows[0] == "step,loss,mse,vb" and [row.split(",")[0] for row in rows[1:]] == ["2", "4"]
    assert "no held-out images" in error_of(*words, "--out", tmp_path / "b")


def test_a_stopped_run_exits_with_the_status_of_its_signal(tmp_path, monkeypatch, capsys):
    def send(trainer, losses):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("dit_nb.commands.train.SampleImages", lambda *_: send)
    assert main([*RUN, "--steps", "50", "--out", str(tmp_path)]) == 143
    assert "stopped by SIGTERM after step 1, which is saved" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_full_disk_is_a_sentence(tmp_path, error_of):
    """Files of a run may not become larger than some bytes, so that each of its files fails in turn."""
    words = [*RUN, "--steps", "2", "--out"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, size in enumerate((0, 100, 5_000, 50_000)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            assert "cannot be" in error_of(*words, tmp_path / str(number))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    hidden = [path for path in tmp_path.rglob(".*")]
    assert not hidden, hidden
