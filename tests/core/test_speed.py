"""Faster inference gives the numbers of the plain model, and settings of the process are restored."""

import copy
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb import Diffusion, DiT, SamplingConfig
from dit_nb.blocks.adaln import AdaLNBlock
from dit_nb.data import digits
from dit_nb.guidance import Guided
from dit_nb.model import BLOCKS
from dit_nb.packed_linear import _can_pack, _PackedLinear
from dit_nb.pretrained import sample_images
from dit_nb.processors import Processor
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import (
    InferenceModel,
    _attention,
    _compile_for_training,
    _float32_matmul_precision,
    _SigmoidGELU,
    _tf32,
    fast_cpu,
)
from dit_nb.training import Trainer
from support import (
    error_cases,
    model_inputs,
    raises_input_error,
    randomize,
    relative,
    tiny_config,
    tiny_model,
)
from support_training import SHAPE, TRAIN

every_block = pytest.mark.parametrize("block", list(BLOCKS))
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def some_model(block="adaln_zero", seed=0, **changes):
    """A small model with no weight left at zero."""
    config = tiny_config(block, input_size=(4, 8), in_channels=2, hidden_size=32, **changes)
    return randomize(DiT(config), seed, scale=0.15).eval()


def sample(model, **options):
    """Eight guided images in ten steps."""
    shape, y = (8, 2, 4, 8), torch.arange(8) % 3
    options = {"generator": torch.Generator().manual_seed(5), "progress": False, **options}
    return ddpm_sample(Diffusion().respaced("10"), Guided(model, 3.0), shape, y, **options)


# The copy


@every_block
def test_a_float32_copy_shares_the_weights(block):
    model = some_model(block)
    fast = InferenceModel(model)
    weights = {name: id(p) for name, p in model.named_parameters()}
    assert {name: id(p) for name, p in fast.model.named_parameters()} == weights
    if fast.denoiser is not None:  # the modulations are not part of it
        assert {id(p) for p in fast.denoiser.parameters()} < set(weights.values())
    x, t, y = model_inputs(model)
    assert relative(fast(x, t, y), model(x, t, y)) < 1e-5
    with torch.no_grad():
        model.x_embedder.proj.weight.mul_(-2)
    assert relative(fast(x, t, y), model(x, t, y)) < 1e-5


@every_block
@pytest.mark.parametrize("num_classes", [0, 5])
def test_float32_copy_samples_as_the_model(block, num_classes):
    model = some_model(block, num_classes=num_classes)
    if num_classes:
        assert relative(sample(InferenceModel(model)), sample(model)) < 1e-5
    else:
        x, t, _ = model_inputs(model)
        assert relative(InferenceModel(model)(x, t), model(x, t)) < 1e-5


def test_a_copy_of_a_model_in_train_mode_drops_no_labels():
    model = some_model(class_dropout_prob=0.9).train()
    fast, (x, t, y) = InferenceModel(model), model_inputs(model, 20)
    assert model.training and not fast.training
    assert relative(fast(x, t, y), copy.deepcopy(model).eval()(x, t, y)) < 1e-5


def test_a_copy_computes_no_gradients():
    model = some_model()
    assert not InferenceModel(model)(*model_inputs(model)).requires_grad


@every_block
def test_bfloat16_copy_is_within_two_percent(block):
    model = some_model(block)
    before = copy.deepcopy(model.state_dict())
    fast = InferenceModel(model, "bf16")
    (x, t, y), exact, near = model_inputs(model), sample(model), sample(fast)
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert (near - exact).norm() / exact.norm() < 0.02
    assert (fast(x, t, y) - model(x, t, y)).norm() / model(x, t, y).norm() < 0.02
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # the model is left alone
    assert fast.model.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


packs = pytest.mark.skipif(not _can_pack(torch.device("cpu")), reason="this processor does not pack weights")


@packs
@every_block
def test_packed_weights_give_the_products_of_bfloat16(block, monkeypatch):
    model = some_model(block)
    fast, (x, t, y) = InferenceModel(model, "bf16"), model_inputs(model)
    assert (
        type(fast.model.blocks[0].mlp.fc1) is _PackedLinear and fast.model.blocks[0].mlp.fc1.weight.is_mkldnn
    )
    monkeypatch.setattr("dit_nb.speed._can_pack", lambda device: False)
    plain = InferenceModel(model, "bf16")
    assert type(plain.model.blocks[0].mlp.fc1) is nn.Linear
    exact = model(x, t, y)
    assert (fast(x, t, y) - plain(x, t, y)).norm() / exact.norm() < 0.01
    assert (sample(fast) - sample(model)).norm() / sample(model).norm() < 0.02
    if fast.denoiser is not None:  # both share what is packed
        assert fast.denoiser.blocks[1].mlp.fc2.weight is fast.model.blocks[1].mlp.fc2.weight


def test_sample_images_takes_a_copy():
    model, y = some_model(), torch.arange(6) % 3
    sampling = replace(SamplingConfig(), clip_x0=False, steps="10", cfg_scale=2.0)
    exact, same, near = (
        sample_images(m, sampling, y, seed=1, progress=False)
        for m in (model, InferenceModel(model), InferenceModel(model, "bf16"))
    )
    assert relative(same, exact) < 1e-5
    assert 1e-4 < (near - exact).norm() / exact.norm() < 0.02


# The table of modulations


@every_block
@pytest.mark.parametrize("num_classes", [0, 5])
@torch.no_grad()
def test_the_table_gives_what_the_model_gives(block, num_classes):
    model = tiny_model(block, num_classes=num_classes)
    x, t, y = model_inputs(model)
    labels = None if y is None else torch.tensor([4, 0, 2, 1, 0])
    fast = InferenceModel(model)
    tabulated = fast.precompute_conditioning(torch.tensor([970, 187, 7, 97]), labels)
    assert (tabulated is fast) == (block in ("in_context", "cross_attention"))
    assert relative(tabulated(x, t, y), model(x, t, y)) < 1e-5
    t, y = t[[2, 2, 0]], None if y is None else torch.tensor([4, 0, 1])
    assert relative(tabulated(x, t, y), model(x, t, y)) < 1e-5


@torch.no_grad()
def test_the_table_of_float_timesteps():
    model = tiny_model()
    x, t, y = model_inputs(model)
    times = t + torch.tensor([0.25, 0.5, 0.75])
    assert (
        relative(InferenceModel(model).precompute_conditioning(times, y)(x, times, y), model(x, times, y))
        < 1e-5
    )


def count_rows(model, steps, n, k, scale=1.0):
    """Rows that pass the embedders of t, y and x in one sampling run of n images with k labels."""
    fast, rows = InferenceModel(model), {"t_embedder": 0, "y_embedder": 0, "x_embedder": 0}
    for name in rows:
        for network in (fast.model, fast.denoiser):

            def count(module, inputs, out, name=name):
                rows[name] += len(out)

            getattr(network, name).register_forward_hook(count)
    guided = fast if scale == 1 else Guided(fast, scale)
    y = torch.arange(n) % k
    ddpm_sample(Diffusion().respaced(str(steps)), guided, (n, 2, 4, 8), y, progress=False)
    return tuple(rows.values())


def test_conditioning_costs_the_same_for_any_number_of_images():
    model = some_model()
    assert count_rows(model, 4, 6, 2) == (8, 8, 24)  # 4 timesteps of 2 labels
    assert count_rows(model, 4, 60, 2) == (8, 8, 240)
    assert count_rows(model, 4, 6, 3) == (12, 12, 24)
    assert count_rows(model, 4, 6, 3, scale=1.5) == (16, 16, 48)  # and the null class
    assert count_rows(model, 12, 6, 3, scale=1.5) == (48, 48, 144)


def test_a_table_that_would_be_too_large_is_not_made(monkeypatch):
    fast = InferenceModel(tiny_model())
    x, t, y = model_inputs(fast.model)
    assert fast.precompute_conditioning(torch.arange(10**6), y) is fast
    numbers = 3 * 3 * (2 * 6 + 2) * 16  # timesteps, labels, vectors of two blocks and the final layer, width
    for limit, small in ((numbers - 1, False), (numbers, True)):
        monkeypatch.setattr("dit_nb.speed._TABLE_LIMIT", limit)
        assert (fast.precompute_conditioning(t, y) is not fast) == small


def test_a_block_that_uses_the_condition_elsewhere_has_no_table():
    class Own(AdaLNBlock):
        final_layer = "adaptive"

        def forward(self, x, c):
            return super().forward(x, c) + c[:, None]

    model = tiny_model("adaln")
    model.blocks[1] = randomize(Own(16, 2), scale=0.3)
    fast, (x, t, y) = InferenceModel(model), model_inputs(model)
    assert fast.precompute_conditioning(t, y) is fast
    assert relative(fast(x, t, y), model(x, t, y)) < 1e-5


@pytest.mark.parametrize("y", [torch.randn(3, 4), torch.tensor([[1, 2], [2, 1], [1, 1]])])
def test_other_conditions_than_labels_have_no_table(y):
    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(y.shape[1], 16)

        def forward(self, y, drop=None):
            return self.linear(y.float())

    torch.manual_seed(0)
    model = randomize(DiT(tiny_config(num_classes=0), y_embedder=Embedder()), scale=0.3).eval()
    fast, (x, t, _) = InferenceModel(model), model_inputs(model)
    run = fast.precompute_conditioning(t, y)
    assert run is fast and relative(run(x, t, y), model(x, t, y)) < 1e-5


X, T, Y = torch.zeros(3, 3, 4, 6), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])


def fast_model():
    return InferenceModel(tiny_model())


@error_cases(
    (lambda: InferenceModel(tiny_model(), "fp16"), "precision.*'fp16'.*fp32, bf16"),
    (lambda: fast_model()(X, T), "y.*missing"),
    (lambda: fast_model()(X[:, :2], T, Y), r"x.*\(3, 2, 4, 6\).*\(N, 3, 4, 6\)"),
    (lambda: fast_model()(X, T, Y + 2), r"y.*6.*\[0, 5\]"),
    (lambda: fast_model().precompute_conditioning(T, Y)(X, T + 5, Y), "t.*precompute_conditioning"),
    (lambda: fast_model().precompute_conditioning(T, Y)(X, T, Y + 1), "y.*precompute_conditioning"),
    (lambda: fast_model().precompute_conditioning(T, Y)(X, T + 0.5, Y), "t.*precompute_conditioning"),
    (lambda: fast_model().precompute_conditioning(T, Y)(X[:2], T, Y), r"t.*\(3,\).*\(2,\)"),
    (lambda: fast_model().precompute_conditioning(T, Y)(X, T, None), "y.*missing"),
)
def test_invalid_calls(call, pattern):
    with raises_input_error(pattern):
        call()


# Settings of the process


def settings():
    cuda = torch.backends.cuda
    backends = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled())
    return torch.get_float32_matmul_precision(), *backends, cuda.fp16_bf16_reduction_math_sdp_allowed()


AMD, AMX = Processor("AMD", avx512=True, bf16=True), Processor("Intel", avx512=True, bf16=True, amx=True)


@pytest.mark.parametrize(
    "processor, exact, inside",
    [
        (AMD, True, ("medium", False, False, True, True)),
        (AMD, False, ("highest", False, False, True, True)),  # the guard: medium rounds here
        (AMX, True, ("highest", True, True, True, False)),
        (Processor(), True, ("highest", True, True, True, False)),
    ],
)
def test_fast_cpu_follows_the_policy_and_restores_the_settings(processor, exact, inside, monkeypatch):
    monkeypatch.setattr("dit_nb.speed.this_processor", lambda: processor)
    monkeypatch.setattr("dit_nb.speed._medium_is_exact", lambda: exact)
    before = settings()
    assert before == ("highest", True, True, True, False)
    changed = before if torch.cuda.is_available() else inside
    with fast_cpu():
        assert settings() == changed
        with fast_cpu():
            assert settings() == changed
        assert settings() == changed
    assert settings() == before
    with pytest.raises(KeyError), fast_cpu():
        raise KeyError
    assert settings() == before

    @fast_cpu()
    def decorated():
        return settings()

    assert decorated() == changed and decorated() == changed and settings() == before


@torch.no_grad()
def test_fast_cpu_changes_results_by_rounding_only():
    model = some_model()
    x, t, y = model_inputs(model)
    want = model(x, t, y)
    with fast_cpu():
        assert relative(model(x, t, y), want) < 1e-4


@pytest.mark.parametrize("dtype, off", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("kernel", ["fused", "math"])
def test_both_kernels_of_attention_agree_with_the_formula(kernel, dtype, off):
    """Outputs and gradients; the math kernel, too, multiplies bfloat16 numbers as such."""
    g = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 3, 20, 16, generator=g).to(dtype).double().requires_grad_() for _ in range(3)]
    near = [z.detach().to(dtype).requires_grad_() for z in exact]
    q, k, v = exact
    want = (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v
    with _attention(kernel):
        got = F.scaled_dot_product_attention(*near)
        (got * torch.linspace(0, 1, 16)).sum().backward()
    (want * torch.linspace(0, 1, 16)).sum().backward()
    assert got.dtype == dtype and (got - want).norm() / want.norm() < off
    for a, b in zip(near, exact):
        assert (a.grad - b.grad).norm() / b.grad.norm() < 2 * off


def test_training_and_sampling_in_bfloat16_follow_float32_inside_fast_cpu(monkeypatch):
    monkeypatch.setattr("dit_nb.speed.this_processor", lambda: AMD)
    model = some_model()
    (x, t, y), exact = model_inputs(model), sample(model)
    with fast_cpu():
        near = sample(InferenceModel(model, "bf16"))
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x, t, y) - 1).square().mean()
    assert (near - exact).norm() / exact.norm() < 0.01
    assert relative(loss, (model(x, t, y) - 1).square().mean()) < 0.01


@pytest.mark.parametrize("precision, formula", [("bf16", True), ("fp32", False)])
def test_a_trainer_is_given_the_kernel_with_the_faster_backward_pass(precision, formula, monkeypatch):
    "In bfloat16 on a processor with AMX; the losses stay; and by itself a Trainer changes no setting, not even inside."
    if torch.cuda.is_available():
        pytest.skip("a GPU trains here")
    monkeypatch.setattr("dit_nb.speed.this_processor", lambda: AMX)
    monkeypatch.setattr("dit_nb.processors.this_processor", lambda: AMX)
    seen, before = [], settings()

    def first_losses(precision, fast):
        model = randomize(DiT(SHAPE), 0, scale=0.15)
        model.blocks[0].register_forward_hook(lambda *_: seen.append(settings()))
        config = replace(TRAIN, precision=precision, save_every=None)
        trainer = Trainer(model, Diffusion(bins=17), digits().train, config)
        with fast_cpu(trainer) if fast else nullcontext():
            return trainer.step(next(trainer.batches()))

    losses, plain = first_losses(precision, True), first_losses("fp32", False)
    first_losses("bf16", False)
    changed = (before[0], False, False, True, True) if formula else before
    assert seen == [changed, before, before] and settings() == before
    for name, value in losses.items():
        assert relative(value, plain[name]) < 0.01


def test_memory_is_kept_until_the_outermost_block_ends(monkeypatch):
    calls = []
    libc = type("libc", (), {"mallopt": lambda self, *args: calls.append(args)})
    monkeypatch.setattr("dit_nb.speed.ctypes.CDLL", lambda _: libc())
    monkeypatch.setattr("dit_nb.speed.platform.system", lambda: "Linux")
    with fast_cpu():
        with fast_cpu():
            pass
        assert (-4, 65536) not in calls and calls.count((-4, 0)) == 2
    assert calls[-2:] == [(-4, 65536), (-1, 128 * 1024)]
    with raises_input_error("trainer is 'bf16'"), fast_cpu("bf16"):
        pass


def test_fast_cpu_keeps_the_precision_of_the_user_where_the_policy_has_no_other(monkeypatch):
    monkeypatch.setattr("dit_nb.speed.this_processor", lambda: AMX)
    with _float32_matmul_precision("high"), fast_cpu():
        assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize(
    "allowed, gpu, inside", [(True, True, "high"), (True, False, "highest"), (False, True, "highest")]
)
def test_tf32_is_for_gpus_and_if_allowed(allowed, gpu, inside, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with _tf32(allowed):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"


def test_matmul_precision_is_restored():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), _float32_matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


# Compilation


def test_sigmoid_gelu_is_the_tanh_formula():
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64, requires_grad=True)
    got, want = _SigmoidGELU()(z), F.gelu(z, approximate="tanh")
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    gradients = (torch.autograd.grad(f.sum(), z)[0] for f in (got, want))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("precision, off", [("fp32", 1e-5), ("bf16", 2e-2)])
def test_compiled_copies_keep_their_own_weights(precision, off):
    """Weights become constants of the compiled code: those of one model must not turn up in another's images."""
    from torch._inductor import config

    models = [some_model(seed=0), some_model(seed=1)]
    exact = [sample(model) for model in models]
    assert (exact[0] - exact[1]).norm() / exact[0].norm() > 0.1
    fast = [InferenceModel(model, precision, compiled=True) for model in models]
    for i in (0, 1, 0):
        samples = sample(fast[i])
        assert 0 < (samples - exact[i]).norm() / exact[i].norm() < off
    assert not config.freezing
    assert torch.equal(sample(models[1]), exact[1])  # a copy was compiled, not the model


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
@every_block
def test_a_training_step_compiles_to_one_graph(block, bf16):
    model, graphs = some_model(block).train(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x, t, y = model_inputs(model)
    drop = torch.tensor([True, False, False])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out, plain = compiled(x, t, y, drop), model(x, t, y, drop)
    assert len(graphs) == 1
    torch.testing.assert_close(out, plain, rtol=2e-2 if bf16 else 1e-4, atol=2e-2 if bf16 else 1e-5)


@pytest.mark.slow
@needs_compiler
def test_compiling_for_training_changes_no_loss_and_no_gradient():
    model = some_model().train()
    (x, t, y), drop, found = model_inputs(model), torch.tensor([True, False, False]), []
    torch._dynamo.reset()
    for network in (copy.deepcopy(model), _compile_for_training(model)):
        out = network(x, t, y, drop)
        out.square().mean().backward()
        weights = network if network is not model and isinstance(network, DiT) else model
        found.append((out, {k: p.grad for k, p in weights.named_parameters() if p.requires_grad}))
    (want, want_grads), (out, grads) = found
    assert relative(out, want) < 1e-5 and settings()[1:] == (True, True, True, False)
    for name, gradient in want_grads.items():
        assert relative(grads[name], gradient) < 1e-3, name


@pytest.mark.cuda
@every_block
def test_bfloat16_copy_on_cuda(block):
    model = some_model(block).cuda()
    g = torch.Generator().manual_seed(5)
    x_T = torch.randn(8, 2, 4, 8, generator=g).cuda()
    exact, near = (
        sample(m, x_T=x_T, step_noise=torch.randn(10, 8, 2, 4, 8, generator=torch.Generator().manual_seed(1)))
        for m in (model, InferenceModel(model, "bf16"))
    )
    assert (near - exact).norm() / exact.norm() < 0.02
