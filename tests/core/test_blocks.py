"""The four blocks: what they are at the start, what they depend on, what they cost, and that all paths agree."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.attention import CrossAttention
from dit_nb.cost import cost
from dit_nb.model import BLOCKS
from support import DEVICES, randomise, relative

every_block = pytest.mark.parametrize("block", list(BLOCKS))


def tiny(block="adaln_zero", **fields):
    defaults = dict(
        input_size=(4, 6), patch_size=2, in_channels=3, hidden_size=16, depth=2, num_heads=2, num_classes=5
    )
    return DiTConfig(**{**defaults, **fields, "block": block})


def make(block="adaln_zero", scale=0.3, **fields):
    """A model whose weights hide nothing."""
    return randomise(DiT(tiny(block, **fields)), scale=scale).eval()


def inputs(model, n=3, seed=0):
    """x, t and y for a model: all different."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    height, width = (size * config.patch_size for size in config.grid)
    x = torch.randn(n, config.in_channels, height, width, generator=generator)
    y = torch.arange(n) % config.num_classes if config.num_classes else None
    return x, torch.arange(n) * 90 + 7, y


# The start


@every_block
def test_at_the_start_a_model_says_nothing_and_only_adaln_zero_is_the_identity(block):
    model = DiT(tiny(block)).eval()
    x, t, y = inputs(model)
    assert torch.equal(model(x, t, y), torch.zeros(3, 6, 4, 6))
    tokens = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))
    for part, cond in zip(model.blocks, model.condition(t, y)):
        assert torch.equal(part(tokens, cond), tokens) == (block == "adaln_zero")


def test_a_lone_adaln_zero_block_is_the_identity_too():
    block, x = BLOCKS["adaln_zero"](8, 2), torch.randn(2, 5, 8)
    assert torch.equal(block(x, block.condition(torch.randn(2, 2, 8))), x)


def with_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_training_wakes_adaln_zero_from_the_end_to_the_beginning():
    torch.manual_seed(0)
    model = DiT(tiny(class_dropout_prob=0.0)).train()
    x, t, y = inputs(model)
    optimizer, diffusion = torch.optim.AdamW(model.parameters(), 1e-2), Diffusion()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "pos_embed" not in names
    last = {"final_layer.linear.weight", "final_layer.linear.bias"}
    modulation = {name for name in names if "adaLN_modulation" in name}
    embed = {name for name in names if name.startswith("x_embedder")}
    stages = [last, last | modulation | embed, names]
    for step, expected in enumerate(stages):
        optimizer.zero_grad()
        diffusion.training_losses(model, x, t, y, noise=x.flip(0))["loss"].mean().backward()
        assert with_gradient(model) == expected, step
        if step == 1:  # the gates are awake; behind a closed gate, shift and scale are not
            shift1, scale1, gate1, shift2, scale2, gate2 = (
                model.blocks[0].adaLN_modulation[1].weight.grad.chunk(6)
            )
            assert gate1.any() and gate2.any()
            assert not any(a.any() for a in (shift1, scale1, shift2, scale2))
        optimizer.step()
    assert torch.equal(model.pos_embed, DiT(tiny()).pos_embed)


# What the output depends on


@every_block
@torch.no_grad()
def test_blocks_depend_on_t_and_on_y(block):
    model = make(block)
    x, t, y = inputs(model)
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
    model = make(block, input_size=size)
    x, t, y = inputs(model, n)
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
    model = make(block, input_size=size)
    model.pos_embed.zero_()
    x, t, y = inputs(model)
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
def test_with_positions_it_does_not(block):
    model = make(block)
    x, t, y = inputs(model)
    assert relative(model(x.roll(2, -1), t, y), model(x, t, y).roll(2, -1)) > 1e-2


@torch.no_grad()
def test_in_context_does_not_care_which_extra_token_comes_first():
    model = make("in_context")
    x, t, y = inputs(model)
    flipped = [None if c is None else c.flip(1) for c in model.condition(t, y)]
    assert relative(model(x, cond=flipped), model(x, t, y)) < 1e-5


@torch.no_grad()
def test_cross_attention_to_a_single_token_has_no_choice():
    attention, x = CrossAttention(16, 2), torch.randn(3, 5, 16)
    context = torch.randn(3, 1, 16)
    assert torch.equal(attention.maps(x, context), torch.ones(3, 2, 5, 1))
    only = attention.proj(attention.kv(context)[..., 16:]).expand(3, 5, 16)
    assert relative(attention(x, context), only) < 1e-5


@every_block
@torch.no_grad()
def test_a_model_without_classes_still_depends_on_t(block):
    model = make(block, num_classes=0)
    x, t, _ = inputs(model)
    assert model.null_class is None
    assert relative(model(x, t + 50), model(x, t)) > 1e-3


@every_block
def test_hidden_labels_are_the_null_class(block):
    model = make(block).train()
    x, t, y = inputs(model)
    hidden = model(x, t, y, drop=torch.tensor([True, False, True]))
    model.eval()
    assert model.null_class == 5
    assert relative(hidden, model(x, t, torch.tensor([5, 1, 5]))) < 1e-6


# What it costs: Table 4 of the paper; the trainable count and GMACs to all digits, the paper's own as it prints them

TABLE = [  # name, block, paper Gflops, GMACs, paper params in millions, trainable, with positions
    ("S/8", "adaln_zero", 0.36, 0.3580, 33, 33_142_016, 33_148_160),
    ("S/4", "adaln_zero", 1.41, 1.4126, 33, 32_920_448, 32_945_024),
    ("S/2", "adaln_zero", 6.06, 6.0557, 33, 32_865_056, 32_963_360),
    ("B/8", "adaln_zero", 1.42, 1.4175, 131, 130_869_248, 130_881_536),
    ("B/4", "adaln_zero", 5.56, 5.5652, 130, 130_426_496, 130_475_648),
    ("B/2", "adaln_zero", 23.01, 23.0051, 130, 130_315_808, 130_512_416),
    ("L/8", "adaln_zero", 5.01, 5.0114, 459, 458_578_432, 458_594_816),
    ("L/4", "adaln_zero", 19.70, 19.6957, 458, 457_988_224, 458_053_760),
    ("L/2", "adaln_zero", 80.71, 80.6976, 458, 457_840_672, 458_102_816),
    ("XL/8", "adaln_zero", 7.39, 7.3924, 676, 675_664_640, 675_683_072),
    ("XL/4", "adaln_zero", 29.05, 29.0437, 675, 675_000_704, 675_074_432),
    ("XL/2", "adaln_zero", 118.64, 118.6214, 675, 674_834_720, 675_129_632),
    ("XL/2", "in_context", 119.37, 119.3539, 449, 449_162_528, 449_457_440),
    ("XL/2", "cross_attention", 137.62, 137.6028, 598, 597_991_712, 598_286_624),
    ("XL/2", "adaln", 118.56, 118.5471, 600, 600_452_384, 600_747_296),
]
WIDE = ("XL/2", "adaln_zero", 524.60, 524.5383, 675, 674_834_720, 676_014_368)  # 512 pixels


@pytest.mark.parametrize("row,size", [*((row, 32) for row in TABLE), (WIDE, 64)], ids=str)
def test_cost_of_table_4(row, size):
    name, block, gflops, gmacs, millions, trainable, with_positions = row
    config = DiTConfig.named(f"DiT-{name}", block=block, input_size=size)
    counted = cost(config)
    assert counted.total_params == trainable
    assert round(counted.total_params / 1e6) == millions
    assert counted.total_macs / 1e9 == pytest.approx(gmacs, abs=0.51e-4)
    assert counted.total_macs / 1e9 == pytest.approx(gflops, rel=1e-3 if gflops > 5 else 1e-2)
    positions = config.grid[0] * config.grid[1] * config.hidden_size
    assert counted.total_params + positions == with_positions


def measured(config):
    """Trainable parameters, and multiply-adds as PyTorch counts them, of a model without memory."""
    with torch.device("meta"):
        model = DiT(config).eval()
        zero = torch.zeros(1, dtype=torch.long)
        x = torch.zeros(1, config.in_channels, *(size * config.patch_size for size in config.grid))
        with FlopCounterMode(display=False) as counter:
            model(x, zero, zero if config.num_classes else None)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, counter.get_total_flops() / 2


CONFIGS = {
    **{block: tiny(block) for block in BLOCKS},
    "S/8": DiTConfig.named("DiT-S/8"),
    **{f"XL/2 {block}": DiTConfig.named("DiT-XL/2", block=block, depth=1) for block in BLOCKS},
    **{f"{block} without classes": tiny(block, num_classes=0) for block in BLOCKS},
    "without null class": tiny(class_dropout_prob=0.0),
    "fixed variance": tiny("adaln", learn_sigma=False, mlp_ratio=2.5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_cost_is_what_a_real_model_has_and_does(name):
    counted = cost(CONFIGS[name])
    assert (counted.total_params, counted.total_macs) == measured(CONFIGS[name])
    assert counted.params.keys() == counted.macs.keys()


def test_named_sizes_are_table_1():
    table = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    for size, fields in table.items():
        for patch in (2, 4, 8):
            config = DiTConfig.named(f"DiT-{size}/{patch}", num_classes=7)
            assert (config.depth, config.hidden_size, config.num_heads) == fields
            assert (config.patch_size, config.num_classes, config.block) == (patch, 7, "adaln_zero")


# All paths agree


@every_block
@pytest.mark.parametrize("num_classes", [0, 5])
@torch.no_grad()
def test_conditioning_worked_out_before_gives_the_same(block, num_classes):
    model = make(block, num_classes=num_classes)
    x, t, y = inputs(model)
    want = model(x, t, y)
    assert torch.equal(model(x, cond=model.condition(t, y)), want)
    labels = None if y is None else torch.tensor([4, 0, 2, 1, 0])
    prepared = model.prepare(torch.tensor([970, 187, 7, 97]), labels)
    assert prepared is not model
    assert relative(prepared(x, t, y), want) < 1e-5
    t, y = t[[2, 2, 0]], None if y is None else torch.tensor([4, 0, 1])
    assert relative(prepared(x, t, y), model(x, t, y)) < 1e-5


@every_block
def test_gradient_checkpointing_changes_no_gradient(block):
    model = make(block).train()
    x, t, y = inputs(model)
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        out = model(x, t, y, drop=torch.tensor([False, True, False]))
        out.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    for name, plain in gradients[0].items():
        assert plain.any() and relative(gradients[1][name], plain) < 1e-6, name


def test_gradient_checkpointing_runs_each_block_again():
    model, calls = make().train(), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing = True
    x, t, y = inputs(model)
    model(x, t, y).sum().backward()
    assert len(calls) == 2 * len(model.blocks)


@every_block
@torch.no_grad()
def test_bfloat16_is_close_to_float32(block):
    model = randomise(DiT(tiny(block, hidden_size=64, num_heads=4))).eval()
    x, t, y = inputs(model)
    want = model(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative(model(x, t, y), want) < 0.05
    half = model.bfloat16()(x.bfloat16(), t, y)
    assert half.dtype == torch.bfloat16 and relative(half, want) < 0.05


@every_block
@pytest.mark.parametrize(
    "fields", [{}, {"num_classes": 0}, {"learn_sigma": False, "init": "scaled"}], ids=str
)
@torch.no_grad()
def test_saved_and_loaded_a_model_is_the_same(block, fields, tmp_path):
    model = make(block, **fields).train()
    model.save_pretrained(tmp_path)
    loaded = DiT.from_pretrained(tmp_path)
    assert not loaded.training and model.training
    assert loaded.config == model.config
    x, t, y = inputs(model)
    assert torch.equal(loaded(x, t, y), model.eval()(x, t, y))
    assert torch.equal(DiT.from_pretrained(str(tmp_path))(x, t, y), loaded(x, t, y))


# On a GPU


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
    """One hybrid loss, and its gradients, by name, with all luck fixed."""
    model = model.to(device)
    model.zero_grad()
    x, t, y = (a.to(device) for a in inputs(model, 4))
    out = model(x, t, y)
    losses = Diffusion().to(device).training_losses(model, x, t, y, noise=x.flip(0))
    losses["loss"].mean().backward()
    return out, {name: p.grad.cpu() for name, p in model.named_parameters() if p.requires_grad}


@every_block
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward_are_the_same_on_every_device(block, device, exact_float32):
    model = make(block, 0.1, hidden_size=64, num_heads=4)  # at 0.3 float32 itself is off by 3e-4
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
    losses = fall(DiT(tiny(input_size=4, in_channels=4, hidden_size=64)), "cpu", 30, 3e-3, torch.bfloat16)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.cuda
def test_dit_xl_2_trains_in_bfloat16():
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = DiT(DiTConfig.named("DiT-XL/2")).train()
    losses = fall(model, "cuda", 12, 1e-4, torch.bfloat16)
    assert losses[-1] < 0.95 * losses[0], losses


@pytest.fixture
def accelerate_on(monkeypatch):
    """Choose the device that Accelerate, which decides once per process, will take."""
    from accelerate.state import PartialState

    def choose(device):
        monkeypatch.setenv("ACCELERATE_USE_CPU", str(device == "cpu").lower())
        PartialState._reset_state()

    yield choose
    PartialState._reset_state()


@pytest.mark.parametrize("device", DEVICES)
def test_digits_train_through_the_trainer(device, accelerate_on):
    from dit_nb.data import digits
    from dit_nb.training import TrainConfig, Trainer

    accelerate_on(device)
    torch.manual_seed(0)
    model = DiT(tiny(input_size=8, in_channels=1, hidden_size=64, num_heads=4, num_classes=10, init="scaled"))
    config = TrainConfig(steps=40, batch_size=64, lr=3e-3, precision="fp32" if device == "cpu" else "bf16")
    trainer = Trainer(model, Diffusion(bins=17), digits().train, config)
    average = trainer.fit(progress=False)
    assert {p.device.type for p in model.parameters()} == {device}
    losses = [loss for loss, _, _ in trainer.progress.history]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(1.02, abs=0.15)
    assert sum(losses[-5:]) / 5 < 0.85
    assert not average.training and not any(p.requires_grad for p in average.parameters())
