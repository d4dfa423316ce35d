"""The GPU report: end to end in miniature, resumed, and what its parts are."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gpu_report

TOOL = Path(gpu_report.__file__)


def call(folder, *words):
    done = subprocess.run(
        [sys.executable, str(TOOL), str(folder), "--miniature", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TOOL.parent.parent)},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_miniature_writes_every_part_and_the_table(tmp_path):
    status, output = call(tmp_path)
    assert status == 0 and "Nothing is missing." in output, output
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["parts"]) == gpu_report.part_names(miniature=True) and not report["errors"]
    rows = report["parts"]["races-digits-2"]["rows"]
    assert {(r["job"], r["variant"].split()[0]) for r in rows} >= {("train", "ours"), ("sample", "ours")}
    table = (tmp_path / "report.md").read_text()
    for title in ("Races", "Memory", "Growth", "Loss curves", "Emoji"):
        assert f"## {title}" in table


def test_a_part_that_is_there_is_not_run_again_and_another_is_reported_as_missing(tmp_path):
    machine = {
        "device": "a card",
        "torch": "2",
        "cuda": "13",
        "date": "today",
        "matmul_tflops": {"bfloat16": 790.0},
    }
    (tmp_path / "machine.json").write_text(json.dumps(machine))
    status, output = call(tmp_path, "--parts", "machine")
    assert status == 1 and "a card" in output and "Missing: tests" in output
    assert json.loads((tmp_path / "machine.json").read_text()) == machine


def test_an_unknown_part_is_named(tmp_path):
    status, output = call(tmp_path, "--parts", "races-M-2")
    assert status == 2 and "no such part: races-M-2" in output


def test_every_model_is_timed_plain_and_compiled():
    names = gpu_report.part_names(miniature=False)
    assert len(set(names)) == len(names) and set(gpu_report.TOGETHER) < set(names)
    for model in ("digits-2", "S-2", "B-2"):
        assert {f"races-{model}", f"races-{model}-compiled"} < set(names)
    for how in ("", "-compiled"):
        assert {f"races-XL-2{how}-train", f"races-XL-2{how}-sample"} < set(names)


def test_without_diffusers_ours_is_measured_alone(monkeypatch):
    assert gpu_report.variants(" compiled") == ("ours bf16 compiled", "diffusers bf16 compiled")
    monkeypatch.setattr(gpu_report.importlib.util, "find_spec", lambda name: None)
    assert gpu_report.variants("") == ("ours bf16",)
    row = {"variant": "ours bf16", "ratio_to": "ours bf16", "config": "S/2", "job": "train"}
    row |= {"ratio": 1.0, "ratio_rounds": [1.0], "utilization": 0.5}
    assert "no peer" in gpu_report.cells([row])[-1]


def test_a_part_that_hangs_is_stopped_and_its_reason_kept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    (tmp_path / "growth.error").write_text("")
    gpu_report.wait(process, "growth", tmp_path, 0.2)
    assert process.returncode == -9 and "stopped after 0 s" in (tmp_path / "growth.error").read_text()


def test_memory_is_shared_by_threads():
    memory, order = gpu_report.Memory(10), []

    def take(gigabytes, name):
        with memory.held(gigabytes):
            order.append(name)

    with memory.held(6):
        threads = [threading.Thread(target=take, args=pair) for pair in ((20, "all"), (4, "rest"))]
        threads[1].start()
        threads[1].join(10)
        threads[0].start()
        assert order == ["rest"] and memory.left == 4  # all of it is not free yet
    threads[0].join(10)
    assert order == ["rest", "all"] and memory.left == 10
