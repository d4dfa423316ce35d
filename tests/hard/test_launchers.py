"""Launchers: exit status, a signal to two processes, and two machines, on this one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dit_nb.checkpoint import checkpoints
from dit_nb.data import image_grid, save_image
from dit_nb.latent_cache import open_latents
from support_latents import linear_images, tiny_vae

MODEL = str(Path(__file__).resolve().parents[2] / "dit_nb" / "models" / "digits")
SAMPLE = f"dit_nb.cli sample {MODEL} --num-samples 4 --steps 3 --batch-size 2 --overwrite".split()
TRAIN = """dit_nb.cli train --data digits --save-every 1000 --sample-every 1000 --batch-size 16 --hidden-size 32 --depth 2
--num-heads 2 --lr 0.002 --precision fp32 --seed 3 --log-every 1 --resume auto""".split()


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


LAUNCHERS = {
    "torchrun": [tool("torchrun"), "--nproc_per_node", "2", "-m"],
    # With --cpu it would start one process, whatever --num_processes says
    "accelerate": [tool("accelerate"), "launch", "--multi_gpu", "--num_processes", "2", "-m"],
}


def popen(*words: str, **environment) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def run(*words: str) -> tuple[int, str]:
    process = popen(*words)
    text = process.communicate(timeout=600)[0]
    return process.returncode, text


def free_port() -> str:
    with socket.socket() as connection:
        connection.bind(("localhost", 0))
        return str(connection.getsockname()[1])


def sample_fifty_times(launcher, folder, cases):
    for _ in range(50):
        status, text = run(*LAUNCHERS[launcher], *SAMPLE, "--out", str(folder / "s.npz"))
        assert status == 0, text
        cases.add()


def test_exit_status_of_torchrun(tmp_path, cases):
    """dit-nb sample in two processes of torchrun: exit status 0 each time"""
    sample_fifty_times("torchrun", tmp_path, cases)


def test_exit_status_of_accelerate(tmp_path, cases):
    """dit-nb sample in two processes of accelerate launch: exit status 0 each time"""
    sample_fifty_times("accelerate", tmp_path, cases)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_encode_and_evaluate_in_two_processes(launcher, tmp_path, cases):
    """dit-nb encode and evaluate in two processes of each launcher: exit status 0, and printed once"""
    tiny_vae().save_pretrained(tmp_path / "vae")
    for i, image in enumerate(linear_images(9, 16, 16)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        save_image(image_grid(image[None], 1), tmp_path / "photos" / f"{i}.png")
    encode = f"encode {tmp_path / 'photos'} --vae {tmp_path / 'vae'} --image-size 16 --out {tmp_path / 'z'}"
    evaluate = f"evaluate {MODEL} digits --num-samples 20 --batch-size 8 --resamples 3"
    for line, last in (
        (encode, "9 images and their mirror images"),
        (evaluate, f"20 images of {MODEL} against"),
    ):
        status, text = run(*LAUNCHERS[launcher], "dit_nb.cli", *line.split())
        assert status == 0 and text.count(last) == 1 and "2 processes" in text, text
        cases.add()
    assert len(open_latents(tmp_path / "z")) == 9


def wait_for_steps(process: subprocess.Popen) -> str:
    """Read what a run says until it trains."""
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("step "):
            return seen
    raise AssertionError(seen)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize("receiver", ["launcher", "rank 1"])
def test_sigterm_in_two_processes(receiver, tmp_path, cases):
    """SIGTERM to the launcher, or to one of two processes: a checkpoint, a sentence, and the run goes on from there"""
    status, text = run(*LAUNCHERS["torchrun"], *TRAIN, "--steps", "300", "--out", str(tmp_path / "whole"))
    assert status == 0, text
    out = tmp_path / "stopped"
    words = [*LAUNCHERS["torchrun"], *TRAIN, "--steps", "300", "--out", str(out)]
    process = popen(*words)
    seen = wait_for_steps(process)
    time.sleep(0.5)
    pid = process.pid if receiver == "launcher" else max(children(process.pid))
    os.kill(pid, signal.SIGTERM)
    seen += process.communicate(timeout=300)[0]
    assert process.returncode != 0 and seen.count("which is saved") == 1, seen
    assert len(checkpoints(out)) == 1
    status, text = run(*words)
    assert status == 0 and "resumed after step" in text, text
    pairs = weights(out), weights(tmp_path / "whole")
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    cases.add()


def test_two_machines(tmp_path, cases):
    """two launchers that meet on localhost, as two machines would, equal one process"""
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--rdzv-id", "test"]
    node = [tool("torchrun"), "--nnodes", "2", "--nproc-per-node", "1", *meet, "-m"]
    words = [*node, *TRAIN, "--steps", "20", "--out", str(tmp_path / "two")]
    nodes = [popen(*words), popen(*words)]
    texts = [process.communicate(timeout=600)[0] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], texts
    assert "".join(texts).count("samples in") == 1
    status, text = run(sys.executable, "-m", *TRAIN, "--steps", "20", "--out", str(tmp_path / "one"))
    assert status == 0, text
    pairs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name in pairs[0]:
        if not name.endswith("qkv.bias"):  # the bias of the keys has no influence
            assert (pairs[0][name] - pairs[1][name]).abs().max() < 1e-5, name
    cases.add()


def test_slurm(tmp_path, cases):
    """processes that srun starts, with the variables of the guide, and SIGUSR1 to all of them"""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    words = [sys.executable, "-m", *TRAIN, "--steps", "100000", "--out", str(tmp_path)]
    ranks = [popen(*words, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    seen = wait_for_steps(ranks[0])
    for process in ranks:
        process.send_signal(signal.SIGUSR1)
    texts = [process.communicate(timeout=300)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [128 + signal.SIGUSR1] * 2, (seen, texts)
    assert "stopped by SIGUSR1" in texts[0] and len(checkpoints(tmp_path)) == 1
    cases.add()
