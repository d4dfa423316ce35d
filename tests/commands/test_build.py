"""Fine-tuning by dit-nb train: other classes and sizes, checkpoints to start from, frozen weights, adapters."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dit_nb import DiT
from dit_nb.checkpoint import checkpoints
from dit_nb.cli import main
from dit_nb.hub import _model_folder

FEW = "--channels 1 --batch-size 4 --precision fp32 --sample-every none --ema-decay 0".split()


def pictures(folder, classes, size=8):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (size, size), np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on two classes with checkpoints, whose averaged weights differ from the raw ones."""
    folder = tmp_path_factory.mktemp("base")
    words = (
        "--patch-size 4 --hidden-size 16 --depth 1 --num-heads 2 --image-size 8 --channels 1 --batch-size 4"
    )
    words += (
        f" --precision fp32 --steps 4 --lr 0.01 --save-every 2 --sample-every none --out {folder / 'run'}"
    )
    assert main(["train", "--data", str(pictures(folder / "data", ("cat", "dog"))), *words.split()]) == 0
    return folder / "run"


def train(source, data, out, *words, size=8, steps=1) -> int:
    words = ["--image-size", size, "--steps", steps, *words]
    return main(["train", *map(str, ["--data", data, "--init-from", source, "--out", out, *words]), *FEW])


def table(folder):
    return DiT.from_pretrained(folder).y_embedder.embedding_table.weight


def test_a_new_class_keeps_the_others(base, tmp_path, capsys):
    data = pictures(tmp_path / "data", ("ant", "cat", "dog"), size=16)
    assert train(base, data, tmp_path / "run", "--lr", 1e-12, size=16) == 0
    text = capsys.readouterr().out
    assert "1 of 3 classes are new and get new label embeddings: ant" in text
    assert "input_size is 16 instead of 8: the position embeddings are computed again" in text
    assert torch.allclose(table(tmp_path / "run/model")[1:], table(base), atol=1e-6)


def test_start_from_averaged_or_raw_weights_of_a_checkpoint(base, tmp_path):
    first = checkpoints(base)[0]
    for weights in ("ema", "model"):
        words = ["--lr", 1e-12, "--init-weights", weights]
        assert train(first, base.parent / "data", tmp_path / weights, *words) == 0
        new = DiT.from_pretrained(tmp_path / weights / "model").state_dict()
        for kind in ("ema", "model"):
            old = load_file(first / f"{kind}.safetensors")
            same = all(torch.allclose(old[name], new[name], atol=1e-6) for name in new)
            assert same == (kind == weights)


def test_frozen_weights_do_not_change(base, tmp_path, error_of):
    data, words = base.parent / "data", ["--freeze", "backbone", "--lr", 0.01, "--save-every", 1]
    assert train(base, data, tmp_path / "run", *words) == 0
    old, new = DiT.from_pretrained(base).state_dict(), DiT.from_pretrained(tmp_path / "run").state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all("adaLN" in n or n.endswith("bias") or "y_embedder" in n for n in changed)
    words = ["train", "--data", data, "--init-from", base, "--out", tmp_path / "run", "--image-size", 8, *FEW]
    words += ["--steps", 2, "--lr", 0.01, "--save-every", 1, "--resume"]
    assert "trained parameters is" in error_of(*words, "--freeze", "x_embedder*")
    assert "freeze is 'attention'" in error_of(*words, "--freeze", "attention")


def test_adapters_are_trained_saved_resumed_and_merged(base, tmp_path, error_of):
    pytest.importorskip("peft")
    data = base.parent / "data"
    words = ["--lora-rank", 2, "--lora-alpha", 4, "--lr", 0.01, "--save-every", 2]
    assert train(base, data, tmp_path / "whole", *words, steps=4) == 0
    assert train(base, data, tmp_path / "parts", *words, steps=2) == 0
    shutil.rmtree(tmp_path / "parts/model")
    assert train(base, data, tmp_path / "parts", *words, "--resume", steps=4) == 0
    one, two = (load_file(tmp_path / run / "model/model.safetensors") for run in ("whole", "parts"))
    old = load_file(base / "model/model.safetensors")
    assert one.keys() == two.keys() == old.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert {k for k in one if not torch.equal(one[k], old[k])} == {
        f"blocks.0.{layer}.weight" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    last = DiT.from_pretrained(_model_folder(tmp_path / "whole")).state_dict()  # of the checkpoint, merged
    assert all(torch.allclose(last[k], one[k], atol=1e-6) for k in one)
    assert (tmp_path / "whole/adapter/adapter_config.json").exists()
    wrong = ["train", "--data", data, "--image-size", 8, "--steps", 1, "--out", tmp_path / "x", *FEW]
    assert "without init_from" in error_of(*wrong, "--lora-rank", 2)
    assert "lora_rank is missing" in error_of(*wrong, "--init-from", base, "--lora-alpha", 2)
    assert "with freeze" in error_of(*wrong, "--init-from", base, "--lora-rank", 2, "--freeze", "backbone")
    assert "targets is 'qkvv'" in error_of(
        *wrong, "--init-from", base, "--lora-rank", 2, "--lora-targets", "qkvv"
    )


def test_a_modern_model_has_all_parts_if_none_are_named(tmp_path):
    """Also where the data have a model of their own."""
    for data in ("digits", "emoji"):
        words = f"train --data {data} --block modern --hidden-size 32 --depth 1 --num-heads 2 --steps 1 --batch-size 2"
        assert (
            main(
                [
                    *words.split(),
                    "--save-every",
                    "none",
                    "--sample-every",
                    "none",
                    "--out",
                    str(tmp_path / data),
                ]
            )
            == 0
        )
        model = DiT.from_pretrained(tmp_path / data / "model")
        assert set(model.config.switches) == {"rms_norm", "swiglu", "qk_norm", "rope", "shared_modulation"}


@pytest.mark.parametrize(
    "words, named",
    [
        ("--time-shift 3", "time_shift is 3.0"),
        ("--time-density uniform", "time_density is uniform"),
        ("--objective flow --schedule cosine", "schedule is cosine"),
        ("--objective flow --bins 17", "bins is 17"),
    ],
)
def test_options_of_the_other_objective_are_refused(words, named, tmp_path, error_of):
    line = f"train --data digits --steps 1 --out {tmp_path / 'run'} {words}"
    assert named in error_of(*line.split())
