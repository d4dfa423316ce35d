"""dit-nb export: both formats, and what it refuses."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dit_nb.cli import main
from dit_nb.config import SamplingConfig
from dit_nb.interop.export import export_model
from dit_nb.pretrained import save_model
from support import tiny_model


@pytest.fixture
def saved(tmp_path):
    """The folder of a small model."""
    save_model(tiny_model(input_size=8), tmp_path / "model", SamplingConfig())
    return tmp_path / "model"


def test_the_browser_file_is_that_of_the_function(saved, tmp_path, capsys):
    assert main(["export", str(saved), str(tmp_path / "m.bin"), "--format", "browser"]) == 0
    assert capsys.readouterr().out == f"browser model in {tmp_path / 'm.bin'}\n"
    export_model(tiny_model(input_size=8), SamplingConfig(), tmp_path / "own.bin", "browser")
    ours, theirs = (safe_open(tmp_path / name, "pt") for name in ("m.bin", "own.bin"))
    assert ours.metadata() == theirs.metadata() and set(ours.keys()) == set(theirs.keys())
    assert all(torch.equal(ours.get_tensor(name), theirs.get_tensor(name)) for name in theirs.keys())


def test_a_target_is_refused_before_a_model_is_loaded(tmp_path, error_of):
    (tmp_path / "m.bin").write_text("mine")
    message = error_of("export", tmp_path / "nowhere", tmp_path / "m.bin", "--format", "browser")
    assert f"target is {tmp_path / 'm.bin'}, but must not exist" in message
    assert (tmp_path / "m.bin").read_text() == "mine"
    assert "nowhere" in error_of("export", tmp_path / "nowhere", tmp_path / "n.bin", "--format", "browser")
    assert not (tmp_path / "n.bin").exists()


def test_onnx_computes_what_pytorch_does(saved, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, target = tiny_model(input_size=8), tmp_path / "m.onnx"
    assert main(["export", str(saved), str(target), "--format", "onnx"]) == 0
    x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 4, 5])
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x.numpy(), "t": t.numpy(), "y": y.numpy()})
    with torch.no_grad():
        wanted = model(x, t, y)
    assert np.abs(got - wanted.numpy()).max() < 1e-4 * wanted.abs().max()
