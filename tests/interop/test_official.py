"""Official checkpoints: round trips, refused code, damaged files, and models that the format cannot hold."""

import argparse
import os
import pickle
from dataclasses import asdict, replace

import pytest
import torch

from dit_nb import DiT, DiTConfig, SamplingConfig
from dit_nb.interop.convert import load_any
from dit_nb.interop.official import _infer_config, load_official, save_official
from support import latent_inputs, latent_model, raises_input_error, same_weights

PAPER_SAMPLING = SamplingConfig(clip_x0=False)  # of the paper's models, which are latent models


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "fields",
    [{}, {"learn_sigma": False}, {"class_dropout_prob": 0.0}, {"mlp_ratio": 2.0}, {"patch_size": 4}],
    ids=str,
)
def test_round_trip(tmp_path, training, fields):
    model, own = (
        latent_model(**fields),
        SamplingConfig(steps="ddim20", class_names=("a", "b"), card={"data": "x"}),
    )
    save_official(model, tmp_path / "a.pt", own, training)
    known = {} if training else {"num_heads": 2, "num_classes": 10}
    loaded, sampling = load_official(tmp_path / "a.pt", **known)
    assert loaded.config == model.config and same_weights(loaded, model) and not loaded.training
    variance = "learned" if model.config.learn_sigma else "fixed_large"
    # Only the training form keeps sampling settings.
    assert sampling == (own if training else replace(PAPER_SAMPLING, variance=variance))
    assert os.listdir(tmp_path) == ["a.pt"]


def test_training_form_is_that_of_the_official_script(tmp_path):
    model, ema = latent_model(0), latent_model(1)
    save_official(model, tmp_path / "a.pt", training=True, ema=ema)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content.keys() == {"model", "ema", "opt", "args"} and content["args"].num_classes == 10
    assert content["opt"]["param_groups"][0]["lr"] == 1e-4
    assert same_weights(load_official(tmp_path / "a.pt")[0], ema)
    assert same_weights(load_official(tmp_path / "a.pt", weights="model")[0], model)


def test_checkpoint_of_the_official_training_script(tmp_path):
    """Only the script's own arguments in args, an optimizer that has stepped, and bfloat16 weights."""
    model = latent_model(hidden_size=384, num_heads=6, depth=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(*latent_inputs()).square().mean().backward()
    optimizer.step()
    state = {k: v.bfloat16() for k, v in model.state_dict().items()}
    args = argparse.Namespace(model="DiT-S/2", image_size=64, num_classes=10, vae="ema", global_seed=0)
    content = {"model": {}, "ema": state, "opt": optimizer.state_dict(), "args": args}
    torch.save(content, tmp_path / "0000100.pt")
    loaded, sampling = load_official(tmp_path / "0000100.pt")
    assert loaded.config == model.config and sampling == PAPER_SAMPLING
    assert all(torch.equal(v, state[k].float()) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["DiT-S/8", "DiT-B/4", "DiT-L/2", "DiT-XL/2"])
def test_named_sizes_are_inferred_from_shapes(name):
    with torch.device("meta"):
        model = DiT(replace(DiTConfig.named(name), depth=1))
    assert _infer_config(model.state_dict()) == model.config


@pytest.mark.parametrize("channels, clipped", [(1, True), (3, True), (4, False)])
def test_pixel_models_are_clipped(tmp_path, channels, clipped):
    model = DiT(DiTConfig(8, 2, channels, 384, 1, 6, num_classes=10))
    save_official(model, tmp_path / "m.pt")
    assert load_official(tmp_path / "m.pt")[1].clip_x0 is clipped


class Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_trap(path, trap, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": trap}, protocol=2))
    else:
        state = {k: v.clone() for k, v in latent_model().state_dict().items()}
        contents = {"args": {"ema": state, "args": trap}, "bare": {**state, "x": trap}, "old": {"ema": trap}}
        torch.save(contents[kind], path, _use_new_zipfile_serialization=kind != "old")


@pytest.mark.parametrize("kind", ["args", "bare", "old", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    write_trap(tmp_path / "kind.pt", Trap(tmp_path / "sprung"), kind)
    with raises_input_error("kind.pt.*posix.mkdir"):
        load_any(tmp_path / "kind.pt")
    assert not (tmp_path / "sprung").exists()
    if kind == "pickle":  # an unguarded reader runs the code
        pickle.loads((tmp_path / "kind.pt").read_bytes())
        assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.02, 0.3, 0.7, 0.99, 0.9999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(tmp_path, fraction, zipped):
    torch.save(latent_model().state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(content[: int(len(content) * fraction)])
    with raises_input_error("b.pt"):
        load_official(tmp_path / "b.pt", num_heads=2)


def test_files_that_do_not_fit(tmp_path):
    state, path = latent_model().state_dict(), tmp_path / "a.pt"

    def refused(pattern, content, **known):
        torch.save(content, path)
        with raises_input_error(pattern):
            load_official(path, **{"num_heads": 2, **known})

    refused("width 32.*num_heads", state, num_heads=None)
    refused("num_heads", state, num_heads=3)
    refused("num_classes is 12.*11", state, num_classes=12)
    refused("2 tensors.*blocks.1.mlp.fc1.bias", {k: v for k, v in state.items() if "1.mlp.fc1" not in k})
    refused("1 .*extra", {**state, "extra": torch.ones(1)})
    refused("1 .*blocks.1.attn.proj.bias", {**state, "blocks.1.attn.proj.bias": torch.ones(31)})
    refused("pos_embed", {})
    refused("x_embedder", {"pos_embed": state["pos_embed"]})
    refused("15 positions", {**state, "pos_embed": state["pos_embed"][:, :15]})
    refused("adaLN", latent_model(block="in_context").state_dict())
    refused("a.pt.*shape", latent_model(block="adaln").state_dict())
    refused("'ema'", {"model": state, "step": 3})
    refused("state dict", [1, 2])
    args = argparse.Namespace(sampling={**asdict(SamplingConfig()), "process": "linear"})
    refused("a.pt.*'process'", {"ema": state, "args": args})
    refused("cfg_scale is 'high'", {"ema": state, "args": argparse.Namespace(sampling={"cfg_scale": "high"})})
    with raises_input_error("'best'.*ema, model"):
        load_official(path, weights="best")
    with raises_input_error("nowhere.pt"):
        load_official(tmp_path / "nowhere.pt")


def test_models_that_the_format_cannot_hold(tmp_path):
    for fields, pattern in (({"block": "adaln"}, "block is adaln"), ({"input_size": (8, 4)}, "8x4")):
        with raises_input_error(pattern):
            save_official(latent_model(**fields), tmp_path / "a.pt")
    assert os.listdir(tmp_path) == []


def test_model_without_classes_becomes_one_with_a_zero_class(tmp_path):
    model, (x, t, _) = latent_model(num_classes=0), latent_inputs()
    save_official(model, tmp_path / "a.pt")
    loaded, _ = load_official(tmp_path / "a.pt", num_heads=2)
    assert loaded.config.num_classes == 1 and torch.equal(loaded(x, t, 0 * t), model(x, t))
