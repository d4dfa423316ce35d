import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dit_nb.cli import main
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError
from dit_nb.interop.export import _export_browser, _export_onnx, export_model
from dit_nb.model import DiT
from dit_nb.pretrained import digit_model, save_model
from dit_nb.since.meanflow import MeanFlowDiT


def random_model(**fields) -> DiT:
    """A small model, not square, whose weights are all random."""
    shape = dict(input_size=(8, 4), patch_size=2, in_channels=3, hidden_size=16, depth=2, num_heads=2)
    torch.manual_seed(0)
    model = DiT(DiTConfig(**{**shape, "num_classes": 5, **fields})).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:# The axis name")
@pytest.mark.parametrize(
    "block, classes",
    [("in_context", 5), ("cross_attention", 5), ("adaln", 5), ("adaln_zero", 5), ("adaln_zero", 0)],
)
def test_onnx_computes_what_pytorch_does_for_any_batch(tmp_path, block, classes):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, target = random_model(block=block, num_classes=classes), tmp_path / "model.onnx"
    _export_onnx(model, target)
    session = onnxruntime.InferenceSession(target)
    for n in (1, 2, 5):
        x, t = torch.randn(n, 3, 8, 4), torch.randint(0, 1000, (n,))
        given = {"x": x, "t": t, **({"y": torch.randint(0, 6, (n,))} if classes else {})}
        (got,) = session.run(None, {name: value.numpy() for name, value in given.items()})
        with torch.no_grad():
            wanted = model(*given.values())
        assert np.abs(got - wanted.numpy()).max() < 1e-4 * wanted.abs().max()


def test_the_browser_file_holds_all_weights_and_settings(tmp_path):
    model, sampling = digit_model()
    _export_browser(model, sampling, tmp_path / "digits.bin")
    assert (tmp_path / "digits.bin").stat().st_size < 2_200_000
    (tmp_path / "other").touch()
    assert (tmp_path / "digits.bin").stat().st_mode == (
        tmp_path / "other"
    ).stat().st_mode  # a web server reads it
    with safe_open(tmp_path / "digits.bin", "pt") as file:
        assert json.loads(file.metadata()["config"])["hidden_size"] == 96
        for name, w in model.state_dict().items():
            got = file.get_tensor(name).float()
            if w.ndim > 1:
                got = got * file.get_tensor(f"{name}.scale")[:, None]
            rounding = w.abs().max() / 65_000 if w.ndim > 1 else 0
            assert (got.flatten() - w.flatten().cpu()).abs().max() <= rounding, name


def test_the_browser_file_of_a_mean_flow_model_says_how_it_scales_time(tmp_path):
    shape = dict(
        input_size=8, patch_size=2, in_channels=3, hidden_size=16, depth=1, num_heads=2, num_classes=3
    )
    model = MeanFlowDiT(DiTConfig(**shape, learn_sigma=False, class_dropout_prob=0.0)).eval()
    _export_browser(model, SamplingConfig(objective="mean_flow", steps="4"), tmp_path / "m.bin")
    with safe_open(tmp_path / "m.bin", "pt") as file:
        assert json.loads(file.metadata()["config"])["time_scale"] == 10
        assert "span_embedder.mlp.0.weight" in file.keys()
    with pytest.raises(UserError, match="^objective is 'diffusion', but must be mean_flow"):
        _export_browser(model, SamplingConfig(), tmp_path / "other.bin")


REFUSED = {
    "block": ({"block": "adaln"}, {}),
    "input_size": ({}, {}),
    "num_classes": ({"input_size": 8, "num_classes": 0}, {}),
    "class_dropout_prob": ({"input_size": 8, "class_dropout_prob": 0.0}, {}),
    "learn_sigma": ({"input_size": 8, "learn_sigma": False}, {"variance": "fixed_small"}),
    "schedule": ({"input_size": 8}, {"schedule": "cosine"}),
    "clip_x0": ({"input_size": 8}, {"clip_x0": False}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_browser_refuses_what_its_code_does_not_know(tmp_path, name):
    fields, settings = REFUSED[name]
    with pytest.raises(UserError, match=f"^{name} is "):
        _export_browser(random_model(**fields), SamplingConfig(**settings), tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(UserError, match="target"):
        export_model(random_model(), SamplingConfig(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_the_command(tmp_path, capsys):
    model = random_model(input_size=8)
    save_model(model, tmp_path / "model", SamplingConfig())
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "m.bin"), "--format", "browser"]) == 0
    assert (tmp_path / "m.bin").exists()
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "m.bin")]) == 2
    assert "must not exist" in capsys.readouterr().err
