"""fp16 with a loss scaler: the losses of fp32, skipped steps, and the scaler in a checkpoint; what auto chooses."""

from dataclasses import replace

import pytest
import torch

from dit_nb import training
from dit_nb.training import _mixed_precision
from support import raises_input_error
from support_training import TRAIN, make_trainer

FP16 = replace(TRAIN, precision="fp16", steps=6)


@pytest.fixture
def fp16_on_a_cpu(monkeypatch):
    """Accelerate uses fp16 on GPUs only, but autocast and the scaler of PyTorch work on a CPU too."""
    real = training._make_accelerator

    def make(config, out, precision):
        accelerator = real(config, out, "no")
        accelerator.state._mixed_precision, accelerator.native_amp = precision, True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        return accelerator

    monkeypatch.setattr(training, "_make_accelerator", make)


def history(trainer) -> torch.Tensor:
    trainer.fit(progress=False)
    return torch.tensor(trainer.progress.history["loss"])


def test_fp16_has_the_losses_of_fp32(fp16_on_a_cpu, monkeypatch):
    half = make_trainer(FP16)
    seen = []
    half.raw_model.blocks[0].attn.register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    losses = history(half)
    monkeypatch.undo()
    difference = (losses - history(make_trainer(replace(FP16, precision="fp32")))).abs().max()
    assert set(seen) == {torch.float16} and 0 < difference < 5e-3
    assert {weight.dtype for weight in half.raw_model.parameters()} == {torch.float32}
    assert half.accelerator.scaler.get_scale() == 2.0**12, "it grows twice in six steps"


def test_a_step_whose_gradient_overflows_is_skipped(fp16_on_a_cpu):
    trainer = make_trainer(FP16)
    trainer.accelerator.scaler = trainer.optimizer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [weight.clone() for weight in trainer.raw_model.parameters()]
    losses = trainer.step(next(trainer.batches()))
    assert losses["loss"].isfinite() and not trainer.grad_norm.isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.raw_model.parameters()))
    assert trainer.accelerator.scaler.get_scale() == 2.0**59 and trainer.progress.step == 1


def test_a_checkpoint_keeps_the_scaler(fp16_on_a_cpu, tmp_path):
    """A resumed run ends with identical weights and scale."""
    config = replace(FP16, save_every=4)
    whole = make_trainer(config, out=tmp_path / "whole")
    history(whole)
    first = make_trainer(replace(config, steps=4), out=tmp_path / "parts")
    history(first)
    second = make_trainer(config, out=tmp_path / "parts")
    second.resume()
    assert second.accelerator.scaler.get_scale() == first.accelerator.scaler.get_scale() == 2.0**11
    history(second)
    assert second.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    pairs = zip(second.raw_model.parameters(), whole.raw_model.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_fp16_is_refused_on_a_cpu():
    with raises_input_error("precision is 'fp16', but must be fp32 or bf16 on a CPU"):
        make_trainer(FP16)


@pytest.mark.parametrize(
    "cuda, bf16, capability, wanted",
    [
        (True, True, (8, 0), "bf16"),  # A100
        (True, False, (7, 5), "fp16"),  # T4
        (True, False, (7, 0), "fp16"),  # V100
        (True, False, (6, 1), "no"),  # GTX 1080: float16 is slow
        (False, True, None, "bf16"),
        (False, False, None, "no"),
    ],
)
def test_what_auto_chooses(monkeypatch, cuda, bf16, capability, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(training, "_cpu_has_bf16", lambda: bf16)
    assert _mixed_precision(replace(TRAIN, precision="auto")) == wanted
    for precision, name in (("fp32", "no"), ("bf16", "bf16"), ("fp16", "fp16")):
        assert _mixed_precision(replace(TRAIN, precision=precision)) == name


@pytest.mark.cuda
def test_fp16_on_a_gpu():
    """Digits train as in bf16 and fp32."""
    losses = [history(make_trainer(replace(FP16, precision=name, steps=30))) for name in ("fp16", "fp32")]
    assert (losses[0] - losses[1]).abs().max() < 2e-2
