"""Saved models: what is written is what is read, and an error for each file that is missing or does not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_nb import DiT
from dit_nb.model import BLOCKS
from support import model_inputs, raises_input_error, tiny_model


@pytest.mark.parametrize("block", list(BLOCKS))
@pytest.mark.parametrize(
    "fields", [{}, {"num_classes": 0}, {"learn_sigma": False, "init": "scaled"}], ids=str
)
@torch.no_grad()
def test_saved_and_loaded_a_model_is_the_same(block, fields, tmp_path):
    model = tiny_model(block, **fields).train()
    model.save_pretrained(tmp_path)
    loaded = DiT.from_pretrained(tmp_path)
    assert not loaded.training and model.training
    assert loaded.config == model.config
    x, t, y = model_inputs(model)
    assert torch.equal(loaded(x, t, y), model.eval()(x, t, y))
    assert torch.equal(DiT.from_pretrained(str(tmp_path))(x, t, y), loaded(x, t, y))


@pytest.fixture
def saved(tmp_path):
    tiny_model(input_size=4, depth=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_model_that_is_not_there(tmp_path, saved):
    for source in (tmp_path / "nothing", str(tmp_path / "nothing"), "nothing"):
        with raises_input_error(f"{source}.*not a folder"):
            DiT.from_pretrained(source)
    (tmp_path / "empty").mkdir()
    with raises_input_error(f"{tmp_path}/empty.*config.json"):
        DiT.from_pretrained(tmp_path / "empty")
    (saved / "model.safetensors").unlink()
    with raises_input_error(f"{saved}.*model.safetensors"):
        DiT.from_pretrained(saved)


def test_hub_that_does_not_answer(monkeypatch):
    def fail(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr("dit_nb.hub.hf_hub_download", fail)
    with raises_input_error("nobody/nothing.*config.json.*Hub"):
        DiT.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_weights(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with raises_input_error(f"{path}"):
        DiT.from_pretrained(saved)


def lose(weights):
    del weights["blocks.0.mlp.fc1.bias"]


def gain(weights):
    weights["blocks.1.mlp.fc1.bias"] = torch.zeros(64)


def reshape(weights):
    weights["blocks.0.mlp.fc1.bias"] = torch.zeros(1, 64)


@pytest.mark.parametrize("change", [lose, gain, reshape])
def test_weights_that_do_not_fit(saved, change):
    path = saved / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with raises_input_error(rf"{path}.*1 tensor.*blocks\.\d\.mlp\.fc1\.bias"):
        DiT.from_pretrained(saved)


@pytest.mark.parametrize(
    "text,pattern",
    [
        ("{", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("", "not a JSON object"),
        ('{"depth": 1}', "hidden_size"),
    ],
)
def test_configurations_that_cannot_be_read(saved, text, pattern):
    path = saved / "config.json"
    path.write_text(text)
    with raises_input_error(f"{path}.*{pattern}"):
        DiT.from_pretrained(saved)


@pytest.mark.parametrize(
    "old,new,pattern",
    [
        ('"depth": 1', '"depth": 1, "dept": 2', "dept"),
        ('"depth": 1', '"depth": 0', "depth.*0"),
        ('"depth": 1', '"depth": 2', "blocks.1"),
        ('"adaln_zero"', '"adaln"', "adaLN_modulation"),
    ],
)
def test_configurations_with_a_mistake(saved, old, new, pattern):
    path = saved / "config.json"
    text = Path(path).read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with raises_input_error(pattern):
        DiT.from_pretrained(saved)
