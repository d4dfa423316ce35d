"""Checkpoints: a run that is killed with SIGKILL, anywhere, ends with identical weights; other runs are refused."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dit_nb.checkpoint import Checkpointer, checkpoints
from dit_nb.config import SamplingConfig
from dit_nb.pretrained import load_model, make_diffusion
from support import raises_input_error
from support_training import HALFWAY, SHAPE, TRAIN, Latents, fit, make_trainer

STEPS = 24
COMMAND = f"""train --data digits --steps {STEPS} --save-every 4 --keep 2 --sample-every 1000 --batch-size 16
--hidden-size 32 --depth 2 --num-heads 2 --lr 0.002 --lr-schedule cosine --warmup-steps 5 --ema-decay 0.9
--precision fp32 --grad-clip 1.0 --flip --seed 3""".split()
# `python -c KILLED WHERE:N ...` runs dit-nb and sends itself SIGKILL when the N-th call of WHERE has returned.
KILLED = """
import os, signal, sys
from dit_nb import checkpoint
from dit_nb.cli import main
from dit_nb.training import Trainer
where, n = sys.argv.pop(1).split(":")
owner, calls = (Trainer if where == "step" else checkpoint), []
real = getattr(owner, where)
def killing(*args, **options):
    result = real(*args, **options)
    calls.append(1)
    if len(calls) == int(n):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, where, killing)
sys.exit(main(sys.argv[1:]))
"""
# After the 6th step: checkpoint 4 is there. Two files are saved by `save_file` for each checkpoint, so that
# "save_file:3" leaves checkpoint 8 half written, and "_write_checkpoint:3" leaves checkpoint 12 and those before it.
KILLS = {
    "after a step": (["step:6"], [4], []),
    "while the first checkpoint is written": (["save_file:1"], [], [4]),
    "while another checkpoint is written": (["save_file:3"], [4], [8]),
    "before the oldest checkpoint is removed": (["_write_checkpoint:3"], [4, 8, 12], []),
    "after a step, then while a checkpoint is written": (["step:10", "save_file:1"], [4, 8], [12]),
}


def train(out: Path, *more: str, kill: str = "step:0") -> int:
    """Train in a process of its own, and return its exit status."""
    words = [sys.executable, "-c", KILLED, kill, *COMMAND, "--out", str(out), *more]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    return done.returncode


def hashes(out: Path) -> dict[str, str]:
    """Hashes of the last weights and of their average."""
    last, average = checkpoints(out)[-1] / "model.safetensors", out / "model" / "model.safetensors"
    tensors = {(path.name, key): value for path in (last, average) for key, value in load_file(path).items()}
    return {str(key): hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in tensors.items()}


def steps_of(paths) -> list[int]:
    return sorted(int(path.name.split("-")[1].split(".")[0]) for path in paths)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Hashes of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert train(out) == 0
    return hashes(out)


@pytest.mark.slow
@pytest.mark.parametrize("kills, complete, unfinished", KILLS.values(), ids=KILLS)
def test_killed_and_resumed(uninterrupted, tmp_path, kills, complete, unfinished):
    for kill in kills:
        resume = ["--resume"] if checkpoints(tmp_path) else []
        assert train(tmp_path, *resume, kill=kill) == -signal.SIGKILL
    assert steps_of(checkpoints(tmp_path)) == complete
    assert steps_of((tmp_path / "checkpoints").glob(".step-*")) == unfinished
    assert train(tmp_path, *(["--resume"] if checkpoints(tmp_path) else [])) == 0
    assert hashes(tmp_path) == uninterrupted
    assert steps_of(checkpoints(tmp_path)) == [STEPS - 4, STEPS], "`keep` checkpoints are kept"
    assert not list((tmp_path / "checkpoints").glob(".*")), "an unfinished checkpoint is removed"


def test_resuming_without_a_checkpoint(tmp_path):
    with raises_input_error(f"out.*{tmp_path}.*no checkpoint"):
        make_trainer(out=tmp_path).resume()
    with raises_input_error("out.*None"):
        make_trainer().resume()


def test_resuming_with_other_settings(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    for config, shape, pattern in (
        (replace(TRAIN, lr=0.5), SHAPE, f"lr is 0.5.*0.0005.*{checkpoint}"),
        (replace(TRAIN, batch_size=3), SHAPE, f"batch_size is 3.*8.*{checkpoint}"),
        (TRAIN, replace(SHAPE, hidden_size=16), f"hidden_size is 16.*32.*{checkpoint}"),
    ):
        with raises_input_error(pattern):
            make_trainer(config, shape, out=tmp_path).resume()
    with raises_input_error(f"images is 12.*1437.*{checkpoint}"):
        make_trainer(data=Latents(), out=tmp_path).resume()
    longer = make_trainer(replace(TRAIN, grad_accum_steps=2, keep=1, num_workers=1), out=tmp_path)
    longer.resume()
    assert longer.progress.step == 2


def test_resuming_with_other_frozen_weights(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    trainer = make_trainer(out=tmp_path)
    trainer.raw_model.x_embedder.requires_grad_(False)
    with raises_input_error(f"trained parameters is .*{checkpoints(tmp_path)[0]}"):
        trainer.resume()


def test_resuming_with_another_autoencoder(tmp_path):
    fit(make_trainer(HALFWAY, data=Latents(), out=tmp_path))
    other = Latents()
    for vae, pattern in (({"id": "b", "scale": 0.5}, "vae.id is b.* a,"), (None, "vae is None.*'id': 'a'")):
        other.vae = vae
        with raises_input_error(pattern):
            make_trainer(data=other, out=tmp_path).resume()


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "training.pt", "run.json"])
def test_a_damaged_checkpoint(tmp_path, name):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    (checkpoint / name).write_bytes(b"damaged")
    with raises_input_error(f"(?i)checkpoint {checkpoint}"):
        make_trainer(out=tmp_path).resume()


def test_a_folder_with_checkpoints_is_refused_unless_the_run_is_resumed(tmp_path):
    make_trainer(out=tmp_path).fit(progress=False)
    before = sorted(path.name for path in checkpoints(tmp_path))
    with raises_input_error("out is .*no checkpoints.*resume"):
        make_trainer(out=tmp_path).fit(progress=False)
    assert sorted(path.name for path in checkpoints(tmp_path)) == before
    longer = make_trainer(replace(TRAIN, steps=6), out=tmp_path)
    longer.resume()
    longer.fit(progress=False)
    assert longer.progress.step == 6


def test_a_run_is_not_resumed_with_fewer_steps(tmp_path):
    make_trainer(out=tmp_path).fit(progress=False)
    shorter = make_trainer(HALFWAY, out=tmp_path)
    with raises_input_error("steps is 2.*4"):
        shorter.resume()
    assert shorter.progress.step == 0


def test_a_checkpoint_is_a_model(tmp_path):
    """The files that `load_model` reads; without options, the sampling settings are those of the diffusion."""
    trainer = make_trainer(HALFWAY, out=tmp_path)
    trainer.fit(progress=False)
    (checkpoint,) = checkpoints(tmp_path)
    model, sampling = load_model(checkpoint)
    weights = {k: v.to("cpu") for k, v in model.state_dict().items()}
    assert all(torch.equal(weights[k], v.cpu()) for k, v in trainer.raw_model.state_dict().items())
    assert make_diffusion(sampling).betas.tolist() == trainer.diffusion.betas.tolist()
    assert (sampling.bins, sampling.variance, sampling.class_names) == (17, "learned", tuple("0123456789"))
    assert sampling.clip_x0 and sampling.vae is None


def test_sampling_settings_of_a_checkpoint_can_be_given(tmp_path):
    sampling = SamplingConfig(bins=17, cfg_scale=2.0)
    parts = {"checkpointer": Checkpointer(tmp_path, sampling=sampling)}
    make_trainer(HALFWAY, out=tmp_path, **parts).fit(progress=False)
    assert load_model(checkpoints(tmp_path)[0])[1] == sampling
