"""A run that is killed with SIGKILL, at any moment and as often as one likes, ends with the very same weights."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

STEPS = 24
COMMAND = f"""train --data digits --steps {STEPS} --save-every 4 --keep 2 --sample-every 1000 --batch-size 16
--hidden-size 32 --depth 2 --num-heads 2 --lr 0.002 --lr-schedule cosine --warmup-steps 5 --ema-decay 0.9
--precision fp32 --grad-clip 1.0 --flip --seed 3""".split()
# Each step takes a little longer, so that a kill can fall inside it, and inside the writing of a checkpoint.
SLOWED = """
import sys, time
from dit_nb import checkpoint as runs
real_save = runs.save_file
def slow_save(tensors, path):
    real_save(tensors, path)
    time.sleep(0.08)
runs.save_file = slow_save
from dit_nb.cli import main
from dit_nb.training import Trainer
real_step = Trainer.train_step
def slow_step(self, *a):
    time.sleep(0.02)
    return real_step(self, *a)
Trainer.train_step = slow_step
sys.exit(main(sys.argv[1:]))
"""


def start(out: Path, *more: str) -> subprocess.Popen:
    """Begin a run in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SLOWED, *COMMAND, "--out", str(out), *more]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(out: Path, *more: str) -> None:
    """Let a run come to its end."""
    process = start(out, *more)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def fingerprint(out: Path) -> dict[str, str]:
    """Hashes of the weights, averaged and not, that a run ended with."""
    files = {"average": out / "model/model.safetensors"}
    files["last"] = out / f"checkpoints/step-{STEPS:08d}/model.safetensors"
    tensors = {name: load_file(path) for name, path in files.items()}
    return {
        f"{name}.{key}": hashlib.sha256(value.numpy().tobytes()).hexdigest()
        for name, group in tensors.items()
        for key, value in group.items()
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run that nothing happened to."""
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(out)
    return fingerprint(out)


def wait_for_checkpoint(process: subprocess.Popen, out: Path) -> None:
    """Until the first checkpoint stands, or begins to."""
    deadline = time.time() + 120
    while not any((out / "checkpoints").glob("*step-*")):
        assert process.poll() is None and time.time() < deadline, process.stdout.read()
        time.sleep(0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_and_resumed(uninterrupted, tmp_path, seed):
    rng, kills = random.Random(seed), 0
    process = start(tmp_path)
    wait_for_checkpoint(process, tmp_path)
    for _ in range(2):
        time.sleep(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if not any((tmp_path / "checkpoints").glob("step-*")):  # killed while writing the first: start anew
            process = start(tmp_path)
            wait_for_checkpoint(process, tmp_path)
            continue
        process = start(tmp_path, "--resume")
        time.sleep(rng.uniform(2.0, 6.0))
    process.communicate(timeout=300)
    if process.returncode:
        finish(tmp_path, "--resume")
    assert kills >= 1
    assert fingerprint(tmp_path) == uninterrupted
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2, "the last k are kept"


def test_killed_while_a_checkpoint_is_written(uninterrupted, tmp_path):
    process = start(tmp_path)
    folder, deadline = tmp_path / "checkpoints", time.time() + 120
    while not list(folder.glob(".step-00000008.tmp")):
        assert process.poll() is None and time.time() < deadline, process.stdout.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [p.name for p in sorted(folder.glob("step-*"))] == ["step-00000004"]
    finish(tmp_path, "--resume")
    assert fingerprint(tmp_path) == uninterrupted
    assert not list(folder.glob(".*")), "what was half written is gone"
