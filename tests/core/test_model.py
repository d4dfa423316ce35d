"""The network: its start, what its output depends on, calls, gradients, precision and devices, for all four blocks."""

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.model import BLOCKS
from support import (
    CASES,
    DEVICES,
    Golden,
    error_cases,
    model_inputs,
    raises_input_error,
    randomize,
    relative,
    tiny_config,
    tiny_model,
)

every_block = pytest.mark.parametrize("block", list(BLOCKS))


# The official numbers


def test_forward_is_the_recorded_one(golden):
    assert relative(golden.model.pos_embed, golden.pos_embed) < 1e-5
    assert relative(golden.model(golden.xt, golden.t, golden.y), golden.forward) < 1e-5
    null = torch.full_like(golden.y, golden.model.null_class)
    assert relative(golden.model(golden.xt, golden.t, null), golden.forward_null) < 1e-5


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_forward_on_cuda_is_the_recorded_one(name):
    case = Golden(name, "cuda")
    assert relative(case.model(case.xt, case.t, case.y), case.forward) < 1e-4


# The start


@every_block
def test_a_new_model_returns_zero_and_only_adaln_zero_blocks_are_the_identity(block):
    model = DiT(tiny_config(block)).eval()
    x, t, y = model_inputs(model)
    assert torch.equal(model(x, t, y), torch.zeros(3, 6, 4, 6))
    tokens = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))
    for part, cond in zip(model.blocks, model.condition(t, y)):
        assert torch.equal(part(tokens, cond), tokens) == (block == "adaln_zero")


# What the output depends on


@every_block
@torch.no_grad()
def test_blocks_depend_on_t_and_on_y(block):
    model = tiny_model(block)
    x, t, y = model_inputs(model)
    tokens = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))

    def run(t, y):
        """Each block by itself, on the same tokens."""
        conds = model.condition(t, y)
        if block == "in_context":
            return [part(torch.cat([tokens, c], 1), c)[:, :6] for part, c in zip(model.blocks, conds)]
        return [part(tokens, c) for part, c in zip(model.blocks, conds)]

    for other in (run(t + 100, y), run(t, (y + 1) % 5), run(t, torch.full_like(y, model.null_class))):
        for before, after in zip(run(t, y), other):
            assert ((before - after).abs().amax((1, 2)) > 1e-3).all()


# N equal to tokens, to rows, to width, to the two condition tokens, to the 4 and 6 modulation fields
CONFUSING = [(6, (4, 6)), (2, (4, 6)), (3, (4, 6)), (4, (8, 2)), (16, (2, 4)), (4, (4, 4)), (1, (6, 4))]


@every_block
@pytest.mark.parametrize("n,size", CONFUSING)
@torch.no_grad()
def test_images_of_a_batch_do_not_mix(block, n, size):
    model = tiny_model(block, input_size=size)
    x, t, y = model_inputs(model, n)
    out = model(x, t, y)
    assert out.shape == (n, 6, *size)
    for i in range(n):
        alone = model(x[i : i + 1], t[i : i + 1], y[i : i + 1])
        assert relative(out[i : i + 1], alone) < 1e-5
    i = n - 1
    for changed in ("x", "t", "y"):
        other = {"x": x.clone(), "t": t.clone(), "y": y.clone()}
        other[changed][i] += 1
        if changed == "y":
            other["y"][i] %= 5
        moved = (model(**other) - out).abs().amax((1, 2, 3))
        assert moved[i] > 1e-4, changed
        assert (moved[:i] < 1e-5).all(), changed


@every_block
@pytest.mark.parametrize("size", [(4, 6), (6, 2), (4, 4)])
@torch.no_grad()
def test_without_positions_a_model_moves_with_its_patches(block, size):
    model = tiny_model(block, input_size=size)
    model.pos_embed.zero_()
    x, t, y = model_inputs(model)
    order = torch.randperm(x[0, 0].numel() // 4, generator=torch.Generator().manual_seed(2))

    def shuffle(images):
        """Move whole patches, by slices."""
        height, width = size
        corners = [(i, j) for i in range(0, height, 2) for j in range(0, width, 2)]
        out = torch.empty_like(images)
        for (i, j), k in zip(corners, order.tolist()):
            u, v = corners[k]
            out[..., i : i + 2, j : j + 2] = images[..., u : u + 2, v : v + 2]
        return out

    assert relative(model(shuffle(x), t, y), shuffle(model(x, t, y))) < 1e-5


@every_block
@torch.no_grad()
def test_with_positions_a_model_does_not_move_with_its_patches(block):
    model = tiny_model(block)
    x, t, y = model_inputs(model)
    assert relative(model(x.roll(2, -1), t, y), model(x, t, y).roll(2, -1)) > 1e-2


@every_block
@torch.no_grad()
def test_a_model_without_classes_still_depends_on_t(block):
    model = tiny_model(block, num_classes=0)
    x, t, _ = model_inputs(model)
    assert model.null_class is None
    assert relative(model(x, t + 50), model(x, t)) > 1e-3


@every_block
def test_dropped_labels_are_the_null_class(block):
    model = tiny_model(block).train()
    x, t, y = model_inputs(model)
    dropped = model(x, t, y, drop=torch.tensor([True, False, True]))
    model.eval()
    assert model.null_class == 5
    assert relative(dropped, model(x, t, torch.tensor([5, 1, 5]))) < 1e-6


# All code paths agree


@every_block
@pytest.mark.parametrize("num_classes", [0, 5])
@torch.no_grad()
def test_precomputed_conditioning_gives_the_same(block, num_classes):
    model = tiny_model(block, num_classes=num_classes)
    x, t, y = model_inputs(model)
    want = model(x, t, y)
    assert torch.equal(model(x, cond=model.condition(t, y)), want)
    labels = None if y is None else torch.tensor([4, 0, 2, 1, 0])
    precomputed = model.precompute_conditioning(torch.tensor([970, 187, 7, 97]), labels)
    assert precomputed is not model
    assert relative(precomputed(x, t, y), want) < 1e-5
    t, y = t[[2, 2, 0]], None if y is None else torch.tensor([4, 0, 1])
    assert relative(precomputed(x, t, y), model(x, t, y)) < 1e-5


@every_block
def test_gradient_checkpointing_changes_no_gradient(block):
    model = tiny_model(block).train()
    x, t, y = model_inputs(model)
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        out = model(x, t, y, drop=torch.tensor([False, True, False]))
        out.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    for name, plain in gradients[0].items():
        assert plain.any() and relative(gradients[1][name], plain) < 1e-6, name


def test_gradient_checkpointing_runs_each_block_again():
    model, calls = tiny_model().train(), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing = True
    x, t, y = model_inputs(model)
    model(x, t, y).sum().backward()
    assert len(calls) == 2 * len(model.blocks)


@every_block
@torch.no_grad()
def test_bfloat16_is_close_to_float32(block):
    model = randomize(DiT(tiny_config(block, hidden_size=64, num_heads=4))).eval()
    x, t, y = model_inputs(model)
    want = model(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative(model(x, t, y), want) < 0.05
    half = model.bfloat16()(x.bfloat16(), t, y)
    assert half.dtype == torch.bfloat16 and relative(half, want) < 0.05


@torch.no_grad()
def test_conditioning_is_computed_once_for_a_run():
    model, calls = tiny_model(), []
    model.t_embedder.register_forward_hook(lambda *_: calls.append(1))
    x, t, y = model_inputs(model)
    precomputed = model.precompute_conditioning(t, y)
    for step in t:
        precomputed(x, step.expand(3), y)
    assert len(calls) == 1
    assert model.precompute_conditioning(torch.arange(10**6), y) is model  # the table would be too large


# Invalid calls


X, T, Y = torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])


def square(block="adaln_zero", **fields):
    return tiny_model(block, **{"input_size": 4, "depth": 1, **fields})


CALLS = [
    ((X[:, :1], T, Y), r"x.*\(3, 1, 4, 4\).*\(N, 3, 4, 4\)"),
    ((torch.zeros(3, 3, 4, 6), T, Y), r"x.*\(3, 3, 4, 6\).*\(N, 3, 4, 4\)"),
    ((X[0], T, Y), r"x.*\(3, 4, 4\).*\(N, 3, 4, 4\)"),
    ((X, T[:2], Y), r"t.*\(2,\).*\(3,\)"),
    ((X, T[:1], Y[:1]), r"t.*\(1,\).*\(3,\)"),
    ((X, torch.tensor(5), Y), r"t.*\(\).*\(3,\)"),
    ((X, T[:, None], Y), r"t.*\(3, 1\).*\(3,\)"),
    ((X, T.float(), Y), "t.*float32"),
    ((X, T / 1000, Y), "t.*float32"),
    ((X, [0, 1, 2], Y), "t.*list"),
    ((X, 5, Y), "t.*int"),
    ((X, T - 1, Y), "t.*-1"),
    ((X, None, Y), "t.*missing"),
    ((X, T, Y[:2]), r"y.*\(2,\).*\(3,\)"),
    ((X, T, Y[:1]), r"y.*\(1,\).*\(3,\)"),
    ((X, T, Y + 2), r"y.*6.*\[0, 5\]"),
    ((X, T, Y - 1), r"y.*-1.*\[0, 5\]"),
    ((X, T, Y.float()), "y.*float32"),
    ((X, T, Y > 0), "y.*bool"),
    ((X, T, None), "y.*missing.*5"),
]


@pytest.mark.parametrize("arguments,pattern", CALLS, ids=[pattern for _, pattern in CALLS])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_invalid_calls(arguments, pattern, block):
    with raises_input_error(pattern):
        square(block)(*arguments)


@error_cases(
    (lambda: DiT({"depth": 1}), "config.*dict.*DiTConfig"),
    (lambda: square(num_classes=0)(X, T, Y), "y.*no classes"),
    (lambda: square(class_dropout_prob=0.0)(X, T, Y + 1), r"y.*5.*\[0, 4\]"),
    (lambda: square(class_dropout_prob=0.0)(X, T, Y, drop=T > 0), "drop.*null class"),
    (lambda: square()(X, T, Y, drop=T[:1] > 0), r"drop.*\(1,\).*\(3,\)"),
    (lambda: square().precompute_conditioning(T, Y)(X, T + 5, Y), "t.*precompute_conditioning"),
    (lambda: square().precompute_conditioning(T, Y)(X, T, Y + 1), "y.*precompute_conditioning"),
    (lambda: square().precompute_conditioning(T, Y)(X, T.float(), Y), "t.*float32"),
    (lambda: square().precompute_conditioning(T, Y)(X[:2], T, Y), r"t.*\(3,\).*\(2,\)"),
)
def test_invalid_labels_and_precomputed_conditioning(call, pattern):
    with raises_input_error(pattern):
        call()


# Devices and training


@pytest.fixture
def exact_float32():
    """Matrix products and convolutions in full float32, so that two devices can be compared."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def loss_and_gradients(model, device):
    """One hybrid loss, and its gradients, by name, with fixed noise."""
    model = model.to(device)
    model.zero_grad()
    x, t, y = (a.to(device) for a in model_inputs(model, 4))
    out = model(x, t, y)
    losses = Diffusion().to(device).training_losses(model, x, t, y, noise=x.flip(0))
    losses["loss"].mean().backward()
    return out, {name: p.grad.cpu() for name, p in model.named_parameters() if p.requires_grad}


@every_block
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward_are_the_same_on_every_device(block, device, exact_float32):
    model = tiny_model(block, 0.1, hidden_size=64, num_heads=4)  # at 0.3 float32 itself is off by 3e-4
    want_out, want = loss_and_gradients(model, "cpu")
    out, gradients = loss_and_gradients(model, device)
    assert out.device.type == device and relative(out, want_out) < 1e-4
    for name, gradient in want.items():
        assert relative(gradients[name], gradient) < 1e-3, name


def fall(model, device, steps, lr, dtype):
    """First and last loss on one fixed batch, in autocast."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.input_size
    x, noise = (torch.randn(4, 4, size, size, generator=generator).to(device) for _ in range(2))
    t, y = torch.tensor([10, 300, 600, 900], device=device), torch.tensor([0, 1, 2, 3], device=device)
    optimizer, diffusion = torch.optim.AdamW(model.parameters(), lr), Diffusion().to(device)
    losses = []
    for _ in range(steps):
        with torch.autocast(device, dtype):
            loss = diffusion.training_losses(model, x, t, y, noise=noise)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_small_model_learns_one_batch_in_bfloat16():
    torch.manual_seed(0)
    losses = fall(
        DiT(tiny_config(input_size=4, in_channels=4, hidden_size=64)), "cpu", 30, 3e-3, torch.bfloat16
    )
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.cuda
def test_dit_xl_2_trains_in_bfloat16():
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = DiT(DiTConfig.named("DiT-XL/2")).train()
    losses = fall(model, "cuda", 12, 1e-4, torch.bfloat16)
    assert losses[-1] < 0.95 * losses[0], losses
