"""MM-DiT against diffusers' classes on copied random weights, and by identities of padding, null text and order."""

import dataclasses
import math

import pytest
import torch
from diffusers.models.attention import JointTransformerBlock

from dit_nb.config import TrainConfig
from dit_nb.ema import EMA
from dit_nb.errors import UserError
from dit_nb.guidance import Guided
from dit_nb.interop.sd3 import _joint_block_from_sd3
from dit_nb.model import DiT
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.mmdit import JointBlock, MMDiT, MMDiTConfig, joint_attention
from dit_nb.since.text import Vocabulary, masked_attention
from dit_nb.speed import InferenceModel

WORDS = Vocabulary.of(["3d green apple", "flat red apple", "flat face"]).words
TINY = MMDiTConfig(
    input_size=8,
    patch_size=2,
    in_channels=3,
    hidden_size=16,
    depth=3,
    num_heads=4,
    text_width=12,
    pooled_width=12,
    vocabulary=WORDS,
    text_length=6,
)


def random_model(config=TINY):
    "A model without any weight that is zero."
    torch.manual_seed(0)
    model = MMDiT(config).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "pos_embed":
                weight.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def inputs(model):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 8, 8, generator=g).double()
    return x, torch.tensor([30.0, 870.0]), model.encode_text(["3d green apple", "face"])


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_joint_attention_is_one_softmax_over_both_streams():
    g = torch.Generator().manual_seed(4)
    image, text = ([torch.randn(2, 3, n, 4, generator=g).double() for _ in range(3)] for n in (5, 3))
    keep = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    got_image, got_text = joint_attention(tuple(image), tuple(text), keep)
    q, k, v = (torch.cat([b, a], 2) for a, b in zip(image, text))  # text first: the order does not matter
    scores = q @ k.mT / 2
    scores[:, :, :, :3] = scores[:, :, :, :3].masked_fill(~keep[:, None, None], -math.inf)
    wanted = scores.softmax(-1) @ v
    torch.testing.assert_close(got_image, wanted[:, :, 3:])
    torch.testing.assert_close(got_text, wanted[:, :, :3])


def test_padding_cannot_change_a_picture(model, inputs):
    x, t, y = inputs
    with torch.no_grad():
        wanted = model(x, t, y)
        assert relative(model(x, t, y[:, :3]), wanted) < 1e-12  # fewer columns of padding
        assert relative(model(x[1:], t[1:], y[1:, :1]), wanted[1:]) < 1e-12  # none at all, alone
        text = model.y_embedder(y)
        other = torch.where(text.keep[..., None], text.tokens, 100 * torch.randn_like(text.tokens))
        assert relative(model.predict(x, t, text._replace(tokens=other)), wanted) < 1e-12
        unmasked = text._replace(keep=torch.ones_like(text.keep))  # the mistake
        assert relative(model.predict(x, t, unmasked), wanted) > 1e-3


def test_a_broken_mask_fails_that_test(model, inputs, monkeypatch):
    x, t, y = inputs

    def unmasked(q, k, v, keep):
        return masked_attention(q, k, v, torch.ones_like(keep))

    monkeypatch.setattr("dit_nb.since.mmdit.masked_attention", unmasked)
    with torch.no_grad():
        assert relative(model(x, t, y[:, :3]), model(x, t, y)) > 1e-3


def test_null_text_is_a_row_of_padding(model, inputs):
    x, t, y = inputs
    assert model.null_class == 0 and model.takes_y
    with torch.no_grad():
        null = model(x, t, torch.zeros_like(y))
        dropped = model(x, t, y, drop=torch.tensor([True, False]))
        torch.testing.assert_close(dropped[0], null[0])
        torch.testing.assert_close(dropped[1], model(x, t, y)[1])
        assert relative(null, model(x, t, y)) > 1e-3
        guided = Guided(model, 3.0)(x, t, y)
        torch.testing.assert_close(guided, null + 3 * (model(x, t, y) - null))
    model_without = random_model(dataclasses.replace(TINY, class_dropout_prob=0.0))
    assert model_without.null_class is None


def test_tokens_and_pooled_vector_both_matter(model, inputs):
    x, t, y = inputs
    with torch.no_grad():
        text, wanted = model.y_embedder(y), model(x, t, y)
        swapped = text.pooled.flip(0)
        assert relative(model.predict(x, t, text._replace(pooled=swapped)), wanted) > 1e-3
        tokens = text.tokens + 0.5 * text.keep[..., None]
        assert relative(model.predict(x, t, text._replace(tokens=tokens)), wanted) > 1e-3


def test_a_new_model_returns_zero_and_both_streams_get_gradients(inputs):
    x, t, y = inputs
    torch.manual_seed(0)
    assert not MMDiT(TINY)(x.float(), t, y).any()
    model = random_model().train()
    model(x, t, y, drop=torch.tensor([False, False])).square().mean().backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    blocked = [name for name, grad in trained.items() if grad is None or not grad.any()]
    assert blocked == ["blocks.2.text.norm_q.weight"]  # no query of the last block's text is used
    last = model.blocks[-1]
    assert last.context_pre_only and not hasattr(last.text, "mlp")


def test_gradient_checkpointing_changes_nothing(inputs):
    x, t, y = inputs
    grads = []
    for recompute in (False, True):
        model = random_model().train()
        model.gradient_checkpointing = recompute
        model(x, t, y, drop=torch.zeros(2, dtype=torch.bool)).square().mean().backward()
        grads.append(model.blocks[0].text.attn.qkv.weight.grad)
    torch.testing.assert_close(*grads)


def test_saved_models_are_found_again_as_mmdit(tmp_path, inputs):
    x, t, y = inputs
    model = random_model().float()
    model.save_pretrained(tmp_path)
    for loader in (DiT, MMDiT):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is MMDiT and loaded.config == TINY
        assert torch.equal(loaded(x.float(), t, y), model(x.float(), t, y))
    assert "model.encode_text" in (tmp_path / "README.md").read_text()
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"MMDiT"', '"Unheard"'))
    with pytest.raises(UserError, match="Unheard"):
        DiT.from_pretrained(tmp_path)


def test_average_and_inference_copy_work(model, inputs):
    x, t, y = inputs
    with torch.no_grad():
        wanted = model(x, t, y)
    torch.testing.assert_close(InferenceModel(model)(x, t, y), wanted)
    assert type(EMA(model, 0.9).model) is MMDiT
    flow = RectifiedFlow().respaced("2")
    images = flow_sample(flow, Guided(InferenceModel(model), 2.0), tuple(x.shape), y, x_T=x, progress=False)
    assert images.shape == x.shape and images.isfinite().all()


def test_two_updates_of_a_trainer():
    from dit_nb.since.text import CaptionSet
    from dit_nb.training import Trainer

    torch.manual_seed(0)
    data = CaptionSet(torch.rand(8, 3, 8, 8) * 2 - 1, Vocabulary(WORDS).encode(["3d apple"] * 8, 6), 0.1)
    model = MMDiT(TINY)
    trainer = Trainer(model, RectifiedFlow(), data, TrainConfig(steps=2, batch_size=4, precision="fp32"))
    average = trainer.fit(progress=False)
    assert type(average) is MMDiT and trainer.progress.step == 2


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(model, inputs):
    x, t, y = inputs
    with torch.no_grad():
        wanted = model(x, t, y)
        there = random_model().cuda()
        got = there(x.cuda(), t.cuda(), y.cuda())
        assert there.encode_text(["3d green apple"]).is_cuda
        assert relative(got.cpu(), wanted) < 1e-9
        assert relative(there(x.cuda(), t.cuda(), y[:, :3].cuda()), got) < 1e-9


def test_unfit_arguments_are_named(model, inputs):
    x, t, y = inputs
    cases = {
        "y is missing": (x, t, None),
        "y is torch.float32": (x, t, y.float()),
        "y has 9 columns": (x, t, torch.zeros(2, 9, dtype=torch.long)),
        "y holds ids from 0 to 99": (x, t, torch.tensor([[0, 99], [1, 2]])),
        r"shape \(3, 6\)": (x, t, y[[0, 0, 1]]),
    }
    for message, args in cases.items():
        with pytest.raises(UserError, match=message):
            model(*args)
    with pytest.raises(UserError, match="'aple'.*apple"):
        model.encode_text(["3d green aple"])
    for change in (
        {"num_classes": 3},
        {"text_length": 0},
        {"qk_norm": 1},
        {"text_width": 14},
        {"block": "adaln"},
    ):
        with pytest.raises(UserError, match=next(iter(change))):
            dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("pre_only", [False, True])
def test_the_block_is_that_of_diffusers(qk_norm, pre_only):
    torch.manual_seed(2)
    theirs = JointTransformerBlock(24, 3, 8, pre_only, qk_norm).double()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ours = JointBlock(24, 3, 4.0, qk_norm is not None, pre_only).double()
    ours.load_state_dict(_joint_block_from_sd3(theirs.state_dict(), pre_only))
    x, context, c = torch.randn(2, 9, 24), torch.randn(2, 5, 24), torch.randn(2, 24)
    x, context, c = x.double(), context.double(), c.double()
    with torch.no_grad():
        their_text, their_image = theirs(x, context, c)  # text first
        image, text = ours(x, context, c, torch.ones(2, 5, dtype=torch.bool))
        most = 1e-7 if qk_norm else 1e-12  # their RMSNorm takes its mean in float32
        assert relative(image, their_image) < most
        assert torch.equal(text, context) if pre_only else relative(text, their_text) < most
        if pre_only:  # without the swap of shift and scale
            ours.load_state_dict(_joint_block_from_sd3(theirs.state_dict()))
            assert relative(ours(x, context, c, torch.ones(2, 5, dtype=torch.bool))[0], their_image) > 1e-3
