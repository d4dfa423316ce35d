"""The fast ways give the numbers of the plain ones, and do the work that they claim to do, no more."""

import copy
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.attention import gelu
from dit_nb.cli import main
from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.guidance import Guided
from dit_nb.lab.benchmark import (
    ARMS,
    SUBJECTS,
    load_results,
    plot_bench,
    plot_growth,
    race,
    results_table,
    work,
)
from dit_nb.lab.profiling import matmul_rate, where_time_goes
from dit_nb.model import BLOCKS
from dit_nb.pretrained import SAMPLING, sample_images
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, float32_matmul_precision
from dit_nb.training import TrainConfig, Trainer


def some_model(block="adaln_zero", **changes):
    """A small model with no weight left at zero."""
    torch.manual_seed(0)
    shape = dict(input_size=(4, 8), patch_size=2, in_channels=2, hidden_size=32, depth=2, num_heads=4)
    model = DiT(DiTConfig(**{**shape, "num_classes": 3, "block": block, **changes})).eval()
    for p in model.parameters():
        if p.requires_grad and p.abs().max() == 0:
            nn.init.normal_(p, std=0.05)
    return model


def draw(model, **options):
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
def test_lean_float32_is_the_model(block):
    model = some_model(block)
    assert torch.equal(draw(InferenceModel(model, "fp32")), draw(model))


@pytest.mark.parametrize("block", BLOCKS)
def test_lean_bfloat16_is_within_a_hundredth(block):
    model = some_model(block)
    before = copy.deepcopy(model.state_dict())
    exact, near = draw(model), draw(InferenceModel(model))
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert (near - exact).norm() / exact.norm() < 0.01
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # the model is left alone


def test_lean_without_classes():
    model = some_model(num_classes=0)
    x, t = torch.randn(3, 2, 4, 8), torch.tensor([0, 500, 999])
    assert torch.equal(InferenceModel(model, "fp32")(x, t), model(x, t))
    assert torch.equal(InferenceModel(model, "fp32").prepare(t)(x, t), model.prepare(t)(x, t))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("precision, off", [("fp32", 1e-5), ("bf16", 1e-2)])
def test_compiled_lean_holds_each_models_own_weights(precision, off):
    """Weights become constants of the compiled code: those of one model must not turn up in another's pictures."""
    from torch._inductor import config

    models = [some_model(), some_model()]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(1 + 0.3 * torch.randn_like(p))
    exact = [draw(model) for model in models]
    assert (exact[0] - exact[1]).norm() / exact[0].norm() > 0.1
    lean = [InferenceModel(model, precision, compiled=True) for model in models]
    for i in (0, 1, 0):
        drawn = draw(lean[i])
        assert 0 < (drawn - exact[i]).norm() / exact[i].norm() < off
    for p in models[0].parameters():
        p.data.zero_()  # a copy was frozen, not the model
    assert torch.equal(draw(lean[0]), drawn) and not config.freezing
    assert torch.equal(draw(models[1]), exact[1])


def test_samples_in_bfloat16():
    model = some_model()
    process, y = {**SAMPLING, "clip_x0": False}, torch.arange(6) % 3
    exact, near = (
        sample_images(model, process, y, 6, 1, cfg_scale=2.0, steps="10", precision=p, progress=False)
        for p in ("fp32", "bf16")
    )
    assert 0 < (near - exact).norm() / exact.norm() < 0.01
    with pytest.raises(ValueError, match="precision is 'fp16', but must be one of fp32, bf16"):
        sample_images(model, process, y, 6, precision="fp16", progress=False)


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
    fast = torch.compile(gelu, backend="eager")(z)
    wanted = F.gelu(z, approximate="tanh")
    torch.testing.assert_close(fast, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        *(torch.autograd.grad(f.sum(), z)[0] for f in (fast, wanted)), rtol=1e-7, atol=1e-9
    )
    assert torch.equal(gelu(z), wanted)


@pytest.mark.parametrize("variance", ["learned", "fixed_small", "fixed_large"])
def test_the_short_bound_is_the_long_one(variance):
    process = Diffusion(variance=variance, bins=17).respaced("50")
    process.bins = 17
    g = torch.Generator().manual_seed(3)
    t = torch.tensor([0, 0, 1, 7, 48, 49])
    x0 = torch.randint(17, (6, 2, 3, 4), generator=g).double() / 8 - 1
    noise, out = (torch.randn(6, c, 3, 4, generator=g, dtype=torch.float64) for c in (2, 4))
    out[:, :2] = noise + 0.3 * out[:, :2]
    values = out[:, 2:].requires_grad_()
    output = torch.cat([out[:, :2], values], 1) if variance == "learned" else out[:, :2]
    x_t = process.q_sample(x0, t, noise)
    long = process.vb_terms(process.predict(output, x_t, t), x0, x_t, t)
    short = process.vb_from_eps(out[:, :2] - noise, values if variance == "learned" else None, x0, t)
    torch.testing.assert_close(short, long, rtol=1e-9, atol=1e-12)
    if variance == "learned":
        a, b = (torch.autograd.grad(v.sum(), values)[0] for v in (long, short))
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-12)
        assert b.abs().min() > 0


def test_the_short_bound_has_finite_gradients_whatever_the_model_says():
    process, t = Diffusion(), torch.tensor([0, 1, 999])
    values = torch.tensor([-40.0, 40.0, 300.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone().requires_grad_()
    error = torch.full((3, 1, 2, 2), 50.0)
    process.vb_from_eps(error, values, torch.zeros(3, 1, 2, 2), t).sum().backward()
    assert torch.isfinite(values.grad).all()


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
def test_a_road_is_left_as_it_was_found(pays, monkeypatch):
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


def test_luck_drawn_ahead_changes_nothing():
    losses = []
    for ahead in (False, True):
        torch.manual_seed(0)
        config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=10)
        settings = TrainConfig(steps=4, batch_size=8, precision="fp32")
        run = Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)
        batches = run.batches()
        for step in range(4):
            losses.append(run.train_step(*next(batches))["loss"])
            run.progress.step += 1
            run.ahead = (step + 1, run.luck(step + 1, (1, 8, 8))) if ahead else None
    assert losses[:4] == losses[4:]


def test_profile_sorts_by_kind():
    a, b = torch.randn(400, 400), torch.randn(400, 400)
    spent = where_time_goes(lambda: [a @ b for _ in range(5)])
    assert spent["matrix products"] > 0.5 * sum(spent.values())
    assert where_time_goes(lambda: F.gelu(a))["GELU"] > 0
    assert matmul_rate(size=128) > 0.01


def test_work_is_counted_by_the_papers_convention():
    config, n = SUBJECTS["XL/2"][0], 256
    assert work(config, n, "train") == 6 * cost(config).total_macs * 256
    assert abs(work(config, n, "train") / 182.2e12 - 1) < 0.001


def test_a_race(tmp_path, capsys):
    rows = race("digits/2", "sample", ("peer fp32", "ours bf16"), 2, 0.01, batch=2, progress=False)
    for r in rows:
        assert len(r["ms_rounds"]) == len(r["ratio_rounds"]) == 2 and r["ratio_to"] == "peer fp32"
        assert abs(r["gflops"] * r["ms"] * 1e6 / work(SUBJECTS["digits/2"][0], 2, "sample") - 1) < 1e-9
        assert 0.05 < r["peak_gb"] < 24
    ratios = [a / b for a, b in zip(rows[0]["ms_rounds"], rows[1]["ms_rounds"])]
    assert rows[1]["ratio_rounds"] == pytest.approx(ratios) and rows[0]["ratio"] == 1
    assert "ours bf16" in results_table(rows)
    out = tmp_path / "rows.json"
    assert main(["bench", "--peer", "none", "--rounds", "1", "--batch", "2", "--json", str(out)]) == 0
    assert [r["arm"] for r in json.loads(out.read_text())] == ["ours fp32", "ours bf16"]
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--config", "M/2"], "config is 'M/2', but must be one of digits/1"),
        (["--rounds", "0"], "rounds is 0 and batch None, but both must be 1 or more"),
        (["--device", "cuda"], "device is 'cuda', but there is no CUDA device here"),
    ],
)
def test_bad_input_of_bench(words, sentence, capsys):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert main(["bench", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_contestant_that_fails_says_why():
    with pytest.raises(ValueError, match="arm is 'ours fp8', but must be one of"):
        race("digits/2", arms=("ours fp8",))
    with pytest.raises(ValueError, match="batch_size is -3, but must be a whole number above 0"):
        race("digits/2", arms=("ours fp32",), batch=-3, progress=False)


@pytest.mark.parametrize("name", ["bench", "bench_h200"])
def test_recorded_races_are_whole_and_consistent(name):
    rows = load_results(name)
    for r in rows:
        assert r["arm"] in ARMS and r["config"] in SUBJECTS and r["device"] and r["date"]
        key = ("config", "job", "ratio_to")
        same = [s for s in rows if all(s[k] == r[k] for k in key)]
        base = next(s for s in same if s["arm"] == r["ratio_to"])
        wanted = [b / own for b, own in zip(base["ms_rounds"], r["ms_rounds"])]
        assert r["ratio_rounds"] == pytest.approx(wanted, rel=1e-6)
        config = SUBJECTS[r["config"]][0]
        assert r["gflops"] == pytest.approx(work(config, r["batch"], r["job"]) / r["ms"] / 1e6, rel=1e-6)
        assert r["utilisation"] == pytest.approx(r["gflops"] / r["matmul_gflops"], rel=1e-6)
    assert plot_bench(rows).words and plot_growth(load_results("growth")).words


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("block", BLOCKS)
def test_lean_on_cuda(block):
    model = some_model(block).cuda()
    g = torch.Generator().manual_seed(5)
    x_T = torch.randn(8, 2, 4, 8, generator=g).cuda()
    exact, near = (
        draw(m, x_T=x_T, step_noise=torch.randn(10, 8, 2, 4, 8, generator=torch.Generator().manual_seed(1)))
        for m in (model, InferenceModel(model))
    )
    assert (near - exact).norm() / exact.norm() < 0.01


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_race_on_cuda():
    rows = race("S/2", "train", ("ours bf16",), 1, 0.5, device="cuda", batch=8, progress=False)
    assert 0 < rows[0]["utilisation"] < 1
