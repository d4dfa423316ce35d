"""Modern blocks, part by part and whole, against diffusers' classes and identities; and models made of them."""

import itertools
import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb import DiT, DiTConfig
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.config import _SWITCHES
from dit_nb.finetune import fit_model
from dit_nb.model import BLOCKS, register_block
from dit_nb.since.blocks import ModernAttention, ModernBlock, RMSNorm, SwiGLU, axial_rope, rotate
from dit_nb.speed import InferenceModel
from support import DEVICES, model_inputs, raises_input_error, randomize, relative, tiny_config, tiny_model

SUBSETS = [s for n in range(6) for s in itertools.combinations(_SWITCHES, n)]
HEADS = dict(hidden_size=32, num_heads=2)  # heads of width 16: 4 frequencies on each axis


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# RMSNorm and SwiGLU


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_rms_norm_is_that_of_diffusers_and_of_torch(affine, eps):
    from diffusers.models.normalization import RMSNorm as Reference

    x = 0.3 * tokens(2, 5, 12) + 0.7
    ours, theirs = randomize(RMSNorm(12, affine, eps), scale=1.0), Reference(12, eps, affine)
    assert [name for name, _ in ours.named_parameters()] == ["weight"] * affine
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x), F.rms_norm(x, (12,), ours.weight, eps))


def test_rms_norm_keeps_its_input_s_precision_and_squares_in_float32():
    norm, x = RMSNorm(64), 200 * tokens(3, 64)  # squares above the largest float16
    for dtype, rounding in ((torch.float64, 1e-12), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)):
        low = x.to(dtype)
        got, want = norm(low), F.rms_norm(low.double(), (64,), eps=1e-6)
        assert got.dtype == dtype and relative(got, want) < rounding


def test_swiglu_is_that_of_diffusers():
    from diffusers.models.activations import SwiGLU as Reference

    ours, x = randomize(SwiGLU(12, 4.0), scale=0.5), tokens(2, 5, 12)
    hidden = ours.w1.out_features
    theirs = Reference(12, hidden)  # value and gate in one layer, the value first
    theirs.proj.weight.data = torch.cat([ours.w2.weight, ours.w1.weight])
    theirs.proj.bias.data = torch.cat([ours.w2.bias, ours.w1.bias])
    torch.testing.assert_close(ours(x), ours.w3(theirs(x)))
    assert hidden == 32 and SwiGLU(1152).w1.out_features == 3072


# Rotary positions


@pytest.mark.parametrize("grid,dim,theta", [((3, 5), 16, 1e4), ((4, 2), 8, 100.0), ((6, 6), 64, 2000.0)])
def test_the_table_is_that_of_flux(grid, dim, theta):
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    ids = torch.tensor([[r, c] for r in range(grid[0]) for c in range(grid[1])])
    want = FluxPosEmbed(theta, [dim // 2, dim // 2])(ids)
    for ours, theirs in zip(axial_rope(grid, dim, theta), want):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.repeat_interleave(2, dim=1), theirs)


@pytest.mark.parametrize(
    "width,theta,known",
    [
        (16, 1e4, (1, 0.31623, 0.1, 3.16e-4)),
        (56, 1e4, (1, 0.71969, 0.51795, 1.39e-4)),
        (32, 2000.0, (1, 0.62185, 0.3867, 8.04e-4)),
    ],
)
def test_frequencies_are_those_of_known_models(width, theta, known):
    """The angles of the second row, from their sine and cosine: an axis of 16, 56 and 32 channels."""
    cos, sin = axial_rope((2, 1), 2 * width, theta)
    omega = torch.atan2(sin[1], cos[1])[: width // 2]
    got = omega[[0, 1, 2, -1]]
    torch.testing.assert_close(got, torch.tensor(known), rtol=3e-3, atol=1e-5)


def test_a_rotation_is_that_of_diffusers():
    from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed

    x = tokens(2, 3, 15, 16)
    cos, sin = axial_rope((3, 5), 16)
    doubled = tuple(z.repeat_interleave(2, dim=1) for z in (cos, sin))
    torch.testing.assert_close(rotate(x, cos, sin), apply_rotary_emb(x, doubled, use_real_unbind_dim=-1))
    row = get_1d_rotary_pos_embed(8, torch.arange(15).numpy() // 5, use_real=True)
    torch.testing.assert_close(rotate(x, cos, sin)[..., :8], apply_rotary_emb(x[..., :8], row))


def test_scores_depend_on_offsets_alone_and_lengths_stay():
    q, k = tokens(1, 2, 12, 16), tokens(1, 2, 12, 16, seed=1)
    near = axial_rope((3, 4), 16)
    large = axial_rope((9, 11), 16)
    at = (
        torch.arange(9 * 11).view(9, 11)[5:8, 6:10]
    ).flatten()  # the same block, 5 rows and 6 columns further
    far = [table[at] for table in large]
    first, second = (rotate(q, *table) @ rotate(k, *table).mT for table in (near, far))
    assert relative(second, first) < 1e-5
    assert relative(rotate(q, *far).norm(dim=-1), q.norm(dim=-1)) < 1e-6
    swapped = [table.roll(4, dims=1) for table in near]  # columns first
    assert relative(rotate(q, *swapped) @ rotate(k, *swapped).mT, first) > 0.1


def test_a_rotation_keeps_the_precision_of_its_input():
    x, table = tokens(1, 1, 6, 8), axial_rope((2, 3), 8)
    got = rotate(x.bfloat16(), *table)
    assert got.dtype == torch.bfloat16 and relative(got, rotate(x.bfloat16().float(), *table)) < 2**-8


def test_heads_must_hold_two_axes_of_pairs():
    with raises_input_error("dim.*6.*multiple of 4"):
        axial_rope((2, 2), 6)


# Attention and block


def test_attention_is_that_of_flux():
    """QK-norm with learned scales, then the rotation, then attention: a single stream of FLUX."""
    from diffusers.models.transformers.transformer_flux import FluxAttention

    ours = randomize(ModernAttention(32, 2, (3, 4), qk_norm=True), scale=0.4)
    theirs = FluxAttention(
        32, 2, 16, bias=True, eps=1e-6, pre_only=True
    )  # its block holds the last projection
    for name, rows in zip(("to_q", "to_k", "to_v"), range(3)):
        part = slice(32 * rows, 32 * rows + 32)
        getattr(theirs, name).weight.data = ours.qkv.weight[part]
        getattr(theirs, name).bias.data = ours.qkv.bias[part]
    theirs.norm_q.weight.data, theirs.norm_k.weight.data = ours.q_norm.weight, ours.k_norm.weight
    x = tokens(2, 12, 32)
    table = tuple(z.repeat_interleave(2, dim=1) for z in axial_rope((3, 4), 16))
    want = ours.proj(theirs(x, image_rotary_emb=table))
    torch.testing.assert_close(ours(x), want, rtol=1e-4, atol=1e-5)


def test_attention_weights_are_those_that_forward_uses():
    attn, x = randomize(ModernAttention(32, 2, (3, 4), qk_norm=True), scale=0.4), tokens(2, 12, 32)
    q, k, v = attn.qkv_heads(x)
    mixed = (attn.attention_weights(x) @ v).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(attn(x), attn.proj(mixed), rtol=1e-4, atol=1e-5)
    raw = super(ModernAttention, attn).qkv_heads(x)
    assert torch.equal(v, raw[2]) and not torch.allclose(
        q, raw[0]
    )  # values are neither normalized nor rotated


def test_without_switches_it_is_the_adaln_zero_block():
    ours, theirs = ModernBlock(32, 2), AdaLNZeroBlock(32, 2)
    ours.load_state_dict(randomize(theirs, scale=0.3).state_dict())
    x, c = tokens(2, 6, 32), tokens(2, 32, seed=1)
    assert torch.equal(ours(x, c), theirs(x, c))


def test_shared_modulation_is_that_of_pixart():
    """diffusers' block with ada_norm_single: a table of the block, plus what all blocks share."""
    from diffusers.models.attention import BasicTransformerBlock

    ours = randomize(ModernBlock(32, 2, 4.0, None, ("shared_modulation",)), scale=0.3)
    theirs = BasicTransformerBlock(
        32, 2, 16, activation_fn="gelu-approximate", attention_bias=True, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6,
    )  # fmt: skip
    theirs.scale_shift_table.data = ours.table
    for i, name in enumerate(("to_q", "to_k", "to_v")):
        layer = getattr(theirs.attn1, name)
        layer.weight.data, layer.bias.data = (
            ours.attn.qkv.weight[32 * i :][:32],
            ours.attn.qkv.bias[32 * i :][:32],
        )
    theirs.attn1.to_out[0].load_state_dict(ours.attn.proj.state_dict())
    theirs.ff.net[0].proj.load_state_dict(ours.mlp.fc1.state_dict())
    theirs.ff.net[2].load_state_dict(ours.mlp.fc2.state_dict())
    x, vectors = tokens(2, 6, 32), tokens(2, 6, 32, seed=1)
    want = theirs(x, timestep=vectors.flatten(1))
    torch.testing.assert_close(ours(x, vectors), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switches", SUBSETS, ids="+".join)
def test_a_new_block_is_the_identity_and_its_gates_learn(switches):
    model = DiT(tiny_config("modern", switches=switches, **HEADS))
    x, c = tokens(3, 6, 32), tokens(3, 32, seed=1)
    shared = model.shared_modulation
    block, received = model.blocks[0], c if shared is None else shared(c)
    out = block(x, received)
    assert torch.equal(out, x)
    (out * tokens(3, 6, 32, seed=2)).sum().backward()
    gates = block.table if shared is not None else block.adaLN_modulation[-1].weight
    learning = gates.grad.unflatten(0, (6, -1)).flatten(1).abs().amax(1) > 0
    assert learning.tolist() == [False, False, True, False, False, True]  # the gates of attention and MLP
    if shared is not None:
        assert shared[-1].weight.grad.abs().max() > 0


# The model


@pytest.mark.parametrize("switches", SUBSETS, ids="+".join)
def test_every_switch_adds_its_parameters_and_no_more(switches):
    base = DiT(tiny_config(**HEADS, mlp_ratio=3.0))
    model = DiT(tiny_config("modern", switches=switches, **HEADS, mlp_ratio=3.0))
    d, depth, count = 32, 2, 0
    if "qk_norm" in switches:
        count += depth * 2 * 16
    if "swiglu" in switches:  # 3 x 64 x 32 weights as before; the hidden biases are twice 64, not 96
        count += depth * (2 * 64 - 96)
    if "shared_modulation" in switches:
        count += depth * 6 * d - (depth - 1) * (
            6 * d * d + 6 * d
        )  # a table for each block, one layer for all
    got, want = (sum(p.numel() for p in m.parameters()) for m in (model, base))
    assert got - want == count
    assert bool(model.pos_embed.any()) == ("rope" not in switches)


def test_the_four_blocks_of_the_paper_have_no_switches():
    for block in BLOCKS:
        model = DiT(tiny_config(block))
        assert model.config.switches == () and model.shared_modulation is None
        assert not [name for name in model.state_dict() if "table" in name.replace("embedding_table", "")]


def test_without_switches_the_model_has_the_weights_and_outputs_of_adaln_zero():
    torch.manual_seed(0)
    theirs = DiT(tiny_config())
    torch.manual_seed(0)
    ours = DiT(tiny_config("modern", switches=()))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(w, ours.state_dict()[name]) for name, w in theirs.state_dict().items())
    ours, theirs = tiny_model("modern", switches=()), tiny_model()
    assert torch.equal(ours(*model_inputs(ours)), theirs(*model_inputs(theirs)))


def modern(**fields):
    return tiny_model("modern", scale=0.2, **{**HEADS, **fields})


@torch.no_grad()
def test_the_model_by_its_parts():
    model = modern()
    x, t, y = model_inputs(model)
    c = model.t_embedder(t) + model.y_embedder(y)
    vectors = model.shared_modulation[1](F.silu(c)).unflatten(1, (6, 32))  # (N, 6, D)
    h = model.x_embedder(x) + model.pos_embed
    for block in model.blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = (block.table + vectors).unsqueeze(2).unbind(1)
        h = h + gate1 * block.attn(F.rms_norm(h, (32,), eps=1e-6) * (1 + scale1) + shift1)
        mlp, z = block.mlp, F.rms_norm(h, (32,), eps=1e-6) * (1 + scale2) + shift2
        h = h + gate2 * mlp.w3(F.silu(mlp.w1(z)) * mlp.w2(z))
    shift, scale = model.final_layer.adaLN_modulation[1](F.silu(c)).unflatten(1, (2, 1, 32)).unbind(1)
    out = model.final_layer.linear(F.layer_norm(h, (32,), eps=1e-6) * (1 + scale) + shift)  # (N, 6, 2*2*6)
    image = out.view(3, 2, 3, 2, 2, 6).permute(0, 5, 1, 3, 2, 4).reshape(3, 6, 4, 6)
    assert relative(model(x, t, y), image) < 1e-4


def test_configuration_as_json_and_older_files():
    config = tiny_config("modern", switches=["rope", "qk_norm"], **HEADS)
    assert config.switches == ("rope", "qk_norm")
    assert DiTConfig(**json.loads(json.dumps(asdict(config)))) == config
    assert tiny_config("modern", **HEADS).switches == _SWITCHES
    assert DiTConfig.named("DiT-B/2", block="modern").switches == _SWITCHES
    with raises_input_error(r"switches.*'rope'.*empty for adaln_zero blocks"):
        replace(config, block="adaln_zero")
    assert replace(config, block="adaln_zero", switches=None).switches == ()


@pytest.mark.parametrize(
    "fields,pattern",
    [
        (dict(switches=("rope",)), r"switches.*'rope'.*empty for adaln_zero"),
        (dict(block="modern", switches=("RoPE",)), r"switches.*'RoPE'.*rms_norm, swiglu, qk_norm, rope"),
        (dict(block="modern", switches=("rope", "rope")), "switches.*different names"),
        (dict(block="modern", switches="rope"), "switches.*'rope'.*different names"),
        (dict(block="modern", num_heads=8), "hidden_size / num_heads.*2.*multiple of 4"),
    ],
)
def test_invalid_switches(fields, pattern):
    with raises_input_error(pattern):
        tiny_config(**fields)


def test_the_name_is_taken():
    with raises_input_error("name.*'modern'"):
        register_block("modern")(AdaLNZeroBlock)


@pytest.mark.parametrize("switches", [(), ("rope",), _SWITCHES], ids="+".join)
def test_save_and_load(switches, tmp_path):
    model = modern(switches=switches)
    model.save_pretrained(tmp_path)
    loaded, inputs = DiT.from_pretrained(tmp_path), model_inputs(model)
    assert loaded.config == model.config and torch.equal(loaded(*inputs), model(*inputs))
    assert not [
        name for name in loaded.state_dict() if "cos" in name or "sin" in name
    ]  # they follow from the grid


def test_a_file_from_before_there_were_switches_loads(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields.pop("switches") == []
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert DiT.from_pretrained(tmp_path).config == model.config


@torch.no_grad()
def test_inference_model_computes_the_same():
    model = modern()
    x, t, y = model_inputs(model)
    fast, want = InferenceModel(model), model(x, t, y)
    assert torch.equal(fast(x, t, y), want)
    assert torch.equal(fast.precompute_conditioning(t, y)(x, t, y), want)
    low = InferenceModel(model, "bf16")(x, t, y)
    assert low.dtype.is_floating_point and relative(low, want) < 0.1


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = modern().train()
        model.gradient_checkpointing = recompute
        x, t, y = model_inputs(model)
        model(x, t, y, drop=torch.zeros(3, dtype=torch.bool)).square().mean().backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    first, second = gradients
    assert (
        first.keys() == second.keys() and "blocks.1.table" in first and "shared_modulation.1.weight" in first
    )
    assert all(relative(second[k], first[k]) < 1e-4 for k in first)


def test_forward_mode_derivative_is_a_finite_difference():
    """As few-step models need it (lesson 35)."""
    model = modern().double()
    x, _, y = model_inputs(model)
    x, v, t, h = x.double(), tokens(*x.shape, seed=3).double(), torch.full((3,), 300.0), 1e-5
    _, slope = torch.func.jvp(lambda x: model(x, t, y), (x,), (v,))
    assert relative(slope, (model(x + h * v, t, y) - model(x - h * v, t, y)) / (2 * h)) < 1e-6


@torch.no_grad()
def test_a_larger_canvas_keeps_the_weights_and_gets_its_own_positions():
    model = modern()
    larger, _ = fit_model(model, (8, 10))
    kept = {k: v for k, v in model.state_dict().items() if k != "pos_embed"}
    assert all(torch.equal(v, larger.state_dict()[k]) for k, v in kept.items())
    assert larger.blocks[0].attn.cos.shape == (20, 8) and larger.pos_embed.shape == (1, 20, 32)
    x = tokens(2, 3, 8, 10)
    assert larger(x, torch.tensor([3, 4]), torch.tensor([0, 1])).shape == (2, 6, 8, 10)


@pytest.mark.slow
@torch.no_grad()
def test_the_compiled_model_computes_the_same():
    model = modern()
    inputs = model_inputs(model)
    compiled = torch.compile(model)
    assert relative(compiled(*inputs), model(*inputs)) < 1e-4


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_a_block_in_bfloat16_is_close_on_a_device(device):
    """All five switches: within 1 % of float64 on the CPU, for random weights."""
    block = randomize(ModernBlock(64, 4, 4.0, (4, 6), _SWITCHES), scale=0.1).double()
    x, vectors = tokens(2, 24, 64).double(), 0.5 * tokens(2, 6, 64, seed=1).double()
    right = block(x, vectors)
    place = {"device": device, "dtype": torch.bfloat16}
    got = block.to(**place)(x.to(**place), vectors.to(**place))
    assert got.dtype == torch.bfloat16 and got.device.type == device
    assert relative(right, x) > 0.1  # the block changes its tokens
    assert relative(got.double().cpu(), right) < 0.01


def test_all_layers_have_initial_weights_of_the_vision_transformer():
    model = DiT(tiny_config("modern", **HEADS))
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            bound = (6 / (layer.in_features + layer.out_features)) ** 0.5  # Xavier, uniform
            assert 0.8 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()
    assert not model.shared_modulation[-1].weight.any()
