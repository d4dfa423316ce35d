"""Runs that are ended at random moments, again and again, have the weights of a run that is left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dit_nb.checkpoint import checkpoints

KILLS = 20
COMMAND = """train --data digits --steps 400 --save-every 9 --keep 2 --keep-every 90 --sample-every 1000 --batch-size 16
--hidden-size 32 --depth 2 --num-heads 2 --lr 0.002 --lr-schedule cosine --warmup-steps 5 --ema-decay 0.9
--precision fp32 --grad-clip 1.0 --flip --seed 3 --val-fraction 0.1 --validate-every 50 --resume auto""".split()


def start(out: Path, *launcher: str, command=COMMAND) -> subprocess.Popen:
    """Start a run, or start it again, and wait until it trains."""
    words = [*(launcher or [sys.executable, "-m"]), "dit_nb.cli", *command, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    process.seen = []
    for line in process.stderr:
        process.seen.append(line)
        if line.startswith("step "):
            break
    return process


def finish(process: subprocess.Popen) -> str:
    """Wait until a process has ended, and return what it said."""
    text = "".join(process.seen) + process.stderr.read()
    process.wait(timeout=300)
    return text


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The final weights, their average, and each loss of a run."""
    last = checkpoints(out)[-1]
    found = {"average": out / "model" / "model.safetensors", "weights": last / "model.safetensors"}
    tensors = {f"{k} {name}": v for k, path in found.items() for name, v in load_file(path).items()}
    history = torch.load(last / "training.pt", weights_only=True)["progress"]["history"]
    return tensors | {f"history {name}": torch.tensor(values) for name, values in history.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    assert "Traceback" not in finish(start(out))
    return weights(out)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_killed(number, uninterrupted, tmp_path, cases):
    """runs ended by a signal at a random moment, again and again, and resumed: weights equal to the last bit"""
    rng, runs = random.Random(int(number)), 0
    while cases.held < KILLS:
        out, done = tmp_path / f"run{runs}", False
        while not done:
            process = start(out)
            time.sleep(rng.uniform(0, 1.5))
            killed = cases.held < KILLS and process.poll() is None
            if killed:
                process.send_signal(number)
            text = finish(process)
            assert "Traceback" not in text, text
            expected = {0} | ({-number, 128 + number} if killed else set())
            assert process.returncode in expected, text
            done = process.returncode == 0
            if not done:
                cases.add()
                assert (
                    number == signal.SIGKILL
                    or "is saved" in text
                    or checkpoints(out)[-1].name.endswith("400")
                )
        result, runs = weights(out), runs + 1
        assert result.keys() == uninterrupted.keys()
        assert all(torch.equal(result[name], value) for name, value in uninterrupted.items())
        assert [path.name for path in checkpoints(out)][:2] == ["step-00000090", "step-00000180"]
        assert not list((out / "checkpoints").glob(".*")) and not list(out.glob(".unfinished*"))
