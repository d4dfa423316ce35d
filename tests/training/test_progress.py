"""Progress of a run: history, a stop at a loss that is not finite, and a line per epoch without a terminal."""

import math

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.data import digits
from dit_nb.progress import Progress
from dit_nb.training import TrainConfig, Trainer


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=10)
    settings = TrainConfig(steps=4, batch_size=len(digits().train) // 2, precision="fp32", lr=0.125)
    return Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)


def test_a_new_run_has_done_nothing():
    assert vars(Progress()) == {"step": 0, "seconds": 0.0, "history": []}


def test_losses_are_kept_in_order(trainer):
    trainer.log({"loss": 3.0, "mse": 2.0, "vb": 1.0})
    trainer.log({"loss": 6.0, "mse": 5.0, "vb": 4.0})
    assert trainer.progress.history == [(3.0, 2.0, 1.0), (6.0, 5.0, 4.0)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(trainer, loss):
    with pytest.raises(ValueError, match=f"loss is {loss} at step 0.*lr 0.125"):
        trainer.log({"loss": loss, "mse": 1.0, "vb": 1.0})
    assert trainer.progress.history == []


def test_a_log_file_gets_a_line_per_epoch(trainer, capsys):
    """Half an epoch a step, less half an image: lines for steps 1, 3 (a new epoch) and 4 (the last)."""
    trainer.fit(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["0", "1", "1"]
    assert all("loss" in line and "s left" in line for line in lines)


def test_nothing_is_printed_without_progress(trainer, capsys):
    trainer.fit(progress=False)
    assert "epoch" not in capsys.readouterr().err
