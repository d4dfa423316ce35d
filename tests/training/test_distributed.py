"""Two processes do what one does, with DDP and with FSDP, on a CPU: losses, weights, checkpoints, samples, errors."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dit_nb import DiT
from dit_nb.data import digits, save_image
from dit_nb.distributed import _full_model, _main_process_first, _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from support_training import (
    CASES,
    HALFWAY,
    SHAPE,
    assert_same,
    distance,
    fit,
    fit_case,
    fit_second_half,
    make_trainer,
    without_key_bias,
)

pytestmark = pytest.mark.xdist_group("processes")  # one xdist worker starts the processes, once
ROOT = Path(__file__).resolve().parents[2]
FSDP_CASES = ("plain", "two micro-batches", "gradient checkpointing", "bf16")


def launch(*words: str) -> str:
    """Start several processes, wait for them, return what they printed."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# On a CPU, too. With --cpu, accelerate would start one process, whatever --num_processes says.
BY_ACCELERATE = [tool("accelerate"), "launch", "--multi_gpu", "--num_processes", "2", "-m", "dit_nb.cli"]


def fsdp_config(folder: Path) -> str:
    """The file that the guide Many processes shows, for two processes."""
    guide = json.loads((ROOT / "nbs" / "guides" / "many_processes.ipynb").read_text())
    text = "\n".join("".join(cell["source"]) for cell in guide["cells"])
    config = re.search(r"```yaml\n(.*?)```", text, re.S)[1]
    assert "num_processes: 8" in config
    path = folder / "fsdp.yaml"
    path.write_text(config.replace("num_processes: 8", "num_processes: 2"))
    return str(path)


def run_workers(kind: str, folder: Path, *launcher: str) -> dict:
    """Let two processes work, and return their results."""
    out = folder / "out"
    fit(make_trainer(HALFWAY, out=out / "one"))
    worker = str(Path(__file__).with_name("worker.py"))
    printed = launch(*launcher, worker, str(out), kind, *(FSDP_CASES if kind == "fsdp" else CASES))
    facts = [json.loads((folder / f"facts{rank}.json").read_text()) for rank in (0, 1)]
    return {"results": torch.load(out / "results.pt"), "printed": printed, "facts": facts, "out": out}


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return run_workers("ddp", tmp_path_factory.mktemp("ddp"), tool("torchrun"), "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    return run_workers("fsdp", folder, tool("accelerate"), "launch", "--config_file", fsdp_config(folder))


@pytest.fixture(scope="module")
def one_process():
    """Each case in one process, without accumulation."""
    made = {}
    return lambda name: made.setdefault(name, fit_case(name, accumulate=False))


@pytest.mark.parametrize("name", [name for name in CASES if name != "bf16"])
def test_ddp_equals_one_process(ddp, one_process, name):
    assert_same(ddp["results"][name], one_process(name))


@pytest.mark.parametrize("name", [name for name in FSDP_CASES if name != "bf16"])
def test_fsdp_equals_one_process(fsdp, one_process, name):
    assert_same(fsdp["results"][name], one_process(name))


def test_bf16_is_near_fp32(ddp, fsdp, one_process):
    """8 bits of precision: losses differ by a few thousandths."""
    for results in (ddp["results"], fsdp["results"]):
        assert 0 < distance(results["bf16"], one_process("plain"), "losses") < 5e-3
    weights = one_process("bf16")["weights"] | one_process("bf16")["average"]
    assert {w.dtype for w in weights.values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_resuming_with_another_number_of_processes(kind, request, one_process):
    done = request.getfixturevalue(kind)
    assert_same(done["results"]["one process, then two"], one_process("plain"))
    assert_same(fit_second_half(done["out"] / "two"), one_process("plain"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_checkpoint_in_the_background(kind, request, one_process):
    """Each process writes its shards while training goes on; two processes, and then one, resume from them."""
    done = request.getfixturevalue(kind)
    assert_same(done["results"]["in the background, then two"], one_process("plain"))
    checkpoints = done["out"].parent / "background" / "checkpoints"
    writers = {path.name.split("_")[2] for path in (checkpoints / "step-00000002/optimizer").glob("*.distcp")}
    assert writers == {"0", "1"} or kind == "ddp", "replicas share the work as they like"
    shutil.rmtree(checkpoints / "step-00000004")
    assert_same(fit_second_half(checkpoints.parent), one_process("plain"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_checkpoint_does_not_depend_on_processes(kind, request):
    folder = request.getfixturevalue(kind)["out"] / "two" / "checkpoints" / "step-00000002"
    names = ["ema.safetensors", "model.safetensors"]
    others = ["config.json", "run.json", "sampling.json", "training.pt"]
    assert {path.name for path in folder.iterdir()} == {*names, *others}
    shapes = {k: v.shape for k, v in DiT(SHAPE).state_dict().items()}
    for name in names:
        assert {k: v.shape for k, v in load_file(folder / name).items()} == shapes


def test_only_the_main_process_writes_samples_and_prints(ddp, fsdp):
    for done in (ddp, fsdp):
        first, second = done["facts"]
        assert second["written"] == []
        assert first["sample images"] == 2 and second["sample images"] == 0
        assert first["sampled with full weights"]
        assert len(list((done["out"] / "two" / "samples").iterdir())) == 2
        assert len(re.findall(r"step 2/2 ", done["printed"])) == 1
        assert not list(done["out"].rglob("random_states*"))


def test_fsdp_shards_the_average(ddp, fsdp):
    full = sum(p.numel() for p in DiT(SHAPE).parameters())
    assert [facts["local weights"] for facts in ddp["facts"]] == [full, full]
    shards = [facts["local weights"] for facts in fsdp["facts"]]
    assert sum(shards) == full and max(shards) < 0.6 * full


def test_an_error_on_one_rank_is_raised_on_all(ddp):
    for facts in ddp["facts"]:
        unreadable, uneven, full = facts["errors"]
        assert unreadable == "image 5.jpg cannot be read."
        assert "batch_size is 7" in uneven and "2 processes" in uneven
        assert "No space left on device" in full


def test_in_one_process():
    assert _process_state().num_processes == 1
    assert _main_process_first(lambda: "made") == "made"
    model = DiT(SHAPE)
    assert _full_model(model) is model
    for error in (
        OSError(28, "No space left on device"),
        UserError("a traceback\ndit_nb.errors.UserError: one sentence."),
    ):
        with pytest.raises(ValueError, match="No space left|^one sentence.$"), _raise_on_all_ranks():
            raise error
    missing = FileNotFoundError(2, "No such file or directory", "x.png")
    with pytest.raises(UserError, match=r"^x\.png cannot be read or written: No such file") as caught:
        with _raise_on_all_ranks():
            raise missing
    assert caught.value.__cause__ is missing  # which tells where it was asked for
    refused = ConnectionRefusedError(111, "Connection refused")  # no file
    for bug in (KeyError("x"), ValueError("invalid literal for int()"), refused):  # a bug keeps its traceback
        with pytest.raises(type(bug)) as caught, _raise_on_all_ranks():
            raise bug
        assert caught.value is bug


TRAIN_COMMAND = """train --data digits --batch-size 8 --hidden-size 32 --depth 2 --num-heads 2 --lr 5e-4
--save-every 3 --sample-every 1000 --precision fp32 --ema-decay 0.9 --seed 3""".split()


@pytest.mark.slow
def test_train_command_under_torchrun_and_accelerate(tmp_path):
    """Started by one launcher and resumed by the other, compared with one process."""
    from dit_nb.cli import main

    words = [*TRAIN_COMMAND, "--out", str(tmp_path / "two")]
    by_torchrun = [tool("torchrun"), "--nproc_per_node", "2", "-m", "dit_nb.cli"]
    for launcher, more in (
        (by_torchrun, ["--steps", "3", "--grad-accum-steps", "2"]),
        (BY_ACCELERATE, ["--steps", "6", "--resume"]),
    ):
        printed = launch(*launcher, *words, *more)
        assert printed.count("samples in") == printed.count(", 2 processes\n") == 1
    assert main([*TRAIN_COMMAND, "--out", str(tmp_path / "one"), "--steps", "6"]) == 0
    for place in ("model/model.safetensors", "checkpoints/step-00000006/model.safetensors"):
        two, one = (load_file(tmp_path / name / place) for name in ("two", "one"))
        assert max(without_key_bias(k, (two[k] - one[k]).abs()).max() for k in one) < 2e-6
    histories = [
        torch.load(tmp_path / name / "checkpoints/step-00000006/training.pt")["progress"]["history"]
        for name in ("two", "one")
    ]
    assert histories[0].keys() == histories[1].keys() == {"loss", "mse", "vb"}
    assert torch.allclose(*(torch.tensor(list(history.values())) for history in histories), atol=1e-5)


def test_sample_command_in_two_processes(tmp_path):
    """The same images in the same order; in the last round one of the two processes has nothing to do."""
    from dit_nb.cli import main

    words = [
        "sample",
        str(ROOT / "dit_nb/models/digits"),
        "--num-samples",
        "7",
        "--batch-size",
        "3",
        "--steps",
        "3",
    ]
    assert main([*words, "--out", str(tmp_path / "one.npz")]) == 0
    printed = launch(*BY_ACCELERATE, *words, "--out", str(tmp_path / "two.npz"))
    assert printed.count("7 samples in") == 1
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert one["arr_1"].tolist() == two["arr_1"].tolist()
    assert abs(one["arr_0"].astype(int) - two["arr_0"]).max() <= 1


def test_evaluate_command_in_two_processes(tmp_path):
    """Samples of a model against a folder: the numbers of one process, printed once. An odd number of batches."""
    (tmp_path / "real").mkdir()
    for i, image in enumerate(digits().held_out.images[:50]):
        save_image((127.5 * (image[0] + 1)).round().byte().numpy(), tmp_path / "real" / f"{i:02d}.png")
    model = str(ROOT / "dit_nb/models/digits")
    words = ["evaluate", model, str(tmp_path / "real"), "--json"]
    words += "--num-samples 40 --batch-size 16 --resamples 5 --max-features 30".split()
    results = []
    for launcher in ([sys.executable, "-m", "dit_nb.cli"], BY_ACCELERATE):
        printed = launch(*launcher, *words)
        assert printed.count("50 images of 1 channel") == printed.count("features: digits") == 1
        assert ("2 processes" in printed) == (launcher is BY_ACCELERATE)
        results.append(json.loads(re.search(r"^\{.*?^\}", printed, re.S | re.M)[0]))
    one, two = (result.pop("metrics") for result in results)
    assert results[0] == results[1] and one.keys() == two.keys() and len(one) == 5
    for name, row in one.items():
        assert two[name] == pytest.approx(row, rel=1e-6, abs=1e-9), name
