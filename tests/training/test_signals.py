"""Signals: a run saves and exits after SIGTERM or SIGUSR1; handlers of others are left alone."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from dit_nb.checkpoint import checkpoints
from dit_nb.cli import main
from dit_nb.signals import Stopped, StopSignals, _ended_by_signals
from support_training import TRAIN, make_trainer

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_inside_the_block_only(number):
    signals = StopSignals()
    with signals.caught():
        assert signals.received == 0
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in SIGNALS)


def test_signals_are_not_caught_if_not_wanted_or_in_another_thread():
    def look():
        with signals.caught():
            seen.append(signal.getsignal(signal.SIGTERM))

    signals, seen = StopSignals(), []
    with signals.caught(enabled=False):
        seen.append(signal.getsignal(signal.SIGTERM))
    thread = threading.Thread(target=look)
    thread.start(), thread.join()
    assert seen == [signal.SIG_DFL] * 2


def test_handlers_of_others_are_left_alone():
    calls = []
    signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
    try:
        signals = StopSignals()
        with signals.caught():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert calls == [1] and signals.received == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert calls == [1, 1]
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_saves_its_step_and_exits(number, tmp_path, capsys):
    def send(trainer, losses):
        if trainer.progress.step == 3:
            os.kill(os.getpid(), number)

    config = replace(TRAIN, steps=20, save_every=10)
    trainer = make_trainer(config, out=tmp_path, on_step=[send])
    with pytest.raises(SystemExit) as stop:
        trainer.fit(progress=False)
    assert isinstance(stop.value, Stopped) and stop.value.code == 128 + number
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert f"{signal.Signals(number).name} after step 3, which is saved" in capsys.readouterr().err
    resumed, whole = make_trainer(config, out=tmp_path), make_trainer(replace(config, save_every=None))
    resumed.resume()
    averages = [run.fit(progress=False).state_dict() for run in (resumed, whole)]
    assert all((averages[0][name] == value).all() for name, value in averages[1].items())
    assert resumed.progress.history == whole.progress.history


def test_a_signal_in_the_last_step_changes_nothing(tmp_path):
    def send(trainer, losses):
        if trainer.progress.step == TRAIN.steps:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_trainer(out=tmp_path, on_step=[send])
    trainer.fit(progress=False)
    assert trainer.progress.step == TRAIN.steps


GROUP = """
import sys
from pathlib import Path
from dataclasses import replace
from support_training import TRAIN, Latents, make_trainer
def started(trainer, losses):
    if trainer.progress.step == 3:
        print("started", flush=True)
config = replace(TRAIN, steps=10**6, save_every=10**6, num_workers=2)
make_trainer(config, data=Latents(), out=Path(sys.argv[1]), on_step=[started]).fit(progress=False)
"""


def test_a_signal_to_the_process_group_reaches_the_workers_too(tmp_path):
    """As SLURM sends it: to the run and to the workers of its DataLoader at once."""
    path = os.pathsep.join(map(str, sys.path))
    words = [sys.executable, "-c", GROUP, str(tmp_path)]
    run = subprocess.Popen(
        words,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert run.stdout.readline() == "started\n"
    os.killpg(run.pid, signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, errors
    assert "which is saved" in errors and "Traceback" not in errors and len(checkpoints(tmp_path)) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_outside_of_the_loop_ends_the_command_with_a_sentence(number, monkeypatch, capsys):
    def run(options):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was ignored")

    monkeypatch.setattr("dit_nb.commands.convert.run", run)
    assert main(["convert", "a", "b", "--to", "official"]) == 128 + number
    assert f"stopped by {signal.Signals(number).name} outside of the training loop" in capsys.readouterr().err
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_fork_of_a_command_dies_of_a_signal_as_by_default():
    with _ended_by_signals():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM


def test_a_run_inside_a_command_still_ends_after_its_step():
    signals = StopSignals()
    with _ended_by_signals(), signals.caught():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
