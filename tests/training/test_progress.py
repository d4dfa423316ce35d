"""Progress of a run: steps, the readings of the losses, a stop at a loss that is not finite, and what is printed."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig, progress
from dit_nb.data import digits
from dit_nb.progress import Logger, Progress, SampleImages
from dit_nb.training import Trainer
from support import raises_input_error
from support_training import TRAIN, make_trainer


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=10)
    settings = TrainConfig(steps=4, batch_size=len(digits().train) // 2, precision="fp32", lr=0.125)
    return Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)


def losses(loss: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "mse": torch.tensor(1.0)}


def test_a_new_run_has_done_nothing():
    assert Progress().state() == {"step": 0, "seconds": 0.0, "history": {}}


def test_time_is_counted_from_the_start(monkeypatch):
    clock = iter([5.0, 10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    done = Progress()
    done.count()  # at 5: the clock did not run before
    assert done.step == 1 and done.seconds == 0
    done.start()
    done.count()  # 2 seconds
    done.start()  # a break of 8 seconds is not counted
    done.count()  # 1 second
    assert done.step == 3 and done.seconds == 3


def test_losses_are_kept_in_order_by_name(trainer):
    for k in (3.0, 6.0):
        trainer.progress.step += 1
        trainer.logger.log(trainer, losses(k))
    trainer.logger.flush(trainer)
    assert trainer.progress.history == {"loss": [3.0, 6.0], "mse": [1.0, 1.0]}


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock by which steps take no time, so that only their number decides when losses are read."""
    ticks = itertools.count(1000, 1e-6)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))


@pytest.mark.parametrize("every,counts", [(1, [1] * 12), (5, [1, 5, 5, 1]), (100, [1, 11])])
def test_losses_are_read_only_every_few_steps(slow_clock, every, counts):
    """The first at once, then `every` at a time, and the last."""
    from dataclasses import replace

    trainer, read = make_trainer(replace(TRAIN, steps=12, log_every=every, save_every=None)), []
    real = trainer.accelerator.reduce

    def reduce(values, reduction):
        read.append(len(values))
        return real(values, reduction)

    trainer.accelerator.reduce = reduce
    trainer.fit(progress=False)
    assert read == counts
    assert len(trainer.progress.history["loss"]) == 12


def test_a_run_alone_reads_after_half_a_second(monkeypatch):
    ticks = itertools.count(1000, 0.3)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    logger, run = (
        Logger(100),
        SimpleNamespace(
            accelerator=SimpleNamespace(num_processes=1, reduce=lambda values, _: values, trackers=[]),
            config=SimpleNamespace(tracker=None, lr=0.1),
            progress=Progress(),
            fraction=0.0,
        ),
    )
    for _ in range(4):
        run.progress.step += 1
        logger.log(run, losses(1.0))
    assert 0 < len(run.progress.history["loss"])
    run.accelerator.num_processes, read = 2, len(run.progress.history["loss"])
    for _ in range(4):
        run.progress.step += 1
        logger.log(run, losses(1.0))
    assert len(run.progress.history["loss"]) == read, "several processes must read together"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(trainer, loss):
    trainer.logger.pending = [losses(1.0), losses(loss), losses(2.0)]
    trainer.progress.step = 7
    with raises_input_error(f"loss is {loss} at step 6.*lr 0.125"):
        trainer.logger.flush(trainer)
    assert trainer.progress.history["loss"] == [1.0]


def test_a_log_file_gets_a_line_per_epoch(trainer, capsys):
    """Half an epoch a step, less half an image: lines for steps 1, 3 (a new epoch) and 4 (the last)."""
    trainer.logger.every = 1
    trainer.fit(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["0", "1", "1"]
    assert all("loss" in line and "s left" in line for line in lines)


def test_several_losses_that_are_read_together_make_one_line(trainer, slow_clock, capsys):
    """Read at step 1, and then steps 2 to 4 at the end."""
    trainer.fit(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split()[3] for line in lines] == ["1", "4"]


def test_nothing_is_printed_without_progress(trainer, capsys):
    trainer.fit(progress=False)
    assert "epoch" not in capsys.readouterr().err


def test_images_of_samples(tmp_path):
    sampled_from = []

    def sample(model):
        sampled_from.append(model)
        return np.zeros((4, 4, 3), np.uint8)

    trainer = make_trainer(out=tmp_path, on_step=[SampleImages(2, sample), SampleImages(None, sample)])
    trainer.fit(progress=False)
    assert sampled_from == [trainer.ema.model] * 2
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["step-00000002.png", "step-00000004.png"]
