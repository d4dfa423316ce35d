"""Checkpoints in the background: when they appear, that training goes on meanwhile, and what fails is told."""

import errno
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from dit_nb.background_checkpoint import BackgroundCheckpointer, _result
from dit_nb.checkpoint import checkpoints
from dit_nb.errors import UserError
from dit_nb.pretrained import load_model
from support import raises_input_error, same_weights
from support_training import TRAIN, make_trainer

BACKGROUND = replace(TRAIN, background_save=True)


def trainer_at_step_1(out):
    """A trainer after a step, and its checkpointer."""
    trainer = make_trainer(BACKGROUND, out=out, checkpointer=BackgroundCheckpointer(out))
    trainer.step(next(trainer.batches()))
    return trainer, trainer.checkpointer


def test_a_checkpoint_is_that_of_its_step_and_appears_when_it_is_complete(tmp_path):
    trainer, checkpointer = trainer_at_step_1(tmp_path)
    before = {name: weight.clone() for name, weight in trainer.raw_model.state_dict().items()}
    path = checkpointer.save(trainer)
    for weight in trainer.raw_model.parameters():
        weight.data.fill_(7)
    assert not path.exists() and checkpoints(tmp_path) == []
    checkpointer.finish(trainer)
    assert checkpoints(tmp_path) == [path] and (path / "optimizer").is_dir()
    model = load_model(path, device="cpu", weights="model")[0]
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    checkpointer.finish(trainer)  # nothing is being written: nothing happens
    assert checkpoints(tmp_path) == [path] and not same_weights(model, trainer.raw_model)


def test_without_a_folder_nothing_can_be_saved():
    trainer, checkpointer = trainer_at_step_1(None)
    with raises_input_error("^out is None, .*folder"):
        checkpointer.save(trainer)


def test_the_error_of_the_disk_comes_first():
    """torch.distributed.checkpoint wraps the errors of all processes."""
    disk, other = OSError(errno.ENOSPC, "No space left on device"), RuntimeError("inline_container.cc: pos")
    for errors, kind in (((other, disk), OSError), ((other,), UserError)):
        future = Future()
        future.set_exception(CheckpointException("write", {i: (e, None) for i, e in enumerate(errors)}))
        with pytest.raises(kind) as caught:
            _result(future)
        assert caught.value is disk if kind is OSError else "inline_container.cc: pos" in str(caught.value)
    done = Future()
    done.set_result(None)
    _result(done)
