"""The network: its start, what its output depends on, calls, gradients, precision and devices, for all four blocks."""

import pytest
import torch
from torch import nn

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.blocks.base import Block, Mlp
from dit_nb.config import BLOCK_NAMES
from dit_nb.model import BLOCKS, FinalLayer, register_block
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
TAKES_TOKENS = {"in_context": True, "cross_attention": True, "adaln": False, "adaln_zero": False}


def condition(model, t, y):
    """What the blocks get: the embeddings of t and y side by side, (N, 2, D), or their sum, (N, D)."""
    parts = model.t_embedder(t), model.y_embedder(y)
    return torch.stack(parts, dim=1) if TAKES_TOKENS[model.config.block] else parts[0] + parts[1]


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
    c = condition(model, t, y)
    for part in model.blocks:
        assert torch.equal(part(tokens, c), tokens) == (block == "adaln_zero")


# What the output depends on


@every_block
@torch.no_grad()
def test_blocks_depend_on_t_and_on_y(block):
    model = tiny_model(block)
    x, t, y = model_inputs(model)
    tokens = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))

    def run(t, y):
        """Each block by itself, on the same tokens."""
        c = condition(model, t, y)
        if block == "in_context":
            return [part(torch.cat([tokens, c], 1), c)[:, :6] for part in model.blocks]
        return [part(tokens, c) for part in model.blocks]

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
def test_blocks_get_the_embeddings_of_t_and_y(block, num_classes):
    model, seen = tiny_model(block, num_classes=num_classes), []
    for part in model.blocks:
        part.register_forward_pre_hook(lambda part, inputs: seen.append(inputs))
    x, t, y = model_inputs(model)
    model(x, t, y)
    if num_classes:
        want = condition(model, t, y)
    else:
        want = model.t_embedder(t)[:, None] if TAKES_TOKENS[block] else model.t_embedder(t)
    tokens = 6 + (want.shape[1] if block == "in_context" else 0)
    assert len(seen) == 2
    for x, c in seen:
        assert x.shape == (3, tokens, 16) and torch.equal(c, want)


@every_block
@torch.no_grad()
def test_timesteps_may_be_floats(block):
    model = tiny_model(block)
    x, t, y = model_inputs(model)
    assert torch.equal(model(x, t.float(), y), model(x, t, y))
    between = relative(model(x, t + 0.5, y), model(x, t, y))
    assert 1e-4 < between < relative(model(x, t + 50, y), model(x, t, y))


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


# Blocks of one's own


class GatedMlp(Block):
    """A gated MLP, which ignores other tokens, before an adaptive final layer."""

    final_layer = "adaptive"

    def __init__(self, hidden_size, num_heads, mlp_ratio):
        super().__init__()
        self.mlp, self.gate = Mlp(hidden_size, mlp_ratio), nn.Linear(hidden_size, hidden_size)

    def zero_init(self):
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x, c):
        return x + self.gate(c)[:, None] * self.mlp(x)


@pytest.fixture
def gated_mlp():
    """The name of a block that is registered for one test."""
    assert register_block("gated_mlp")(GatedMlp) is GatedMlp
    yield "gated_mlp"
    BLOCKS.pop("gated_mlp", None)
    BLOCK_NAMES[:] = [*BLOCKS, "modern"]


def test_the_model_keeps_what_a_block_declares(gated_mlp):
    model = DiT(tiny_config(gated_mlp)).eval()
    assert model.final_layer.kind == "adaptive" and model.final_layer.adaLN_modulation[1].weight.any()
    tokens, c = torch.randn(3, 6, 16), torch.randn(3, 16)
    for block in model.blocks:
        assert isinstance(block, GatedMlp) and block.mlp.fc1.weight.any()  # Xavier, and then zero_init
        assert torch.equal(block(tokens, c), tokens)
    x, t, y = model_inputs(model)
    assert torch.equal(model(x, t, y), torch.zeros(3, 6, 4, 6))


@torch.no_grad()
def test_a_registered_block_computes_with_the_condition(gated_mlp):
    model = tiny_model(gated_mlp)
    x, t, y = model_inputs(model)
    tokens = model.x_embedder(x) + model.pos_embed
    c = model.t_embedder(t) + model.y_embedder(y)
    for block in model.blocks:
        tokens = tokens + block.gate(c)[:, None] * block.mlp(tokens)
    moved = model._denoise(x.roll(2, -1), c) - model._denoise(x, c)
    assert relative(model.final_layer(tokens, c).flatten(), _to_patches(model(x, t, y)).flatten()) < 1e-5
    assert moved.abs().amax() > 1e-3


def _to_patches(images):
    """(N, 6, 4, 6) to tokens (N, 6, 2*2*6), channel fastest, by slices."""
    corners = [(i, j) for i in range(0, 4, 2) for j in range(0, 6, 2)]
    return torch.stack(
        [images[:, :, i : i + 2, j : j + 2].permute(0, 2, 3, 1).flatten(1) for i, j in corners], 1
    )


def test_a_registered_block_is_saved_and_loaded_by_its_name(gated_mlp, tmp_path):
    model = tiny_model(gated_mlp)
    model.save_pretrained(tmp_path)
    loaded, inputs = DiT.from_pretrained(tmp_path), model_inputs(model)
    assert loaded.config == model.config and torch.equal(loaded(*inputs), model(*inputs))
    BLOCKS.pop(gated_mlp)
    BLOCK_NAMES.remove(gated_mlp)
    with raises_input_error("block.*'gated_mlp'.*in_context, cross_attention, adaln, adaln_zero"):
        DiT.from_pretrained(tmp_path)


def test_a_name_can_be_registered_again(gated_mlp):
    @register_block(gated_mlp)
    class Other(GatedMlp):
        final_layer = "plain"

    assert BLOCK_NAMES.count(gated_mlp) == 1
    assert DiT(tiny_config(gated_mlp)).final_layer.kind == "plain"


def test_only_blocks_can_be_registered():
    with raises_input_error("block.*Linear.*Block"):
        register_block("linear")(nn.Linear)
    assert "linear" not in BLOCKS and "linear" not in BLOCK_NAMES


# Conditions of one's own


class Numbers(nn.Module):
    """Embed three numbers for each image, (N, 3) to (N, D)."""

    def __init__(self, width=16):
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, y, drop=None):
        return self.linear(y)


class Words(nn.Module):
    """Embed a sentence of words 0 to 6 for each image, (N, S) to tokens (N, S, D)."""

    def __init__(self, width=16):
        super().__init__()
        self.table = nn.Embedding(7, width)

    def forward(self, y, drop=None):
        return self.table(y if drop is None else torch.where(drop[:, None], 0, y))


NUMBERS, WORDS = (
    torch.tensor([[0.1, -2, 3], [1, 0, 1], [-1, 5, 0]]),
    torch.tensor([[1, 2, 3, 4], [6, 1, 1, 0], [5, 5, 5, 5]]),
)
OWN = [
    ("adaln_zero", Numbers, NUMBERS),
    ("adaln", Numbers, NUMBERS),
    ("cross_attention", Numbers, NUMBERS),
    ("cross_attention", Words, WORDS),
    ("in_context", Words, WORDS),
]


def model_of(block, embedder):
    return randomize(DiT(tiny_config(block, num_classes=0), y_embedder=embedder()), scale=0.3).eval()


@pytest.mark.parametrize("block,embedder,y", OWN)
@torch.no_grad()
def test_a_model_with_its_own_embedder_of_y(block, embedder, y, tmp_path):
    model = model_of(block, embedder)
    x, t, _ = model_inputs(model)
    out = model(x, t, y)
    assert model.takes_y and model.null_class is None and out.shape == (3, 6, 4, 6)
    for i in range(3):  # each image depends on its own condition alone
        moved = (
            (model(x, t, y.roll(1, 0).where(torch.arange(3)[:, None] == i, y)) - out).abs().amax((1, 2, 3))
        )
        assert moved[i] > 1e-3 and (moved[torch.arange(3) != i] < 1e-5).all()
    c = model.t_embedder(t), model.y_embedder(y)
    if block in ("in_context", "cross_attention"):
        c = torch.cat([part if part.ndim == 3 else part[:, None] for part in c], dim=1)
        assert c.shape[1] == (5 if embedder is Words else 2)
    else:
        c = c[0] + c[1]
    assert torch.equal(model._denoise(x, c), out)
    model.save_pretrained(tmp_path)
    loaded = DiT.from_pretrained(tmp_path, y_embedder=embedder())
    assert torch.equal(loaded(x, t, y), out) and loaded.config.num_classes == 0
    with raises_input_error("y_embedder"):
        DiT.from_pretrained(tmp_path)


@torch.no_grad()
def test_an_own_embedder_gets_what_is_to_be_dropped():
    model = model_of("cross_attention", Words)
    x, t, _ = model_inputs(model)
    drop = torch.tensor([False, True, False])
    y = WORDS.clone()
    y[1] = 0
    assert torch.equal(model(x, t, WORDS, drop), model(x, t, y))


def test_the_model_does_not_initialize_an_own_embedder():
    embedder = nn.Sequential(nn.Linear(3, 16), nn.Linear(16, 16))
    for layer in embedder:
        nn.init.constant_(layer.weight, 7.0)
    DiT(tiny_config("adaln_zero", num_classes=0), y_embedder=embedder)
    assert all(torch.equal(layer.weight, torch.full_like(layer.weight, 7.0)) for layer in embedder)


@pytest.mark.parametrize("name", ["adaln_zero", GatedMlp])
def test_a_block_of_the_package_is_not_replaced(name):
    with raises_input_error("name is.*string.*block of the package"):
        register_block(name)


def test_an_own_embedder_is_trained_and_keeps_its_initialization():
    torch.manual_seed(0)
    embedder = Words()
    before = embedder.table.weight.clone()
    model = DiT(tiny_config("cross_attention", num_classes=0), y_embedder=embedder)
    assert torch.equal(model.y_embedder.table.weight, before)
    x, t, _ = model_inputs(randomize(model, scale=0.3))
    model(x, t, WORDS).square().mean().backward()
    assert embedder.table.weight.grad.any(1).all()


@error_cases(
    (
        lambda: model_of("adaln_zero", Numbers)(*model_inputs(model_of("adaln_zero", Numbers))[:2]),
        "y.*missing",
    ),
    (
        lambda: model_of("adaln_zero", Words)(torch.zeros(3, 3, 4, 6), T, WORDS),
        r"y_embedder.*\(3, 4, 16\).*\(3, 16\).*adaln_zero",
    ),
)
def test_invalid_conditions(call, pattern):
    with raises_input_error(pattern):
        call()


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
    ((X.long(), T, Y), "x.*int64.*floating point"),
    ((X.bool(), T, Y), "x.*bool.*floating point"),
    ((X.numpy(), T, Y), "x.*ndarray.*floating point"),
    ((X, T > 0, Y), "t.*bool"),
    ((X, T - 0.5, Y), "t.*-0.5"),
    ((X, [0, 1, 2], Y), "t.*list"),
    ((X, 5, Y), "t.*int"),
    ((X, T - 1, Y), "t.*-1"),
    ((X, None, Y), "t.*NoneType"),
    ((X, T, Y[:2]), r"y.*\(2,\).*\(3,\)"),
    ((X, T, Y[:1]), r"y.*\(1,\).*\(3,\)"),
    ((X, T, Y + 2), r"y.*6.*\[0, 5\]"),
    ((X, T, Y - 1), r"y.*-1.*\[0, 5\]"),
    ((X, T, Y.float()), "y.*float32"),
    ((X, T, Y > 0), "y.*bool"),
    ((X, T, None), "y.*missing.*condition"),
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
    (lambda: FinalLayer(16, 12, "adaln"), "kind.*'adaln'.*plain, adaptive, adaptive_zero"),
)
def test_invalid_models_and_labels(call, pattern):
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
