"""Recording changes nothing and is true for all four blocks; ablation equals scaled weights."""

import pytest
import torch
from einops import rearrange

from dit_nb.anatomy import (
    _decode_tokens,
    ablate,
    attention_by_offset,
    attention_distance,
    logit_lens,
    modulation_map,
    record_activations,
)
from dit_nb.config import DiTConfig
from dit_nb.model import BLOCKS, DiT

ALL = sorted(BLOCKS)
T = torch.tensor([0, 40, 999])
Y = torch.tensor([1, 9, 10])


def random_model(block, **fields):
    """A small DiT whose weights are all random: zero-initialized ones would make every test pass."""
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


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("block", ALL)
def test_recording_changes_nothing(block):
    model = random_model(block)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = call(model)
    inside = record_activations(model, images(), T, Y)
    assert torch.equal(inside.output, plain) and torch.equal(call(model), plain)
    assert plain.std() > 0.1
    assert hook_count(model) == 0 and not inside.stream.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("block", ALL)
def test_recorded_weights_are_those_that_attention_used(block):
    """From a block's own input, by plain matrices in float64; and values weighted by them give its output."""
    model = random_model(block)
    inside, inputs, outputs = record_activations(model, images(), T, Y), [], []
    for b in model.blocks:
        b.attn.register_forward_hook(lambda _, a, out: (inputs.append(a[0]), outputs.append(out)) and None)
    call(model)
    assert inside.attention.shape[0] == len(inputs) == 3
    for weights, x, out, b in zip(inside.attention, inputs, outputs, model.blocks):
        q, k, v = rearrange(b.attn.qkv(x).double(), "n t (three h d) -> three n h t d", three=3, h=2)
        expected = torch.softmax(q @ k.mT / 8**0.5, dim=-1)  # width 16 on 2 heads: d = 8
        assert torch.allclose(weights.double(), expected, atol=1e-5)
        mixed = rearrange(weights @ v.float(), "n h t d -> n t (h d)")
        assert torch.allclose(b.attn.proj(mixed), out, atol=1e-4)
        assert weights.std() > 0.02  # they are not uniform
        assert not torch.allclose(weights, weights.mT, atol=0.01)  # transposed weights would fail above


@pytest.mark.parametrize("block", ALL)
def test_stream_can_be_continued_from_anywhere(block):
    model = random_model(block)
    inside = record_activations(model, images(), T, Y)
    for k in range(4):
        tokens = inside.stream[k]
        with torch.no_grad():
            for b in model.blocks[k:]:
                tokens = b(tokens, inside.c)
            assert torch.equal(_decode_tokens(model, tokens, inside.c), inside.output)
    extra = 2 if block == "in_context" else 0
    assert inside.stream.shape == (4, 3, 6 + extra, 16)


@pytest.mark.parametrize("block", ALL)
def test_logit_lens_ends_with_the_output(block):
    model = random_model(block)
    inside = record_activations(model, images(), T, Y)
    predictions = logit_lens(model, inside)
    assert predictions.shape == (4, *inside.output.shape) and torch.equal(predictions[-1], inside.output)
    assert (predictions[0] - predictions[-1]).abs().max() > 0.1


def test_modulations_by_name():
    model = random_model("adaln_zero")
    named = record_activations(model, images(), T, Y).modulations
    c = (model.t_embedder(T) + model.y_embedder.embedding_table(Y)).detach()  # (N, D)
    for k, block in enumerate(model.blocks):
        out = block.adaLN_modulation[1](torch.nn.functional.silu(c)).detach()
        order = [(b, f) for b in ("attention", "mlp") for f in ("shift", "scale", "gate")]
        for (branch, field), expected in zip(order, out.chunk(6, dim=1)):
            assert torch.allclose(getattr(named[branch], field)[k, :, 0], expected, atol=1e-5)
            assert torch.allclose(modulation_map(model, field, branch, T, Y)[k], expected, atol=1e-5)


def test_blocks_without_modulations():
    for block in ("in_context", "cross_attention"):
        model = random_model(block)
        assert record_activations(model, images(), T, Y).modulations == {}
        with pytest.raises(ValueError, match=f"quantity.*'shift'.*{block}"):
            modulation_map(model, "shift", "mlp", T, Y)
    model = random_model("adaln")
    assert record_activations(model, images(), T, Y).modulations["mlp"].gate == 1.0
    assert modulation_map(model, "scale", "mlp", T, Y).shape == (3, 3, 16)
    with pytest.raises(ValueError, match="quantity.*'gate'.*adaln"):
        modulation_map(model, "gate", "attention", T, Y)
    with pytest.raises(ValueError, match="quantity.*'volume'.*shift"):
        modulation_map(model, "volume", "attention", T, Y)
    with pytest.raises(ValueError, match="branch.*'msa'.*attention"):
        modulation_map(model, "gate", "msa", T, Y)


def test_cross_attention_weights():
    model = random_model("cross_attention")
    inside = record_activations(model, images(), T, Y)
    assert inside.cross.shape == (3, 3, 2, 6, 2)
    assert torch.allclose(inside.cross.sum(-1), torch.ones(3, 3, 2, 6)) and inside.cross.std() > 0.02
    assert record_activations(random_model("adaln"), images(), T, Y).cross is None


def test_unconditional_model():
    model = random_model("adaln_zero", num_classes=0)
    inside = record_activations(model, images(), T)
    with torch.no_grad():
        assert torch.equal(inside.output, model(images(), T))


@pytest.mark.parametrize("block", ALL)
def test_hooks_are_removed_after_an_error(block):
    model = random_model(block)
    with pytest.raises(ValueError, match="x.*shape"):
        record_activations(model, images()[..., :4], T, Y)
    assert hook_count(model) == 0
    broken = model.blocks[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record_activations(model, images(), T, Y)
    with pytest.raises(ZeroDivisionError), ablate(model, 1):
        call(model)
    broken.remove()
    assert hook_count(model) == 0


def test_train_mode_is_an_error():
    with pytest.raises(ValueError, match="eval"):
        record_activations(random_model("adaln_zero").train(), images(), T, Y)


@pytest.mark.parametrize("block", ALL)
def test_ablation_is_a_changed_weight(block):
    """`keep` equals scaled weights and bias of the branch's last layer; afterwards the model is as before."""
    model, plain = random_model(block), call(random_model(block))
    parts = {"attention": "attn.proj", "mlp": "mlp.fc2"}
    if block == "cross_attention":
        parts["cross"] = "cross_attn.proj"
    for branch, name in parts.items():
        twin = random_model(block)
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
    model = random_model(block)
    with ablate(model, 1):
        stream = record_activations(model, images(), T, Y).stream
    assert torch.equal(stream[1], stream[2]) and not torch.equal(stream[2], stream[3])


@pytest.mark.parametrize("by", ["mean", "resample"])
def test_other_replacements(by):
    """Images that are all alike do not notice; otherwise the stream gets the mean, or the output of the image before."""
    model = random_model("adaln_zero")
    outs = []
    with model.blocks[1].mlp.register_forward_hook(lambda _, args, out: outs.append(out)):
        plain = call(model)
    with (
        ablate(model, 1, "mlp", by=by),
        model.blocks[1].mlp.register_forward_hook(lambda _, args, out: outs.append(out)),
    ):
        changed = call(model)
    expected = outs[0].mean(0, keepdim=True).expand_as(outs[0]) if by == "mean" else outs[0].roll(1, 0)
    assert torch.allclose(outs[1], expected) and not torch.allclose(changed, plain)
    alike = [v[:1].expand(3, *v.shape[1:]) for v in (images(), T, Y)]
    with torch.no_grad():
        plain = model(*alike)
        with ablate(model, 1, by=by):
            assert torch.allclose(model(*alike), plain, atol=1e-5 * float(plain.abs().max()))


def test_wrong_replacement():
    model = random_model("adaln")
    with pytest.raises(ValueError, match="by.*'noise'.*zero, mean, resample"), ablate(model, 0, by="noise"):
        pass
    assert hook_count(model) == 0


def test_ablations_nest():
    model, plain = random_model("adaln_zero"), call(random_model("adaln_zero"))
    with ablate(model, 0), ablate(model, 1), ablate(model, 2):
        bare = record_activations(model, images(), T, Y)
    assert torch.equal(bare.stream[0], bare.stream[3])
    assert torch.equal(call(model), plain)


@pytest.mark.parametrize("block", [-1, 3, 1.0, "0"])
def test_wrong_block(block):
    with pytest.raises(ValueError, match="block.* 0 to 2"), ablate(random_model("adaln"), block):
        pass


def test_wrong_branch():
    model = random_model("adaln")
    with (
        pytest.raises(ValueError, match="branch.*'cross'.* attention, mlp, all"),
        ablate(model, 0, "cross"),
    ):
        pass
    assert hook_count(model) == 0


def slow_offsets(weights, rows, columns):
    """One pair of patches at a time."""
    sums, counts = torch.zeros(2, 2 * rows - 1, 2 * columns - 1)
    for i in range(rows * columns):
        for j in range(rows * columns):
            at = j // columns - i // columns + rows - 1, j % columns - i % columns + columns - 1
            sums[at] += weights[i, j]
            counts[at] += 1
    return sums / counts


def test_offsets_and_distance():
    weights = torch.rand(2, 5, 6, 6, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    offsets = attention_by_offset(weights, (2, 3))
    assert offsets.shape == (2, 5, 3, 5)
    assert torch.allclose(offsets[1, 4], slow_offsets(weights[1, 4], 2, 3))
    assert not torch.allclose(offsets, attention_by_offset(weights.mT, (2, 3)))
    assert torch.allclose(attention_distance(torch.eye(6), (2, 3)), torch.tensor(0.0))
    far = torch.eye(6)[[5, 4, 3, 2, 1, 0]]  # each attends to its mirror image
    expected = (4 * 5**0.5 + 2 * 1) / 6
    assert torch.allclose(attention_distance(far, (2, 3)), torch.tensor(expected))
    assert attention_distance(weights, (2, 3)).shape == (2, 5)
    with pytest.raises(ValueError, match="weights.*8, 8.* 6 "):
        attention_distance(torch.eye(8), (2, 3))  # an in-context model's: drop the tokens of t and y first
