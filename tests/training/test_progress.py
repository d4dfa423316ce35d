"""Progress of a run: steps, the readings of the losses, a stop at a loss that is not finite, and what is printed."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig, progress
from dit_nb.data import digits
from dit_nb.progress import Logger, Progress
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
    assert Progress().state() == {"step": 0, "seconds": 0.0, "history": {}, "changes": []}


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


class Clock:
    """Stands for the module `time`: each reading is some seconds after the one before."""

    def __init__(self, seconds: float):
        self.ticks = itertools.count(1000, seconds)

    def perf_counter(self) -> float:
        return next(self.ticks)


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock by which steps take no time, so that only their number decides when losses are read."""
    monkeypatch.setattr(progress, "time", Clock(1e-6))


@pytest.mark.parametrize("every,counts", [(1, [1] * 12), (5, [1, 5, 5, 1]), (100, [1, 11])])
def test_losses_are_read_only_every_few_steps(slow_clock, every, counts):
    """The first at once, then `every` at a time, and the last."""
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
    monkeypatch.setattr(progress, "time", Clock(0.3))
    logger, run = (
        Logger(100),
        SimpleNamespace(
            accelerator=SimpleNamespace(num_processes=1, reduce=lambda values, _: values),
            config=SimpleNamespace(steps=None, lr=0.1, save_every=None),
            optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]),
            grad_norm=torch.tensor(1.0),
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
    facts = {"seconds": 1.0, "lr": 0.1}
    trainer.logger.pending = [(facts, losses(value)) for value in (1.0, loss, 2.0)]
    trainer.progress.step = 7
    with raises_input_error(f"loss is {loss} at step 6.*lr 0.125"):
        trainer.logger.flush(trainer)
    assert trainer.progress.history["loss"] == [1.0]


def test_a_log_file_gets_a_line_every_10_seconds(monkeypatch, capsys):
    """The first line at once, the last at the end, and a line when 10 seconds have passed between."""
    trainer = make_trainer(replace(TRAIN, steps=12, log_every=1, save_every=None))
    monkeypatch.setattr(progress, "time", Clock(1.0))
    trainer.fit(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    steps = [int(line.split()[1].split("/")[0]) for line in lines]
    assert steps[0] == 1 and steps[-1] == 12 and 3 <= len(steps) <= 8
    for word in ("/12", "loss", "grad norm", "lr 0.0005", "images/s", "s left"):
        assert all(word in line for line in lines), word


def lines_of_two_processes(monkeypatch, capsys, every: int, steps: int, seconds: float) -> list[str]:
    """What the main process of two prints; each reading of the clock takes some seconds."""
    monkeypatch.setattr(progress, "time", Clock(seconds))
    run = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=2, reduce=lambda values, _: values),
        config=SimpleNamespace(steps=1000, batch_size=4, lr=0.1, save_every=None),
        optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]),
        grad_norm=torch.tensor(1.0),
        progress=Progress(),
        fraction=0.01,
    )
    logger = Logger(every)
    logger.run_log = SimpleNamespace(add=lambda *_: None)
    logger.reporter = progress._Reporter(run, True)
    for step in range(1, steps + 1):
        run.progress.step = step
        logger.log(run, losses(float(step)))
    return capsys.readouterr().err.splitlines()


def test_several_processes_show_a_line_between_two_readings(monkeypatch, capsys):
    """They read together, every 8 steps; between, the main process shows steps and speed, and the last losses."""
    lines = lines_of_two_processes(monkeypatch, capsys, every=8, steps=20, seconds=4.0)
    steps = [int(line.split()[1].split("/")[0]) for line in lines]
    before, after = ([s for s in steps if s < 8], [s for s in steps if s > 8])
    assert before and after and 8 in steps and len(steps) < 20
    assert max(b - a for a, b in zip(steps, steps[1:])) <= 3, "10 seconds are three readings of the clock"
    for step, line in zip(steps, lines):
        assert "images/s" in line and ("loss" in line and "grad norm" in line) == (step >= 8), line
    assert all(f"loss {8:.4f}"[:8] not in line for line in lines if line.startswith("step 1/"))


def test_several_fast_processes_show_the_first_losses_alone(monkeypatch, capsys):
    lines = lines_of_two_processes(monkeypatch, capsys, every=8, steps=20, seconds=1e-6)
    assert [line.split()[1] for line in lines] == ["8/1000"]


def test_a_fast_run_makes_two_lines(slow_clock, capsys):
    make_trainer(replace(TRAIN, steps=12, log_every=1, save_every=None)).fit(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["1/12", "12/12"]


def test_nothing_is_printed_without_progress(trainer, capsys):
    trainer.fit(progress=False)
    assert "step" not in capsys.readouterr().err
