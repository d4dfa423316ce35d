import json
import logging
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from dit_nb.cli import main
from dit_nb.conditioning import LabelEmbedder
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError
from dit_nb.interop.export import _export_browser, _export_onnx, _quantize, export_model
from dit_nb.model import DiT
from dit_nb.pretrained import digit_model
from dit_nb.since.meanflow import MeanFlowDiT


def random_model(**fields) -> DiT:
    """A small model, not square, whose weights are all random."""
    shape = dict(input_size=(8, 4), patch_size=2, in_channels=3, hidden_size=16, depth=2, num_heads=2)
    torch.manual_seed(0)
    model = DiT(DiTConfig(**{**shape, "num_classes": 5, **fields})).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


@pytest.fixture
def notes():
    """What PyTorch's exporter logs."""
    records, handler, log = [], logging.Handler(), logging.getLogger("torch.onnx")
    handler.emit = records.append
    log.addHandler(handler)
    yield records
    log.removeHandler(handler)


@pytest.mark.parametrize(
    "block, classes",
    [("in_context", 5), ("cross_attention", 5), ("adaln", 5), ("adaln_zero", 5), ("adaln_zero", 0)],
)
def test_onnx_computes_what_pytorch_does_for_any_batch(tmp_path, block, classes, notes, recwarn):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, target = random_model(block=block, num_classes=classes), tmp_path / "model.onnx"
    _export_onnx(model, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert not notes and not recwarn.list  # torchvision and deprecations are not the user's concern
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


def error_of(rounded) -> float:
    """Largest error of the digit model on 100 images of noise if its matrices are stored as `rounded` says."""
    model = digit_model("cpu")[0]
    x = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t, y = torch.linspace(0, 999, 100).long(), torch.arange(100) % 11
    with torch.no_grad():
        wanted = model(x, t, y)
        for w in model.state_dict().values():
            if w.ndim > 1:
                rows = w.flatten(0, -2) if w.ndim == 3 else w.flatten(1)
                w.copy_(rounded(rows).reshape(w.shape))
        return float((model(x, t, y) - wanted).abs().max())


def in_16_bits(w: torch.Tensor) -> torch.Tensor:
    """A matrix, read again from 16-bit integers and their scales."""
    stored = _quantize("w", w)
    return stored["w"].float() * stored["w.scale"][:, None]


def test_integers_keep_the_bound_of_the_browser_that_float16_misses():
    assert error_of(in_16_bits) == pytest.approx(2.0e-4, rel=0.1)
    assert error_of(lambda w: w.half().float()) == pytest.approx(2.1e-3, rel=0.1)  # the bound is 1e-3


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
    "variance": ({"input_size": 8}, {"variance": "fixed_small"}),
    "guided_channels": ({"input_size": 8, "in_channels": 4}, {"guided_channels": 3}),
    "steps": ({"input_size": 8}, {"steps": "ddim50"}),
    "objective": ({"input_size": 8}, {"objective": "flow"}),
    "vae": ({"input_size": 8}, {"vae": {"name": "sd", "scale": 0.18215}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_browser_refuses_what_its_code_does_not_know(tmp_path, name):
    fields, settings = REFUSED[name]
    with pytest.raises(UserError, match=f"^{name} is "):
        _export_browser(random_model(**fields), SamplingConfig(**settings), tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"variance": "fixed_large"}, "variance"),
        ({"steps": "10,15,20"}, "steps"),
        ({"steps": "30", "num_timesteps": 20}, "steps"),
        ({"schedule": (0.1, 0.2)}, "schedule"),
    ],
)
def test_the_browser_refuses_more_that_its_sampler_does_not_know(tmp_path, settings, name):
    with pytest.raises(UserError, match=f"^{name} is "):
        export_model(random_model(input_size=8), SamplingConfig(**settings), tmp_path / "x.bin", "browser")


class Words(nn.Module):
    """A y_embedder of one's own."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 16)

    def forward(self, y, drop=None):
        return self.table(y)


class OwnDiT(DiT):
    """A model that computes something else with the weights of a DiT."""


def changed(change) -> DiT:
    """A square model after a change."""
    model = random_model(input_size=8)
    change(model)
    return model


def with_number(value: float):
    """A change of one weight."""
    return lambda model: model.blocks[1].attn.qkv.weight.data[3, 4].fill_(value)


OTHERS = {
    "y_embedder is Words, but must be LabelEmbedder": lambda m: setattr(m, "y_embedder", Words()),
    "y_embedder.embedding_table.weight is [(]8, 16[)], but must be [(]6, 16[)]": lambda m: setattr(
        m, "y_embedder", LabelEmbedder(7, 16, 0.1)
    ),
    "blocks.0.attn.qkv is Sequential, but must be Linear": lambda m: setattr(
        m.blocks[0].attn, "qkv", nn.Sequential(m.blocks[0].attn.qkv)
    ),
    "model is 'OwnDiT', but must be a plain DiT": lambda m: setattr(m, "__class__", OwnDiT),
    "blocks.1.attn.qkv.weight has 1 numbers that are NaN or infinite": with_number(float("nan")),
    "blocks.1.attn.qkv.weight has 1 numbers that are NaN": with_number(float("-inf")),
}


@pytest.mark.parametrize("message", OTHERS)
def test_the_browser_refuses_another_network(tmp_path, message):
    with pytest.raises(UserError, match=f"^{message}"):
        export_model(changed(OTHERS[message]), SamplingConfig(), tmp_path / "x.bin", "browser")
    assert not list(tmp_path.iterdir())


def test_all_channels_may_be_named_and_float16_is_exact(tmp_path):
    model, sampling = random_model(input_size=8), SamplingConfig(guided_channels=3)
    export_model(model.half(), sampling, tmp_path / "x.bin", "browser")
    with safe_open(tmp_path / "x.bin", "pt") as file:
        assert torch.equal(file.get_tensor("final_layer.linear.bias"), model.final_layer.linear.bias.float())


@pytest.mark.parametrize(
    "model, sampling, message",
    [
        ("a model", SamplingConfig(), "model is 'a model'"),
        (random_model(), {"steps": "50"}, "sampling is dict"),
        (random_model().train(), SamplingConfig(), "model is in train"),
        (random_model(), SamplingConfig(objective="mean_flow", steps="4"), "objective is mean_flow"),
    ],
)
def test_what_is_no_model_or_no_settings_is_refused(tmp_path, model, sampling, message):
    with pytest.raises(UserError, match=f"^{message}"):
        export_model(model, sampling, tmp_path / "x.onnx")


def refuse(*args, **options):
    """Stands for work that must not have begun."""
    raise AssertionError("the export has begun")


@pytest.mark.parametrize("format", ["onnx", "browser"])
@pytest.mark.parametrize(
    "name, message",
    [
        ("no/such/x.onnx", "must be in a folder that exists: make .*no/such"),
        ("file/x.onnx", "must be in a folder that exists"),
        ("folder", "must not exist yet"),
        ("link", "must not exist yet"),
        ("x" * 300, "must be writable: File name too long"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, name, message, format):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("dit_nb.interop.export._trace", refuse)
    monkeypatch.setattr("dit_nb.interop.export.save_file", refuse)
    with pytest.raises(UserError, match=f"^target is .*, but {message}.*[.]$"):
        export_model(random_model(input_size=8), SamplingConfig(), tmp_path / name, format)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_not_ones_own_is_refused_first(tmp_path, monkeypatch):
    def forbid(path, *args, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.mkdir", forbid)  # root may write everywhere
    monkeypatch.setattr("dit_nb.interop.export._trace", refuse)
    with pytest.raises(UserError, match="^target is .*x.onnx', but must be writable: Permission denied[.]$"):
        export_model(random_model(), SamplingConfig(), tmp_path / "x.onnx")


def test_nothing_is_left_of_an_export_that_fails(tmp_path, monkeypatch):
    def fail(*args):
        raise torch.onnx.OnnxExporterError("no such operator.\nMany lines.")

    pytest.importorskip("onnxscript")
    monkeypatch.setattr("dit_nb.interop.export._trace", fail)
    with pytest.raises(UserError, match="^model cannot be written as ONNX: no such operator[.]$"):
        export_model(random_model(), SamplingConfig(), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_onnx_writes_bfloat16_in_float32_and_leaves_the_model_as_it_is(tmp_path, monkeypatch):
    class Program:
        def save(self, path):
            path.touch()

    given = []
    monkeypatch.setattr(
        "dit_nb.interop.export._trace", lambda model, inputs: given.append(model) or Program()
    )
    model = random_model().bfloat16()
    _export_onnx(model, tmp_path / "x.onnx")
    assert model.pos_embed.dtype == torch.bfloat16 and given[0].pos_embed.dtype == torch.float32
    same = zip(given[0].state_dict().values(), model.state_dict().values())
    assert all(torch.equal(a, b.float()) for a, b in same)
    _export_onnx(model.half(), tmp_path / "y.onnx")
    assert given[1] is model


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_a_sentence(tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "onnxscript":
        pytest.importorskip("onnx")
    with pytest.raises(ImportError, match=f"^{package} is missing: pip install"):
        export_model(random_model(), SamplingConfig(), tmp_path / "x.onnx")
    assert main(["export", "nowhere", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == f"dit-nb: error: {package} is missing: pip install 'dit_nb[export]'\n"
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(UserError, match="target"):
        export_model(random_model(), SamplingConfig(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"
