"""Faster inference gives the numbers of the plain model, and switches are restored."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.attention import _gelu
from dit_nb.guidance import Guided
from dit_nb.model import BLOCKS
from dit_nb.pretrained import SAMPLING, sample_images
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, float32_matmul_precision


def some_model(block="adaln_zero", **changes):
    """A small model with no weight left at zero."""
    torch.manual_seed(0)
    shape = dict(input_size=(4, 8), patch_size=2, in_channels=2, hidden_size=32, depth=2, num_heads=4)
    model = DiT(DiTConfig(**{**shape, "num_classes": 3, "block": block, **changes})).eval()
    for p in model.parameters():
        if p.requires_grad and p.abs().max() == 0:
            nn.init.normal_(p, std=0.05)
    return model


def sample(model, **options):
    """Eight guided images in ten steps."""
    g = torch.Generator().manual_seed(5)
    y = torch.arange(8) % 3
    return ddpm_sample(
        Diffusion().respaced("10"),
        Guided(model, 3.0),
        (8, 2, 4, 8),
        y,
        generator=g,
        progress=False,
        **options,
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_float32_copy_equals_the_model(block):
    model = some_model(block)
    assert torch.equal(sample(InferenceModel(model, "fp32")), sample(model))


@pytest.mark.parametrize("block", BLOCKS)
def test_bfloat16_copy_is_within_one_percent(block):
    model = some_model(block)
    before = copy.deepcopy(model.state_dict())
    exact, near = sample(model), sample(InferenceModel(model))
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert (near - exact).norm() / exact.norm() < 0.01
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # the model is left alone


def test_copy_of_a_model_without_classes():
    model = some_model(num_classes=0)
    x, t = torch.randn(3, 2, 4, 8), torch.tensor([0, 500, 999])
    assert torch.equal(InferenceModel(model, "fp32")(x, t), model(x, t))
    assert torch.equal(
        InferenceModel(model, "fp32").precompute_conditioning(t)(x, t), model.precompute_conditioning(t)(x, t)
    )


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("precision, off", [("fp32", 1e-5), ("bf16", 1e-2)])
def test_compiled_copies_keep_their_own_weights(precision, off):
    """Weights become constants of the compiled code: those of one model must not turn up in another's pictures."""
    from torch._inductor import config

    models = [some_model(), some_model()]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(1 + 0.3 * torch.randn_like(p))
    exact = [sample(model) for model in models]
    assert (exact[0] - exact[1]).norm() / exact[0].norm() > 0.1
    fast = [InferenceModel(model, precision, compiled=True) for model in models]
    for i in (0, 1, 0):
        samples = sample(fast[i])
        assert 0 < (samples - exact[i]).norm() / exact[i].norm() < off
    for p in models[0].parameters():
        p.data.zero_()  # a copy was frozen, not the model
    assert torch.equal(sample(fast[0]), samples) and not config.freezing
    assert torch.equal(sample(models[1]), exact[1])


def test_samples_in_bfloat16():
    model = some_model()
    sampling, y = {**SAMPLING, "clip_x0": False}, torch.arange(6) % 3
    exact, near = (
        sample_images(model, sampling, y, 6, 1, cfg_scale=2.0, steps="10", precision=p, progress=False)
        for p in ("fp32", "bf16")
    )
    assert 0 < (near - exact).norm() / exact.norm() < 0.01
    with pytest.raises(ValueError, match="precision is 'fp16', but must be one of fp32, bf16"):
        sample_images(model, sampling, y, 6, precision="fp16", progress=False)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_training_step_compiles_to_one_graph(block, bf16):
    model, graphs = some_model(block).train(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x, t, y = torch.randn(3, 2, 4, 8), torch.tensor([0, 5, 999]), torch.tensor([0, 1, 2])
    drop = torch.tensor([True, False, False])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out, plain = compiled(x, t, y, drop), model(x, t, y, drop)
    assert len(graphs) == 1
    torch.testing.assert_close(out, plain, rtol=2e-2 if bf16 else 1e-4, atol=2e-2 if bf16 else 1e-5)


def test_compiled_gelu_is_the_tanh_formula():
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64, requires_grad=True)
    torch._dynamo.reset()
    fast = torch.compile(_gelu, backend="eager")(z)
    wanted = F.gelu(z, approximate="tanh")
    torch.testing.assert_close(fast, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        *(torch.autograd.grad(f.sum(), z)[0] for f in (fast, wanted)), rtol=1e-7, atol=1e-9
    )
    assert torch.equal(_gelu(z), wanted)


def test_conditioning_costs_the_same_for_any_number_of_images():
    model, rows = some_model(), {}
    for name in ("t_embedder", "y_embedder", "x_embedder"):
        part = getattr(model, name)
        part.register_forward_hook(
            lambda m, a, out, name=name: rows.update({name: rows.get(name, 0) + len(out)})
        )

    def count(n, steps, scale, k):
        rows.clear()
        guided = Guided(model, scale) if scale != 1 else model
        ddpm_sample(
            Diffusion().respaced(str(steps)), guided, (n, 2, 4, 8), torch.arange(n) % k, progress=False
        )
        return rows["t_embedder"], rows["y_embedder"], rows["x_embedder"]

    assert count(6, 4, 1, 2) == (8, 8, 24)
    assert count(60, 4, 1, 2) == (8, 8, 240)
    assert count(6, 4, 1, 3) == (12, 12, 24)
    assert count(6, 4, 1.5, 3) == (16, 16, 48)
    assert count(6, 12, 1.5, 3) == (48, 48, 144)


@pytest.mark.parametrize("pays", [False, True])
def test_matmul_precision_is_restored(pays, monkeypatch):
    monkeypatch.setattr("dit_nb.speed._prefer_onednn_float32", lambda: pays)
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), float32_matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise KeyError
    with fast_float32_matmul("cuda"):
        assert torch.get_float32_matmul_precision() == before, "on a GPU it would round to TF32"
    with fast_float32_matmul():
        assert torch.get_float32_matmul_precision() == ("medium" if pays else before)
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("block", BLOCKS)
def test_bfloat16_copy_on_cuda(block):
    model = some_model(block).cuda()
    g = torch.Generator().manual_seed(5)
    x_T = torch.randn(8, 2, 4, 8, generator=g).cuda()
    exact, near = (
        sample(m, x_T=x_T, step_noise=torch.randn(10, 8, 2, 4, 8, generator=torch.Generator().manual_seed(1)))
        for m in (model, InferenceModel(model))
    )
    assert (near - exact).norm() / exact.norm() < 0.01
