"""A recorder must not change what it records, and what it writes down must be true for all four blocks."""

import pytest
import torch
from einops import rearrange

from dit_nb.anatomy import (
    ablate,
    attention_by_offset,
    attention_distance,
    decode,
    lens,
    modulation_map,
    record,
)
from dit_nb.config import DiTConfig
from dit_nb.model import BLOCKS, DiT

ALL = sorted(BLOCKS)
T = torch.tensor([0, 40, 999])
Y = torch.tensor([1, 9, 10])


def lively(block, **fields):
    """A small DiT whose weights are all random: zero-initialised ones would make every test pass."""
    torch.manual_seed(0)
    config = {"input_size": (4, 6), "patch_size": 2, "in_channels": 1, "hidden_size": 16, "depth": 3}
    model = DiT(DiTConfig(**{**config, "num_heads": 2, "num_classes": 10, "block": block, **fields}))
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=1.0 if "norm" in name else 0.3)
    return model.eval()


def images(n=3):
    return torch.randn(n, 1, 4, 6, generator=torch.Generator().manual_seed(1))


def call(model):
    with torch.no_grad():
        return model(images(), T, Y)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("block", ALL)
def test_recording_changes_nothing(block):
    model = lively(block)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = call(model)
    inside = record(model, images(), T, Y)
    assert torch.equal(inside.output, plain) and torch.equal(call(model), plain)
    assert plain.std() > 0.1
    assert hooks(model) == 0 and not inside.stream.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("block", ALL)
def test_maps_are_what_attention_used(block):
    """From a block's own input, by plain matrices in float64; and values weighted by them give its output."""
    model = lively(block)
    inside, inputs, outputs = record(model, images(), T, Y), [], []
    for b in model.blocks:
        b.attn.register_forward_hook(lambda _, a, out: (inputs.append(a[0]), outputs.append(out)) and None)
    call(model)
    assert inside.attention.shape[0] == len(inputs) == 3
    for maps, x, out, b in zip(inside.attention, inputs, outputs, model.blocks):
        q, k, v = rearrange(b.attn.qkv(x).double(), "n t (three h d) -> three n h t d", three=3, h=2)
        expected = torch.softmax(q @ k.mT / 8**0.5, dim=-1)  # width 16 on 2 heads: d = 8
        assert torch.allclose(maps.double(), expected, atol=1e-5)
        mixed = rearrange(maps @ v.float(), "n h t d -> n t (h d)")
        assert torch.allclose(b.attn.proj(mixed), out, atol=1e-4)
        assert maps.std() > 0.02  # they do choose
        assert not torch.allclose(maps, maps.mT, atol=0.01)  # a transposed map would be found out


@pytest.mark.parametrize("block", ALL)
def test_stream_can_be_continued_from_anywhere(block):
    model = lively(block)
    inside = record(model, images(), T, Y)
    for k in range(4):
        tokens = inside.stream[k]
        with torch.no_grad():
            for b, cond in list(zip(model.blocks, inside.cond))[k:]:
                tokens = b(tokens, cond)
            assert torch.equal(decode(model, tokens, inside.cond[-1]), inside.output)
    extra = 2 if block == "in_context" else 0
    assert inside.stream.shape == (4, 3, 6 + extra, 16)


@pytest.mark.parametrize("block", ALL)
def test_lens_ends_with_the_answer(block):
    model = lively(block)
    inside = record(model, images(), T, Y)
    answers = lens(model, inside)
    assert answers.shape == (4, *inside.output.shape) and torch.equal(answers[-1], inside.output)
    assert (answers[0] - answers[-1]).abs().max() > 0.1


def test_modulations_by_name():
    model = lively("adaln_zero")
    named = record(model, images(), T, Y).modulations
    c = (model.t_embedder(T) + model.y_embedder.embedding_table(Y)).detach()  # (N, D)
    for k, block in enumerate(model.blocks):
        out = block.adaLN_modulation[1](torch.nn.functional.silu(c)).detach()
        order = [(b, f) for b in ("attention", "mlp") for f in ("shift", "scale", "gate")]
        for (branch, field), expected in zip(order, out.chunk(6, dim=1)):
            assert torch.allclose(getattr(named[branch], field)[k, :, 0], expected, atol=1e-5)
            assert torch.allclose(modulation_map(model, field, branch, T, Y)[k], expected, atol=1e-5)


def test_where_there_are_no_modulations():
    for block in ("in_context", "cross_attention"):
        model = lively(block)
        assert record(model, images(), T, Y).modulations == {}
        with pytest.raises(ValueError, match=f"{block} blocks has no shift"):
            modulation_map(model, "shift", "mlp", T, Y)
    model = lively("adaln")
    assert record(model, images(), T, Y).modulations["mlp"].gate == 1.0
    assert modulation_map(model, "scale", "mlp", T, Y).shape == (3, 3, 16)
    with pytest.raises(ValueError, match="no gate"):
        modulation_map(model, "gate", "attention", T, Y)
    with pytest.raises(ValueError, match="quantity is 'volume'"):
        modulation_map(model, "volume", "attention", T, Y)
    with pytest.raises(ValueError, match="branch is 'msa'"):
        modulation_map(model, "gate", "msa", T, Y)


def test_cross_attention_maps():
    model = lively("cross_attention")
    inside = record(model, images(), T, Y)
    assert inside.cross.shape == (3, 3, 2, 6, 2)
    assert torch.allclose(inside.cross.sum(-1), torch.ones(3, 3, 2, 6)) and inside.cross.std() > 0.02
    assert record(lively("adaln"), images(), T, Y).cross is None


def test_unconditional_model():
    model = lively("adaln_zero", num_classes=0)
    inside = record(model, images(), T)
    with torch.no_grad():
        assert torch.equal(inside.output, model(images(), T))


@pytest.mark.parametrize("block", ALL)
def test_hooks_go_after_an_error(block):
    model = lively(block)
    with pytest.raises(ValueError, match="x has shape"):
        record(model, images()[..., :4], T, Y)
    assert hooks(model) == 0
    broken = model.blocks[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(model, images(), T, Y)
    with pytest.raises(ZeroDivisionError), ablate(model, 1):
        call(model)
    broken.remove()
    assert hooks(model) == 0


def test_train_mode_is_refused():
    with pytest.raises(ValueError, match="eval"):
        record(lively("adaln_zero").train(), images(), T, Y)


@pytest.mark.parametrize("block", ALL)
def test_ablation_is_a_changed_weight(block):
    """Times `keep` is the same as scaled weights and bias of the branch's last layer; and then it is over."""
    model, plain = lively(block), call(lively(block))
    parts = {"attention": "attn.proj", "mlp": "mlp.fc2"}
    if block == "cross_attention":
        parts["cross"] = "cross_attn.proj"
    for branch, name in parts.items():
        twin = lively(block)
        last = twin.blocks[1].get_submodule(name)
        with torch.no_grad():
            last.weight.mul_(0.5)
            last.bias.mul_(0.5)
        with ablate(model, 1, branch, 0.5):
            changed = call(model)
        assert torch.equal(changed, call(twin)) and (changed - plain).abs().max() > 1e-3
        assert torch.equal(call(model), plain)
        with ablate(model, 1, branch, 1.0):
            assert torch.equal(call(model), plain)


@pytest.mark.parametrize("block", ALL)
def test_a_removed_block_is_the_identity(block):
    model = lively(block)
    with ablate(model, 1):
        stream = record(model, images(), T, Y).stream
    assert torch.equal(stream[1], stream[2]) and not torch.equal(stream[2], stream[3])


def test_ablations_nest():
    model, plain = lively("adaln_zero"), call(lively("adaln_zero"))
    with ablate(model, 0), ablate(model, 1), ablate(model, 2):
        bare = record(model, images(), T, Y)
    assert torch.equal(bare.stream[0], bare.stream[3])
    assert torch.equal(call(model), plain)


@pytest.mark.parametrize("block", [-1, 3, 1.0, "0"])
def test_wrong_block(block):
    with pytest.raises(ValueError, match="must be 0 to 2"), ablate(lively("adaln"), block):
        pass


def test_wrong_branch():
    model = lively("adaln")
    with (
        pytest.raises(ValueError, match="branch is 'cross'.* attention, mlp, all"),
        ablate(model, 0, "cross"),
    ):
        pass
    assert hooks(model) == 0


def slow_offsets(maps, rows, columns):
    """One pair of patches at a time."""
    sums, counts = torch.zeros(2, 2 * rows - 1, 2 * columns - 1)
    for i in range(rows * columns):
        for j in range(rows * columns):
            at = j // columns - i // columns + rows - 1, j % columns - i % columns + columns - 1
            sums[at] += maps[i, j]
            counts[at] += 1
    return sums / counts


def test_offsets_and_distance():
    maps = torch.rand(2, 5, 6, 6, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    offsets = attention_by_offset(maps, (2, 3))
    assert offsets.shape == (2, 5, 3, 5)
    assert torch.allclose(offsets[1, 4], slow_offsets(maps[1, 4], 2, 3))
    assert not torch.allclose(offsets, attention_by_offset(maps.mT, (2, 3)))
    assert torch.allclose(attention_distance(torch.eye(6), (2, 3)), torch.tensor(0.0))
    far = torch.eye(6)[[5, 4, 3, 2, 1, 0]]  # each looks at its mirror image
    expected = (4 * 5**0.5 + 2 * 1) / 6
    assert torch.allclose(attention_distance(far, (2, 3)), torch.tensor(expected))
    assert attention_distance(maps, (2, 3)).shape == (2, 5)
    with pytest.raises(ValueError, match="8, 8.* 6 patches"):
        attention_distance(torch.eye(8), (2, 3))  # an in-context model's: t and y must be cut off first
